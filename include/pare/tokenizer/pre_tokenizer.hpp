// How a text is cut into pieces that merges never cross.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/tokenizer/byte_level.hpp"
#include "pare/tokenizer/normalizer.hpp"
#include "pare/tokenizer/text_pattern.hpp"

namespace pare::inline PARE_TARGET {

/// What becomes of a match when a text is cut: it is a piece, it is dropped, it goes with the piece
/// before or after it, or it is one piece with its neighbours that match too.
enum class SplitBehavior { Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous };

/// Cuts where a pattern matches.
struct SplitStep {
  /// What is looked for.
  TextPattern pattern;
  /// What becomes of matches.
  SplitBehavior behavior = SplitBehavior::Isolated;
  /// What does not match is the match.
  bool invert = false;
  /// Memberwise.
  bool operator==(const SplitStep&) const = default;
};

/// Puts a text in front of pieces that do not begin with it.
struct PrefixStep {
  /// What goes in front.
  std::string text;
  /// Only where the whole text begins.
  bool first_only = false;
  /// Memberwise.
  bool operator==(const PrefixStep&) const = default;
};

/// Spells every byte as the character that stands for it in byte-level vocabularies.
struct SpellBytesStep {
  /// Memberwise.
  bool operator==(const SpellBytesStep&) const = default;
};

/// One step of a pre-tokenizer.
using PreTokenizerStep = std::variant<SplitStep, PrefixStep, ReplaceStep, SpellBytesStep>;

namespace detail {

/// A part of a text on its way to the merges.
struct Piece {
  std::string_view text;  ///< never empty
  bool first;             ///< the whole text begins with it
};

/// The steps of a pre-tokenizer, ready for use. Immutable.
class PreTokenizer {
 public:
  /// @param who  what messages begin with
  /// @throws format_error for a pattern that is not understood
  PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& who)
      : steps_(std::move(steps)) {
    for (const PreTokenizerStep& step : steps_) {
      if (const auto* split = std::get_if<SplitStep>(&step))
        finders_.emplace_back(split->pattern, who);
      else if (const auto* replace = std::get_if<ReplaceStep>(&step))
        finders_.emplace_back(replace->pattern, who);
    }
  }

  /// What cutting needs. Pieces lie in the text that is cut, or in `kept`.
  struct Work {
    Regex::Match match;
    std::vector<Piece> pieces, before;
    std::deque<std::string> kept;
  };

  /// Leaves the pieces of `part` in `work.pieces`. They are valid as long as the part and `work`.
  void cut(Piece part, Work& work) const {
    work.pieces.assign(1, part);
    auto finder = finders_.begin();
    for (const PreTokenizerStep& step : steps_) {
      std::swap(work.pieces, work.before);
      work.pieces.clear();
      if (const auto* split = std::get_if<SplitStep>(&step)) {
        for (const Piece& piece : work.before) split_piece(piece, *split, *finder, work);
        ++finder;
      } else if (const auto* replace = std::get_if<ReplaceStep>(&step)) {
        for (const Piece& piece : work.before)
          keep(finder->replaced(piece.text, replace->content, work.match), piece.first, work);
        ++finder;
      } else if (const auto* prefix = std::get_if<PrefixStep>(&step)) {
        for (const Piece& piece : work.before) put_in_front(piece, *prefix, work);
      } else {
        spell(work);
      }
    }
  }

 private:
  static void keep(std::string text, bool first, Work& work) {
    if (!text.empty()) work.pieces.push_back({work.kept.emplace_back(std::move(text)), first});
  }

  static void put_in_front(const Piece& piece, const PrefixStep& step, Work& work) {
    if ((step.first_only && !piece.first) || piece.text.starts_with(step.text))
      work.pieces.push_back(piece);
    else
      keep(step.text + std::string(piece.text), piece.first, work);
  }

  void spell(Work& work) const {
    std::size_t bytes = 0;
    for (const Piece& piece : work.before)
      if (!ByteSpelling::plain(piece.text)) bytes += piece.text.size();
    std::string& spelled = work.kept.emplace_back();
    spelled.reserve(2 * bytes);  // pieces lie in it: it never moves
    for (const Piece& piece : work.before) {
      if (ByteSpelling::plain(piece.text)) {
        work.pieces.push_back(piece);
        continue;
      }
      const std::size_t start = spelled.size();
      spelling_.spell(piece.text, spelled);
      work.pieces.push_back({std::string_view(spelled).substr(start), piece.first});
    }
  }

  /// Cuts a piece. Ranges that match and those between them come in turn, and each is joined with
  /// the one before, or not.
  static void split_piece(const Piece& piece, const SplitStep& step, const PatternFinder& finder,
                          Work& work) {
    const auto emit = [&](std::size_t begin, std::size_t end) {
      if (begin < end)
        work.pieces.push_back({piece.text.substr(begin, end - begin), piece.first && begin == 0});
    };
    std::size_t open = 0;  // where the piece begins that has not been emitted
    bool any = false, last_matched = false;
    const auto range = [&](std::size_t begin, std::size_t end, bool matched) {
      matched = matched != step.invert;
      bool joined = false;
      switch (step.behavior) {
        case SplitBehavior::Isolated:
        case SplitBehavior::Removed:
          break;
        case SplitBehavior::Contiguous:
          joined = matched == last_matched;
          break;
        case SplitBehavior::MergedWithPrevious:
          joined = matched && !last_matched;
          break;
        case SplitBehavior::MergedWithNext:
          joined = !matched && last_matched;
          break;
      }
      if (any && !joined) emit(open, begin);
      if (!any || !joined) open = begin;
      if (step.behavior == SplitBehavior::Removed && matched) open = end;
      any = true;
      last_matched = matched;
    };
    std::size_t done = 0;
    finder.for_each(piece.text, work.match, [&](Regex::Range match) {
      if (done < match.begin) range(done, match.begin, false);
      range(match.begin, match.end, true);
      done = match.end;
    });
    if (done < piece.text.size()) range(done, piece.text.size(), false);
    emit(open, piece.text.size());
  }

  std::vector<PreTokenizerStep> steps_;
  std::vector<PatternFinder> finders_;  // of SplitSteps and ReplaceSteps, in their order
  ByteSpelling spelling_;
};

}  // namespace detail

}  // namespace pare
