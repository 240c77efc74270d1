// Packed files for the fuzz target of that format: made from a few bytes, or repaired where a
// mutation only broke what is derived from the rest (lengths, checksums).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pare/storage/packed_file.hpp"
#include "pare/storage/packed_writer.hpp"

namespace fuzz {

/// The first byte of an input: what the rest is.
enum class PackedInput : std::uint8_t {
  file,      ///< a packed file as it stands
  repaired,  ///< one whose lengths and checksums are put right first
  recipe,    ///< what packed_of_recipe makes a file of
};

/// Takes numbers from the front of an input; 1 when it has ended.
class Recipe {
 public:
  explicit Recipe(std::string_view bytes) : rest_(bytes) {}
  unsigned next() {
    if (rest_.empty()) return 1;
    const auto first = static_cast<unsigned char>(rest_.front());
    rest_.remove_prefix(1);
    return first;
  }
  /// A number from `low` to `high`.
  int within(int low, int high) { return low + int(next() % unsigned(high - low + 1)); }

 private:
  std::string_view rest_;
};

/// A linear of any layout. A wild one breaks what a reader must check: scales, zero points, group
/// indices, the length of the codes.
inline pare::PackedLinear linear_of_recipe(Recipe& recipe) {
  using namespace pare;
  PackedLinear packed;
  PackedLayout& layout = packed.layout;
  const bool wild = recipe.within(0, 7) == 7;
  layout.rows = recipe.within(1, 20);
  layout.columns = recipe.within(1, 80);
  layout.axis = recipe.within(0, 1) == 0 ? ChannelAxis::output : ChannelAxis::input;
  packed.dtype = DType(recipe.within(0, 3));
  packed.kind = PackedMask(recipe.within(0, 2));
  if (packed.kind == PackedMask::bits) layout.pattern = unstructured(0);
  if (packed.kind == PackedMask::n_of_m) {
    layout.pattern.kind = PatternKind::n_of_m;
    layout.pattern.of = recipe.within(2, detail::longest_indexed_of);
    layout.pattern.zeros = recipe.within(1, layout.pattern.of - 1);
    if (detail::n_of_m_index_bits(layout.pattern.zeros, layout.pattern.of) == 0)
      layout.pattern.zeros = 1;
    layout.columns =
        (layout.columns + layout.pattern.of - 1) / layout.pattern.of * layout.pattern.of;
  }
  const unsigned grids = recipe.next();
  const unsigned widths = grids % 3;  // none, one, one per channel
  if (grids >= 128 && widths > 0) layout.group_size = index_t(grids % 37) + 1;
  if (grids >= 192) packed.rotation = kernels::HadamardRotation{grids};
  if (widths == 0) layout.value_bits = 8 * dtype_bytes(packed.dtype);
  if (widths == 1) layout.widths = {std::uint8_t(recipe.within(min_bits, max_bits))};
  if (widths == 2)
    for (index_t c = 0; c < layout.channels(); ++c)
      layout.widths.push_back(std::uint8_t(recipe.within(min_bits, max_bits)));

  const GridMap map = grid_map(layout.axis, layout.widths, layout.columns, layout.group_size);
  for (index_t k = 0; k < map.grids() * layout.rows; ++k) {
    const int width = map.width_of(k / layout.rows, k % layout.rows, layout.widths);
    const unsigned scale = recipe.next() << 8 | recipe.next(), zero = recipe.next();
    packed.scales.push_back(std::uint16_t(wild ? scale : 0x0400 | (scale & 0x3fff)));
    packed.zeros.push_back(std::uint8_t(wild ? zero : zero & ((1u << width) - 1)));
  }
  packed.mask.resize(std::size_t(layout.rows) * packed.mask_row_bytes());
  for (std::byte& b : packed.mask) b = std::byte(recipe.next());
  if (packed.kind == PackedMask::n_of_m && !wild) {
    const std::uint64_t ways =
        detail::binomials[std::size_t(layout.pattern.of)][std::size_t(layout.pattern.zeros)];
    for (index_t i = 0; i < layout.rows; ++i) {
      detail::BitWriter writer(packed.mask.data() + std::uint64_t(i) * packed.mask_row_bytes());
      for (index_t j = 0; j < layout.columns; j += layout.pattern.of)
        writer.put(std::uint32_t((recipe.next() * 0x01010101u + recipe.next()) % ways),
                   detail::n_of_m_index_bits(layout.pattern.zeros, layout.pattern.of));
      writer.finish();
    }
  }
  std::vector<std::uint8_t> pruned(std::size_t(layout.columns));
  std::uint64_t bytes = wild ? recipe.next() : 0;
  for (index_t i = 0; i < layout.rows; ++i) {
    detail::read_mask_row(packed, i, pruned.data());
    std::uint64_t bits = 0;
    for (index_t j = 0; j < layout.columns; ++j)
      if (pruned[std::size_t(j)] == 0) bits += std::uint64_t(layout.code_bits(i, j));
    bytes += detail::row_bytes(bits);
  }
  packed.codes.resize(bytes);
  // Without a quantizer codes are floats: the bit that is cut off keeps them finite.
  const unsigned kept = layout.quantized() || wild ? 0xff : 0xbf;
  for (std::byte& b : packed.codes) b = std::byte(recipe.next() & kept);
  return packed;
}

/// A packed file of one to three linears and a tensor that is not packed.
inline std::string packed_of_recipe(std::string_view bytes) {
  Recipe recipe(bytes);
  nlohmann::ordered_json entries = nlohmann::ordered_json::array();
  std::vector<pare::TensorInfo> infos;
  std::string data;
  const auto add = [&](pare::TensorInfo info, std::span<const std::byte> content) {
    info.end = content.size();  // only the size counts
    infos.push_back(std::move(info));
    data.append(reinterpret_cast<const char*>(content.data()), content.size());
  };
  for (int left = recipe.within(1, 3); left > 0; --left) {
    const std::string name = "w" + std::to_string(left);
    const pare::PackedLinear packed = linear_of_recipe(recipe);
    const auto parts = pare::detail::part_bytes(packed);
    for (pare::TensorInfo& info : pare::detail::part_infos(name, packed)) {
      std::size_t p = 0;
      while (!info.name.ends_with(pare::detail::packed_parts[p])) ++p;
      add(std::move(info), parts[p]);
    }
    entries.push_back(pare::detail::entry_json(name, packed));
    entries.back()["original"] = pare::hex_text(recipe.next());
  }
  const std::vector<std::byte> bias(4);
  add({"bias", "F32", {1}}, bias);
  const nlohmann::ordered_json description{{"version", pare::detail::version_of_entries(entries)},
                                           {"linears", std::move(entries)}};
  return pare::detail::safetensors_start("fuzz", infos,
                                         {{pare::detail::packed_key, description.dump()}}) +
         data;
}

namespace detail {

/// The end of the JSON object that begins at `begin`, or npos.
inline std::size_t end_of_object(std::string_view text, std::size_t begin) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = begin; i < text.size(); ++i) {
    if (quoted) {
      if (text[i] == '\\')
        ++i;
      else
        quoted = text[i] != '"';
    } else if (text[i] == '"') {
      quoted = true;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return text.npos;
}

/// One of an entry's two offsets. nlohmann's conversion takes numbers that do not fit, too.
inline std::uint64_t data_offset(const nlohmann::ordered_json& entry, int which) {
  const auto& offset = entry.at("data_offsets").at(std::size_t(which));
  return offset.is_number_unsigned() ? offset.get<std::uint64_t>() : 0;
}

}  // namespace detail

/// The file with the length of its header, the length of its data and the checksums put right, as
/// far as the header can be understood; otherwise as it is.
inline std::string repaired_packed(std::string_view file) {
  const std::size_t end = file.size() < 8 ? file.npos : detail::end_of_object(file, 8);
  if (end == file.npos) return std::string(file);
  try {
    nlohmann::ordered_json header = nlohmann::ordered_json::parse(file.substr(8, end - 8));
    std::string data(file.substr(end));
    std::uint64_t reach = 0;
    for (const auto& [name, entry] : header.items())
      if (name != "__metadata__") reach = std::max(reach, detail::data_offset(entry, 1));
    data.resize(std::min<std::uint64_t>(reach, 2 * file.size()));
    auto& text = header.at("__metadata__").at(pare::detail::packed_key);
    auto description = nlohmann::ordered_json::parse(text.get<std::string>());
    const auto bytes_of = [&](const nlohmann::ordered_json& entry) {
      const std::uint64_t begin = detail::data_offset(entry, 0);
      const std::uint64_t last = detail::data_offset(entry, 1);
      const std::span<const char> whole(data);
      return std::as_bytes(begin <= last && last <= data.size() ? whole.subspan(begin, last - begin)
                                                                : whole.first(0));
    };
    if (description.contains("checksums"))
      for (auto& [tensor, checksum] : description["checksums"].items())
        if (const auto found = header.find(tensor); found != header.end())
          checksum = pare::hex_text(pare::xxh64(bytes_of(*found)));
    for (auto& linear : description.at("linears")) {
      pare::Fingerprint hash;
      for (const char* part : pare::detail::packed_parts) {
        const auto found = header.find(linear.at("tensor").get<std::string>() + part);
        if (found == header.end()) continue;
        hash.add(bytes_of(*found));
      }
      linear["checksum"] = pare::hex_text(hash.value());
    }
    text = description.dump();
    std::string start = header.dump();
    const std::uint64_t length = start.size();
    start.insert(0, reinterpret_cast<const char*>(&length), sizeof length);
    return start + data;
  } catch (const nlohmann::json::exception&) {
    return std::string(file);
  }
}

}  // namespace fuzz
