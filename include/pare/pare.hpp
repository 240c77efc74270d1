// Everything but the backends: include pare/backend/eigen.hpp or another beside it.
#pragma once

#include "pare/allocation/allocator.hpp"
#include "pare/calibration/calibration.hpp"
#include "pare/calibration/factor.hpp"
#include "pare/core/version.hpp"
#include "pare/importance/scorer.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "pare/report/statistics.hpp"
#include "pare/report/text.hpp"
#include "pare/solver/sparsegpt.hpp"
