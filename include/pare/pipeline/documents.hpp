// Text files and JSON lines as documents, and as the tokens of a model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/model/text.hpp"
#include "pare/pipeline/text_windows.hpp"
#include "pare/report/json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

inline bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

/// Whether a line is an object with a text.
inline bool is_document(std::string_view line) {
  const std::size_t first = line.find_first_not_of(" \t\r");
  if (first == line.npos || line[first] != '{') return false;
  const Json json = Json::parse(line, nullptr, false);
  return json.is_object() && json.contains("text") && json["text"].is_string();
}

/// The text of one line; `where` begins messages.
inline std::string document_of(std::string_view line, const std::string& where) {
  const Json json = Json::parse(line, nullptr, false);
  if (json.is_discarded()) throw format_error(where + ": not JSON; expected an object with a text");
  if (!json.is_object() || !json.contains("text"))
    throw format_error(where + ": expected an object with a field text");
  if (!json["text"].is_string())
    throw format_error(where + ": text: expected a string, got " + json["text"].type_name());
  return json["text"].get<std::string>();
}

}  // namespace detail

/// The documents of a text file: one, all of it; or of JSON lines the field `text` of each line,
/// other fields and empty lines ignored. JSON lines are files named .jsonl, .ndjson or .json, and
/// others whose first line is an object with a text.
/// @throws io_error when it cannot be read; format_error naming the file, and of JSON lines the
///         line, that is not what it should be
inline std::vector<std::string> read_documents(const std::filesystem::path& file) {
  std::string content = read_text_file(file);
  const std::string extension = file.extension().string();
  const bool named = extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
  const std::string_view all = content;
  if (!named && !detail::is_document(all.substr(0, all.find('\n')))) return {std::move(content)};
  std::vector<std::string> documents;
  std::size_t number = 0;
  for (std::size_t at = 0; at < all.size(); ++number) {
    const std::size_t end = std::min(all.find('\n', at), all.size());
    const std::string_view line = all.substr(at, end - at);
    if (!detail::is_blank(line))
      documents.push_back(
          detail::document_of(line, file.string() + ": line " + std::to_string(number + 1)));
    at = end + 1;
  }
  return documents;
}

/// The ids of a text file as a model reads it: each document by itself as token_ids gives it, the
/// ids that stand in front of a text in front of each, one after the other.
/// @param tokenizer  the model's
/// @param config     the model's
/// @param file       a text, or JSON lines
/// @param left_out   where given, becomes the number of characters that Tokenizer::encode leaves out
/// @throws as read_documents; format_error naming the file as token_ids
inline std::vector<std::int32_t> file_ids(const Tokenizer& tokenizer, const Architecture& config,
                                          const std::filesystem::path& file,
                                          std::size_t* left_out = nullptr) {
  const std::vector<std::string> documents = read_documents(file);
  std::size_t missing = 0;
  std::vector<std::int32_t> all;
  try {
    for (const std::string& document : documents) {
      std::size_t here = 0;
      std::vector<std::int32_t> ids = token_ids(tokenizer, config, document, &here);
      missing += here;
      if (all.empty())
        all = std::move(ids);
      else
        all.insert(all.end(), ids.begin(), ids.end());
    }
  } catch (const format_error& e) {
    throw format_error(file.string() + ": " + e.what());
  }
  if (left_out != nullptr) *left_out = missing;
  return all;
}

}  // namespace pare
