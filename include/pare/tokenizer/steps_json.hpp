// The steps of a tokenizer in a tokenizer.json: normalizer, pre-tokenizer, post-processor, decoder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/tokenizer/description.hpp"
#include "pare/tokenizer/json_fields.hpp"
#include "pare/tokenizer/utf8.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// "FILE: normalizer: BertNormalizer is not supported; supported: ...".
inline format_error not_supported(const std::string& who, const nlohmann::json& json,
                                  const std::string& supported) {
  const std::string type = type_of(json);
  if (type.empty())
    return format_error(who + ": expected an object with a type, got " + FieldReader::given(json));
  return format_error(who + ": " + type + " is not supported; supported: " + supported);
}

/// The fields of one component, whose messages begin with "FILE: normalizer: Replace".
inline FieldReader component(const nlohmann::json& json, const std::string& who,
                             const std::string& type) {
  return {type.empty() ? who : who + ": " + type, json};
}

/// Calls read(step, who) for each step of a Sequence.
template <class Read>
void read_sequence(const nlohmann::json& json, const std::string& who, const char* field,
                   const Read& read) {
  const std::string within = who + ": Sequence";
  for (const nlohmann::json& step : FieldReader(within, json).array(field)) read(step, who);
}

/// {"String": " "} or {"Regex": "..."}.
inline TextPattern read_pattern(const FieldReader& fields) {
  const FieldReader pattern = fields.object("pattern");
  const bool regex = !pattern.at("Regex").is_null();
  TextPattern read{pattern.text(regex ? "Regex" : "String"), regex};
  if (read.text.empty()) throw fields.bad("pattern", "a pattern that is not empty");
  return read;
}

/// The one character in a field.
inline std::string read_character(const FieldReader& fields, const char* field) {
  std::string text = fields.text(field);
  if (utf8_characters(text) != 1) throw fields.bad(field, "one character");
  return text;
}

inline ReplaceStep read_replace(const FieldReader& fields) {
  return {read_pattern(fields), fields.text("content")};
}

/// @param who  "FILE: normalizer"
inline void read_normalizer(const nlohmann::json& json, const std::string& who,
                            std::vector<NormalizerStep>& steps) {
  if (json.is_null()) return;
  const std::string type = type_of(json);
  const FieldReader fields = component(json, who, type);
  if (type == "Sequence")
    read_sequence(json, who, "normalizers", [&](const auto& step, const std::string& name) {
      read_normalizer(step, name, steps);
    });
  else if (type == "Prepend")
    steps.push_back(PrependStep{fields.text("prepend")});
  else if (type == "Replace")
    steps.push_back(read_replace(fields));
  else if (type == "NFC")
    steps.push_back(UnicodeForm::NFC);
  else if (type == "NFD")
    steps.push_back(UnicodeForm::NFD);
  else if (type == "NFKC")
    steps.push_back(UnicodeForm::NFKC);
  else if (type == "NFKD")
    steps.push_back(UnicodeForm::NFKD);
  else if (type == "Lowercase")
    steps.push_back(LowercaseStep{});
  else if (type == "Strip")
    steps.push_back(
        StripStep{fields.boolean("strip_left", true), fields.boolean("strip_right", true)});
  else
    throw not_supported(who, json,
                        "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip");
}

