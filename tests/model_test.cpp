// The OPT forward pass: primitives against plain loops in double, models against published values.
#define BOOST_TEST_MODULE pare_model
#include <boost/test/unit_test.hpp>

#include <unistd.h>

#include <boost/mpl/list.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "files.hpp"
#include "pare/backend/eigen.hpp"
#include "pare/backend/reference.hpp"
#include "pare/model/opt.hpp"
#include "pare/model/perplexity.hpp"
#include "pare/model/tokenizer.hpp"

namespace fs = std::filesystem;
namespace utf = boost::unit_test;
using pare::index_t;
using pare::Matrix;
using pare::MatrixView;
using ids_t = std::vector<std::int32_t>;

namespace {

using EigenBackend = pare::backend::Eigen;
using ReferenceBackend = pare::backend::Reference;
struct NoModels : pare::backend::HostMemory {
  static constexpr std::string_view name = "none";
};
static_assert(pare::ModelBackend<EigenBackend, float> && pare::ModelBackend<EigenBackend, double>);
static_assert(pare::ModelBackend<ReferenceBackend, float>);
static_assert(!pare::ModelBackend<NoModels, float> && !pare::ModelBackend<EigenBackend, int>);

template <class B, class T>
struct Case {
  using backend = B;
  using scalar = T;
};
using cases = boost::mpl::list<Case<EigenBackend, float>, Case<EigenBackend, double>,
                               Case<ReferenceBackend, float>, Case<ReferenceBackend, double>>;

/// Folder of the shared test data, empty when there is none.
fs::path shared_folder() {
  return test::shared_folder(utf::framework::current_test_case().p_name.get())
      .value_or(fs::path());
}

/// The model folder called `name`: from the examples where they ship it, else the shared one.
fs::path model_folder(const std::string& name) {
  const fs::path data = fs::path(PARE_EXAMPLES_DATA) / name;
  if (fs::exists(data / "config.json")) return data;
  const fs::path shared = shared_folder();
  return shared.empty() ? fs::path() : shared / "models" / name;
}

template <class T>
Matrix<T> random_matrix(index_t rows, index_t cols, unsigned seed, double scale = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0, scale);
  Matrix<T> m(rows, cols);
  for (index_t i = 0; i < m.size(); ++i) m.data()[i] = T(float(normal(engine)));
  return m;
}

template <class T>
Matrix<double> widen(const Matrix<T>& m) {
  Matrix<double> out(m.rows(), m.cols());
  for (index_t i = 0; i < m.size(); ++i) out.data()[i] = double(m.data()[i]);
  return out;
}

/// Largest |a - b|; infinity when shapes differ or a value is not finite.
template <class A, class B>
double distance(MatrixView<const A> a, MatrixView<const B> b) {
  if (a.rows != b.rows || a.cols != b.cols) return INFINITY;
  double worst = 0;
  for (index_t r = 0; r < a.rows; ++r)
    for (index_t c = 0; c < a.cols; ++c) {
      const double d = std::abs(double(a(r, c)) - double(b(r, c)));
      if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
    }
  return worst;
}
template <class A, class B>
double distance(const Matrix<A>& a, const Matrix<B>& b) {
  return distance(a.view(), b.view());
}

template <class T>
constexpr double rounding = std::is_same_v<T, float> ? 2e-5 : 1e-12;

template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// The elements of an int32 tensor.
ids_t read_ids(const pare::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.read_bytes(name);
  ids_t ids(bytes.size() / sizeof(ids[0]));
  std::memcpy(ids.data(), bytes.data(), bytes.size());
  return ids;
}

/// A float tensor of any rank as (rows, its last side).
Matrix<float> read_rows(const pare::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.read_bytes(name);
  const index_t cols = index_t(file.at(name).shape.back());
  Matrix<float> m(index_t(bytes.size() / sizeof(float)) / cols, cols);
  std::memcpy(m.data(), bytes.data(), bytes.size());
  return m;
}

/// All logits of `hidden`, (tokens, vocab).
template <class B, class T>
Matrix<T> all_logits(const pare::OptModel<B, T>& model, MatrixView<const T> hidden,
                     pare::OptWorkspace<B, T>& workspace) {
  Matrix<T> all(hidden.rows, model.config.vocab_size);
  index_t expected = 0;
  pare::head(model, hidden, workspace, [&](index_t first, MatrixView<const T> logits) {
    BOOST_TEST(first == expected);
    BOOST_TEST(logits.rows <= 1024);
    expected += logits.rows;
    B::copy(logits, all.view().block(first, 0, logits.rows, logits.cols));
  });
  BOOST_TEST(expected == hidden.rows);
  return all;
}

