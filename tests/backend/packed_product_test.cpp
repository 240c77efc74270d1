// The packed product on the processor: every layout that a packed linear can have, against sums in
// float64 of what unpack_row reads. Buffers are as long as their content, so that a sanitizer sees
// what is read beyond them.
#define BOOST_TEST_MODULE pare_packed_product
#include <boost/test/unit_test.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "packed_support.hpp"
#include "pare/backend/packed_product.hpp"
#include "pare/storage/without_mask.hpp"
#include "support.hpp"

using namespace pare;
using namespace test;

namespace {

struct Mask {
  PackedMask kind = PackedMask::none;
  double share = 0;  ///< of bits that are pruned
  int zeros = 0, of = 0;

  Pattern pattern() const {
    return kind == PackedMask::none   ? Pattern{}
           : kind == PackedMask::bits ? unstructured(share)
                                      : n_of_m(zeros, of);
  }
};

std::string text(const Mask& mask) {
  if (mask.kind == PackedMask::none) return "no mask";
  if (mask.kind == PackedMask::bits) return "bits, " + std::to_string(mask.share);
  return std::to_string(mask.zeros) + ":" + std::to_string(mask.of);
}

/// A linear of random codes, grids and mask; of random values where there are no widths.
PackedLinear random_linear(index_t rows, index_t columns, std::vector<std::uint8_t> widths,
                           const Mask& mask, std::uint64_t seed, DType dtype = DType::f32,
                           ChannelAxis axis = ChannelAxis::output, index_t group_size = 0) {
  PackedLayout layout{.rows = rows,
                      .columns = columns,
                      .axis = axis,
                      .widths = std::move(widths),
                      .pattern = mask.pattern(),
                      .group_size = group_size};
  if (!layout.quantized()) layout.value_bits = 8 * dtype_bytes(dtype);
  return random_packed(layout, mask.kind, dtype, seed, 1 - mask.share);
}

/// Inputs that are nowhere small: a wrong code is seen.
std::vector<float> random_input(index_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> x;
  for (index_t j = 0; j < n; ++j)
    x.push_back(float((random.below(2) == 0 ? -1 : 1) * (0.5 + random.uniform())));
  return x;
}

/// Holds the product against the bound of its documentation, and against a tenth of what one wrong
/// code makes.
void check_product(const PackedLinear& packed, std::uint64_t seed) {
  const PackedLayout& layout = packed.layout;
  const std::vector<float> x = random_input(layout.columns, seed);
  std::vector<float> y(std::size_t(layout.rows), std::numeric_limits<float>::quiet_NaN());
  packed_product(packed, x, y);
  std::vector<std::uint8_t> pruned(std::size_t(layout.columns));
  std::vector<double> weights(std::size_t(layout.columns));
  const double unit = packed.dtype == DType::f16    ? 0x1p-11
                      : packed.dtype == DType::bf16 ? 0x1p-8
                                                    : 0;
  index_t beyond = 0, visible = 0;
  for (index_t i = 0; i < layout.rows; ++i) {
    unpack_row(packed, i, pruned.data(), weights.data());
    double sum = 0, bound = 0, rounded = 0, smallest_step = 1;
    for (index_t j = 0; j < layout.columns; ++j) {
      const double w = weights[std::size_t(j)], a = std::abs(double(x[std::size_t(j)]));
      double range = std::abs(w);
      if (layout.quantized()) {
        const index_t g = packed.grids.of_column[std::size_t(j)];
        const double scale = half_to_float(packed.scales[std::size_t(g * layout.rows + i)]);
        range = std::ldexp(scale, layout.code_bits(i, j));
        smallest_step = std::min(smallest_step, scale * a);
        rounded += unit * std::abs(w) * a;
      }
      sum += w * double(x[std::size_t(j)]);
      bound += range * a;
    }
    bound *= (double(layout.columns) / 4 + 32) * 0x1p-24;
    const double error = std::abs(double(y[std::size_t(i)]) - sum);
    beyond += !(error <= bound + rounded + 0x1p-24 * std::abs(sum));
    visible += !(error <= 0.1 * smallest_step + rounded);
  }
  BOOST_TEST(beyond == 0);
  BOOST_TEST(visible == 0);
}

const std::vector<Mask> masks{{},
                              {PackedMask::bits, 0.5},
                              {PackedMask::bits, 0.0},
                              {PackedMask::bits, 0.95},
                              {PackedMask::bits, 1.0}};
const std::vector<Mask> groups{{PackedMask::n_of_m, 0, 1, 2}, {PackedMask::n_of_m, 0, 2, 4},
                               {PackedMask::n_of_m, 0, 1, 4}, {PackedMask::n_of_m, 0, 4, 8},
                               {PackedMask::n_of_m, 0, 7, 8}, {PackedMask::n_of_m, 0, 2, 3},
                               {PackedMask::n_of_m, 0, 3, 7}, {PackedMask::n_of_m, 0, 8, 16}};

}  // namespace