inline SplitBehavior read_behavior(const FieldReader& fields) {
  static constexpr std::array<std::pair<const char*, SplitBehavior>, 5> behaviors{
      {{"Isolated", SplitBehavior::Isolated},
       {"Removed", SplitBehavior::Removed},
       {"MergedWithPrevious", SplitBehavior::MergedWithPrevious},
       {"MergedWithNext", SplitBehavior::MergedWithNext},
       {"Contiguous", SplitBehavior::Contiguous}}};
  const nlohmann::json& value = fields.at("behavior");
  if (value.is_null()) return SplitBehavior::Isolated;
  for (const auto& [name, behavior] : behaviors)
    if (value == name) return behavior;
  throw fields.bad("behavior",
                   "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

/// Where Metaspace puts its character in front.
enum class PrependScheme { Always, First, Never };

/// As older files say it too.
inline PrependScheme read_prepend_scheme(const FieldReader& fields) {
  if (!fields.boolean("add_prefix_space", true)) return PrependScheme::Never;
  const nlohmann::json& value = fields.at("prepend_scheme");
  if (value.is_null() || value == "always") return PrependScheme::Always;
  if (value == "first") return PrependScheme::First;
  if (value == "never") return PrependScheme::Never;
  throw fields.bad("prepend_scheme", "always, first or never");
}

/// @param who  "FILE: pre_tokenizer"
inline void read_pre_tokenizer(const nlohmann::json& json, const std::string& who,
                               std::vector<PreTokenizerStep>& steps) {
  if (json.is_null()) return;
  const std::string type = type_of(json);
  const FieldReader fields = component(json, who, type);
  const auto split = [&](const char* regex, SplitBehavior behavior, bool invert = false) {
    steps.push_back(SplitStep{{regex, true}, behavior, invert});
  };
  if (type == "Sequence") {
    read_sequence(json, who, "pretokenizers", [&](const auto& step, const std::string& name) {
      read_pre_tokenizer(step, name, steps);
    });
  } else if (type == "Split") {
    steps.push_back(
        SplitStep{read_pattern(fields), read_behavior(fields), fields.boolean("invert", false)});
  } else if (type == "ByteLevel") {
    const auto all = byte_level_steps(fields.boolean("add_prefix_space", true),
                                      fields.boolean("use_regex", true));
    steps.insert(steps.end(), all.begin(), all.end());
  } else if (type == "Metaspace") {
    const std::string space = read_character(fields, "replacement");
    const PrependScheme scheme = read_prepend_scheme(fields);
    steps.push_back(ReplaceStep{{" "}, space});
    if (scheme != PrependScheme::Never)
      steps.push_back(PrefixStep{space, scheme == PrependScheme::First});
    if (fields.boolean("split", true))
      steps.push_back(SplitStep{{space}, SplitBehavior::MergedWithNext});
  } else if (type == "Digits") {
    split(R"(\p{N})", fields.boolean("individual_digits", false) ? SplitBehavior::Isolated
                                                                 : SplitBehavior::Contiguous);
  } else if (type == "Punctuation") {
    split(R"([!-/:-@\[-`{-~\p{P}])", read_behavior(fields));
  } else if (type == "Whitespace") {
    split(R"([\w\x{200C}\x{200D}]+|[^\w\s\x{200C}\x{200D}]+)", SplitBehavior::Removed, true);
  } else if (type == "WhitespaceSplit") {
    split(R"(\s)", SplitBehavior::Removed);
  } else {
    throw not_supported(who, json,
                        "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, "
                        "Whitespace, WhitespaceSplit");
  }
}

/// A token and its id, as in ["<s>", 0].
inline std::int32_t read_token_pair(const FieldReader& fields, const char* field) {
  const nlohmann::json& pair = fields.at(field);
  if (!pair.is_array() || pair.size() != 2) throw fields.bad(field, "a token and its id");
  return token_id(pair[1], fields.who() + ": " + field + ": the id");
}

/// What a template puts around one text.
inline void read_template(const FieldReader& fields, std::vector<std::int32_t>& before,
                          std::vector<std::int32_t>& after) {
  bool seen = false;
  for (const nlohmann::json& piece : fields.array("single")) {
    if (piece.is_object() && piece.contains("Sequence")) {
      if (std::exchange(seen, true)) throw fields.bad("single", "the text once");
      continue;
    }
    const std::string who = fields.who() + ": single";
    const std::string token =
        FieldReader(who, FieldReader(who, piece).at("SpecialToken")).text("id");
    const FieldReader ids(fields.who() + ": special_tokens: " + quoted_name(token),
                          fields.object("special_tokens").at(token.c_str()));
    for (const nlohmann::json& id : ids.array("ids"))
      (seen ? after : before).push_back(token_id(id, ids.who() + ": ids: an id"));
  }
  if (!seen) throw fields.bad("single", "the text once");
}

/// @param who  "FILE: post_processor"
inline void read_post_processor(const nlohmann::json& json, const std::string& who,
                                TextFrame& frame) {
  const std::string type = type_of(json);
  if (json.is_null() || type == "ByteLevel") return;  // ByteLevel trims offsets only
  const FieldReader fields = component(json, who, type);
  if (type == "Sequence")
    return read_sequence(json, who, "processors", [&](const auto& step, const std::string& name) {
      read_post_processor(step, name, frame);
    });
  std::vector<std::int32_t> before, after;
  if (type == "TemplateProcessing") {
    read_template(fields, before, after);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    before = {read_token_pair(fields, "cls")};
    after = {read_token_pair(fields, "sep")};
  } else {
    throw not_supported(
        who, json, "Sequence, TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing");
  }
  frame.given = true;
  frame.before.insert(frame.before.begin(), before.begin(), before.end());
  frame.after.insert(frame.after.end(), after.begin(), after.end());
}

/// @param who  "FILE: decoder"
inline void read_decoder(const nlohmann::json& json, const std::string& who,
                         std::vector<DecoderStep>& steps) {
  if (json.is_null()) return;
  const std::string type = type_of(json);
  const FieldReader fields = component(json, who, type);
  if (type == "Sequence")
    read_sequence(json, who, "decoders", [&](const auto& step, const std::string& name) {
      read_decoder(step, name, steps);
    });
  else if (type == "ByteLevel")
    steps.push_back(ReadBytesStep{});
  else if (type == "ByteFallback")
    steps.push_back(ReadByteTokensStep{});
  else if (type == "Fuse")
    steps.push_back(FuseStep{});
  else if (type == "Replace")
    steps.push_back(read_replace(fields));
  else if (type == "Metaspace")
    steps.push_back(ReadSpacesStep{read_character(fields, "replacement"),
                                   read_prepend_scheme(fields) != PrependScheme::Never});
  else if (type == "Strip")
    steps.push_back(
        TrimStep{read_character(fields, "content"), fields.count("start"), fields.count("stop")});
  else
    throw not_supported(who, json,
                        "Sequence, ByteLevel, ByteFallback, Fuse, Replace, Metaspace, Strip");
}

}  // namespace detail

}  // namespace pare
