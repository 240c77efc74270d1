// Fields of JSON files, read with errors that name file and field.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// A token id that was read. Throws format_error that begins with `who`.
inline std::int32_t token_id(const nlohmann::json& id, const std::string& who) {
  if (!id.is_number_unsigned() ||
      id.get<std::uint64_t>() > std::uint64_t(std::numeric_limits<std::int32_t>::max()))
    throw format_error(who + " is not an integer from 0 to 2^31-1");
  return id.get<std::int32_t>();
}

/// Fields of a JSON file, read with errors that name file and field.
class FieldReader {
 public:
  /// @param who   what messages begin with
  /// @param json  an object; valid as long as the reader
  FieldReader(std::string who, const nlohmann::json& json) : who_(std::move(who)), json_(json) {
    if (!json.is_object()) throw format_error(who_ + ": expected an object, got " + given(json));
  }

  const std::string& who() const { return who_; }
  format_error bad(const std::string& field, const std::string& expected) const {
    const auto found = json_.find(field);
    return format_error(who_ + (field.empty() ? "" : ": " + field) + ": expected " + expected +
                        ", got " + (found == json_.end() ? "nothing" : given(*found)));
  }

  /// The field; null where there is none.
  const nlohmann::json& at(const char* field) const {
    static const nlohmann::json nothing;
    const auto found = json_.find(field);
    return found == json_.end() ? nothing : *found;
  }
  FieldReader object(const char* field) const {
    if (!at(field).is_object()) throw bad(field, "an object");
    return {who_ + ": " + field, at(field)};
  }
  /// Null is as good as nothing.
  bool boolean(const char* field, bool otherwise) const {
    const nlohmann::json& value = at(field);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) throw bad(field, "true or false");
    return value.get<bool>();
  }
  std::string text(const char* field) const {
    if (!at(field).is_string()) throw bad(field, "a text");
    return at(field).get<std::string>();
  }
  /// A number of things; 0 where there is none.
  std::size_t count(const char* field) const {
    const nlohmann::json& value = at(field);
    if (value.is_null()) return 0;
    if (!value.is_number_unsigned()) throw bad(field, "an integer from 0 on");
    return value.get<std::size_t>();
  }
  const nlohmann::json& array(const char* field) const {
    if (!at(field).is_array()) throw bad(field, "an array");
    return at(field);
  }

  /// A value for messages, cut after 60 bytes.
  static std::string given(const nlohmann::json& value) {
    if (value.is_object() && value.contains("type") && value["type"].is_string())
      return quoted_name(value["type"].get<std::string>());
    if (value.is_structured()) return value.is_object() ? "an object" : "an array";
    const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return text.size() > 60 ? text.substr(0, 60) + "..." : text;
  }

 private:
  std::string who_;
  const nlohmann::json& json_;
};

/// The type that a JSON object says it is of; empty where it says none.
inline std::string type_of(const nlohmann::json& json) {
  return json.is_object() && json.contains("type") && json["type"].is_string()
             ? json["type"].get<std::string>()
             : std::string();
}

}  // namespace detail

}  // namespace pare
