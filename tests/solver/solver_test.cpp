// SparseGPTSolver against the published algorithm, and post-conditions 1 to 6 of its results.
#define BOOST_TEST_MODULE pare_solver
#include <boost/test/unit_test.hpp>

#include <functional>
#include <map>
#include <set>

#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

/// A solved linear in plain numbers, for checks that know neither backend nor scalar.
struct Solved {
  std::string name;
  SolverOptions options;
  double tolerance;
  index_t rows, cols;
  std::vector<double> W, H, Q;
  std::vector<double> mask, scale, zero, top;
  std::vector<std::int32_t> grid_of_column;
  std::vector<std::uint8_t> bits;
  std::vector<index_t> order;
  index_t block_size;
  std::vector<double> row_loss;
  double loss, damping;

  double q(index_t i, index_t j) const { return Q[std::size_t(i * cols + j)]; }
  bool pruned(index_t i, index_t j) const { return mask[std::size_t(i * cols + j)] != 0; }
  bool by_input() const { return options.axis == ChannelAxis::input; }
  int bits_of(index_t i, index_t j) const {
    return bits.empty() ? 0 : int(bits[std::size_t(by_input() ? j : i)]);
  }
  bool is_dead(index_t j) const { return test::is_dead(H, std::size_t(cols), std::size_t(j)); }
  /// A loss that rounding alone can make: the weights' own energy times epsilon squared.
  double rounding_floor() const {
    const std::vector<double> energy =
        closed_form_loss(W, std::vector<double>(W.size(), 0.0), H, damping);
    const double epsilon = tolerance < 1e-6 ? 1e-15 : 1e-6;
    return epsilon * epsilon * std::accumulate(energy.begin(), energy.end(), 0.0);
  }
};

template <class B, class T>
Solved plain(const Data<B, T>& data, const CompressedLinear<B, T>& linear,
             const SolverOptions& options, const std::string& name) {
  const bool quantized = linear.quantized();
  const auto host = [&](const auto& m) {
    return quantized ? doubles(download<B>(m)) : std::vector<double>{};
  };
  return {name,
          options,
          tolerance<T>,
          data.W.rows(),
          data.W.cols(),
          doubles(data.W),
          data.H,
          doubles(download<B>(linear.weights)),
          doubles(download<B>(linear.mask)),
          host(linear.grids.scale),
          host(linear.grids.zero),
          host(linear.grids.top),
          linear.grids.of_column,
          linear.bits,
          linear.order,
          linear.block_size,
          linear.row_loss,
          linear.loss,
          linear.damping};
}

