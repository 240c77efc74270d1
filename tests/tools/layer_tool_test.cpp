// pare-layer as a program: golden layers, an independent oracle, outputs, unusable inputs.
#define BOOST_TEST_MODULE pare_layer_tool
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

#include "cli_support.hpp"

namespace fs = std::filesystem;
using cli::Arguments;
using cli::check_failure;
using cli::check_success;
using cli::Folder;
using cli::Outcome;
using pare::index_t;
using pare::Matrix;
using pare::TensorData;

namespace {

constexpr double damping = 0.01;

/// What pare-layer wrote.
struct Result {
  explicit Result(const fs::path& path) : file(path) {
    Q = file.read_float("Q");
    mask = cli::elements<std::uint8_t>(file, "mask");
    loss = file.read_float("loss")(0, 0);
    if (file.find("bits") == nullptr) return;
    bits = cli::elements<std::uint8_t>(file, "bits");
    grid = cli::elements<std::int32_t>(file, "grid");
    scale = file.read_float("scale");
    zero = file.read_float("zero");
  }
  pare::SafetensorsFile file;
  Matrix<float> Q, scale, zero;
  std::vector<std::uint8_t> mask, bits;
  std::vector<std::int32_t> grid;
  double loss = 0;
};

Outcome pare_layer(const Folder& folder, const Arguments& options, const fs::path& input,
                   const std::string& output = "out.safetensors") {
  Arguments all{input.string(), (folder / output).string()};
  all.insert(all.end(), options.begin(), options.end());
  return cli::run(PARE_LAYER, all, folder.path);
}

/// Runs pare-layer, which must succeed, and reads its output.
Result solve(const Folder& folder, const Arguments& options, const fs::path& input,
             const std::string& output = "out.safetensors") {
  BOOST_TEST_INFO(cli::text_of(options));
  const Outcome outcome = pare_layer(folder, options, input, output);
  BOOST_TEST_INFO(outcome.err);
  BOOST_REQUIRE(outcome.code == 0);
  return Result(folder / output);
}

void check_tensor(const pare::SafetensorsFile& file, const std::string& name,
                  const std::string& dtype, const std::vector<std::int64_t>& shape) {
  BOOST_TEST_CONTEXT(name) {
    const pare::TensorInfo* info = file.find(name);
    BOOST_REQUIRE(info != nullptr);
    BOOST_TEST(info->dtype == dtype);
    BOOST_TEST(info->shape == shape, boost::test_tools::per_element());
  }
}

/// Output tensors of a quantized layer: names, types, shapes, and nothing else; every weight is
/// scale * (code - zero) with a code of its width; rows are neither dense nor unchanged.
void check_quantized(const Result& r, const Matrix<float>& W, bool input_axis) {
  const index_t rows = W.rows(), cols = W.cols();
  check_tensor(r.file, "Q", "F32", {rows, cols});
  check_tensor(r.file, "mask", "U8", {rows, cols});
  check_tensor(r.file, "bits", "U8", {input_axis ? cols : rows});
  check_tensor(r.file, "grid", "I32", {cols});
  check_tensor(r.file, "loss", "F32", {1});
  const std::set<std::uint8_t> widths(r.bits.begin(), r.bits.end());
  const auto grids = index_t(input_axis ? widths.size() : 1);
  for (const char* name : {"scale", "zero"})
    check_tensor(r.file, name, "F32",
                 grids > 1 ? std::vector<std::int64_t>{grids, rows}
                           : std::vector<std::int64_t>{rows});
  BOOST_TEST(r.file.tensors().size() == 7u);

  const auto scale = [&](index_t g, index_t i) { return double(r.scale.data()[g * rows + i]); };
  const auto zero = [&](index_t g, index_t i) { return double(r.zero.data()[g * rows + i]); };
  index_t off_grid = 0, same_rows = 0, crowded = 0, mask_not_zero = 0;
  for (index_t i = 0; i < rows; ++i) {
    bool differs = false;
    int row_width = 0;
    for (index_t j = 0; j < cols; ++j) {
      const index_t g = r.grid[std::size_t(j)];
      BOOST_REQUIRE((g >= 0 && g < grids));
      const int width = r.bits[std::size_t(input_axis ? j : i)];
      row_width = std::max(row_width, width);
      const double code = double(r.Q(i, j)) / scale(g, i) + zero(g, i);
      const double nearest = std::nearbyint(code);
      off_grid +=
          !(std::abs(code - nearest) < 1e-3 && nearest >= 0 && nearest <= std::pow(2, width) - 1);
      differs |= r.Q(i, j) != W(i, j);
      mask_not_zero += r.mask[std::size_t(i * cols + j)] != 0 && r.Q(i, j) != 0;
    }
    same_rows += !differs && row_width < 8;
    for (index_t g = 0; g < grids; ++g) {
      int width = input_axis ? 0 : r.bits[std::size_t(i)];
      for (index_t j = 0; input_axis && j < cols; ++j)
        if (r.grid[std::size_t(j)] == g) {
          BOOST_REQUIRE((width == 0 || width == r.bits[std::size_t(j)]));
          width = r.bits[std::size_t(j)];
        }
      crowded += cli::distinct_values(r.Q, i, [&](index_t j) {
                   return r.grid[std::size_t(j)] == g;
                 }) > std::size_t(1) << width;
    }
  }
  BOOST_TEST(off_grid == 0);
  BOOST_TEST(same_rows == 0);
  BOOST_TEST(crowded == 0);
  BOOST_TEST(mask_not_zero == 0);
}

/// The loss that follows from Q alone, in float64.
double loss_of(const Matrix<float>& W, const Matrix<float>& Q, const Matrix<float>& H) {
  const std::vector<double> rows =
      test::closed_form_loss(test::doubles(W), test::doubles(Q), test::doubles(H), damping);
  return std::accumulate(rows.begin(), rows.end(), 0.0);
}

/// A layer with activations of four sequences. With a spread, rows and columns have sizes that
/// differ by about that factor, so that some channels deserve more bits than others.
struct Layer {
  Layer(index_t rows, index_t cols, std::uint64_t seed, double spread = 1)
      : W(test::random_normal<float>(rows, cols, seed, 0.1)),
        X(test::correlated_activations<float>(4 * cols, cols, seed + 1)),
        H(cols, cols) {
    test::Random random(seed + 2);
    std::vector<double> column(static_cast<std::size_t>(cols));
    for (double& size : column) size = std::pow(spread, random.normal());
    for (index_t i = 0; i < rows; ++i) {
      const double row = std::pow(spread, random.normal());
      for (index_t j = 0; j < cols; ++j) W(i, j) *= float(row);
    }
    for (index_t t = 0; t < X.rows(); ++t)
      for (index_t j = 0; j < cols; ++j) X(t, j) *= float(column[std::size_t(j)]);
    for (index_t a = 0; a < cols; ++a)
      for (index_t b = 0; b < cols; ++b) {
        double sum = 0;
        for (index_t t = 0; t < X.rows(); ++t) sum += double(X(t, a)) * X(t, b);
        H(a, b) = float(sum * 2 / 4);
      }
  }
  fs::path write(const Folder& folder, const std::string& name = "in.safetensors") const {
    pare::write_safetensors(folder / name, {cli::tensor("W", W), cli::tensor("H", H)});
    return folder / name;
  }
  Matrix<float> W, X, H;
};

/// The options a golden file's metadata describes.
Arguments golden_options(const std::map<std::string, std::string>& metadata) {
  Arguments options;
  const std::map<std::string, std::string> names{{"s", "--sparsity"},
                                                 {"n", "--prunen"},
                                                 {"m", "--prunem"},
                                                 {"b", "--wbits"}};
  for (const auto& [key, value] : metadata)
    if (const auto name = names.find(key); name != names.end())
      options.insert(options.end(), {name->second, value});
  if (metadata.contains("sym")) options.push_back("--symmetric");
  if (metadata.contains("mse")) options.push_back("--clip-search");
  return options;
}

std::vector<fs::path> golden_files() {
  std::vector<fs::path> files;
  const auto shared = test::shared_folder("golden layers through pare-layer");
  if (!shared) return files;
  for (const auto& entry : fs::directory_iterator(*shared / "golden")) {
    const std::string name = entry.path().filename().string();
    if (name.size() > 2 && name[0] == 'g' && std::isdigit(static_cast<unsigned char>(name[1])) &&
        name.ends_with(".safetensors"))
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  BOOST_TEST(files.size() >= 9u);
  return files;
}

}  // namespace

BOOST_AUTO_TEST_CASE(golden_layers_agree_with_the_published_results) {
  for (const fs::path& path : golden_files()) BOOST_TEST_CONTEXT(path.filename().string()) {
      const Folder folder;
      const pare::SafetensorsFile golden(path);
      const auto& metadata = golden.metadata();
      const Matrix<float> W = golden.read_float("W"), H = golden.read_float("H"),
                          published = golden.read_float("Q");
      const Result r = solve(folder, golden_options(metadata), path);
      const bool has_dead = metadata.contains("dead");
      BOOST_TEST(r.loss <= (has_dead ? 1.005 : 1.002) * golden.read_float("loss")(0, 0));
      BOOST_TEST(test::relative_difference(r.loss, loss_of(W, r.Q, H)) < 1e-3);

      const bool prunes = metadata.contains("s") || metadata.contains("n");
      const bool quantizes = metadata.contains("b");
      if (quantizes) check_quantized(r, W, false);
      index_t agree = 0, mask_not_zero = 0;
      for (index_t i = 0; i < W.size(); ++i) {
        const float ours = r.Q.data()[i], theirs = published.data()[i];
        const bool pruned = quantizes ? ours == 0 : r.mask[std::size_t(i)] != 0;
        mask_not_zero += r.mask[std::size_t(i)] != 0 && ours != 0;
        agree += prunes
                     ? pruned == (theirs == 0)
                     : std::abs(ours - theirs) <= 1e-6 * std::max(std::abs(ours), std::abs(theirs));
      }
      BOOST_TEST(double(agree) / double(W.size()) >= 0.995);
      BOOST_TEST(mask_not_zero == 0);

      index_t dead = 0, dead_not_zero = 0;
      for (index_t j = 0; j < W.cols(); ++j) {
        if (H(j, j) != 0) continue;
        ++dead;
        for (index_t i = 0; i < W.rows(); ++i) dead_not_zero += r.Q(i, j) != 0;
      }
      BOOST_TEST((dead > 0) == has_dead);
      BOOST_TEST(dead_not_zero == 0);
      if (quantizes) {
        const Matrix<float> scale = golden.read_float("scale"), zero = golden.read_float("zero");
        index_t same = 0;
        for (index_t i = 0; i < W.rows(); ++i)
          same += test::relative_difference(scale(0, i), r.scale(0, i)) < 1e-5 &&
                  zero(0, i) == r.zero(0, i);
        // The published code fits grids to the weights of dead inputs too, which widens some.
        BOOST_TEST((has_dead ? same >= W.rows() / 2 : same == W.rows()));
      }
    }
}

BOOST_AUTO_TEST_CASE(golden_activations_give_the_loss_of_the_golden_hessian) {
  for (const fs::path& path : golden_files()) BOOST_TEST_CONTEXT(path.filename().string()) {
      const Folder folder;
      const pare::SafetensorsFile golden(path);
      const Arguments options = golden_options(golden.metadata());
      pare::write_safetensors(folder / "x.safetensors", {cli::tensor("W", golden.read_float("W")),
                                                         cli::tensor("X", golden.read_float("X"))});
      const Result from_h = solve(folder, options, path, "h.out");
      Arguments with_sequences = options;
      with_sequences.insert(with_sequences.end(), {"--sequences", "4"});
      const Result from_x = solve(folder, with_sequences, folder / "x.safetensors", "x.out");
      BOOST_TEST(test::relative_difference(from_h.loss, from_x.loss) < 0.01);
    }
}

BOOST_AUTO_TEST_CASE(other_layers_agree_with_an_independent_oracle) {
  const Folder folder;
  const Layer layer(24, 72, 5);
  const fs::path input = layer.write(folder);
  struct Case {
    Arguments options;
    test::PublishedOptions published;
  };
  const auto bits = [](int width) { return std::vector<int>(24, width); };
  std::vector<index_t> falling(72);
  std::iota(falling.begin(), falling.end(), index_t{0});
  std::stable_sort(falling.begin(), falling.end(),
                   [&](index_t a, index_t b) { return layer.H(a, a) > layer.H(b, b); });
  std::vector<Case> cases(10);
  cases[0] = {{"--sparsity", "0.35"}, {}};
  cases[0].published.sparsity = 0.35;
  cases[1] = {{"--sparsity", "0.5", "--wbits", "4"}, {}};
  cases[1].published.sparsity = 0.5;
  cases[1].published.row_bits = bits(4);
  cases[2] = {{"--prunen", "1", "--prunem", "3", "--wbits", "3"}, {}};
  cases[2].published.zeros = 1;
  cases[2].published.of = 3;
  cases[2].published.row_bits = bits(3);
  cases[3] = {{"--wbits", "2", "--symmetric"}, {}};
  cases[3].published.row_bits = bits(2);
  cases[3].published.symmetric = true;
  cases[4] = {{"--wbits", "3", "--clip-search"}, {}};
  cases[4].published.row_bits = bits(3);
  cases[4].published.clip_search = true;
  cases[5] = {{"--wbits", "4", "--act-order"}, {}};
  cases[5].published.row_bits = bits(4);
  cases[5].published.order = falling;
  cases[6] = {{"--sparsity", "0.5", "--blocksize", "16", "--percdamp", "0.1"}, {}};
  cases[6].published.sparsity = 0.5;
  cases[6].published.block_size = 16;
  cases[6].published.damping = 0.1;
  cases[7] = {{"--wbits", "8"}, {}};
  cases[7].published.row_bits = bits(8);
  cases[8] = {{"--wbits", "3", "--act-order", "--group-size", "32"}, {}};
  cases[8].published.row_bits = bits(3);
  cases[8].published.order = falling;
  cases[8].published.group_size = 32;
  cases[9] = {{"--wbits", "3", "--groupsize", "32", "--group-fit", "compensated"}, {}};
  cases[9].published.row_bits = bits(3);
  cases[9].published.group_size = 32;
  cases[9].published.compensated = true;
  for (const Case& c : cases) BOOST_TEST_CONTEXT(cli::text_of(c.options)) {
      const Result r = solve(folder, c.options, input);
      const test::PublishedResult published =
          test::published_sparsegpt(test::doubles(layer.W), test::doubles(layer.H), c.published);
      // A rounding tie may fall the other way in float32 and then shift the rest of its row.
      BOOST_TEST(test::relative_difference(r.loss, published.loss) < 0.02);
      index_t close = 0, mask = 0;
      for (index_t i = 0; i < r.Q.size(); ++i) {
        close += std::abs(r.Q.data()[i] - published.weights[std::size_t(i)]) < 1e-4;
        mask += r.mask[std::size_t(i)] == published.mask[std::size_t(i)];
      }
      BOOST_TEST(double(close) / double(r.Q.size()) >= 0.98);
      BOOST_TEST(double(mask) / double(r.Q.size()) >= 0.995);
    }
}

BOOST_AUTO_TEST_CASE(h_wins_when_x_is_there_too) {
  const Folder folder;
  const Layer layer(16, 32, 7);
  const fs::path only_h = layer.write(folder);
  Matrix<float> other = layer.X;
  for (index_t i = 0; i < other.size(); ++i)
    other.data()[i] *= float(1 + i % other.cols());  // another H altogether
  pare::write_safetensors(folder / "both.safetensors",
                          {cli::tensor("X", other), cli::tensor("W", layer.W),
                           cli::tensor("H", layer.H)});
  pare::write_safetensors(folder / "x.safetensors",
                          {cli::tensor("X", other), cli::tensor("W", layer.W)});
  const Arguments options{"--sparsity", "0.5", "--wbits", "4"};
  const Result h = solve(folder, options, only_h, "h.out");
  const Result both = solve(folder, options, folder / "both.safetensors", "both.out");
  const Result x = solve(folder, options, folder / "x.safetensors", "x.out");
  BOOST_CHECK(test::same_bytes(h.Q, both.Q));
  BOOST_TEST(h.loss == both.loss);
  BOOST_CHECK(!test::same_bytes(h.Q, x.Q));
}

BOOST_AUTO_TEST_CASE(sequences_scale_the_loss_and_nothing_else) {
  const Folder folder;
  const Layer layer(16, 32, 8);
  pare::write_safetensors(folder / "x.safetensors",
                          {cli::tensor("X", layer.X), cli::tensor("W", layer.W)});
  const fs::path input = folder / "x.safetensors";
  const Result one = solve(folder, {"--sparsity", "0.5"}, input, "1.out");
  const Result four = solve(folder, {"--sparsity", "0.5", "--sequences", "4"}, input, "4.out");
  BOOST_TEST(test::relative_difference(one.loss, 4 * four.loss) < 1e-4);
  BOOST_CHECK(one.mask == four.mask);
}

BOOST_AUTO_TEST_CASE(pruning_alone_writes_weights_mask_and_loss) {
  const Folder folder;
  const Layer layer(10, 48, 9);
  const Result r = solve(folder, {"--sparsity", "0.3"}, layer.write(folder));
  BOOST_TEST(r.file.tensors().size() == 3u);
  check_tensor(r.file, "Q", "F32", {10, 48});
  check_tensor(r.file, "mask", "U8", {10, 48});
  check_tensor(r.file, "loss", "F32", {1});
  BOOST_TEST(std::count(r.mask.begin(), r.mask.end(), 1) == 10 * 48 * 3 / 10);
  BOOST_TEST(std::count(r.mask.begin(), r.mask.end(), 0) == 10 * 48 - 10 * 48 * 3 / 10);
  for (index_t i = 0; i < r.Q.size(); ++i)
    if (r.mask[std::size_t(i)] != 0) BOOST_REQUIRE(r.Q.data()[i] == 0);
}

BOOST_AUTO_TEST_CASE(groups_lose_exactly_n) {
  const Folder folder;
  const Layer layer(12, 60, 10);
  const Result r =
      solve(folder, {"--prunen", "3", "--prunem", "5", "--blocksize", "16"}, layer.write(folder));
  for (index_t i = 0; i < r.Q.rows(); ++i)
    for (index_t g = 0; g < 60; g += 5)
      BOOST_REQUIRE(std::count_if(r.mask.begin() + i * 60 + g, r.mask.begin() + i * 60 + g + 5,
                                  [](std::uint8_t m) { return m == 1; }) == 3);
}

BOOST_AUTO_TEST_CASE(quantized_rows_hold_few_values_and_are_not_the_input) {
  // The silent no-op of a grid refitted on every column: full precision under another name.
  const Folder folder;
  const Layer layer(20, 96, 11);
  const fs::path input = layer.write(folder);
  double before = std::numeric_limits<double>::infinity();
  for (int width = 2; width <= 8; ++width) BOOST_TEST_CONTEXT("--wbits " << width) {
      const Result r = solve(folder, {"--wbits", std::to_string(width)}, input);
      check_quantized(r, layer.W, false);
      BOOST_CHECK(r.bits == std::vector<std::uint8_t>(20, std::uint8_t(width)));
      BOOST_TEST(r.loss > 0);
      BOOST_TEST(r.loss < 0.6 * before);  // a bit more is a quarter of the distortion, about
      before = r.loss;
    }
}

BOOST_AUTO_TEST_CASE(mixed_precision_on_both_axes) {
  const Folder folder;
  const Layer layer(60, 80, 12, 3);
  const fs::path input = layer.write(folder);
  for (const bool input_axis : {false, true})
    for (const char* method : {"quantile", "budget"})
      for (const double target : {2.3, 4.0, 4.6, 7.5}) {
        const Arguments options{"--wbits",
                                "4",
                                "--target-avg-bits",
                                std::to_string(target),
                                "--bit-method",
                                method,
                                "--axis",
                                input_axis ? "input" : "output",
                                "--sparsity",
                                "0.5"};
        BOOST_TEST_CONTEXT(cli::text_of(options)) {
          const Result r = solve(folder, options, input);
          check_quantized(r, layer.W, input_axis);
          const double mean =
              std::accumulate(r.bits.begin(), r.bits.end(), 0.0) / double(r.bits.size());
          BOOST_TEST(mean <= target + 1e-12);
          BOOST_TEST(target - mean < 2.0 / double(r.bits.size()));
          for (const std::uint8_t b : r.bits)
            BOOST_REQUIRE((b == 2 || b == 3 || b == 4 || b == 6 || b == 8));
          BOOST_TEST(std::set<std::uint8_t>(r.bits.begin(), r.bits.end()).size() > 1u);
          BOOST_TEST(test::relative_difference(r.loss, loss_of(layer.W, r.Q, layer.H)) < 1e-3);
        }
      }
}

BOOST_AUTO_TEST_CASE(quantile_without_a_target_gives_every_width_an_equal_share) {
  const Folder folder;
  const Layer layer(60, 80, 12, 3);
  const fs::path input = layer.write(folder);
  for (const char* axis : {"output", "input"}) BOOST_TEST_CONTEXT(axis) {
      const bool input_axis = axis == std::string("input");
      const Result r =
          solve(folder,
                {"--wbits", "4", "--bit-method", "quantile", "--axis", axis, "--sparsity", "0.5"},
                input);
      check_quantized(r, layer.W, input_axis);
      std::map<int, std::size_t> counts;
      for (const std::uint8_t b : r.bits) ++counts[b];
      const std::size_t fifth = (input_axis ? 80 : 60) / 5;
      const std::map<int, std::size_t> equal{
          {2, fifth}, {3, fifth}, {4, fifth}, {6, fifth}, {8, fifth}};
      BOOST_CHECK(counts == equal);
      BOOST_TEST(test::relative_difference(r.loss, loss_of(layer.W, r.Q, layer.H)) < 1e-3);
    }
}

BOOST_AUTO_TEST_CASE(mixed_precision_per_output_agrees_with_the_oracle) {
  const Folder folder;
  const Layer layer(30, 64, 13, 3);
  const Result r = solve(folder, {"--wbits", "4", "--target-avg-bits", "3.5"}, layer.write(folder));
  test::PublishedOptions options;
  options.row_bits.assign(r.bits.begin(), r.bits.end());
  const test::PublishedResult published =
      test::published_sparsegpt(test::doubles(layer.W), test::doubles(layer.H), options);
  BOOST_TEST(test::relative_difference(r.loss, published.loss) < 0.02);
}

BOOST_AUTO_TEST_CASE(methods_and_targets_give_different_weights) {
  // The silent no-op of mixed precision that reaches no quantizer: every setting gives one result.
  const Folder folder;
  const Layer layer(48, 64, 14, 3);
  const fs::path input = layer.write(folder);
  std::vector<Result> results;
  for (const Arguments& options : std::vector<Arguments>{
           {"--wbits", "4"},
           {"--wbits", "4", "--target-avg-bits", "4", "--bit-method", "quantile"},
           {"--wbits", "4", "--target-avg-bits", "4", "--bit-method", "budget"},
           {"--wbits", "4", "--target-avg-bits", "3.5", "--bit-method", "quantile"},
           {"--wbits", "4", "--target-avg-bits", "4", "--bit-method", "quantile", "--axis",
            "input"}})
    results.push_back(solve(folder, options, input));
  for (std::size_t a = 0; a < results.size(); ++a)
    for (std::size_t b = a + 1; b < results.size(); ++b) {
      BOOST_TEST_INFO(a << " and " << b);
      BOOST_CHECK(!test::same_bytes(results[a].Q, results[b].Q));
      BOOST_TEST_INFO(a << " and " << b);
      BOOST_CHECK(results[a].loss != results[b].loss);
    }
}

BOOST_AUTO_TEST_CASE(underscore_spellings_mean_the_same) {
  const Folder folder;
  const Layer layer(16, 32, 15);
  const fs::path input = layer.write(folder);
  const Result dashes = solve(folder,
                              {"--wbits", "4", "--target-avg-bits", "4", "--bit-method", "quantile",
                               "--act-order", "--clip-search"},
                              input, "a.out");
  const Result underscores = solve(folder,
                                   {"--wbits", "4", "--target_avg_bits", "4", "--bit_method",
                                    "quantile", "--act_order", "--clip_search"},
                                   input, "b.out");
  BOOST_CHECK(cli::read_text(folder / "a.out") == cli::read_text(folder / "b.out"));
  BOOST_CHECK(test::same_bytes(dashes.Q, underscores.Q));
}

BOOST_AUTO_TEST_CASE(every_float_type_is_read) {
  const Folder folder;
  const Layer layer(12, 32, 16);
  const Arguments options{"--sparsity", "0.5", "--wbits", "4"};
  for (const pare::DType type :
       {pare::DType::f16, pare::DType::bf16, pare::DType::f32, pare::DType::f64})
    BOOST_TEST_CONTEXT(pare::dtype_name(type)) {
      Matrix<float> rounded = layer.W;
      for (index_t i = 0; i < rounded.size(); ++i)
        rounded.data()[i] = pare::round_to(type, rounded.data()[i]);
      Matrix<float> X = layer.X;
      for (index_t i = 0; i < X.size(); ++i) X.data()[i] = pare::round_to(type, X.data()[i]);
      pare::write_safetensors(folder / "plain.safetensors",
                              {cli::tensor("W", rounded), cli::tensor("X", X)});
      pare::write_safetensors(folder / "stored.safetensors",
                              {cli::tensor("W", rounded, type), cli::tensor("X", X, type)});
      const Result plain = solve(folder, options, folder / "plain.safetensors", "plain.out");
      const Result stored = solve(folder, options, folder / "stored.safetensors", "stored.out");
      check_tensor(stored.file, "Q", "F32", {12, 32});
      BOOST_CHECK(test::same_bytes(plain.Q, stored.Q));
      BOOST_TEST(plain.loss == stored.loss);
    }
}

BOOST_AUTO_TEST_CASE(statistics_as_json) {
  const Folder folder;
  const Layer layer(20, 40, 17);
  const fs::path input = layer.write(folder);
  for (const bool input_axis : {false, true}) {
    const Outcome outcome =
        pare_layer(folder,
                   {"--sparsity", "0.5", "--wbits", "4", "--target-avg-bits", "4", "--bit-method",
                    "quantile", "--axis", input_axis ? "input" : "output", "--json"},
                   input);
    check_success(outcome);
    const Result r(folder / "out.safetensors");
    const cli::Json json = cli::parse_json(outcome.out);
    BOOST_TEST(json.at("layers").size() == 1u);
    const cli::Json& one = json.at("layers").at(0);
    BOOST_TEST(one.at("name") == "W");
    BOOST_TEST(one.at("rows") == 20);
    BOOST_TEST(one.at("columns") == 40);
    BOOST_TEST(one.at("channels") == (input_axis ? 40 : 20));
    BOOST_TEST(one.at("sparsity") == 0.5);
    BOOST_TEST(test::relative_difference(one.at("loss"), r.loss) < 1e-6);
    BOOST_TEST(one.at("seconds").get<double>() >= 0);
    std::map<std::string, int> histogram;
    for (const std::uint8_t b : r.bits) ++histogram[std::to_string(b)];
    BOOST_CHECK(one.at("bits_histogram") == cli::Json(histogram));
    const double mean = std::accumulate(r.bits.begin(), r.bits.end(), 0.0) / double(r.bits.size());
    BOOST_TEST(test::relative_difference(one.at("average_bits"), mean) < 1e-12);
    BOOST_TEST(json.at("totals").at("channels") == one.at("channels"));
    BOOST_TEST(json.at("totals").at("weights") == 800);
    const cli::Json& config = json.at("config");
    BOOST_TEST(config.at("sparsity") == 0.5);
    BOOST_TEST(config.at("wbits") == 4);
    BOOST_TEST(config.at("target_avg_bits") == 4.0);
    BOOST_TEST(config.at("bit_method") == "quantile");
    BOOST_TEST(config.at("axis") == (input_axis ? "input" : "output"));
    BOOST_TEST(config.at("percdamp") == 0.01);
    BOOST_TEST(config.at("blocksize") == 128);
    BOOST_TEST(config.at("act_order") == false);
    BOOST_CHECK(config.at("prunen").is_null());
  }
}

BOOST_AUTO_TEST_CASE(zeros_that_are_there_stay_with_keep_zeros) {
  const Folder folder;
  Layer layer(20, 40, 19);
  layer.W = solve(folder, {"--prunen", "2", "--prunem", "4"}, layer.write(folder)).Q;
  const fs::path input = layer.write(folder);
  const auto lost = [&](const Result& r) {
    index_t count = 0;
    for (index_t k = 0; k < layer.W.size(); ++k)
      count += layer.W.data()[k] == 0 && r.Q.data()[k] != 0;
    return count;
  };
  BOOST_TEST(lost(solve(folder, {"--wbits", "4"}, input)) > 0);
  const Result kept = solve(folder, {"--wbits", "4", "--keep-zeros"}, input);
  BOOST_TEST(lost(kept) == 0);
  BOOST_TEST(std::count(kept.mask.begin(), kept.mask.end(), 1) == 400);
  check_quantized(kept, layer.W, false);
  const Result more = solve(folder, {"--sparsity", "0.7", "--wbits", "4", "--keep-zeros"}, input);
  BOOST_TEST(lost(more) == 0);
  BOOST_TEST(std::count(more.mask.begin(), more.mask.end(), 1) == 560);
}

BOOST_AUTO_TEST_CASE(statistics_as_a_table) {
  const Folder folder;
  const Layer layer(50, 40, 18);
  const fs::path input = layer.write(folder);
  const Outcome mixed =
      pare_layer(folder, {"--wbits", "4", "--target-avg-bits", "4.6", "--bit-method", "quantile"},
                 input);
  check_success(mixed);
  // Equal shares: ten of fifty channels per width.
  for (const char* width : {"2", "3", "4", "6", "8"}) {
    BOOST_TEST_INFO(mixed.out);
    BOOST_CHECK(test::contains(mixed.out, std::string(width) + " bits                 10  20.00%"));
  }
  for (const char* part : {"channels           50\n", "50 x 40", "mean bits          4.6000\n",
                           "importance score", "total loss", "seconds"}) {
    BOOST_TEST_INFO(part << " in " << mixed.out);
    BOOST_CHECK(test::contains(mixed.out, part));
  }
  BOOST_CHECK(!test::contains(mixed.out, "quantization is off"));

  const Outcome pruned = pare_layer(folder, {"--sparsity", "0.5"}, input);
  check_success(pruned);
  BOOST_CHECK(test::contains(pruned.out, "quantization is off"));
  BOOST_CHECK(test::contains(pruned.out, "50.00% pruned"));
  const Outcome sixteen = pare_layer(folder, {"--sparsity", "0.5", "--wbits", "16"}, input);
  check_success(sixteen);
  BOOST_CHECK(test::contains(sixteen.out, "quantization is off"));
}

BOOST_AUTO_TEST_CASE(the_same_run_writes_the_same_bytes) {
  const Folder folder;
  const Layer layer(40, 200, 19);
  const fs::path input = layer.write(folder);
  const Arguments options{"--sparsity", "0.5", "--wbits", "4", "--target-avg-bits", "4"};
  solve(folder, options, input, "a.out");
  solve(folder, options, input, "b.out");
  BOOST_CHECK(cli::read_text(folder / "a.out") == cli::read_text(folder / "b.out"));
}

BOOST_AUTO_TEST_CASE(what_openmp_is_told_changes_no_byte) {
  const Folder folder;
  const Layer layer(70, 300, 20);
  const fs::path input = layer.write(folder);
  for (const auto& [name, built] : cli::backends()) BOOST_TEST_CONTEXT(name) {
      if (!built || cli::needs_missing_gpu(name)) continue;
      const Arguments options{"--sparsity",        "0.5", "--wbits",   "4",
                              "--target-avg-bits", "4",   "--backend", name};
      solve(folder, options, input, "plain.out");
      for (const auto& [variable, value] : cli::openmp_settings) {
        const cli::Environment environment(variable, value);
        solve(folder, options, input, "told.out");
        BOOST_TEST_INFO(variable << "=" << value);
        BOOST_CHECK(cli::read_text(folder / "told.out") == cli::read_text(folder / "plain.out"));
      }
    }
}

BOOST_AUTO_TEST_CASE(every_backend_agrees_or_says_how_to_build_it) {
  const Folder folder;
  const Layer layer(40, 200, 23);
  const fs::path input = layer.write(folder);
  const Arguments options{"--sparsity", "0.5", "--wbits", "4", "--target-avg-bits", "4"};
  const Result expected = solve(folder, options, input, "default.out");
  for (const auto& [name, built] : cli::backends()) BOOST_TEST_CONTEXT(name) {
      Arguments chosen = options;
      chosen.insert(chosen.end(), {"--backend", name, "--json"});
      const Outcome outcome = pare_layer(folder, chosen, input);
      if (!built) {
        cli::check_not_built(outcome, "pare-layer", name);
        continue;
      }
      if (cli::needs_missing_gpu(name)) {
        cli::check_without_gpu(outcome, "pare-layer");
        continue;
      }
      check_success(outcome);
      BOOST_TEST(cli::parse_json(outcome.out).at("config").at("backend") == name);
      const Result r(folder / "out.safetensors");
      check_quantized(r, layer.W, false);
      BOOST_TEST(test::relative_difference(r.loss, expected.loss) < 5e-3);
      BOOST_TEST(r.bits == expected.bits, boost::test_tools::per_element());
      std::size_t differing = 0;
      for (std::size_t i = 0; i < r.mask.size(); ++i) differing += r.mask[i] != expected.mask[i];
      BOOST_TEST(double(differing) <= 0.005 * double(r.mask.size()));
      if (name == "eigen")
        BOOST_CHECK(cli::read_text(folder / "out.safetensors") ==
                    cli::read_text(folder / "default.out"));
    }
}

BOOST_AUTO_TEST_CASE(a_backend_that_was_not_built_says_how_to_build_it) {
  for (const auto& [name, built] : cli::backends()) BOOST_TEST_CONTEXT(name)
  if (name != "eigen")
    cli::check_not_built(cli::run(PARE_LAYER_EIGEN,
                                  {"in", "out", "--wbits", "4", "--backend", name}),
                         "pare-layer", name);
}

BOOST_AUTO_TEST_CASE(a_hessian_that_cannot_be_factored_is_a_failure_that_names_the_file) {
  const Folder folder;
  const Layer layer(8, 32, 24);
  Matrix<float> H(32, 32);
  H.fill(3);
  for (index_t j = 0; j < 32; ++j) H(j, j) = 1;
  const fs::path input = folder / "in.safetensors";
  pare::write_safetensors(input, {cli::tensor("W", layer.W), cli::tensor("H", H)});
  const auto before = cli::listing(folder.path);
  check_failure(pare_layer(folder, {"--wbits", "4"}, input), 1, "pare-layer",
                {input.string() + ": Hessian (32, 32): not positive definite"});
  BOOST_CHECK(cli::listing(folder.path) == before);
}

BOOST_AUTO_TEST_CASE(help_lists_the_options) {
  const Outcome help = cli::run(PARE_LAYER, {"--help"});
  check_success(help);
  for (const char* option :
       {"--sparsity", "--prunen", "--prunem", "--wbits", "--target-avg-bits", "--bit-method",
        "--axis", "--act-order", "--clip-search", "--symmetric", "--percdamp", "--blocksize",
        "--group-size", "--group-fit", "--backend", "--json"}) {
    BOOST_TEST_INFO(option);
    BOOST_CHECK(test::contains(help.out, option));
  }
}

BOOST_AUTO_TEST_CASE(inputs_that_cannot_be_used_name_the_file_and_the_cause) {
  const Folder folder;
  const Layer layer(8, 32, 22);
  const TensorData W = cli::tensor("W", layer.W), H = cli::tensor("H", layer.H);
  const fs::path input = folder / "in.safetensors";
  const auto refuse = [&](const std::string& what, const std::vector<std::string>& parts) {
    BOOST_TEST_CONTEXT(what) {
      const auto before = cli::listing(folder.path);
      std::vector<std::string> all{input.string() + ": "};
      all.insert(all.end(), parts.begin(), parts.end());
      check_failure(pare_layer(folder, {"--wbits", "4"}, input), 2, "pare-layer", all);
      BOOST_CHECK(cli::listing(folder.path) == before);
    }
  };
  const auto refuse_tensors = [&](const std::string& what, const std::vector<TensorData>& tensors,
                                  const std::vector<std::string>& parts) {
    pare::write_safetensors(input, tensors);
    refuse(what, parts);
  };
  const auto with = [](Matrix<float> m, index_t r, index_t c, float value) {
    m(r, c) = value;
    return m;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();

  refuse("no file", {"cannot open for reading", "No such file"});
  cli::write_text(input, "");
  refuse("empty", {"too short", "0 bytes"});
  pare::write_safetensors(input, {W, H});
  const std::string whole = cli::read_text(input);
  for (const std::size_t keep : {std::size_t(7), std::size_t(40), whole.size() - 1}) {
    cli::write_text(input, whole.substr(0, keep));
    refuse("truncated to " + std::to_string(keep), {keep == 7 ? "too short" : "bytes"});
  }
  std::string oversized = whole;
  oversized[6] = '\x40';
  cli::write_text(input, oversized);
  refuse("oversized header", {"header length", "larger than the rest of the file"});
  cli::write_text(input, whole + "x");
  refuse("trailing bytes", {"extra bytes"});

  refuse_tensors("NaN in W", {cli::tensor("W", with(layer.W, 3, 17, nan)), H},
                 {"weights", "(3, 17)"});
  refuse_tensors("infinity in W", {cli::tensor("W", with(layer.W, 7, 31, -inf)), H},
                 {"weights", "(7, 31)"});
  refuse_tensors("NaN in H", {W, cli::tensor("H", with(layer.H, 4, 5, nan))}, {"H", "(4, 5)"});
  refuse_tensors("infinity in X", {W, cli::tensor("X", with(layer.X, 6, 2, inf))}, {"X", "(6, 2)"});
  refuse_tensors("asymmetric H", {W, cli::tensor("H", with(layer.H, 4, 5, 1e3f))},
                 {"H", "symmetric"});
  refuse_tensors("negative diagonal of H", {W, cli::tensor("H", with(layer.H, 5, 5, -1))}, {"H"});
  refuse_tensors("integers as W", {{"W", "I32", {8, 32}, std::vector<std::byte>(8 * 32 * 4)}, H},
                 {"tensor 'W'", "I32"});
  refuse_tensors("integers as H", {W, {"H", "I64", {32, 32}, std::vector<std::byte>(32 * 32 * 8)}},
                 {"tensor 'H'", "I64"});
  fs::remove(input);
  fs::create_directory(input);
  refuse("a folder", {"not a regular file"});
}

BOOST_AUTO_TEST_CASE(an_output_that_fails_late_leaves_nothing) {
  // The kernel lets nobody make a file here, whatever the permissions say.
  if (!fs::is_directory("/proc/self")) {
    std::cout << "skipped: there is no /proc\n";
    return;
  }
  const Folder folder;
  const Layer layer(8, 32, 23);
  const fs::path input = layer.write(folder);
  const auto before = cli::listing(folder.path);
  check_failure(cli::run(PARE_LAYER, {input.string(), "/proc/pare-layer", "--wbits", "4"},
                         folder.path),
                2, "pare-layer", {"/proc/pare-layer"});
  BOOST_CHECK(cli::listing(folder.path) == before);
}

BOOST_AUTO_TEST_CASE(a_failure_keeps_what_was_there) {
  const Folder folder;
  const Layer layer(8, 32, 24);
  const fs::path input = layer.write(folder);
  cli::write_text(folder / "out.safetensors", "of yesterday");
  BOOST_TEST(pare_layer(folder, {"--wbits", "9"}, input).code == 2);
  BOOST_TEST(cli::read_text(folder / "out.safetensors") == "of yesterday");
  solve(folder, {"--wbits", "4"}, input);  // success replaces it
  // The input is no output.
  const std::string before = cli::read_text(input);
  check_failure(pare_layer(folder, {"--wbits", "4"}, input, "in.safetensors"), 2, "pare-layer",
                {"in.safetensors", "this is an input of the run"});
  BOOST_TEST(cli::read_text(input) == before);
}

BOOST_AUTO_TEST_CASE(standard_output_that_cannot_be_written_is_a_failure) {
  if (!fs::exists("/dev/full")) {
    std::cout << "skipped: there is no /dev/full\n";
    return;
  }
  const Folder folder;
  const Layer layer(8, 32, 25);
  const Outcome outcome = cli::run(PARE_LAYER,
                                   {layer.write(folder).string(),
                                    (folder / "out.safetensors").string(), "--wbits", "4"},
                                   folder.path, "/dev/full");
  check_failure(outcome, 1, "pare-layer", {"standard output"});
}

// ---------------------------------------------------------------- rotation

BOOST_AUTO_TEST_CASE(rotated_inputs_lose_what_the_prototype_lost) {
  const auto shared = test::shared_folder("linears of SmolLM2, rotated");
  if (!shared) return;
  const pare::SafetensorsFile golden(*shared / "golden" / "smollm2.safetensors");
  const cli::Json losses = cli::Json::parse(std::ifstream(*shared / "golden" / "smollm2.json"));
  for (const std::string name : {"q12", "down1"}) BOOST_TEST_CONTEXT(name) {
      const Folder folder;
      const Matrix<float> W = golden.read_float(name + ".W"), H = golden.read_float(name + ".H");
      pare::write_safetensors(folder / "in.safetensors", {{"W", "F32", golden.at(name + ".W").shape,
                                                           golden.read_bytes(name + ".W")},
                                                          {"H", "F32", golden.at(name + ".H").shape,
                                                           golden.read_bytes(name + ".H")}});
      const Arguments options{"--wbits", "3", "--act-order", "--clip-search"};
      const auto loss_with = [&](const Arguments& more) {
        Arguments all = options;
        all.insert(all.end(), more.begin(), more.end());
        const Result result = solve(folder, all, folder / "in.safetensors");
        check_tensor(result.file, "rotation_seed", "I64", {1});
        const Matrix<float>& Q = result.Q;
        double loss = 0;
        std::vector<double> e(std::size_t(W.cols()), 0.0);
        for (index_t i = 0; i < W.rows(); ++i) {
          for (index_t j = 0; j < W.cols(); ++j)
            e[std::size_t(j)] = double(Q(i, j)) - double(W(i, j));
          for (index_t j = 0; j < W.cols(); ++j) {
            const float* h = H.view().row(j);
            double sum = 0;
            for (index_t k = 0; k < W.cols(); ++k) sum += double(h[k]) * e[std::size_t(k)];
            loss += 0.5 * e[std::size_t(j)] * sum;
          }
        }
        return loss;
      };
      const double expected = losses.at("rot row3 act mse").at(name).get<double>();
      const double loss = loss_with({"--rotate", "full"});
      BOOST_TEST_MESSAGE(name << ": " << loss / expected << " times the prototype's loss");
      BOOST_TEST(loss <= 1.05 * expected);
      BOOST_TEST(loss != loss_with({"--rotate", "full", "--rotate-seed", "2"}));
    }
}

BOOST_AUTO_TEST_CASE(rotations_that_make_no_sense_are_refused) {
  const Folder folder;
  const auto refused = [&](const Arguments& options, const std::string& text) {
    check_failure(pare_layer(folder, options, folder / "missing.safetensors"), 2, "pare-layer",
                  {text});
  };
  refused({"--wbits", "4", "--rotate", "folded"}, "write --rotate full");
  refused({"--wbits", "4", "--rotate", "ful"}, "did you mean full");
  refused({"--wbits", "4", "--rotate-seed", "2"}, "without --rotate");
  refused({"--wbits", "4", "--rotate", "full", "--rotate-seed", "-1"}, "write 0 or more");
  refused({"--wbits", "4", "--rotate", "full", "--keep-zeros"}, "--keep-zeros");
}
