// A folder that holds what a compression has finished: its layers, the states behind them, and a
// record of what made them. A run that was stopped goes on from it.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/core/xxh64.hpp"
#include "pare/report/json.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"
#include "pare/storage/output_file.hpp"
#include "pare/storage/safetensors.hpp"

namespace pare::inline PARE_TARGET {

/// XXH64 of a file's content, read without keeping it in memory. Throws io_error.
inline std::uint64_t file_fingerprint(const std::filesystem::path& path) {
  constexpr std::uint64_t piece = 1 << 24;
  const detail::InputFile file(path);
  Xxh64 whole;
  for (std::uint64_t at = 0; at < file.size(); at += piece) {
    const std::uint64_t length = std::min(piece, file.size() - at);
    whole.add(file.bytes(at, length));
    file.release(at, length);
  }
  return whole.value();
}

/// A run's folder. Files are written whole, made to last, and only then named in the record, so
/// that at any moment the record and the files it names are those of some finished layer. One
/// process at a time holds the folder.
class RunFolder {
 public:
  /// The file that names what is finished.
  static constexpr const char* record_name = "run.json";
  /// Of the record; another one is refused.
  static constexpr int version = 2;

  /// Opens the run in `folder`, or begins one when there is none; the folder is made when it is not
  /// there. Every file is held against its checksum.
  /// @param folder    where to keep it
  /// @param identity  {"options": {name: value}, "files": {name: fingerprint}}: all that decides
  ///                  the result
  /// @throws argument_error naming the first option or file that differs from the run's, when
  ///         another process holds the folder, or when it holds something else; format_error naming
  ///         the file that is not as it was written; io_error
  RunFolder(std::filesystem::path folder, const Json& identity) : folder_(std::move(folder)) {
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    hold();
    try {
      remove_leftovers();
      const Json given = parsed(identity.dump(-1, ' ', false, Json::error_handler_t::replace));
      if (std::filesystem::exists(folder_ / record_name, error)) {
        read_record();
        require_same(given);
        check_files();
      } else {
        if (!fits(folder_))
          throw argument_error(folder_.string() + ": there is no " + record_name +
                               " in it and it is not empty; name a new folder");
        record_ = {{"version", version},
                   {"identity", given},
                   {"layers", Json::array()},
                   {"states", nullptr},
                   {"notes", Json::object()}};
        write_record();
      }
    } catch (...) {
      ::close(descriptor_);
      throw;
    }
  }
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  ~RunFolder() { ::close(descriptor_); }

  /// The folder.
  const std::filesystem::path& path() const { return folder_; }

  /// Whether a folder holds a run, or nothing that one could not begin beside.
  static bool fits(const std::filesystem::path& folder) {
    std::error_code error;
    if (std::filesystem::exists(folder / record_name, error)) return true;
    const std::vector<std::string> found = names(folder);
    return std::all_of(found.begin(), found.end(), is_ours);
  }

  /// How many layers are finished, from the first on.
  index_t finished() const { return index_t(record_.at("layers").size()); }

  /// Of the finished layers' linears.
  Statistics statistics() const {
    Statistics statistics;
    for (const Json& layer : record_.at("layers"))
      for (const Json& linear : layer.at("statistics"))
        statistics.linears.push_back(linear_statistics_of_json(linear));
    return statistics;
  }

  /// The tensors of a finished layer.
  SafetensorsFile layer(index_t i) const {
    return SafetensorsFile(folder_ / file_name(record_.at("layers").at(std::size_t(i))));
  }

  /// What leaves the last finished layer; none when nothing was kept.
  std::optional<SafetensorsFile> states() const {
    if (record_.at("states").is_null()) return std::nullopt;
    return SafetensorsFile(folder_ / file_name(record_.at("states")));
  }

  /// Tensors that are to be written: one at a time is asked for.
  struct Tensors {
    std::vector<TensorInfo> infos;                     ///< names, types and shapes
    std::map<std::string, std::string> metadata = {};  ///< of the file
    TensorSource bytes;                                ///< of each
  };

  /// Adds the next layer, and in place of the states that are there those behind it.
  /// @param layer       its tensors
  /// @param statistics  of its linears
  /// @param states      no tensors: none are kept
  /// @throws io_error when it cannot be written; the folder is then as it was
  void add_layer(const Tensors& layer, std::span<const LinearStatistics> statistics,
                 const Tensors& states) {
    char number[32];
    std::snprintf(number, sizeof number, "%05jd", std::intmax_t(finished()));
    Json next = record_;
    Json entry = write(std::string("layer-") + number + ".safetensors", layer);
    entry["statistics"] = Json::array();
    for (const LinearStatistics& linear : statistics)
      entry["statistics"].push_back(record_json(linear));
    next["layers"].push_back(std::move(entry));
    next["states"] = nullptr;
    if (!states.infos.empty())
      next["states"] = write(std::string("states-") + number + ".safetensors", states);
    replace_record(std::move(next));
    remove_leftovers();
  }

  /// A text that is kept in a file of its own, and where it is; none when there is no such file.
  std::optional<std::filesystem::path> text(const std::string& name) const {
    if (!record_.contains("texts") || !record_.at("texts").contains(name)) return std::nullopt;
    return folder_ / name;
  }
  /// Keeps it. Throws io_error.
  void keep_text(const std::string& name, const std::string& content) {
    detail::OutputFile out(folder_ / name);
    out.write(std::as_bytes(std::span(content)));
    out.commit();
    Json next = record_;
    next["texts"][name] = file_json(name, content.size(), xxh64(std::as_bytes(std::span(content))));
    replace_record(std::move(next));
  }