/// A table of configurations, options and shapes, solved.
template <class C>
std::vector<Solved> solve_table() {
  using B = typename C::backend;
  using T = typename C::scalar;
  std::vector<Solved> results;
  const auto run = [&]<class Config>(std::type_identity<Config>, const SolverOptions& options,
                                     const Problem& problem) {
    const Data<B, T> data(problem);
    SparseGPTSolver<Config, B, T> solver(options);
    const auto linear = solver.solve(data.weights.view(), data.calibration);
    const std::string name = std::to_string(results.size()) + ": shape " +
                             shape_text(problem.rows, problem.cols) + " seed " +
                             std::to_string(problem.seed);
    results.push_back(plain(data, linear, options, name));
  };
  const std::type_identity<Prune> prune;
  const std::type_identity<PruneGroups> groups;
  const std::type_identity<Round> round;
  const std::type_identity<Joint> joint;
  const std::type_identity<JointBudget> joint_budget;
  const std::type_identity<RoundQuantile> round_quantile;
  const std::type_identity<GroupsBudget> groups_budget;
  constexpr ChannelAxis input = ChannelAxis::input;

  for (const bool act_order : {false, true}) {
    run(prune, {.sparsity = 0.5, .act_order = act_order}, {40, 150, {3, 149}, 1});
    run(groups, {.zeros = 2, .of = 4, .act_order = act_order}, {33, 136, {}, 2});
    run(groups, {.zeros = 1, .of = 3, .act_order = act_order}, {17, 135, {8}, 3});
    run(round, {.bits = 3, .act_order = act_order}, {35, 140, {0}, 4});
    run(joint, {.sparsity = 0.5, .bits = 4, .act_order = act_order}, {18, 130, {7, 8}, 5});
    run(joint_budget,
        {.sparsity = 0.3, .bits = 4, .target_average_bits = 3.3, .act_order = act_order},
        {40, 50, {2}, 6});
    run(joint_budget,
        {.sparsity = 0.5,
         .bits = 4,
         .target_average_bits = 3.3,
         .axis = input,
         .act_order = act_order},
        {20, 60, {2}, 7});
    run(round_quantile,
        {.bits = 4, .target_average_bits = 4.0, .block_size = 16, .act_order = act_order},
        {37, 48, {}, 8});
    run(round_quantile,
        {.bits = 4,
         .target_average_bits = 2.7,
         .tiers = std::vector<int>{2, 3, 5},
         .axis = input,
         .block_size = 16,
         .act_order = act_order},
        {19, 48, {1}, 9});
    run(groups_budget,
        {.zeros = 2, .of = 4, .bits = 4, .target_average_bits = 4.0, .act_order = act_order},
        {24, 44, {3}, 10});
    run(groups_budget,
        {.zeros = 2,
         .of = 4,
         .bits = 4,
         .target_average_bits = 3.0,
         .axis = input,
         .block_size = 24,
         .act_order = act_order},
        {24, 44, {3}, 11});
  }
  // Groups: with a tail, longer than a row, of one input, across blocks and within them.
  for (const bool act_order : {false, true}) {
    run(round, {.bits = 3, .group_size = 64, .act_order = act_order}, {18, 100, {0}, 50});
    run(groups_budget,
        {.zeros = 2,
         .of = 4,
         .bits = 4,
         .target_average_bits = 3.0,
         .axis = input,
         .group_size = 5,
         .block_size = 24,
         .act_order = act_order},
        {16, 44, {3}, 51});
    run(joint_budget,
        {.sparsity = 0.5,
         .bits = 4,
         .target_average_bits = 3.3,
         .grid = {.symmetric = true},
         .group_size = 16,
         .act_order = act_order},
        {20, 60, {2}, 52});
  }
  for (const index_t size : {1, 24, 32, 96}) {
    const SolverOptions compensated{.bits = 3,
                                    .grid = {.clip_search = size == 24},
                                    .group_size = size,
                                    .group_fit = GroupFit::compensated,
                                    .block_size = 32};
    run(round, compensated, {9, 70, {1, 69}, 53});
    SolverOptions pruned = compensated;
    pruned.sparsity = 0.4;
    run(joint, pruned, {7, 70, {}, 54});
  }
  run(round, {.bits = 4, .group_size = 33}, {7, 20, {}, 55});
  for (const index_t block : {1, 7, 1000}) {
    run(prune, {.sparsity = 0.29, .block_size = block}, {13, 33, {}, 20});
    run(joint, {.sparsity = 0.7, .bits = 2, .block_size = block}, {16, 33, {}, 21});
    run(groups, {.zeros = 4, .of = 8, .block_size = block}, {9, 40, {}, 22});
  }
  for (const auto& [rows, cols] : {std::pair<index_t, index_t>{1, 1}, {1, 7}, {5, 1}, {2, 3}}) {
    run(prune, {.sparsity = 0.5}, {rows, cols, {}, 23});
    run(round, {.bits = 4}, {rows, cols, {}, 24});
    run(joint, {.sparsity = 0.4, .bits = 3, .act_order = true}, {rows, cols, {}, 25});
    run(joint_budget, {.sparsity = 0.4, .bits = 3, .target_average_bits = 5}, {rows, cols, {}, 26});
    run(round_quantile, {.bits = 3, .target_average_bits = 5, .axis = input}, {rows, cols, {}, 27});
  }
  run(groups, {.zeros = 1, .of = 2}, {1, 2, {}, 28});
  run(prune, {.sparsity = 0.0}, {6, 20, {4}, 29});
  run(prune, {.sparsity = 0.99}, {6, 20, {}, 30});
  run(prune, {.sparsity = 0.5}, {6, 4, {0, 1, 2, 3}, 31});
  run(round, {.bits = 3, .grid = {.symmetric = true}}, {20, 64, {}, 32});
  run(round, {.bits = 3, .grid = {.clip_search = true}}, {20, 64, {5}, 33});
  run(joint_budget,
      {.sparsity = 0.5,
       .bits = 4,
       .target_average_bits = 3.0,
       .axis = input,
       .grid = {.clip_search = true}},
      {12, 40, {5}, 34});
  run(round, {.bits = 8, .damping = 0.2}, {12, 40, {}, 35});
  return results;
}

/// Calls check for every solved linear of the table; they are solved once.
template <class C>
void for_each_solved(const std::function<void(const Solved&)>& check) {
  static const std::vector<Solved> table = solve_table<C>();
  for (const Solved& solved : table) BOOST_TEST_CONTEXT(solved.name) check(solved);
}

