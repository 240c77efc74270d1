// SentencePiece's tokenizer.model, read and encoded by the sentencepiece library where a program is
// built with it, PARE_SENTENCEPIECE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/storage/foreign.hpp"
#include "pare/tokenizer/description.hpp"

#if defined(PARE_SENTENCEPIECE)
#include <sentencepiece_processor.h>
#endif

namespace pare::inline PARE_TARGET {

/// How LLaMA's tokenizers put a space in front of the parts of a text.
enum class SpaceInFront : std::uint8_t {
  none,   ///< `add_prefix_space` is false
  first,  ///< of a part with which the text begins
  all,    ///< of every part between added tokens: `legacy` is true
};

namespace detail {

/// The character that stands for a space in pieces.
inline constexpr std::string_view piece_space = "\xe2\x96\x81";

#if defined(PARE_SENTENCEPIECE)

/// A model of the library, twice: as it is, and without the space that it puts in front of a text.
class SentencePieceModel {
 public:
  explicit SentencePieceModel(const std::filesystem::path& file) : file_(file.string()) {
    const std::string model = read_model_text(file);
    // Messages of Protocol Buffers that follow one another are one: normalizer_spec (3) has
    // add_dummy_prefix (3) = false besides what the file says.
    static constexpr char without_prefix[] = {0x1a, 2, 0x18, 0};
    load(model, whole_);
    load(model + std::string(without_prefix, sizeof without_prefix), bare_);
    prefixes_ = encoded(whole_, "a") != encoded(bare_, "a");
  }

  const sentencepiece::SentencePieceProcessor& pieces() const { return whole_; }
  /// Whether the model puts a space in front of a text.
  bool prefixes() const { return prefixes_; }

  /// The ids of a part of a text; as transformers does, no space is put in front of another.
  /// @param spaced  whether a space belongs in front
  std::vector<int> encode(std::string_view part, bool spaced) const {
    if (!prefixes_ || !spaced) return encoded(bare_, part);
    if (part.starts_with(' '))
      part.remove_prefix(1);
    else if (part.starts_with(piece_space))
      part.remove_prefix(piece_space.size());
    return part.empty() ? encoded(bare_, " ") : encoded(whole_, part);
  }

 private:
  void load(const std::string& model, sentencepiece::SentencePieceProcessor& processor) const {
    const auto status = processor.LoadFromSerializedProto(model);
    if (!status.ok())
      throw format_error(file_ + ": not a SentencePiece model: " + status.ToString());
  }

  std::vector<int> encoded(const sentencepiece::SentencePieceProcessor& processor,
                           std::string_view part) const {
    std::vector<int> ids;
    const auto status = processor.Encode(part, &ids);
    if (!status.ok()) throw format_error(file_ + ": " + status.ToString());
    return ids;
  }

  std::string file_;
  sentencepiece::SentencePieceProcessor whole_, bare_;
  bool prefixes_ = false;
};

#endif

}  // namespace detail

/// The tokenizer of a `tokenizer.model`, with the rules that transformers has for LLaMA's: control
/// pieces and the unknown one are found in a text before anything else, and what is between them is
/// encoded by the library.
/// @param file    of the model
/// @param spaces  where a space is put in front, if the model puts one there at all
/// @throws io_error; format_error where the file is no such model, or the program was built without
///         the library
inline TokenizerDescription describe_sentencepiece(const std::filesystem::path& file,
                                                   SpaceInFront spaces) {
#if defined(PARE_SENTENCEPIECE)
  const auto model = std::make_shared<const detail::SentencePieceModel>(file);
  TokenizerDescription description;
  BpeDescription& bpe = description.bpe;
  bpe.file = file.string();
  bpe.ignore_merges = true;  // merges are the library's
  for (int id = 0; id < model->pieces().GetPieceSize(); ++id) {
    const std::string& piece = model->pieces().IdToPiece(id);
    bpe.vocabulary.emplace(piece, id);
    if (model->pieces().IsControl(id) || model->pieces().IsUnknown(id))
      description.added.push_back({.content = piece, .id = id, .special = true});
  }
  description.decoder = {ReplaceStep{{std::string(detail::piece_space)}, " "}, ReadByteTokensStep{},
                         FuseStep{}};
  if (model->prefixes() && spaces != SpaceInFront::none)
    description.decoder.push_back(TrimStep{" ", 1, 0});
  description.encode_part = [model, spaces](std::string_view part, bool first,
                                            std::vector<std::int32_t>& ids) {
    const bool spaced = spaces == SpaceInFront::all || (spaces == SpaceInFront::first && first);
    const std::vector<int> encoded = model->encode(part, spaced);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  };
  return description;
#else
  (void)spaces;
  throw format_error(file.string() +
                     ": a SentencePiece model, for which this program needs the sentencepiece "
                     "library, without which it was built (libsentencepiece-dev); tokenizer.json, "
                     "or vocab.json and merges.txt are read without");
#endif
}

}  // namespace pare