BOOST_AUTO_TEST_CASE(every_width_and_mask_of_bits_in_sizes_that_divide_nothing) {
  for (const index_t columns : {1, 2, 7, 8, 31, 33, 63, 64, 65, 100, 191, 333, 1029})
    for (const index_t rows : {1, 3, 9})
      for (const Mask& mask : masks) {
        BOOST_TEST_CONTEXT(rows << " x " << columns << ", " << text(mask)) {
          const auto seed = std::uint64_t(1000 * columns + rows);
          for (int width = min_bits; width <= max_bits; ++width)
            BOOST_TEST_CONTEXT(width << " bits")
          check_product(random_linear(rows, columns, {std::uint8_t(width)}, mask, seed), seed);
          check_product(random_linear(rows, columns, any_widths(rows, seed), mask, seed), seed);
        }
      }
}

BOOST_AUTO_TEST_CASE(every_width_and_mask_of_groups) {
  for (const Mask& mask : groups)
    for (const index_t count : {1, 3, 16, 37, 129})
      BOOST_TEST_CONTEXT(count << " groups of " << text(mask)) {
        const index_t columns = count * mask.of;
        for (int width = min_bits; width <= max_bits; ++width)
          check_product(random_linear(5, columns, {std::uint8_t(width)}, mask, 7), 8);
        check_product(random_linear(13, columns, any_widths(13, 9), mask, 9), 10);
      }
}

BOOST_AUTO_TEST_CASE(input_channels_and_values_that_are_only_pruned) {
  std::vector<Mask> all = masks;
  all.insert(all.end(), groups.begin(), groups.end());
  for (const Mask& mask : all)
    for (const index_t count : {1, 11, 30}) BOOST_TEST_CONTEXT(count << ", " << text(mask)) {
        const index_t columns = count * std::max(mask.of, 1);
        check_product(random_linear(6, columns, any_widths(columns, 11), mask, 12, DType::f32,
                                    ChannelAxis::input),
                      13);
        check_product(random_linear(6, columns, {4}, mask, 12, DType::f32, ChannelAxis::input), 13);
        for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64})
          check_product(random_linear(6, columns, {}, mask, 14, dtype), 15);
      }
}

// Groups that begin within words, codes and m of n:m, and last ones that are shorter.
BOOST_AUTO_TEST_CASE(a_grid_per_group) {
  std::vector<Mask> all{masks[0], masks[1], masks[4], groups[1], groups[4], groups[6]};
  for (const Mask& mask : all)
    for (const index_t size : {1, 7, 24, 32, 64, 128, 5000})
      for (const index_t count : {1, 9, 45}) {
        const index_t columns = mask.of > 0 ? count * mask.of : 8 * count + 3;
        BOOST_TEST_CONTEXT(columns << " in groups of " << size << ", " << text(mask)) {
          for (int width = min_bits; width <= max_bits; ++width)
            check_product(random_linear(5, columns, {std::uint8_t(width)}, mask, 41, DType::f32,
                                        ChannelAxis::output, size),
                          42);
          check_product(random_linear(9, columns, any_widths(9, 43), mask, 44, DType::f32,
                                      ChannelAxis::output, size),
                        45);
          check_product(random_linear(3, columns, any_widths(columns, 46), mask, 47, DType::f32,
                                      ChannelAxis::input, size),
                        48);
        }
      }
}

