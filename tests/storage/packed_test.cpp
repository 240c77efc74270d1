// Packed linears and files: every width, pattern and axis, sizes to the byte, hostile input.
#define BOOST_TEST_MODULE pare_packed
#include <boost/test/unit_test.hpp>

#include <set>
#include <tuple>

#include "packed_support.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

using B = backend::Eigen;
using Layer = CompressedLinear<B, float>;
using Solvable = Data<B, float>;

template <class Pattern>
using ByWidths = Compression<Pattern, BaseQuantizer, MixedPrecision<Assigned>>;

Layer solved_with_widths(const Solvable& data, std::vector<std::uint8_t> bits,
                         const SolverOptions& options) {
  const auto solve = [&](auto solver) {
    return solver.solve(
        {.weights = data.weights.view(), .calibration = data.calibration, .bits = bits});
  };
  if (options.sparsity) return solve(SparseGPTSolver<ByWidths<Unstructured>, B, float>(options));
  if (options.of) return solve(SparseGPTSolver<ByWidths<NofM<>>, B, float>(options));
  return solve(SparseGPTSolver<ByWidths<Dense>, B, float>(options));
}

/// Whether every byte that is read back is the one that was solved for, and every byte is counted.
void check_packed(const Layer& linear, DType dtype) {
  const PackedLinear packed = pack_linear(linear, dtype);
  const LinearStatistics statistics = linear_statistics("linear", linear, 8 * dtype_bytes(dtype));
  BOOST_TEST(8.0 * double(packed.bytes()) == statistics.stored_bits);
  BOOST_TEST(packed.codes.size() % 4 == 0);
  BOOST_TEST(packed.mask.size() % 4 == 0);

  PackedLinear read = packed;
  read.row_begin.clear();
  read.grids = {};
  index_rows(read, "linear");
  BOOST_TEST(read.row_begin == packed.row_begin, boost::test_tools::per_element());
  BOOST_TEST((read.grids.of_column == packed.grids.of_column));
  BOOST_TEST((read.grids.of_column == linear.grids.of_column));

  Matrix<float> rows(linear.weights.rows(), linear.weights.cols());
  unpack_rows(read, 0, rows.view());
  index_t wrong = 0, unmarked = 0;
  std::vector<std::uint8_t> pruned(std::size_t(rows.cols()));
  for (index_t i = 0; i < rows.rows(); ++i) {
    detail::read_mask_row(read, i, pruned.data());
    for (index_t j = 0; j < rows.cols(); ++j) {
      wrong += rows(i, j) != round_to(dtype, linear.weights(i, j));
      unmarked += pruned[std::size_t(j)] != linear.mask(i, j);
    }
  }
  BOOST_TEST(wrong == 0);
  if (packed.kind != PackedMask::none) BOOST_TEST(unmarked == 0);
}

const std::vector<SolverOptions> patterns{{},
                                          {.sparsity = 0.5},
                                          {.sparsity = 0.93},
                                          {.zeros = 2, .of = 4},
                                          {.zeros = 5, .of = 8},
                                          {.zeros = 1, .of = 2}};

}  // namespace

BOOST_AUTO_TEST_CASE(every_width_pattern_and_axis_reads_back_and_is_counted_to_the_byte) {
  std::set<PackedMask> kinds;
  for (const Problem& problem :
       {Problem{13, 40, {3, 17}, 1}, Problem{1, 8, {}, 2}, Problem{7, 136, {0}, 3}}) {
    const Solvable data(problem);
    for (const SolverOptions& pattern : patterns)
      for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
        SolverOptions options = pattern;
        options.axis = axis;
        options.grid.half_scale = true;
        const index_t channels = axis == ChannelAxis::output ? problem.rows : problem.cols;
        for (int bits = min_bits; bits <= max_bits; ++bits)
          BOOST_TEST_CONTEXT(bits << " bits, axis " << to_string(axis)) {
            options.grid.symmetric = bits == 5;
            const Layer linear = solved_with_widths(data,
                                                    std::vector<std::uint8_t>(std::size_t(channels),
                                                                              std::uint8_t(bits)),
                                                    options);
            check_packed(linear, DType::f32);
            const PackedLinear packed = pack_linear(linear, DType::f32);
            BOOST_TEST(packed.layout.widths.size() == 1);
            BOOST_TEST(packed.scales.size() == std::size_t(problem.rows));
            kinds.insert(packed.kind);
          }
        options.grid.symmetric = false;
        const Layer linear = solved_with_widths(data, any_widths(channels, problem.seed), options);
        for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64})
          check_packed(linear, dtype);
        kinds.insert(pack_linear(linear, DType::f32).kind);
        // Groups with a tail, of channels of any width and of one.
        options.group_size = 7;
        check_packed(solved_with_widths(data, any_widths(channels, problem.seed), options),
                     DType::f16);
        options.group_size = 16;
        options.grid.symmetric = true;
        const Layer groups =
            solved_with_widths(data, std::vector<std::uint8_t>(std::size_t(channels), 4), options);
        check_packed(groups, DType::f32);
        BOOST_TEST(pack_linear(groups, DType::f32).layout.group_size == 16);
      }
  }
  BOOST_TEST(kinds.size() == 3);
}

BOOST_AUTO_TEST_CASE(linears_that_are_only_pruned_keep_the_values_that_stay) {
  const Solvable data(Problem{9, 48, {5}, 4});
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    for (const double sparsity : {0.01, 0.5, 0.9}) {
      SparseGPTSolver<Prune, B, float> solver({.sparsity = sparsity});
      const Layer linear = solver.solve(data.weights.view(), data.calibration);
      check_packed(linear, dtype);
      // A mask that costs more than it saves is not written.
      const PackedLinear packed = pack_linear(linear, dtype);
      BOOST_TEST((packed.kind == PackedMask::none) == (sparsity == 0.01));
      BOOST_TEST(packed.scales.empty());
    }
    SparseGPTSolver<PruneGroups, B, float> solver({.zeros = 2, .of = 4});
    check_packed(solver.solve(data.weights.view(), data.calibration), dtype);
  }
}

