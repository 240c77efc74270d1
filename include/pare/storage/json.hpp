// JSON of files that nobody vouches for.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Finds what nlohmann's own parser would let pass: a repeated key, and nesting without end.
class JsonChecker : public nlohmann::json::json_sax_t {
 public:
  explicit JsonChecker(std::string file) : file_(std::move(file)) {}
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second)
      throw format_error(file_ + ": the name " + quoted_name(name) + " occurs twice");
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    throw format_error(file_ + ": not valid JSON at byte " + std::to_string(position));
  }

 private:
  bool enter() {
    if (keys_.size() == 32) throw format_error(file_ + ": JSON nested deeper than 32 levels");
    keys_.emplace_back();
    return true;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }
  std::string file_;
  std::vector<std::set<std::string>> keys_;
};

/// The JSON object in `text`. Throws format_error (beginning with `file`) for anything else, and
/// for names that occur twice in one object.
inline nlohmann::json parse_json_object(const std::string& file, std::string_view text) {
  JsonChecker checker(file);
  nlohmann::json::sax_parse(text, &checker);
  auto value = nlohmann::json::parse(text);
  if (!value.is_object())
    throw format_error(file + ": expected a JSON object, got " + value.type_name());
  return value;
}

}  // namespace detail

}  // namespace pare
