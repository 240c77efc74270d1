// The product with rows of codes without a mask: words are cut into fields, no code is shifted.
#pragma once

// Highway 1.0.3 does not compile where the processor has AVX-VNNI beside all of AVX-512, as
// Sapphire Rapids has, unless asked for it.
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "pare/core/matrix.hpp"

static_assert(HWY_TARGET != HWY_SCALAR,
              "pare: a packed product without vectors: Highway has none for this instruction set; "
              "compile for SSE4 or later, -march=x86-64-v2 or -march=native");

namespace pare::inline PARE_TARGET::detail {

namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

/// Calls f(begin, end) for blocks of [0, n), on all threads.
template <class F>
void for_each_block(index_t n, const F& f) {
  constexpr index_t block = 16;
  host_parallel_for((n + block - 1) / block,
                    [&](index_t k) { f(k * block, std::min(n, (k + 1) * block)); });
}

/// Words after which a stream of codes meets the boundaries of words in the same places again.
template <int bits>
inline constexpr int field_period = bits % 2 == 1 ? bits
                                    : bits == 6   ? 3
                                                  : 1;

/// Calls f(code, offset) for every code of which the word holds bits; the code's lowest bit is bit
/// `offset` of the word, which is negative where the code began in the word before.
template <int bits, class F>
constexpr void for_each_field(std::uint64_t word, const F& f) {
  const std::uint64_t begin = 32 * word;
  for (std::uint64_t code = begin / bits; code * bits < begin + 32; ++code)
    f(code, int(std::int64_t(code * bits) - std::int64_t(begin)));
}

/// The most fields that a word is cut into. A code in two words is a field of each.
template <int bits>
inline constexpr int field_count = [] {
  int most = 0;
  for (int word = 0; word < field_period<bits>; ++word) {
    int count = 0;
    for_each_field<bits>(std::uint64_t(word), [&](std::uint64_t, int) { ++count; });
    most = std::max(most, count);
  }
  return most;
}();

/// x as the fields of codes of one width meet it, and the bits of these fields. A field is
/// (word & mask) = code * 2^offset, so its input is stored times 2^-offset; the top field, whose
/// sign bit would be in the way, is word >> shift. Where a code lies in two words, both of its
/// parts count with their own power of two.
struct FieldLayout {
  AlignedVector<float> x;               // (vectors of words, fields, lanes)
  AlignedVector<std::uint32_t> masks;   // (period, fields - 1, lanes)
  AlignedVector<std::uint32_t> shifts;  // (period, lanes)
};

/// Lays x out for rows of codes of one width.
/// @param x  (in)
template <int bits>
FieldLayout lay_out_fields(std::span<const float> x) {
  constexpr int fields = field_count<bits>, period = field_period<bits>;
  const std::size_t lanes = hn::Lanes(hn::ScalableTag<float>());
  const std::size_t words = (x.size() * bits + 31) / 32;
  std::array<float, 32 + bits> power;  // 2^-offset at [offset + bits - 1]
  for (int k = 0; k < 32 + bits; ++k) power[std::size_t(k)] = std::ldexp(1.0f, bits - 1 - k);
  FieldLayout layout;
  layout.x.assign((words + lanes - 1) / lanes * fields * lanes, 0.0f);
  for (std::size_t word = 0; word < words; ++word) {
    float* out = layout.x.data() + word / lanes * fields * lanes + word % lanes;
    int field = 0;
    for_each_field<bits>(word, [&](std::uint64_t code, int offset) {
      if (code >= x.size()) return;
      if (offset + bits >= 32)
        out[std::size_t(fields - 1) * lanes] = x[code];
      else
        out[std::size_t(field++) * lanes] = x[code] * power[std::size_t(offset + bits - 1)];
    });
  }
  layout.masks.assign(period * (fields - 1) * lanes, 0);
  layout.shifts.assign(period * lanes, 0);
  for (std::size_t word = 0; word < period * lanes; ++word) {
    const std::size_t at = word / lanes * (fields - 1) * lanes + word % lanes;
    int field = 0;
    for_each_field<bits>(word, [&](std::uint64_t, int offset) {
      const int low = std::max(offset, 0);
      if (offset + bits >= 32)
        layout.shifts[word] = std::uint32_t(offset);
      else
        layout.masks[at + std::size_t(field++) * lanes] = ((1u << (offset + bits - low)) - 1)
                                                          << low;
    });
  }
  return layout;
}

/// Groups begin with a word where their size is a multiple of this: then a word is on one grid.
inline constexpr index_t aligned_group = 32;

/// Which grid the words of a row are on.
struct GridsOfWords {
  std::vector<std::int32_t> first;   ///< grid of the first word of each vector, (vectors)
  AlignedVector<std::int32_t> more;  ///< how many grids further each word is, (vectors, lanes)
  bool alike = true;                 ///< words of a vector are on one grid
};

/// @param columns     of a row
/// @param group_size  columns of a grid, a multiple of aligned_group
inline GridsOfWords grids_of_words(int bits, index_t columns, index_t group_size) {
  const std::size_t lanes = hn::Lanes(hn::ScalableTag<float>());
  const auto words = std::size_t((columns * bits + 31) / 32);
  const auto of_grid = std::size_t(group_size / 32 * bits);  // words
  GridsOfWords grids;
  for (std::size_t word = 0; word < (words + lanes - 1) / lanes * lanes; ++word) {
    // Words after the last have codes of zeros.
    const auto grid = std::int32_t(std::min(word, words - 1) / of_grid);
    if (word % lanes == 0) grids.first.push_back(grid);
    grids.more.push_back(grid - grids.first.back());
    grids.alike = grids.alike && grids.more.back() == 0;
  }
  return grids;
}

/// One scale for all of a row, which is not multiplied by.
struct OneScale {};

/// Scales of groups, where the words of a vector are on one grid.
struct ScaleOfVector {
  const GridsOfWords& grids;
  const float* scales;  ///< of grid g and row r at [g * stride + r]
  std::size_t stride;

