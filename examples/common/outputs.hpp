// Where results go: checked before any work, and never where the run reads.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <compare>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <system_error>

#include "common/command_line.hpp"
#include "pare/storage/output_file.hpp"

namespace tool {

/// What tells a file or folder from every other, however it is named: links are followed, and hard
/// links of one file are one.
struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  auto operator<=>(const FileId&) const = default;
};

/// None when there is nothing at the path.
inline std::optional<FileId> id_of(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileId{status.st_dev, status.st_ino};
}

/// The path that a name leads to, links followed as the system does: absolute, and the same for
/// "DIR", "DIR/" and "./DIR". What does not lead anywhere stays as it is.
inline fs::path resolved(const fs::path& given) {
  try {
    return pare::detail::output_target(given).path;
  } catch (const pare::io_error&) {
    std::error_code error;
    const fs::path absolute = fs::absolute(given, error);
    return error ? given : absolute;
  }
}

/// Whether two names lead to one place, whether there is something or not.
inline bool same_place(const fs::path& a, const fs::path& b) {
  const std::optional<FileId> id = id_of(a);
  return id ? id == id_of(b) : resolved(a) == resolved(b);
}

/// The files that a run reads. None of its results may be written over one of them.
class InputFiles {
 public:
  void add(const fs::path& file) {
    paths_.insert(resolved(file));
    if (const auto id = id_of(file)) ids_.insert(*id);
  }
  bool contain(const fs::path& file) const {
    const auto id = id_of(file);
    return (id && ids_.contains(*id)) || paths_.contains(resolved(file));
  }
  /// Throws usage_error when the file is one of them.
  void refuse(const std::string& option, const std::string& given, const fs::path& file) const {
    if (contain(file))
      throw usage_error(option + " " + given + ": this is an input of the run; name another file");
  }
  /// Throws usage_error when the shell sends the standard output into one of them.
  void refuse_standard_output() const {
    struct stat status {};
    if (::fstat(STDOUT_FILENO, &status) == 0 && S_ISREG(status.st_mode) &&
        ids_.contains({status.st_dev, status.st_ino}))
      throw usage_error("standard output: it goes into an input of the run; send it elsewhere");
  }

 private:
  std::set<FileId> ids_;
  std::set<fs::path> paths_;  // of what is not there, too
};

/// The path that a name of a result leads to. Throws usage_error when it leads nowhere.
inline fs::path output_path(const std::string& option, const std::string& given) {
  if (given.empty())
    throw usage_error(written(option, given) + ": the name is empty; name another");
  fs::path name = given;
  while (!name.has_filename() && name.has_relative_path()) name = name.parent_path();
  struct stat status {};
  const fs::path parent = name.has_parent_path() ? name.parent_path() : fs::path(".");
  if (::stat(parent.c_str(), &status) != 0 ? errno == ENOENT || errno == ENOTDIR
                                           : !S_ISDIR(status.st_mode))
    throw usage_error(option + " " + given + ": there is no folder " + parent.string() +
                      "; make it first");
  try {
    return pare::detail::output_target(given).path;
  } catch (const pare::io_error& e) {
    throw usage_error(option + " " + std::string(e.what()) + "; name another");
  }
}

namespace detail {

/// Throws usage_error unless something can be made in a folder, which is tried.
inline void require_writable(const std::string& option, const std::string& given,
                             const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw usage_error(option + " " + given + ": there is no folder " + folder.string() +
                      "; make it first");
  try {
    const pare::TemporaryFolder tried(folder / ".pare-");
  } catch (const pare::io_error& e) {
    throw usage_error(option + " " + given + ": the folder " + std::string(e.what()) +
                      "; name another");
  }
}

}  // namespace detail

/// Whether what is written to a path goes where the program prints.
inline bool is_standard_output(const fs::path& path) {
  struct stat status {};
  return pare::detail::output_target(path).descriptor == STDOUT_FILENO ||
         (::fstat(STDOUT_FILENO, &status) == 0 && S_ISREG(status.st_mode) &&
          same_place(path, "/proc/self/fd/1"));
}

/// Checks a file that is to be written before any work: a regular one, a new one, a device, a pipe
/// or a descriptor of this program. Returns its path.
/// @param inputs  what the run reads
inline fs::path writable_file(const std::string& option, const std::string& given,
                              const InputFiles& inputs) {
  const fs::path path = output_path(option, given);
  const auto refuse = [&](const std::string& why) {
    throw usage_error(option + " " + given + ": " + why);
  };
  inputs.refuse(option, given, path);
  struct stat status {};
  const bool there = ::stat(path.c_str(), &status) == 0;
  if (given.back() == '/' || (there && S_ISDIR(status.st_mode)))
    refuse("this is a folder; name a file");
  const int descriptor = pare::detail::output_target(path).descriptor;
  if (there && descriptor < 0 && (S_ISBLK(status.st_mode) || S_ISSOCK(status.st_mode)))
    refuse("this is a block device or a socket; name a file");
  if (there && ::access(path.c_str(), W_OK) != 0)
    refuse("it cannot be written: " + std::string(std::strerror(errno)) + "; name another");
  if (descriptor >= 0) {
    const int flags = ::fcntl(descriptor, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
      refuse("it is not open for writing; name another");
  } else if (!there || S_ISREG(status.st_mode)) {
    detail::require_writable(option, given, path.parent_path());
  }
  return path;
}

}  // namespace tool
