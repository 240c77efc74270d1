// What files and folders are that are given for a model time and again, and are none that can be
// read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// What git keeps in place of a large file until that is fetched.
inline constexpr std::string_view lfs_pointer = "version https://git-lfs";
inline constexpr const char* lfs_text =
    "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'";

/// The same of a GGUF file.
inline constexpr const char* gguf_text =
    "a GGUF file of llama.cpp, which is not read; give the Hugging Face folder it was made from";

/// What a file of another kind is and what to do instead, by its first bytes; nothing when these
/// say nothing.
inline std::optional<std::string> foreign_content(std::string_view start) {
  using namespace std::string_view_literals;
  struct Kind {
    std::string_view begins;
    const char* what;
  };
  static constexpr Kind kinds[] = {
      {lfs_pointer, lfs_text},
      {"GGUF"sv, gguf_text},
      {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv,
       "written in the format of PyTorch before 1.6, which is not read; load it with a newer "
       "PyTorch and save it again"},
      {"\x89HDF"sv, "an HDF5 file of TensorFlow, which is not read; save the model as safetensors"},
      {"<!DOCTYPE"sv, "a web page, not the file itself; fetch the file anew"},
      {"<!doctype"sv, "a web page, not the file itself; fetch the file anew"},
      {"<html"sv, "a web page, not the file itself; fetch the file anew"}};
  for (const Kind& kind : kinds)
    if (start.starts_with(kind.begins)) return kind.what;
  return std::nullopt;
}

/// The content of a text to be read by a model, which may be anything but what git keeps in place
/// of it. Throws io_error, format_error.
inline std::string read_text_file(const std::filesystem::path& path) {
  std::string text = read_whole_file(path);
  if (text.starts_with(lfs_pointer)) throw format_error(path.string() + ": " + lfs_text);
  return text;
}

/// The content of a text file of a model. Throws io_error; format_error for a file of another kind.
inline std::string read_model_text(const std::filesystem::path& path) {
  std::string text = read_whole_file(path);
  if (const auto what = foreign_content(text)) throw format_error(path.string() + ": " + *what);
  return text;
}

/// "<where>: already quantized by <method>": the refusal of weights that are codes and scales.
inline format_error already_quantized(const std::string& where, const std::string& method) {
  return format_error(where + ": the model is already quantized by " + method +
                      "; give the model it was made from, with weights in F16, BF16 or F32");
}

/// The names of the files in a folder; none when it cannot be read.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// The text under `key` in a JSON file; "?" when there is none.
inline std::string text_in_json(const std::filesystem::path& file, const char* key) {
  try {
    const auto json = parse_json_object(file.string(), read_whole_file(file));
    const auto found = json.find(key);
    if (found != json.end() && found->is_string()) return quoted_name(found->get<std::string>());
  } catch (const error&) {
  }
  return "?";
}

/// Whether a name is of the form OWNER/MODEL, or one word, that the Hugging Face hub has.
inline bool is_hub_name(const std::string& name) {
  const auto part = [](std::string_view text) {
    return !text.empty() && text.front() != '.' && text.front() != '-' &&
           std::all_of(text.begin(), text.end(), [](char c) {
             return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '_' || c == '-';
           });
  };
  const std::size_t slash = name.find('/');
  return slash == name.npos ? part(name)
                            : part(name.substr(0, slash)) && part(name.substr(slash + 1));
}

/// What a file is that was given in place of a model folder, and what to give.
inline std::string foreign_file(const std::filesystem::path& path) {
  const std::string name = path.string() + ": ", extension = path.extension().string();
  const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
  try {
    const InputFile file(path);
    if (const auto what = foreign_content(file.text(0, std::min<std::uint64_t>(file.size(), 64))))
      return name + *what;
  } catch (const error&) {
  }
  if (extension == ".gguf") return name + gguf_text;
  for (const char* weights : {".safetensors", ".bin", ".pt", ".pth", ".ckpt"})
    if (extension == weights)
      return name +
             "a file of weights; give the folder that holds it together with config.json and "
             "the tokenizer, perhaps " +
             parent.string();
  if (path.filename() == "config.json")
    return name + "a file of a model; give its folder, " + parent.string();
  return name +
         "a file, not a folder; give the Hugging Face folder of a model, which holds "
         "config.json, weights and a tokenizer";
}

/// What was given in place of a model folder, and what to give; nothing for a folder with a
/// config.json and where there is nothing to say.
inline std::optional<std::string> foreign_model(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const std::string name = path.string() + ": ";
  if (!fs::exists(path, ignored)) return std::nullopt;
  if (!fs::is_directory(path, ignored)) return foreign_file(path);
  if (fs::exists(path / "config.json", ignored)) return std::nullopt;
  if (fs::exists(path / "adapter_config.json", ignored))
    return name + "an adapter of PEFT (LoRA) for " +
           text_in_json(path / "adapter_config.json", "base_model_name_or_path") +
           ", not a model; merge it into that model (merge_and_unload), save it and give that "
           "folder";
  if (fs::exists(path / "model_index.json", ignored))
    return name +
           "a pipeline of several models, of which none is read; give the Hugging Face folder "
           "of a language model";
  if (fs::exists(path / "snapshots", ignored))
    for (const std::string& snapshot : names_in(path / "snapshots"))
      if (fs::exists(path / "snapshots" / snapshot / "config.json", ignored))
        return name + "a folder of the Hugging Face cache; give " +
               (path / "snapshots" / snapshot).string();
  for (const std::string& entry : names_in(path)) {
    if (fs::path(entry).extension() == ".gguf")
      return name + "there is no config.json but " + quoted_name(entry) + ", " + gguf_text;
    if (fs::exists(path / entry / "config.json", ignored))
      return name + "there is no config.json in it, but in " + (path / entry).string() +
             "; give that folder";
  }
  return std::nullopt;
}

/// Throws what foreign_model says; io_error for a folder that is not there, which may be a name on
/// a hub. A folder without config.json that looks like nothing else passes.
inline void require_model_folder(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored) && is_hub_name(path.string()))
    throw io_error(path.string() +
                   ": No such file or directory; if it is the name of a model on the Hugging Face "
                   "hub, fetch it with 'hf download " +
                   path.string() + " --local-dir FOLDER' and give FOLDER");
  if (const auto what = foreign_model(path)) throw format_error(*what);
}

}  // namespace detail

}  // namespace pare
