// What config.json says of every family, rotary positions and ALiBi against closed forms.
#define BOOST_TEST_MODULE pare_architecture
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "opt_architecture.hpp"
#include "pare/model/config_json.hpp"
#include "pare/model/rotary.hpp"
#include "support.hpp"

using namespace pare;
using nlohmann::json;
using test::message_of;

namespace {

Architecture parse(const json& config) { return parse_architecture("config.json", config.dump()); }

/// What is wrong with a configuration, without the name of the file.
std::string fault_of(const json& config) {
  const std::string message = message_of<format_error>([&] { parse(config); });
  const std::string file = "config.json: ";
  return message.starts_with(file) ? message.substr(file.size()) : message;
}

/// `config` with some fields changed; one that is null here is taken out.
json with(json config, const json& changes) {
  for (const auto& [field, value] : changes.items())
    if (value.is_null())
      config.erase(field);
    else
      config[field] = value;
  return config;
}

const json llama = {{"model_type", "llama"},    {"hidden_size", 64},
                    {"intermediate_size", 160}, {"num_hidden_layers", 3},
                    {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                    {"vocab_size", 384},        {"max_position_embeddings", 128},
                    {"hidden_act", "silu"},     {"bos_token_id", 1}};
const json gemma3 = with(llama, {{"model_type", "gemma3_text"},
                                 {"hidden_act", nullptr},
                                 {"hidden_activation", "gelu_pytorch_tanh"},
                                 {"head_dim", 32},
                                 {"sliding_window", 24},
                                 {"query_pre_attn_scalar", 64}});
const json phi3 = with(llama, {{"model_type", "phi3"},
                               {"original_max_position_embeddings", 64},
                               {"sliding_window", 100}});
const json neox = {{"model_type", "gpt_neox"},      {"hidden_size", 64},
                   {"intermediate_size", 192},      {"num_hidden_layers", 2},
                   {"num_attention_heads", 4},      {"vocab_size", 384},
                   {"max_position_embeddings", 128}};

void check_close(const std::vector<double>& got, const std::vector<double>& expected) {
  BOOST_REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    BOOST_TEST(std::abs(got[i] / expected[i] - 1) < 1e-12,
               i << ": " << got[i] << ", expected " << expected[i]);
}

/// Three pairs, which turn by 1, 0.1 and 0.01.
Rotary three_pairs(RotaryScaling scaling, double factor) {
  Rotary rotary;
  rotary.theta = 1e3;
  rotary.width = 6;
  rotary.scaling = scaling;
  rotary.factor = factor;
  rotary.original_positions = 1000;
  return rotary;
}

}  // namespace

// ---------------------------------------------------------------- positions

BOOST_AUTO_TEST_CASE(frequencies_that_are_not_stretched) {
  check_close(rotary_frequencies(three_pairs(RotaryScaling::none, 1), 5), {1, 0.1, 0.01});
  check_close(rotary_frequencies(three_pairs(RotaryScaling::linear, 4), 5), {0.25, 0.025, 0.0025});
}

BOOST_AUTO_TEST_CASE(dynamic_frequencies_depend_on_the_window) {
  const Rotary rotary = three_pairs(RotaryScaling::dynamic_ntk, 4);
  check_close(rotary_frequencies(rotary, 10), {1, 0.1, 0.01});
  check_close(rotary_frequencies(rotary, 1000), {1, 0.1, 0.01});
  // theta grows by (4 * 2 - 3)^(6/4) = 5^(3/2), the powers of it are 0, -1/3 and -2/3.
  check_close(rotary_frequencies(rotary, 2000), {1, 0.1 / std::sqrt(5.0), 0.01 / 5});
  check_close(rotary_frequencies(rotary, 1001), {1, 0.1 / std::sqrt(1.004), 0.01 / 1.004});
}

BOOST_AUTO_TEST_CASE(llama3_mixes_between_two_edges) {
  Rotary rotary = three_pairs(RotaryScaling::llama3, 8);
  const double turns = 1000 / (2 * std::numbers::pi);  // of the first pair
  rotary.high_frequency_factor = turns;
  rotary.low_frequency_factor = turns / 100;
  // The first stays, the last is divided by 8; the second lies (10 - 1) / (100 - 1) above the edge.
  check_close(rotary_frequencies(rotary, 5), {1, 0.1 * (1.0 / 11 + 10.0 / 11 / 8), 0.01 / 8});
  rotary.high_frequency_factor = turns / 10;
  check_close(rotary_frequencies(rotary, 5), {1, 0.1, 0.01 / 8});
  rotary.low_frequency_factor = turns / 10;
  rotary.high_frequency_factor = turns;
  check_close(rotary_frequencies(rotary, 5), {1, 0.1 / 8, 0.01 / 8});
}

BOOST_AUTO_TEST_CASE(yarn_keeps_fast_pairs_and_divides_slow_ones) {
  Rotary rotary;
  rotary.width = 64;
  rotary.scaling = RotaryScaling::yarn;
  rotary.factor = 16;
  rotary.original_positions = 4096;
  // Pair i turns 4096 * 10000^(-i/32) / 2 pi times: 32 times at 10.48, once at 22.51.
  const std::vector<double> stretched = rotary_frequencies(rotary, 5);
  BOOST_REQUIRE(stretched.size() == 32u);
  for (int i = 0; i < 32; ++i) {
    const double plain = std::pow(1e4, -i / 32.0);
    const double slow = i <= 10 ? 0 : i >= 23 ? 1 : (i - 10) / 13.0;
    BOOST_TEST(std::abs(stretched[std::size_t(i)] / (plain * (slow / 16 + 1 - slow)) - 1) < 1e-12,
               "pair " << i);
  }
  rotary.truncate = false;
  const double once = 32 * std::log(4096 / (2 * std::numbers::pi)) / std::log(1e4);
  const double often = 32 * std::log(4096 / (64 * std::numbers::pi)) / std::log(1e4);
  BOOST_TEST((often > 10 && often < 11 && once > 22 && once < 23));
  const double slow = (15 - often) / (once - often);
  BOOST_TEST(std::abs(rotary_frequencies(rotary, 5)[15] /
                          (std::pow(1e4, -15 / 32.0) * (slow / 16 + 1 - slow)) -
                      1) < 1e-12);
  // Where not even the first pair turns once, all the others are slow.
  rotary = three_pairs(RotaryScaling::yarn, 4);
  rotary.original_positions = 6;
  check_close(rotary_frequencies(rotary, 5), {1, 0.1 / 4, 0.01 / 4});
}

BOOST_AUTO_TEST_CASE(longrope_has_factors_for_short_and_for_long_windows) {
  Rotary rotary = three_pairs(RotaryScaling::longrope, 4);
  rotary.short_factor = {1, 2, 4};
  rotary.long_factor = {5, 10, 20};
  rotary.attention_factor = 1.25;
  check_close(rotary_frequencies(rotary, 1000), {1, 0.05, 0.0025});
  check_close(rotary_frequencies(rotary, 1001), {0.2, 0.01, 0.0005});
  const RotaryTables<double> tables = rotary_tables<double>(rotary, 3);
  BOOST_TEST(tables.cosines.rows() == 3);
  BOOST_TEST(tables.cosines.cols() == 3);
  BOOST_TEST(tables.cosines(0, 2) == 1.25);
  BOOST_TEST(tables.sines(0, 2) == 0);
  BOOST_TEST(std::abs(tables.cosines(2, 1) - 1.25 * std::cos(0.1)) < 1e-15);
  BOOST_TEST(std::abs(tables.sines(2, 1) - 1.25 * std::sin(0.1)) < 1e-15);
}

BOOST_AUTO_TEST_CASE(slopes_of_alibi) {
  check_close(alibi_slopes(1), {1.0 / 256});
  check_close(alibi_slopes(8),
              {1 / 2., 1 / 4., 1 / 8., 1 / 16., 1 / 32., 1 / 64., 1 / 128., 1 / 256.});
  // Four more: every second of those of 16 heads.
  check_close(alibi_slopes(12),
              {1 / 2., 1 / 4., 1 / 8., 1 / 16., 1 / 32., 1 / 64., 1 / 128., 1 / 256.,
               std::exp2(-0.5), std::exp2(-1.5), std::exp2(-2.5), std::exp2(-3.5)});
}

// ---------------------------------------------------------------- both ways of writing them

BOOST_AUTO_TEST_CASE(rotary_settings_of_llama) {
  const Architecture plain = parse(llama);
  BOOST_REQUIRE(plain.rotaries.size() == 1u);
  BOOST_TEST(plain.rotaries[0].theta == 1e4);
  BOOST_TEST(plain.rotaries[0].width == 16);
  BOOST_CHECK(plain == parse(with(llama, {{"rope_parameters", {{"rope_type", "default"}}}})));
  BOOST_CHECK(plain == parse(with(llama, {{"rope_parameters",
                                           {{"rope_type", "default"}, {"rope_theta", 1e4}}}})));
  json nothing = llama;
  nothing["rope_scaling"] = nullptr;
  BOOST_CHECK(plain == parse(nothing));

  const auto both = [](double theta, const char* type, json scaling) {
    json older = scaling, newer = scaling;
    older[theta == 5e5 ? "rope_type" : "type"] = newer["rope_type"] = type;
    newer["rope_theta"] = theta;
    const Architecture a = parse(with(llama, {{"rope_theta", theta}, {"rope_scaling", older}}));
    BOOST_CHECK(a == parse(with(llama, {{"rope_parameters", newer}})));
    BOOST_TEST(a.rotaries.at(0).theta == theta);
    return a.rotaries.at(0);
  };
  const Rotary linear = both(2e4, "linear", {{"factor", 4.0}});
  BOOST_CHECK(linear.scaling == RotaryScaling::linear);
  BOOST_TEST(linear.factor == 4);
  const Rotary dynamic = both(1e4, "dynamic", {{"factor", 2.0}});
  BOOST_CHECK(dynamic.scaling == RotaryScaling::dynamic_ntk);
  BOOST_TEST(dynamic.original_positions == 128);
  const Rotary llama3 = both(5e5, "llama3",
                             {{"factor", 8.0},
                              {"low_freq_factor", 1.5},
                              {"high_freq_factor", 3.0},
                              {"original_max_position_embeddings", 64}});
  BOOST_CHECK(llama3.scaling == RotaryScaling::llama3);
  BOOST_TEST(llama3.factor == 8);
  BOOST_TEST(llama3.low_frequency_factor == 1.5);
  BOOST_TEST(llama3.high_frequency_factor == 3);
  BOOST_TEST(llama3.original_positions == 64);
  const Rotary yarn =
      both(5e5, "yarn", {{"factor", 4.0}, {"original_max_position_embeddings", 32}});
  BOOST_CHECK(yarn.scaling == RotaryScaling::yarn);
  BOOST_TEST(yarn.original_positions == 32);
  BOOST_TEST(yarn.beta_fast == 32);
  BOOST_TEST(yarn.beta_slow == 1);
  BOOST_TEST(std::abs(yarn.attention_factor - (1 + 0.1 * std::log(4.0))) < 1e-15);
  const Rotary given = both(1e4, "yarn",
                            {{"factor", 4.0},
                             {"original_max_position_embeddings", 32},
                             {"attention_factor", 0.7},
                             {"beta_fast", 16},
                             {"beta_slow", 2},
                             {"truncate", false}});
  BOOST_TEST(given.attention_factor == 0.7);
  BOOST_TEST(given.beta_fast == 16);
  BOOST_TEST(given.beta_slow == 2);
  BOOST_TEST(!given.truncate);
  const Rotary scaled = both(1e4, "yarn",
                             {{"factor", 4.0},
                              {"original_max_position_embeddings", 32},
                              {"mscale", 0.707},
                              {"mscale_all_dim", 1.0}});
  BOOST_TEST(std::abs(scaled.attention_factor -
                      (1 + 0.0707 * std::log(4.0)) / (1 + 0.1 * std::log(4.0))) < 1e-15);

  // Only windows that are stretched as they grow may be longer than the positions.
  BOOST_TEST(!plain.extrapolates());
  BOOST_TEST(parse(with(llama, {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}))
                 .extrapolates());
}

BOOST_AUTO_TEST_CASE(rotary_settings_of_gemma3) {
  const json stretched = {{"rope_type", "linear"}, {"factor", 8.0}};
  const Architecture a = parse(
      with(gemma3,
           {{"rope_theta", 2e6}, {"rope_local_base_freq", 2e4}, {"rope_scaling", stretched}}));
  const json full = with(stretched, {{"rope_theta", 2e6}});
  const json local = {{"rope_type", "default"}, {"rope_theta", 2e4}};
  const json newer =
      with(gemma3, {{"rope_parameters", {{"full_attention", full}, {"sliding_attention", local}}}});
  BOOST_CHECK(a == parse(newer));
  BOOST_REQUIRE(a.rotaries.size() == 2u);
  BOOST_TEST(a.rotaries[0].theta == 2e6);
  BOOST_CHECK(a.rotaries[0].scaling == RotaryScaling::linear);
  BOOST_TEST(a.rotaries[1].theta == 2e4);
  BOOST_CHECK(a.rotaries[1].scaling == RotaryScaling::none);
  BOOST_TEST(a.attention_scale == 1.0 / 8);
  BOOST_TEST(a.embedding_scale == 8);
  BOOST_TEST(a.norm_offset == 1);
  BOOST_TEST(a.begins_with_bos);
  BOOST_TEST(a.every_window_has_bos);

  // The text's part of a model that sees, too.
  const Architecture nested = parse({{"model_type", "gemma3"},
                                     {"architectures", {"Gemma3ForConditionalGeneration"}},
                                     {"vision_config", {{"hidden_size", 1152}}},
                                     {"hidden_size", 7},
                                     {"text_config", newer}});
  BOOST_CHECK(a == nested);

  // Published ones leave out what is usual: every sixth layer is a full one.
  const Architecture usual = parse(with(gemma3, {{"num_hidden_layers", 7},
                                                 {"num_attention_heads", nullptr},
                                                 {"num_key_value_heads", nullptr},
                                                 {"head_dim", nullptr},
                                                 {"vocab_size", nullptr},
                                                 {"max_position_embeddings", nullptr}}));
  BOOST_TEST(usual.num_attention_heads == 8);
  BOOST_TEST(usual.num_key_value_heads == 4);
  BOOST_TEST(usual.head_dim == 256);
  BOOST_TEST(usual.vocab_size == 262208);
  BOOST_TEST(usual.max_position_embeddings == 131072);
  for (std::size_t i = 0; i < 7; ++i) {
    BOOST_TEST(usual.layers[i].window == (i == 5 ? 0 : 24));
    BOOST_TEST(usual.layers[i].rotary == (i == 5 ? 0 : 1));
  }
  const auto kinds = [](const json& types) { return with(gemma3, {{"layer_types", types}}); };
  const Architecture mixed =
      parse(kinds({"full_attention", "sliding_attention", "full_attention"}));
  for (std::size_t i = 0; i < 3; ++i) BOOST_TEST(mixed.layers[i].window == (i == 1 ? 24 : 0));
}

BOOST_AUTO_TEST_CASE(rotary_settings_of_phi3) {
  json shorts = json::array(), longs = json::array();
  for (int i = 0; i < 8; ++i) {
    shorts.push_back(1 + 0.05 * i);
    longs.push_back(2 + 0.3 * i);
  }
  const auto older = [&](const char* type) {
    return with(phi3, {{"rope_theta", 2e4},
                       {"rope_scaling",
                        {{"type", type}, {"short_factor", shorts}, {"long_factor", longs}}}});
  };
  const Architecture a = parse(older("su"));
  BOOST_CHECK(a == parse(older("longrope")));
  BOOST_CHECK(a == parse(with(phi3, {{"rope_parameters",
                                      {{"rope_type", "longrope"},
                                       {"rope_theta", 2e4},
                                       {"original_max_position_embeddings", 64},
                                       {"short_factor", shorts},
                                       {"long_factor", longs}}}})));
  const Rotary& rotary = a.rotaries.at(0);
  BOOST_CHECK(rotary.scaling == RotaryScaling::longrope);
  BOOST_TEST(rotary.short_factor == shorts.get<std::vector<double>>());
  BOOST_TEST(rotary.long_factor == longs.get<std::vector<double>>());
  BOOST_TEST(rotary.original_positions == 64);
  // sqrt(1 + log 2 / log 64)
  BOOST_TEST(std::abs(rotary.attention_factor - std::sqrt(1 + 1.0 / 6)) < 1e-15);
  BOOST_TEST(a.layers.at(2).window == 100);
  BOOST_TEST(parse(with(phi3, {{"sliding_window", nullptr}})).layers.at(2).window == 0);
  const Architecture part = parse(with(phi3, {{"partial_rotary_factor", 0.75}}));
  BOOST_TEST(part.rotaries.at(0).width == 12);
  BOOST_TEST(part.head_dim == 16);
}

BOOST_AUTO_TEST_CASE(rotary_settings_of_gpt_neox) {
  const Architecture a = parse(with(neox, {{"rotary_pct", 0.5}, {"rotary_emb_base", 25000}}));
  BOOST_CHECK(a == parse(with(neox, {{"rope_parameters",
                                      {{"rope_type", "default"},
                                       {"partial_rotary_factor", 0.5},
                                       {"rope_theta", 25000}}}})));
  BOOST_TEST(a.rotaries.at(0).width == 8);
  BOOST_TEST(a.rotaries.at(0).theta == 25000);
  const Architecture usual = parse(neox);
  BOOST_TEST(usual.rotaries.at(0).width == 4);
  BOOST_TEST(usual.rotaries.at(0).theta == 1e4);
  BOOST_TEST(usual.parallel_residual);
  BOOST_TEST(!parse(with(neox, {{"use_parallel_residual", false}})).parallel_residual);
  for (const LinearSpec& linear : usual.linears) BOOST_TEST(linear.bias);
  // A share of 3 of 16 columns: two pairs turn, by 1 and by theta^(-2/3).
  const Rotary odd =
      parse(with(neox, {{"rotary_pct", 0.2}, {"rotary_emb_base", 1000}})).rotaries[0];
  check_close(rotary_frequencies(odd, 5), {1, 0.01});
}

BOOST_AUTO_TEST_CASE(positions_trained_on_beside_the_scaling_go_first) {
  const auto scaled = [](const char* type) {
    return with(llama,
                {{"rope_scaling",
                  {{"type", type}, {"factor", 4.0}, {"original_max_position_embeddings", 32}}}});
  };
  for (const char* type : {"llama3", "yarn"}) {
    BOOST_TEST(parse(scaled(type)).rotaries[0].original_positions == 32);
    const json both = with(scaled(type), {{"original_max_position_embeddings", 16}});
    BOOST_TEST(parse(both).rotaries[0].original_positions == 16);
  }
}

// ---------------------------------------------------------------- names of fields

BOOST_AUTO_TEST_CASE(fields_that_change_nothing_are_not_read) {
  // Values that the families which have these fields refuse.
  const json nonsense = {{"head_dim", -1}, {"num_key_value_heads", "three"}};
  const json opt = {{"model_type", "opt"}, {"hidden_size", 64},           {"ffn_dim", 100},
                    {"vocab_size", 384},   {"num_attention_heads", 4},    {"num_hidden_layers", 2},
                    {"bos_token_id", 2},   {"max_position_embeddings", 8}};
  const json gpt2 = {{"model_type", "gpt2"}, {"n_embd", 64},       {"n_head", 4},
                     {"n_layer", 2},         {"n_positions", 128}, {"vocab_size", 384}};
  const json bloom = {{"model_type", "bloom"},
                      {"hidden_size", 64},
                      {"n_head", 4},
                      {"n_layer", 2},
                      {"vocab_size", 384}};
  for (const json& config : {opt, gpt2, bloom, neox})
    BOOST_CHECK(parse(config) == parse(with(config, nonsense)));
  // transformers turns whole heads in these families, and caps no scores of Gemma 3.
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) {
    const json config = with(llama, {{"model_type", type}});
    BOOST_CHECK(parse(config) == parse(with(config, {{"partial_rotary_factor", 0.5}})));
  }
  BOOST_CHECK(parse(gemma3) == parse(with(gemma3, {{"attn_logit_softcapping", 50.0}})));
  BOOST_TEST(parse(with(gemma3, {{"final_logit_softcapping", 3.0}})).logit_soft_cap == 3);
}

