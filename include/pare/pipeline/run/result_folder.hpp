// Folders of results: checked before any work, built under another name, whole or not at all.
#pragma once

#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pare/core/fingerprint.hpp"
#include "pare/pipeline/run/json_file.hpp"
#include "pare/report/json.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/temporary.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// The names in a folder, but for what new file systems hold and what this program removes itself.
inline std::vector<std::string> entries_of(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(folder, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
    if (entry->path().filename() != "lost+found" &&
        !detail::Temporaries::all().contain(entry->path()))
      names.push_back(entry->path().filename().string());
  if (error) throw io_error(folder.string() + ": cannot be listed: " + error.message());
  return names;
}

/// What tells a file of a result from one that was changed, and stays when it is renamed.
inline Json entry_json(const std::filesystem::path& file) {
  struct stat status {};
  if (::lstat(file.c_str(), &status) != 0) return nullptr;
  return {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

/// The key of a name, which may be any bytes.
inline std::string entry_key(const std::string& name) { return hex_text(fingerprint(name)); }

/// Where temporaries of a result folder go: into it where it is, which may be a mount point, and
/// beside it otherwise. They are on one file system with it.
inline std::filesystem::path result_prefix(const std::filesystem::path& folder,
                                           const std::string& kind) {
  std::error_code error;
  return std::filesystem::is_directory(folder, error) ? folder / ("." + kind + "-")
                                                      : detail::temporary_prefix(folder, kind);
}

}  // namespace detail

/// How a folder of results is written, where another process may go on with it.
struct Saving {
  /// What an earlier process noted of this folder; null: nothing.
  Json noted = nullptr;
  /// Keeps what the next one needs to know; may be empty.
  std::function<void(const Json&)> note = {};
};

namespace detail {

/// Whether `file` of a result folder is as it was noted.
inline bool is_noted(const Json& noted, const std::filesystem::path& file) {
  if (!noted.is_object() || !noted.contains("entries")) return false;
  const Json& entries = noted["entries"];
  const std::string key = entry_key(file.filename().string());
  return entries.contains(key) && entries[key] == entry_json(file);
}

/// The unfinished folder that was noted, which a killed process may have left.
inline std::vector<std::filesystem::path> noted_leftovers(const Json& noted,
                                                          const std::filesystem::path& folder) {
  if (!noted.is_object() || !noted.contains("partial") || !noted["partial"].is_string()) return {};
  const std::string letters = noted["partial"].get<std::string>();
  std::filesystem::path beside = detail::temporary_prefix(folder, "partial");
  beside += letters;
  return {folder / (".partial-" + letters), beside};
}

/// Removes what a killed process left of a folder.
inline void remove_noted(const Json& noted, const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const std::filesystem::path& path : noted_leftovers(noted, folder))
    std::filesystem::remove_all(path, ignored);
  if (!std::filesystem::is_directory(folder, ignored)) return;
  for (const std::string& name : entries_of(folder))
    if (is_noted(noted, folder / name)) std::filesystem::remove(folder / name, ignored);
}

/// Renames files of one folder into another, none over one that is there. Returns false, with errno
/// set, when one cannot be.
inline bool move_files(const std::filesystem::path& from, const std::filesystem::path& to,
                       const std::vector<std::string>& names) {
  std::error_code ignored;
  for (const std::string& name : names)
    if (std::filesystem::exists(std::filesystem::symlink_status(to / name, ignored))) {
      errno = EEXIST;
      return false;
    }
  for (const std::string& name : names)
    if (::rename((from / name).c_str(), (to / name).c_str()) != 0) return false;
  return true;
}

/// Whether nothing is in a folder but what was noted, complete or not, and `others`.
inline bool holds_only_noted(const Json& noted, const std::filesystem::path& folder,
                             const std::vector<std::filesystem::path>& others) {
  const std::vector<std::filesystem::path> leftovers = noted_leftovers(noted, folder);
  const std::vector<std::string> names = entries_of(folder);
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    const std::filesystem::path path = folder / name;
    return is_noted(noted, path) || std::count(leftovers.begin(), leftovers.end(), path) > 0 ||
           std::count(others.begin(), others.end(), path) > 0;
  });
}

}  // namespace detail

