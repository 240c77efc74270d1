// Post-conditions 1 to 7 on random linears: every shape, pattern, policy, group size and magnitude.
//
// A case is its seed. "property_test -- 17 23" runs the seeds 17 and 23 alone.
#define BOOST_TEST_MODULE pare_property
#include <boost/test/unit_test.hpp>

#include <array>
#include <limits>
#include <map>
#include <set>
#include <sstream>

#include "pare/pipeline/dispatch.hpp"
#include "pare/pipeline/linear_statistics.hpp"
#include "solver_support.hpp"

using namespace pare;
using namespace test;

namespace {

using Real = long double;  // holds what overflows and underflows float64

constexpr int cases = 400;  // per backend and scalar

enum class Weights {
  normal,
  three_values,   ///< 0 and two others, each many times
  equal_rows,     ///< a few rows, repeated
  equal_columns,  ///< a few columns, repeated
  constant_rows,
  zeros,
  zero_rows,     ///< some of them
  zero_columns,  ///< some of them
  mixed,         ///< eight decades within one matrix
};
constexpr std::array weight_names{"normal",        "three values",  "equal rows",
                                  "equal columns", "constant rows", "zeros",
                                  "zero rows",     "zero columns",  "mixed"};

enum class Inputs {
  correlated,
  dead,        ///< some inputs are zero
  all_dead,    ///< all are
  repeated,    ///< a few inputs, repeated: H is singular
  constant,    ///< no input ever changes: H has rank one
  few_tokens,  ///< fewer than inputs
  mixed,       ///< twelve decades among the inputs
  indefinite,  ///< H alone, and the damping must be raised
  hopeless,    ///< H alone, and no damping helps
};
constexpr std::array input_names{"correlated", "dead",  "all dead",   "repeated", "constant",
                                 "few tokens", "mixed", "indefinite", "hopeless"};

/// Everything a case is made of.
struct Recipe {
  std::uint64_t seed;
  index_t rows, cols;
  CompressionRequest request;
  Weights weights;
  double weight_scale;
  Inputs inputs;
  double input_scale;
  index_t tokens, sequences;

