// Byte-level BPE: against published ids where the shared data is, by hand everywhere.
#define BOOST_TEST_MODULE pare_tokenizer
#include <boost/test/unit_test.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "files.hpp"
#include "pare/model/tokenizer.hpp"
#include "pare/storage/safetensors.hpp"

namespace fs = std::filesystem;
using ids_t = std::vector<std::int32_t>;

namespace {

/// The tokenizer shipped with the examples.
const pare::Tokenizer& shipped() {
  static const pare::Tokenizer tokenizer = [] {
    const fs::path folder = fs::path(test::examples_data) / "opt-tiny";
    return pare::Tokenizer::load(folder / "vocab.json", folder / "merges.txt");
  }();
  return tokenizer;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// A vocabulary and merges of our own, in a folder removed at the end.
struct Files {
  Files() {
    static int counter = 0;
    folder = fs::temp_directory_path() /
             ("pare_tokenizer_" + std::to_string(::getpid()) + "_" + std::to_string(counter++));
    fs::create_directories(folder);
    vocab = folder / "vocab.json";
    merges = folder / "merges.txt";
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;
  ~Files() { fs::remove_all(folder); }

  void write(const std::string& vocab_text, const std::string& merges_text) const {
    std::ofstream(vocab, std::ios::binary) << vocab_text;
    std::ofstream(merges, std::ios::binary) << merges_text;
  }
  pare::Tokenizer load() const { return pare::Tokenizer::load(vocab, merges); }
  fs::path folder, vocab, merges;
};

template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

void check_ids(const ids_t& given, const ids_t& expected) {
  BOOST_TEST(given == expected, boost::test_tools::per_element());
}

}  // namespace

BOOST_AUTO_TEST_CASE(shipped_tokenizer_by_hand) {
  const auto& t = shipped();
  BOOST_TEST(t.vocab_size() == 4096u);
  BOOST_TEST(t.max_id() == 4095);
  BOOST_TEST(t.id_of("</s>").value() == 2);
  BOOST_TEST(t.id_of("!").value() == 4);
  BOOST_CHECK(!t.id_of("no such token"));
  check_ids(t.encode(""), {});
  check_ids(t.encode("Hello world!"), {43, 464, 82, 925, 4});
  check_ids(t.encode("it's the 1000"), {276, 373, 266, 698, 3362});
  check_ids(t.encode("caf\xc3\xa9"), {70, 3502, 3295});
  check_ids(t.encode("\xe4\xbd\xa0\xe5\xa5\xbd"), {164, 125, 258, 165, 102, 125});
  check_ids(t.encode("  a"), {224, 262});
  check_ids(t.encode("a<unk></s><s><pad><unk"), {68, 3, 2, 0, 1, 31, 430});
}

BOOST_AUTO_TEST_CASE(special_tokens_cut_the_text) {
  const auto& t = shipped();
  // White space before a special token ends its text, so the rule for the last space applies.
  ids_t expected = t.encode("x  ");
  expected.push_back(2);
  for (const auto id : t.encode("  y")) expected.push_back(id);
  check_ids(t.encode("x  </s>  y"), expected);
  check_ids(t.encode("<<s>"), {31, 0});
  BOOST_TEST(t.decode(t.encode("<<s><s")) == "<<s><s");
}

BOOST_AUTO_TEST_CASE(decode_restores_the_text) {
  const auto& t = shipped();
  std::string text =
      "Hello  world!\n\n\tcaf\xc3\xa9 \xf0\x9f\x98\x80 it's we'LL \xc2\xa0"
      " \xe1\xa0\x8e 3.14 x_y-z --- \r\n \xe3\x80\x80 end   ";
  text += '\0';
  for (int i = 1; i < 128; ++i) text += static_cast<char>(i);
  BOOST_TEST(t.decode(t.encode(text)) == text);

  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string mixed;
    for (int i = 0; i < 50; ++i) {
      const unsigned kind = static_cast<unsigned>(random() % 4);
      unsigned code = static_cast<unsigned>(random());
      code = kind == 0   ? code % 0x80
             : kind == 1 ? 0x80 + code % 0x780
             : kind == 2 ? 0x800 + code % 0xd000
                         : 0x10000 + code % 0x100000;
      if (code < 0x80) {
        mixed += static_cast<char>(code);
      } else if (code < 0x800) {
        mixed += static_cast<char>(0xc0 | code >> 6);
        mixed += static_cast<char>(0x80 | (code & 63));
      } else {
        if (code < 0x10000) {
          mixed += static_cast<char>(0xe0 | code >> 12);
        } else {
          mixed += static_cast<char>(0xf0 | code >> 18);
          mixed += static_cast<char>(0x80 | (code >> 12 & 63));
        }
        mixed += static_cast<char>(0x80 | (code >> 6 & 63));
        mixed += static_cast<char>(0x80 | (code & 63));
      }
    }
    BOOST_TEST(t.decode(t.encode(mixed)) == mixed);
  }
  const ids_t unknown{4, 4096};
  BOOST_TEST(message_of<pare::argument_error>([&] { t.decode(unknown); }) ==
             "Tokenizer::decode: id 4096 is not in the vocabulary");
}

BOOST_AUTO_TEST_CASE(invalid_utf8) {
  const auto offset = [](std::string text, std::size_t at) {
    BOOST_TEST(message_of<pare::format_error>([&] { shipped().encode(text); }) ==
               "not valid UTF-8 at byte " + std::to_string(at));
  };
  offset("\xff", 0);
  offset("ab\x80", 2);            // continuation without a start
  offset("ab\xc3", 2);            // cut
  offset("\xc3\xa9\xe4\xbd", 2);  // cut
  offset("\xc0\xaf", 0);          // overlong
  offset("\xc1\xbf", 0);
  offset("\xe0\x9f\xbf", 0);
  offset("\xf0\x8f\xbf\xbf", 0);
  offset("\xed\xa0\x80", 0);      // surrogate
  offset("\xf4\x90\x80\x80", 0);  // past U+10FFFF
  offset("\xf5\x80\x80\x80", 0);
  offset("\xe4\xbd\x41", 0);
  offset("<s>\xf0\x9f\x98\x41", 3);
  for (const char* valid : {"\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf", "\xf0\x90\x80\x80",
                            "\xe0\xa0\x80", "\xc2\x80"})
    BOOST_TEST(shipped().decode(shipped().encode(valid)) == valid);
}

BOOST_AUTO_TEST_CASE(pieces_of_a_million_bytes) {
  const auto& t = shipped();
  std::mt19937 random(5);
  std::string letters;
  for (int i = 0; i < 1'000'000; ++i) letters += static_cast<char>('a' + random() % 26);
  std::string wide;
  for (int i = 0; i < 300'000; ++i) wide += "\xe4\xbd\xa0";
  for (const std::string& text :
       {letters, std::string(1'000'000, 'e'), std::string(1'000'000, ' '), wide,
        std::string(1'000'000, ' ') + "x", std::string(1'000'000, '\n'),
        std::string(1'000'000, '<'), std::string(1'000'000, '7')}) {
    const auto start = std::chrono::steady_clock::now();
    const ids_t ids = t.encode(text);
    const double seconds = seconds_since(start);
    BOOST_TEST_MESSAGE("1e6 bytes of code " << int(text[0]) << ": " << seconds << " s");
    BOOST_TEST(seconds < 10.0);
    BOOST_CHECK(t.decode(ids) == text);
  }
}

BOOST_AUTO_TEST_CASE(merges_by_rank_then_from_the_left) {
  const Files files;
  files.write(R"({"a":0,"b":1,"c":2,"aa":3,"ab":4,"bc":5,"aab":6,"aaaa":7,"!":8,"\u00e1":9,)"
              R"("\u0142":10,"\u0130":11,"!\u00e1":12,"\u0120":13})",
              "#version: 0.2\r\nb c\r\na a\r\na b\r\naa b\r\naa aa\r\n! \xc3\xa1\r\n\r\n");
  const auto t = files.load();
  check_ids(t.encode("abc"), {0, 5});  // "b c" ranks before "a b"
  check_ids(t.encode("aaa"), {3, 0});  // the left pair first
  check_ids(t.encode("aaaaa"), {7, 0});
  check_ids(t.encode("aaab"), {3, 4});  // "a b" ranks before "aa b"
  check_ids(t.encode("aab"), {6});
  check_ids(t.encode("aaaab"), {3, 6});  // "aa b" ranks before "aa aa"
  check_ids(t.encode("aabcaab"), {3, 5, 6});
  BOOST_TEST(t.decode(t.encode("aabcaab")) == "aabcaab");
}

BOOST_AUTO_TEST_CASE(white_space_is_unicodes) {
  // U+180E is no white space: it joins the '!' before it in one piece. U+0085 is, and does not.
  const Files files;
  files.write(R"({"!":0,"\u00e1":1,"\u0142":2,"\u0130":3,"!\u00e1":4,"\u00c2":5,"\u0127":6,)"
              R"("!\u00c2":7,"\u0120":8})",
              "! \xc3\xa1\n! \xc3\x82\n");
  const auto t = files.load();
  BOOST_TEST(t.encode("!\xe1\xa0\x8e").front() == 4);
  BOOST_TEST(t.encode("!\xc2\x85").front() == 0);
}

BOOST_AUTO_TEST_CASE(missing_bytes_matter_only_when_needed) {
  const Files files;
  files.write(R"({"a":7})", "");
  const auto t = files.load();
  BOOST_TEST(t.vocab_size() == 1u);
  BOOST_TEST(t.max_id() == 7);
  check_ids(t.encode("aa"), {7, 7});
  BOOST_TEST(message_of<pare::format_error>([&] { t.encode("a a"); }) ==
             files.vocab.string() +
                 ": no token for byte 0x20 (spelled '\xc4\xa0'), which the text needs");
  BOOST_CHECK(t.encode("a") == pare::Tokenizer(t).encode("a"));
}

BOOST_AUTO_TEST_CASE(broken_vocabularies) {
  const Files files;
  const auto refuse = [&](const std::string& vocab, const std::string& merges, const fs::path& file,
                          const std::string& cause) {
    files.write(vocab, merges);
    const std::string message = message_of<pare::format_error>([&] { files.load(); });
    BOOST_TEST(message == file.string() + ": " + cause);
  };
  const std::string abc = R"({"a":0,"b":1,"ab":2})";
  refuse("[1]", "", files.vocab, "expected a JSON object, got array");
  refuse("{", "", files.vocab, "not valid JSON at byte 2");
  refuse(R"({"a":-1})", "", files.vocab, "the id of token 'a' is not an integer from 0 to 2^31-1");
  refuse(R"({"a":2147483648})", "", files.vocab,
         "the id of token 'a' is not an integer from 0 to 2^31-1");
  refuse(R"({"a":"0"})", "", files.vocab, "the id of token 'a' is not an integer from 0 to 2^31-1");
  refuse(R"({"a":0,"b":0})", "", files.vocab, "id 0 of token 'b' is used twice");
  refuse(R"({"a":0,"a":1})", "", files.vocab, "the name 'a' occurs twice");
  refuse(abc, "#version: 0.2\na b\nab\n", files.merges,
         "line 3: expected two tokens separated by one space, got 'ab'");
  refuse(abc, "a b\n\na b", files.merges,
         "line 2: expected two tokens separated by one space, got ''");
  refuse(abc, "a  b", files.merges,
         "line 1: expected two tokens separated by one space, got 'a  b'");
  refuse(abc, " b", files.merges, "line 1: expected two tokens separated by one space, got ' b'");
  refuse(abc, "a ", files.merges, "line 1: expected two tokens separated by one space, got 'a '");
  refuse(abc, "a b\nb a", files.merges, "line 2: token 'ba' is not in the vocabulary");
  refuse(abc, "x b", files.merges, "line 1: token 'x' is not in the vocabulary");
  fs::remove(files.merges);
  BOOST_TEST(message_of<pare::io_error>([&] {
               files.load();
             }).starts_with(files.merges.string() + ": cannot open"));
}

BOOST_AUTO_TEST_CASE(ids_of_the_shared_texts) {
  const auto found = test::shared_folder("token ids of the shared texts");
  if (!found) return;
  const fs::path& shared = *found;
  const pare::SafetensorsFile golden(shared / "golden" / "tokens.safetensors");
  for (const std::string model : {"opt-tiny", "opt-small"}) {
    const fs::path folder = shared / "models" / model;
    const auto tokenizer = pare::Tokenizer::load(folder / "vocab.json", folder / "merges.txt");
    for (const std::string name :
         {"c4.calib", "c4.test", "hard", "ptb.test", "sampled.eval", "wikitext2.test"}) {
      const std::string text = test::read_text(shared / "text" / (name + ".txt"));
      BOOST_REQUIRE(!text.empty());
      const auto start = std::chrono::steady_clock::now();
      const ids_t ids = tokenizer.encode(text);
      BOOST_TEST_MESSAGE(model << "/" << name << ": " << ids.size() << " ids in "
                               << seconds_since(start) << " s");
      const auto bytes = golden.read_bytes(model + "/" + name);
      ids_t expected(bytes.size() / sizeof(std::int32_t));
      std::memcpy(expected.data(), bytes.data(), bytes.size());
      BOOST_TEST_CONTEXT(model << "/" << name) {
        BOOST_TEST(ids.size() == expected.size());
        const auto differ = std::mismatch(ids.begin(), ids.end(), expected.begin(), expected.end());
        const std::ptrdiff_t agreeing = differ.first - ids.begin();
        BOOST_TEST(agreeing == std::ptrdiff_t(expected.size()));
        BOOST_CHECK(tokenizer.decode(ids) == text);
      }
    }
  }
}
