// Every stage proves that it acted: one thing broken at a time, the check says what and where.
#define BOOST_TEST_MODULE pare_post_conditions
#include <boost/test/unit_test.hpp>

#include <functional>

#include "opt_architecture.hpp"
#include "pare/pipeline/compress.hpp"
#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

/// Checks that f throws invariant_error with that condition, and that its message holds the parts.
/// Not a template, as check_broken is not one of its function: dozens of them would be compiled.
void check_violated(int condition, const std::vector<std::string>& parts,
                    const std::function<void()>& f) {
  try {
    f();
    BOOST_ERROR("accepted");
  } catch (const invariant_error& e) {
    BOOST_TEST_INFO(e.what());
    BOOST_CHECK(e.condition() == condition);
    BOOST_TEST(contains(e.what(), "post-condition " + std::to_string(condition)));
    for (const std::string& part : parts) {
      BOOST_TEST_INFO(e.what());
      BOOST_CHECK(contains(e.what(), part));
    }
  }
}

/// Changes a matrix in the backend's memory through a copy.
template <class B, class Owner, class Change>
void change(Owner& owner, const Change& f) {
  auto host = download<B>(owner);
  f(host);
  owner = upload<B>(host);
}

/// A solved linear that can be broken and checked again.
template <class Config, class C>
struct Subject {
  using B = typename C::backend;
  using T = typename C::scalar;

  explicit Subject(const SolverOptions& options)
      : solver(options), layer(solver.solve(data.weights.view(), data.calibration)) {}

  void check(bool quantized = Config::quantizes) const {
    const auto factor =
        factorize(data.calibration, {.damping = solver.options().damping, .order = layer.order});
    verify_linear<B, T>(data.weights.view(), data.calibration, factor, layer, quantized);
  }
  /// The first weight, row by row, that `use(mask, weight, column)` accepts.
  template <class Use>
  std::pair<index_t, index_t> find(const Use& use) const {
    const auto mask = download<B>(layer.mask);
    const auto Q = download<B>(layer.weights);
    for (index_t i = 0; i < Q.rows(); ++i)
      for (index_t j = 0; j < Q.cols(); ++j)
        if (use(mask(i, j) != 0, Q(i, j), j)) return {i, j};
    throw std::logic_error("the layer has no such weight");
  }
  void set_weight(std::pair<index_t, index_t> at, T value) {
    change<B>(layer.weights, [&](auto& Q) { Q(at.first, at.second) = value; });
  }
  void set_mask(std::pair<index_t, index_t> at, std::uint8_t value) {
    change<B>(layer.mask, [&](auto& mask) { mask(at.first, at.second) = value; });
  }
  /// The value of a code on the grid of a weight.
  T on_grid(std::pair<index_t, index_t> at, int code) const {
    const index_t g = layer.grids.of_column[std::size_t(at.second)];
    const auto scale = download<B>(layer.grids.scale), zero = download<B>(layer.grids.zero);
    return scale(g, at.first) * (T(code) - zero(g, at.first));
  }

  Data<B, T> data{Problem{12, 40, {3}, 90}};
  SparseGPTSolver<Config, B, T> solver;
  CompressedLinear<B, T> layer;
};

const SolverOptions pruned{.sparsity = 0.5, .block_size = 16};
const SolverOptions grouped{.zeros = 2, .of = 4};
const SolverOptions rounded{.bits = 3};
const SolverOptions joint{.sparsity = 0.5, .bits = 3, .block_size = 16};
const SolverOptions by_row{.bits = 4, .target_average_bits = 4.0};
const SolverOptions by_column{.bits = 4, .target_average_bits = 4.0, .axis = ChannelAxis::input};

