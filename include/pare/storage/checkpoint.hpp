// The weights of a Hugging Face model folder, in safetensors or as PyTorch saves them: one file, or
// shards and their index.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/storage/json.hpp"
#include "pare/storage/pytorch.hpp"
#include "pare/storage/safetensors.hpp"
#include "pare/storage/tensor_file.hpp"

namespace pare::inline PARE_TARGET {

/// Where a tensor lies. Valid as long as its Checkpoint.
struct TensorLocation {
  /// The file that holds it.
  const TensorFile* file = nullptr;
  /// Its entry in that file's table.
  const TensorInfo* info = nullptr;
};

/// The formats of checkpoint files.
enum class CheckpointFormat : std::uint8_t { safetensors, pytorch };

/// The tensors of a model folder, looked up by name whatever file holds them.
class Checkpoint {
 public:
  /// Weights of a model in one file.
  static constexpr const char* single_name = "model.safetensors";
  /// List of shards.
  static constexpr const char* index_name = "model.safetensors.index.json";
  /// Weights in one file of torch.save.
  static constexpr const char* pytorch_name = "pytorch_model.bin";
  /// List of such shards.
  static constexpr const char* pytorch_index_name = "pytorch_model.bin.index.json";

  /// Opens the first there is of `model.safetensors`, the shards that
  /// `model.safetensors.index.json` lists, `pytorch_model.bin` and the shards that
  /// `pytorch_model.bin.index.json` lists. Throws io_error if `folder` has none or not every shard
  /// can be read, format_error if the content of one breaks the format.
  explicit Checkpoint(const std::filesystem::path& folder) : folder_(folder) {
    if (present(folder / single_name)) {
      open_single(folder / single_name);
    } else if (present(folder / index_name)) {
      open_shards(folder / index_name);
    } else if (present(folder / pytorch_name)) {
      format_ = CheckpointFormat::pytorch;
      open_single(folder / pytorch_name);
    } else if (present(folder / pytorch_index_name)) {
      format_ = CheckpointFormat::pytorch;
      open_shards(folder / pytorch_index_name);
    } else if (std::error_code ignored; !std::filesystem::is_directory(folder, ignored)) {
      throw io_error(folder.string() + ": not a folder");
    } else {
      throw io_error(folder.string() + ": found none of " + single_name + ", " + index_name + ", " +
                     pytorch_name + " and " + pytorch_index_name + other_weights());
    }
  }

  /// Opens the safetensors file called `file` of `folder` alone.
  Checkpoint(const std::filesystem::path& folder, const char* file) : folder_(folder) {
    open_single(folder / file);
  }

  /// The folder given.
  const std::filesystem::path& folder() const { return folder_; }
  /// The files, ordered by name.
  const std::vector<TensorFile>& files() const { return files_; }
  /// The format of every file.
  CheckpointFormat format() const { return format_; }
  /// Whether the weights are shards with an index.
  bool sharded() const { return sharded_; }

  /// The tensor called `name`, or nothing.
  std::optional<TensorLocation> find(std::string_view name) const {
    const auto found = file_of_.find(name);
    if (found == file_of_.end()) return std::nullopt;
    const TensorFile& file = files_[found->second];
    return TensorLocation{&file, file.find(name)};
  }

  /// The tensor called `name`. Throws format_error if there is none.
  TensorLocation at(std::string_view name) const {
    if (const auto location = find(name)) return *location;
    throw format_error(folder_.string() + ": there is no tensor " + detail::quoted_name(name));
  }

  /// Whether the tensor called `name` is read from `file`; another shard may hold one of that name.
  /// A tensor that the index does not list is read from the first file that has it.
  bool reads(const TensorFile& file, std::string_view name) const {
    if (const auto location = find(name)) return location->file == &file;
    const auto first = std::find_if(files_.begin(), files_.end(), [&](const TensorFile& other) {
      return other.find(name) != nullptr;
    });
    return first != files_.end() && &*first == &file;
  }

  /// As TensorFile::read_float, from whichever file holds the tensor.
  Matrix<float> read_float(std::string_view name) const { return at(name).file->read_float(name); }

 private:
  // Not the throwing form: what cannot be looked at is reported as missing, with our message.
  static bool present(const std::filesystem::path& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored);
  }

  /// "; 'x.h5' is not read": the first weights in the folder that are called otherwise.
  std::string other_weights() const {
    for (const std::string& name : detail::names_in(folder_))
      for (const char* extension :
           {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf"})
        if (name.ends_with(extension))
          return "; " + detail::quoted_name(name) + " is not read under that name";
    return {};
  }

  void open_file(const std::filesystem::path& path) {
    if (format_ == CheckpointFormat::safetensors)
      files_.push_back(SafetensorsFile(path));
    else
      files_.push_back(PytorchFile(path));
  }

  void open_single(const std::filesystem::path& path) {
    open_file(path);
    for (const TensorInfo& info : files_[0].tensors()) file_of_.emplace(info.name, 0);
  }

  void open_shards(const std::filesystem::path& index_path) {
    const std::string index_file = index_path.string();
    const auto index = detail::parse_json_object(index_file, detail::read_whole_file(index_path));
    const auto weight_map = index.find("weight_map");
    if (weight_map == index.end() || !weight_map->is_object())
      throw format_error(index_file + ": weight_map is missing or not an object");

    std::map<std::string, std::size_t> shards;  // ordered, so that the files are
    for (const auto& [tensor, shard] : weight_map->items()) {
      if (!shard.is_string())
        throw format_error(index_file + ": the file of tensor " + detail::quoted_name(tensor) +
                           " is not a string");
      const auto name = shard.get<std::string>();
      // The index may come from anywhere; it must not lead out of the folder.
      if (name.empty() || name == "." || name.find("..") != std::string::npos ||
          name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
        throw format_error(index_file + ": tensor " + detail::quoted_name(tensor) + " is in file " +
                           detail::quoted_name(name) + ", which is not a plain file name");
      shards.emplace(name, 0);
    }
    for (auto& [name, position] : shards) {
      if (!present(folder_ / name))
        throw io_error(index_file + ": shard " + detail::quoted_name(name) + " is missing");
      position = files_.size();
      open_file(folder_ / name);
    }
    for (const auto& [tensor, shard] : weight_map->items()) {
      const auto name = shard.get<std::string>();
      const std::size_t position = shards.at(name);
      if (files_[position].find(tensor) == nullptr)
        throw format_error(index_file + ": tensor " + detail::quoted_name(tensor) +
                           " is not in its shard " + detail::quoted_name(name));
      file_of_.emplace(tensor, position);
    }
    sharded_ = true;
  }

  std::filesystem::path folder_;
  CheckpointFormat format_ = CheckpointFormat::safetensors;
  std::vector<TensorFile> files_;
  std::map<std::string, std::size_t, std::less<>> file_of_;
  bool sharded_ = false;
};

}  // namespace pare
