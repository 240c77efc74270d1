// Blocks of weights as GGUF stores them, and which kind of blocks holds a linear exactly.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "pare/core/matrix.hpp"
#include "pare/core/scalar.hpp"
#include "pare/storage/export/linear.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::gguf {

/// How a tensor's weights are stored.
struct Kind {
  std::uint32_t id;  // of ggml_type
  const char* name;
  index_t weights;  // of a block
  index_t bytes;    // of a block
  bool operator==(const Kind& other) const { return id == other.id; }
};

inline constexpr Kind f32{0, "F32", 1, 4}, f16{1, "F16", 1, 2}, bf16{30, "BF16", 1, 2};
// scale (code - 8), and scale code + minimum
inline constexpr Kind q4_0{2, "Q4_0", 32, 18}, q4_1{3, "Q4_1", 32, 20};
// scale (code - 16), and scale code + minimum
inline constexpr Kind q5_0{6, "Q5_0", 32, 22}, q5_1{7, "Q5_1", 32, 24};
// scale code, with a sign
inline constexpr Kind q8_0{8, "Q8_0", 32, 34};
// Blocks of 256 have a scale each and whole numbers that multiply it for their parts. With 1 for all
// of these a block has one scale: scale code - scale zero where zeros are stored too,
inline constexpr Kind q2_k{10, "Q2_K", 256, 84}, q4_k{12, "Q4_K", 256, 144},
    q5_k{13, "Q5_K", 256, 176};
// otherwise scale (code - 4) and scale (code - 32)
inline constexpr Kind q3_k{11, "Q3_K", 256, 110}, q6_k{14, "Q6_K", 256, 210};

/// What holds the values of a dense weight exactly.
inline Kind kind_of(DType dtype) {
  return dtype == DType::f16 ? f16 : dtype == DType::bf16 ? bf16 : f32;
}

/// The smallest kind of blocks in which every value of a linear is exact; none where no kind is.
inline std::optional<Kind> block_kind(const ExportLinear& linear) {
  if (linear.widths_by_input) return std::nullopt;
  const auto whole = [&](const Kind& kind) {
    return linear.columns % kind.weights == 0 &&
           (linear.groups() == 1 || linear.group_size % kind.weights == 0);
  };
  const auto within = [&](int low, int high) {
    return linear.lowest >= low && linear.highest <= high;
  };
  const int width = linear.width();
  const struct {
    Kind kind;
    bool exact;
  } choices[] = {{q2_k, width <= 2},
                 {q3_k, within(-4, 3)},
                 {q4_0, within(-8, 7)},
                 {q4_k, width <= 4},
                 {q4_1, width <= 4 && linear.exact_minima},
                 {q5_0, within(-16, 15)},
                 {q5_k, width <= 5},
                 {q5_1, width <= 5 && linear.exact_minima},
                 {q6_k, within(-32, 31)},
                 {q8_0, within(-128, 127)}};  // by rising bits per weight
  for (const auto& [kind, exact] : choices)
    if (exact && whole(kind)) return kind;
  return std::nullopt;
}

/// Significant bits that scales may have so that Q4_1 or Q5_1 holds a linear where a smaller kind
/// than without them does: scale times zero is then a float16.
inline int scale_digits_of(const ExportLinear& linear) {
  ExportLinear fitted = linear;
  fitted.exact_minima = true;
  const auto kind = block_kind(fitted);
  return kind == q4_1 || kind == q5_1 ? 11 - linear.width() : 11;
}

/// Bytes of a block, one after the other.
class BlockWriter {
 public:
  explicit BlockWriter(std::byte* out) : out_(out) {}
  void half(std::uint16_t half) {
    std::memcpy(out_, &half, sizeof half);
    out_ += sizeof half;
  }
  void byte(unsigned value) { *out_++ = std::byte(value & 0xffu); }
  void bytes(int count, unsigned value) {
    for (int i = 0; i < count; ++i) byte(value);
  }
  /// Fields of a block of 256: bits [shift, shift + bits) of every value, in byte i from values
  /// that lie 32 apart, the first lowest. `runs` are the first values of each 32 bytes.
  template <class Value>
  void fields(const Value& value, int shift, int bits, std::span<const int> runs) {
    for (const int run : runs)
      for (int i = 0; i < 32; ++i) {
        unsigned packed = 0;
        for (int k = 0; k < 8 / bits; ++k)
          packed |= (value(run + 32 * k + i) >> shift & ((1u << bits) - 1)) << (bits * k);
        byte(packed);
      }
  }

 private:
  std::byte* out_;
};

