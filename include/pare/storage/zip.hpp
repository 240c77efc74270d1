// Zip archives whose entries are stored, not compressed: where each entry lies in the file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"

namespace pare::inline PARE_TARGET {

/// One entry of an archive.
struct ZipEntry {
  std::string_view name;     ///< in the mapped file; any bytes
  std::uint64_t header = 0;  ///< position of its local header in the file
  std::uint64_t begin = 0;   ///< position of its data
  std::uint64_t size = 0;    ///< bytes of its data
};

namespace detail {

/// The little-endian unsigned number of type U at `position` of `text`, which must hold it.
template <class U>
U little_endian(std::string_view text, std::size_t position) {
  U value;
  std::memcpy(&value, text.data() + position, sizeof(U));
  return value;
}

/// Reads the directory at the end of an archive; each step checks what the one before it claimed.
class ZipReader {
 public:
  explicit ZipReader(const InputFile& file) : file_(file) {}

  std::vector<ZipEntry> read() {
    find_directory();
    std::vector<ZipEntry> entries;
    entries.reserve(count_);  // at most a 46th of the directory's bytes
    const std::string_view directory = file_.text(directory_, directory_bytes_);
    std::size_t at = 0;
    for (std::uint64_t i = 0; i < count_; ++i) entries.push_back(read_entry(directory, at));
    if (at != directory.size())
      throw bad(std::to_string(directory.size() - at) + " extra bytes in the zip directory");
    require_apart(entries);
    return entries;
  }

 private:
  static constexpr std::uint32_t entry_mark = 0x02014b50, local_mark = 0x04034b50,
                                 end_mark = 0x06054b50, end64_mark = 0x06064b50,
                                 locator_mark = 0x07064b50;
  static constexpr std::size_t entry_bytes = 46, local_bytes = 30, end_bytes = 22, end64_bytes = 56,
                               locator_bytes = 20;

  format_error bad(const std::string& what) const {
    return format_error(file_.path().string() + ": " + what);
  }
  format_error bad(std::string_view entry, const std::string& what) const {
    return bad("zip entry " + quoted_name(entry) + " " + what);
  }

  /// Position of the end record: the last one whose comment ends with the file.
  std::uint64_t find_end() const {
    const std::uint64_t size = file_.size();
    const std::uint64_t reach = std::min<std::uint64_t>(size, end_bytes + 0xffff);
    const std::string_view tail = file_.text(size - reach, reach);
    for (std::size_t left = end_bytes; left <= tail.size(); ++left) {
      const std::size_t at = tail.size() - left;
      if (little_endian<std::uint32_t>(tail, at) == end_mark &&
          little_endian<std::uint16_t>(tail, at + 20) == left - end_bytes)
        return size - left;
    }
    throw bad("not a zip archive, or cut: it has no end record");
  }

  void find_directory() {
    const std::uint64_t end = find_end();
    const std::string_view record = file_.text(end, end_bytes);
    std::uint64_t limit = end;
    std::uint64_t disks =
        little_endian<std::uint16_t>(record, 4) | little_endian<std::uint16_t>(record, 6);
    std::uint64_t count_here = little_endian<std::uint16_t>(record, 8);
    count_ = little_endian<std::uint16_t>(record, 10);
    directory_bytes_ = little_endian<std::uint32_t>(record, 12);
    directory_ = little_endian<std::uint32_t>(record, 16);
    if (end >= locator_bytes &&
        little_endian<std::uint32_t>(file_.text(end - locator_bytes, 4), 0) == locator_mark) {
      const std::string_view locator = file_.text(end - locator_bytes, locator_bytes);
      const auto position = little_endian<std::uint64_t>(locator, 8);
      limit = end - locator_bytes;
      if (position > limit || limit - position < end64_bytes ||
          little_endian<std::uint32_t>(file_.text(position, 4), 0) != end64_mark)
        throw bad("the zip64 end record is not at byte " + std::to_string(position) +
                  ", where its locator says");
      const std::string_view record64 = file_.text(position, end64_bytes);
      limit = position;
      disks = little_endian<std::uint32_t>(locator, 4) |
              little_endian<std::uint32_t>(record64, 16) |
              little_endian<std::uint32_t>(record64, 20);
      count_here = little_endian<std::uint64_t>(record64, 24);
      count_ = little_endian<std::uint64_t>(record64, 32);
      directory_bytes_ = little_endian<std::uint64_t>(record64, 40);
      directory_ = little_endian<std::uint64_t>(record64, 48);
    }
    if (disks != 0 || count_here != count_) throw bad("a zip archive of several volumes");
    if (directory_ > limit || directory_bytes_ > limit - directory_)
      throw bad("the zip directory, " + std::to_string(directory_bytes_) + " bytes at byte " +
                std::to_string(directory_) + ", reaches beyond its end record at byte " +
                std::to_string(limit));
    if (count_ > directory_bytes_ / entry_bytes)
      throw bad("a zip directory of " + std::to_string(directory_bytes_) +
                " bytes cannot hold the " + std::to_string(count_) + " entries it claims");
  }

