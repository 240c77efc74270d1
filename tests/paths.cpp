#include "paths.hpp"

const char* const test::shared_dir = PARE_SHARED_DIR;
const char* const test::examples_data = PARE_EXAMPLES_DATA;
