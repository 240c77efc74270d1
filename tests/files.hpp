// Files in tests: the folder of shared data, folders of their own, files in memory, whole reads and
// writes.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "paths.hpp"

namespace test {

/// The folder of shared data, or nothing; then one line says what was skipped.
inline std::optional<std::filesystem::path> shared_folder(std::string_view what) {
  std::filesystem::path folder = shared_dir;
  if (const char* given = std::getenv("PARE_SHARED")) folder = given;
  if (!folder.empty() && std::filesystem::is_directory(folder)) return folder;
  std::cout << "skipped: " << what << ": set PARE_SHARED to the folder of shared data\n";
  return {};
}

/// A folder of its own, removed at the end.
struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "pare_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      throw std::runtime_error(name + ": " + std::strerror(errno));
    path = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path / name; }
  std::filesystem::path path;
};

/// A file that has a path but lies in memory only.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : descriptor_(::memfd_create("test", MFD_CLOEXEC)) {
    if (descriptor_ < 0)
      throw std::runtime_error(std::string("memfd_create: ") + std::strerror(errno));
    while (!content.empty()) {
      const ssize_t n = ::write(descriptor_, content.data(), content.size());
      if (n <= 0) throw std::runtime_error(std::string("write: ") + std::strerror(errno));
      content.remove_prefix(std::size_t(n));
    }
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(descriptor_); }
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

inline void write_text(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text;
  std::vector<char> piece(1 << 20);  // a model byte by byte takes half a second, not optimised
  do {
    in.read(piece.data(), std::streamsize(piece.size()));
    text.append(piece.data(), std::size_t(in.gcount()));
  } while (in);
  return text;
}

}  // namespace test
