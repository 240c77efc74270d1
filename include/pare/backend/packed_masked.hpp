// The product with masked rows: codes become 16-bit numbers, which a mask spreads over its columns.
#pragma once

#include <cstring>

#include "pare/backend/packed_fields.hpp"
#include "pare/storage/packed_rows.hpp"

namespace pare::inline PARE_TARGET::detail {

/// What each piece of a mask, of 8 columns, prunes. A piece is 8 bits of a mask of bits, or the
/// 8 / m indices of n:m.
struct MaskPieces {
  int bits = 0;                      ///< of a piece; 0: m does not divide 8
  std::vector<std::uint8_t> pruned;  ///< (pieces): a bit per column
};

/// The pieces of a linear's mask; none where the m of n:m does not divide 8, or without a mask.
inline MaskPieces mask_pieces(const PackedLinear& packed) {
  const PackedLayout& layout = packed.layout;
  const bool n_of_m = packed.kind == PackedMask::n_of_m;
  MaskPieces pieces;
  if (packed.kind == PackedMask::none || (n_of_m && 8 % layout.pattern.of != 0)) return pieces;
  const int of = n_of_m ? layout.pattern.of : 1;
  const int index_bits = n_of_m ? n_of_m_index_bits(layout.pattern.zeros, of) : 1;
  pieces.bits = 8 / of * index_bits;
  for (std::uint32_t piece = 0; piece < (1u << pieces.bits); ++piece) {
    std::uint8_t pruned[8];
    for (int g = 0; g < 8 / of; ++g) {
      const std::uint32_t index = piece >> (g * index_bits) & ((1u << index_bits) - 1);
      if (n_of_m)
        mark_pruned(index, layout.pattern.zeros, of, pruned + g * of);
      else
        pruned[g] = std::uint8_t(index);
    }
    unsigned columns = 0;
    for (int k = 0; k < 8; ++k) columns |= unsigned(pruned[k]) << k;
    pieces.pruned.push_back(std::uint8_t(columns));
  }
  return pieces;
}

/// Where a piece's columns find their codes, of 2 bytes each.
struct CodePlaces {
  int bits = 0;                      ///< of a piece
  AlignedVector<std::uint8_t> from;  ///< (pieces, 8, 4): see multiply_kept
  std::vector<std::uint8_t> kept;    ///< (pieces): bytes of the codes
};

inline CodePlaces code_places(const MaskPieces& pieces) {
  CodePlaces places;
  places.bits = pieces.bits;
  places.from.reserve(32 * pieces.pruned.size());
  for (const std::uint8_t pruned : pieces.pruned) {
    const std::uint8_t none = 0x80;
    std::uint8_t kept = 0;
    for (int k = 0; k < 8; ++k) {
      const bool keep = (pruned >> k & 1) == 0;
      for (const std::uint8_t from :
           {none, none, keep ? kept : none, keep ? std::uint8_t(kept + 1) : none})
        places.from.push_back(from);
      kept = std::uint8_t(kept + (keep ? 2 : 0));
    }
    places.kept.push_back(kept);
  }
  return places;
}

/// Reads the codes of a row, less the zero point.
/// @param codes  the row's bytes
/// @param count  codes
/// @param end    of what may be read
/// @param out    room for `count` numbers and up to 15 more
template <int bits>
void read_codes(const std::byte* codes, std::size_t count, const std::byte* end, int zero,
                std::int16_t* out) {
  // 8 codes are `bits` bytes. Each takes the two bytes it lies in, is brought to the top of 16 bits
  // by a product, and down again.
  const hn::CappedTag<std::uint16_t, 16> du;
  const hn::RebindToSigned<decltype(du)> di;
  const hn::Repartition<std::uint8_t, decltype(du)> bytes;
  const std::size_t lanes = hn::Lanes(du);
  static constexpr auto from = [] {
    std::array<std::uint8_t, 32> at{};
    for (std::size_t lane = 0; lane < 16; ++lane) {
      const std::size_t byte = lane * bits / 8;
      at[2 * lane] = std::uint8_t(byte);
      at[2 * lane + 1] = std::uint8_t(std::min<std::size_t>(byte + 1, 15));
    }
    return at;
  }();
  static constexpr auto up = [] {
    std::array<std::uint16_t, 16> factor{};
    for (std::size_t lane = 0; lane < 16; ++lane)
      factor[lane] = std::uint16_t(1u << (16 - bits - lane * bits % 8));
    return factor;
  }();
  const auto places = hn::LoadU(bytes, from.data());
  const auto factors = hn::LoadU(du, up.data());
  const auto point = hn::Set(di, std::int16_t(zero));
  const auto read = [&](const std::byte* at, std::int16_t* to) {
    const auto window =
        hn::TableLookupBytes(hn::LoadDup128(bytes, reinterpret_cast<const std::uint8_t*>(at)),
                             places);
    const auto code = hn::ShiftRight<16 - bits>(hn::Mul(hn::BitCast(du, window), factors));
    hn::StoreU(hn::Sub(hn::BitCast(di, code), point), di, to);
  };
  std::size_t done = 0;
  const std::size_t step = lanes * bits / 8;
  // As many steps of `lanes` codes as are there and have 16 bytes that may be read.
  const auto bytes_left = std::size_t(end - codes);
  const std::size_t whole =
      std::min(count / lanes, bytes_left < 16 ? 0 : (bytes_left - 16) / step + 1);
  for (std::size_t k = 0; k + 2 <= whole; k += 2, done += 2 * lanes, codes += 2 * step) {
    read(codes, out + done);
    read(codes + step, out + done + lanes);
  }
  for (; done < count; done += lanes, codes += step) {
    std::byte last[16] = {};
    std::memcpy(last, codes, std::min(std::size_t(end - codes), sizeof last));
    read(last, out + done);
  }
}

/// Sums code * x over the weights that a masked row keeps.
/// @param codes  of the weights kept, less the zero point; then 32 zeros
/// @param mask   the row's, (mask_bytes)
/// @param x      (in), then zeros up to a multiple of 8
/// @tparam alike  every piece keeps as many columns
template <bool alike>
float multiply_kept(const std::int16_t* codes, const std::byte* mask, std::size_t mask_bytes,
                    const CodePlaces& table, std::span<const float> x) {
  // A lane takes the two bytes of its column's code as its upper half, or zeros.
  const hn::CappedTag<float, 8> df;
  const hn::RebindToSigned<decltype(df)> di;
  const hn::Repartition<std::uint8_t, decltype(df)> bytes;
  const std::size_t lanes = hn::Lanes(df);
  const auto* next = reinterpret_cast<const std::uint8_t*>(codes);
  const std::uint8_t* const kept = table.kept.data();
  const std::size_t kept_by_all = kept[0];
  const float* at = x.data();
  const std::uint8_t* const from = table.from.data();
  const int bits = table.bits;
  const std::uint64_t top = (std::uint64_t{1} << bits) - 1;
  std::uint64_t stream = 0;
  auto a = hn::Zero(df), b = a, c = a, d = a;
  const auto add = [&](auto& sum) {
    const std::size_t piece = stream & top;
    stream >>= bits;
    const auto window = hn::LoadDup128(bytes, next);
    for (std::size_t lane = 0; lane < 8; lane += lanes) {
      const auto high =
          hn::TableLookupBytesOr0(window, hn::Load(bytes, from + 32 * piece + 4 * lane));
      sum = hn::MulAdd(hn::ConvertTo(df, hn::BitCast(di, high)), hn::Load(df, at + lane), sum);
    }
    next += alike ? kept_by_all : kept[piece];
    at += 8;
  };
  const std::byte* const mask_end = mask + mask_bytes;
  std::size_t pieces = x.size() / 8;
  for (; pieces >= 8 && mask_end - mask >= 8; pieces -= 8, mask += bits) {
    std::memcpy(&stream, mask, sizeof stream);
    add(a), add(b), add(c), add(d);
    add(a), add(b), add(c), add(d);
  }
  while (pieces > 0) {
    stream = 0;
    std::memcpy(&stream, mask, std::size_t(std::min<std::ptrdiff_t>(mask_end - mask, 8)));
    mask += bits;
    for (int k = 0; k < 8 && pieces > 0; ++k, --pieces) add(a);
  }
  return 0x1p-16f * hn::GetLane(hn::SumOfLanes(df, hn::Add(hn::Add(a, b), hn::Add(c, d))));
}

/// Sums (code - zero) * x over the weights that a masked row keeps. Reads no byte that is not the
/// linear's.
/// @param x      (in), then zeros up to a multiple of 8
/// @param codes  room, resized
inline float multiply_masked(const PackedLinear& packed, index_t row, const CodePlaces& table,
                             std::span<const float> x, AlignedVector<std::int16_t>& codes) {
  const std::uint64_t begin = packed.row_begin[std::size_t(row)];
  const int width = packed.layout.code_bits(row, 0);
  const auto count =
      std::size_t(8 * (packed.row_begin[std::size_t(row) + 1] - begin)) / std::size_t(width);
  codes.resize(x.size() + 64);
  with_code_bits(width, [&](auto bits) {
    read_codes<bits>(packed.codes.data() + begin, count, packed.codes.data() + packed.codes.size(),
                     packed.zeros[std::size_t(row)], codes.data());
  });
  std::fill_n(codes.data() + count, 32, std::int16_t(0));  // columns behind the last have none
  const std::size_t mask_bytes = packed.mask_row_bytes();
  const std::byte* const mask = packed.mask.data() + std::size_t(row) * mask_bytes;
  return packed.kind == PackedMask::n_of_m
             ? multiply_kept<true>(codes.data(), mask, mask_bytes, table, x)
             : multiply_kept<false>(codes.data(), mask, mask_bytes, table, x);
}

}  // namespace pare::detail
