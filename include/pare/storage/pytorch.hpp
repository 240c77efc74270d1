// PyTorch checkpoints (`pytorch_model.bin`): a zip archive of a pickle and the tensors' bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/pickle.hpp"
#include "pare/storage/tensor_file.hpp"
#include "pare/storage/zip.hpp"

namespace pare::inline PARE_TARGET {

/// A file that torch.save wrote of a dictionary of tensors, open for reading. Archive and pickle
/// are read and checked as a whole on opening, no code of theirs is run; tensors may share bytes.
class PytorchFile : public TensorFile {
 public:
  /// Opens `path`. Throws io_error if it cannot be read, format_error if it holds anything but
  /// contiguous tensors within their storages; the message begins with the path.
  explicit PytorchFile(const std::filesystem::path& path) : TensorFile(path) {
    if (const auto what =
            detail::foreign_content(file_.text(0, std::min<std::uint64_t>(file_.size(), 64))))
      throw format_error(name_ + ": " + *what);
    const std::vector<ZipEntry> entries = detail::read_zip(file_);
    const ZipEntry& pickle = find_pickle(entries);
    const std::string_view folder = pickle.name.substr(0, pickle.name.size() - pickle_name.size());
    std::map<std::string_view, ZipEntry> records;
    for (const ZipEntry& entry : entries)
      if (entry.name.starts_with(folder)) records.emplace(entry.name.substr(folder.size()), entry);

    if (const auto order = records.find("/byteorder"); order != records.end()) {
      const std::string_view text = file_.text(order->second.begin, order->second.size);
      if (text != "little")
        throw format_error(name_ + ": expected byteorder 'little', got " +
                           detail::quoted_name(text));
    }
    const auto tensors =
        detail::read_tensor_pickle(name_ + ": " + std::string(pickle_name.substr(1)),
                                   file_.text(pickle.begin, pickle.size));
    for (const PickledTensor& tensor : tensors) add(tensor, records);
    index_tensors();
  }

 private:
  static constexpr std::string_view pickle_name = "/data.pkl";

  const ZipEntry& find_pickle(const std::vector<ZipEntry>& entries) const {
    const ZipEntry* found = nullptr;
    for (const ZipEntry& entry : entries) {
      if (!entry.name.ends_with(pickle_name)) continue;
      if (found != nullptr)
        throw format_error(name_ + ": holds both " + detail::quoted_name(found->name) + " and " +
                           detail::quoted_name(entry.name) + ", expected one data.pkl");
      found = &entry;
    }
    if (found == nullptr)
      throw format_error(name_ + ": a zip archive without data.pkl, not one of torch.save");
    return *found;
  }

  void add(const PickledTensor& tensor, const std::map<std::string_view, ZipEntry>& records) {
    try {
      (void)nlohmann::json(std::string(tensor.name)).dump();
    } catch (const nlohmann::json::exception&) {
      throw bad_tensor(tensor.name, "has a name that is not valid UTF-8");
    }
    const PickledStorage& storage = tensor.storage;
    constexpr std::size_t key_limit = 64;  // keys are numbers; the text of a name may be long
    const auto record = storage.key.size() > key_limit
                            ? records.end()
                            : records.find("/data/" + std::string(storage.key));
    if (record == records.end())
      throw bad_tensor(tensor.name, "is in storage " + detail::quoted_name(storage.key) +
                                        ", which the archive does not hold");
    const auto width = std::uint64_t(element_bytes(storage.dtype));
    const ZipEntry& entry = record->second;
    if (entry.size % width != 0 || entry.size / width != storage.elements)
      throw bad_tensor(tensor.name, "is in storage " + detail::quoted_name(storage.key) + " of " +
                                        std::to_string(storage.elements) + " elements of " +
                                        storage.dtype + ", but the archive holds " +
                                        std::to_string(entry.size) + " bytes of it");

    TensorInfo info{std::string(tensor.name), storage.dtype, tensor.shape, 0, 0};
    const auto bytes = detail::tensor_bytes(info.dtype, info.shape);
    if (!bytes)
      throw bad_tensor(tensor.name, "has a negative side or a shape whose size overflows");
    if (*bytes > 0) require_contiguous(tensor);
    if (tensor.offset > storage.elements || *bytes / width > storage.elements - tensor.offset)
      throw bad_tensor(tensor.name, "has " + std::to_string(*bytes / width) +
                                        " elements from element " + std::to_string(tensor.offset) +
                                        " on, but its storage holds only " +
                                        std::to_string(storage.elements));
    info.begin = entry.begin + tensor.offset * width;
    info.end = info.begin + *bytes;
    tensors_.push_back(std::move(info));
  }

  /// Throws unless the elements lie one after the other in row-major order.
  void require_contiguous(const PickledTensor& tensor) const {
    std::int64_t expected = 1;
    for (std::size_t i = tensor.shape.size(); i-- > 0;) {
      // Where a side is 1 its stride is never taken.
      if (tensor.shape[i] != 1 && tensor.stride[i] != expected)
        throw bad_tensor(tensor.name,
                         "is not contiguous: stride " + std::to_string(tensor.stride[i]) +
                             " on side " + std::to_string(i) + ", expected " +
                             std::to_string(expected) + "; save it after .contiguous()");
      expected *= tensor.shape[i];
    }
  }
};

}  // namespace pare
