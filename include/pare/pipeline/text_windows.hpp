// From a text to the tokens that a model is calibrated and measured on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/model/architecture.hpp"
#include "pare/model/text.hpp"
#include "pare/pipeline/windows.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/tokenizer/tokenizer.hpp"

namespace pare::inline PARE_TARGET {

/// The content of a text file.
/// @throws io_error when it cannot be read, format_error for a Git LFS pointer; both name it
inline std::string read_text_file(const std::filesystem::path& file) {
  return detail::read_text_file(file);
}

/// The first windows of a text's ids.
/// @param ids     what token_ids gave
/// @param count   windows asked for, 1 or more; fewer are returned where the text holds no more
/// @param seqlen  tokens of a window, 2 or more
/// @throws argument_error when the ids do not fill one window
inline CalibrationWindows first_windows(std::vector<std::int32_t> ids, index_t count,
                                        index_t seqlen) {
  if (count < 1)
    throw argument_error("count: expected at least 1 window, got " + std::to_string(count));
  if (seqlen < 2)
    throw argument_error("seqlen: expected at least 2 tokens, got " + std::to_string(seqlen));
  const index_t there = index_t(ids.size()) / seqlen;
  if (there < 1)
    throw argument_error("ids: expected at least one window of " + std::to_string(seqlen) +
                         " tokens, got " + std::to_string(ids.size()) +
                         "; use a longer text or a smaller seqlen");
  ids.resize(std::size_t(std::min(count, there) * seqlen));
  return {std::move(ids), seqlen};
}

/// A text as calibration windows: its tokens, cut into windows of default_seqlen tokens.
/// @param tokenizer  the model's
/// @param config     the model's
/// @param text       UTF-8
/// @param count      windows asked for; fewer are returned where the text holds no more
/// @throws format_error as token_ids, argument_error as first_windows
inline CalibrationWindows text_windows(const Tokenizer& tokenizer, const Architecture& config,
                                       std::string_view text, index_t count = 128) {
  const index_t seqlen = default_seqlen(config);
  return first_windows(window_ids(token_ids(tokenizer, config, text),
                                  leading_ids(tokenizer, config), config, seqlen),
                       count, seqlen);
}

}  // namespace pare
