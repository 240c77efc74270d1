// How the tensors of an OPT checkpoint are called.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/storage/checkpoint.hpp"

namespace pare {

/// Names of the six linears of a layer, in the same order.
inline std::array<std::string, 6> opt_linear_names(index_t layer) {
  const std::string name = "layers." + std::to_string(layer) + ".";
  return {name + "self_attn.k_proj",   name + "self_attn.v_proj", name + "self_attn.q_proj",
          name + "self_attn.out_proj", name + "fc1",              name + "fc2"};
}

/// What stands in front of every tensor's name but the head's: "model.decoder." in language models,
/// "decoder." in base models, nothing in bare decoders. Throws format_error if the checkpoint holds
/// the token embeddings under none of these or under two.
inline std::string opt_tensor_prefix(const Checkpoint& checkpoint) {
  std::optional<std::string> prefix;
  const auto embedding = [](const std::string& p) {
    return detail::quoted_name(p + "embed_tokens.weight");
  };
  for (const char* candidate : {"model.decoder.", "decoder.", ""}) {
    if (!checkpoint.find(std::string(candidate) + "embed_tokens.weight")) continue;
    if (prefix)
      throw format_error(checkpoint.folder().string() + ": holds both tensor " +
                         embedding(*prefix) + " and tensor " + embedding(candidate) +
                         ", expected one of them");
    prefix = candidate;
  }
  if (!prefix)
    throw format_error(checkpoint.folder().string() + ": there is no tensor " +
                       embedding("model.decoder.") + ", " + embedding("decoder.") + " or " +
                       embedding(""));
  return *prefix;
}

}  // namespace pare
