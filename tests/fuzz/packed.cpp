// PackedFile on any bytes: opening, reading every linear, and the dense file made of it.
#include "fuzz.hpp"
#include "packed_files.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

std::string file_of(std::string_view input) {
  if (input.empty()) return {};
  const std::string_view rest = input.substr(1);
  switch (fuzz::PackedInput(static_cast<unsigned char>(input.front()) % 3)) {
    case fuzz::PackedInput::repaired:
      return fuzz::repaired_packed(rest);
    case fuzz::PackedInput::recipe:
      return fuzz::packed_of_recipe(rest);
    case fuzz::PackedInput::file:
      break;
  }
  return std::string(rest);
}

/// What is accepted has finite weights, and is the same when written as a dense file.
void read_all(const std::filesystem::path& folder) {
  const pare::PackedFile file(folder);
  bool small = true;
  for (const pare::PackedEntry& entry : file.linears()) {
    const pare::PackedLinear packed = file.read(entry);
    require(pare::checksum(packed) == entry.checksum);
    small = small && entry.layout.rows * entry.layout.columns <= 1 << 16;
  }
  if (!small) return;
  pare::write_unpacked(folder / "dense", file);
  const pare::SafetensorsFile dense(folder / "dense");
  for (const pare::PackedEntry& entry : file.linears()) {
    const pare::PackedLinear packed = file.read(entry);
    pare::Matrix<float> weights(packed.layout.rows, packed.layout.columns);
    pare::unpack_rows(packed, 0, weights.view());
    pare::rotate_back(packed, weights.view());
    const pare::Matrix<float> stored = dense.read_float(entry.tensor);
    for (pare::index_t k = 0; k < weights.size(); ++k)
      require(std::isfinite(weights.data()[k]) &&
              pare::round_to(packed.dtype, weights.data()[k]) == stored.data()[k]);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::Folder folder;
  const std::string file = file_of(std::string_view(reinterpret_cast<const char*>(data), size));
  test::write_text(folder / pare::PackedFile::name, file);
  return fuzz::check(reinterpret_cast<const std::uint8_t*>(file.data()), file.size(),
                     [](std::string_view) { read_all(folder.path); },
                     // A mask may take a tenth of a bit for a weight; 2^20 are unpacked at a time,
                     // or one row; its columns are listed grid by grid, 8 bytes each.
                     {.per_byte = 700, .free = 5u << 20});
}
