// A family of models that pare does not know: a row of data, made from the row of one that it knows.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <vector>

#include "pare/backend/eigen.hpp"
#include "pare/model/load.hpp"

namespace {

// [family]
/// StableLM 2: LLaMA's tensors, with layer norms, a quarter of every head turning, and biases on
/// q, k and v where config.json says so.
pare::Family stablelm() {
  pare::Family family = pare::family_of("llama");
  family.model_type = "stablelm";
  family.base.norm = pare::NormKind::layer;
  family.base.norm_epsilon = 1e-5;
  family.fields.epsilon = "layer_norm_eps";
  family.fields.rotary_share = "partial_rotary_factor";
  family.rotary_share = 0.25;
  using enum pare::LinearRole;
  family.biases = {{"use_qkv_bias", {q, k, v}}};
  return family;
}
// [family]

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s MODEL\n", argv[0]);
    return 2;
  }
  try {
    // [load]
    std::vector<pare::Family> families = pare::known_families();
    families.push_back(stablelm());
    const auto model = pare::load_model<pare::backend::Eigen, float>(argv[1], families);
    // [load]
    const pare::Architecture& config = model.config;
    std::printf("%s: %td layers of %zu linears, the first is %s\n", config.family.c_str(),
                config.num_hidden_layers, config.linears.size(),
                model.layers.front().linears().front()->name.c_str());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
