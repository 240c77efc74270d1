// The product with masked rows on processors with AVX-512 VBMI2 and VNNI (servers from Ice Lake on,
// Zen 4): one instruction spreads 64 codes over a mask, one multiplies them by a digit of x.
//
// The Highway that distributions have does not know these instructions, so they are called by their
// own names.
#pragma once

#if defined(__x86_64__) && defined(__AVX512BW__) && defined(__AVX512VBMI__) && \
    defined(__AVX512VBMI2__) && defined(__AVX512VNNI__) && defined(__BMI2__)
#define PARE_SPREADS_BYTES

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "pare/backend/packed_masked.hpp"

namespace pare::inline PARE_TARGET::detail {

/// Columns that are multiplied at a time.
inline constexpr std::size_t spread_columns = 64;

/// x as whole numbers up to 2^30, each four signed 8-bit digits.
struct DigitsOfX {
  AlignedVector<std::int8_t> digits;  // (in / 64, 4, 64), zeros behind the last column
  double unit = 1;                    ///< what the whole numbers count
  double sum = 0;                     ///< of the whole numbers
};

/// @param x  (in), finite
inline DigitsOfX digits_of(std::span<const float> x) {
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::abs(v));
  int exponent = 0;
  static_cast<void>(std::frexp(largest, &exponent));
  DigitsOfX out;
  out.unit = std::ldexp(1.0, exponent - 30);
  const double per_unit = 1 / out.unit;  // exact
  out.digits.assign((x.size() + spread_columns - 1) / spread_columns * spread_columns * 4, 0);
  for (std::size_t j = 0; j < x.size(); ++j) {
    const double whole = std::nearbyint(double(x[j]) * per_unit);
    out.sum += whole;
    // Digits are -128 to 127: with 128 added to the lower three they are the number's bytes.
    const std::uint32_t bytes = (std::uint32_t(std::int32_t(whole)) + 0x00808080u) ^ 0x00808080u;
    for (std::size_t d = 0; d < 4; ++d)
      out.digits[(j / spread_columns * 4 + d) * spread_columns + j % spread_columns] =
          std::int8_t(bytes >> 8 * d & 0xff);
  }
  return out;
}

/// Writes codes as bytes.
/// @param codes  (bytes)
/// @param out    room for a byte per code and up to 63 more
template <int bits>
void codes_to_bytes(const std::byte* codes, std::size_t bytes, std::uint8_t* out) {
  // 8 codes are `bits` bytes: these go to 64 bits, of which every 8 from a code on are taken.
  static constexpr auto place = [] {
    std::array<std::uint8_t, 64> from{};
    for (std::size_t k = 0; k < 64; ++k) from[k] = std::uint8_t(k / 8 * bits + k % 8);
    return from;
  }();
  static constexpr auto shift = [] {
    std::array<std::uint8_t, 64> from{};
    for (std::size_t k = 0; k < 64; ++k) from[k] = std::uint8_t(k % 8 * bits);
    return from;
  }();
  const __m512i places = _mm512_loadu_si512(place.data());
  const __m512i shifts = _mm512_loadu_si512(shift.data());
  const __m512i ones = _mm512_set1_epi8(char((1 << bits) - 1));
  for (std::size_t at = 0; at < bytes; at += std::size_t{8} * bits, out += 64) {
    const __mmask64 there = bytes - at >= 64 ? ~__mmask64{0} : (__mmask64{1} << (bytes - at)) - 1;
    const __m512i eights =
        _mm512_permutexvar_epi8(places, _mm512_maskz_loadu_epi8(there, codes + at));
    _mm512_storeu_si512(out, _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, eights), ones));
  }
}

