// Every component of a tokenizer.json by hand: what it makes of a text, and what is refused.
#define BOOST_TEST_MODULE pare_tokenizer_steps
#include <boost/test/unit_test.hpp>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "files.hpp"
#include "pare/tokenizer/leading_ids.hpp"
#include "pare/tokenizer/tokenizer.hpp"

using nlohmann::json;
using ids_t = std::vector<std::int32_t>;
using texts_t = std::vector<std::string>;

namespace {

/// A tokenizer.json whose tokens are characters, so that the ids show what the steps have done: the
/// id of a character is its number, where pieces end stands none.
json characters_json() {
  json j = json::parse(R"({"added_tokens":[],"normalizer":null,"pre_tokenizer":null,
    "post_processor":null,"decoder":null,
    "model":{"type":"BPE","vocab":{"<unk>":0},"merges":[],"unk_token":"<unk>"}})");
  for (char c = ' '; c < 0x7f; ++c) j["model"]["vocab"][std::string(1, c)] = int(c);
  return j;
}

pare::Tokenizer tokenizer_of(const json& j) {
  const test::Folder folder;
  test::write_text(folder / "tokenizer.json", j.dump());
  return pare::Tokenizer::load(folder.path);
}

/// A text after a normalizer.
std::string normalized(const json& normalizer, const std::string& text) {
  std::vector<pare::NormalizerStep> steps;
  pare::detail::read_normalizer(normalizer, "F: normalizer", steps);
  pare::detail::Regex::Match match;
  return pare::detail::Normalizer(steps, "F: normalizer").apply(text, match);
}

/// The pieces that a pre-tokenizer cuts a text into.
texts_t cut(const json& pre_tokenizer, const std::string& text, bool first = true) {
  std::vector<pare::PreTokenizerStep> steps;
  pare::detail::read_pre_tokenizer(pre_tokenizer, "F: pre_tokenizer", steps);
  pare::detail::PreTokenizer::Work work;
  pare::detail::PreTokenizer(steps, "F: pre_tokenizer").cut({text, first}, work);
  texts_t pieces;
  for (const pare::detail::Piece& piece : work.pieces) pieces.emplace_back(piece.text);
  return pieces;
}

json split(const json& pattern, const char* behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
}
json regex(const char* pattern) { return {{"Regex", pattern}}; }

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const pare::format_error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

void check(const texts_t& given, const texts_t& expected) {
  BOOST_TEST(given == expected, boost::test_tools::per_element());
}
void check_ids(const ids_t& given, const ids_t& expected) {
  BOOST_TEST(given == expected, boost::test_tools::per_element());
}

}  // namespace

BOOST_AUTO_TEST_CASE(normalizers) {
  BOOST_TEST(normalized(nullptr, "a b") == "a b");
  BOOST_TEST(normalized({{"type", "Prepend"}, {"prepend", "_"}}, "a") == "_a");
  BOOST_TEST(normalized({{"type", "Prepend"}, {"prepend", "_"}}, "") == "");
  const auto replace = [](const json& pattern, const char* content) {
    return json{{"type", "Replace"}, {"pattern", pattern}, {"content", content}};
  };
  BOOST_TEST(normalized(replace({{"String", "."}}, "$1"), "a.b.") == "a$1b$1");
  BOOST_TEST(normalized(replace(regex("\\s+|b"), ""), "a  b\tc") == "ac");
  const std::string decomposed = "e\xcc\x81 \xef\xac\x81", composed = "\xc3\xa9 \xef\xac\x81";
  BOOST_TEST(normalized({{"type", "NFC"}}, decomposed) == composed);
  BOOST_TEST(normalized({{"type", "NFD"}}, composed) == decomposed);
  BOOST_TEST(normalized({{"type", "NFKC"}}, decomposed) == "\xc3\xa9 fi");
  BOOST_TEST(normalized({{"type", "NFKD"}}, composed) == "e\xcc\x81 fi");
  const std::string zero("\0\xc3\xa9", 3);  // a zero byte ends nothing
  BOOST_TEST(normalized({{"type", "NFC"}}, zero) == zero);
  BOOST_TEST(normalized({{"type", "Lowercase"}}, "A\xc3\x89\xc4\xb0") == "a\xc3\xa9i\xcc\x87");
  BOOST_TEST(normalized({{"type", "Strip"}}, " \xe3\x80\x80 a b\n") == "a b");
  BOOST_TEST(normalized({{"type", "Strip"}, {"strip_left", false}}, " a ") == " a");
  BOOST_TEST(
      normalized({{"type", "Sequence"},
                  {"normalizers",
                   {{{"type", "Prepend"}, {"prepend", "_"}}, replace({{"String", "_"}}, "x y")}}},
                 "a") == "x ya");
}

