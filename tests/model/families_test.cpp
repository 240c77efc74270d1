// Every family of models on every backend: against what transformers computes, and from files.
#define BOOST_TEST_MODULE pare_families
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "family_support.hpp"
#include "files.hpp"
#include "model_support.hpp"
#include "pare/model/fold_rotation.hpp"
#include "pare/model/random.hpp"
#include "pare/model/save.hpp"
#include "pare/tokenizer/tokenizer.hpp"

using namespace test;
using nlohmann::json;
using pare::LanguageModel;

namespace {

using AllCases = decltype(std::tuple_cat(FloatCases{}, Stored{}));

/// Checks values against those of transformers, float32. Errors are in standard deviations of these.
template <class S>
void check_values(const Matrix<S>& got, const Matrix<float>& expected, const std::string& what) {
  BOOST_REQUIRE(got.rows() == expected.rows() && got.cols() == expected.cols());
  double sum = 0, squares = 0, worst = 0, errors = 0;
  for (index_t i = 0; i < got.size(); ++i) {
    const double value = expected.data()[i], error = std::abs(double(got.data()[i]) - value);
    sum += value;
    squares += value * value;
    errors += error * error;
    if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
  }
  const double count = double(got.size()), mean = sum / count;
  const double spread = std::sqrt(squares / count - mean * mean);
  const double largest = worst / spread, typical = std::sqrt(errors / count) / spread;
  BOOST_TEST_MESSAGE(what << ": largest error " << largest << ", root mean square " << typical);
  if constexpr (std::is_same_v<S, pare::bfloat16>) {
    BOOST_TEST(largest < 0.15, what << ": " << largest);
    BOOST_TEST(typical < 2e-2, what << ": " << typical);
  } else {
    BOOST_TEST(largest < (std::is_same_v<S, float> ? 1e-4 : 2e-2), what << ": " << largest);
  }
}

/// Buffers and others that published checkpoints hold beside the weights, in types that no weight
/// has.
void add_what_is_ignored(std::vector<pare::TensorData>& tensors, const std::string& prefix,
                         const std::string& layers) {
  const auto add = [&](const std::string& name, const char* dtype,
                       const std::vector<std::int64_t>& shape, std::size_t bytes) {
    tensors.push_back({name, dtype, shape, std::vector<std::byte>(bytes, std::byte{0x7f})});
  };
  for (const char* layer : {"0.", "2."}) {
    const std::string within = prefix + layers + layer;
    add(within + "attn.bias", "BOOL", {1, 1, 16, 16}, 256);
    add(within + "attn.masked_bias", "F32", {}, 4);
    add(within + "attention.bias", "U8", {1, 1, 16, 16}, 256);
    add(within + "attention.masked_bias", "F16", {}, 2);
    add(within + "attention.rotary_emb.inv_freq", "F8_E4M3", {5}, 5);
    add(within + "self_attn.rotary_emb.inv_freq", "BF16", {5}, 10);
  }
  add(prefix + "rotary_emb.inv_freq", "I64", {5}, 40);
}

const ids_t text{1, 5, 36, 0, 7, 7, 1, 2, 3, 4, 30, 6, 11, 12, 13, 14};  // two windows of 8

}  // namespace

// ---------------------------------------------------------------- published values

