// Folders of results: checked before any work, built under another name, whole or not at all.
#pragma once

#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/outputs.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/report/json.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/temporary.hpp"

namespace tool {

namespace detail {

/// The names in a folder, but for what new file systems hold and what this program removes itself.
inline std::vector<std::string> entries_of(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error);
       !error && entry != fs::directory_iterator(); entry.increment(error))
    if (entry->path().filename() != "lost+found" &&
        !pare::detail::Temporaries::all().contain(entry->path()))
      names.push_back(entry->path().filename().string());
  if (error) throw pare::io_error(folder.string() + ": cannot be listed: " + error.message());
  return names;
}

/// What tells a file of a result from one that was changed, and stays when it is renamed.
inline pare::Json entry_json(const fs::path& file) {
  struct stat status {};
  if (::lstat(file.c_str(), &status) != 0) return nullptr;
  return {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

/// The key of a name, which may be any bytes.
inline std::string entry_key(const std::string& name) {
  return pare::hex_text(pare::fingerprint(name));
}

/// Where temporaries of a result folder go: into it where it is, which may be a mount point, and
/// beside it otherwise. They are on one file system with it.
inline fs::path temporary_prefix(const fs::path& folder, const std::string& kind) {
  std::error_code error;
  return fs::is_directory(folder, error) ? folder / ("." + kind + "-")
                                         : pare::detail::temporary_prefix(folder, kind);
}

}  // namespace detail

/// How a folder of results is written, where another process may go on with it.
struct Saving {
  /// What an earlier process noted of this folder; null: nothing.
  pare::Json noted = nullptr;
  /// Keeps what the next one needs to know; may be empty.
  std::function<void(const pare::Json&)> note = {};
};

namespace detail {

/// Whether `file` of a result folder is as it was noted.
inline bool is_noted(const pare::Json& noted, const fs::path& file) {
  if (!noted.is_object() || !noted.contains("entries")) return false;
  const pare::Json& entries = noted["entries"];
  const std::string key = entry_key(file.filename().string());
  return entries.contains(key) && entries[key] == entry_json(file);
}

/// The unfinished folder that was noted, which a killed process may have left.
inline std::vector<fs::path> noted_leftovers(const pare::Json& noted, const fs::path& folder) {
  if (!noted.is_object() || !noted.contains("partial") || !noted["partial"].is_string()) return {};
  const std::string letters = noted["partial"].get<std::string>();
  fs::path beside = pare::detail::temporary_prefix(folder, "partial");
  beside += letters;
  return {folder / (".partial-" + letters), beside};
}

/// Removes what a killed process left of a folder.
inline void remove_noted(const pare::Json& noted, const fs::path& folder) {
  std::error_code ignored;
  for (const fs::path& path : noted_leftovers(noted, folder)) fs::remove_all(path, ignored);
  if (!fs::is_directory(folder, ignored)) return;
  for (const std::string& name : entries_of(folder))
    if (is_noted(noted, folder / name)) fs::remove(folder / name, ignored);
}

/// Renames files of one folder into another, none over one that is there. Returns false, with errno
/// set, when one cannot be.
inline bool move_files(const fs::path& from, const fs::path& to,
                       const std::vector<std::string>& names) {
  std::error_code ignored;
  for (const std::string& name : names)
    if (fs::exists(fs::symlink_status(to / name, ignored))) {
      errno = EEXIST;
      return false;
    }
  for (const std::string& name : names)
    if (::rename((from / name).c_str(), (to / name).c_str()) != 0) return false;
  return true;
}

/// Whether nothing is in a folder but what was noted, complete or not, and `others`.
inline bool holds_only_noted(const pare::Json& noted, const fs::path& folder,
                             const std::vector<fs::path>& others) {
  const std::vector<fs::path> leftovers = noted_leftovers(noted, folder);
  const std::vector<std::string> names = entries_of(folder);
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    const fs::path path = folder / name;
    return is_noted(noted, path) || std::count(leftovers.begin(), leftovers.end(), path) > 0 ||
           std::count(others.begin(), others.end(), path) > 0;
  });
}

}  // namespace detail