/// The visit order as DESIGN has it: wider inputs first, then (act-order) falling H_jj; groups of
/// n:m stay together and are placed by their means.
std::vector<index_t> expected_order(const Solved& s) {
  const index_t of = s.options.of.value_or(1);
  const auto energy = [&](index_t j) {
    return s.options.act_order ? s.H[std::size_t(j * s.cols + j)] : 0.0;
  };
  const auto width = [&](index_t j) { return s.by_input() ? s.bits_of(0, j) : 0; };
  using Key = std::tuple<double, double, index_t, double, double, index_t>;
  std::vector<Key> keys;
  for (index_t j = 0; j < s.cols; ++j) {
    double group_energy = 0, group_width = 0;
    for (index_t k = j / of * of; k < (j / of + 1) * of; ++k) {
      group_energy += energy(k);
      group_width += width(k);
    }
    keys.emplace_back(-group_width, -group_energy, j / of, -width(j), -energy(j), j);
  }
  std::sort(keys.begin(), keys.end());
  std::vector<index_t> order;
  for (const Key& key : keys) order.push_back(std::get<5>(key));
  return order;
}

PublishedResult published(const Solved& s) {
  PublishedOptions o;
  o.sparsity = s.options.sparsity.value_or(0);
  o.zeros = s.options.zeros.value_or(0);
  o.of = s.options.of.value_or(0);
  if (!s.bits.empty())
    (s.by_input() ? o.column_bits : o.row_bits).assign(s.bits.begin(), s.bits.end());
  o.symmetric = s.options.grid.symmetric;
  o.clip_search = s.options.grid.clip_search;
  o.damping = s.options.damping;
  o.block_size = std::size_t(s.options.block_size);
  o.group_size = std::size_t(s.options.group_size);
  o.compensated = s.options.group_fit == GroupFit::compensated;
  o.order = {s.order.begin(), s.order.end()};
  return published_sparsegpt(s.W, s.H, o);
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(solves_as_the_published_algorithm, C, Cases) {
  constexpr bool exact = sizeof(typename C::scalar) == 8;
  index_t equal = 0, all = 0;
  for_each_solved<C>([&](const Solved& s) {
    const PublishedResult expected = published(s);
    double largest = 0;
    for (const double w : expected.weights) largest = std::max(largest, std::abs(w));
    index_t differing = 0;
    for (std::size_t i = 0; i < s.Q.size(); ++i) {
      if constexpr (exact) {
        BOOST_REQUIRE_LE(std::abs(s.Q[i] - expected.weights[i]), 1e-9 * largest);
        BOOST_REQUIRE_EQUAL(s.mask[i], double(expected.mask[i]));
      }
      differing += s.mask[i] != double(expected.mask[i]);
    }
    equal += index_t(s.Q.size()) - differing;
    all += index_t(s.Q.size());
    BOOST_TEST(double(differing) <= 0.005 * double(s.Q.size()));
    const double limit = (exact ? 1e-9 : 5e-3) * expected.loss + s.rounding_floor();
    BOOST_TEST(std::abs(s.loss - expected.loss) <= limit);
    for (std::size_t i = 0; exact && i < s.row_loss.size(); ++i)
      BOOST_REQUIRE_LE(std::abs(s.row_loss[i] - expected.row_loss[i]), 1e-9 * expected.loss);
    // Compensated weights differ in their last digits from the oracle's.
    if (!exact && s.options.group_fit == GroupFit::compensated) return;
    for (index_t i = 0; !s.bits.empty() && i < s.rows; ++i)
      for (index_t j = 0; j < s.cols; ++j) {
        const std::size_t at = std::size_t(s.grid_of_column[std::size_t(j)] * s.rows + i);
        const std::size_t entry = std::size_t(i * s.cols + j);
        BOOST_REQUIRE_LE(relative_difference(s.scale[at], expected.scale[entry]), 1e-5);
        BOOST_REQUIRE_EQUAL(s.zero[at], expected.zero[entry]);
        BOOST_REQUIRE_EQUAL(s.top[at], std::pow(2, s.bits_of(i, j)) - 1);
      }
  });
  BOOST_TEST(double(equal) >= 0.995 * double(all));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(inputs_are_visited_by_width_then_by_energy, C, Cases) {
  for_each_solved<C>([](const Solved& s) { BOOST_TEST(s.order == expected_order(s)); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(dead_inputs_end_as_zero, C, Cases) {
  index_t found = 0;
  for_each_solved<C>([&](const Solved& s) {
    for (index_t j = 0; j < s.cols; ++j)
      for (index_t i = 0; s.is_dead(j) && i < s.rows; ++i, ++found)
        BOOST_REQUIRE_EQUAL(s.q(i, j), 0.0);
  });
  BOOST_TEST(found > 100);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_large_weight_of_a_dead_input_widens_no_grid, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  // Weights around 0.05, those of input 7 are 1000, which is never anything but zero.
  Matrix<T> W(8, 64), X(128, 64);
  Random random(60);
  for (index_t i = 0; i < W.size(); ++i) W.data()[i] = T(0.05 * random.normal());
  for (index_t i = 0; i < X.size(); ++i) X.data()[i] = T(random.normal());
  for (index_t i = 0; i < 8; ++i) W(i, 7) = 1000;
  for (index_t t = 0; t < 128; ++t) X(t, 7) = 0;
  const auto check = [&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    const auto solve = [&](T outlier, double scale) {
      Matrix<T> weights = W, inputs = X;
      for (index_t i = 0; i < 8; ++i) weights(i, 7) = outlier;
      for (index_t i = 0; i < X.size(); ++i) inputs.data()[i] *= T(scale);
      Calibration<B, T> calibration(64);
      const auto x = upload<B>(inputs), w = upload<B>(weights);
      calibration.add(x.view());
      SparseGPTSolver<Config, B, T> solver(options);
      auto solved = solver.solve(w.view(), calibration);
      return std::tuple(download<B>(solved.weights), download<B>(solved.mask), solved.bits,
                        solved.loss / (scale * scale));
    };
    const auto [Q, mask, bits, loss] = solve(T(1000), 1);
    index_t kept = 0;
    double energy = 0;
    for (index_t i = 0; i < 8; ++i)
      for (index_t j = 0; j < 64; ++j) {
        kept += j != 7 && Q(i, j) != 0;
        if (j != 7) energy += double(W(i, j)) * double(W(i, j));
        if (j == 7) BOOST_REQUIRE_EQUAL(Q(i, j), T(0));
      }
    BOOST_TEST(kept > (options.sparsity ? 0.4 : 0.6) * 504);
    BOOST_TEST(loss < (options.sparsity ? 0.5 : 0.1) * energy * 128);  // H_jj is about 256
    // The weight is as good as another, and the unit of the inputs is nothing. Only the dead input's H_jj
    // is 1 in every unit; the CUDA backend eliminates inputs in pairs, so that it takes part in the rounding of
    // its neighbour's U.
    const double rounding =
        B::name == "cuda" ? std::max(1e-12, 8 * double(std::numeric_limits<T>::epsilon())) : 1e-12;
    for (const auto& [outlier, scale] : {std::pair{0.0, 1.0}, {1000.0, std::exp2(-20)}}) {
      const auto other = solve(T(outlier), scale);
      BOOST_TEST(same_bytes(std::get<0>(other), Q));
      BOOST_TEST(same_bytes(std::get<1>(other), mask));
      BOOST_TEST(std::get<2>(other) == bits);
      BOOST_TEST(relative_difference(std::get<3>(other), loss) < rounding);
    }
  };
  check(std::type_identity<Round>{}, {.bits = 4});
  check(std::type_identity<Round>{}, {.bits = 4, .grid = {.clip_search = true}, .act_order = true});
  check(std::type_identity<Joint>{},
        {.sparsity = 0.5, .bits = 4, .block_size = 16, .act_order = true});
  for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input}) {
    check(std::type_identity<JointBudget>{},
          {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.5, .axis = axis});
    check(std::type_identity<RoundQuantile>{},
          {.bits = 4, .target_average_bits = 4.0, .axis = axis, .act_order = true});
    check(std::type_identity<JointDistortion>{},
          {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.5, .axis = axis});
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(where_all_inputs_are_dead_weights_are_rounded_to_nearest, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Data<B, T> data(Problem{6, 8, {0, 1, 2, 3, 4, 5, 6, 7}, 61});
  SparseGPTSolver<Round, B, T> solver({.bits = 4});
  const auto solved = solver.solve(data.weights.view(), data.calibration);
  const Matrix<T> Q = download<B>(solved.weights);
  const std::vector<double> W = doubles(data.W);
  for (index_t i = 0; i < 6; ++i) {
    const PublishedGrid grid =
        published_grid({W.begin() + i * 8, W.begin() + (i + 1) * 8}, 4, false, false);
    for (index_t j = 0; j < 8; ++j)
      BOOST_TEST(relative_difference(double(Q(i, j)), grid.round(double(data.W(i, j)))) < 1e-5);
  }
  BOOST_TEST(solved.loss > 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_1_mean_bits_meet_the_target, C, Cases) {
  for_each_solved<C>([](const Solved& s) {
    if (!s.options.target_average_bits) return;
    double sum = 0;
    for (const auto b : s.bits) sum += double(b);
    const double left = *s.options.target_average_bits * double(s.bits.size()) - sum;
    BOOST_TEST(left >= -1e-6);
    BOOST_TEST(left < 2);  // no step of these tiers is wider
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_2_every_channel_has_one_width, C, Cases) {
  for_each_solved<C>([](const Solved& s) {
    if (!s.options.bits) {
      BOOST_TEST(s.bits.empty());
      return;
    }
    BOOST_TEST(index_t(s.bits.size()) == (s.by_input() ? s.cols : s.rows));
    const std::vector<int> tiers = s.options.tiers.value_or(std::vector<int>{2, 3, 4, 6, 8});
    for (const auto b : s.bits)
      BOOST_TEST((s.options.target_average_bits
                      ? std::count(tiers.begin(), tiers.end(), int(b)) == 1
                      : int(b) == *s.options.bits));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_3_a_row_has_at_most_two_to_the_bits_values, C, Cases) {
  for_each_solved<C>([](const Solved& s) {
    for (index_t i = 0; !s.bits.empty() && i < s.rows; ++i) {
      // By width and group: one grid per row, tier and group.
      std::map<std::pair<int, index_t>, std::set<double>> values;
      std::map<int, index_t> before;  // columns so far, by width
      for (index_t j = 0; j < s.cols; ++j) {
        const int bits = s.bits_of(i, j);
        const index_t rank = before[bits]++;
        const index_t group = s.options.group_size == 0 ? 0 : rank / s.options.group_size;
        values[{bits, group}].insert(s.q(i, j));
      }
      for (const auto& [key, distinct] : values)
        BOOST_REQUIRE_LE(distinct.size(), std::size_t{1} << key.first);
      // and each is a code of the grid in the result
      for (index_t j = 0; j < s.cols; ++j) {
        const std::size_t at = std::size_t(s.grid_of_column[std::size_t(j)] * s.rows + i);
        const double code = s.q(i, j) / s.scale[at] + s.zero[at];
        BOOST_REQUIRE_SMALL(code - std::nearbyint(code), 1e-4);
        BOOST_REQUIRE(std::nearbyint(code) >= 0 && std::nearbyint(code) <= s.top[at]);
      }
    }
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_4_exactly_k_of_a_block_and_n_of_a_group, C, Cases) {
  for_each_solved<C>([](const Solved& s) {
    if (s.options.of) {
      for (index_t i = 0; i < s.rows; ++i)
        for (index_t j = 0; j < s.cols; j += *s.options.of) {
          int zeros = 0;
          for (index_t k = j; k < j + *s.options.of; ++k) zeros += s.pruned(i, k);
          BOOST_REQUIRE_EQUAL(zeros, *s.options.zeros);
        }
      return;
    }
    for (index_t begin = 0; begin < s.cols; begin += s.options.block_size) {
      const index_t end = std::min(s.cols, begin + s.options.block_size);
      index_t zeros = 0;
      for (index_t p = begin; p < end; ++p)
        for (index_t i = 0; i < s.rows; ++i) zeros += s.pruned(i, s.order[std::size_t(p)]);
      const double exact = s.options.sparsity.value_or(0) * double(s.rows * (end - begin));
      BOOST_TEST(zeros == index_t(std::floor(exact + 1e-6)));
    }
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_5_pruned_weights_are_exact_zeros, C, Cases) {
  for_each_solved<C>([](const Solved& s) {
    for (index_t i = 0; i < s.rows; ++i)
      for (index_t j = 0; j < s.cols; ++j)
        if (s.pruned(i, j)) BOOST_REQUIRE_EQUAL(s.q(i, j), 0.0);
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(post_condition_6_the_loss_is_that_of_the_result, C, Cases) {
  for_each_solved<C>([](const Solved& s) {
    const std::vector<double> rows = closed_form_loss(s.W, s.Q, s.H, s.damping);
    const double sum = std::accumulate(rows.begin(), rows.end(), 0.0);
    BOOST_TEST(std::abs(s.loss - sum) <= s.tolerance * sum + s.rounding_floor());
    BOOST_TEST(relative_difference(s.loss, std::accumulate(s.row_loss.begin(), s.row_loss.end(),
                                                           0.0)) <= 1e-12);
    for (std::size_t i = 0; i < rows.size(); ++i)
      BOOST_REQUIRE_LE(std::abs(rows[i] - s.row_loss[i]), s.tolerance * sum + s.rounding_floor());
  });
}