  const SolverOptions& options() const { return request.solver; }
  bool by_input() const { return options().axis == ChannelAxis::input; }
  bool mixed_precision() const { return request.policy != PolicyKind::none; }
  bool searches() const { return options().refine || options().mask_search != MaskSearch::greedy; }
  bool hessian_only() const { return inputs == Inputs::indefinite || inputs == Inputs::hopeless; }
};

std::ostream& operator<<(std::ostream& out, const Recipe& r) {
  const SolverOptions& o = r.options();
  out << "seed " << r.seed << ": " << shape_text(r.rows, r.cols) << ", weights "
      << weight_names[std::size_t(r.weights)] << " * " << r.weight_scale << ", inputs "
      << input_names[std::size_t(r.inputs)] << " * " << r.input_scale << ", " << r.tokens
      << " tokens, " << r.sequences << " sequences";
  if (o.sparsity) out << ", sparsity " << *o.sparsity;
  if (o.of) out << ", " << *o.zeros << ":" << *o.of;
  if (o.bits) out << ", bits " << *o.bits;
  if (r.mixed_precision())
    out << (r.request.policy == PolicyKind::budget ? ", budget" : ", quantile") << ", tiers "
        << tiers_text(o.tiers.value_or(default_tiers())) << ", axis " << to_string(o.axis);
  if (o.target_average_bits) out << ", target " << *o.target_average_bits;
  if (o.group_size > 0) out << ", groups of " << o.group_size << " " << to_string(o.group_fit);
  if (o.mask_search != MaskSearch::greedy) out << ", " << to_string(o.mask_search);
  if (o.mask_region) out << " over " << to_string(*o.mask_region);
  if (o.refine) out << ", refined";
  return out << (o.grid.symmetric ? ", symmetric" : "") << (o.grid.clip_search ? ", clipped" : "")
             << (o.act_order ? ", act-order" : "") << ", block " << o.block_size << ", damping "
             << o.damping;
}

/// A generator whose numbers no other seed or stream shares.
Random fresh(std::uint64_t seed, std::uint64_t stream) {
  return Random(Random(3 * seed + stream).next());
}

template <class List>
auto pick(Random& random, const List& list) {
  return std::data(list)[random.below(index_t(std::size(list)))];
}
template <class U>
U pick(Random& random, std::initializer_list<U> list) {
  return pick<std::initializer_list<U>>(random, list);
}

/// Returns whether weights are rounded too.
bool choose_pattern(Recipe& r, Random& random) {
  constexpr std::pair<int, int> groups[]{{1, 2}, {2, 4}, {1, 3}, {3, 8}, {5, 7}, {15, 16}};
  SolverOptions& o = r.request.solver;
  const PatternKind pattern = pick(random, {PatternKind::dense, PatternKind::unstructured,
                                            PatternKind::unstructured, PatternKind::n_of_m});
  const bool quantized = pattern == PatternKind::dense || random.below(4) > 0;
  if (pattern == PatternKind::unstructured)
    o.sparsity = pick(random, {0.0, 1e-7, 0.01, 0.29, 0.5, 0.7, 0.999, random.uniform()});
  if (pattern == PatternKind::n_of_m) {
    std::tie(o.zeros, o.of) = pick(random, groups);
    r.cols = (r.cols + *o.of - 1) / *o.of * *o.of;
  }
  return quantized;
}

void choose_bits(Recipe& r, Random& random) {
  SolverOptions& o = r.request.solver;
  o.bits = int(2 + random.below(7));
  o.grid = {.symmetric = random.below(4) == 0, .clip_search = random.below(6) == 0};
  r.request.policy =
      pick(random, {PolicyKind::none, PolicyKind::none, PolicyKind::quantile, PolicyKind::budget});
  if (!r.mixed_precision()) return;
  o.axis = pick(random, {ChannelAxis::output, ChannelAxis::input});
  if (random.below(3) == 0) {
    std::vector<int> tiers;
    for (int bits = min_bits; bits <= max_bits; ++bits)
      if (random.below(2) == 0) tiers.push_back(bits);
    if (tiers.size() >= 2) o.tiers = tiers;
  }
  const std::vector<int> tiers = o.tiers.value_or(default_tiers());
  const double low = tiers.front(), high = tiers.back();
  o.target_average_bits = pick(random, {low, high, low + (high - low) * random.uniform(),
                                        low + (high - low) * random.uniform()});
  if (r.request.policy == PolicyKind::quantile && random.below(4) == 0)
    o.target_average_bits.reset();
}

/// Of the cases that round half have groups; from a stream of their own, so that all else of a case
/// is as it was without.
void choose_groups(Recipe& r) {
  Random random = fresh(r.seed, 3);
  SolverOptions& o = r.request.solver;
  if (!r.request.quantizes() || random.below(2) == 0) return;
  o.group_size = pick<index_t>(random, {1, 2, 3, 8, 16, 32, 64, 128, 1 + random.below(40)});
  const bool in_turn = !o.act_order && !r.by_input() && o.group_size % o.of.value_or(1) == 0;
  if (in_turn && random.below(3) == 0) o.group_fit = GroupFit::compensated;
}

/// A third of what prunes asks for more than the greedy sweep.
void choose_search(Recipe& r) {
  Random random = fresh(r.seed, 4);
  SolverOptions& o = r.request.solver;
  if (!r.request.pattern().prunes() || random.below(3) > 0) return;
  o.refine = random.below(4) == 0;
  if (o.refine) return;
  o.mask_search = MaskSearch::alternating;
  if (o.sparsity && random.below(2) == 0)
    o.mask_region = pick(random, {MaskRegion::block, MaskRegion::row, MaskRegion::linear});
}

/// The case of a seed. Magnitudes depend on the scalar's range.
Recipe recipe_of(std::uint64_t seed, bool is_double) {
  Random random = fresh(seed, 0);
  Recipe r{};
  r.seed = seed;
  SolverOptions& o = r.request.solver;
  o.block_size = pick<index_t>(random, {1, 2, 3, 7, 16, 32, 33, 64, 128, 1000});
  const index_t some = 1 + random.below(40), many = 1 + random.below(150);
  r.cols = std::min<index_t>(
      150, pick<index_t>(random, {1, some, some, some, many, std::max<index_t>(1, o.block_size - 1),
                                  o.block_size, o.block_size + 1, 2 * o.block_size + 1}));
  r.rows = pick<index_t>(random, {1, 1 + random.below(20), 1 + random.below(20), 15, 16, 17, 31, 32,
                                  33, 1 + random.below(70)});
  if (choose_pattern(r, random)) choose_bits(r, random);
  choose_search(r);
  o.damping = pick(random, {0.001, 0.01, 0.01, 0.1, 1.0});
  o.act_order = random.below(3) == 0;
  choose_groups(r);

  r.weights = Weights(random.below(index_t(weight_names.size())));
  if (random.below(3) == 0) r.weights = Weights::normal;
  r.inputs = Inputs(random.below(index_t(input_names.size())));
  if (random.below(3) == 0) r.inputs = Inputs::correlated;
  r.weight_scale = 1;
  if (random.below(3) == 0)
    r.weight_scale = is_double ? pick(random, {1e30, 1e-30, 1e300, 1e-300, 1e-310, 5e307})
                               : pick(random, {1e30, 1e-30, 1e-40, 1e38});
  r.input_scale = 1;
  if (random.below(3) == 0) r.input_scale = std::pow(10.0, 30 * random.uniform() - 15);
  if (random.below(30) == 0) r.input_scale = is_double ? 1e156 : 1e21;
  r.tokens = r.inputs == Inputs::few_tokens ? (r.cols + 2) / 3 : 2 * r.cols + 3;
  r.sequences = 1 + random.below(4);
  return r;
}

template <class T>
Matrix<T> weights_of(const Recipe& r) {
  Random random = fresh(r.seed, 1);
  Matrix<double> W(r.rows, r.cols);
  for (index_t i = 0; i < W.size(); ++i)
    W.data()[i] = std::clamp(random.normal(), -3.0, 3.0) *
                  (r.weights == Weights::mixed ? std::pow(10.0, -8 * random.uniform()) : 1.0);
  const double values[]{0.0, 0.7, -1.3};
  for (index_t i = 0; i < r.rows; ++i) {
    const bool chosen = random.below(3) == 0;
    for (index_t j = 0; j < r.cols; ++j) {
      double& w = W(i, j);
      switch (r.weights) {
        case Weights::three_values:
          w = pick(random, values);
          break;
        case Weights::equal_rows:
          w = W(i % 2, j);
          break;
        case Weights::equal_columns:
          w = W(i, j % 3);
          break;
        case Weights::constant_rows:
          w = W(i, 0);
          break;
        case Weights::zeros:
          w = 0;
          break;
        case Weights::zero_rows:
          w = chosen ? 0 : w;
          break;
        case Weights::zero_columns:
          w = (r.seed + std::uint64_t(j)) % 3 == 0 ? 0 : w;
          break;
        case Weights::normal:
        case Weights::mixed:
          break;
      }
    }
  }
  Matrix<T> result(r.rows, r.cols);
  for (index_t i = 0; i < W.size(); ++i) result.data()[i] = T(r.weight_scale * W.data()[i]);
  return result;
}

/// Activations (tokens, in), or H (in, in) itself.
template <class T>
Matrix<T> inputs_of(const Recipe& r) {
  Matrix<T> result(r.tokens, r.cols);
  if (r.hessian_only()) {
    // Eigenvalues 1 + coupling, 1 - coupling and 1.
    const double coupling = r.inputs == Inputs::hopeless ? 3 : 1.5;
    result = Matrix<T>(r.cols, r.cols);
    for (index_t j = 0; j < r.cols; ++j) result(j, j) = T(1);
    if (r.cols > 1) result(0, r.cols - 1) = result(r.cols - 1, 0) = T(coupling);
    for (index_t i = 0; i < result.size(); ++i)
      result.data()[i] = T(r.input_scale * (r.input_scale * double(result.data()[i])));
    return result;
  }
  Random random = fresh(r.seed, 2);
  const Matrix<double> X = correlated_activations<double>(r.tokens, r.cols, random.next());
  for (index_t j = 0; j < r.cols; ++j) {
    const bool dead =
        r.inputs == Inputs::all_dead || (r.inputs == Inputs::dead && random.below(3) == 0);
    const double size = r.inputs == Inputs::mixed ? std::pow(10.0, 12 * random.uniform() - 6) : 1;
    for (index_t t = 0; t < r.tokens; ++t) {
      const double x = r.inputs == Inputs::repeated   ? X(t, j % 3)
                       : r.inputs == Inputs::constant ? 1 + double(j % 3)
                                                      : X(t, j);
      result(t, j) = dead ? T(0) : T(r.input_scale * size * x);
    }
  }
  return result;
}

/// H (in, in) of activations (tokens, in), or H itself.
std::vector<Real> exact_hessian(const Recipe& r, const std::vector<double>& inputs) {
  if (r.hessian_only()) return {inputs.begin(), inputs.end()};
  const std::size_t n = std::size_t(r.cols);
  const index_t sequences = (r.tokens > 1 ? 2 : 1) * r.sequences;
  std::vector<Real> H(n * n, 0);
  for (std::size_t t = 0; t < std::size_t(r.tokens); ++t)
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = i; j < n; ++j)
        H[i * n + j] += Real(inputs[t * n + i]) * Real(inputs[t * n + j]);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i; j < n; ++j) H[j * n + i] = H[i * n + j] *= Real(2) / Real(sequences);
  return H;
}