  ZipEntry read_entry(std::string_view directory, std::size_t& at) const {
    if (directory.size() - at < entry_bytes ||
        little_endian<std::uint32_t>(directory, at) != entry_mark)
      throw bad("there is no zip directory entry at byte " + std::to_string(directory_ + at));
    const std::string_view record = directory.substr(at, entry_bytes);
    const std::size_t name_bytes = little_endian<std::uint16_t>(record, 28);
    const std::size_t extra_bytes = little_endian<std::uint16_t>(record, 30);
    const std::size_t comment_bytes = little_endian<std::uint16_t>(record, 32);
    const std::string_view rest = directory.substr(at + entry_bytes);
    if (rest.size() < name_bytes + extra_bytes + comment_bytes)
      throw bad("the zip directory entry at byte " + std::to_string(directory_ + at) +
                " reaches beyond the directory");
    at += entry_bytes + name_bytes + extra_bytes + comment_bytes;

    ZipEntry entry;
    entry.name = rest.substr(0, name_bytes);
    if (little_endian<std::uint16_t>(record, 8) & 1) throw bad(entry.name, "is encrypted");
    if (const auto method = little_endian<std::uint16_t>(record, 10); method != 0)
      throw bad(entry.name, "is compressed (method " + std::to_string(method) +
                                "); only stored entries are read");
    std::uint64_t stored = little_endian<std::uint32_t>(record, 20);
    entry.size = little_endian<std::uint32_t>(record, 24);
    entry.header = little_endian<std::uint32_t>(record, 42);
    read_zip64(entry, rest.substr(name_bytes, extra_bytes), stored);
    if (stored != entry.size)
      throw bad(entry.name,
                "has " + std::to_string(stored) + " bytes stored as " + std::to_string(entry.size));
    find_data(entry);
    return entry;
  }

  /// Replaces the numbers that do not fit 32 bits by those in the extra field.
  void read_zip64(ZipEntry& entry, std::string_view extra, std::uint64_t& stored) const {
    std::string_view numbers;
    while (extra.size() >= 4) {
      const std::size_t bytes = little_endian<std::uint16_t>(extra, 2);
      if (bytes > extra.size() - 4) throw bad(entry.name, "has an extra field beyond its end");
      if (little_endian<std::uint16_t>(extra, 0) == 1) numbers = extra.substr(4, bytes);
      extra.remove_prefix(4 + bytes);
    }
    for (std::uint64_t* number : {&entry.size, &stored, &entry.header}) {  // in the format's order
      if (*number != 0xffffffff) continue;
      if (numbers.size() < 8) throw bad(entry.name, "lacks its zip64 sizes");
      *number = little_endian<std::uint64_t>(numbers, 0);
      numbers.remove_prefix(8);
    }
  }

  /// Sets where the data begins, behind the local header.
  void find_data(ZipEntry& entry) const {
    const auto outside = [&] {
      return bad(entry.name, "with " + std::to_string(entry.size) + " bytes at byte " +
                                 std::to_string(entry.header) + " reaches into the directory at " +
                                 std::to_string(directory_) + " or beyond");
    };
    if (entry.header > directory_ || directory_ - entry.header < local_bytes) throw outside();
    const std::string_view local = file_.text(entry.header, local_bytes);
    if (little_endian<std::uint32_t>(local, 0) != local_mark)
      throw bad(entry.name, "has no header at byte " + std::to_string(entry.header));
    const std::uint64_t name_bytes = little_endian<std::uint16_t>(local, 26);
    entry.begin = entry.header + local_bytes + name_bytes + little_endian<std::uint16_t>(local, 28);
    if (entry.begin > directory_ || entry.size > directory_ - entry.begin) throw outside();
    if (file_.text(entry.header + local_bytes, name_bytes) != entry.name)
      throw bad(entry.name, "has another name in its header");
  }

  /// Throws unless the entries have different names and share no byte.
  void require_apart(const std::vector<ZipEntry>& entries) const {
    std::vector<const ZipEntry*> order;
    order.reserve(entries.size());
    for (const ZipEntry& entry : entries) order.push_back(&entry);
    std::sort(order.begin(), order.end(),
              [](const auto* a, const auto* b) { return a->header < b->header; });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (order[i - 1]->begin + order[i - 1]->size > order[i]->header)
        throw bad(order[i]->name, "overlaps " + quoted_name(order[i - 1]->name));
    std::sort(order.begin(), order.end(),
              [](const auto* a, const auto* b) { return a->name < b->name; });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (order[i - 1]->name == order[i]->name) throw bad(order[i]->name, "occurs twice");
  }

  const InputFile& file_;
  std::uint64_t directory_ = 0, directory_bytes_ = 0, count_ = 0;
};

/// The entries of the zip archive `file`, in the order of its directory: stored, not encrypted, of
/// one volume, apart from each other, with different names. Checksums are not verified. Throws
/// format_error naming file and entry for anything else.
inline std::vector<ZipEntry> read_zip(const InputFile& file) { return ZipReader(file).read(); }

}  // namespace detail

}  // namespace pare