/// Whether a folder is the complete result that was noted, and holds nothing else but `others`.
inline bool is_complete(const Json& noted, const std::filesystem::path& folder,
                        const std::vector<std::filesystem::path>& others = {}) {
  std::error_code error;
  if (!noted.is_object() || !noted.contains("entries") ||
      !std::filesystem::is_directory(folder, error))
    return false;
  const std::vector<std::string> names = detail::entries_of(folder);
  const auto count = std::count_if(names.begin(), names.end(), [&](const std::string& name) {
    return detail::is_noted(noted, folder / name);
  });
  return std::size_t(count) == noted["entries"].size() &&
         detail::holds_only_noted(noted, folder, others);
}

/// Why a folder cannot take a result: it must be new or empty, or hold what an earlier process of
/// the run wrote there. For a caller that has hours of work ahead.
/// @param folder  what is to be written
/// @param noted   what an earlier process noted of it; null: nothing
/// @param others  other results, which may lie in it
/// @return        the reason and what to do, as the end of a message; none when it can
/// @throws io_error when it cannot be listed
inline std::optional<std::string> folder_refusal(
    const std::filesystem::path& folder, const Json& noted = nullptr,
    const std::vector<std::filesystem::path>& others = {}) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    if (std::filesystem::exists(std::filesystem::symlink_status(folder, error)))
      return "exists and is not a folder; name a new one";
    return std::nullopt;
  }
  if (detail::holds_only_noted(noted, folder, others)) return std::nullopt;
  const std::vector<std::string> names = detail::entries_of(folder);
  if (std::all_of(names.begin(), names.end(), [](const std::string& name) {
        return name.starts_with(".layers-") || name.starts_with(".partial-");
      }))
    return "it holds " + names.front() +
           ", of a run that is at work or was killed; wait for its end or delete it, or name a "
           "new folder";
  return "the folder is not empty; name a new one";
}

/// Builds a folder under another name; it appears whole or not at all. One that is there already
/// keeps its place, its owner and its permissions: its files appear one by one when all of them
/// are complete, config.json, without which no program reads a model, last.
/// @param folder  new or empty, or what was noted; the folder around it exists
/// @param fill    fill(partial) writes the files into a folder of another name; a format_error of
///                what it reads comes through as it is
/// @param saving  for a run that may be stopped meanwhile
/// @throws save_error when it cannot be written; what was written is then kept under another name,
///         which the message says, or removed; format_error
template <class Fill>
void fill_folder(const std::filesystem::path& folder, const Fill& fill, const Saving& saving = {}) {
  std::error_code ignored;
  std::string failure;
  try {
    detail::remove_noted(saving.noted, folder);
    // Noted before it is there, so that it is removed whenever this process is killed.
    const std::string letters = detail::random_letters();
    Json note{{"partial", letters}};
    if (saving.note) saving.note(note);
    TemporaryFolder partial(detail::result_prefix(folder, "partial"), 0777, letters);
    fill(partial.path());
    std::vector<std::string> names = detail::entries_of(partial.path());
    std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
      return std::pair(a == "config.json", a) < std::pair(b == "config.json", b);
    });
    note["entries"] = Json::object();
    for (const std::string& name : names)
      note["entries"][detail::entry_key(name)] = detail::entry_json(partial.path() / name);
    if (saving.note) saving.note(note);

    const std::filesystem::path from = partial.path();
    const bool there = from.parent_path() == folder;
    const bool done = partial.release([&] {
      return there ? detail::move_files(from, folder, names)
                   : ::rename(from.c_str(), folder.c_str()) == 0;
    });
    if (done) {
      if (there) std::filesystem::remove(from, ignored);
      detail::sync_folder(there ? folder : folder.parent_path());
      return;
    }
    // Somebody else took the name meanwhile. That is no reason to lose hours of work.
    failure = std::generic_category().message(errno);
    failure += "; what it was to hold is in " + partial.keep().string();
  } catch (const pare::format_error&) {
    throw;  // of a file that is read
  } catch (const std::exception& e) {
    failure = e.what();
  }
  throw save_error(folder.string() + ": cannot be saved: " + failure);
}

}  // namespace pare