/// What was solved, in numbers that know neither backend nor scalar.
struct Result {
  std::vector<double> W, Q, mask, scale, zero, top;
  std::vector<Real> exact_H;  // from the inputs
  std::vector<Real> H;        // as the library has it
  std::vector<std::int32_t> grid_of_column;
  std::vector<std::uint8_t> bits;
  std::vector<index_t> order;
  std::vector<double> row_loss, scores;
  double loss = 0, damping = 0;
  std::optional<double> greedy_loss;
  MaskRegion region = MaskRegion::block;
  int retries = 0;
  LinearStatistics statistics;
  std::string bytes;
  std::string error;  ///< what was thrown instead of a result
};

/// Builds the linear of a recipe and solves it.
template <class B, class T>
Result solve(const Recipe& r) {
  Result result;
  const Matrix<T> W = weights_of<T>(r), inputs = inputs_of<T>(r);
  result.W = doubles(W);
  result.exact_H = exact_hessian(r, doubles(inputs));
  const auto weights = upload<B>(W), device = upload<B>(inputs);
  try {
    const auto calibration = [&] {
      if (r.hessian_only()) return Calibration<B, T>::from_hessian(device.view());
      Calibration<B, T> streamed(r.cols);
      const index_t first = r.tokens / 2;  // of two batches
      const MatrixView<const T> X = device.view();
      if (first > 0) streamed.add(X.block(0, 0, first, r.cols), r.sequences);
      streamed.add(X.block(first, 0, r.tokens - first, r.cols), r.sequences);
      return streamed;
    }();
    for (const double g : doubles(B::to_host(calibration.gram())))
      result.H.push_back(Real(g) * Real(calibration.hessian_scale()));
    dispatch(r.request, [&]<class Config>(std::type_identity<Config>) {
      SparseGPTSolver<Config, B, T> solver(r.options());
      const auto linear = solver.solve(weights.view(), calibration);
      result.bytes = layer_bytes<B, T>(linear);
      result.statistics = linear_statistics("linear", linear, 16);
      result.Q = doubles(download<B>(linear.weights));
      result.mask = doubles(download<B>(linear.mask));
      if (linear.quantized()) {
        result.scale = doubles(download<B>(linear.grids.scale));
        result.zero = doubles(download<B>(linear.grids.zero));
        result.top = doubles(download<B>(linear.grids.top));
      }
      result.grid_of_column = linear.grids.of_column;
      result.bits = linear.bits;
      result.order = linear.order;
      result.row_loss = linear.row_loss;
      result.scores = linear.scores;
      result.loss = linear.loss;
      result.damping = linear.damping;
      result.greedy_loss = linear.greedy_loss;
      result.region = linear.mask_region;
      result.retries = linear.damping_retries;
    });
  } catch (const invariant_error&) {
    throw;
  } catch (const error& e) {
    result.error = e.what();
  }
  return result;
}