BOOST_AUTO_TEST_CASE(fields_of_gpt2) {
  const Architecture a = parse({{"model_type", "gpt2"},
                                {"activation_function", "gelu_new"},
                                {"attn_pdrop", 0.1},
                                {"bos_token_id", 50256},
                                {"layer_norm_epsilon", 1e-5},
                                {"n_ctx", 1024},
                                {"n_embd", 768},
                                {"n_head", 12},
                                {"n_layer", 12},
                                {"n_positions", 1024},
                                {"task_specific_params", {{"text-generation", {{"x", 1}}}}},
                                {"vocab_size", 50257}});
  BOOST_TEST(a.hidden_size == 768);
  BOOST_TEST(a.intermediate_size == 3072);
  BOOST_TEST(a.num_hidden_layers == 12);
  BOOST_TEST(a.num_attention_heads == 12);
  BOOST_TEST(a.num_key_value_heads == 12);
  BOOST_TEST(a.head_dim == 64);
  BOOST_TEST(a.max_position_embeddings == 1024);
  BOOST_TEST(a.tie_word_embeddings);
  BOOST_CHECK(a.activation == kernels::Activation::gelu_tanh);
  for (const LinearSpec& linear : a.linears) BOOST_TEST((linear.bias && linear.transposed));
  json config = {{"model_type", "gpt2"}, {"n_embd", 64},       {"n_head", 4},
                 {"n_layer", 2},         {"n_positions", 128}, {"vocab_size", 384}};
  BOOST_TEST(parse(with(config, {{"n_inner", 100}})).intermediate_size == 100);
  config["n_inner"] = nullptr;
  BOOST_TEST(parse(config).intermediate_size == 256);
  BOOST_TEST(parse(with(config, {{"scale_attn_weights", false}})).attention_scale == 1);
  BOOST_TEST(parse(with(config, {{"scale_attn_by_inverse_layer_idx", true}})).scale_by_layer);
}

