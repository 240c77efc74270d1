// The configuration of an OPT model from any text.
#include "fuzz.hpp"
#include "pare/model/opt_config_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view text) {
    const pare::OptConfig config = pare::parse_opt_config("fuzz", text);
    if (config.head_dim() * config.num_attention_heads != config.hidden_size) std::abort();
  });
}