/// Whether numbers on the way may leave the scalar's range, with a margin for what compensation
/// adds to weights, and whether H leaves it for certain.
struct Overflow {
  bool possible, certain;
};
Overflow overflow_of(const Recipe& r, const Result& s, Real largest) {
  Real w = 0, h = 1;
  for (const double value : s.W) w = std::max(w, Real(std::abs(value)));
  for (const Real value : s.exact_H) h = std::max(h, std::abs(value));
  const Real n = Real(r.cols), growth = 1e4L, largest_double = std::numeric_limits<double>::max();
  const Real gram = h * 2 * Real(r.sequences);  // sum x x^T, or more
  bool possible = gram > largest / 4 || growth * w > largest ||
                  growth * w * std::sqrt(n * h) > largest ||
                  growth * growth * w * w * h * n * Real(r.rows) > largest_double;
  if (r.mixed_precision())  // scores hold w H and w^2
    possible |=
        w * gram * n > largest / 4 || w * w * (gram * n + Real(r.rows)) > largest_double / 4;
  return {possible, h > 4 * largest};
}

// The checks return what is wrong with a result, nothing when it is fine.

std::string check_finite(const Result& s) {
  for (const auto* values : {&s.Q, &s.scale, &s.zero, &s.top, &s.row_loss, &s.scores})
    for (const double value : *values)
      if (!std::isfinite(value)) return "a result is NaN or infinite";
  return std::isfinite(s.loss) && s.loss >= 0 ? "" : "the loss is NaN, infinite or negative";
}

/// sum x x^T as the library has it against the exact one.
std::string check_hessian(const Recipe& r, const Result& s, Real epsilon, Real smallest) {
  const std::size_t n = std::size_t(r.cols);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      const Real size = std::sqrt(s.exact_H[i * n + i]) * std::sqrt(s.exact_H[j * n + j]);
      const Real limit = Real(r.tokens) * (epsilon * size + 2 * smallest);
      if (!r.hessian_only() && std::abs(s.H[i * n + j] - s.exact_H[i * n + j]) > limit)
        return "H is wrong at " + shape_text(index_t(i), index_t(j));
    }
  return "";
}

std::string check_mean_bits(const Recipe& r, const Result& s) {
  if (!r.request.quantizes()) return s.bits.empty() ? "" : "there are widths without a quantizer";
  const std::vector<int> tiers = r.mixed_precision() ? r.options().tiers.value_or(default_tiers())
                                                     : std::vector<int>{*r.options().bits};
  double sum = 0;
  int widest_step = 0;
  for (const std::uint8_t bits : s.bits) {
    const auto tier = std::find(tiers.begin(), tiers.end(), int(bits));
    if (tier == tiers.end()) return "a width is no tier";
    if (tier + 1 != tiers.end()) widest_step = std::max(widest_step, tier[1] - tier[0]);
    sum += double(bits);
  }
  if (!r.options().target_average_bits) return "";
  const double left = *r.options().target_average_bits * double(s.bits.size()) - sum;
  if (left < -1e-6) return "the mean is above the target";
  return widest_step == 0 || left < widest_step + 1e-6 ? "" : "the mean is a step below the target";
}

