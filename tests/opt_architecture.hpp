// The architecture of a small OPT model, made by hand.
#pragma once

#include <cstddef>

#include "pare/model/families.hpp"

namespace test {

/// OPT of the given sizes, in everything else as published.
inline pare::Architecture opt_architecture(pare::index_t hidden, pare::index_t intermediate,
                                           pare::index_t layers, pare::index_t heads,
                                           pare::index_t vocab, pare::index_t positions) {
  pare::Architecture a = pare::family_of("opt").base;
  a.family = "opt";
  a.hidden_size = a.embedding_size = hidden;
  a.intermediate_size = intermediate;
  a.num_hidden_layers = layers;
  a.num_attention_heads = a.num_key_value_heads = heads;
  a.head_dim = hidden / heads;
  a.vocab_size = vocab;
  a.max_position_embeddings = positions;
  a.layers.assign(std::size_t(layers), pare::LayerSpec{});
  return a;
}

}  // namespace test