BOOST_AUTO_TEST_CASE(splits) {
  const json dash{{"String", "-"}};
  const std::string text = "the-final--countdown";
  check(cut(split(dash, "Removed"), text), {"the", "final", "countdown"});
  check(cut(split(dash, "Isolated"), text), {"the", "-", "final", "-", "-", "countdown"});
  check(cut(split(dash, "MergedWithPrevious"), text), {"the-", "final-", "-", "countdown"});
  check(cut(split(dash, "MergedWithNext"), text), {"the", "-final", "-", "-countdown"});
  check(cut(split(dash, "Contiguous"), text), {"the", "-", "final", "--", "countdown"});
  check(cut(split(regex("[a-z]+"), "Removed", true), text), {"the", "final", "countdown"});
  check(cut(split(regex("(?=f)|-"), "Removed"), "a-fbf"),
        {"a", "fb", "f"});  // matches may be empty
  check(cut(split(dash, "Removed"), "--"), {});
  const json digits{{"type", "Digits"}, {"individual_digits", true}};
  check(cut(digits, "a12\xc2\xbd"), {"a", "1", "2", "\xc2\xbd"});
  check(cut({{"type", "Digits"}}, "a12b"), {"a", "12", "b"});
  check(cut({{"type", "Punctuation"}}, "a,.b"), {"a", ",", ".", "b"});
  check(cut({{"type", "Whitespace"}}, "a_b ,. \n c"), {"a_b", ",.", "c"});
  check(cut({{"type", "WhitespaceSplit"}}, " a, b"), {"a,", "b"});
  check(cut({{"type", "Sequence"}, {"pretokenizers", {split(dash, "Removed"), digits}}}, "a-12"),
        {"a", "1", "2"});
}

BOOST_AUTO_TEST_CASE(byte_level_and_metaspace) {
  const auto bytes = [](bool prefix, bool splits) {
    return json{{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"use_regex", splits}};
  };
  check(cut(bytes(true, true), "a\xc3\xa9 b's"), {"\xc4\xa0"
                                                  "a\xc3\x83\xc2\xa9",
                                                  "\xc4\xa0"
                                                  "b",
                                                  "'s"});
  check(cut(bytes(true, false), " a b"), {"\xc4\xa0"
                                          "a\xc4\xa0"
                                          "b"});
  check(cut(bytes(false, false), "a b"), {"a\xc4\xa0"
                                          "b"});
  // What follows sees the characters that bytes are spelled with, as in Falcon.
  check(cut({{"type", "Sequence"},
             {"pretokenizers", {bytes(false, false), split(regex("[0-9]{3}"), "Isolated")}}},
            "a 12345"),
        {"a\xc4\xa0", "123", "45"});
  const auto spaces = [](const char* scheme, bool splits) {
    return json{{"type", "Metaspace"},
                {"replacement", "_"},
                {"prepend_scheme", scheme},
                {"split", splits}};
  };
  check(cut(spaces("always", true), "a b"), {"_a", "_b"});
  check(cut(spaces("always", true), " a", false), {"_a"});
  check(cut(spaces("always", false), "a b", false), {"_a_b"});
  check(cut(spaces("first", false), "a b"), {"_a_b"});
  check(cut(spaces("first", false), "a b", false), {"a_b"});
  check(cut(spaces("never", true), "a  b"), {"a", "_", "_b"});
  check(cut({{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}}, "a b"),
        {"a", "_b"});
}