std::string check_channels(const Recipe& r, const Result& s) {
  const index_t channels = !r.request.quantizes() ? 0 : r.by_input() ? r.cols : r.rows;
  if (index_t(s.bits.size()) != channels) return "not every channel has a width";
  if (s.statistics.channels != channels) return "the statistics have another number of channels";
  std::map<int, index_t> histogram;
  for (const std::uint8_t bits : s.bits) ++histogram[bits];
  if (histogram != s.statistics.bits_histogram) return "the statistics count other widths";
  require_counted({{s.statistics}}, r.request.quantizes());
  return "";
}

/// Width of the grid that weight (i, j) is on.
int bits_of(const Recipe& r, const Result& s, index_t i, index_t j) {
  return int(s.bits[std::size_t(r.by_input() ? j : i)]);
}

/// Which of the grids of its row and width a column is on: one per group_size columns.
std::vector<index_t> groups_of(const Recipe& r, const Result& s) {
  std::map<int, index_t> seen;  // columns so far, by width
  std::vector<index_t> groups;
  for (index_t j = 0; j < r.cols; ++j) {
    const index_t before = seen[bits_of(r, s, 0, j)]++;
    groups.push_back(r.options().group_size == 0 ? 0 : before / r.options().group_size);
  }
  return groups;
}

template <class T>
std::string check_grids(const Recipe& r, const Result& s) {
  if (!r.request.quantizes()) return "";
  using Key = std::pair<int, index_t>;  // width and group
  const std::vector<index_t> groups = groups_of(r, s);
  for (index_t i = 0; i < r.rows; ++i) {
    std::map<Key, std::set<double>> values, dense;
    std::map<Key, std::set<std::size_t>> grids;
    std::map<Key, bool> changed;
    std::set<std::size_t> of_row;
    for (index_t j = 0; j < r.cols; ++j) {
      const std::size_t at = std::size_t(i * r.cols + j);
      const Key key{bits_of(r, s, i, j), groups[std::size_t(j)]};
      values[key].insert(s.Q[at]);
      dense[key].insert(s.W[at]);
      changed[key] |= s.Q[at] != s.W[at];
      const std::size_t g = std::size_t(s.grid_of_column[std::size_t(j)] * r.rows + i);
      grids[key].insert(g);
      of_row.insert(g);
    }
    if (of_row.size() != grids.size()) return "two groups share a grid";
    for (const auto& [key, distinct] : values) {
      const int bits = key.first;
      const std::size_t limit = std::size_t(1) << bits;
      const std::string where =
          "row " + std::to_string(i) + " at " + std::to_string(bits) + " bits";
      if (distinct.size() > limit) return where + " holds too many values";
      if (bits < 8 && !changed[key] && dense[key].size() > limit) return where + " is not rounded";
      if (grids[key].size() != 1) return where + " is on several grids";
      const std::size_t g = *grids[key].begin();
      if (s.top[g] != double(limit - 1)) return where + " has a grid of another width";
      std::set<double> codes;
      for (std::size_t code = 0; code < limit; ++code)
        codes.insert(double(T(s.scale[g]) * (T(code) - T(s.zero[g]))));
      if (!std::includes(codes.begin(), codes.end(), distinct.begin(), distinct.end()))
        return where + " holds a value that is not on its grid";
    }
  }
  return "";
}

std::string check_counts(const Recipe& r, const Result& s) {
  const SolverOptions& o = r.options();
  const auto marked = [&](index_t i, index_t j) {
    return s.mask[std::size_t(i * r.cols + j)] != 0;
  };
  index_t total = 0;
  if (o.of) {
    for (index_t i = 0; i < r.rows; ++i)
      for (index_t j = 0; j < r.cols; j += *o.of) {
        index_t count = 0;
        for (index_t k = j; k < j + *o.of; ++k) count += marked(i, k);
        if (count != *o.zeros) return "a group has " + std::to_string(count) + " zeros";
        total += count;
      }
  } else if (s.region != MaskRegion::block) {
    const bool by_row = s.region == MaskRegion::row;
    const index_t size = by_row ? r.cols : r.rows * r.cols;
    for (index_t first = 0; first < r.rows * r.cols; first += size) {
      index_t count = 0;
      for (index_t at = first; at < first + size; ++at) count += s.mask[std::size_t(at)] != 0;
      if (count != index_t(std::floor(*o.sparsity * double(size) + 1e-6)))
        return "the region at " + std::to_string(first) + " lost " + std::to_string(count);
      total += count;
    }
  } else {
    for (index_t begin = 0; begin < r.cols; begin += o.block_size) {
      const index_t end = std::min(r.cols, begin + o.block_size);
      index_t count = 0;
      for (index_t p = begin; p < end; ++p)
        for (index_t i = 0; i < r.rows; ++i) count += marked(i, s.order[std::size_t(p)]);
      const double share = o.sparsity.value_or(0) * double(r.rows * (end - begin));
      if (count != index_t(std::floor(share + 1e-6)))
        return "the block at " + std::to_string(begin) + " lost " + std::to_string(count);
      total += count;
    }
  }
  const double recorded = s.statistics.sparsity * double(r.rows * r.cols);
  return std::abs(recorded - double(total)) < 1e-6 ? "" : "the statistics have another sparsity";
}

