// Options, patterns and requests as JSON: every member is written and read in one place, whatever a
// file calls it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "pare/core/error.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/report/json.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// A member of SolverOptions.
enum class Option : std::uint8_t {
  sparsity,
  zeros,
  of,
  bits,
  target_average_bits,
  tiers,
  axis,
  symmetric,
  clip_search,
  half_scale,
  scale_digits,
  group_size,
  group_fit,
  damping,
  block_size,
  act_order,
  mask_search,
  refine,
  mask_region
};

/// What a file calls a member.
using OptionName = std::pair<const char*, Option>;

/// What reports and the command line call the members, in the order of a report.
inline constexpr OptionName report_pattern[] = {{"sparsity", Option::sparsity},
                                                {"prunen", Option::zeros},
                                                {"prunem", Option::of},
                                                {"wbits", Option::bits},
                                                {"target_avg_bits", Option::target_average_bits}};
inline constexpr OptionName report_solver[] = {{"axis", Option::axis},
                                               {"act_order", Option::act_order},
                                               {"clip_search", Option::clip_search},
                                               {"symmetric", Option::symmetric},
                                               {"group_size", Option::group_size},
                                               {"group_fit", Option::group_fit},
                                               {"percdamp", Option::damping},
                                               {"blocksize", Option::block_size},
                                               {"half_scale", Option::half_scale},
                                               {"scale_digits", Option::scale_digits},
                                               {"mask_search", Option::mask_search},
                                               {"refine", Option::refine},
                                               {"mask_region", Option::mask_region}};
/// What files of sensitivities call those that a plan does not choose, in their order.
inline constexpr OptionName sensitivity_solver[] = {{"axis", Option::axis},
                                                    {"symmetric", Option::symmetric},
                                                    {"clip_search", Option::clip_search},
                                                    {"half_scale", Option::half_scale},
                                                    {"scale_digits", Option::scale_digits},
                                                    {"group_fit", Option::group_fit},
                                                    {"damping", Option::damping},
                                                    {"block_size", Option::block_size},
                                                    {"act_order", Option::act_order},
                                                    {"mask_search", Option::mask_search},
                                                    {"refine", Option::refine},
                                                    {"mask_region", Option::mask_region}};

/// The value of a member.
inline Json value_json(const SolverOptions& o, Option option) {
  const auto value = [](const auto& given) { return given ? Json(*given) : Json(nullptr); };
  switch (option) {
    case Option::sparsity:
      return value(o.sparsity);
    case Option::zeros:
      return value(o.zeros);
    case Option::of:
      return value(o.of);
    case Option::bits:
      return value(o.bits);
    case Option::target_average_bits:
      return value(o.target_average_bits);
    case Option::tiers:
      return value(o.tiers);
    case Option::axis:
      return Json(to_string(o.axis));
    case Option::symmetric:
      return Json(o.grid.symmetric);
    case Option::clip_search:
      return Json(o.grid.clip_search);
    case Option::half_scale:
      return Json(o.grid.half_scale);
    case Option::scale_digits:
      return Json(o.grid.scale_digits);
    case Option::group_size:
      return o.group_size == dividing_group_size ? Json("auto") : Json(o.group_size);
    case Option::group_fit:
      return Json(to_string(o.group_fit));
    case Option::damping:
      return Json(o.damping);
    case Option::block_size:
      return Json(o.block_size);
    case Option::act_order:
      return Json(o.act_order);
    case Option::mask_search:
      return Json(to_string(o.mask_search));
    case Option::refine:
      return Json(o.refine);
    case Option::mask_region:
      break;
  }
  return o.mask_region ? Json(to_string(*o.mask_region)) : Json(nullptr);
}

/// Whether files may lack a member, which then has its default.
inline bool may_be_missing(Option option) {
  return option == Option::half_scale || option == Option::scale_digits ||
         option == Option::group_size || option == Option::group_fit ||
         option == Option::mask_search || option == Option::refine || option == Option::mask_region;
}

/// The same as it is written: of what files may lack only what is not the default.
inline std::optional<Json> option_json(const SolverOptions& o, Option option) {
  Json value = value_json(o, option);
  if (may_be_missing(option) && value == value_json(SolverOptions{}, option)) return std::nullopt;
  return std::optional<Json>(std::in_place, std::move(value));
}

/// The one of `values` that `json` names by to_string(). Throws format_error that begins with
/// `what`.
template <class V, std::size_t N>
V named_value(const Json& json, const V (&values)[N], const std::string& what) {
  std::string names;
  for (const V value : values) {
    if (json == to_string(value)) return value;
    names += (names.empty() ? "" : " or ") + std::string(to_string(value));
  }
  throw format_error(what + ": expected " + names + ", got " + json.dump());
}