/// Solves, breaks and checks; the unbroken linear passes.
template <class Config, class C>
void check_broken(int condition, const std::vector<std::string>& parts,
                  const SolverOptions& options,
                  const std::function<void(Subject<Config, C>&)>& break_it) {
  Subject<Config, C> subject(options);
  BOOST_CHECK_NO_THROW(subject.check());
  break_it(subject);
  check_violated(condition, parts, [&] { subject.check(); });
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(condition_2_widths_of_all_channels, C, Cases) {
  check_broken<Round, C>(2, {"expected 12", "found 11"}, rounded,
                         [](auto& s) { s.layer.bits.pop_back(); });
  check_broken<Round, C>(2, {"expected 12", "found 13"}, rounded,
                         [](auto& s) { s.layer.bits.push_back(3); });
  check_broken<RoundQuantile, C>(2, {"expected 40", "found 12"}, by_column,
                                 [](auto& s) { s.layer.bits.resize(12); });
  check_broken<RoundQuantile, C>(2, {"expected 40", "found 12"}, by_row,
                                 [](auto& s) { s.layer.axis = ChannelAxis::input; });
  // The old system's first bug: a quantizer configured and never run.
  Subject<Prune, C> forgotten(pruned);
  check_violated(2, {"expected 12", "found 0"}, [&] { forgotten.check(true); });
  Subject<Round, C> unasked(rounded);
  check_violated(2, {"expected 0", "found 12"}, [&] { unasked.check(false); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(condition_3_grids_of_the_widths, C, Cases) {
  using T = typename C::scalar;
  using B = typename C::backend;
  check_broken<Round, C>(3, {"row 5", "another width"}, rounded,
                         [](auto& s) { s.layer.bits[5] = 2; });
  check_broken<Round, C>(3, {"channel 5", "40 bits"}, rounded,
                         [](auto& s) { s.layer.bits[5] = 40; });
  check_broken<Round, C>(3, {"row 5", "another width"}, rounded, [](auto& s) {
    change<B>(s.layer.grids.top, [](auto& top) { top(0, 5) = T(255); });
  });
  check_broken<RoundQuantile, C>(3, {"row 7", "another width"}, by_column, [](auto& s) {
    change<B>(s.layer.grids.top, [](auto& top) { top(0, 7) = T(3); });
  });
  check_broken<RoundQuantile, C>(3, {"column 9", "width"}, by_column, [](auto& s) {
    auto& of_column = s.layer.grids.of_column;
    of_column[9] = of_column[9] == 0 ? 1 : 0;
  });
  check_broken<Round, C>(3, {"column 9", "grid 1"}, rounded,
                         [](auto& s) { s.layer.grids.of_column[9] = 1; });
  check_broken<Round, C>(3, {"40 columns", "found 39"}, rounded,
                         [](auto& s) { s.layer.grids.of_column.pop_back(); });
  check_broken<Round, C>(3, {"(1, 12)", "found (1, 11)"}, rounded,
                         [](auto& s) { s.layer.grids.zero = upload<B>(Matrix<T>(1, 11)); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(condition_3_values_on_the_grids, C, Cases) {
  using T = typename C::scalar;
  using B = typename C::backend;
  const auto between = [](auto& s) {
    s.set_weight({4, 6}, (s.on_grid({4, 6}, 1) + s.on_grid({4, 6}, 2)) / T(2));
  };
  check_broken<Round, C>(3, {"row 4", "not on its grid"}, rounded, between);
  check_broken<Joint, C>(3, {"row 4", "not on its grid"}, joint, between);
  check_broken<RoundQuantile, C>(3, {"row 4", "not on its grid"}, by_row, between);
  check_broken<RoundQuantile, C>(3, {"row 4", "not on its grid"}, by_column, between);
  // On the grid's line, but behind its end.
  check_broken<Round, C>(3, {"row 4", "not on its grid"}, rounded, [](auto& s) {
    s.set_weight({4, 6}, s.on_grid({4, 6}, 8));
  });
  check_broken<Round, C>(3, {"row 4", "not on its grid"}, rounded, [](auto& s) {
    s.set_weight({4, 6}, std::numeric_limits<T>::quiet_NaN());
  });
  check_broken<Round, C>(3, {"row 2", "not on its grid"}, rounded, [](auto& s) {
    change<B>(s.layer.grids.scale,
              [](auto& scale) { scale(0, 2) = std::numeric_limits<T>::quiet_NaN(); });
  });
  // A row that was not rounded.
  check_broken<Round, C>(3, {"row 8", "not on its grid"}, rounded, [](auto& s) {
    change<B>(s.layer.weights, [&](auto& Q) {
      for (index_t j = 0; j < Q.cols(); ++j) Q(8, j) = j == 3 ? T(0) : s.data.W(8, j);
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(condition_3_one_grid_per_row_not_per_column, C, Cases) {
  // The old system's second bug: every weight on a grid of its own, exactly.
  using T = typename C::scalar;
  using B = typename C::backend;
  const auto refit = [](auto& s) {
    Matrix<T> Q = s.data.W, scale(40, 12), zero(40, 12), top(40, 12);
    for (index_t j = 0; j < 40; ++j) {
      s.layer.grids.of_column[std::size_t(j)] = std::int32_t(j);
      for (index_t i = 0; i < 12; ++i) {
        if (j == 3) Q(i, j) = 0;  // dead
        scale(j, i) = j == 3 ? T(1) : std::abs(Q(i, j)) / T(3);
        zero(j, i) = Q(i, j) < 0 ? T(3) : T(0);
        top(j, i) = T(3);
        Q(i, j) = scale(j, i) * (Q(i, j) < 0 ? T(-3) : j == 3 ? T(0) : T(3));
      }
    }
    s.layer.weights = upload<B>(Q);
    s.layer.grids.scale = upload<B>(scale);
    s.layer.grids.zero = upload<B>(zero);
    s.layer.grids.top = upload<B>(top);
    s.layer.row_loss.assign(12, 0.0);
    s.layer.loss = 0;
  };
  SolverOptions two_bits = rounded;
  two_bits.bits = 2;
  check_broken<Round, C>(3, {"(1, 12)", "found (40, 12)"}, two_bits, refit);
  SolverOptions all_alike = by_column;
  all_alike.bits = 2;
  all_alike.target_average_bits = 2.0;
  check_broken<RoundQuantile, C>(3, {"(1, 12)", "found (40, 12)"}, all_alike, refit);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(condition_4_the_pruned_share_is_exact, C, Cases) {
  const auto is_kept = [](bool mask, auto q, index_t) { return !mask && q != 0; };
  const auto is_pruned = [](bool mask, auto, index_t) { return mask; };
  check_broken<Prune, C>(4, {"block 0", "expected 96", "found 95"}, pruned,
                         [&](auto& s) { s.set_mask(s.find(is_pruned), 0); });
  check_broken<Prune, C>(4, {"block 0", "expected 96", "found 97"}, pruned, [&](auto& s) {
    const auto at = s.find(is_kept);
    s.set_mask(at, 1);
    s.set_weight(at, 0);
  });
  // As many in all, but one has moved from the first block to the last.
  check_broken<Prune, C>(4, {"block 0", "expected 96", "found 95"}, pruned, [&](auto& s) {
    s.set_mask(s.find(is_pruned), 0);
    const auto at = s.find([](bool mask, auto, index_t j) { return !mask && j >= 32; });
    s.set_mask(at, 1);
    s.set_weight(at, 0);
  });
  check_broken<PruneGroups, C>(4, {"row 0", "consecutive inputs with another number of zeros"},
                               grouped, [&](auto& s) { s.set_mask(s.find(is_pruned), 0); });
  check_broken<PruneGroups, C>(4, {"row 0", "consecutive inputs with another number of zeros"},
                               grouped, [&](auto& s) {
                                 const auto at = s.find(is_kept);
                                 s.set_mask(at, 1);
                                 s.set_weight(at, 0);
                               });
  check_broken<Round, C>(4, {"block 0", "expected 0", "found 1"}, rounded, [&](auto& s) {
    s.set_mask(s.find([](bool, auto q, index_t) { return q == 0; }), 1);
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(condition_5_pruned_weights_are_zero, C, Cases) {
  using T = typename C::scalar;
  const auto is_pruned = [](bool mask, auto, index_t) { return mask; };
  const auto put_back = [&](auto& s) {
    const auto at = s.find(is_pruned);
    s.set_weight(at, s.data.W(at.first, at.second));
  };
  check_broken<Prune, C>(5, {"row 0", "not zero"}, pruned, put_back);
  check_broken<PruneGroups, C>(5, {"row 0", "not zero"}, grouped, put_back);
  check_broken<Prune, C>(5, {"row 0", "not zero"}, pruned, [&](auto& s) {
    s.set_weight(s.find(is_pruned), std::numeric_limits<T>::denorm_min());
  });
  check_broken<Joint, C>(5, {"row 0", "not zero"}, joint, [&](auto& s) {
    const auto at = s.find(is_pruned);
    const T other = s.on_grid(at, 0);
    s.set_weight(at, other != 0 ? other : s.on_grid(at, 1));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(condition_6_the_loss_is_that_of_the_weights, C, Cases) {
  const auto row_changed = [](auto& s) {
    const double more = 0.01 * s.layer.loss;
    s.layer.row_loss[7] += more;
    s.layer.loss += more;
  };
  check_broken<Prune, C>(6, {"12 rows", "recomputed"}, pruned, row_changed);
  check_broken<Joint, C>(6, {"12 rows", "recomputed"}, joint, row_changed);
  check_broken<RoundQuantile, C>(6, {"12 rows", "recomputed"}, by_column, row_changed);
  check_broken<Joint, C>(6, {"sum of 12 rows"}, joint, [](auto& s) { s.layer.loss *= 1.001; });
  check_broken<Joint, C>(6, {"sum of 12 rows"}, joint,
                         [](auto& s) { s.layer.row_loss.push_back(0); });
  check_broken<Joint, C>(6, {"12 rows"}, joint,
                         [](auto& s) { s.layer.row_loss[3] = s.layer.loss = std::nan(""); });
  check_broken<Joint, C>(6, {"12 rows", "recomputed"}, joint, [](auto& s) {
    s.layer.row_loss.assign(12, 0.0);
    s.layer.loss = 0;
  });
  // Another weight than the one whose error was counted.
  check_broken<Prune, C>(6, {"12 rows", "recomputed"}, pruned, [](auto& s) {
    s.set_weight(s.find([](bool mask, auto q, index_t) { return !mask && q != 0; }), 1);
  });
  check_broken<Round, C>(6, {"12 rows", "recomputed"}, rounded, [](auto& s) {
    const auto at = s.find([](bool, auto q, index_t) { return q != 0; });
    s.set_weight(at, s.on_grid(at, s.on_grid(at, 7) == s.data.W(at.first, at.second) ? 0 : 7));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(results_of_another_shape_are_refused, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  Subject<Prune, C> subject(pruned);
  subject.layer.weights = upload<B>(Matrix<T>(12, 39));
  BOOST_TEST(contains(message_of<shape_error>([&] { subject.check(); }), "(12, 39)"));
  Subject<Prune, C> other(pruned);
  other.layer.mask = upload<B>(Matrix<std::uint8_t>(11, 40));
  BOOST_TEST(contains(message_of<shape_error>([&] { other.check(); }), "(11, 40)"));
}

namespace {

LinearStatistics recorded(const std::string& name) {
  LinearStatistics layer;
  layer.name = name;
  layer.rows = layer.channels = 10;
  layer.columns = 6;
  layer.bits_histogram = {{2, 4}, {3, 2}, {8, 4}};
  layer.average_bits = 4.6;
  return layer;
}

}  // namespace

BOOST_AUTO_TEST_CASE(condition_2_every_channel_is_counted_once) {
  const auto check = [](const auto& break_it, const std::vector<std::string>& parts) {
    Statistics statistics{{recorded("first"), recorded("second")}};
    BOOST_CHECK_NO_THROW(require_counted(statistics, true));
    break_it(statistics.linears[1]);
    check_violated(2, parts, [&] { require_counted(statistics, true); });
  };
  check([](auto& layer) { --layer.bits_histogram[3]; }, {"second", "expected 10", "counted 9"});
  check([](auto& layer) { ++layer.bits_histogram[3]; }, {"second", "expected 10", "counted 11"});
  check([](auto& layer) { layer.bits_histogram[2] += 10; }, {"second", "counted 20"});
  check([](auto& layer) { layer.bits_histogram.clear(); }, {"second", "counted 0"});
  check([](auto& layer) { layer.channels = 9; }, {"second", "expected 10"});
  check([](auto& layer) { layer.axis = ChannelAxis::input; }, {"second", "expected 6"});
  check_violated(2, {"no channel"}, [] { require_counted({}, true); });
  check_violated(2, {"first", "expected 0"}, [] { require_counted({{recorded("first")}}, false); });
}

BOOST_AUTO_TEST_CASE(condition_2_every_linear_is_recorded_once) {
  const Statistics statistics{{recorded("a"), recorded("b"), recorded("c")}};
  BOOST_CHECK_NO_THROW(require_linears(statistics, {"a", "b", "c"}));
  BOOST_CHECK_NO_THROW(require_linears({}, {}));
  const auto check = [&](const std::vector<std::string>& names,
                         const std::vector<std::string>& parts) {
    check_violated(2, parts, [&] { require_linears(statistics, names); });
  };
  check({"a", "b", "c", "d"}, {"expected d", "found no more"});
  check({"a", "x", "b", "c"}, {"expected x", "found b"});  // x is missing
  check({"a", "b"}, {"expected no more", "found c"});
  check({"a", "c", "b"}, {"expected c", "found b"});
  check({}, {"expected no more", "found a"});
  check_violated(2, {"expected b", "found a"}, [&] {  // recorded twice
    require_linears({{recorded("a"), recorded("a"), recorded("b")}}, {"a", "b"});
  });
}

BOOST_AUTO_TEST_CASE(condition_1_the_recorded_mean_meets_the_target) {
  const std::vector<int> tiers{2, 3, 5, 8};
  const auto check = [&](const LinearStatistics& layer, std::optional<double> target,
                         const std::vector<std::string>& parts) {
    check_violated(1, parts, [&] { require_mean_bits(layer, target, tiers); });
  };
  const LinearStatistics layer = recorded("linear");
  // 46 bits of ten channels; the widest step left is that from 3 to 5.
  for (const double target : {4.6, 4.7, 4.79})
    BOOST_CHECK_NO_THROW(require_mean_bits(layer, target, tiers));
  BOOST_CHECK_NO_THROW(require_mean_bits(layer, {}, tiers));
  check(layer, 4.59, {"linear", "mean bits 4.6", "target 4.59"});
  check(layer, 2.0, {"linear", "mean bits 4.6", "target 2"});
  check(layer, 4.81, {"linear", "mean bits 4.6", "target 4.81"});
  check(layer, 8.0, {"linear", "mean bits 4.6", "target 8"});
  LinearStatistics broken = layer;
  broken.bits_histogram = {{2, 4}, {4, 2}, {8, 4}};
  check(broken, {}, {"linear", "4 bits", "no tier"});
  broken = layer;
  broken.average_bits = 4.0;
  check(broken, 4.6, {"linear", "mean bits 4"});
  broken.average_bits.reset();
  check(broken, 4.6, {"linear"});
  // All at the highest tier: no step is left to be had.
  broken = layer;
  broken.bits_histogram = {{8, 10}};
  broken.average_bits = 8.0;
  BOOST_CHECK_NO_THROW(require_mean_bits(broken, 8.0, tiers));
  // A single width, as without a policy.
  BOOST_CHECK_NO_THROW(require_mean_bits(broken, {}, {8}));
  check_violated(1, {"linear", "8 bits"}, [&] { require_mean_bits(broken, {}, {4}); });
}

namespace {

enum class Misdeed { above_target, step_below, no_tier, channel_short };

Misdeed misdeed{};

/// A policy that breaks its promise for targets of 4, as `misdeed` says: one type for all of them,
/// as each would be a pipeline of its own to compile.
struct BadPolicy {
  std::vector<std::uint8_t> operator()(std::span<const double> scores, std::span<const int> tiers,
                                       std::optional<double> target) const {
    std::vector<std::uint8_t> bits = Quantile{}(scores, tiers, target);
    switch (misdeed) {
      case Misdeed::above_target:
        std::fill(bits.begin(), bits.end(), std::uint8_t(6));
        break;
      case Misdeed::step_below:
        *std::find(bits.begin(), bits.end(), 8) = 4;  // four bits left, no step is wider than two
        break;
      case Misdeed::no_tier:
        bits.back() = 5;
        break;
      case Misdeed::channel_short:
        bits.pop_back();
        break;
    }
    return bits;
  }
};

using Misled = Compression<Unstructured, BaseQuantizer, MixedPrecision<BadPolicy>>;

/// A sweep like another one, but for what it does.
template <bool Quantize, kernels::MaskSource Mask, class Sweep>
auto altered(const Sweep& s) {
  return kernels::RowSweep<typename Sweep::scalar_type, Mask, Quantize>{
      s.weights, s.errors, s.mask, s.factor, s.grids, s.column_grid, s.row_loss, s.zeros, s.of};
}

enum class Omission { rounding, the_mask, the_errors, one_more };
Omission omission{};

/// A backend that leaves one thing out, or prunes one weight more, as `omission` says.
template <class B>
struct Forgets : B {
  template <class Sweep>
  static void row_sweep(const Sweep& s) {
    if (omission == Omission::rounding)
      B::row_sweep(altered<false, Sweep::mask_source>(s));
    else if (omission == Omission::the_mask)
      B::row_sweep(altered<true, kernels::MaskSource::none>(s));
    else
      B::row_sweep(s);
  }
  template <class T>
  static void select_smallest(MatrixView<const T> W, MatrixView<const T> d, index_t k,
                              MatrixView<std::uint8_t> mask) {
    B::select_smallest(W, d, omission == Omission::one_more ? k + 1 : k, mask);
  }
  template <class T>
  static void trailing_update(MatrixView<T> W, MatrixView<const T> errors,
                              MatrixView<const T> factor) {
    if (omission != Omission::the_errors) B::trailing_update(W, errors, factor);
  }
};

/// Two small decoder layers of random weights, without biases and with norms of no weight.
template <class B, class T>
LanguageModel<B, T> small_model() {
  LanguageModel<B, T> model;
  Architecture& config = model.config = opt_architecture(24, 40, 2, 2, 13, 16);
  config.norm_affine = false;
  for (LinearSpec& linear : config.linears) linear.bias = false;
  std::uint64_t seed = 200;
  const auto matrix = [&](index_t rows, index_t cols, double scale) {
    return upload<B>(random_normal<T>(rows, cols, ++seed, scale));
  };
  model.embed_tokens = matrix(13, 24, 1);
  model.embed_positions = matrix(16 + config.position_offset, 24, 1);
  for (index_t i = 0; i < 2; ++i) {
    DecoderLayer<B, T>& layer = model.layers.emplace_back();
    layer.index = i;
    const std::vector<std::string> names = linear_names(config, i);
    for (std::size_t l = 0; l < names.size(); ++l) {
      Linear<B, T>& linear = layer.weights.emplace_back();
      linear.name = names[l];
      linear.role = config.linears[l].role;
      linear.input = input_of(linear.role);
      linear.weight = matrix(rows_of(config, linear.role), columns_of(config, linear.role), 0.1);
    }
  }
  return model;
}

template <class Config, class B, class T>
Statistics compress_small(const SolverOptions& options, const LinearSelection& selection) {
  auto model = small_model<B, T>();
  CalibrationWindows windows{{}, 16};
  Random random(300);
  for (int t = 0; t < 8 * 16; ++t) windows.ids.push_back(std::int32_t(random.below(13)));
  return compress_model<Config>(model, windows, {.solver = options, .selection = selection});
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_context_names_what_failed_and_the_error_stays_of_its_type) {
  const auto message = [](const auto& given) {
    using Error = std::decay_t<decltype(given)>;
    try {
      in_context("fc1", [&] { in_context("Budget", [&] { throw given; }); });
    } catch (const error& e) {
      BOOST_CHECK(typeid(e) == typeid(Error));
      return std::string(e.what());
    }
    return std::string();
  };
  BOOST_TEST(message(argument_error("wrong")) == "fc1: Budget: wrong");
  BOOST_TEST(message(shape_error("wrong")) == "fc1: Budget: wrong");
  BOOST_TEST(message(unattainable_error("wrong")) == "fc1: Budget: wrong");
  BOOST_TEST(message(factorization_error("wrong")) == "fc1: Budget: wrong");
  BOOST_TEST(message(non_finite_error("wrong", 3, 4)) == "fc1: Budget: wrong");
  BOOST_TEST(message(format_error("a file: wrong")) == "a file: wrong");
  BOOST_TEST(message(io_error("a file: wrong")) == "a file: wrong");
  BOOST_TEST(message(invariant_error(3, "wrong")) ==
             "fc1: Budget: post-condition 3 violated: wrong; see docs/design.md, Post-conditions");
  try {
    in_context("fc1", [] { throw non_finite_error("wrong", 3, 4); });
  } catch (const non_finite_error& e) {
    BOOST_TEST(e.row() == 3);
    BOOST_TEST(e.column() == 4);
  }
  BOOST_TEST(in_context("fc1", [] { return 7; }) == 7);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_policy_that_breaks_its_promise_is_caught, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const SolverOptions options{.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0};
  const auto check = [&](Misdeed what, int condition, const std::string& part) {
    misdeed = what;
    const Data<B, T> data(Problem{20, 40, {}, 91});
    const std::string page = "; see docs/design.md, Post-conditions";
    check_violated(condition, {"BadPolicy", part, page}, [&] {
      SparseGPTSolver<Misled, B, T>(options).solve(data.weights.view(), data.calibration);
    });
    check_violated(condition, {"layers.1.fc1: BadPolicy", part, page}, [&] {
      compress_small<Misled, B, T>(options, {.first_layer = 1, .name_part = "fc1"});
    });
  };
  check(Misdeed::above_target, 1, "mean bits 6 for target 4");
  check(Misdeed::step_below, 1, "for target 4");
  check(Misdeed::no_tier, 1, "5 bits, tiers are {2, 3");
  check(Misdeed::channel_short, 2, "channels");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_backend_that_leaves_something_out_is_caught, C, Cases) {
  using B = Forgets<typename C::backend>;
  using T = typename C::scalar;
  const auto check = [&](Omission what, int condition, const std::vector<std::string>& parts) {
    omission = what;
    const Data<B, T> data(Problem{12, 40, {}, 92});
    check_violated(condition, parts, [&] {
      SparseGPTSolver<Joint, B, T>(joint).solve(data.weights.view(), data.calibration);
    });
    std::vector<std::string> named = parts;
    named.push_back("layers.1.self_attn.out_proj: ");
    check_violated(condition, named, [&] {
      compress_small<Joint, B, T>(joint, {.first_layer = 1, .name_part = "out_proj"});
    });
  };
  check(Omission::rounding, 3, {"row 0", "not on its grid"});
  check(Omission::one_more, 4, {"block 0"});
  check(Omission::the_mask, 5, {"not zero"});
  check(Omission::the_errors, 6, {"recomputed"});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_whole_model_passes, C, Cases) {
  const Statistics statistics =
      compress_small<JointBudget, typename C::backend, typename C::scalar>(
          {.sparsity = 0.5, .bits = 4, .target_average_bits = 4.0}, {});
  BOOST_TEST(statistics.linears.size() == 12u);
  for (const LinearStatistics& layer : statistics.linears) BOOST_TEST(layer.channels == layer.rows);
}