/// Whether input j is zero, and another is not.
bool is_dead(const Result& s, std::size_t j) {
  const std::size_t n = s.order.size();
  bool any_live = false;
  for (std::size_t k = 0; k < n; ++k) any_live |= s.H[k * n + k] != 0;
  return any_live && s.H[j * n + j] == 0;
}

std::string check_zeros(const Recipe& r, const Result& s) {
  for (index_t i = 0; i < r.rows; ++i)
    for (index_t j = 0; j < r.cols; ++j) {
      const std::size_t at = std::size_t(i * r.cols + j);
      const bool dead = is_dead(s, std::size_t(j));
      if ((dead || s.mask[at] != 0) && s.Q[at] != 0)
        return "weight " + shape_text(i, j) + " is pruned or dead and not zero";
    }
  return "";
}

/// H + damping as the library had it, dead inputs set to 1, (in, in).
std::vector<Real> damped_hessian(const Recipe& r, const Result& s) {
  const std::size_t n = std::size_t(r.cols);
  std::vector<Real> A = s.H;
  Real mean = 0, live = 0;
  for (std::size_t j = 0; j < n; ++j) {
    if (A[j * n + j] == 0) A[j * n + j] = 1;
    if (is_dead(s, j)) continue;
    mean += A[j * n + j];
    ++live;
  }
  mean /= live;
  for (std::size_t j = 0; j < n; ++j) A[j * n + j] += Real(s.damping) * mean;
  return A;
}

/// U_jj by input of inv(A) = U^T U with U upper triangular in visit order; NaN where A is not
/// positive definite.
std::vector<Real> factor_diagonal(const std::vector<Real>& A, const std::vector<index_t>& order) {
  const std::size_t n = order.size();
  std::vector<Real> R(n * n, 0), diagonal(n);  // A = R R^T, last column first
  for (std::size_t j = n; j-- > 0;)
    for (std::size_t i = j + 1; i-- > 0;) {
      Real sum = A[std::size_t(order[i]) * n + std::size_t(order[j])];
      for (std::size_t k = j + 1; k < n; ++k) sum -= R[i * n + k] * R[j * n + k];
      R[i * n + j] = i == j ? std::sqrt(sum) : sum / R[j * n + j];
      if (i == j) diagonal[std::size_t(order[j])] = 1 / R[j * n + j];
    }
  return diagonal;
}

/// Losses of rows against 1/2 d (H + damping) d^T, d = W - Q with dead inputs of W zeroed.
///
/// Beside the tolerance stands what rounding alone can do: to weights, to the errors e (weights in
/// units of U_jj), and to H, where terms of d H d^T cancel.
std::string check_loss(const Recipe& r, const Result& s, Real tolerance, Real epsilon,
                       Real smallest) {
  const std::size_t n = std::size_t(r.cols);
  const std::vector<Real> A = damped_hessian(r, s), U = factor_diagonal(A, s.order);
  std::vector<Real> d(n);
  Real sum = 0;
  for (std::size_t i = 0; i < s.row_loss.size(); ++i) {
    Real loss = 0, noise = 0, spread = 0;
    for (std::size_t j = 0; j < n; ++j) {
      const Real w = is_dead(s, j) ? 0 : Real(s.W[i * n + j]);
      d[j] = w - Real(s.Q[i * n + j]);
      const Real weight = epsilon * w, update = Real(n) * smallest, error = smallest * U[j];
      noise += 2 * A[j * n + j] * (Real(n) * weight * weight + update * update + error * error);
      spread += A[j * n + j] * d[j] * d[j] / 2;
    }
    for (std::size_t j = 0; j < n; ++j) {
      Real product = 0;
      for (std::size_t k = 0; k < n; ++k) product += A[j * n + k] * d[k];
      loss += d[j] * product / 2;
    }
    const Real limit = tolerance * loss + 2 * std::sqrt(loss * noise) + noise +
                       8 * epsilon * std::sqrt(Real(n)) * spread +
                       2 * std::numeric_limits<double>::min();
    const Real difference = std::abs(loss - Real(s.row_loss[i]));
    if (!(difference <= limit)) {
      std::ostringstream text;
      text << "row " << i << " has loss " << s.row_loss[i] << ", closed form " << loss
           << ", allowed difference " << limit << ", noise " << noise << ", spread " << spread;
      return text.str();
    }
    sum += Real(s.row_loss[i]);
  }
  return std::abs(Real(s.loss) - sum) <= 1e-9L * sum ? "" : "the loss is not the sum of its rows";
}

