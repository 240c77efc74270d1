// Sensitivities as a JSON file, to be measured once and used for any target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pare/core/channel.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/core/text.hpp"
#include "pare/pipeline/options_json.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/report/json.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

inline constexpr int sensitivity_version = 1;

/// A member that is a whole number.
inline std::int64_t sensitivity_number(const Json& json, const char* key) {
  return whole_number(json.at(key), std::string("sensitivities: ") + key);
}

inline std::vector<int> sensitivity_widths(const Json& json, const char* key) {
  std::vector<int> widths;
  for (const Json& width : json.at(key))
    widths.push_back(int(whole_number(width, std::string("sensitivities: ") + key)));
  return widths;
}

}  // namespace detail

/// Everything that was measured, so that a later run can read it.
inline Json to_json(const Sensitivities& s) {
  Json linears = Json::array();
  for (const LinearSensitivity& linear : s.linears) {
    Json modes = Json::array();
    for (const ModeSensitivity& mode : linear.modes) {
      Json divergence = Json::object();
      for (const auto& [bits, value] : mode.divergence) divergence[std::to_string(bits)] = value;
      modes.push_back({{"pattern", to_json(mode.pattern)},
                       {"divergence", divergence},
                       {"kept", mode.kept},
                       {"distortion", mode.distortion}});
      if (mode.group_size != 0) modes.back()["group_size"] = mode.group_size;
      if (s.rotation) modes.back()["rotated"] = mode.rotated;
    }
    linears.push_back({{"name", linear.name},
                       {"rows", linear.rows},
                       {"columns", linear.columns},
                       {"modes", modes}});
  }
  Json json{{"version", detail::sensitivity_version},
            {"model", hex_text(s.model)},
            {"text", hex_text(s.text)}};
  detail::add_options(json, s.solver, detail::sensitivity_solver);
  if (s.rotation) json["rotation_seed"] = s.rotation->seed;
  json["seqlen"] = s.seqlen;
  json["windows"] = s.windows;
  json["divergence_windows"] = s.divergence_windows;
  json["divergence_widths"] = s.divergence_widths;
  json["widths"] = s.widths;
  json["linears"] = std::move(linears);
  return exact_json(std::move(json));
}

/// @param text  the content of a file that to_json wrote
/// @throws format_error saying what is wrong with it
inline Sensitivities sensitivities_of_json(const std::string& text) {
  const auto number = detail::sensitivity_number;
  try {
    detail::parse_json_object("sensitivities", text);  // the checks of a hostile file
    const Json json = numbers_of_json(Json::parse(text));
    if (json.at("version") != detail::sensitivity_version)
      throw format_error("sensitivities: expected version " +
                         std::to_string(detail::sensitivity_version) + ", got " +
                         json.at("version").dump());
    Sensitivities s;
    s.model = hash_of_hex(json.at("model").get<std::string>(), "sensitivities: model");
    s.text = hash_of_hex(json.at("text").get<std::string>(), "sensitivities: text");
    detail::read_options(s.solver, json, detail::sensitivity_solver, "sensitivities");
    if (json.contains("rotation_seed"))
      s.rotation = kernels::HadamardRotation{
          std::uint64_t(whole_number(json.at("rotation_seed"), "sensitivities: rotation_seed",
                                     std::numeric_limits<std::int64_t>::max()))};
    s.seqlen = number(json, "seqlen");
    s.windows = number(json, "windows");
    s.divergence_windows = number(json, "divergence_windows");
    s.divergence_widths = detail::sensitivity_widths(json, "divergence_widths");
    s.widths = detail::sensitivity_widths(json, "widths");
    for (const Json& item : json.at("linears")) {
      LinearSensitivity linear{item.at("name"), number(item, "rows"), number(item, "columns"), {}};
      const index_t channels = s.solver.axis == ChannelAxis::output ? linear.rows : linear.columns;
      for (const Json& m : item.at("modes")) {
        ModeSensitivity mode{pattern_of_json(m.at("pattern"), "sensitivities"),
                             m.at("distortion").get<std::vector<double>>(),
                             m.at("kept").get<std::vector<double>>(),
                             {},
                             m.contains("group_size") ? number(m, "group_size") : 0,
                             m.contains("rotated") ? m.at("rotated").get<bool>()
                                                   : s.rotation.has_value()};
        if (mode.rotated && !s.rotation)
          throw format_error("sensitivities: " + linear.name +
                             ": expected no rotated mode without rotation_seed");
        for (const auto& [bits, value] : m.at("divergence").items())
          mode.divergence[detail::whole_number_of_text<std::uint8_t>(
              bits, "sensitivities: " + linear.name + ": divergence")] = value;
        if (index_t(mode.kept.size()) != channels ||
            mode.distortion.size() != mode.kept.size() * s.widths.size())
          throw format_error("sensitivities: " + linear.name + ": expected " +
                             std::to_string(channels) + " channels with " +
                             std::to_string(s.widths.size()) + " widths each");
        linear.modes.push_back(std::move(mode));
      }
      if (linear.modes.empty())
        throw format_error("sensitivities: " + linear.name + ": expected at least one mode");
      s.linears.push_back(std::move(linear));
    }
    return s;
  } catch (const nlohmann::json::exception&) {
    throw format_error("sensitivities: a member is missing or is of another type than expected");
  }
}

