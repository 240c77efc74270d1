// Statistics as JSON.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include <nlohmann/json.hpp>

#include "pare/core/error.hpp"
#include "pare/report/statistics.hpp"

namespace pare {

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

/// A whole number that was read, from 0 to `largest`; nlohmann's conversion takes any number,
/// whether it fits or not. Throws format_error that begins with `what`.
inline std::int64_t whole_number(const Json& json, const std::string& what,
                                 std::int64_t largest = std::numeric_limits<int>::max()) {
  if (!json.is_number_unsigned() || json.get<std::uint64_t>() > std::uint64_t(largest))
    throw format_error(what + ": expected a whole number from 0 to " + std::to_string(largest) +
                       ", got " + (json.is_number() ? json.dump() : json.type_name()));
  return json.get<std::int64_t>();
}

/// One linear; average_bits is null without a quantizer, score null without mixed precision.
inline Json to_json(const LayerStatistics& layer) {
  Json json{{"name", layer.name},
            {"rows", layer.rows},
            {"columns", layer.columns},
            {"axis", to_string(layer.axis)},
            {"channels", layer.channels},
            {"sparsity", layer.sparsity},
            {"zeros", layer.zeros},
            {"average_bits", detail::optional_json(layer.average_bits)},
            {"bits_histogram", detail::histogram_json(layer.bits_histogram)},
            {"score", nullptr},
            {"loss", layer.loss},
            {"damping", layer.damping},
            {"damping_retries", layer.damping_retries},
            {"stored_bits_per_weight", layer.stored_bits / double(layer.weights())},
            {"seconds", layer.seconds}};
  if (layer.score)
    json["score"] = {{"lowest", layer.score->lowest},
                     {"mean", layer.score->mean},
                     {"highest", layer.score->highest}};
  return json;
}

/// What to_json says of a linear and the bits it stores, exactly, for reading it back.
inline Json exact_json(const LayerStatistics& layer) {
  Json json = to_json(layer);
  json["stored_bits"] = layer.stored_bits;
  return json;
}

/// @param json  what exact_json gave
/// @throws nlohmann::json::exception when a member is missing or is of another type
inline LayerStatistics layer_statistics_of_json(const Json& json) {
  LayerStatistics layer;
  json.at("name").get_to(layer.name);
  json.at("rows").get_to(layer.rows);
  json.at("columns").get_to(layer.columns);
  layer.axis = json.at("axis") == "input" ? ChannelAxis::input : ChannelAxis::output;
  json.at("channels").get_to(layer.channels);
  for (const auto& [bits, count] : json.at("bits_histogram").items())
    layer.bits_histogram[std::stoi(bits)] = count.get<index_t>();
  if (!json.at("average_bits").is_null()) layer.average_bits = json["average_bits"].get<double>();
  if (const Json& score = json.at("score"); !score.is_null())
    layer.score = Range{score.at("lowest"), score.at("mean"), score.at("highest")};
  json.at("sparsity").get_to(layer.sparsity);
  json.at("zeros").get_to(layer.zeros);
  json.at("loss").get_to(layer.loss);
  json.at("damping").get_to(layer.damping);
  json.at("damping_retries").get_to(layer.damping_retries);
  json.at("stored_bits").get_to(layer.stored_bits);
  json.at("seconds").get_to(layer.seconds);
  return layer;
}

/// The totals, by the names of their members.
inline Json to_json(const Totals& t) {
  return {{"layers", t.layers},
          {"weights", t.weights},
          {"channels", t.channels},
          {"average_bits", detail::optional_json(t.average_bits)},
          {"bits_histogram", detail::histogram_json(t.bits_histogram)},
          {"sparsity", t.sparsity},
          {"zeros", t.zeros},
          {"loss", t.loss},
          {"stored_bits_per_weight", t.stored_bits_per_weight},
          {"seconds", t.seconds}};
}

/// {"layers": [...], "totals": {...}}
inline Json to_json(const Statistics& statistics) {
  Json layers = Json::array();
  for (const LayerStatistics& layer : statistics.layers) layers.push_back(to_json(layer));
  return {{"layers", std::move(layers)}, {"totals", to_json(totals(statistics))}};
}

}  // namespace pare
