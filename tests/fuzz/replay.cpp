// Runs the target it is linked with once on every file of the folders given, without libFuzzer, and
// prints what was allocated:   replay FOLDER...
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::string current;  // the input at work

extern "C" void name_input(int) {
  (void)!::write(2, current.data(), current.size());
  ::_exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGABRT, name_input);
  std::size_t count = 0, largest = 0, most = 0;
  double share = 0;
  for (int i = 1; i < argc; ++i) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i]))
      if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& file : files) {
      const std::string input = test::read_text(file);
      current = "failed on " + file.string() + "\n";
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
      const fuzz::Allocations& a = fuzz::allocations;
      const auto held = std::size_t(std::max<std::ptrdiff_t>(a.most, 0));
      share = std::max(share, double(a.largest) / double(a.limit));
      largest = std::max(largest, a.largest);
      most = std::max(most, held);
      ++count;
    }
  }
  std::printf(
      "%zu inputs; largest allocation %zu bytes, at most %.3f of what an input justifies; "
      "%zu held at a time\n",
      count, largest, share, most);
  return count == 0 ? 2 : 0;
}