/// Sets a member. Throws Json::exception for a value of another type, format_error that begins with
/// `what` for a number that is none of it.
inline void set_option(SolverOptions& o, Option option, const Json& json, const std::string& what) {
  const auto number = [&](std::optional<int>& into) {
    into = json.is_null() ? std::nullopt : std::optional(int(whole_number(json, what)));
  };
  const auto real = [&](std::optional<double>& into) {
    into = json.is_null() ? std::nullopt : std::optional(json.get<double>());
  };
  switch (option) {
    case Option::sparsity:
      return real(o.sparsity);
    case Option::zeros:
      return number(o.zeros);
    case Option::of:
      return number(o.of);
    case Option::bits:
      return number(o.bits);
    case Option::target_average_bits:
      return real(o.target_average_bits);
    case Option::tiers:
      o.tiers.reset();
      if (json.is_null()) return;
      o.tiers.emplace();
      for (const Json& width : json) o.tiers->push_back(int(whole_number(width, what)));
      return;
    case Option::axis:
      if (json != "output" && json != "input")
        throw format_error(what + ": expected output or input, got " + json.dump());
      o.axis = json == "input" ? ChannelAxis::input : ChannelAxis::output;
      return;
    case Option::symmetric:
      json.get_to(o.grid.symmetric);
      return;
    case Option::clip_search:
      json.get_to(o.grid.clip_search);
      return;
    case Option::half_scale:
      json.get_to(o.grid.half_scale);
      return;
    case Option::scale_digits:
      o.grid.scale_digits = int(whole_number(json, what));
      return;
    case Option::group_size:
      o.group_size =
          json == "auto"
              ? dividing_group_size
              : index_t(whole_number(json, what, std::numeric_limits<std::int64_t>::max()));
      return;
    case Option::group_fit:
      if (json != "dense" && json != "compensated")
        throw format_error(what + ": expected dense or compensated, got " + json.dump());
      o.group_fit = json == "compensated" ? GroupFit::compensated : GroupFit::dense;
      return;
    case Option::damping:
      json.get_to(o.damping);
      return;
    case Option::block_size:
      o.block_size = index_t(whole_number(json, what, std::numeric_limits<std::int64_t>::max()));
      return;
    case Option::act_order:
      json.get_to(o.act_order);
      return;
    case Option::mask_search:
      o.mask_search = named_value(json, {MaskSearch::greedy, MaskSearch::alternating}, what);
      return;
    case Option::refine:
      json.get_to(o.refine);
      return;
    case Option::mask_region:
      o.mask_region =
          named_value(json, {MaskRegion::block, MaskRegion::row, MaskRegion::linear}, what);
      return;
  }
}

/// Adds members to an object by the names of a file.
inline void add_options(Json& json, const SolverOptions& options,
                        std::span<const OptionName> names) {
  for (const auto& [name, option] : names)
    if (const std::optional<Json> value = option_json(options, option)) json[name] = *value;
}

/// Reads them back; `who` begins messages.
inline void read_options(SolverOptions& options, const Json& json,
                         std::span<const OptionName> names, const std::string& who) {
  for (const auto& [name, option] : names)
    if (!may_be_missing(option) || json.contains(name))
      set_option(options, option, json.at(name), who + ": " + name);
}

}  // namespace detail

/// {}, {"sparsity": share} or {"zeros": n, "group": m}, as files of sensitivities have it.
inline Json to_json(const Pattern& pattern) {
  switch (pattern.kind) {
    case PatternKind::unstructured:
      return {{"sparsity", pattern.sparsity}};
    case PatternKind::n_of_m:
      return {{"zeros", pattern.zeros}, {"group", pattern.of}};
    case PatternKind::dense:
      break;
  }
  return Json::object();
}

/// Reads it back; `who` begins messages.
/// @throws format_error, Json::exception
inline Pattern pattern_of_json(const Json& json, const std::string& who) {
  if (json.contains("sparsity")) return unstructured(json.at("sparsity").get<double>());
  if (!json.contains("zeros")) return {};
  const auto number = [&](const char* key) {
    return int(whole_number(json.at(key), who + ": " + key));
  };
  return n_of_m(number("zeros"), number("group"));
}

/// Every option in force, by the names of a report. What files may lack is there when it is not the
/// default.
inline Json to_json(const CompressionRequest& request) {
  Json json = Json::object();
  detail::add_options(json, request.solver, detail::report_pattern);
  const bool mixed = request.policy != PolicyKind::none;
  json["bit_method"] =
      !mixed ? Json(nullptr) : Json(request.policy == PolicyKind::quantile ? "quantile" : "budget");
  json["tiers"] = mixed ? Json(request.solver.tiers.value_or(default_tiers())) : Json(nullptr);
  detail::add_options(json, request.solver, detail::report_solver);
  return json;
}

/// Reads it back; `who` begins messages. Tiers that are the default ones read as unset.
/// @throws format_error, Json::exception
inline CompressionRequest request_of_json(const Json& json, const std::string& who) {
  CompressionRequest request;
  detail::read_options(request.solver, json, detail::report_pattern, who);
  detail::read_options(request.solver, json, detail::report_solver, who);
  if (const Json& method = json.at("bit_method"); !method.is_null()) {
    if (method != "quantile" && method != "budget")
      throw format_error(who + ": bit_method: expected quantile, budget or null, got " +
                         method.dump());
    request.policy = method == "quantile" ? PolicyKind::quantile : PolicyKind::budget;
    detail::set_option(request.solver, detail::Option::tiers, json.at("tiers"), who + ": tiers");
    if (request.solver.tiers == default_tiers()) request.solver.tiers.reset();
  }
  return request;
}

}  // namespace pare
