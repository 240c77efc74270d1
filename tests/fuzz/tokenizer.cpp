// A tokenizer from any vocabulary, merges and text, which a zero byte separates.
#include "pare/model/tokenizer.hpp"
#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view content) {
    const auto take = [&] {
      const std::string_view part = content.substr(0, content.find('\0'));
      content.remove_prefix(std::min(content.size(), part.size() + 1));
      return part;
    };
    const test::MemoryFile vocab(take()), merges(take());
    const pare::Tokenizer tokenizer = pare::Tokenizer::load(vocab.path(), merges.path());
    const auto ids = tokenizer.encode(content);
    tokenizer.decode(ids);
  });
}