/// Whether a folder is the complete result that was noted, and holds nothing else but `others`.
inline bool is_complete(const pare::Json& noted, const fs::path& folder,
                        const std::vector<fs::path>& others = {}) {
  std::error_code error;
  if (!noted.is_object() || !noted.contains("entries") || !fs::is_directory(folder, error))
    return false;
  const std::vector<std::string> names = detail::entries_of(folder);
  const auto count = std::count_if(names.begin(), names.end(), [&](const std::string& name) {
    return detail::is_noted(noted, folder / name);
  });
  return std::size_t(count) == noted["entries"].size() &&
         detail::holds_only_noted(noted, folder, others);
}

/// Checks a folder that is to be written before hours of work. Returns it: new or empty, or what
/// an earlier process of this run wrote there.
/// @param model   the folder that the run reads
/// @param noted   what an earlier process noted of it
/// @param others  results that may lie in it
inline fs::path savable_folder(const std::string& option, const std::string& given,
                               const fs::path& model, const pare::Json& noted = nullptr,
                               const std::vector<fs::path>& others = {}) {
  const fs::path path = output_path(option, given);
  const std::string what = option + " " + given;
  if (same_place(path, model))
    throw usage_error(what + ": this is the model itself; name a new folder");
  std::error_code error;
  if (fs::is_directory(path, error)) {
    if (!detail::holds_only_noted(noted, path, others)) {
      const std::vector<std::string> names = detail::entries_of(path);
      if (std::all_of(names.begin(), names.end(), [](const std::string& name) {
            return name.starts_with(".layers-") || name.starts_with(".partial-");
          }))
        throw usage_error(what + ": it holds " + names.front() +
                          ", of a run that is at work or was killed; wait for its end or delete "
                          "it, or name a new folder");
      throw usage_error(what + ": the folder is not empty; name a new one");
    }
    detail::require_writable(option, given, path);
    return path;
  }
  if (fs::exists(fs::symlink_status(path, error)))
    throw usage_error(what + ": exists and is not a folder; name a new one");
  detail::require_writable(option, given, path.parent_path());
  return path;
}

/// Builds a folder under another name; it appears whole or not at all. One that is there already
/// keeps its place, its owner and its permissions: its files appear one by one when all of them
/// are complete, config.json, without which no program reads a model, last.
/// @param fill  fill(partial) writes the files into a folder of another name; a format_error of what
///              it reads comes through as it is
/// @throws std::runtime_error when the folder cannot be written, format_error
template <class Fill>
void fill_folder(const fs::path& folder, const Fill& fill, const Saving& saving = {}) {
  std::error_code ignored;
  std::string failure;
  try {
    detail::remove_noted(saving.noted, folder);
    // Noted before it is there, so that it is removed whenever this process is killed.
    const std::string letters = pare::detail::random_letters();
    pare::Json note{{"partial", letters}};
    if (saving.note) saving.note(note);
    pare::TemporaryFolder partial(detail::temporary_prefix(folder, "partial"), 0777, letters);
    fill(partial.path());
    std::vector<std::string> names = detail::entries_of(partial.path());
    std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
      return std::pair(a == "config.json", a) < std::pair(b == "config.json", b);
    });
    note["entries"] = pare::Json::object();
    for (const std::string& name : names)
      note["entries"][detail::entry_key(name)] = detail::entry_json(partial.path() / name);
    if (saving.note) saving.note(note);

    const fs::path from = partial.path();
    const bool there = from.parent_path() == folder;
    const bool done = partial.release([&] {
      return there ? detail::move_files(from, folder, names)
                   : ::rename(from.c_str(), folder.c_str()) == 0;
    });
    if (done) {
      if (there) fs::remove(from, ignored);
      pare::detail::sync_folder(there ? folder : folder.parent_path());
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
  throw std::runtime_error(folder.string() + ": cannot be saved: " + failure);
}

}  // namespace tool