BOOST_AUTO_TEST_CASE(patterns_of_oniguruma) {
  const auto isolated = [](const char* pattern, const std::string& text) {
    return cut(split(regex(pattern), "Isolated"), text);
  };
  check(isolated("\\s",
                 "a\xe1\xa0\x8e\xc2\x85"
                 "b"),
        {"a\xe1\xa0\x8e", "\xc2\x85", "b"});
  check(isolated("[^(\\s|[.,])]+", "ab.c|d e"), {"ab", ".", "c", "|", "d", " ", "e"});
  check(isolated("[\\S]+", "a b"), {"a", " ", "b"});
  check(isolated("\\h+", "xaf09-"), {"x", "af09", "-"});
  check(isolated("\\w+", "e\xcc\x81-"), {"e\xcc\x81", "-"});
  check(isolated("(?m:.)", "\n"), {"\n"});
  check(isolated("^b$", "a\nb\nc"), {"a\n", "b", "\nc"});
  check(isolated("\\d{2}+", "12345"), {"1234", "5"});
  check(isolated("\\d{,2}x", "123x"), {"1", "23x"});
  check(isolated("\\u0061", "ba"), {"b", "a"});
  check(isolated("\\p{Letter}+|\\p{^L}", "ab1"), {"ab", "1"});
  check(isolated("\\bb", "ab b"), {"ab ", "b"});
  check(isolated("(?i:'s)", "it'S"), {"it", "'S"});
  const auto refuse = [&](const char* pattern, const std::string& cause) {
    BOOST_TEST(refusal([&] { isolated(pattern, "a"); }) ==
               "F: pre_tokenizer: the regular expression '" + std::string(pattern) + "' " + cause);
  };
  refuse("[a&&b]", "has an intersection of character classes, which is not supported");
  refuse("[a[^b]]", "has a negated character class within another, which is not supported");
  refuse("[\\W]", "has a negated character class within another, which is not supported");
  refuse("[[:alpha:]]",
         "has a bracket other than [:space:], [:word:], [:digit:] and [:xdigit:], which is not "
         "supported");
  refuse("[a", "has a character class without an end, which is not supported");
  refuse("(a", "is not understood by PCRE2: missing closing parenthesis");
}

BOOST_AUTO_TEST_CASE(byte_fallback_and_unknown_characters) {
  json j = characters_json();
  const auto ids = [&](const std::string& text) { return tokenizer_of(j).encode(text); };
  const std::string e = "\xc3\xa9";
  check_ids(ids("a" + e + e + "b"), {97, 0, 0, 98});
  j["model"]["fuse_unk"] = true;
  check_ids(ids("a" + e + e + "b" + e), {97, 0, 98, 0});
  j["model"]["byte_fallback"] = true;
  check_ids(ids("a" + e), {97, 0});  // no token for its bytes
  j["model"]["vocab"]["<0xC3>"] = 200;
  check_ids(ids("a" + e), {97, 0});
  j["model"]["vocab"]["<0xA9>"] = 201;
  check_ids(ids("a" + e + "b"), {97, 200, 201, 98});
  // An unknown character comes with the next that is known, after bytes.
  check_ids(ids("\xc3\xa8" + e + "b"), {200, 201, 0, 98});
  j["model"]["unk_token"] = nullptr;
  std::size_t left_out = 7;
  check_ids(tokenizer_of(j).encode("\xc3\xa8"
                                   "a\xc3\xa8\xc3\xa8",
                                   &left_out),
            {97});
  BOOST_TEST(left_out == 3u);
  check_ids(tokenizer_of(j).encode("a", &left_out), {97});
  BOOST_TEST(left_out == 0u);

  // A token of several characters needs a merge; those of bytes and special ones do not.
  j["model"]["vocab"]["</s>"] = 202;
  j["model"]["vocab"]["ab"] = 203;
  BOOST_TEST(refusal([&] { ids(""); }).find("no merge makes token 'ab' of ") != std::string::npos);
  j["model"]["merges"] = {"a b"};
  check_ids(ids("aab"), {97, 203});
}

BOOST_AUTO_TEST_CASE(added_tokens_that_are_normalized) {
  json j = characters_json();
  j["normalizer"] = {{"type", "Lowercase"}};
  j["added_tokens"] = {{{"id", 200}, {"content", "X Y"}, {"normalized", true}},
                       {{"id", 201}, {"content", "QQ"}, {"normalized", false}}};
  check_ids(tokenizer_of(j).encode("ax yqQQ"), {97, 200, 113, 201});
  // As LLaMA 2 has it: looked for where the normalizer has put its sign in front.
  j["normalizer"] = {{"type", "Prepend"}, {"prepend", "_"}};
  check_ids(tokenizer_of(j).encode("X YX Y"), {200, 88, 32, 89});
}

