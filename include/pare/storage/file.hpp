// Files: mapped reads and whole reads, with errors that name the file.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// io_error "<file>: <doing>: <what the system says of errno>".
inline io_error system_io_error(const std::filesystem::path& file, const std::string& doing) {
  return io_error(file.string() + ": " + doing + ": " + std::generic_category().message(errno));
}

/// A regular file mapped into memory for reading, so that only what is looked at is read. Threads
/// may share it. The mapping stays whole when another file takes the name; a file that is cut or
/// cannot be read while a span of it is in use ends the program (SIGBUS).
class InputFile {
 public:
  /// Throws io_error if `path` cannot be opened or is not a regular file.
  explicit InputFile(std::filesystem::path path) : path_(std::move(path)) {
    // O_NONBLOCK: opening a pipe by mistake must not wait for a writer.
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) throw system_io_error(path_, "cannot open for reading");
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(descriptor_);
      throw io_error(path_.string() + ": not a regular file");
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
    if (size_ == 0) return;  // nothing to map
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
    if (address == MAP_FAILED) {
      const io_error failure = system_io_error(path_, "cannot map into memory");
      ::close(descriptor_);
      throw failure;
    }
    data_ = static_cast<const std::byte*>(address);
  }
  InputFile(InputFile&& o) noexcept
      : path_(std::move(o.path_)),
        descriptor_(std::exchange(o.descriptor_, -1)),
        data_(std::exchange(o.data_, nullptr)),
        size_(std::exchange(o.size_, 0)) {}
  InputFile& operator=(InputFile&& o) noexcept {
    path_.swap(o.path_);
    std::swap(descriptor_, o.descriptor_);
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~InputFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }

  /// The `length` bytes at `position`, valid as long as the file is open. Throws io_error if the
  /// file ends before that.
  std::span<const std::byte> bytes(std::uint64_t position, std::uint64_t length) const {
    if (length == 0) return {};
    // Asked anew: to read past the end of a file that was cut raises a signal, not an error.
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) throw system_io_error(path_, "cannot read");
    const std::uint64_t end = std::min(size_, static_cast<std::uint64_t>(status.st_size));
    const std::uint64_t there = end > position ? end - position : 0;
    if (length > there)
      throw io_error(path_.string() + ": ended at byte " + std::to_string(end) + " while " +
                     std::to_string(length - there) + " more bytes were expected");
    return {data_ + position, length};
  }

  /// The same bytes as text.
  std::string_view text(std::uint64_t position, std::uint64_t length) const {
    const auto span = bytes(position, length);
    return {reinterpret_cast<const char*>(span.data()), span.size()};
  }

  /// Gives back the memory that these bytes take while they are mapped. They stay readable: the
  /// next look reads them again.
  void release(std::uint64_t position, std::uint64_t length) const {
    const std::uint64_t page = std::uint64_t(::sysconf(_SC_PAGESIZE));
    const std::uint64_t begin = position / page * page, end = std::min(position + length, size_);
    if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
  }

  /// Fills `out` with the bytes at `position`. Throws io_error if the file ends before that.
  void read(std::uint64_t position, std::span<std::byte> out) const {
    const auto source = bytes(position, out.size());
    std::copy(source.begin(), source.end(), out.begin());
  }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

/// The content of a whole file. Throws io_error.
inline std::string read_whole_file(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

/// Makes the names in a folder last through a loss of power. Throws io_error.
inline void sync_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder.empty() ? "." : folder;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0 && errno == EACCES) return;  // may be written and not be read
  const bool synced = descriptor >= 0 && (::fsync(descriptor) == 0 || errno == EINVAL);
  const io_error failure = system_io_error(path, "cannot write");
  if (descriptor >= 0) ::close(descriptor);
  if (!synced) throw failure;
}

}  // namespace detail

}  // namespace pare
