// "did you mean": the known words that are nearest to one that is not known.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tool {

namespace detail {

/// A word as it is compared: small letters, no dashes in front, '_' as '-'.
inline std::string compared(std::string_view word) {
  word.remove_prefix(std::min(word.find_first_not_of('-'), word.size()));
  std::string text(word);
  for (char& c : text) c = c == '_' ? '-' : char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace detail

/// How many characters must be inserted, deleted, replaced or swapped with their neighbour to make
/// one word of the other (optimal string alignment).
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before, above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = std::exchange(above, row);
  }
  return above[b.size()];
}

/// Up to three of `known`, all as near to `word` as the nearest one: those that go on where a word
/// of three letters or more stops, or else those within a third of its length.
inline std::vector<std::string> nearest(std::string_view word,
                                        const std::vector<std::string>& known) {
  const std::string given = detail::compared(word);
  std::vector<std::string> found;
  if (given.size() >= 3)
    for (const std::string& name : known)
      if (detail::compared(name).starts_with(given)) found.push_back(name);
  if (found.empty()) {
    std::size_t least = std::min<std::size_t>((given.size() + 1) / 3, 3) + 1;
    for (const std::string& name : known) {
      const std::size_t distance = edit_distance(given, detail::compared(name));
      if (distance > least || distance > (given.size() + 1) / 3 || distance > 3) continue;
      if (distance < least) found.clear();
      least = distance;
      found.push_back(name);
    }
  }
  if (found.size() > 3) found.clear();  // so many say nothing
  return found;
}

/// "a, b or c"
inline std::string one_of(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  return text;
}

/// "; did you mean a or b?" to end a message with; empty where nothing known is near.
inline std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::vector<std::string> names = nearest(word, known);
  return names.empty() ? "" : "; did you mean " + one_of(names) + "?";
}

}  // namespace tool
