// The report that pare verify reads, from any text.
#include "fuzz.hpp"
#include "pare/pipeline/run/verify_folder.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view text) {
    const test::MemoryFile file(text);
    const pare::PackedReport report = pare::read_packed_report(file.path());
    for (const auto& [name, linear] : report.linears)
      if (!report.recorded.contains(name)) std::abort();
  });
}
