// Grids: rounding, min-max and symmetric fits, clip search; which one a weight is on.
#define BOOST_TEST_MODULE pare_quantization
#include <boost/test/unit_test.hpp>

#include <set>

#include "pare/quantization/fit.hpp"
#include "pare/quantization/grid_map.hpp"
#include "support.hpp"

using namespace pare;
using namespace test;

namespace {

template <class T>
Grid<T> fit(const std::vector<T>& w, int bits, GridOptions options = {}) {
  return fit_grid(w.data(), index_t(w.size()), bits, options);
}

template <class T>
T rounded(T w, const Grid<T>& grid) {
  return round_to_grid(w, grid.scale, grid.zero, grid.top);
}

template <class T>
std::vector<T> normal_row(std::size_t n, std::uint64_t seed, double scale = 1) {
  const Matrix<T> m = random_normal<T>(1, index_t(n), seed, scale);
  return {m.data(), m.data() + m.size()};
}

/// sum |round(w) - w|^2.4 in double.
template <class T>
double naive_clip_error(const std::vector<T>& w, const Grid<T>& grid) {
  double sum = 0;
  for (const T x : w) sum += std::pow(std::abs(double(rounded(x, grid)) - double(x)), 2.4);
  return sum;
}

/// Every range the clip search may choose, in its own scalar type.
template <class T>
std::vector<Grid<T>> clip_candidates(const std::vector<T>& w, int bits, bool symmetric) {
  T low = 0, high = 0;
  for (const T x : w) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  if (symmetric) {
    high = std::max(high, -low);
    low = -high;
  }
  const T top = T((1 << bits) - 1);
  std::vector<Grid<T>> grids;
  for (int i = 0; i < 80; ++i) {
    const T p = T(1) - T(i) / T(100);
    const T scale = (p * high - p * low) / top;
    grids.push_back(
        {scale, symmetric ? T(1 << (bits - 1)) : std::nearbyint(-(p * low) / scale), top});
  }
  return grids;
}

template <class T>
void check_zero_is_on_the_grid(const Grid<T>& grid) {
  BOOST_TEST(grid.zero == std::nearbyint(grid.zero));
  BOOST_TEST((grid.zero >= 0 && grid.zero <= grid.top));
  BOOST_TEST(rounded(T(0), grid) == T(0));
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(rounding_follows_the_published_formula, T, Scalars) {
  Random random(1);
  for (int bits = min_bits; bits <= max_bits; ++bits) {
    const T top = T((1 << bits) - 1);
    for (int i = 0; i < 2000; ++i) {
      const T scale = T(std::exp(3 * random.normal()));
      const T zero = T(random.below((1 << bits)));
      const T w = T(double(scale) * double(top) * random.normal());
      const T code = std::clamp(std::nearbyint(w / scale) + zero, T(0), top);
      BOOST_REQUIRE_EQUAL(round_to_grid(w, scale, zero, top), scale * (code - zero));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(ties_go_to_the_even_code, T, Scalars) {
  for (const auto& [w, expected] : {std::pair<T, T>{T(0.5), T(0)},
                                    {T(1.5), T(2)},
                                    {T(2.5), T(2)},
                                    {T(3.5), T(4)},
                                    {T(-0.5), T(0)},
                                    {T(-1.5), T(-2)},
                                    {T(-2.5), T(-2)}}) {
    BOOST_TEST(round_to_grid(w, T(1), T(8), T(15)) == expected);
    BOOST_TEST(round_to_grid(w / 4, T(0.25), T(8), T(15)) == expected / 4);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(what_lies_outside_the_grid_is_clipped_to_its_ends, T, Scalars) {
  BOOST_TEST(round_to_grid(T(100), T(0.5), T(3), T(7)) == T(2));
  BOOST_TEST(round_to_grid(T(-100), T(0.5), T(3), T(7)) == T(-1.5));
  BOOST_TEST(round_to_grid(T(1e30), T(0.5), T(3), T(7)) == T(2));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rounding_a_rounded_weight_changes_nothing, T, Scalars) {
  for (int bits = min_bits; bits <= max_bits; ++bits) {
    const std::vector<T> w = normal_row<T>(300, std::uint64_t(bits), 0.037);
    for (const GridOptions options :
         {GridOptions{}, GridOptions{.symmetric = true}, GridOptions{.clip_search = true}}) {
      const Grid<T> grid = fit(w, bits, options);
      for (const T x : w) BOOST_REQUIRE_EQUAL(rounded(rounded(x, grid), grid), rounded(x, grid));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_3_a_grid_has_at_most_two_to_the_bits_values, T,
                              Scalars) {
  for (int bits = min_bits; bits <= max_bits; ++bits)
    for (const bool symmetric : {false, true})
      for (const bool clip_search : {false, true}) {
        const std::vector<T> w = normal_row<T>(3000, 77);
        const Grid<T> grid = fit(w, bits, {symmetric, clip_search});
        std::vector<T> values;
        for (const T x : w) values.push_back(rounded(x, grid));
        std::sort(values.begin(), values.end());
        values.erase(std::unique(values.begin(), values.end()), values.end());
        BOOST_TEST(values.size() <= (std::size_t{1} << bits));
        BOOST_TEST(values.size() > (std::size_t{1} << (bits - 1)));  // and it is used
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(min_max_grid_spans_the_weights_and_zero, T, Scalars) {
  for (int bits = min_bits; bits <= max_bits; ++bits)
    for (const T shift : {T(0), T(0.4), T(7), T(-7)}) {
      std::vector<T> w = normal_row<T>(50, std::uint64_t(100 + bits));
      for (T& x : w) x += shift;
      const T low = std::min(T(0), *std::min_element(w.begin(), w.end()));
      const T high = std::max(T(0), *std::max_element(w.begin(), w.end()));
      const T top = T((1 << bits) - 1);
      const Grid<T> grid = fit(w, bits);
      BOOST_TEST(grid.top == top);
      BOOST_TEST(grid.scale == (high - low) / top);
      BOOST_TEST(grid.zero == std::nearbyint(-low / grid.scale));
      check_zero_is_on_the_grid(grid);
      for (const T x : w) BOOST_REQUIRE_LE(std::abs(rounded(x, grid) - x), grid.scale * T(1.0001));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(half_scales_are_float16_and_zero_stays_on_the_grid, T, Scalars) {
  for (int bits = min_bits; bits <= max_bits; ++bits)
    for (const GridOptions options :
         {GridOptions{}, GridOptions{.symmetric = true}, GridOptions{.clip_search = true}})
      for (const double size : {1e-12, 2e-7, 1e-6, 0.02, 300.0}) {
        const std::vector<T> w = normal_row<T>(90, std::uint64_t(bits), size);
        GridOptions half = options;
        half.half_scale = true;
        const Grid<T> grid = fit(w, bits, half), full = fit(w, bits, options);
        BOOST_TEST(grid.scale == T(half_to_float(float_to_half(float(grid.scale)))));
        BOOST_TEST(grid.scale >= T(0x1p-24));
        if (!options.clip_search && full.scale > T(0x1p-14))
          BOOST_TEST(std::abs(grid.scale / full.scale - 1) <= T(0x1p-11));
        check_zero_is_on_the_grid(grid);
        BOOST_TEST((grid.zero >= T(0) && grid.zero <= grid.top));
      }
  // The smallest scale is far below that of these weights, whose zero point lies at the upper end.
  const Grid<T> low = fit(std::vector<T>(3, T(-1.4 * 15 * 0x1p-24)), 4, {.half_scale = true});
  BOOST_TEST(low.scale == T(0x1p-24));
  BOOST_TEST(low.zero == low.top);
  const std::vector<T> large(3, T(15 * 65504.0)), larger(3, T(15 * 65540.0));
  BOOST_TEST(fit(large, 4, {.half_scale = true}).scale == T(65504));
  BOOST_TEST(!std::isfinite(fit(larger, 4, {.half_scale = true}).scale));
  // Clipped by a fifth it would fit; the search takes what it can hold.
  BOOST_TEST(std::isfinite(fit(larger, 4, {.clip_search = true, .half_scale = true}).scale));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(scales_have_at_most_the_digits_asked_for, T, Scalars) {
  BOOST_TEST(detail::round_up_digits(1.0078125f, 8) == 1.0078125f);  // 1 + 2^-7
  BOOST_TEST(detail::round_up_digits(1.0079f, 8) == 1.015625f);
  BOOST_TEST(detail::round_up_digits(1.9999f, 8) == 2.0f);
  BOOST_TEST(detail::round_up_digits(0.0f, 8) == 0.0f);
  for (const int digits : {1, 5, 8, 10})
    for (const GridOptions options :
         {GridOptions{}, GridOptions{.symmetric = true}, GridOptions{.clip_search = true}})
      for (const double size : {2e-7, 1e-6, 0.02, 300.0}) {
        const std::vector<T> w = normal_row<T>(90, 7, size);
        GridOptions fewer = options;
        fewer.half_scale = true;
        fewer.scale_digits = digits;
        const Grid<T> grid = fit(w, 4, fewer), full = fit(w, 4, options);
        int exponent = 0;
        const T fraction = std::ldexp(std::frexp(grid.scale, &exponent), digits);
        BOOST_TEST(fraction == std::nearbyint(fraction));
        BOOST_TEST(grid.scale == T(half_to_float(float_to_half(float(grid.scale)))));
        if (!options.clip_search && full.scale > T(0x1p-13))
          BOOST_TEST((grid.scale >= full.scale * T(0.9999999) &&
                      grid.scale <= full.scale * (1 + std::ldexp(T(2), -digits))));
        check_zero_is_on_the_grid(grid);
        BOOST_TEST((grid.zero >= T(0) && grid.zero <= grid.top));
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(symmetric_grid_is_centred_on_zero, T, Scalars) {
  for (int bits = min_bits; bits <= max_bits; ++bits)
    for (const T shift : {T(0), T(5), T(-5)}) {
      std::vector<T> w = normal_row<T>(50, std::uint64_t(200 + bits));
      T largest = 0;
      for (T& x : w) {
        x += shift;
        largest = std::max(largest, std::abs(x));
      }
      const Grid<T> grid = fit(w, bits, {.symmetric = true});
      BOOST_TEST(grid.scale == 2 * largest / T((1 << bits) - 1));
      BOOST_TEST(grid.zero == T(1 << (bits - 1)));
      BOOST_TEST(grid.top == T((1 << bits) - 1));
      check_zero_is_on_the_grid(grid);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(all_zero_weights_get_the_range_of_one, T, Scalars) {
  for (int bits = min_bits; bits <= max_bits; ++bits)
    for (const bool symmetric : {false, true})
      for (const bool clip_search : {false, true}) {
        const std::vector<T> w(10, T(0));
        const Grid<T> grid = fit(w, bits, {symmetric, clip_search});
        BOOST_TEST(grid.scale == T(2) / T((1 << bits) - 1));
        check_zero_is_on_the_grid(grid);
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(constant_weights_are_kept, T, Scalars) {
  for (int bits = min_bits; bits <= max_bits; ++bits)
    for (const T value : {T(0.3), T(-0.3), T(1e-30), T(-1e30)}) {
      const std::vector<T> w(21, value);
      const Grid<T> grid = fit(w, bits);
      check_zero_is_on_the_grid(grid);
      BOOST_TEST(grid.zero == (value < 0 ? grid.top : T(0)));
      BOOST_TEST(relative_difference(double(rounded(value, grid)), double(value)) < 1e-6);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(extreme_sizes_keep_finite_grids, T, Scalars) {
  const T denormal = std::numeric_limits<T>::denorm_min();
  const T smallest = std::numeric_limits<T>::min();
  for (const T size : {T(1e30), T(1e-30), smallest, smallest / 8, denormal * 40, denormal})
    for (int bits = min_bits; bits <= max_bits; ++bits)
      for (const bool symmetric : {false, true})
        for (const bool clip_search : {false, true}) {
          std::vector<T> w{size, -size / 2, size / 3, T(0), -size, size * T(0.9)};
          const Grid<T> grid = fit(w, bits, {symmetric, clip_search});
          BOOST_REQUIRE(std::isfinite(grid.scale));
          BOOST_REQUIRE_GE(grid.scale, smallest);
          check_zero_is_on_the_grid(grid);
          for (const T x : w) {
            const T q = rounded(x, grid);
            BOOST_REQUIRE(std::isfinite(q));
            if (!clip_search) BOOST_REQUIRE_LE(std::abs(q - x), grid.scale * T(1.0001));
            BOOST_REQUIRE_LE(std::abs(q), 2 * size);
          }
        }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(zero_is_always_on_the_grid, T, Scalars) {
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    std::vector<T> w(std::size_t(1 + random.below(40)));
    const double shift = 3 * random.normal(), size = std::exp(5 * random.normal());
    for (T& x : w) x = T(size * (shift + random.normal()));
    const Grid<T> grid = fit(w, int(2 + random.below(7)), {random.below(2) == 0, i % 10 == 0});
    BOOST_REQUIRE_EQUAL(rounded(T(0), grid), T(0));
    BOOST_REQUIRE(grid.zero >= 0 && grid.zero <= grid.top);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(clip_search_finds_what_a_naive_search_finds, T, Scalars) {
  Random random(4);
  int narrower = 0;
  for (int i = 0; i < 120; ++i) {
    const int bits = 2 + i % 7;
    const bool symmetric = i % 3 == 0;
    // 16 divides some of the lengths; some rows have heavy tails.
    std::vector<T> w = normal_row<T>(std::size_t(1 + random.below(90)), std::uint64_t(500 + i));
    if (i % 2 == 0)
      for (T& x : w) x = x * x * x;
    const Grid<T> chosen = fit(w, bits, {symmetric, true});
    const Grid<T> widest = fit(w, bits, {symmetric, false});
    const std::vector<Grid<T>> candidates = clip_candidates(w, bits, symmetric);
    double least = std::numeric_limits<double>::infinity();
    bool is_candidate = false;
    for (const Grid<T>& grid : candidates) {
      least = std::min(least, naive_clip_error(w, grid));
      is_candidate |= relative_difference(double(grid.scale), double(chosen.scale)) < 1e-6 &&
                      grid.zero == chosen.zero;
    }
    BOOST_TEST(is_candidate);
    BOOST_TEST(chosen.top == widest.top);
    const double error = naive_clip_error(w, chosen);
    const double slack = 1 + (sizeof(T) == 4 ? 1e-5 : 1e-10);
    BOOST_TEST(error <= least * slack + 1e-30);
    BOOST_TEST(error <= naive_clip_error(w, widest) * slack + 1e-30);
    narrower += chosen.scale < widest.scale;
  }
  BOOST_TEST(narrower > 30);
}

/// One weight far beyond thousands of others: the best ranges are the narrowest that are tried.
BOOST_AUTO_TEST_CASE_TEMPLATE(clip_search_tries_all_eighty_ranges, T, Scalars) {
  std::set<std::size_t> best;
  for (const double beyond : {12.0, 14.0, 16.0, 18.0, 20.0, 24.0, 28.0, 32.0})
    for (const bool symmetric : {false, true}) {
      std::vector<T> w = normal_row<T>(6000, 40);
      w[17] = T(beyond);
      const std::vector<Grid<T>> candidates = clip_candidates(w, 3, symmetric);
      std::vector<double> errors;
      for (const Grid<T>& grid : candidates) errors.push_back(naive_clip_error(w, grid));
      const auto least = std::min_element(errors.begin(), errors.end());
      const std::size_t at = std::size_t(least - errors.begin());
      best.insert(at);
      const Grid<T> chosen = fit(w, 3, {symmetric, true});
      BOOST_TEST(relative_difference(double(candidates[at].scale), double(chosen.scale)) < 1e-6);
      BOOST_TEST(candidates[at].zero == chosen.zero);
    }
  BOOST_TEST(*best.rbegin() == 79u);
  BOOST_TEST((best.lower_bound(60) != best.lower_bound(79)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(clip_search_ignores_the_unit_of_the_weights, T, Scalars) {
  const std::vector<T> w = normal_row<T>(64, 6);
  const Grid<T> grid = fit(w, 3, {.clip_search = true});
  for (const T unit : {T(0x1p60), T(0x1p-60), T(0x1p-110)}) {
    std::vector<T> scaled = w;
    for (T& x : scaled) x *= unit;
    const Grid<T> other = fit(scaled, 3, {.clip_search = true});
    BOOST_TEST(other.scale == grid.scale * unit);
    BOOST_TEST(other.zero == grid.zero);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(power_2_4_is_accurate_on_the_unit_interval, T, Scalars) {
  const double limit = sizeof(T) == 4 ? 1e-6 : 1e-13;
  double worst = 0;
  for (int i = 0; i <= 60000; ++i) {
    const T t = T(std::pow(10.0, -12.0 * double(i) / 60000));
    worst =
        std::max(worst, relative_difference(double(detail::pow_2_4(t)), std::pow(double(t), 2.4)));
  }
  BOOST_TEST(worst <= limit);
  BOOST_TEST(detail::pow_2_4(T(1)) == T(1), boost::test_tools::tolerance(T(limit)));
  BOOST_TEST(double(detail::pow_2_4(T(0))) < 1e-60);
}

BOOST_AUTO_TEST_CASE(groups_of_a_row_are_neighbouring_columns_the_last_may_be_shorter) {
  const std::vector<std::uint8_t> bits{3, 4};
  for (const auto& [columns, size, begin] :
       {std::tuple<index_t, index_t, std::vector<index_t>>{100, 64, {0, 64, 100}},
        {128, 64, {0, 64, 128}},
        {5, 8, {0, 5}},
        {3, 1, {0, 1, 2, 3}},
        {7, 0, {0, 7}}}) {
    const GridMap map = grid_map(ChannelAxis::output, bits, columns, size);
    BOOST_TEST(map.begin == begin, boost::test_tools::per_element());
    BOOST_TEST(map.grids() == group_count(columns, size));
    BOOST_TEST((map.by_row() && map.natural_order()));
    for (index_t j = 0; j < columns; ++j)
      BOOST_TEST(map.of_column[std::size_t(j)] == (size == 0 ? 0 : j / size));
    BOOST_TEST(map.width_of(map.grids() - 1, 1, bits) == 4);
  }
  BOOST_TEST(grid_map(ChannelAxis::output, {}, 7, 2).grids() == 0);
}

BOOST_AUTO_TEST_CASE(groups_of_input_channels_are_runs_of_a_tier_the_widest_first) {
  const std::vector<std::uint8_t> bits{2, 8, 2, 4, 8, 2, 8};
  const auto columns_of = [&](const GridMap& map, index_t g) {
    const auto columns = map.columns_of(g);
    return std::vector<index_t>(columns.begin(), columns.end());
  };
  using Columns = std::vector<index_t>;
  const GridMap whole = grid_map(ChannelAxis::input, bits, 7, 0);
  BOOST_TEST(whole.grids() == 3);
  BOOST_TEST((columns_of(whole, 0) == Columns{1, 4, 6} && columns_of(whole, 1) == Columns{3} &&
              columns_of(whole, 2) == Columns{0, 2, 5}));
  const GridMap pairs = grid_map(ChannelAxis::input, bits, 7, 2);
  BOOST_TEST(pairs.grids() == 5);
  BOOST_TEST((columns_of(pairs, 0) == Columns{1, 4} && columns_of(pairs, 1) == Columns{6} &&
              columns_of(pairs, 4) == Columns{5}));
  BOOST_TEST((pairs.of_column == std::vector<std::int32_t>{3, 0, 3, 2, 0, 4, 1}));
  BOOST_TEST((pairs.width == std::vector<std::uint8_t>{8, 8, 4, 2, 2}));
  BOOST_TEST((!pairs.by_row() && !pairs.natural_order()));
  BOOST_TEST(pairs.width_of(2, 5, bits) == 4);
  // A number of grids beyond a byte, and a single width for all columns.
  const GridMap many = grid_map(ChannelAxis::input, std::vector<std::uint8_t>{4}, 1000, 1);
  BOOST_TEST((many.grids() == 1000 && many.of_column[999] == 999 && many.width[999] == 4));
}

BOOST_AUTO_TEST_CASE(a_grid_map_of_what_does_not_fit_is_refused) {
  const std::vector<std::uint8_t> bits(3, 4);
  BOOST_CHECK_THROW(grid_map(ChannelAxis::input, bits, 4, 0), shape_error);
  BOOST_CHECK_THROW(grid_map(ChannelAxis::output, bits, 0, 0), argument_error);
  BOOST_CHECK_THROW(grid_map(ChannelAxis::output, bits, 4, -1), argument_error);
}
