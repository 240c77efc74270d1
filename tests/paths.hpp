// Where the tests find files. Compiled once: absolute paths in every test's command line would keep
// a compiler cache from serving another clone.
#pragma once

namespace test {

extern const char* const shared_dir;     ///< golden data; the folder need not be there
extern const char* const examples_data;  ///< what the repository ships

}  // namespace test
