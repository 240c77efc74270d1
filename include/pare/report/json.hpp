// Statistics as JSON.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "pare/core/channel.hpp"
#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/report/statistics.hpp"

namespace pare::inline PARE_TARGET {

/// JSON whose members keep the order in which they were added.
using Json = nlohmann::ordered_json;

namespace detail {

inline Json optional_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

inline Json histogram_json(const std::map<int, index_t>& histogram) {
  Json json = Json::object();
  for (const auto& [bits, count] : histogram) json[std::to_string(bits)] = count;
  return json;
}

}  // namespace detail

/// JSON has no infinity and no NaN, and null is written for them. This is `json` with
/// {"number": "inf"}, "-inf" or "nan" instead, which numbers_of_json() reads.
inline Json exact_json(Json json) {
  if (json.is_structured()) {
    for (Json& child : json) child = exact_json(std::move(child));
  } else if (json.is_number_float() && !std::isfinite(json.get<double>())) {
    const double value = json.get<double>();
    return {{"number", std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"}};
  }
  return json;
}

/// The inverse: what exact_json() was given.
inline Json numbers_of_json(Json json) {
  if (!json.is_structured()) return json;
  if (json.is_object() && json.size() == 1 && json.begin().key() == "number") {
    using limits = std::numeric_limits<double>;
    for (const auto& [text, value] : {std::pair{"nan", limits::quiet_NaN()},
                                      {"inf", limits::infinity()},
                                      {"-inf", -limits::infinity()}})
      if (json.front() == text) return value;
  }
  for (Json& child : json) child = numbers_of_json(std::move(child));
  return json;
}

/// A whole number that was read, from 0 to `largest`; nlohmann's conversion takes any number,
/// whether it fits or not. Throws format_error that begins with `what`.
inline std::int64_t whole_number(const Json& json, const std::string& what,
                                 std::int64_t largest = std::numeric_limits<int>::max()) {
  if (!json.is_number_unsigned() || json.get<std::uint64_t>() > std::uint64_t(largest))
    throw format_error(what + ": expected a whole number from 0 to " + std::to_string(largest) +
                       ", got " + (json.is_number() ? json.dump() : json.type_name()));
  return json.get<std::int64_t>();
}

/// One linear; average_bits is null without a quantizer, score null without mixed precision,
/// rounding_loss and group_size there only where they are not 0, mask_search and greedy_loss only
/// where more than a greedy mask was asked for.
inline Json to_json(const LinearStatistics& linear) {
  Json json{{"name", linear.name},
            {"rows", linear.rows},
            {"columns", linear.columns},
            {"axis", to_string(linear.axis)},
            {"channels", linear.channels},
            {"sparsity", linear.sparsity},
            {"zeros", linear.zeros},
            {"average_bits", detail::optional_json(linear.average_bits)},
            {"bits_histogram", detail::histogram_json(linear.bits_histogram)},
            {"score", nullptr},
            {"loss", linear.loss},
            {"damping", linear.damping},
            {"damping_retries", linear.damping_retries},
            {"stored_bits_per_weight", linear.stored_bits / double(linear.weights())},
            {"seconds", linear.seconds}};
  if (linear.score)
    json["score"] = {{"lowest", linear.score->lowest},
                     {"mean", linear.score->mean},
                     {"highest", linear.score->highest}};
  if (linear.group_size != 0) json["group_size"] = linear.group_size;
  if (linear.rounding_loss != 0) json["rounding_loss"] = linear.rounding_loss;
  if (linear.greedy_loss) {
    json["mask_search"] = linear.mask_search;
    json["greedy_loss"] = *linear.greedy_loss;
  }
  return json;
}

/// What to_json says of a linear, and the bits it stores exactly, for reading it back.
inline Json record_json(const LinearStatistics& linear) {
  Json json = to_json(linear);
  json["stored_bits"] = linear.stored_bits;
  return json;
}

/// @param json  what record_json gave
/// @throws nlohmann::json::exception when a member is missing or is of another type, format_error
///         for a width that is no number
inline LinearStatistics linear_statistics_of_json(const Json& json) {
  LinearStatistics linear;
  json.at("name").get_to(linear.name);
  json.at("rows").get_to(linear.rows);
  json.at("columns").get_to(linear.columns);
  linear.axis = json.at("axis") == "input" ? ChannelAxis::input : ChannelAxis::output;
  json.at("channels").get_to(linear.channels);
  for (const auto& [bits, count] : json.at("bits_histogram").items())
    linear.bits_histogram[detail::whole_number_of_text<std::uint8_t>(
        bits, linear.name + ": bits_histogram")] = count.get<index_t>();
  if (!json.at("average_bits").is_null()) linear.average_bits = json["average_bits"].get<double>();
  if (const Json& score = json.at("score"); !score.is_null())
    linear.score = Range{score.at("lowest"), score.at("mean"), score.at("highest")};
  json.at("sparsity").get_to(linear.sparsity);
  json.at("zeros").get_to(linear.zeros);
  json.at("loss").get_to(linear.loss);
  linear.rounding_loss = json.value("rounding_loss", 0.0);
  linear.group_size = json.value("group_size", index_t{0});
  if (json.contains("greedy_loss")) {
    json.at("mask_search").get_to(linear.mask_search);
    linear.greedy_loss = json.at("greedy_loss").get<double>();
  }
  json.at("damping").get_to(linear.damping);
  json.at("damping_retries").get_to(linear.damping_retries);
  json.at("stored_bits").get_to(linear.stored_bits);
  json.at("seconds").get_to(linear.seconds);
  return linear;
}

/// The totals, by the names of their members; added_bits_per_weight only where it is not 0.
inline Json to_json(const Totals& t) {
  Json json{{"layers", t.linears},
            {"weights", t.weights},
            {"channels", t.channels},
            {"average_bits", detail::optional_json(t.average_bits)},
            {"bits_histogram", detail::histogram_json(t.bits_histogram)},
            {"sparsity", t.sparsity},
            {"zeros", t.zeros},
            {"loss", t.loss},
            {"stored_bits_per_weight", t.stored_bits_per_weight},
            {"seconds", t.seconds}};
  if (t.added_bits_per_weight != 0) json["added_bits_per_weight"] = t.added_bits_per_weight;
  return json;
}

/// {"layers": [...], "totals": {...}}
inline Json to_json(const Statistics& statistics) {
  Json linears = Json::array();
  for (const LinearStatistics& linear : statistics.linears) linears.push_back(to_json(linear));
  return {{"layers", std::move(linears)}, {"totals", to_json(totals(statistics))}};
}

}  // namespace pare
