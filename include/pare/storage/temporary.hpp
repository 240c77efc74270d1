// Files and folders that are not to stay: made under names that nothing else has, and removed also
// by a program that a signal ends.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "pare/core/error.hpp"
#include "pare/storage/file.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Eight letters that nothing else has at the end of its name.
inline std::string random_letters() {
  std::random_device random;
  std::string letters;
  while (letters.size() < 8) letters += "abcdefghijklmnopqrstuvwxyz234567"[random() % 32];
  return letters;
}

/// The temporary files and folders of this program. A lock is held while one is made or gets its
/// lasting name, so that remove_all() misses none.
class Temporaries {
 public:
  /// Never destroyed: another thread may remove them while the program ends.
  static Temporaries& all() {
    static Temporaries* const one = new Temporaries;
    return *one;
  }

  /// Makes one under a new name, `prefix` and random letters.
  /// @param make  make(path) makes it, or returns false with errno set, EEXIST for a name in use
  /// @returns its path; empty, with errno set, when none could be made
  template <class Make>
  std::filesystem::path make(const std::filesystem::path& prefix, const Make& make) {
    for (int attempt = 0; attempt < 100; ++attempt) {
      std::filesystem::path path = prefix;
      path += random_letters();
      if (make_at(path, make)) return path;
      if (errno != EEXIST) break;
    }
    return {};
  }

  /// The same for a given path. Returns whether make(path) did it.
  template <class Make>
  bool make_at(const std::filesystem::path& path, const Make& make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!make(path)) return false;
    paths_.insert(path);
    return true;
  }

  /// Calls rename(), which gives one its lasting name, and forgets it. Returns false, with errno
  /// set, when rename() does; it is then still a temporary.
  template <class Rename>
  bool release(const std::filesystem::path& path, const Rename& rename) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!rename()) return false;
    paths_.erase(path);
    return true;
  }

  /// Removes one.
  void remove(const std::filesystem::path& path) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
    release(path, [] { return true; });
  }

  /// Whether a path is one of them.
  bool contain(const std::filesystem::path& path) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return paths_.contains(path);
  }

  /// See remove_temporaries().
  void remove_all() {
    mutex_.lock();  // for good
    // What another thread is still writing into a folder may come after the folder was listed.
    for (int attempt = 0; attempt < 100; ++attempt) {
      bool left = false;
      for (const std::filesystem::path& path : paths_) {
        std::error_code error;
        std::filesystem::remove_all(path, error);
        left |= bool(error);
      }
      if (!left) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

 private:
  std::mutex mutex_;
  std::set<std::filesystem::path> paths_;
};

/// How the path of a temporary beside `target` begins: its name, cut so that file systems take it,
/// and what it is.
inline std::filesystem::path temporary_prefix(const std::filesystem::path& target,
                                              std::string_view kind) {
  std::string name = target.filename().string();
  name.resize(std::min<std::size_t>(name.size(), 200));
  return target.parent_path() / (name + "." + std::string(kind) + "-");
}

}  // namespace detail

/// Removes every temporary file and folder of this program. None can be made and no output gets
/// its name afterwards: threads that try wait for the program's end. For a program that ends
/// without unwinding, in a thread of its own, not in a signal handler.
inline void remove_temporaries() { detail::Temporaries::all().remove_all(); }

/// A new folder that is removed with all that is in it, unless it gets a lasting name.
class TemporaryFolder {
 public:
  /// @param prefix   of its path
  /// @param mode     permissions, before the umask
  /// @param letters  that follow; none: random ones, so that nothing has the path
  /// @throws io_error when it cannot be made
  explicit TemporaryFolder(const std::filesystem::path& prefix, mode_t mode = 0700,
                           const std::string& letters = {}) {
    detail::Temporaries& all = detail::Temporaries::all();
    const auto make = [&](const std::filesystem::path& path) {
      return ::mkdir(path.c_str(), mode) == 0;
    };
    if (letters.empty())
      path_ = all.make(prefix, make);
    else if (const std::filesystem::path path = prefix.string() + letters; all.make_at(path, make))
      path_ = path;
    if (path_.empty()) throw detail::system_io_error(prefix.parent_path(), "cannot be written");
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    if (!path_.empty()) detail::Temporaries::all().remove(path_);
  }

  /// The folder.
  const std::filesystem::path& path() const { return path_; }

  /// Leaves it where it is. Returns its path.
  std::filesystem::path keep() {
    detail::Temporaries::all().release(path_, [] { return true; });
    return std::exchange(path_, {});
  }

  /// Calls rename(), which moves the folder or what is in it and returns whether it could; then
  /// what is left of it stays. No temporaries are removed meanwhile.
  /// @returns what rename() did; after false, with errno set, the folder is still a temporary
  template <class Rename>
  bool release(const Rename& rename) {
    if (!detail::Temporaries::all().release(path_, rename)) return false;
    path_.clear();
    return true;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace pare
