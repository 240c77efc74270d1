// The architecture of a model from any configuration.
#include "fuzz.hpp"
#include "pare/model/config_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view text) {
    const pare::Architecture a = pare::parse_architecture("fuzz", text);
    if (a.head_dim < 1 || a.hidden_size < 1 || a.intermediate_size < 1 || a.vocab_size < 1 ||
        a.num_key_value_heads < 1 || a.num_attention_heads % a.num_key_value_heads != 0 ||
        pare::index_t(a.layers.size()) != a.num_hidden_layers)
      std::abort();
    for (const pare::LayerSpec& layer : a.layers)
      if (layer.window < 0 || layer.rotary > pare::index_t(a.rotaries.size())) std::abort();
    for (const pare::Rotary& rotary : a.rotaries)
      if (rotary.width > a.head_dim || rotary.width % 2 != 0 || !(rotary.theta > 0)) std::abort();
  });
}