/// Writes a block of 32 values.
/// @param scale    float16
/// @param minimum  float16, of the kinds that have one
/// @param value    value(k), without a sign but of Q8_0
template <class Value>
void write_block_32(const Kind& kind, std::uint16_t scale, std::uint16_t minimum,
                    const Value& value, BlockWriter out) {
  out.half(scale);
  if (kind == q4_1 || kind == q5_1) out.half(minimum);
  if (kind == q8_0) {
    for (int k = 0; k < 32; ++k) out.byte(value(k));
    return;
  }
  if (kind == q5_0 || kind == q5_1) {
    std::uint32_t high = 0;
    for (int k = 0; k < 32; ++k) high |= (value(k) >> 4 & 1u) << k;
    for (int i = 0; i < 4; ++i) out.byte(high >> (8 * i));
  }
  for (int k = 0; k < 16; ++k) out.byte((value(k) & 0xfu) | (value(k + 16) & 0xfu) << 4);
}

/// Writes a block of 256 values that has one scale.
/// @param scale  float16
/// @param zero   of the kinds that store one
/// @param value  value(k), without a sign
template <class Value>
void write_block_256(const Kind& kind, std::uint16_t scale, unsigned zero, const Value& value,
                     BlockWriter out) {
  constexpr int all[] = {0}, halves[] = {0, 128}, quarters[] = {0, 64, 128, 192};
  if (kind == q2_k) {
    out.bytes(16, 1 | zero << 4);
    out.fields(value, 0, 2, halves);
    out.half(scale);
    out.half(scale);
  } else if (kind == q3_k) {
    out.fields(value, 2, 1, all);
    out.fields(value, 0, 2, halves);
    out.bytes(8, 0x11);  // 33 in each of 16 fields, low bits
    out.bytes(4, 0xaa);  // and high ones; 32 is subtracted
    out.half(scale);
  } else if (kind == q6_k) {
    // The low four bits of 128 values: bytes of 64, the second half of the values above.
    for (const int half : halves)
      for (int i = 0; i < 64; ++i)
        out.byte((value(half + i) & 0xfu) | (value(half + 64 + i) & 0xfu) << 4);
    out.fields(value, 4, 2, halves);
    out.bytes(16, 1);
    out.half(scale);
  } else {
    out.half(scale);
    out.half(scale);
    // Eight numbers of six bits for scales and as many for zeros.
    out.bytes(4, 1);
    out.bytes(4, zero | zero >> 4 << 6);
    out.bytes(4, 1 | (zero & 0xfu) << 4);
    if (kind == q5_k) out.fields(value, 4, 1, all);
    out.fields(value, 0, 4, quarters);
  }
}

/// Writes a block of a row, all on one grid.
/// @param first  input that it begins with
/// @param out    (kind.bytes)
inline void write_block(const Kind& kind, const ExportCodes& codes, index_t row, index_t first,
                        std::byte* out) {
  const index_t g = codes.of_column[std::size_t(first)];
  const std::uint16_t scale = codes.scale(g, row);
  const int zero = codes.zero(g, row);
  const bool stores_zero =
      kind == q4_1 || kind == q5_1 || kind == q2_k || kind == q4_k || kind == q5_k;
  const int center = kind == q4_0   ? 8
                     : kind == q5_0 ? 16
                     : kind == q3_k ? 4
                     : kind == q6_k ? 32
                                    : 0;
  const auto value = [&](int k) {
    const int code = codes.code(row, first + k);
    return unsigned(stores_zero ? code : code - zero + center);
  };
  if (kind.weights == 256)
    write_block_256(kind, scale, unsigned(zero), value, BlockWriter(out));
  else
    write_block_32(kind, scale, float_to_half(-half_to_float(scale) * float(zero)), value,
                   BlockWriter(out));
}

/// The blocks of a linear.
/// @param order  the row of the linear that each stored row is, (out)
inline std::vector<std::byte> blocks_of(const Kind& kind, const ExportCodes& codes,
                                        const std::vector<index_t>& order) {
  const index_t blocks = codes.columns / kind.weights;
  std::vector<std::byte> bytes(std::size_t(codes.rows * blocks * kind.bytes));
  host_parallel_for(codes.rows, [&](index_t i) {
    for (index_t b = 0; b < blocks; ++b)
      write_block(kind, codes, order[std::size_t(i)], b * kind.weights,
                  bytes.data() + (i * blocks + b) * kind.bytes);
  });
  return bytes;
}

/// Values rounded to blocks of Q8_0, as llama.cpp rounds them: the largest of 32 becomes 127.
/// @param values  finite, a multiple of 32 in number
inline std::vector<std::byte> rounded_blocks(std::span<const float> values) {
  const index_t blocks = index_t(values.size()) / q8_0.weights;
  std::vector<std::byte> bytes(std::size_t(blocks * q8_0.bytes));
  host_parallel_for(blocks, [&](index_t b) {
    const float* const block = values.data() + b * q8_0.weights;
    float largest = 0;
    for (index_t k = 0; k < q8_0.weights; ++k) largest = std::max(largest, std::abs(block[k]));
    const float scale = largest / 127;
    const auto value = [&](int k) {
      return unsigned(scale > 0 ? int(std::round(block[k] / scale)) : 0);
    };
    write_block_32(q8_0, float_to_half(scale), 0, value,
                   BlockWriter(bytes.data() + b * q8_0.bytes));
  });
  return bytes;
}

}  // namespace detail::gguf
}  // namespace pare
