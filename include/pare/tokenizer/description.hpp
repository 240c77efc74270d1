// A tokenizer as plain data.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "pare/tokenizer/added_tokens.hpp"
#include "pare/tokenizer/bpe.hpp"
#include "pare/tokenizer/decoder.hpp"
#include "pare/tokenizer/normalizer.hpp"
#include "pare/tokenizer/post_processor.hpp"
#include "pare/tokenizer/pre_tokenizer.hpp"

namespace pare::inline PARE_TARGET {

/// A tokenizer as files describe it, in the order in which a text goes through its parts.
struct TokenizerDescription {
  /// Found in the text before anything else; those that are normalized after the normalizer.
  std::vector<AddedToken> added;
  /// What is done to every part between added tokens.
  std::vector<NormalizerStep> normalizer;
  /// Where given, appends the ids of a part between added tokens, and whether the text begins with
  /// it decides on a space in front; the steps and merges that follow are not used.
  std::function<void(std::string_view part, bool first, std::vector<std::int32_t>& ids)>
      encode_part;
  /// How parts are cut into pieces.
  std::vector<PreTokenizerStep> pre_tokenizer;
  /// Makes tokens of a piece.
  BpeDescription bpe;
  /// What stands around every text.
  TextFrame frame;
  /// How tokens become a text again.
  std::vector<DecoderStep> decoder;
  /// What `tokenizer_config.json` says of an id in front of a text.
  std::optional<bool> add_bos_token;
  /// That id, where `tokenizer_config.json` names its token.
  std::optional<std::int32_t> bos;
};

/// The pre-tokenizer of GPT-2.
/// @param prefix_space  parts begin with a space, if need be with one more
/// @param splits        parts are cut by the pattern of GPT-2
inline std::vector<PreTokenizerStep> byte_level_steps(bool prefix_space, bool splits) {
  std::vector<PreTokenizerStep> steps;
  if (prefix_space) steps.push_back(PrefixStep{" "});
  if (splits) steps.push_back(SplitStep{detail::byte_level_pattern()});
  steps.push_back(SpellBytesStep{});
  return steps;
}

}  // namespace pare
