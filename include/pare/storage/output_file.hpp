// Files that are written: whole or not at all, and into what is no regular file as into a stream.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "pare/core/error.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/temporary.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// What writing to a path writes into, links followed as the system does.
struct OutputTarget {
  std::filesystem::path path;  ///< absolute and without links; its last part may be missing
  int descriptor = -1;         ///< of this program, when the path names it (/dev/stdout); else -1
};

/// Follows a path. Nothing in it is resolved as text: "link/.." is the folder above the one that
/// the link leads to. Throws io_error when a folder on the way is missing or cannot be searched.
inline OutputTarget output_target(const std::filesystem::path& given) {
  namespace fs = std::filesystem;
  const auto fail = [&](const std::error_code& error) {
    return io_error(given.string() + ": cannot create: " + error.message());
  };
  std::string text = given.string();
  std::error_code error;
  for (int links = 0; links < 40; ++links) {
    while (text.size() > 1 && text.ends_with('/')) text.pop_back();
    const fs::path path = text;
    if (path.filename().empty() || path.filename() == "." || path.filename() == "..") {
      const fs::path found = fs::canonical(path, error);
      if (error) throw fail(error);
      return {found};
    }
    const fs::path parent = fs::canonical(path.has_parent_path() ? path.parent_path() : ".", error);
    if (error) throw fail(error);
    const fs::path found = parent / path.filename();
    if (parent == fs::canonical("/proc/self/fd", error)) {
      OutputTarget target{found};
      const std::string name = path.filename().string();
      std::from_chars(name.data(), name.data() + name.size(), target.descriptor);
      return target;
    }
    const fs::file_status status = fs::symlink_status(found, error);
    if (error && status.type() != fs::file_type::not_found) throw fail(error);
    if (status.type() != fs::file_type::symlink) return {found};
    const fs::path led_to = fs::read_symlink(found, error);
    if (error) throw fail(error);
    text = (parent / led_to).string();
  }
  throw fail(std::make_error_code(std::errc::too_many_symbolic_link_levels));
}

/// A file to write. A regular file, or a new one, appears under its name only when complete: it is
/// written under a temporary name in the same folder, renamed by commit(), and removed when
/// destroyed before that. A link is followed, and a file that is replaced leaves its permissions to
/// the new one. Into a device, a pipe or a descriptor of this program (/dev/stdout) bytes go as
/// they are written.
class OutputFile {
 public:
  /// Throws io_error, as do write() and commit(); the message begins with `path`.
  explicit OutputFile(std::filesystem::path path) : name_(std::move(path)) {
    const OutputTarget target = output_target(name_);
    target_ = target.path;
    struct stat status {};
    const bool there = target.descriptor >= 0 ? ::fstat(target.descriptor, &status) == 0
                                              : ::stat(target_.c_str(), &status) == 0;
    if (there && S_ISDIR(status.st_mode)) throw io_error(name_.string() + ": this is a folder");
    if (there && (S_ISBLK(status.st_mode) || S_ISSOCK(status.st_mode)) && target.descriptor < 0)
      throw io_error(name_.string() + ": this is a block device or a socket");
    const int descriptor = target.descriptor >= 0 ? target.descriptor
                           : there                ? standard_descriptor(status)
                                                  : -1;
    if (descriptor >= 0) {
      std::fflush(nullptr);  // what was printed comes first
      descriptor_ = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
    } else if (there && !S_ISREG(status.st_mode)) {
      descriptor_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } else if (!there || ::access(target_.c_str(), W_OK) == 0) {
      make_temporary(there ? &status : nullptr);
    }
    if (descriptor_ < 0) throw system_io_error(name_, there ? "cannot write" : "cannot create");
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) Temporaries::all().remove(temporary_);
  }

  /// The next bytes.
  void write(std::span<const std::byte> bytes) { write_to(descriptor_, bytes); }

  /// Ends the file.
  void commit() {
    close(std::exchange(descriptor_, -1));
    if (temporary_.empty()) return;
    const auto renamed = [&] { return ::rename(temporary_.c_str(), target_.c_str()) == 0; };
    if (Temporaries::all().release(temporary_, renamed)) {
      temporary_.clear();
    } else if (errno == EBUSY || errno == EPERM || errno == EACCES) {
      copy();  // one that another is mounted on, or another user's in a folder for all
    } else {
      throw system_io_error(name_, "cannot replace");
    }
    sync_folder(target_.parent_path());
  }

 private:
  /// The descriptor of the standard output or error that a regular file is open as; -1 for none.
  static int standard_descriptor(const struct stat& status) {
    for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
      struct stat standard {};
      if (S_ISREG(status.st_mode) && ::fstat(descriptor, &standard) == 0 &&
          standard.st_dev == status.st_dev && standard.st_ino == status.st_ino)
        return descriptor;
    }
    return -1;
  }

  /// @param replaced  the file that is there; null when there is none
  void make_temporary(const struct stat* replaced) {
    temporary_ = Temporaries::all().make(
        temporary_prefix(target_, "tmp"), [&](const std::filesystem::path& path) {
          descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
          return descriptor_ >= 0;
        });
    if (descriptor_ < 0 || replaced == nullptr) return;
    // Who may not give a file away becomes its owner.
    [[maybe_unused]] const int given = ::fchown(descriptor_, replaced->st_uid, replaced->st_gid);
    ::fchmod(descriptor_, replaced->st_mode & 0777);
  }

  void write_to(int descriptor, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(descriptor, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) {  // a pipe that somebody else set to this
        pollfd ready{descriptor, POLLOUT, 0};
        ::poll(&ready, 1, -1);
        continue;
      }
      if (n < 0) throw system_io_error(name_, "cannot write");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  /// A full disk may show only here.
  void close(int descriptor) const {
    // What is no file, and some file systems, know no fsync.
    const bool synced =
        ::fsync(descriptor) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP;
    const io_error failure = system_io_error(name_, "cannot write");
    const bool closed = ::close(descriptor) == 0;
    if (!synced) throw failure;
    if (!closed) throw system_io_error(name_, "cannot write");
  }

  /// The complete temporary file's bytes into the one that is there.
  void copy() const {
    const InputFile complete(temporary_);
    const int descriptor = ::open(target_.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (descriptor < 0) throw system_io_error(name_, "cannot replace");
    try {
      write_to(descriptor, complete.bytes(0, complete.size()));
    } catch (...) {
      ::close(descriptor);
      throw;
    }
    close(descriptor);
  }

  std::filesystem::path name_, target_, temporary_;
  int descriptor_ = -1;
};

}  // namespace detail

}  // namespace pare
