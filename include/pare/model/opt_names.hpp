// How the linears of an OPT model are called.
#pragma once

#include <array>
#include <string>

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET {

/// The tensor that turns hidden states into logits; no prefix stands in front of it.
inline constexpr const char* opt_head_name = "lm_head.weight";

/// Names of the six linears of a layer, in the same order.
inline std::array<std::string, 6> opt_linear_names(index_t layer) {
  const std::string name = "layers." + std::to_string(layer) + ".";
  return {name + "self_attn.k_proj",
          name + "self_attn.v_proj",
          name + "self_attn.q_proj",
          name + "self_attn.out_proj",
          name + "fc1",
          name + "fc2"};
}

}  // namespace pare