BOOST_AUTO_TEST_CASE(sizes_are_those_of_the_format_page) {
  // 2:4 in 4 bits: 2 of 4 codes, 3 bits per group, padded rows; a grid per row.
  PackedLayout layout{.rows = 10, .columns = 64, .widths = {4}, .pattern = n_of_m(2, 4)};
  std::vector<std::uint64_t> kept(10, 32 * 4);
  PackedSize size = packed_size(layout, kept);
  BOOST_TEST(int(size.kind) == int(PackedMask::n_of_m));
  BOOST_TEST(size.codes == 10u * 16);
  BOOST_TEST(size.mask == 10u * 8);
  BOOST_TEST(size.scales == 20u);
  BOOST_TEST(size.zeros == 10u);
  BOOST_TEST(size.widths == 0u);
  // A bit per weight.
  layout.pattern = unstructured(0.5);
  size = packed_size(layout, kept);
  BOOST_TEST(int(size.kind) == int(PackedMask::bits));
  BOOST_TEST(size.mask == 10u * 8);
  // At 2 bits a mask saves nothing: all codes.
  layout.widths = {2};
  std::fill(kept.begin(), kept.end(), 64u);
  size = packed_size(layout, kept);
  BOOST_TEST(int(size.kind) == int(PackedMask::none));
  BOOST_TEST(size.codes == 10u * 16);
  // Input channels: a grid per row and width, a byte per channel.
  layout.axis = ChannelAxis::input;
  layout.pattern = {};
  layout.widths.assign(64, 3);
  std::fill_n(layout.widths.begin(), 5, std::uint8_t(8));
  size = packed_size(layout, kept);
  BOOST_TEST(size.codes == 10u * 28);  // 217 bits
  BOOST_TEST(size.scales == 40u);
  BOOST_TEST(size.zeros == 20u);
  BOOST_TEST(size.widths == 64u);
}

BOOST_AUTO_TEST_CASE(groups_have_an_index_each_and_every_index_a_group) {
  for (const auto& [zeros, of, bits] :
       {std::tuple{2, 4, 3}, {1, 2, 1}, {4, 8, 7}, {1, 3, 2}, {3, 7, 6}, {5, 8, 6}}) {
    BOOST_TEST(detail::n_of_m_index_bits(zeros, of) == bits);
    const std::uint64_t ways = detail::binomials[std::size_t(of)][std::size_t(zeros)];
    std::set<std::vector<std::uint8_t>> seen;
    for (std::uint32_t index = 0; index < ways; ++index) {
      std::vector<std::uint8_t> pruned(std::size_t(of), 9);
      detail::mark_pruned(index, zeros, of, pruned.data());
      BOOST_TEST(std::count(pruned.begin(), pruned.end(), 1) == zeros);
      BOOST_TEST(detail::n_of_m_index(pruned.data(), of) == index);
      seen.insert(pruned);
    }
    BOOST_TEST(seen.size() == ways);
  }
  BOOST_TEST(detail::n_of_m_index_bits(32, 64) == 0);  // would take 61 bits: a bit per weight
  BOOST_TEST(detail::n_of_m_index_bits(2, 4096) == 0);
  BOOST_TEST(int(packed_mask_kind(n_of_m(2, 4096))) == int(PackedMask::bits));
}

BOOST_AUTO_TEST_CASE(a_zero_point_beyond_the_largest_code_is_refused) {
  for (const int bits : {2, 3, 4, 6}) {
    Solvable data(Problem{6, 16, {}, 5});
    SparseGPTSolver<Round, B, float> half({.bits = bits, .grid = {.half_scale = true}});
    PackedLinear packed =
        pack_linear(half.solve(data.weights.view(), data.calibration), DType::f32);
    const int largest = (1 << bits) - 1;
    packed.zeros[3] = std::uint8_t(largest);
    BOOST_CHECK_NO_THROW(index_rows(packed, "linear"));
    packed.zeros[3] = std::uint8_t(largest + 1);
    BOOST_TEST(contains(message_of<format_error>([&] { index_rows(packed, "linear"); }),
                        "expected at most " + std::to_string(largest) + ", got " +
                            std::to_string(largest + 1) + " for row 3"));
  }
}

BOOST_AUTO_TEST_CASE(what_no_file_can_hold_is_refused) {
  Solvable data(Problem{6, 16, {}, 5});
  SparseGPTSolver<Round, B, float> full({.bits = 4});
  BOOST_TEST(contains(message_of<argument_error>([&] {
                        pack_linear(full.solve(data.weights.view(), data.calibration), DType::f32);
                      }),
                      "expected a float16, which a packed linear holds; solve with "
                      "grid.half_scale"));
  SparseGPTSolver<Round, B, float> half({.bits = 4, .grid = {.half_scale = true}});
  Layer linear = half.solve(data.weights.view(), data.calibration);
  linear.weights(2, 3) += 1e-3f;
  BOOST_TEST(message_of<argument_error>([&] { pack_linear(linear, DType::f32); }) ==
             "weight (2, 3): expected a value of its grid");
  data.weights(4, 1) = 3e6f;
  BOOST_TEST(
      message_of<argument_error>([&] { half.solve(data.weights.view(), data.calibration); }) ==
      "grid.half_scale: row 4 of the weights needs a scale beyond 65504, the largest "
      "float16; scale the weights down, or leave it unset");
}
