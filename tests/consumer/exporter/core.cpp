#include "pare/core/version.hpp"

int version_of_pare() { return PARE_VERSION; }
