// XXH64, the checksum of whole tensors and files: several gigabytes a second on one core.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// XXH64 with seed 0 over bytes given in pieces. It finds damage and mistakes, not malice. Source:
/// Collet, xxHash fast digest algorithm, 2012 (its specification, version 0.1.1).
class Xxh64 {
 public:
  /// The next bytes.
  void add(std::span<const std::byte> bytes) {
    length_ += bytes.size();
    if (held_ > 0) {
      const std::size_t taken = std::min(stripe - held_, bytes.size());
      std::copy_n(bytes.begin(), taken, rest_.begin() + std::ptrdiff_t(held_));
      held_ += taken;
      bytes = bytes.subspan(taken);
      if (held_ < stripe) return;
      take(rest_.data());
      held_ = 0;
    }
    for (; bytes.size() >= stripe; bytes = bytes.subspan(stripe)) take(bytes.data());
    std::copy(bytes.begin(), bytes.end(), rest_.begin());
    held_ = bytes.size();
  }

  /// Of all bytes so far.
  std::uint64_t value() const {
    std::uint64_t hash = prime5;
    if (length_ >= stripe) {
      hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
             std::rotl(lanes_[3], 18);
      for (const std::uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * prime1 + prime4;
    }
    hash += length_;
    std::size_t at = 0;
    for (; at + 8 <= held_; at += 8)
      hash =
          std::rotl(hash ^ round(0, word<std::uint64_t>(rest_.data() + at)), 27) * prime1 + prime4;
    for (; at + 4 <= held_; at += 4)
      hash =
          std::rotl(hash ^ word<std::uint32_t>(rest_.data() + at) * prime1, 23) * prime2 + prime3;
    for (; at < held_; ++at)
      hash = std::rotl(hash ^ std::uint64_t(rest_[at]) * prime5, 11) * prime1;
    hash = (hash ^ hash >> 33) * prime2;
    hash = (hash ^ hash >> 29) * prime3;
    return hash ^ hash >> 32;
  }

 private:
  static constexpr std::uint64_t prime1 = 0x9e3779b185ebca87u, prime2 = 0xc2b2ae3d27d4eb4fu,
                                 prime3 = 0x165667b19e3779f9u, prime4 = 0x85ebca77c2b2ae63u,
                                 prime5 = 0x27d4eb2f165667c5u;
  static constexpr std::size_t stripe = 32;  // bytes that all lanes take at a time

  template <class Word>
  static std::uint64_t word(const std::byte* at) {
    static_assert(std::endian::native == std::endian::little);
    Word value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  static std::uint64_t round(std::uint64_t lane, std::uint64_t word) {
    return std::rotl(lane + word * prime2, 31) * prime1;
  }
  void take(const std::byte* at) {
    for (std::size_t k = 0; k < 4; ++k)
      lanes_[k] = round(lanes_[k], word<std::uint64_t>(at + 8 * k));
  }

  std::array<std::uint64_t, 4> lanes_{prime1 + prime2, prime2, 0, 0 - prime1};
  std::array<std::byte, stripe> rest_{};
  std::size_t held_ = 0;  // bytes of rest_
  std::uint64_t length_ = 0;
};

/// XXH64 of some bytes.
inline std::uint64_t xxh64(std::span<const std::byte> bytes) {
  Xxh64 whole;
  whole.add(bytes);
  return whole.value();
}

}  // namespace pare
