// Fields of a config.json, read with errors that name file, field and value.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/core/matrix.hpp"
#include "pare/storage/foreign.hpp"

namespace pare::inline PARE_TARGET {

/// The fields of a JSON object. Null is as good as nothing but where is_null is asked. Everything
/// throws format_error naming file, field and value for what is missing, absurd or of another type.
class ConfigReader {
 public:
  /// @param file    what messages begin with
  /// @param fields  valid as long as the reader
  ConfigReader(std::string file, const nlohmann::json& fields)
      : file_(std::move(file)), fields_(fields) {}

  /// An error of a field.
  format_error bad(const std::string& field, const std::string& expected) const {
    std::string given = "nothing";
    if (fields_.contains(field)) {
      given = fields_[field].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
      if (given.size() > 60) given = given.substr(0, 60) + "...";
    }
    return format_error(file_ + ": " + field + ": expected " + expected + ", got " + given);
  }

  /// Whether there is such a field and it says something.
  bool has(const std::string& field) const {
    return fields_.contains(field) && !fields_[field].is_null();
  }
  /// Whether there is such a field and it is null.
  bool is_null(const std::string& field) const {
    return fields_.contains(field) && fields_[field].is_null();
  }

  /// A positive integer; `otherwise` for a missing one, which is required where that is 0.
  index_t size(const std::string& field, index_t otherwise) const {
    // Far above every real model, far below where a product of two sides could overflow.
    constexpr std::uint64_t limit = std::uint64_t{1} << 24;
    if (!has(field) && otherwise > 0) return otherwise;
    if (!has(field) || !fields_[field].is_number_unsigned() ||
        fields_[field].get<std::uint64_t>() == 0)
      throw bad(field, "a positive integer");
    if (fields_[field].get<std::uint64_t>() > limit)
      throw bad(field, "an integer of at most " + std::to_string(limit));
    return fields_[field].get<index_t>();
  }

  /// The same where 0 may be said.
  index_t size_or_zero(const std::string& field, index_t otherwise) const {
    return has(field) && fields_[field] == 0 ? 0 : size(field, otherwise);
  }

  /// A positive finite number.
  double number(const std::string& field, double otherwise) const {
    if (!has(field)) return otherwise;
    if (!fields_[field].is_number()) throw bad(field, "a number");
    const double value = fields_[field].get<double>();
    if (!(value > 0) || !std::isfinite(value)) throw bad(field, "a positive number");
    return value;
  }

  /// An array of `count` positive numbers.
  std::vector<double> numbers(const std::string& field, index_t count) const {
    const std::string expected = "an array of " + std::to_string(count) + " positive numbers";
    if (!has(field) || !fields_[field].is_array() || index_t(fields_[field].size()) != count)
      throw bad(field, expected);
    std::vector<double> values;
    for (const nlohmann::json& value : fields_[field]) {
      if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>()))
        throw bad(field, expected);
      values.push_back(value.get<double>());
    }
    return values;
  }

  /// True or false.
  bool boolean(const std::string& field, bool otherwise) const {
    if (!has(field)) return otherwise;
    if (!fields_[field].is_boolean()) throw bad(field, "true or false");
    return fields_[field].get<bool>();
  }

  /// A text; empty where there is none.
  std::string text(const std::string& field) const {
    if (!has(field)) return {};
    if (!fields_[field].is_string()) throw bad(field, "a text");
    return fields_[field].get<std::string>();
  }

  /// An array of texts; empty where there is none.
  std::vector<std::string> texts(const std::string& field) const {
    if (!has(field)) return {};
    std::vector<std::string> values;
    if (!fields_[field].is_array()) throw bad(field, "an array of texts");
    for (const nlohmann::json& value : fields_[field]) {
      if (!value.is_string()) throw bad(field, "an array of texts");
      values.push_back(value.get<std::string>());
    }
    return values;
  }

  /// A token id below `vocab_size`; `otherwise` where there is none, -1 where it is null.
  std::int32_t token(const std::string& field, std::int32_t otherwise, index_t vocab_size) const {
    if (is_null(field)) return -1;
    const std::string expected =
        "a token id from 0 to " + std::to_string(vocab_size - 1) + " (vocab_size - 1)";
    if (!fields_.contains(field)) {
      if (otherwise >= vocab_size) throw bad(field, expected);
      return otherwise;
    }
    if (!fields_[field].is_number_unsigned() ||
        fields_[field].get<std::uint64_t>() >= std::uint64_t(vocab_size))
      throw bad(field, expected);
    return fields_[field].get<std::int32_t>();
  }

  /// Throws unless the field is absent, null or false: what it asks for is not supported.
  void require_false(const std::string& field) const {
    if (boolean(field, false)) throw bad(field, "false, the only value that is supported");
  }

  /// The fields of an object.
  ConfigReader object(const std::string& field) const {
    if (!has(field) || !fields_[field].is_object()) throw bad(field, "an object");
    return {file_ + ": " + field, fields_[field]};
  }

  /// Throws where the configuration is that of weights that are not plain numbers any more.
  void refuse_quantized() const {
    for (const char* field : {"quantization_config", "compression_config"}) {
      if (!has(field)) continue;
      const nlohmann::json& quantization = fields_[field];
      const bool named = quantization.is_object() && quantization.contains("quant_method") &&
                         quantization["quant_method"].is_string();
      throw detail::already_quantized(file_ + ": " + field,
                                      named ? quantization["quant_method"].get<std::string>()
                                            : "a program that does not give its name");
    }
  }

 private:
  std::string file_;
  const nlohmann::json& fields_;
};

}  // namespace pare