BOOST_AUTO_TEST_CASE(fields_of_bloom) {
  // As the smaller ones are published; "num_attention_heads" is a name of n_head.
  const json config = {{"model_type", "bloom"}, {"apply_residual_connection_post_layernorm", false},
                       {"bos_token_id", 1},     {"layer_norm_epsilon", 1e-5},
                       {"n_embed", 1024},       {"n_inner", nullptr},
                       {"n_layer", 24},         {"num_attention_heads", 16},
                       {"offset_alibi", 100},   {"seq_length", 2048},
                       {"vocab_size", 250880}};
  const Architecture a = parse(config);
  BOOST_TEST(a.hidden_size == 1024);
  BOOST_TEST(a.intermediate_size == 4096);
  BOOST_TEST(a.num_hidden_layers == 24);
  BOOST_TEST(a.num_attention_heads == 16);
  BOOST_TEST(a.head_dim == 64);
  BOOST_CHECK(a.positions == PositionKind::alibi);
  BOOST_TEST(a.extrapolates());
  BOOST_CHECK(a.activation == kernels::Activation::gelu_tanh);
  // As the largest one is, and as today's transformers writes it.
  BOOST_CHECK(a == parse(with(config, {{"hidden_size", 1024}, {"n_head", 16}})));
  BOOST_CHECK(a == parse(with(config, {{"n_embed", nullptr},
                                       {"hidden_size", 1024},
                                       {"num_attention_heads", nullptr},
                                       {"n_head", 16}})));
  BOOST_TEST(parse(with(config, {{"apply_residual_connection_post_layernorm", true}}))
                 .residual_after_norm);
}