/// A search never ends with more than the greedy loss, which is that without it.
template <class B, class T>
std::string check_search(const Recipe& r, const Result& s) {
  if (s.greedy_loss.has_value() != r.searches()) return "a greedy loss is there, or is not";
  if (!r.searches()) return "";
  if (s.loss > *s.greedy_loss) return "the search ended with a higher loss";
  Recipe greedy = r;
  greedy.request.solver = without_search(r.options());
  return solve<B, T>(greedy).loss == *s.greedy_loss ? "" : "the greedy loss is another";
}

/// How cases of one backend and scalar ended.
struct Tally {
  int solved = 0, overflowed = 0, hopeless = 0;
  int compared = 0, alike = 0;   ///< with the oracle; alike in every weight
  int searched = 0, better = 0;  ///< than greedy
};

/// Whether equal numbers may be told apart by their rounding alone: what is pruned first then
/// differs between backends, and what follows with it.
bool has_ties(const Recipe& r) {
  return r.inputs == Inputs::repeated || r.inputs == Inputs::constant ||
         r.weights == Weights::three_values || r.weights == Weights::equal_rows ||
         r.weights == Weights::equal_columns || r.weights == Weights::constant_rows;
}

/// One result against the oracle's.
void compare(const Recipe& r, const Result& s, const Result& oracle, double tolerance,
             Tally& tally) {
  BOOST_TEST_REQUIRE(s.error == "");
  BOOST_TEST_REQUIRE(oracle.error == "");
  ++tally.compared;
  bool alike = s.bits == oracle.bits && s.mask == oracle.mask;
  for (index_t i = 0; i < r.rows; ++i) {
    const auto begin = s.W.begin() + i * r.cols;
    double largest = 0;
    for (auto w = begin; w != begin + r.cols; ++w) largest = std::max(largest, std::abs(*w));
    for (std::size_t at = std::size_t(i * r.cols); at < std::size_t((i + 1) * r.cols); ++at)
      alike &= std::abs(s.Q[at] - oracle.Q[at]) <= tolerance * largest;
  }
  tally.alike += alike;
  // Where a weight near the middle of two grid values fell to the other side, the rest follows.
  if (!has_ties(r))
    BOOST_TEST(relative_difference(s.loss, oracle.loss) <= (alike ? 5 * tolerance : 0.2));
}

template <class B, class T>
void check_case(const Recipe& r, Tally& tally) {
  const Result s = solve<B, T>(r);
  const Overflow overflow = overflow_of(r, s, Real(std::numeric_limits<T>::max()));
  const bool hopeless = r.inputs == Inputs::hopeless && r.cols > 1;
  if (!s.error.empty()) {
    BOOST_TEST((overflow.possible || hopeless), s.error);
    const auto names = {"weights (out, in)", "signal ", "H: "};
    const bool named = std::any_of(names.begin(), names.end(),
                                   [&](const char* name) { return s.error.starts_with(name); });
    BOOST_TEST((overflow.possible ? named || hopeless : s.error.starts_with("Hessian ")), s.error);
    (hopeless ? tally.hopeless : tally.overflowed) += 1;
    return;
  }
  ++tally.solved;
  BOOST_TEST(!overflow.certain);
  BOOST_TEST(!hopeless);
  // The lowest eigenvalue of the indefinite H is half its mean diagonal below zero.
  BOOST_TEST((s.retries > 0) ==
             (r.inputs == Inputs::indefinite && r.cols > 1 && r.options().damping < 0.5));
  const Real epsilon = std::numeric_limits<T>::epsilon(),
             smallest = std::numeric_limits<T>::denorm_min();
  BOOST_TEST(check_finite(s) == "");
  BOOST_TEST(check_hessian(r, s, epsilon, smallest) == "");
  BOOST_TEST(check_mean_bits(r, s) == "");
  BOOST_TEST(check_channels(r, s) == "");
  BOOST_TEST(check_grids<T>(r, s) == "");
  BOOST_TEST(check_counts(r, s) == "");
  BOOST_TEST(check_zeros(r, s) == "");
  BOOST_TEST(check_loss(r, s, tolerance<T>, epsilon, smallest) == "");
  BOOST_TEST((check_search<B, T>(r, s)) == "");
  tally.searched += r.searches();
  tally.better += r.searches() && s.loss < *s.greedy_loss;
  BOOST_TEST((solve<B, T>(r).bytes == s.bytes));
  if constexpr (!std::is_same_v<B, Oracle>)
    if (!overflow.possible && !r.searches())  // otherwise one may be refused and the other not
      compare(r, s, solve<Oracle, T>(r), tolerance<T>, tally);
}