  template <class D>
  auto operator()(D d, std::size_t vector, std::size_t row) const {
    return hn::Set(d, scales[std::size_t(grids.first[vector]) * stride + row]);
  }
};

/// Scales of groups, where they are on several.
struct ScalesOfWords {
  const GridsOfWords& grids;
  const float*
      scales;  ///< of grid g and row r at [r * stride + g]; a vector after the last is read
  std::size_t stride;

  template <class D>
  auto operator()(D d, std::size_t vector, std::size_t row) const {
    const hn::RebindToSigned<D> di;
    const auto from = hn::LoadU(d, scales + row * stride + std::size_t(grids.first[vector]));
    const auto more = hn::Load(di, grids.more.data() + vector * hn::Lanes(d));
    return hn::TableLookupLanes(from, hn::IndicesFromVec(d, more));
  }
};

/// Sums code * x of four rows of codes of one width, with groups scale * code * x.
/// @param rows    where the four begin; they may be the same
/// @param next    the four that come after these, fetched meanwhile
/// @param scales  OneScale, or what gives those of a vector of words of a row
/// @param out     (4)
template <int bits, class Scales>
void multiply_fields(const std::array<const std::byte*, 4>& rows,
                     const std::array<const std::byte*, 4>& next, const FieldLayout& layout,
                     std::size_t words, const Scales& scales, float* out) {
  constexpr int fields = field_count<bits>, period = field_period<bits>;
  static_assert(fields % 2 == 0 && fields >= 4);
  const hn::ScalableTag<float> df;
  const hn::RebindToUnsigned<decltype(df)> du;
  const hn::RebindToSigned<decltype(df)> di;
  const std::size_t lanes = hn::Lanes(df);
  using Sum = hn::Vec<decltype(df)>;
  using Words = hn::Vec<decltype(du)>;
  const float* PARE_RESTRICT x = layout.x.data();
  const std::uint32_t* PARE_RESTRICT masks = layout.masks.data();
  int phase = 0;
  Sum a0 = hn::Zero(df), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  Sum c0 = a0, c1 = a0, c2 = a0, c3 = a0;  // of the groups before

  const auto add = [&](Words w0, Words w1, Words w2, Words w3) {
    const auto part = [&](Words field) { return hn::ConvertTo(df, hn::BitCast(di, field)); };
    for (int f = 0; f < fields - 2; f += 2) {
      Words mask = hn::Load(du, masks);
      Sum v = hn::Load(df, x);
      a0 = hn::MulAdd(part(hn::And(w0, mask)), v, a0);
      a1 = hn::MulAdd(part(hn::And(w1, mask)), v, a1);
      a2 = hn::MulAdd(part(hn::And(w2, mask)), v, a2);
      a3 = hn::MulAdd(part(hn::And(w3, mask)), v, a3);
      mask = hn::Load(du, masks + lanes);
      v = hn::Load(df, x + lanes);
      b0 = hn::MulAdd(part(hn::And(w0, mask)), v, b0);
      b1 = hn::MulAdd(part(hn::And(w1, mask)), v, b1);
      b2 = hn::MulAdd(part(hn::And(w2, mask)), v, b2);
      b3 = hn::MulAdd(part(hn::And(w3, mask)), v, b3);
      masks += 2 * lanes;
      x += 2 * lanes;
    }
    const Words mask = hn::Load(du, masks);
    Sum v = hn::Load(df, x);
    a0 = hn::MulAdd(part(hn::And(w0, mask)), v, a0);
    a1 = hn::MulAdd(part(hn::And(w1, mask)), v, a1);
    a2 = hn::MulAdd(part(hn::And(w2, mask)), v, a2);
    a3 = hn::MulAdd(part(hn::And(w3, mask)), v, a3);
    const Words shift = hn::Load(du, layout.shifts.data() + std::size_t(phase) * lanes);
    v = hn::Load(df, x + lanes);
    b0 = hn::MulAdd(part(w0 >> shift), v, b0);
    b1 = hn::MulAdd(part(w1 >> shift), v, b1);
    b2 = hn::MulAdd(part(w2 >> shift), v, b2);
    b3 = hn::MulAdd(part(w3 >> shift), v, b3);
    masks += lanes;
    x += 2 * lanes;
    if (++phase == period) {
      phase = 0;
      masks = layout.masks.data();
    }
  };
  const auto load = [&](const std::byte* at) {
    return hn::BitCast(du, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du)>(),
                                     reinterpret_cast<const std::uint8_t*>(at)));
  };

  const auto end_vector = [&]([[maybe_unused]] std::size_t vector) {
    if constexpr (!std::is_same_v<Scales, OneScale>) {
      c0 = hn::MulAdd(hn::Add(a0, b0), scales(df, vector, 0), c0);
      c1 = hn::MulAdd(hn::Add(a1, b1), scales(df, vector, 1), c1);
      c2 = hn::MulAdd(hn::Add(a2, b2), scales(df, vector, 2), c2);
      c3 = hn::MulAdd(hn::Add(a3, b3), scales(df, vector, 3), c3);
      a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = hn::Zero(df);
    }
  };

  std::size_t word = 0;
  for (; word + lanes <= words; word += lanes) {
    const std::size_t at = 4 * word;
    for (const std::byte* row : next) hwy::Prefetch(row + at);
    add(load(rows[0] + at), load(rows[1] + at), load(rows[2] + at), load(rows[3] + at));
    end_vector(word / lanes);
  }
  if (word < words) {  // what is behind the row is not read
    alignas(64) std::byte rest[4][64] = {};
    for (std::size_t r = 0; r < 4; ++r)
      std::memcpy(rest[r], rows[r] + 4 * word, 4 * (words - word));
    add(load(rest[0]), load(rest[1]), load(rest[2]), load(rest[3]));
    end_vector(word / lanes);
  }
  const auto total = [&](Sum a, Sum b, Sum c) {
    return hn::GetLane(hn::SumOfLanes(df, std::is_same_v<Scales, OneScale> ? hn::Add(a, b) : c));
  };
  out[0] = total(a0, b0, c0);
  out[1] = total(a1, b1, c1);
  out[2] = total(a2, b2, c2);
  out[3] = total(a3, b3, c3);
}

}  // namespace pare::detail