// The rows of two widths take turns, so that those of a block are no neighbours.
BOOST_AUTO_TEST_CASE(groups_of_rows_that_are_no_neighbours) {
  std::vector<std::uint8_t> widths;
  for (int i = 0; i < 64; ++i) widths.push_back(i % 2 == 0 ? 3 : 4);
  check_product(random_linear(64, 300, widths, {}, 51, DType::f32, ChannelAxis::output, 64), 52);
}

// The largest sums of codes times digits that there are, more of them than 32 bits hold.
BOOST_AUTO_TEST_CASE(a_masked_row_of_a_million_columns) {
  const index_t columns = (1 << 20) + (1 << 13) + 72;
  PackedLinear packed = random_linear(1, columns, {8}, {PackedMask::bits, 0.0}, 21);
  std::fill(packed.codes.begin(), packed.codes.end(), std::byte{0xff});
  packed.zeros[0] = 0;
  const float input = -0x20808080p-29f;  // as four signed bytes: -32 and three times -128
  const std::vector<float> x(std::size_t(columns), input);
  std::vector<float> y(1);
  packed_product(packed, x, y);
  const double expected =
      double(half_to_float(packed.scales[0])) * 255 * double(input) * double(columns);
  BOOST_TEST(double(y[0]) == expected, boost::test_tools::tolerance(1e-3));
}

// An outlier in front of a weight of zero, and inputs so small beside it that their last digit counts.
BOOST_AUTO_TEST_CASE(small_inputs_beside_a_large_one) {
  const index_t rows = 3, columns = 200;
  PackedLinear packed = random_linear(rows, columns, {8}, {PackedMask::bits, 0.0}, 22);
  std::vector<float> x{0.75f};
  for (index_t j = 1; j < columns; ++j)
    x.push_back((j % 3 == 0 ? -1 : 1) * std::ldexp(float(129 + 2 * j), -30));
  for (std::size_t i = 0; i < rows; ++i)
    packed.codes[packed.row_begin[i]] = std::byte{packed.zeros[i]};
  std::vector<float> y(rows);
  packed_product(packed, x, y);
  for (std::size_t i = 0; i < rows; ++i) {
    const ExactRow exact = exact_row(packed, index_t(i), x.data());
    BOOST_TEST(std::abs(double(y[i]) - exact.value) <= 1e-6 * exact.magnitude);
  }
}

BOOST_AUTO_TEST_CASE(a_linear_without_its_mask_is_the_same_linear) {
  std::vector<Mask> all = masks;
  all.insert(all.end(), groups.begin(), groups.end());
  for (const Mask& mask : all) BOOST_TEST_CONTEXT(text(mask)) {
      const index_t columns = 21 * std::max(mask.of, 1);
      const auto check = [&](const PackedLinear& packed) {
        PackedLinear whole = without_mask(packed);
        const auto row_begin = whole.row_begin;
        index_rows(whole, "without mask");
        BOOST_TEST((whole.row_begin == row_begin));
        BOOST_TEST((whole.kind == PackedMask::none));
        const auto in = std::size_t(columns);
        std::vector<std::uint8_t> pruned(in);
        std::vector<float> before(in), after(in);
        for (index_t i = 0; i < packed.layout.rows; ++i) {
          unpack_row(packed, i, pruned.data(), before.data());
          unpack_row(whole, i, pruned.data(), after.data());
          BOOST_TEST(before == after);
        }
        check_product(whole, 31);
      };
      check(random_linear(19, columns, any_widths(19, 32), mask, 33));
      for (const index_t size : {0, 10})
        check(random_linear(5, columns, any_widths(columns, 34), mask, 35, DType::f32,
                            ChannelAxis::input, size));
      for (const DType dtype : {DType::f16, DType::f64})
        check(random_linear(5, columns, {}, mask, 36, dtype));
    }
}