template <class B, class T>
Matrix<T> run_model(const pare::OptModel<B, T>& model, const ids_t& ids, index_t seqlen) {
  pare::OptWorkspace<B, T> workspace;
  Matrix<T> hidden;
  pare::embed(model, std::span<const std::int32_t>(ids), seqlen, workspace, hidden);
  for (const auto& layer : model.layers)
    pare::forward_layer(model, layer, hidden.view(), seqlen, workspace);
  return all_logits<B, T>(model, hidden.view(), workspace);
}

/// A made-up model in a folder that is removed at the end.
struct SmallModel {
  nlohmann::json config{{"model_type", "opt"}, {"activation_function", "relu"},
                        {"hidden_size", 12},   {"ffn_dim", 20},
                        {"num_hidden_layers", 2}, {"num_attention_heads", 3},
                        {"vocab_size", 17},    {"max_position_embeddings", 9}};
  std::string prefix = "model.decoder.";
  std::map<std::string, pare::TensorData> tensors;
  fs::path folder;

  explicit SmallModel(const nlohmann::json& changes = nlohmann::json::object()) {
    static int counter = 0;
    folder = fs::temp_directory_path() /
             ("pare_model_" + std::to_string(::getpid()) + "_" + std::to_string(counter++));
    fs::create_directories(folder);
    config.update(changes);
    const pare::OptConfig c = pare::parse_opt_config("config.json", config.dump());
    const auto h = c.hidden_size, word = c.word_embed_proj_dim;
    put("embed_tokens.weight", {c.vocab_size, word});
    put("embed_positions.weight", {c.max_position_embeddings + 2, h});
    if (c.projects_embeddings()) {
      put("project_in.weight", {h, word});
      put("project_out.weight", {word, h});
    }
    for (index_t i = 0; i < c.num_hidden_layers; ++i) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
        put_linear(layer + "self_attn." + name, h, h, c);
      put_linear(layer + "fc1", c.ffn_dim, h, c);
      put_linear(layer + "fc2", h, c.ffn_dim, c);
      put_norm(layer + "self_attn_layer_norm", c);
      put_norm(layer + "final_layer_norm", c);
    }
    if (c.has_final_layer_norm()) put_norm("final_layer_norm", c);
    if (!c.tie_word_embeddings) {
      put("lm_head.weight", {c.vocab_size, word});
      tensors["lm_head.weight"].name = "";  // the only one without prefix
    }
  }
  ~SmallModel() {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }

  void put(const std::string& name, std::vector<std::int64_t> shape) {
    index_t count = 1;
    for (const auto side : shape) count *= side;
    const auto values = random_matrix<float>(1, count, unsigned(tensors.size() + 1), 0.4);
    tensors[name] = {name, "F32", std::move(shape),
                     pare::encode_floats({values.data(), std::size_t(count)}, pare::DType::f32)};
  }
  void put_linear(const std::string& name, index_t out, index_t in, const pare::OptConfig& c) {
    put(name + ".weight", {out, in});
    if (c.enable_bias) put(name + ".bias", {out});
  }
  void put_norm(const std::string& name, const pare::OptConfig& c) {
    if (!c.layer_norm_elementwise_affine) return;
    put(name + ".weight", {c.hidden_size});
    put(name + ".bias", {c.hidden_size});
  }
  fs::path write() const {
    std::vector<pare::TensorData> list;
    for (const auto& [name, tensor] : tensors) {
      list.push_back(tensor);
      list.back().name = tensor.name.empty() ? name : prefix + name;
    }
    pare::write_safetensors(folder / "model.safetensors", list);
    pare::detail::AtomicFile out(folder / "config.json");
    const std::string text = config.dump();
    out.write(std::as_bytes(std::span(text)));
    out.commit();
    return folder;
  }
};

}  // namespace

// ---------------------------------------------------------------- primitives

