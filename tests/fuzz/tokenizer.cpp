// A tokenizer from any files and text, which a zero byte separates: a vocabulary and merges; after a
// first byte of 1 a tokenizer.json; after one of 2 a folder of vocabulary, merges, added tokens,
// tokenizer_config.json and, where it is not empty, tokenizer.json.
#include "pare/tokenizer/tokenizer.hpp"
#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::Folder folder;
  return fuzz::check(data, size, [](std::string_view content) {
    const auto take = [&] {
      const std::string_view part = content.substr(0, content.find('\0'));
      content.remove_prefix(std::min(content.size(), part.size() + 1));
      return part;
    };
    const char kind = content.empty() ? '\0' : content.front();
    if (kind == '\1' || kind == '\2') content.remove_prefix(1);
    const pare::Tokenizer tokenizer = [&] {
      if (kind == '\1')
        return pare::Tokenizer(pare::describe_tokenizer_json(test::MemoryFile(take()).path()));
      if (kind == '\2') {
        for (const char* name :
             {"vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"})
          test::write_text(folder / name, take());
        const std::string_view whole = take();
        std::filesystem::remove(folder / "tokenizer.json");
        if (!whole.empty()) test::write_text(folder / "tokenizer.json", whole);
        return pare::Tokenizer::load(folder.path);
      }
      const test::MemoryFile vocab(take()), merges(take());
      return pare::Tokenizer::load(vocab.path(), merges.path());
    }();
    const auto ids = tokenizer.encode(content);
    tokenizer.decode(ids);
  });
}