BOOST_AUTO_TEST_CASE(weights_are_those_of_the_grid_whatever_the_checkpoint_rounds_to) {
  for (const Mask& mask : {masks[0], masks[1], groups[1]})
    for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
      std::vector<std::vector<float>> results;
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
        const PackedLinear packed =
            random_linear(24, 24, any_widths(24, 16), mask, 16, dtype, axis);
        check_product(packed, 17);
        results.emplace_back(24);
        packed_product(packed, random_input(24, 17), results.back());
        BOOST_TEST(results.back() == results.front());
      }
    }
}

BOOST_AUTO_TEST_CASE(a_layer_of_real_size) {
  for (const Mask& mask : {masks[0], masks[1], groups[1]}) {
    check_product(random_linear(70, 4096, any_widths(70, 18), mask, 18), 19);
    check_product(random_linear(70, 5000, {4}, mask, 20), 21);
  }
}

BOOST_AUTO_TEST_CASE(the_number_of_threads_changes_no_byte) {
  for (const Mask& mask : {masks[0], masks[1], groups[1], groups[5]}) {
    const PackedLinear packed = random_linear(200, 168, any_widths(200, 22), mask, 22);
    const std::vector<float> x = random_input(168, 23);
    std::vector<float> one(200), all(200);
    packed_product(packed, x, all);
    {
      detail::SingleThread single;
      packed_product(packed, x, one);
    }
    BOOST_TEST(one == all);
  }
}

BOOST_AUTO_TEST_CASE(rotated_inputs_are_rotated_first) {
  for (const index_t columns : {8, 96, 168, 1000}) {
    PackedLinear packed = random_linear(20, columns, any_widths(20, 25), {}, 25);
    const kernels::HadamardRotation rotation{26};
    const index_t block = kernels::HadamardRotation::block(columns);
    const std::vector<float> x = random_input(columns, 27);
    std::vector<float> turned(x.size()), y(20), expected(20);
    for (index_t i = 0; i < columns; ++i) {
      double sum = 0;
      for (index_t j = i / block * block; j < (i / block + 1) * block; ++j)
        sum += (std::popcount(std::uint64_t(i % block & j % block)) % 2 == 0 ? 1 : -1) *
               rotation.sign(j) * double(x[std::size_t(j)]);
      turned[std::size_t(i)] = float(sum / std::sqrt(double(block)));
    }
    packed_product(packed, turned, expected);
    packed.rotation = rotation;
    packed_product(packed, x, y);
    double distance = 0, length = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      distance += double(y[i] - expected[i]) * double(y[i] - expected[i]);
      length += double(expected[i]) * double(expected[i]);
    }
    BOOST_TEST(std::sqrt(distance / length) < 1e-5);
  }
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
  PackedLinear packed = random_linear(3, 8, {4}, {}, 24);
  std::vector<float> x(8, 1.0f), y(3), short_x(7), long_y(4);
  BOOST_TEST(message_of<shape_error>([&] { packed_product(packed, short_x, y); }) ==
             "packed_product: x: expected shape (8, 1), got (7, 1)");
  BOOST_TEST(message_of<shape_error>([&] { packed_product(packed, x, long_y); }) ==
             "packed_product: y: expected shape (3, 1), got (4, 1)");
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    x[5] = bad;
    BOOST_TEST(contains(message_of<non_finite_error>([&] { packed_product(packed, x, y); }),
                        "packed_product: x: expected finite numbers, got "));
  }
  x[5] = 1;
  packed.row_begin.clear();
  BOOST_TEST(message_of<argument_error>([&] { packed_product(packed, x, y); }) ==
             "packed_product: packed: expected an index of 3 rows, got one of 0; call index_rows");
}
