// The ids that a model has in front of a text.
#pragma once

#include <cstdint>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/tokenizer/tokenizer.hpp"

namespace pare::inline PARE_TARGET {

/// The ids in front of a text: those of the tokenizer's post-processor, where it has one; otherwise
/// a single id or none, as `add_bos_token` of `tokenizer_config.json` says, or else as the family
/// has it.
/// @param tokenizer   the model's
/// @param bos         `bos_token_id` of the model, -1 for none; the `bos_token` of
///                    `tokenizer_config.json` goes first
/// @param by_default  whether the family has an id in front of a text where no file says; OPT has
/// @throws format_error where `add_bos_token` is true and no file says which id
inline std::vector<std::int32_t> leading_ids(const Tokenizer& tokenizer, std::int32_t bos,
                                             bool by_default) {
  if (tokenizer.frame().given) return tokenizer.before();
  if (!tokenizer.add_bos_token().value_or(by_default)) return {};
  const std::int32_t id = tokenizer.bos().value_or(bos);
  if (id >= 0) return {id};
  if (!tokenizer.add_bos_token()) return {};
  throw format_error(
      "tokenizer_config.json: add_bos_token is true, and neither its bos_token nor the "
      "bos_token_id of config.json says which id that is");
}

}  // namespace pare
