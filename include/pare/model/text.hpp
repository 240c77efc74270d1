// Texts as a model reads them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/model/architecture.hpp"
#include "pare/tokenizer/leading_ids.hpp"
#include "pare/tokenizer/tokenizer.hpp"

namespace pare::inline PARE_TARGET {

/// The tokenizer of a model folder, held against the model's vocabulary. Added tokens may lie
/// beyond it: transformers gives every tokenizer of this kind an `<|endoftext|>`.
/// Throws as Tokenizer::load; format_error naming the file and the id when the vocabulary of the
/// tokenizer is not the model's.
inline Tokenizer load_tokenizer(const std::filesystem::path& folder, const Architecture& config) {
  Tokenizer tokenizer = Tokenizer::load(folder);
  if (tokenizer.max_id() < config.vocab_size) return tokenizer;
  throw format_error(tokenizer.file() + ": id " + std::to_string(tokenizer.max_id()) +
                     " is outside the model's vocabulary of " + std::to_string(config.vocab_size));
}

/// The ids in front of a text of a model. Throws as the function of a tokenizer and an id.
inline std::vector<std::int32_t> leading_ids(const Tokenizer& tokenizer,
                                             const Architecture& config) {
  return leading_ids(tokenizer, config.bos_token_id, config.begins_with_bos);
}

/// The ids of a text as the model reads it: leading_ids, the text, and what the tokenizer puts after
/// it.
/// @param tokenizer  the model's
/// @param config     the model's
/// @param text       UTF-8
/// @param left_out   where given, becomes the number of characters that Tokenizer::encode leaves out
/// @throws as Tokenizer::encode; format_error when the text holds an added token that the model's
///         vocabulary lacks
inline std::vector<std::int32_t> token_ids(const Tokenizer& tokenizer, const Architecture& config,
                                           std::string_view text, std::size_t* left_out = nullptr) {
  std::vector<std::int32_t> ids = leading_ids(tokenizer, config);
  const std::vector<std::int32_t> encoded = tokenizer.encode(text, left_out);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  ids.insert(ids.end(), tokenizer.after().begin(), tokenizer.after().end());
  for (const std::int32_t id : ids)
    if (id >= config.vocab_size)
      throw format_error(
          "token " + detail::quoted_name(tokenizer.decode(std::vector<std::int32_t>{id})) +
          " has id " + std::to_string(id) + ", which is outside the model's vocabulary of " +
          std::to_string(config.vocab_size));
  return ids;
}

/// The ids of a text arranged for windows of `seqlen` tokens that are cut one after the other: where
/// every window of the model begins with the leading ids (Gemma), they stand in front of each.
/// @param ids      what token_ids gave
/// @param leading  what leading_ids gave; shorter than a window
/// @param config   the model's
/// @param seqlen   tokens of a window
inline std::vector<std::int32_t> window_ids(std::vector<std::int32_t> ids,
                                            const std::vector<std::int32_t>& leading,
                                            const Architecture& config, index_t seqlen) {
  if (!config.every_window_has_bos || leading.empty() || index_t(leading.size()) >= seqlen)
    return ids;
  std::vector<std::int32_t> arranged;
  const std::size_t step = std::size_t(seqlen) - leading.size();
  for (std::size_t at = leading.size(); at < ids.size(); at += step) {
    arranged.insert(arranged.end(), leading.begin(), leading.end());
    const std::size_t end = std::min(ids.size(), at + step);
    arranged.insert(arranged.end(), ids.begin() + std::ptrdiff_t(at),
                    ids.begin() + std::ptrdiff_t(end));
  }
  return arranged;
}

/// The ids that every window of a model begins with, as PerplexityOptions has them: leading_ids where
/// each window has them (Gemma), otherwise none. Throws as leading_ids.
inline std::vector<std::int32_t> window_leading_ids(const Tokenizer& tokenizer,
                                                    const Architecture& config) {
  return config.every_window_has_bos ? leading_ids(tokenizer, config) : std::vector<std::int32_t>();
}

/// What of the tokenizer's rules the model's configuration contradicts, and which goes first: one
/// sentence each.
inline std::vector<std::string> tokenizer_notes(const Tokenizer& tokenizer,
                                                const Architecture& config) {
  const std::vector<std::int32_t>& before = tokenizer.before();
  if (before.empty() || config.bos_token_id < 0 ||
      before == std::vector<std::int32_t>{config.bos_token_id})
    return {};
  std::string ids;
  for (const std::int32_t id : before) ids += (ids.empty() ? "" : ", ") + std::to_string(id);
  return {"tokenizer.json puts id " + ids +
          " in front of a text, the bos_token_id of config.json is " +
          std::to_string(config.bos_token_id) + "; the former is used"};
}

}  // namespace pare