  /// A small result that is kept in the record; null when there is none.
  Json note(const std::string& name) const {
    return record_.at("notes").value(name, Json(nullptr));
  }
  /// Keeps it. Throws io_error.
  void keep_note(const std::string& name, Json value) {
    Json next = record_;
    next["notes"][name] = std::move(value);
    replace_record(std::move(next));
  }

 private:
  static Json parsed(const std::string& text) { return Json::parse(text); }
  static std::string file_name(const Json& file) { return file.at("file").get<std::string>(); }

  static Json file_json(const std::string& name, std::uint64_t bytes, std::uint64_t hash) {
    return {{"file", name}, {"bytes", bytes}, {"fingerprint", hex_text(hash)}};
  }

  /// Whether a name may be a file of a run.
  static bool is_ours(const std::string& name) {
    return name.starts_with(record_name) || name.starts_with("layer-") ||
           name.starts_with("states-") || name.starts_with("sensitivities.json");
  }

  static std::vector<std::string> names(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (auto entry = std::filesystem::directory_iterator(folder, error);
         !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
      names.push_back(entry->path().filename().string());
    if (error) throw io_error(folder.string() + ": cannot list: " + error.message());
    return names;
  }

  void hold() {
    descriptor_ = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor_ < 0) throw detail::system_io_error(folder_, "cannot open");
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
    ::close(descriptor_);
    throw argument_error(folder_.string() + ": another process is at work on it; wait for its end");
  }

  /// Removes what an interrupted write left, and files that the record no longer names.
  void remove_leftovers() const {
    std::error_code ignored;
    for (const std::string& name : names(folder_)) {
      const bool old_states =
          name.starts_with("states-") && !record_.is_null() &&
          (record_.at("states").is_null() || file_name(record_.at("states")) != name);
      if (is_ours(name) && (name.find(".tmp-") != std::string::npos || old_states))
        std::filesystem::remove(folder_ / name, ignored);
    }
  }

  void read_record() {
    const std::string who = (folder_ / record_name).string();
    const std::string text = detail::read_whole_file(folder_ / record_name);
    detail::parse_json_object(who, text);  // the checks of a hostile file
    Json all = parsed(text);
    if (!all.contains("run") || !all.contains("checksum") ||
        all["checksum"] != hex_text(fingerprint(all["run"].dump())))
      throw format_error(who +
                         ": does not fit its checksum: it was changed or damaged; name a new "
                         "folder to begin anew");
    record_ = numbers_of_json(std::move(all["run"]));
    if (record_.at("version") != version)
      throw format_error(who + ": expected version " + std::to_string(version) + ", got " +
                         record_.at("version").dump());
  }

  void require_same(const Json& given) const {
    const Json& was = record_.at("identity");
    Json now = given;
    for (const auto& [name, value] : was.at("options").items())
      if (!now["options"].contains(name)) now["options"][name] = nullptr;
    for (const char* kind : {"options", "files"})
      for (const auto& [name, value] : now.at(kind).items()) {
        const Json before = was.at(kind).value(name, Json(nullptr));
        if (before == value) continue;
        const bool option = std::string(kind) == "options";
        throw argument_error(folder_.string() + ": was made with another " + name + ": it was " +
                             before.dump() + (option ? "" : " by its fingerprint") + ", it is " +
                             value.dump() +
                             "; write what it was, or name a new folder to begin anew");
      }
    for (const auto& [name, value] : was.at("files").items())
      if (!given.at("files").contains(name))
        throw argument_error(folder_.string() + ": was made with the file " + name +
                             ", which is not there now; name a new folder to begin anew");
  }

  void check_files() const {
    std::vector<Json> files;
    for (const Json& layer : record_.at("layers")) files.push_back(layer);
    if (!record_.at("states").is_null()) files.push_back(record_.at("states"));
    if (record_.contains("texts"))
      for (const auto& [name, file] : record_.at("texts").items()) files.push_back(file);
    for (const Json& file : files) {
      const std::filesystem::path path = folder_ / file_name(file);
      const std::string again = "; name a new folder to begin anew";
      std::error_code error;
      const std::uintmax_t bytes = std::filesystem::file_size(path, error);
      if (error) throw format_error(path.string() + ": is missing: " + error.message() + again);
      if (bytes != file.at("bytes").get<std::uint64_t>())
        throw format_error(path.string() + ": expected " + file.at("bytes").dump() +
                           " bytes, got " + std::to_string(bytes) + again);
      const std::string found = hex_text(file_fingerprint(path));
      if (file.at("fingerprint") != found)
        throw format_error(path.string() + ": expected checksum " +
                           file.at("fingerprint").get<std::string>() + ", got " + found +
                           ": it was changed or damaged" + again);
    }
  }

  /// Writes a file of tensors and returns what the record says of it.
  Json write(const std::string& name, const Tensors& tensors) const {
    Xxh64 hash;
    std::uint64_t bytes = 0;
    write_safetensors(folder_ / name, tensors.infos, tensors.metadata, tensors.bytes,
                      [&](std::span<const std::byte> piece) {
                        hash.add(piece);
                        bytes += piece.size();
                      });
    return file_json(name, bytes, hash.value());
  }

  void replace_record(Json next) {
    std::swap(record_, next);
    try {
      write_record();
    } catch (...) {
      std::swap(record_, next);
      throw;
    }
  }

  void write_record() const {
    const Json run = exact_json(record_);
    const Json all{{"checksum", hex_text(fingerprint(run.dump()))}, {"run", run}};
    const std::string text = all.dump(1) + "\n";
    detail::OutputFile out(folder_ / record_name);
    out.write(std::as_bytes(std::span(text)));
    out.commit();
  }

  std::filesystem::path folder_;
  int descriptor_ = -1;
  Json record_ = nullptr;
};

}  // namespace pare