/// The seeds to run: those of the command line, or all.
std::vector<std::uint64_t> seeds() {
  const auto& suite = boost::unit_test::framework::master_test_suite();
  std::vector<std::uint64_t> result;
  for (int i = 1; i < suite.argc; ++i) result.push_back(std::stoull(suite.argv[i]));
  for (int i = 1; result.size() < std::size_t(cases) && suite.argc < 2; ++i)
    result.push_back(std::uint64_t(i));
  return result;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(random_linears_keep_every_post_condition, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  Tally tally;
  const std::vector<std::uint64_t> all = seeds();
  for (const std::uint64_t seed : all) {
    const Recipe recipe = recipe_of(seed, sizeof(T) == 8);
    BOOST_TEST_CONTEXT(recipe) {
      try {
        check_case<B, T>(recipe, tally);
      } catch (const std::exception& e) {
        BOOST_ERROR(e.what());
      }
    }
  }
  if (all.size() < std::size_t(cases)) return;
  std::cout << B::name << " " << scalar_traits<T>::name << ": " << tally.solved << " solved, "
            << tally.overflowed << " out of range, " << tally.hopeless << " hopeless, "
            << tally.alike << " of " << tally.compared << " equal to the oracle, " << tally.better
            << " of " << tally.searched << " better than greedy\n";
  BOOST_TEST(tally.solved > 0.75 * cases);
  BOOST_TEST(tally.overflowed > 0);
  BOOST_TEST(tally.hopeless > 0);
  BOOST_TEST(tally.better > 0.4 * tally.searched);
  BOOST_TEST(tally.alike >= 0.9 * tally.compared);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(units_that_are_powers_of_two_change_no_digit, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const Problem problem{20, 60, {}, 80};
  const Data<B, T> data(problem);
  for_each_config([&]<class Config>(std::type_identity<Config>, const SolverOptions& options) {
    SparseGPTSolver<Config, B, T> solver(options);
    const auto expected = solver.solve(data.weights.view(), data.calibration);
    const Matrix<T> Q = download<B>(expected.weights);
    const std::pair<int, int> units[]{{100, 0},  {-100, 0}, {0, 50},    {0, -50},
                                      {-60, 50}, {60, -50}, {-20, -50}, {20, 30}};
    for (const auto& [weights, inputs] : units)
      BOOST_TEST_CONTEXT("2^" << weights << ", 2^" << inputs) {
        Problem scaled = problem;
        scaled.weight_scale = std::ldexp(1.0, weights);
        scaled.input_scale = std::ldexp(1.0, inputs);
        const Data<B, T> other(scaled);
        const auto linear = solver.solve(other.weights.view(), other.calibration);
        Matrix<T> unscaled = download<B>(linear.weights);
        for (index_t i = 0; i < unscaled.size(); ++i)
          unscaled.data()[i] = std::ldexp(unscaled.data()[i], -weights);
        BOOST_TEST(same_bytes(unscaled, Q));
        BOOST_TEST(linear.bits == expected.bits);
        BOOST_TEST(linear.loss == std::ldexp(expected.loss, 2 * (weights + inputs)));
      }
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(an_H_without_room_for_the_damping_is_named, C, Cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto weights = upload<B>(random_normal<T>(3, 2, 81));
  SparseGPTSolver<Prune, B, T> solver({.sparsity = 0.5, .damping = 1});
  // H of that share of the largest number, from one sequence of two tokens.
  const auto solve_with = [&](double share) {
    Matrix<T> X(2, 2);
    X(0, 0) = X(1, 1) = T(std::sqrt(share * (double(std::numeric_limits<T>::max()) / 2)));
    const auto device = upload<B>(X);
    Calibration<B, T> calibration(2);
    calibration.add(device.view());
    return message_of<non_finite_error>([&] { solver.solve(weights.view(), calibration); });
  };
  BOOST_TEST(solve_with(1e-10) == "");
  for (const double share : {0.6, 0.9, 1.1, 1.9})
    BOOST_TEST(contains(solve_with(share), "H: the activations of input 0 overflow"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(outputs_that_never_change_have_no_variance, C, Cases) {
  // Neither backend may rank channels by what its rounding leaves.
  using B = typename C::backend;
  using T = typename C::scalar;
  Matrix<T> X(30, 50);
  for (index_t t = 0; t < 30; ++t)
    for (index_t j = 0; j < 50; ++j) X(t, j) = T(0.1 * double(1 + j % 7));
  const auto device = upload<B>(X), weights = upload<B>(random_normal<T>(40, 50, 82));
  Calibration<B, T> calibration(50);
  calibration.add(device.view());
  const auto factor = factorize(calibration);
  const OutputMoments moments =
      output_moments(ScoringInput<B, T>{weights.view(), calibration, factor});
  for (const double variance : moments.variance) BOOST_TEST(variance == 0.0);
  for (const double mean : moments.mean_abs) BOOST_TEST(mean > 0.0);
}