/// Sums code * x in multiples of x's unit, where pruned weights have the code `zero`.
/// @param codes  of the weights kept, a byte each, then 64 bytes that do not count
/// @param mask   the row's, (mask_bytes)
inline double multiply_spread(const std::uint8_t* codes, std::uint8_t zero, const std::byte* mask,
                              std::size_t mask_bytes, const MaskPieces& pieces,
                              const DigitsOfX& x) {
  const __m512i zeros = _mm512_set1_epi8(char(zero));
  // Pieces of less than 8 bits are looked up, up to 128.
  const int bits = pieces.bits;
  const std::uint64_t piece_bits = 0x0101010101010101u * ((1u << bits) - 1);
  const std::uint8_t* const table = pieces.pruned.data();
  const std::size_t count = pieces.pruned.size();
  const __m512i pruned_low =
      _mm512_maskz_loadu_epi8(count < 64 ? (__mmask64{1} << count) - 1 : ~__mmask64{0}, table);
  const __m512i pruned_high = count > 64 ? _mm512_loadu_si512(table + 64) : __m512i{};
  const std::byte* const mask_end = mask + mask_bytes;
  const std::int8_t* digits = x.digits.data();
  const std::int8_t* const digits_end = digits + x.digits.size();
  double total = 0;
  while (digits != digits_end) {
    // A sum grows by 4 * 255 * 128 at most at a time: so many fit 32 bits.
    constexpr std::ptrdiff_t most = 16384 * 4 * std::ptrdiff_t(spread_columns);
    const std::int8_t* const end = digits + std::min(most, digits_end - digits);
    __m512i sums[4] = {};
    for (; digits != end; digits += 4 * spread_columns, mask += bits) {
      std::uint64_t pruned = 0;
      if (mask_end - mask >= 8)
        std::memcpy(&pruned, mask, sizeof pruned);
      else
        std::memcpy(&pruned, mask, std::size_t(mask_end - mask));
      if (bits < 8) {
        const __m512i indices =
            _mm512_castsi128_si512(_mm_cvtsi64_si128(std::int64_t(_pdep_u64(pruned, piece_bits))));
        pruned = std::uint64_t(_mm_cvtsi128_si64(
            _mm512_castsi512_si128(_mm512_permutex2var_epi8(pruned_low, indices, pruned_high))));
      }
      const __mmask64 kept = ~pruned;
      const __m512i spread = _mm512_mask_expand_epi8(zeros, kept, _mm512_loadu_si512(codes));
      codes += std::popcount(kept);
      for (std::size_t d = 0; d < 4; ++d)
        sums[d] =
            _mm512_dpbusd_epi32(sums[d], spread, _mm512_load_si512(digits + d * spread_columns));
    }
    const auto wide = [](__m512i sum) {  // of two lanes each
      return _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(sum)),
                              _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sum, 1)));
    };
    __m512i joined = wide(sums[3]);
    for (std::size_t d = 3; d-- > 0;)
      joined = _mm512_add_epi64(_mm512_slli_epi64(joined, 8), wide(sums[d]));
    total += double(_mm512_reduce_add_epi64(joined));
  }
  return total;
}

/// The product of a quantized linear with a mask that has pieces, a grid per row.
inline void multiply_all_spread(const PackedLinear& packed, const MaskPieces& pieces,
                                std::span<const float> x, std::span<float> y) {
  const DigitsOfX digits = digits_of(x);
  const std::size_t mask_bytes = packed.mask_row_bytes();
  for_each_block(packed.layout.rows, [&](index_t begin, index_t end) {
    thread_local std::vector<std::uint8_t> codes;
    codes.resize(x.size() + 2 * spread_columns);
    for (auto row = std::size_t(begin); row < std::size_t(end); ++row) {
      const std::size_t first = packed.row_begin[row];
      with_code_bits(packed.layout.code_bits(index_t(row), 0), [&](auto bits) {
        codes_to_bytes<bits>(packed.codes.data() + first, packed.row_begin[row + 1] - first,
                             codes.data());
      });
      const std::uint8_t zero = packed.zeros[row];
      const double sum = multiply_spread(codes.data(), zero, packed.mask.data() + row * mask_bytes,
                                         mask_bytes, pieces, digits) -
                         double(zero) * digits.sum;
      y[row] = float(double(half_to_float(packed.scales[row])) * digits.unit * sum);
    }
  });
}

}  // namespace pare::detail

#endif
