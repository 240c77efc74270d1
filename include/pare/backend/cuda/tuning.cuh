// How kernels are cut: a policy for each architecture, chosen by the GPU that is current.
#pragma once

#include <type_traits>

#include "pare/backend/cuda/context.cuh"

namespace pare::inline PARE_TARGET::backend::cuda {

/// How sweep_kernel cuts its work.
/// @tparam Lanes    threads of one row
/// @tparam Columns  of one launch at most; U among them lies in shared memory
/// @tparam Threads  of a block
/// @tparam Blocks   of a multiprocessor at a time at least, which limits the registers of a thread
template <int Lanes, int Columns, int Threads, int Blocks>
struct SweepCut {
  static constexpr int lanes = Lanes, columns = Columns, threads = Threads, blocks = Blocks;
  static constexpr int rows = Threads / Lanes;  ///< of a block
};

/// How select_kernel cuts its work.
/// @tparam Threads   of a block
/// @tparam Keys      of a thread at least: few blocks of threads meet sooner
/// @tparam KeyBytes  shared memory for the keys of a block at most, bytes; a multiple of 16
template <int Threads, int Keys, int KeyBytes>
struct SelectCut {
  static constexpr int threads = Threads, keys = Keys, key_bytes = KeyBytes;
};

/// How flash_attention_kernel cuts its work.
/// @tparam Width     numbers of a head that are computed with, a multiple of 16; those beyond head_dim
///                   are 0
/// @tparam RowTiles  tiles of 16 queries of one warp
/// @tparam Keys      that are in shared memory at a time, a multiple of 16
/// @tparam Blocks    of a multiprocessor at a time
template <int Width, int RowTiles, int Keys, int Blocks>
struct FlashTiles {
  static constexpr int width = Width, row_tiles = RowTiles, keys = Keys, blocks = Blocks;
  static constexpr int queries = 128;  ///< of a block
  static constexpr int threads = 32 * queries / (16 * RowTiles);
  /// Numbers from a row to the next: eight neighbouring rows then lie in different banks.
  static constexpr int stride = Width + 8;
  /// Queries, and keys and values twice: the next ones arrive while the last are read.
  static constexpr int bytes = (queries + 4 * keys) * stride * 2;
};

/// How flash_float_kernel cuts its work.
/// @tparam Width     numbers of a head that are computed with, a multiple of 8; those beyond head_dim
///                   are 0
/// @tparam RowTiles  tiles of 16 queries of one warp
/// @tparam Warps     of a block
/// @tparam Keys      that are in shared memory at a time, a multiple of 16
/// @tparam Blocks    of a multiprocessor at a time
template <int Width, int RowTiles, int Warps, int Keys, int Blocks>
struct FloatTiles {
  static constexpr int width = Width, row_tiles = RowTiles, keys = Keys, blocks = Blocks;
  static constexpr int queries = 16 * RowTiles * Warps;  ///< of a block
  static constexpr int threads = 32 * Warps;
  /// Numbers from a row to the next: four times an odd number, so that lanes read different banks.
  static constexpr int stride = Width + 4;
  static_assert(stride % 8 == 4);
  /// Queries, and keys and values twice: the next ones arrive while the last are read.
  static constexpr int bytes = (queries + 4 * keys) * stride * 4;
};

/// How wgmma_kernel cuts its work.
/// @tparam Columns     of a tile of C: 64, 128 or 192
/// @tparam Stages      of 32 terms that are in shared memory at a time
/// @tparam Blocks      of 32 terms that the tensor cores add up; sums of these are in float32
/// @tparam OutColumns  of a tile that leave through shared memory at a time
template <int Columns, int Stages, int Blocks, int OutColumns>
struct WgmmaCut {
  static constexpr int columns = Columns, stages = Stages, blocks = Blocks;
  static constexpr int stage_bytes = (128 + Columns) * 128;
  static constexpr int out_columns = OutColumns;
  /// Bytes from a row to the next: neighbouring rows then lie in different banks.
  static constexpr int out_stride = 4 * OutColumns + 32;
};

/// The policies. What is the same everywhere is not here: how many threads add up a row, for
/// instance, is part of the result.
namespace tuning {

/// H100 and H200: 227 KB of shared memory for a block. The only ones that were measured.
struct Sm90 {
  template <class T>
  using sweep = SweepCut<8, 128, 256, sizeof(T) == 8 ? 1 : 3>;
  using select = SelectCut<512, 8, 64 * 1024>;
  /// Columns of a panel of factor_by_panels(): more wait longer for each other in one launch, fewer make
  /// products that read and write the matrix more often.
  static constexpr int factor_panel = 2048;
  template <int Width>  // 64, 80, 96, 128 or 256
  using flash = FlashTiles<Width, Width == 256 ? 1 : 2, 64, Width == 256 ? 1 : 2>;
  template <int Width>
  using flash_float = FloatTiles<Width, Width <= 96 ? 2 : 1, 4, 32, Width == 256 ? 1 : 2>;
  template <int Columns>
  using wgmma = WgmmaCut<Columns,
                         Columns == 192   ? 4
                         : Columns == 128 ? 5
                                          : 6,
                         2, Columns == 192 ? 96 : 64>;
};

/// B200 and its like: as Sm90, which fits, untuned.
struct Sm100 : Sm90 {};

/// A100: 163 KB of shared memory for a block.
struct Sm80 : Sm90 {
  template <int Width>
  using flash =
      FlashTiles<Width, Width == 256 ? 1 : 2, Width == 256 ? 32 : 64, Width == 256 ? 1 : 2>;
  template <int Width>
  using flash_float =
      std::conditional_t<Width == 256, FloatTiles<256, 1, 2, 16, 1>, Sm90::flash_float<Width>>;
};

/// All others, from L40 and RTX 4090 on: 99 KB of shared memory for a block.
struct Sm89 : Sm80 {
  template <class T>
  using sweep = SweepCut<8, sizeof(T) == 8 ? 64 : 128, 256, 1>;
  template <int Width>
  using flash = std::conditional_t<Width == 128, FlashTiles<128, 2, 32, 1>, Sm80::flash<Width>>;
  template <int Width>
  using flash_float =
      std::conditional_t<Width == 96, FloatTiles<96, 2, 4, 16, 1>, Sm80::flash_float<Width>>;
};

}  // namespace tuning

/// f(policy) with that of a GPU.
/// @param compute_capability  10 * major + minor
template <class F>
auto with_tuning(int compute_capability, const F& f) {
  switch (compute_capability) {
    case 80:
    case 87:
      return f(tuning::Sm80{});
    case 90:
      return f(tuning::Sm90{});
    case 100:
    case 103:
      return f(tuning::Sm100{});
    default:
      return f(tuning::Sm89{});
  }
}

}  // namespace pare::backend::cuda