BOOST_AUTO_TEST_CASE(fields_that_decide_on_biases) {
  const auto biases = [](const json& config) {
    std::string names;
    const Architecture architecture = parse(config);
    for (const LinearSpec& linear : architecture.linears)
      if (linear.bias) names += linear.name.substr(linear.name.find('.') + 1) + " ";
    return names;
  };
  BOOST_TEST(biases(llama) == "");
  BOOST_TEST(biases(with(llama, {{"attention_bias", true}})) == "q_proj k_proj v_proj o_proj ");
  BOOST_TEST(biases(with(llama, {{"mlp_bias", true}})) == "gate_proj up_proj down_proj ");
  BOOST_TEST(biases(with(llama, {{"model_type", "qwen2"}})) == "q_proj k_proj v_proj ");
  BOOST_TEST(biases(with(llama, {{"model_type", "mistral"}, {"attention_bias", true}})) == "");
  BOOST_TEST(biases(with(llama, {{"model_type", "qwen3"}, {"attention_bias", true}})) ==
             "q_proj k_proj v_proj o_proj ");
  BOOST_TEST(biases(with(neox, {{"attention_bias", false}})) == "dense_h_to_4h dense_4h_to_h ");
}

BOOST_AUTO_TEST_CASE(windows_of_mistral_and_qwen) {
  json mistral = with(llama, {{"model_type", "mistral"}});
  BOOST_TEST(parse(mistral).layers.at(1).window == 4096);
  mistral["sliding_window"] = nullptr;
  BOOST_TEST(parse(mistral).layers.at(1).window == 0);
  mistral["sliding_window"] = 20;
  BOOST_TEST(parse(mistral).layers.at(1).window == 20);
  for (const char* type : {"qwen2", "qwen3"}) {
    json qwen = with(llama, {{"model_type", type},
                             {"sliding_window", 20},
                             {"max_window_layers", 1},
                             {"use_sliding_window", false}});
    BOOST_TEST(parse(qwen).layers.at(2).window == 0);
    qwen["use_sliding_window"] = true;
    for (std::size_t i = 0; i < 3; ++i)
      BOOST_TEST(parse(qwen).layers[i].window == (i >= 1 ? 20 : 0));
  }
}