BOOST_AUTO_TEST_CASE(decoders) {
  json j = characters_json();
  j["model"]["vocab"]["<0x0A>"] = 10;
  const auto decoded = [&](const json& decoder, const ids_t& ids) {
    j["decoder"] = decoder;
    return tokenizer_of(j).decode(ids);
  };
  const json replace{{"type", "Replace"}, {"pattern", {{"String", "_"}}}, {"content", " "}};
  const json strip{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  const ids_t ids{'_', '_', 'a', 10, '_', 'b'};
  BOOST_TEST(decoded(nullptr, ids) == "__a<0x0A>_b");
  BOOST_TEST(decoded(replace, ids) == "  a<0x0A> b");
  BOOST_TEST(
      decoded({{"type", "Sequence"},
               {"decoders", {replace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, strip}}},
              ids) == " a\n b");
  BOOST_TEST(decoded({{"type", "Sequence"}, {"decoders", {replace, strip}}}, ids) == "a<0x0A>b");
  BOOST_TEST(decoded({{"type", "Metaspace"}, {"replacement", "_"}}, ids) == " a<0x0A> b");
  BOOST_TEST(decoded({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "never"}},
                     ids) == "  a<0x0A> b");
}

BOOST_AUTO_TEST_CASE(what_is_not_supported_is_named) {
  const auto refuse = [](const char* part, const json& value, const std::string& cause) {
    json j = characters_json();
    j[part] = value;
    const std::string message = refusal([&] { tokenizer_of(j); });
    BOOST_TEST_INFO(message << " against " << cause);
    BOOST_CHECK(message.find("/tokenizer.json: " + std::string(part) + ": " + cause) !=
                std::string::npos);
  };
  refuse("normalizer", {{"type", "BertNormalizer"}},
         "BertNormalizer is not supported; supported: ");
  refuse("normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Precompiled"}}}}},
         "Precompiled is not supported");
  refuse("normalizer", json::array(), "expected an object");
  refuse("normalizer", {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", ""}},
         "Replace: pattern: expected a pattern that is not empty");
  refuse("pre_tokenizer", {{"type", "UnicodeScripts"}}, "UnicodeScripts is not supported");
  refuse("pre_tokenizer", {{"a", 1}}, "expected an object with a type");
  refuse("pre_tokenizer", split({{"String", "a"}}, "Twice"),
         "Split: behavior: expected Isolated, ");
  refuse("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "__"}},
         "Metaspace: replacement: expected one character, got \"__\"");
  refuse("pre_tokenizer",
         {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "twice"}},
         "Metaspace: prepend_scheme: expected always, first or never");
  refuse("post_processor", {{"type", "Other"}}, "Other is not supported");
  refuse("decoder", {{"type", "CTC"}}, "CTC is not supported");
  refuse("decoder", {{"type", "Strip"}, {"content", " "}, {"start", -1}},
         "Strip: start: expected an integer from 0 on, got -1");
}

BOOST_AUTO_TEST_CASE(ids_in_front_of_a_text) {
  json j = characters_json();
  const test::Folder folder;
  const auto ids = [&](const json& config, std::int32_t bos, bool by_default) {
    test::write_text(folder / "tokenizer.json", j.dump());
    test::write_text(folder / "tokenizer_config.json", config.dump());
    return pare::leading_ids(pare::Tokenizer::load(folder.path), bos, by_default);
  };
  const json none = json::object();
  check_ids(ids(none, 5, false), {});
  check_ids(ids(none, 5, true), {5});
  check_ids(ids(none, -1, true), {});
  check_ids(ids({{"add_bos_token", false}}, 5, true), {});
  check_ids(ids({{"add_bos_token", true}}, 5, false), {5});
  check_ids(ids({{"add_bos_token", true}, {"bos_token", "a"}}, 5, false), {97});
  check_ids(ids({{"add_bos_token", true}, {"bos_token", {{"content", "b"}}}}, 5, false), {98});
  BOOST_TEST(refusal([&] {
               ids({{"add_bos_token", true}}, -1, false);
             }).starts_with("tokenizer_config.json: add_bos_token is true, and neither"));
  // The post-processor goes first, also where it puts nothing there.
  j["post_processor"] = {{"type", "ByteLevel"}};
  check_ids(ids(none, 5, true), {5});
  j["post_processor"] = json::parse(
      R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}],
          "special_tokens":{}})");
  check_ids(ids({{"add_bos_token", true}}, 5, true), {});
  j["post_processor"] =
      json::parse(R"({"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",1]})");
  check_ids(ids({{"add_bos_token", false}}, 5, true), {1});
  check_ids(tokenizer_of(j).after(), {2});
}
