// Files: whole reads, positioned reads and atomic writes with errors that name the file.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"

namespace pare {

namespace detail {

/// `name` in quotes for a one-line message: control bytes escaped, cut after about 100 bytes.
inline std::string quoted_name(std::string_view name) {
  std::size_t keep = std::min<std::size_t>(name.size(), 100);
  while (keep < name.size() && keep > 0 && (name[keep] & 0xc0) == 0x80) --keep;  // whole character
  std::string text = "'";
  for (const char c : name.substr(0, keep)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      text += c;
    } else {
      text += "\\x";
      text += "0123456789abcdef"[byte >> 4];
      text += "0123456789abcdef"[byte & 15];
    }
  }
  return text + (keep < name.size() ? "...'" : "'");
}

/// io_error "<file>: <doing>: <what the system says of errno>".
inline io_error system_io_error(const std::filesystem::path& file, const std::string& doing) {
  return io_error(file.string() + ": " + doing + ": " + std::generic_category().message(errno));
}

/// A regular file open for reading. Reads at given positions, so threads may share it.
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
  }
  InputFile(InputFile&& o) noexcept
      : path_(std::move(o.path_)), descriptor_(std::exchange(o.descriptor_, -1)), size_(o.size_) {}
  InputFile& operator=(InputFile&& o) noexcept {
    path_.swap(o.path_);
    std::swap(descriptor_, o.descriptor_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~InputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }

  /// Fills `out` with the bytes at `position`. Throws io_error if the file ends before that.
  void read(std::uint64_t position, std::span<std::byte> out) const {
    while (!out.empty()) {
      const ssize_t n =
          ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(position));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw system_io_error(path_, "cannot read");
      if (n == 0)
        throw io_error(path_.string() + ": ended at byte " + std::to_string(position) + " while " +
                       std::to_string(out.size()) + " more bytes were expected");
      position += static_cast<std::uint64_t>(n);
      out = out.subspan(static_cast<std::size_t>(n));
    }
  }

  /// Passes the `length` bytes at `position` to f(span), in pieces that hold whole elements.
  template <class F>
  void read_pieces(std::uint64_t position, std::uint64_t length, F&& f) const {
    std::vector<std::byte> buffer(std::min<std::uint64_t>(length, std::uint64_t{1} << 20));
    while (length > 0) {
      const auto n = std::min<std::uint64_t>(length, buffer.size());
      const auto piece = std::span(buffer).first(n);
      read(position, piece);
      f(std::span<const std::byte>(piece));
      position += n;
      length -= n;
    }
  }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// The content of a whole file. Throws io_error.
inline std::string read_whole_file(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

/// A file that appears under its name only when complete: written under a temporary name in the
/// same folder, renamed by commit(), removed when destroyed before that.
class AtomicFile {
 public:
  /// Throws io_error, as do write() and commit(); the message begins with `target`.
  explicit AtomicFile(std::filesystem::path target) : target_(std::move(target)) {
    static std::atomic<unsigned> counter{0};
    for (int attempt = 0; attempt < 100 && descriptor_ < 0; ++attempt) {
      temporary_ = target_;
      temporary_ += ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
      descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor_ < 0 && errno != EEXIST) break;
    }
    if (descriptor_ < 0) throw system_io_error(target_, "cannot create");
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(descriptor_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw system_io_error(target_, "cannot write");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  void commit() {
    // A full disk may show only here. EINVAL: a file system that knows no fsync.
    const bool synced = ::fsync(descriptor_) == 0 || errno == EINVAL;
    if (!synced || ::close(std::exchange(descriptor_, -1)) != 0)
      throw system_io_error(target_, "cannot write");
    if (::rename(temporary_.c_str(), target_.c_str()) != 0)
      throw system_io_error(target_, "cannot replace");
    temporary_.clear();
  }

 private:
  std::filesystem::path target_, temporary_;
  int descriptor_ = -1;
};

/// Finds what nlohmann's own parser would let pass: a repeated key, and nesting without end.
class JsonChecker : public nlohmann::json::json_sax_t {
 public:
  explicit JsonChecker(std::string file) : file_(std::move(file)) {}
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second)
      throw format_error(file_ + ": the name " + quoted_name(name) + " occurs twice");
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    throw format_error(file_ + ": not valid JSON at byte " + std::to_string(position));
  }

 private:
  bool enter() {
    if (keys_.size() == 32) throw format_error(file_ + ": JSON nested deeper than 32 levels");
    keys_.emplace_back();
    return true;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }
  std::string file_;
  std::vector<std::set<std::string>> keys_;
};

/// The JSON object in `text`. Throws format_error (beginning with `file`) for anything else, and
/// for names that occur twice in one object.
inline nlohmann::json parse_json_object(const std::string& file, std::string_view text) {
  JsonChecker checker(file);
  nlohmann::json::sax_parse(text, &checker);
  auto value = nlohmann::json::parse(text);
  if (!value.is_object())
    throw format_error(file + ": expected a JSON object, got " + value.type_name());
  return value;
}

}  // namespace detail

}  // namespace pare