BOOST_AUTO_TEST_CASE(heads_may_have_a_width_of_their_own) {
  const Architecture a = parse(with(llama, {{"head_dim", 24}}));
  BOOST_TEST(a.query_size() == 96);
  BOOST_TEST(a.key_value_size() == 48);
  BOOST_TEST(rows_of(a, LinearRole::q) == 96);
  BOOST_TEST(rows_of(a, LinearRole::k) == 48);
  BOOST_TEST(rows_of(a, LinearRole::qkv) == 192);
  BOOST_TEST(columns_of(a, LinearRole::out) == 96);
  BOOST_TEST(rows_of(a, LinearRole::out) == 64);
  json null_head = llama, null_groups = llama;
  null_head["head_dim"] = nullptr;
  BOOST_CHECK(parse(null_head) == parse(llama));
  null_groups["num_key_value_heads"] = nullptr;
  BOOST_TEST(parse(null_groups).num_key_value_heads == 4);
}

// ---------------------------------------------------------------- what is not supported

BOOST_AUTO_TEST_CASE(values_that_are_not_supported_are_named) {
  const auto scaling = [](const json& value) { return with(llama, {{"rope_scaling", value}}); };
  const struct {
    json config;
    const char* message;
  } table[] = {
      {with(llama, {{"hidden_act", "tanh"}}), "hidden_act: expected one of relu, gelu, "},
      {with(gemma3, {{"hidden_activation", "tanh"}}), "hidden_activation: expected one of relu, "},
      {scaling({{"rope_type", "mrope"}, {"factor", 2.0}}),
       "rope_scaling: rope_type: expected one of default, linear, dynamic, llama3, yarn, longrope, "
       "got \"mrope\""},
      {scaling({{"type", "ntk"}, {"factor", 2.0}}),
       "rope_scaling: type: expected one of default, "},
      {with(llama, {{"rope_parameters", {{"rope_type", "mrope"}}}}),
       "rope_parameters: rope_type: expected one of default, "},
      {scaling({{"type", "linear"}}),
       "rope_scaling: factor: expected a positive number, got nothing"},
      {scaling({{"type", "linear"}, {"factor", -2.0}}),
       "rope_scaling: factor: expected a positive number, got -2.0"},
      {scaling({{"rope_type", "llama3"},
                {"factor", 8.0},
                {"low_freq_factor", 4.0},
                {"high_freq_factor", 4.0}}),
       "rope_scaling: high_freq_factor: expected a number above low_freq_factor, got 4.0"},
      {with(phi3, {{"rope_scaling",
                    {{"type", "longrope"}, {"short_factor", {1, 2}}, {"long_factor", {1, 2}}}}}),
       "rope_scaling: short_factor: expected an array of 8 positive numbers, got [1,2]"},
      {with(neox, {{"rotary_pct", 0.05}}),
       "rotary_pct: expected a share that makes whole pairs of a head's"},
      {with(gemma3, {{"layer_types", {"chunked_attention", "full_attention", "full_attention"}}}),
       "layer_types: expected \"full_attention\" or \"sliding_attention\" at 0, got "},
      {with(gemma3, {{"layer_types", {"full_attention", "full_attention"}}}),
       "layer_types: expected one for each of 3 layers, got "},
      {with(gemma3, {{"use_bidirectional_attention", true}}),
       "use_bidirectional_attention: expected false, the only value that is supported, got true"},
      {with(llama, {{"num_key_value_heads", 3}}),
       "num_key_value_heads: expected a divisor of the 4 attention heads, got 3"},
      {with(llama, {{"model_type", "mixtral"}}),
       "model_type: expected one of bloom, gemma2, gemma3_text, gpt2, gpt_neox, llama, mistral, "
       "opt, phi3, qwen2, qwen3, got \"mixtral\""},
      {{{"model_type", "gemma3"}, {"text_config", with(gemma3, {{"hidden_size", "x"}})}},
       "text_config: hidden_size: expected a positive integer, got \"x\""},
      {{{"model_type", "gpt2"},
        {"n_embd", 64},
        {"n_head", 4},
        {"n_layer", 2},
        {"n_positions", 128},
        {"vocab_size", 384},
        {"add_cross_attention", true}},
       "add_cross_attention: expected false, the only value that is supported, got true"},
  };
  for (const auto& row : table) {
    const std::string fault = fault_of(row.config);
    BOOST_TEST(test::contains(fault, row.message), fault << " for " << row.config.dump());
  }
}

BOOST_AUTO_TEST_CASE(linears_of_a_layer_follow_from_the_family) {
  for (const Family& family : known_families()) BOOST_TEST_CONTEXT(family.model_type) {
      const Architecture& a = family.base;
      index_t last = 0;
      for (const LinearSpec& linear : a.linears) {
        BOOST_TEST(input_of(linear.role) >= last);  // in the order in which inputs are made
        last = input_of(linear.role);
      }
      BOOST_TEST(last == down_input);
      const std::vector<std::string> names = linear_names(a, 7);
      BOOST_REQUIRE(names.size() == a.linears.size());
      BOOST_TEST(names.front() == a.names.layers + "7." + a.linears.front().name);
      BOOST_TEST((family_of(family.model_type).base == a));
    }
  BOOST_TEST(message_of<argument_error>([] { family_of("mixtral"); }) ==
             "model_type: expected a known family, got mixtral");
}