BOOST_AUTO_TEST_CASE_TEMPLATE(linear_products, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  using Oracle = ReferenceBackend;
  const std::tuple<index_t, index_t, index_t> shapes[] = {
      {1, 1, 1}, {1, 7, 5}, {2, 3, 1}, {13, 17, 29}, {257, 5, 33}, {70, 515, 19}, {300, 130, 64}};
  for (const auto& [tokens, out, in] : shapes)
    for (const bool with_bias : {true, false}) {
      const auto X = random_matrix<T>(tokens, in, 1), W = random_matrix<T>(out, in, 2);
      const auto bias = with_bias ? random_matrix<T>(1, out, 3) : Matrix<T>();
      Matrix<T> Y(tokens, out);
      Y.fill(std::numeric_limits<T>::quiet_NaN());
      Matrix<double> expected(tokens, out);
      B::template linear<T>(Y, X, W, bias);
      Oracle::linear<double>(expected, widen(X), widen(W), widen(bias));
      BOOST_TEST_CONTEXT(tokens << " x " << out << " x " << in)
        BOOST_TEST(distance(Y, expected) < rounding<T> * double(in));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(linear_on_windows_of_larger_matrices, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const auto X = random_matrix<T>(9, 30, 1), W = random_matrix<T>(11, 40, 2);
  Matrix<T> Y(12, 20);
  const auto x = X.view().block(1, 3, 7, 21), w = W.view().block(2, 5, 8, 21);
  B::template linear<T>(Y.view().block(2, 4, 7, 8), x, w, {});
  for (index_t r = 0; r < 12; ++r)
    for (index_t c = 0; c < 20; ++c) {
      double sum = 0;
      if (r >= 2 && r < 9 && c >= 4 && c < 12)
        for (index_t k = 0; k < 21; ++k) sum += double(x(r - 2, k)) * double(w(c - 4, k));
      BOOST_REQUIRE_SMALL(double(Y(r, c)) - sum, 21 * rounding<T>);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(layer_norms, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t cols : {1, 3, 16, 77})
    for (const bool has_weight : {true, false})
      for (const bool has_bias : {true, false}) {
        auto X = random_matrix<T>(37, cols, 4, 3);
        for (index_t i = 0; i < X.size(); ++i) X.data()[i] += T(5);
        const auto weight = has_weight ? random_matrix<T>(1, cols, 5) : Matrix<T>();
        const auto bias = has_bias ? random_matrix<T>(1, cols, 6) : Matrix<T>();
        Matrix<T> Y(37, cols);
        Matrix<double> expected(37, cols);
        B::template layer_norm<T>(Y, X, weight, bias, 1e-5);
        ReferenceBackend::layer_norm<double>(expected, widen(X), widen(weight), widen(bias));
        BOOST_TEST(distance(Y, expected) < 5 * rounding<T>);
        B::template layer_norm<T>(X, X, weight, bias, 1e-5);
        BOOST_TEST(distance(X, Y) == 0);
      }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(attention, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const std::tuple<index_t, index_t, index_t, index_t> shapes[] = {
      {1, 1, 1, 1}, {1, 1, 2, 3}, {3, 2, 5, 7}, {2, 3, 64, 4}, {1, 2, 65, 8}, {2, 1, 150, 16}};
  for (const auto& [windows, heads, seqlen, width] : shapes)
    for (const double scale : {1.0, 40.0}) {  // 40: weights of nearly 0 and 1
      const index_t rows = windows * seqlen, cols = heads * width;
      const auto q = random_matrix<T>(rows, cols, 7, scale), k = random_matrix<T>(rows, cols, 8);
      const auto v = random_matrix<T>(rows, cols, 9);
      Matrix<T> out(rows, cols);
      out.fill(std::numeric_limits<T>::quiet_NaN());
      Matrix<double> expected(rows, cols);
      B::template causal_attention<T>(out, q, k, v, heads, seqlen);
      ReferenceBackend::causal_attention<double>(expected, widen(q), widen(k), widen(v), heads,
                                                 seqlen);
      BOOST_TEST_CONTEXT("seqlen " << seqlen << " scale " << scale)
        BOOST_TEST(distance(out, expected) < rounding<T> * scale);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(element_wise, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  auto X = random_matrix<T>(35, 19, 10);
  const auto A = random_matrix<T>(35, 19, 11);
  auto Y = X;
  B::template add<T>(Y, A);
  for (index_t i = 0; i < X.size(); ++i)
    BOOST_REQUIRE_EQUAL(Y.data()[i], X.data()[i] + A.data()[i]);
  X(3, 3) = std::numeric_limits<T>::quiet_NaN();
  Y = X;
  B::template relu<T>(Y);
  BOOST_TEST(std::isnan(Y(3, 3)));  // hidden by no rounding up to zero
  X(3, 3) = Y(3, 3) = 0;
  for (index_t i = 0; i < X.size(); ++i)
    BOOST_REQUIRE_EQUAL(Y.data()[i], std::max(T(0), X.data()[i]));

  const ids_t ids{4, 0, 34, 4, 7};
  Matrix<T> rows(5, 19);
  B::template embed_tokens<T>(rows, X, MatrixView<const std::int32_t>(ids.data(), 1, 5));
  for (index_t t = 0; t < 5; ++t)
    for (index_t j = 0; j < 19; ++j) BOOST_REQUIRE_EQUAL(rows(t, j), X(ids[std::size_t(t)], j));
  const auto before = rows;
  B::template add_positions<T>(rows, A, 2);
  for (index_t t = 0; t < 5; ++t)
    for (index_t j = 0; j < 19; ++j) BOOST_REQUIRE_EQUAL(rows(t, j), before(t, j) + A(t % 2, j));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(cross_entropies, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const index_t vocab : {1, 7, 256, 1000}) {
    auto logits = random_matrix<T>(41, vocab, 12, 4);
    for (index_t j = 0; j < vocab; ++j) logits(5, j) += T(3000);  // exp of it overflows
    ids_t targets(41);
    for (std::size_t t = 0; t < targets.size(); ++t)
      targets[t] = t % 7 == 3 ? -1 : std::int32_t(index_t(t * 31) % vocab);
    const MatrixView<const std::int32_t> view(targets.data(), 1, 41);
    const double expected = ReferenceBackend::cross_entropy<double>(widen(logits), view);
    BOOST_TEST(std::abs(B::template cross_entropy<T>(logits, view) - expected) < 41 * rounding<T>);
    double naive = 0;
    for (index_t t = 0; t < 41; ++t) {
      if (targets[std::size_t(t)] < 0) continue;
      double sum = 0;
      for (index_t j = 0; j < vocab; ++j)
        sum += std::exp(double(logits(t, j)) - double(logits(t, targets[std::size_t(t)])));
      naive += std::log(sum);
    }
    BOOST_TEST(std::abs(naive - expected) < 1e-8);
  }
}

#if defined(_OPENMP)
BOOST_AUTO_TEST_CASE(results_do_not_depend_on_the_number_of_threads) {
  const int threads = omp_get_max_threads();
  const auto run = [](int count) {
    omp_set_num_threads(count);
    std::vector<Matrix<float>> results;
    for (const auto& [tokens, out, in] :
         {std::tuple<index_t, index_t, index_t>{200, 300, 700}, {600, 513, 1100}}) {
      results.emplace_back(tokens, out);
      EigenBackend::linear<float>(results.back(), random_matrix<float>(tokens, in, 1),
                                  random_matrix<float>(out, in, 2), {});
      results.emplace_back(tokens, out / 3 * 3);
      const auto q = random_matrix<float>(tokens, out / 3 * 3, 3);
      EigenBackend::causal_attention<float>(results.back(), q, q, q, 3, tokens / 2);
    }
    return results;
  };
  const auto one = run(1), several = run(3);
  omp_set_num_threads(threads);
  for (std::size_t i = 0; i < one.size(); ++i) BOOST_TEST(distance(one[i], several[i]) == 0);
}
#endif

// ---------------------------------------------------------------- configuration

BOOST_AUTO_TEST_CASE(good_configurations) {
  const auto c = pare::parse_opt_config(
      "f", R"({"model_type":"opt","hidden_size":12,"ffn_dim":20,"num_hidden_layers":2,
               "num_attention_heads":3,"vocab_size":17,"max_position_embeddings":9})");
  BOOST_TEST(c.hidden_size == 12);
  BOOST_TEST(c.ffn_dim == 20);
  BOOST_TEST(c.num_hidden_layers == 2);
  BOOST_TEST(c.head_dim() == 4);
  BOOST_TEST(c.word_embed_proj_dim == 12);
  BOOST_TEST(!c.projects_embeddings());
  BOOST_TEST(c.do_layer_norm_before);
  BOOST_TEST(!c.remove_final_layer_norm);
  BOOST_TEST(c.has_final_layer_norm());
  BOOST_TEST(c.enable_bias);
  BOOST_TEST(c.layer_norm_elementwise_affine);
  BOOST_TEST(c.tie_word_embeddings);
  BOOST_TEST(c.bos_token_id == 2);
  BOOST_TEST(message_of<pare::io_error>([] { pare::load_opt_config("no/such/folder"); }) ==
             "no/such/folder/config.json: cannot open for reading: No such file or directory");
}

BOOST_AUTO_TEST_CASE(bad_configurations) {
  const std::string good = SmallModel().config.dump();
  const struct {
    const char* field;
    const char* value;  ///< as JSON; nothing: the field is taken out
    const char* message;
  } table[] = {
      {"hidden_size", "-3", "hidden_size: expected a positive integer, got -3"},
      {"hidden_size", "0", "hidden_size: expected a positive integer, got 0"},
      {"hidden_size", "12.0", "hidden_size: expected a positive integer, got 12.0"},
      {"hidden_size", "\"12\"", "hidden_size: expected a positive integer, got \"12\""},
      {"hidden_size", nullptr, "hidden_size: expected a positive integer, got nothing"},
      {"hidden_size", "16777217", "hidden_size: expected an integer of at most 16777216, got "
                                  "16777217"},
      {"hidden_size", "1e300", "hidden_size: expected a positive integer, got 1e+300"},
      {"ffn_dim", "null", "ffn_dim: expected a positive integer, got null"},
      {"ffn_dim", "[20]", "ffn_dim: expected a positive integer, got [20]"},
      {"num_hidden_layers", "true", "num_hidden_layers: expected a positive integer, got true"},
      {"num_attention_heads", "5", "num_attention_heads: expected a divisor of hidden_size 12, "
                                   "got 5"},
      {"vocab_size", "18446744073709551615", "vocab_size: expected an integer of at most "
                                             "16777216, got 18446744073709551615"},
      {"vocab_size", "2", "bos_token_id: expected a token id from 0 to 1 (vocab_size - 1), got "
                          "nothing"},
      {"max_position_embeddings", nullptr, "max_position_embeddings: expected a positive "
                                           "integer, got nothing"},
      {"word_embed_proj_dim", "-1", "word_embed_proj_dim: expected a positive integer, got -1"},
      {"do_layer_norm_before", "1", "do_layer_norm_before: expected true or false, got 1"},
      {"_remove_final_layer_norm", "\"no\"", "_remove_final_layer_norm: expected true or false, "
                                             "got \"no\""},
      {"enable_bias", "null", "enable_bias: expected true or false, got null"},
      {"layer_norm_elementwise_affine", "0", "layer_norm_elementwise_affine: expected true or "
                                             "false, got 0"},
      {"tie_word_embeddings", "{}", "tie_word_embeddings: expected true or false, got {}"},
      {"bos_token_id", "17", "bos_token_id: expected a token id from 0 to 16 (vocab_size - 1), "
                             "got 17"},
      {"bos_token_id", "-1", "bos_token_id: expected a token id from 0 to 16 (vocab_size - 1), "
                             "got -1"},
      {"activation_function", "\"gelu\"", "activation_function: expected \"relu\", got \"gelu\""},
      {"model_type", "\"llama\"", "model_type: expected \"opt\", got \"llama\""},
      {"model_type", nullptr, "model_type: expected \"opt\", got nothing"},
  };
  for (const auto& row : table) {
    auto config = nlohmann::json::parse(good);
    config.erase(row.field);
    if (row.value != nullptr) config[row.field] = nlohmann::json::parse(row.value);
    BOOST_TEST(message_of<pare::format_error>([&] {
                 pare::parse_opt_config("DIR/config.json", config.dump());
               }) == std::string("DIR/config.json: ") + row.message);
  }
  for (const char* text : {"", "{", "[]", "3", "{} x", "{\"a\":1,\"a\":2}"})
    BOOST_CHECK_EXCEPTION(
        pare::parse_opt_config("DIR/config.json", text), pare::format_error, [](const auto& e) {
          const std::string message = e.what();
          return message.starts_with("DIR/config.json: ") &&
                 message.find('\n') == std::string::npos;
        });
}

// ---------------------------------------------------------------- loading

BOOST_AUTO_TEST_CASE(names_of_linears) {
  for (const char* prefix : {"model.decoder.", "decoder."}) {
    SmallModel files;
    files.prefix = prefix;
    auto model = pare::load_opt<EigenBackend, float>(files.write());
    const auto linears = model.layers.at(1).linears();
    const char* names[] = {"self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj",
                           "self_attn.out_proj", "fc1", "fc2"};
    for (std::size_t i = 0; i < 6; ++i) {
      BOOST_TEST(linears[i]->name == std::string("layers.1.") + names[i]);
      BOOST_TEST(linears[i]->tensor == prefix + linears[i]->name + ".weight");
      BOOST_TEST((linears[i]->dtype == pare::DType::f32));
    }
  }
}

BOOST_AUTO_TEST_CASE(bad_weights) {
  const auto load = [](const SmallModel& files) {
    const fs::path folder = files.write();
    return message_of<pare::error>([&] { pare::load_opt<EigenBackend, float>(folder); });
  };
  {
    SmallModel files;
    files.tensors.erase("layers.1.fc1.bias");
    BOOST_TEST(load(files) == files.folder.string() +
                                  ": there is no tensor 'model.decoder.layers.1.fc1.bias'");
  }
  {
    SmallModel files;
    files.tensors.erase("embed_tokens.weight");
    BOOST_TEST(load(files) == files.folder.string() +
                                  ": there is no tensor 'model.decoder.embed_tokens.weight'");
  }
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{12, 20}, {20}, {240}, {2, 10, 12}, {}}) {
    SmallModel files;
    files.put("layers.0.fc1.weight", shape);
    std::string given;
    for (const auto side : shape) given += (given.empty() ? "" : ", ") + std::to_string(side);
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.layers.0.fc1.weight': expected shape "
                                  "(20, 12), got (" + given + ")");
  }
  {
    SmallModel files;
    files.put("layers.0.fc1.bias", {1, 20});  // as many numbers, another shape
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.layers.0.fc1.bias': expected shape "
                                  "(20), got (1, 20)");
  }
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    SmallModel files;
    auto& bytes = files.tensors["layers.0.fc2.weight"].bytes;
    std::memcpy(bytes.data() + sizeof(float) * (3 * 20 + 7), &value, sizeof(value));
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.layers.0.fc2.weight': expected finite "
                                  "numbers, got " + (std::isnan(value) ? "NaN" : "infinity") +
                                  " at (3, 7)");
  }
  {
    SmallModel files;
    files.tensors["final_layer_norm.weight"].dtype = "I32";
    BOOST_TEST(load(files) == (files.folder / "model.safetensors").string() +
                                  ": tensor 'model.decoder.final_layer_norm.weight': expected "
                                  "dtype F16, BF16, F32 or F64, got I32");
  }
  {
    SmallModel files(nlohmann::json{{"tie_word_embeddings", false}});
    files.tensors.erase("lm_head.weight");
    BOOST_TEST(load(files) == files.folder.string() + ": there is no tensor 'lm_head.weight'");
  }
}

