// Zip archives, pickles and PyTorch checkpoints as bytes, whole or wrong on purpose.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pare/storage/safetensors.hpp"

namespace test {

/// The bytes of a number, little-endian.
template <class U>
std::string raw(U value) {
  std::string text(sizeof(U), '\0');
  std::memcpy(text.data(), &value, sizeof(U));
  return text;
}

/// One entry of an archive. What is set beside name and data makes it wrong or unusual.
struct ZipPart {
  std::string name, data;
  std::uint16_t flags = 0, method = 0;
  bool zip64 = false;                  ///< sizes and offset in the extra field
  std::int64_t shift = 0;              ///< added to the offset of the local header
  std::uint64_t claimed = UINT64_MAX;  ///< size in the directory, when not the data's
  std::string local_name = {};         ///< name in the local header, when not `name`
};

/// What is unusual about the end of an archive.
struct ZipEnd {
  bool zip64 = false;
  std::string comment = {};
  std::int64_t count = 0, directory_bytes = 0, directory = 0;  ///< added to what is true
  std::uint16_t disk = 0;
  std::int64_t locator = 0;
};

inline std::string zip_of(const std::vector<ZipPart>& parts, const ZipEnd& end = {}) {
  std::string file, directory;
  for (const ZipPart& part : parts) {
    const std::uint64_t offset = file.size() + std::uint64_t(part.shift);
    const std::uint64_t size = part.claimed == UINT64_MAX ? part.data.size() : part.claimed;
    const auto narrow = [&](std::uint64_t n) {
      return raw(part.zip64 ? 0xffffffffu : std::uint32_t(n));
    };
    const std::string extra =
        part.zip64 ? raw<std::uint32_t>(0x00180001) + raw(size) + raw(size) + raw(offset) : "";
    const std::string& local = part.local_name.empty() ? part.name : part.local_name;
    const auto middle = [&](std::uint64_t n) {
      return raw<std::uint16_t>(0) + raw(part.flags) + raw(part.method) + std::string(8, '\0') +
             narrow(n) + narrow(n);
    };
    file += raw<std::uint32_t>(0x04034b50) + middle(part.data.size()) +
            raw(std::uint16_t(local.size())) + raw<std::uint16_t>(0) + local + part.data;
    directory += raw<std::uint32_t>(0x02014b50) + raw<std::uint16_t>(0) + middle(size) +
                 raw(std::uint16_t(part.name.size())) + raw(std::uint16_t(extra.size())) +
                 raw<std::uint16_t>(0) + std::string(8, '\0') + narrow(offset) + part.name + extra;
  }
  const std::uint64_t count = parts.size() + std::uint64_t(end.count);
  const std::uint64_t bytes = directory.size() + std::uint64_t(end.directory_bytes);
  const std::uint64_t begin = file.size() + std::uint64_t(end.directory);
  file += directory;
  if (end.zip64) {
    const std::uint64_t at = file.size() + std::uint64_t(end.locator);
    file += raw<std::uint32_t>(0x06064b50) + raw<std::uint64_t>(44) + raw<std::uint32_t>(0) +
            raw<std::uint32_t>(end.disk) + raw<std::uint32_t>(0) + raw(count) + raw(count) +
            raw(bytes) + raw(begin);
    file +=
        raw<std::uint32_t>(0x07064b50) + raw<std::uint32_t>(0) + raw(at) + raw<std::uint32_t>(1);
  }
  const auto narrow = [&](std::uint64_t n, std::uint64_t most) { return end.zip64 ? most : n; };
  file += raw<std::uint32_t>(0x06054b50) + raw(std::uint16_t(end.zip64 ? 0 : end.disk)) +
          raw<std::uint16_t>(0) + raw(std::uint16_t(narrow(count, 0xffff))) +
          raw(std::uint16_t(narrow(count, 0xffff))) +
          raw(std::uint32_t(narrow(bytes, 0xffffffff))) +
          raw(std::uint32_t(narrow(begin, 0xffffffff))) + raw(std::uint16_t(end.comment.size())) +
          end.comment;
  return file;
}

// ---- pickles

inline std::string p_text(std::string_view text) {
  return "X" + raw(std::uint32_t(text.size())) + std::string(text);
}
inline std::string p_int(std::int64_t value) {
  return value == std::int32_t(value) ? "J" + raw(std::int32_t(value)) : "\x8a\x08" + raw(value);
}
inline std::string p_ints(const std::vector<std::int64_t>& values) {
  std::string text = "(";
  for (const std::int64_t value : values) text += p_int(value);
  return text + "t";
}
inline std::string p_global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline const std::string p_no_hooks = p_global("collections", "OrderedDict") + ")R";

inline std::string p_storage(const std::string& type, const std::string& key,
                             std::int64_t elements) {
  return "(" + p_text("storage") + p_global("torch", type) + p_text(key) + p_text("cpu") +
         p_int(elements) + "tQ";
}
inline std::string p_tensor(const std::string& storage, std::int64_t offset,
                            const std::string& shape, const std::string& stride) {
  return p_global("torch._utils", "_rebuild_tensor_v2") + "(" + storage + p_int(offset) + shape +
         stride + "\x89" + p_no_hooks + "tR";
}
/// A dictionary of what `items` pickle: keys and values, one after the other.
inline std::string p_dict(const std::string& items) { return "\x80\x02}(" + items + "u."; }

inline std::vector<std::int64_t> row_major(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> stride(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) stride[i - 1] = stride[i] * shape[i];
  return stride;
}

// ---- checkpoints

/// An archive of torch.save from its pickle and its storages.
inline std::string torch_file(const std::string& pickle,
                              const std::map<std::string, std::string>& storages,
                              const std::string& byteorder = "little") {
  std::vector<ZipPart> parts{{"archive/data.pkl", pickle}, {"archive/byteorder", byteorder}};
  for (const auto& [key, data] : storages) parts.push_back({"archive/data/" + key, data});
  parts.push_back({"archive/version", "3\n"});
  return zip_of(parts);
}

/// The storage type of a safetensors dtype.
inline std::string storage_type(const std::string& dtype) {
  static const std::map<std::string, std::string> types{
      {"F16", "HalfStorage"},   {"BF16", "BFloat16Storage"}, {"F32", "FloatStorage"},
      {"F64", "DoubleStorage"}, {"I64", "LongStorage"},      {"I32", "IntStorage"},
      {"I16", "ShortStorage"},  {"I8", "CharStorage"},       {"U8", "ByteStorage"},
      {"BOOL", "BoolStorage"}};
  return types.at(dtype);
}

/// The tensors as torch.save writes them. Those of the same `bytes` as an earlier one share its
/// storage where `share`.
inline std::string torch_file(const std::vector<pare::TensorData>& tensors, bool share = false) {
  std::string items;
  std::map<std::string, std::string> storages;
  for (const pare::TensorData& t : tensors) {
    const std::string bytes(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size());
    std::string key = std::to_string(storages.size());
    if (share)
      for (const auto& [other, data] : storages)
        if (data == bytes) key = other;
    storages[key] = bytes;
    const auto elements = std::int64_t(bytes.size()) / pare::element_bytes(t.dtype);
    items += p_text(t.name) + p_tensor(p_storage(storage_type(t.dtype), key, elements), 0,
                                       p_ints(t.shape), p_ints(row_major(t.shape)));
  }
  return torch_file(p_dict(items), storages);
}

}  // namespace test