/// The sensitivities in a file that to_json wrote. Throws io_error, format_error; the message
/// begins with the file's name.
inline Sensitivities read_sensitivities(const std::filesystem::path& file) {
  const std::string text = detail::read_whole_file(file);
  try {
    return sensitivities_of_json(text);
  } catch (const format_error& e) {
    throw format_error(file.string() + ": " + e.what());
  }
}

/// Throws argument_error naming the first thing in which measured sensitivities are not those that
/// `options` would measure on this model and text.
/// @param s        what was measured
/// @param model    model_fingerprint of the model
/// @param windows  the calibration text
/// @param options  what a measurement would be asked for
inline void require_measured_for(const Sensitivities& s, std::uint64_t model,
                                 const CalibrationWindows& windows,
                                 const SensitivityOptions& options) {
  const auto require = [](const std::string& what, const auto& expected, const auto& found) {
    if (expected == found) return;
    std::string message = "sensitivities: measured with another " + what;
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(expected)>>)
      message += ": expected " + std::to_string(expected) + ", found " + std::to_string(found);
    throw argument_error(message);
  };
  require("model", model, s.model);
  require("seqlen", windows.seqlen, s.seqlen);
  require("number of calibration windows", windows.count(), s.windows);
  require("calibration text", text_fingerprint(windows), s.text);
  for (const auto& [name, option] : detail::sensitivity_solver) {
    const Json expected = detail::value_json(options.solver, option);
    const Json found = detail::value_json(s.solver, option);
    if (expected != found)
      throw argument_error(std::string("sensitivities: measured with another ") + name +
                           ": expected " + expected.dump() + ", found " + found.dump());
  }
  require("rotation", options.rotation, s.rotation);
  require("list of widths", options.widths, s.widths);
  if (options.divergence_windows)
    require("number of windows for the divergence", *options.divergence_windows,
            s.divergence_windows);
  for (const int width : options.divergence_widths)
    if (std::find(s.divergence_widths.begin(), s.divergence_widths.end(), width) ==
        s.divergence_widths.end())
      throw argument_error("sensitivities: no divergence was measured at " + std::to_string(width) +
                           " bits");
  for (const LinearSensitivity& linear : s.linears) {
    std::vector<Pattern> patterns, asked_patterns;
    std::vector<index_t> group_sizes, asked_sizes;
    std::set<bool> bases, asked_bases;
    for (const ModeSensitivity& mode : linear.modes) {
      patterns.push_back(mode.pattern);
      group_sizes.push_back(mode.group_size);
      bases.insert(mode.rotated);
    }
    for (const bool rotated : measured_rotations(options)) {
      asked_bases.insert(rotated);
      for (const Pattern& pattern : options.patterns)
        for (const index_t size : measured_group_sizes(options, linear.columns)) {
          asked_patterns.push_back(pattern);
          asked_sizes.push_back(size);
        }
    }
    require("choice of rotations for " + linear.name, asked_bases, bases);
    require("sparsity pattern for " + linear.name, asked_patterns, patterns);
    require("group size for " + linear.name, asked_sizes, group_sizes);
  }
}

}  // namespace pare