BOOST_AUTO_TEST_CASE_TEMPLATE(values_of_every_family, C, AllCases) {
  using B = typename C::backend;
  using S = typename C::scalar;
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const pare::SafetensorsFile golden(shared / "golden" / "families.safetensors");
  const ids_t ids = read_ids(golden, "input_ids");
  int models = 0;
  for (const pare::TensorInfo& tensor : golden.tensors()) {
    const std::string ending = ".logits";
    if (!tensor.name.ends_with(ending)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - ending.size());
    ++models;
    const auto model = pare::load_model<B, S>(shared / "models" / name);
    pare::ModelWorkspace<B, S> workspace;
    typename B::template matrix<S> hidden;
    pare::embed(model, std::span<const std::int32_t>(ids), 96, workspace, hidden);
    for (const auto& layer : model.layers) {
      pare::forward_layer(model, layer, hidden.view(), 96, workspace);
      if (layer.index > 0) continue;
      const std::string first = name + ".hidden1";
      check_values(download<B>(hidden), read_rows(golden, first), first);
    }
    check_values(all_logits<B, S>(model, hidden.view(), workspace), read_rows(golden, tensor.name),
                 tensor.name);
  }
  BOOST_TEST(models == 16);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(perplexity_of_three_families, C, FloatCases) {
  using B = typename C::backend;
  if constexpr (!std::is_same_v<B, Oracle>) {  // which is slow
    const fs::path shared = shared_folder();
    if (shared.empty()) return;
    const json expected = json::parse(read_text(shared / "golden" / "families.json"));
    const std::string short_text = read_text(shared / "text" / "short.txt");
    for (const char* name : {"tiny-llama", "tiny-gemma3", "tiny-gpt2"}) {
      const fs::path folder = shared / "models" / name;
      const ids_t ids = pare::Tokenizer::load(folder).encode(short_text);
      const double got = pare::perplexity(pare::load_model<B, float>(folder),
                                          std::span<const std::int32_t>(ids), 96);
      BOOST_TEST(std::abs(got / expected.at(name).get<double>() - 1) < 1e-4,
                 name << ": " << got << ", expected " << expected.at(name));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(values_of_a_published_model, C, FloatCases) {
  using B = typename C::backend;
  if constexpr (!std::is_same_v<B, Oracle>) {  // which is slow
    const fs::path shared = shared_folder();
    const char* const folder = std::getenv("PARE_SMOLLM2");
    if (folder == nullptr)
      std::cout << "skipped: PARE_SMOLLM2 names no folder that shared/tools/smollm2.sh has made\n";
    if (shared.empty() || folder == nullptr) return;
    const pare::SafetensorsFile golden(shared / "golden" / "smollm2.safetensors");
    const ids_t ids = read_ids(golden, "input_ids");
    const auto model = pare::load_model<B, float>(fs::path(folder));
    pare::ModelWorkspace<B, float> workspace;
    typename B::template matrix<float> hidden;
    pare::embed(model, std::span<const std::int32_t>(ids), index_t(ids.size()), workspace, hidden);
    for (const auto& layer : model.layers)
      pare::forward_layer(model, layer, hidden.view(), index_t(ids.size()), workspace);
    const Matrix<float> all = download<B>(hidden);
    Matrix<float> rows(3, all.cols());
    index_t row = 0;
    for (const index_t position : {0, 100, 511})
      std::copy_n(all.view().row(position), all.cols(), rows.view().row(row++));
    const auto on_rows = upload<B>(rows);
    check_values(all_logits<B, float>(model, on_rows.view(), workspace),
                 read_rows(golden, "logits"), "smollm2");
    const ids_t text =
        pare::Tokenizer::load(fs::path(folder)).encode(read_text(shared / "text" / "short.txt"));
    const double got = pare::perplexity(model, std::span<const std::int32_t>(text), 512);
    BOOST_TEST(std::abs(got / 33.581 - 1) < 1e-3, "perplexity " << got);
  }
}

// ---------------------------------------------------------------- files

BOOST_AUTO_TEST_CASE_TEMPLATE(every_family_is_read_from_files, C, FloatCases) {
  using B = typename C::backend;
  std::vector<pare::Family> families = pare::known_families();
  families.push_back(pare::family_of("llama"));  // and one of the user's own
  families.back().model_type = "mine";
  families.back().base.names.prefixes = {"net."};
  families.back().base.names.layers = "blocks.";
  families.back().base.linears.front().transposed = true;
  for (const pare::Family& family : families) BOOST_TEST_CONTEXT(family.model_type) {
      const json config = small_config(family);
      const pare::Architecture architecture =
          pare::parse_architecture("config.json", config.dump(), families);
      const LanguageModel<B, float> model = made_up<B>(architecture);
      const Matrix<float> expected = run_model(model, text, 8);
      const Folder folder;
      write_text(folder / "config.json", config.dump());
      for (const bool beside : {false, true})
        for (const std::string& prefix : architecture.names.prefixes) {
          std::vector<pare::TensorData> tensors = tensors_of<B>(model, prefix);
          if (beside) add_what_is_ignored(tensors, prefix, architecture.names.layers);
          pare::write_safetensors(folder / "model.safetensors", tensors);
          const auto read = pare::load_model<B, float>(folder.path, families);
          BOOST_TEST((read.config == architecture));
          BOOST_TEST(same_bytes(run_model(read, text, 8), expected), prefix);
          for (std::size_t i = 0; i < read.layers.size(); ++i) {
            const std::vector<std::string> names = pare::linear_names(architecture, index_t(i));
            BOOST_REQUIRE(read.layers[i].weights.size() == names.size());
            for (std::size_t l = 0; l < names.size(); ++l) {
              BOOST_TEST(read.layers[i].weights[l].name == names[l]);
              BOOST_TEST(read.layers[i].weights[l].tensor == prefix + names[l] + ".weight");
            }
          }
        }

      // Every tensor is needed: a model without one is refused by its name.
      const std::vector<pare::TensorData> all =
          tensors_of<B>(model, architecture.names.prefixes.front());
      for (std::size_t without = 0; without < all.size(); without += 5) {
        std::vector<pare::TensorData> rest = all;
        rest.erase(rest.begin() + std::ptrdiff_t(without));
        pare::write_safetensors(folder / "model.safetensors", rest);
        const std::string message = message_of<pare::format_error>(
            [&] { pare::load_model<B, float>(folder.path, families); });
        BOOST_TEST(contains(message, "'" + all[without].name + "'"), message);
      }
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(every_family_is_saved_as_it_came, C, FloatCases) {
  using B = typename C::backend;
  for (const pare::Family& family : pare::known_families()) BOOST_TEST_CONTEXT(family.model_type) {
      const json config = small_config(family);
      auto model = made_up<B>(pare::parse_architecture("config.json", config.dump()));
      const std::string prefix = model.config.names.prefixes.front();
      const Folder folder;
      write_text(folder / "config.json", config.dump());
      pare::write_safetensors(folder / "model.safetensors", tensors_of<B>(model, prefix));
      const Matrix<float> before = run_model(model, text, 8);
      model = pare::load_model<B, float>(folder.path);
      for (auto* linear : model.layers[1].linears()) {
        Matrix<float> changed = download<B>(linear->weight);
        for (index_t i = 0; i < changed.size(); i += 3) changed.data()[i] = 0;
        linear->weight = upload<B>(changed);
      }
      pare::save_model(model, folder.path, folder / "saved");
      const auto again = pare::load_model<B, float>(folder / "saved");
      const Matrix<float> expected = run_model(model, text, 8);
      BOOST_TEST(same_bytes(run_model(again, text, 8), expected));
      BOOST_TEST(!same_bytes(before, expected));
      // Names, shapes and types in the file are those of the source.
      const pare::SafetensorsFile source(folder / "model.safetensors");
      const pare::SafetensorsFile saved(folder / "saved" / "model.safetensors");
      BOOST_REQUIRE(saved.tensors().size() == source.tensors().size());
      for (const pare::TensorInfo& tensor : source.tensors()) {
        BOOST_TEST(saved.at(tensor.name).shape == tensor.shape);
        BOOST_TEST(saved.at(tensor.name).dtype == tensor.dtype);
      }
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_text_part_of_a_model_that_sees, C, FloatCases) {
  using B = typename C::backend;
  const json part = small_config(pare::family_of("gemma3_text"));
  const json whole = {{"model_type", "gemma3"},
                      {"text_config", part},
                      {"vision_config", {{"hidden_size", 1152}, {"model_type", "siglip"}}}};
  const auto model = made_up<B>(pare::parse_architecture("config.json", part.dump()));
  const Folder folder;
  write_text(folder / "config.json", whole.dump());
  for (const char* prefix : {"language_model.model.", "model.language_model."}) {
    std::vector<pare::TensorData> tensors = tensors_of<B>(model, prefix);
    tensors.push_back({"vision_tower.vision_model.embeddings.position_embedding.weight",
                       "BF16",
                       {2, 3},
                       std::vector<std::byte>(12)});
    tensors.push_back({"multi_modal_projector.mm_input_projection_weight",
                       "F16",
                       {3, 2},
                       std::vector<std::byte>(12)});
    pare::write_safetensors(folder / "model.safetensors", tensors);
    const auto read = pare::load_model<B, float>(folder.path);
    BOOST_TEST(same_bytes(run_model(read, text, 8), run_model(model, text, 8)), prefix);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_factor_of_embeddings_has_their_type, C, AllCases) {
  using B = typename C::backend;
  using S = typename C::scalar;
  const json config = small_config(pare::family_of("gemma2"));
  const auto source = made_up<B>(pare::parse_architecture("config.json", config.dump()));
  const Folder folder;
  write_text(folder / "config.json", config.dump());
  pare::write_safetensors(folder / "model.safetensors", tensors_of<B>(source, "model."));
  const auto model = pare::load_model<B, S>(folder.path);
  pare::ModelWorkspace<B, S> workspace;
  typename B::template matrix<S> hidden;
  pare::embed(model, std::span<const std::int32_t>(text), 8, workspace, hidden);
  const Matrix<S> got = download<B>(hidden), table = download<B>(model.embed_tokens);
  // sqrt(32) is 5.65685 in float32, 5.65625 in both types of 16 bits.
  using A = pare::compute_scalar<S>;
  const A factor = sizeof(S) == 2 ? A(5.65625) : A(S(std::sqrt(32.0)));
  for (index_t i = 0; i < got.rows(); ++i)
    for (index_t j = 0; j < got.cols(); ++j)
      BOOST_REQUIRE(A(got(i, j)) == A(S(A(table(text[std::size_t(i)], j)) * factor)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(fields_change_what_is_computed, C, FloatCases) {
  using B = typename C::backend;
  const auto logits = [](const std::string& type, const json& changes) {
    json config = small_config(pare::family_of(type));
    config.update(changes);
    return run_model(made_up<B>(pare::parse_architecture("config.json", config.dump())), text, 8);
  };
  const std::tuple<const char*, json> variants[] = {
      {"opt", {{"activation_function", "gelu"}}},
      {"opt", {{"do_layer_norm_before", false}}},
      {"llama", {{"rope_theta", 100}}},
      {"llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}},
      {"llama", {{"hidden_act", "gelu"}}},
      {"llama", {{"rms_norm_eps", 0.1}}},
      {"mistral", {{"sliding_window", 3}}},
      {"qwen2", {{"max_window_layers", 2}}},
      {"gemma2", {{"attn_logit_softcapping", 0.5}}},
      {"gemma2", {{"final_logit_softcapping", 0.5}}},
      {"gemma2", {{"query_pre_attn_scalar", 4}}},
      {"gemma3_text", {{"rope_local_base_freq", 100}}},
      {"gemma3_text", {{"_sliding_window_pattern", 2}}},
      {"phi3", {{"partial_rotary_factor", 0.4}}},
      {"gpt_neox", {{"use_parallel_residual", false}}},
      {"gpt_neox", {{"rotary_pct", 1.0}}},
      {"bloom", {{"apply_residual_connection_post_layernorm", true}}},
      {"gpt2", {{"scale_attn_weights", false}}},
      {"gpt2", {{"scale_attn_by_inverse_layer_idx", true}}}};
  for (const auto& [type, changes] : variants) {
    const double moved = distance(logits(type, changes), logits(type, json::object()));
    BOOST_TEST(moved > 1e-3, type << " " << changes.dump() << ": " << moved);
  }
}

// ---------------------------------------------------------------- rotations

BOOST_AUTO_TEST_CASE(rotations_are_orthogonal_and_spread) {
  for (const index_t n : {1, 2, 3, 4, 6, 8, 12, 15, 24, 37, 64, 96, 576, 768, 1000})
    for (const bool keeps_ones : {false, true}) BOOST_TEST_CONTEXT(n << " " << keeps_ones) {
        const pare::Rotation rotation = pare::make_rotation(n, 5, keeps_ones);
        Matrix<double> columns(n, n);  // R e_j in row j
        std::vector<double> buffer;
        double largest = 0;
        for (index_t j = 0; j < n; ++j) {
          std::fill_n(columns.view().row(j), n, 0.0);
          columns(j, j) = 1;
          pare::rotate(rotation, columns.view().row(j), buffer);
          for (index_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(columns(j, i)));
        }
        double worst = 0;
        for (index_t i = 0; i < n; i += 1 + n / 40)
          for (index_t j = 0; j < n; ++j) {
            double dot = i == j ? -1 : 0;
            for (index_t k = 0; k < n; ++k) dot += columns(i, k) * columns(j, k);
            worst = std::max(worst, std::abs(dot));
          }
        BOOST_TEST(worst < 1e-12);
        BOOST_TEST(std::abs(pare::largest_entry(rotation) - largest) < 1e-12);
        BOOST_TEST(largest <= 6 / std::sqrt(double(n)));
        if (n > 36) BOOST_TEST(largest < 1);
        if (!keeps_ones) BOOST_TEST(largest <= 1.5 / std::sqrt(double(n)));
        if (!keeps_ones) continue;
        std::vector<double> ones(std::size_t(n), 1.0);
        pare::rotate(rotation, ones.data(), buffer);
        for (const double one : ones) BOOST_TEST(std::abs(one - 1) < 1e-12);
      }
  const auto other = pare::make_rotation(64, 6), same = pare::make_rotation(64, 5);
  BOOST_TEST((other.signs != same.signs));
  BOOST_TEST((pare::make_rotation(64, 5).signs == same.signs));
  BOOST_CHECK_THROW(pare::make_rotation(0, 1), pare::argument_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(every_family_rotated_computes_the_same, C, FloatCases) {
  using B = typename C::backend;
  using pare::ResidualRotation;
  struct Variant {
    const char* type;
    json changes;
    ResidualRotation expected;
  };
  const ResidualRotation any = ResidualRotation::any, ones = ResidualRotation::keeps_ones;
  const ResidualRotation none = ResidualRotation::none;
  const Variant variants[] = {
      {"opt", {{"word_embed_proj_dim", 32}}, ones},
      {"opt", {{"word_embed_proj_dim", 32}, {"enable_bias", false}}, ones},  // norms keep beta
      {"opt", {{"word_embed_proj_dim", 32}, {"layer_norm_elementwise_affine", false}}, ones},
      {"opt", {{"word_embed_proj_dim", 32}, {"_remove_final_layer_norm", true}}, ones},
      {"opt", {{"do_layer_norm_before", false}}, none},
      {"opt", {{"hidden_size", 24}}, ones},  // embeddings projected from 20
      {"llama", {{"hidden_size", 36}, {"tie_word_embeddings", true}}, any},
      {"llama", json::object(), any},
      {"mistral", json::object(), any},
      {"qwen2", json::object(), any},
      {"qwen3", {{"tie_word_embeddings", true}}, any},
      {"gemma2", json::object(), none},
      {"gemma3_text", json::object(), none},
      {"phi3", json::object(), any},
      {"gpt_neox", {{"use_parallel_residual", false}}, ones},
      {"gpt_neox", {{"attention_bias", false}}, ones},
      {"bloom", {{"apply_residual_connection_post_layernorm", true}}, none},
      {"bloom", json::object(), none},
      {"gpt2", {{"n_embd", 24}}, ones}};
  for (const auto& [type, changes, expected] : variants)
    BOOST_TEST_CONTEXT(type << " " << changes.dump()) {
      json config = small_config(pare::family_of(type));
      config.update(changes);
      const auto model = made_up<B>(pare::parse_architecture("config.json", config.dump()));
      const Folder folder;
      write_text(folder / "config.json", config.dump());
      pare::write_safetensors(folder / "model.safetensors",
                              tensors_of<B>(model, model.config.names.prefixes.front()));
      const pare::ModelFiles<B, float> source(folder.path);
      const pare::FoldedRotation folded = pare::fold_rotation(source, folder / "rotated", 7);
      BOOST_TEST((folded.rule.residual == expected));
      BOOST_TEST(folded.rule.reason.empty() == (expected != none));
      const bool affine_end = model.config.norm_affine && !model.config.names.final_norm.empty();
      BOOST_TEST(folded.head_untied == (expected != none && model.config.tie_word_embeddings &&
                                        affine_end && !model.config.projects_embeddings()));
      const pare::ModelFiles<B, float> rotated(folder / "rotated");
      BOOST_TEST(rotated.config().tie_word_embeddings ==
                 (model.config.tie_word_embeddings && !folded.head_untied));
      const auto distance = pare::require_equal_logits(source, rotated, text, 8);
      BOOST_TEST(distance.largest < 2e-4, distance.largest);
      // What reads the residual stream has other weights, and so has what makes values.
      const auto again = rotated.model();
      for (const auto role :
           {pare::LinearRole::out, pare::LinearRole::down, pare::LinearRole::qkv,
            pare::LinearRole::v, pare::LinearRole::up, pare::LinearRole::gate_up}) {
        const auto* linear = model.layers[1].find(role);
        if (linear == nullptr) continue;
        const bool values = role != pare::LinearRole::down && role != pare::LinearRole::up &&
                            role != pare::LinearRole::gate_up;
        BOOST_TEST(same_bytes(download<B>(linear->weight),
                              download<B>(again.layers[1].find(role)->weight)) ==
                   (expected == none && !values));
        BOOST_TEST(again.layers[1].find(role)->bias.rows() == linear->bias.rows());
      }
      BOOST_CHECK_THROW(pare::fold_rotation(source, folder / "rotated", 7), pare::argument_error);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_rotation_that_is_wrong_is_found, C, FloatCases) {
  using B = typename C::backend;
  const json config = small_config(pare::family_of("gpt2"));
  auto model = made_up<B>(pare::parse_architecture("config.json", config.dump()));
  const Folder folder;
  write_text(folder / "config.json", config.dump());
  std::vector<pare::TensorData> tensors = tensors_of<B>(model, "transformer.");
  pare::write_safetensors(folder / "model.safetensors", tensors);
  const pare::ModelFiles<B, float> source(folder.path);
  pare::fold_rotation(source, folder / "rotated", 1);
  pare::fold_rotation(source, folder / "other", 2);
  // A layer of another rotation does not fit.
  const pare::SafetensorsFile other(folder / "other" / "model.safetensors");
  fs::create_directory(folder / "mixed");
  write_text(folder / "mixed" / "config.json", read_text(folder / "rotated" / "config.json"));
  pare::copy_safetensors(pare::SafetensorsFile(folder / "rotated" / "model.safetensors"),
                         folder / "mixed" / "model.safetensors",
                         [&](const pare::TensorInfo& info)
                             -> std::optional<std::vector<std::byte>> {
                           if (!contains(info.name, "h.1.mlp")) return std::nullopt;
                           return other.read_bytes(info.name);
                         });
  const pare::ModelFiles<B, float> mixed(folder / "mixed");
  BOOST_CHECK_THROW(pare::require_equal_logits(source, mixed, text, 8), pare::invariant_error);

  // A bias that a norm would have to keep and cannot, its weight being 0.
  for (pare::TensorData& tensor : tensors)
    if (tensor.name == "transformer.ln_f.weight") tensor.bytes.assign(tensor.bytes.size(), {});
  pare::write_safetensors(folder / "model.safetensors", tensors);
  const std::string message = message_of<pare::argument_error>(
      [&] { pare::fold_rotation(pare::ModelFiles<B, float>(folder.path), folder / "refused", 1); });
  BOOST_TEST(contains(message, "transformer.ln_f: weight 0 and bias"), message);
  BOOST_TEST(!fs::exists(folder / "refused"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(published_values_of_rotated_models, C, FloatCases) {
  using B = typename C::backend;
  const fs::path shared = shared_folder();
  if (shared.empty()) return;
  const pare::SafetensorsFile golden(shared / "golden" / "families.safetensors");
  const ids_t ids = read_ids(golden, "input_ids");
  for (const pare::TensorInfo& tensor : golden.tensors()) {
    const std::string ending = ".logits";
    if (!tensor.name.ends_with(ending)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - ending.size());
    const Folder folder;
    pare::fold_rotation(pare::ModelFiles<B, float>(shared / "models" / name), folder / "rotated",
                        3);
    const auto model = pare::load_model<B, float>(folder / "rotated");
    // Weights are rounded to float16 once more.
    const Matrix<float> logits = run_model(model, ids, 96),
                        expected = read_rows(golden, tensor.name);
    double errors = 0, squares = 0;
    for (index_t i = 0; i < logits.size(); ++i) {
      errors += std::pow(double(logits.data()[i]) - double(expected.data()[i]), 2);
      squares += std::pow(double(expected.data()[i]), 2);
    }
    BOOST_TEST(std::sqrt(errors / squares) < 3e-3, name << ": " << std::sqrt(errors / squares));
  }
}