// ---------------------------------------------------------------- forward pass

BOOST_AUTO_TEST_CASE_TEMPLATE(variants_of_the_architecture, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const nlohmann::json variants[] = {
      nlohmann::json::object(),
      {{"do_layer_norm_before", false}},
      {{"_remove_final_layer_norm", true}},
      {{"enable_bias", false}},
      {{"layer_norm_elementwise_affine", false}},
      {{"tie_word_embeddings", false}},
      {{"word_embed_proj_dim", 5}},
      {{"word_embed_proj_dim", 15}, {"do_layer_norm_before", false}, {"enable_bias", false},
       {"layer_norm_elementwise_affine", false}, {"tie_word_embeddings", false}},
  };
  const ids_t ids{2, 5, 16, 0, 7, 7, 1, 2, 3, 4, 5, 6, 11, 12};  // two windows of 7
  Matrix<double> first;
  for (const auto& variant : variants) {
    const SmallModel files(variant);
    const fs::path folder = files.write();
    const auto logits = run_model(pare::load_opt<B, T>(folder), ids, 7);
    const auto expected = run_model(pare::load_opt<ReferenceBackend, double>(folder), ids, 7);
    BOOST_TEST_CONTEXT(variant.dump()) {
      BOOST_TEST(distance(logits, expected) < 20 * rounding<T>);
      if (first.size() == 0)
        first = expected;
      else
        BOOST_TEST(distance(first, expected) > 1e-3);  // every variant does something
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(windows_and_positions_are_independent, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  using View = MatrixView<const T>;
  const SmallModel files;
  const auto model = pare::load_opt<B, T>(files.write());
  const ids_t ids{2, 5, 16, 0, 7, 7, 1, 2, 3, 4};
  const auto both = run_model(model, ids, 5);
  for (const index_t w : {0, 1}) {
    ids_t window(ids.begin() + w * 5, ids.begin() + w * 5 + 5);
    const auto alone = run_model(model, window, 5);
    BOOST_TEST(distance(View(both).block(w * 5, 0, 5, 17), View(alone)) < rounding<T>);
    window[4] = 9;  // what comes later changes nothing before it
    const auto changed = run_model(model, window, 5);
    BOOST_TEST(distance(View(changed).block(0, 0, 4, 17), View(alone).block(0, 0, 4, 17)) <
               rounding<T>);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(taps, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  for (const bool norm_first : {true, false}) {
    const SmallModel files(nlohmann::json{{"do_layer_norm_before", norm_first}});
    const auto model = pare::load_opt<B, T>(files.write());
    const ids_t ids{2, 5, 16, 0, 7, 7, 1, 2};
    pare::OptWorkspace<B, T> workspace;
    Matrix<T> hidden;
    pare::embed(model, std::span<const std::int32_t>(ids), 4, workspace, hidden);
    const Matrix<T> before = hidden;
    std::vector<std::pair<pare::LayerInput, Matrix<T>>> partial, whole;
    const auto into = [](auto& list) {
      return [&list](pare::LayerInput input, MatrixView<const T> X) {
        list.emplace_back(input, Matrix<T>(X));
      };
    };
    const auto& layer = model.layers[0];
    pare::forward_layer(model, layer, hidden.view(), 4, workspace, into(partial),
                        pare::LayerRun::inputs_only);
    BOOST_TEST(distance(hidden, before) == 0);
    pare::forward_layer(model, layer, hidden.view(), 4, workspace, into(whole));
    BOOST_TEST(distance(hidden, before) > 1e-3);
    auto untapped = before;
    pare::forward_layer(model, layer, untapped.view(), 4, workspace);
    BOOST_TEST(distance(hidden, untapped) == 0);

    BOOST_REQUIRE(partial.size() == 4 && whole.size() == 4);
    const std::pair<pare::LayerInput, index_t> expected[] = {{pare::LayerInput::qkv, 12},
                                                             {pare::LayerInput::out_proj, 12},
                                                             {pare::LayerInput::fc1, 12},
                                                             {pare::LayerInput::fc2, 20}};
    for (std::size_t i = 0; i < 4; ++i) {
      BOOST_TEST((whole[i].first == expected[i].first && partial[i].first == expected[i].first));
      BOOST_TEST(whole[i].second.rows() == 8);
      BOOST_TEST(whole[i].second.cols() == expected[i].second);
      BOOST_TEST(distance(whole[i].second, partial[i].second) == 0);
    }
    // The tapped values are what the products read.
    Matrix<T> ffn(8, 20);
    B::template linear<T>(ffn, whole[2].second, layer.fc1.weight, layer.fc1.bias);
    B::template relu<T>(ffn);
    BOOST_TEST(distance(ffn, whole[3].second) < rounding<T>);
    if (!norm_first) BOOST_TEST(distance(whole[0].second, before) == 0);
  }
}

BOOST_AUTO_TEST_CASE(bad_arguments) {
  const SmallModel files;
  const auto model = pare::load_opt<EigenBackend, float>(files.write());
  pare::OptWorkspace<EigenBackend, float> workspace;
  Matrix<float> hidden;
  const auto embed = [&](ids_t ids, index_t seqlen) {
    return message_of<pare::argument_error>([&] {
      pare::embed(model, std::span<const std::int32_t>(ids), seqlen, workspace, hidden);
    });
  };
  BOOST_TEST(embed({1, 2, 17, 3}, 2) == "embed: ids: expected 0 to 16, got 17 at 2");
  BOOST_TEST(embed({1, -2}, 2) == "embed: ids: expected 0 to 16, got -2 at 1");
  BOOST_TEST(embed({1, 2, 3}, 2) == "embed: ids: expected whole windows of 2 tokens, got 3");
  BOOST_TEST(embed({1, 2, 3}, 10) ==
             "embed: seqlen: expected 1 to 9 (max_position_embeddings), got 10");
  Matrix<float> wrong(4, 13);
  BOOST_TEST(message_of<pare::shape_error>([&] {
               pare::forward_layer(model, model.layers[0], wrong.view(), 2, workspace);
             }) ==
             "forward_layer: hidden: expected shape (windows * 2, 12), got (4, 13)");
  const ids_t ids{2, 3, 4};
  const auto ppl = [&](index_t seqlen) {
    return message_of<pare::argument_error>(
        [&] { pare::perplexity(model, std::span<const std::int32_t>(ids), seqlen); });
  };
  BOOST_TEST(ppl(5) == "perplexity: the text has 3 tokens, at least 5 are needed for one window");
  BOOST_TEST(ppl(1) == "perplexity: seqlen: expected 2 to 9 (max_position_embeddings), got 1");
  BOOST_TEST(ppl(10) == "perplexity: seqlen: expected 2 to 9 (max_position_embeddings), got 10");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(perplexity_by_hand, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const SmallModel files;
  const auto model = pare::load_opt<B, T>(files.write());
  ids_t ids{2};
  for (int i = 0; i < 2500; ++i) ids.push_back((i * 7 + i / 5) % 17);  // two batches and a rest
  std::vector<index_t> seen;
  const double got =
      pare::perplexity(model, std::span<const std::int32_t>(ids), 4, [&](index_t d, index_t n) {
        seen.push_back(d);
        BOOST_TEST(n == 625);
      });
  BOOST_TEST((seen == std::vector<index_t>{512, 625}));
  const auto logits = run_model(model, ids_t(ids.begin(), ids.begin() + 2500), 4);
  double loss = 0;
  for (index_t t = 0; t < 2500; ++t) {
    if (t % 4 == 3) continue;
    double sum = 0;
    for (index_t j = 0; j < 17; ++j) sum += std::exp(double(logits(t, j)));
    loss += std::log(sum) - double(logits(t, ids[std::size_t(t + 1)]));
  }
  BOOST_TEST(std::abs(got / std::exp(loss / (625 * 3)) - 1) < rounding<T>);
}

BOOST_AUTO_TEST_CASE(perplexity_of_a_broken_model) {
  const SmallModel files;
  auto model = pare::load_opt<EigenBackend, float>(files.write());
  model.layers[0].fc2.weight(1, 1) = NAN;
  const ids_t ids{2, 3, 4, 5, 6};
  BOOST_TEST(message_of<pare::error>([&] {
               pare::perplexity(model, std::span<const std::int32_t>(ids), 2);
             }) == "perplexity: the cross entropy of windows 0 to 1 is not finite");
}

// ---------------------------------------------------------------- published values

BOOST_AUTO_TEST_CASE(logits_of_opt_tiny) {
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const pare::SafetensorsFile golden(shared / "golden" / "forward.safetensors");
  const auto model = pare::load_opt<EigenBackend, float>(model_folder("opt-tiny"));
  const ids_t ids = read_ids(golden, "tiny.input_ids");
  pare::OptWorkspace<EigenBackend, float> workspace;
  Matrix<float> hidden;
  pare::embed(model, std::span<const std::int32_t>(ids), 256, workspace, hidden);
  BOOST_TEST(distance(hidden, read_rows(golden, "tiny.hidden0")) < 1e-6);
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    pare::forward_layer(model, model.layers[i], hidden.view(), 256, workspace);
    if (i == 0) BOOST_TEST(distance(hidden, read_rows(golden, "tiny.hidden1")) < 2e-3);
  }
  const auto logits = all_logits<EigenBackend, float>(model, hidden.view(), workspace);
  Matrix<float> normal(512, 192);
  pare::detail::apply<EigenBackend, float>(*model.final_layer_norm, hidden, normal);
  BOOST_TEST(distance(normal, read_rows(golden, "tiny.hidden4")) < 2e-3);
  const auto last = read_rows(golden, "tiny.logits_last");
  const auto mid = read_rows(golden, "tiny.logits_mid");
  for (const index_t w : {0, 1}) {
    const auto at = [&](index_t position) {
      return MatrixView<const float>(logits.view().block(w * 256 + position, 0, 1, 4096));
    };
    const auto row = [&](const Matrix<float>& m) {
      return MatrixView<const float>(m.view().block(w, 0, 1, 4096));
    };
    BOOST_TEST(distance(at(255), row(last)) < 2e-3);
    BOOST_TEST(distance(at(100), row(mid)) < 2e-3);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(logits_of_opt_postln, C, cases) {
  using B = typename C::backend;
  using T = typename C::scalar;
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const pare::SafetensorsFile golden(shared / "golden" / "forward.safetensors");
  const auto model = pare::load_opt<B, T>(model_folder("opt-postln"));
  const auto logits = run_model(model, read_ids(golden, "postln.input_ids"), 64);
  BOOST_TEST(distance(logits, read_rows(golden, "postln.logits")) < 2e-3);
}

namespace {

/// Perplexity of a model on the ids that came with the shared data.
void check_perplexity(const std::string& name, const std::string& text, double expected) {
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const auto model = pare::load_opt<EigenBackend, float>(model_folder(name));
  const pare::SafetensorsFile golden(shared / "golden" / "tokens.safetensors");
  ids_t ids = read_ids(golden, name + "/" + text);
  ids.insert(ids.begin(), model.config.bos_token_id);
  const double got = pare::perplexity(model, std::span<const std::int32_t>(ids),
                                      model.config.max_position_embeddings);
  BOOST_TEST_CONTEXT(name << " on " << text) BOOST_TEST(std::abs(got / expected - 1) < 1e-3);
  BOOST_TEST_MESSAGE(name << " on " << text << ": " << got << ", expected " << expected);
}

}  // namespace

BOOST_AUTO_TEST_CASE(perplexity_of_opt_tiny) { check_perplexity("opt-tiny", "c4.test", 130.331); }

BOOST_AUTO_TEST_CASE(perplexity_from_text) {
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const fs::path folder = model_folder("opt-tiny");
  const auto tokenizer = pare::Tokenizer::load(folder / "vocab.json", folder / "merges.txt");
  const auto model = pare::load_opt<EigenBackend, float>(folder);
  ids_t ids = tokenizer.encode(pare::detail::read_whole_file(shared / "text" / "c4.test.txt"));
  ids.insert(ids.begin(), model.config.bos_token_id);
  const double got = pare::perplexity(model, std::span<const std::int32_t>(ids), 256);
  BOOST_TEST(std::abs(got / 130.331 - 1) < 1e-3);
}

BOOST_AUTO_TEST_CASE(dense_perplexities, *utf::label("slow") * utf::disabled()) {
  check_perplexity("opt-tiny", "wikitext2.test", 35.658);
  check_perplexity("opt-tiny", "ptb.test", 46.448);
  check_perplexity("opt-small", "c4.test", 223.364);
  check_perplexity("opt-small", "ptb.test", 61.036);
  check_perplexity("opt-small", "wikitext2.test", 46.709);
}
