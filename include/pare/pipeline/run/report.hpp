// What reports say of a run: every option in force, the plan, perplexities.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "pare/model/architecture.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/dispatch.hpp"
#include "pare/pipeline/options_json.hpp"
#include "pare/pipeline/plan.hpp"
#include "pare/report/json.hpp"

namespace pare::inline PARE_TARGET {

/// Perplexities by the names of the texts, in their order.
using Perplexities = std::vector<std::pair<std::string, double>>;

/// An object with a member for every text.
inline Json to_json(const Perplexities& perplexities) {
  Json json = Json::object();
  for (const auto& [name, value] : perplexities) json[name] = value;
  return json;
}

/// A plan without its widths and group sizes, which the statistics have.
inline Json to_json(const ModelPlan& plan) {
  Json patterns = Json::object();
  for (const LinearPlan& linear : plan.linears) patterns[linear.name] = to_string(linear.pattern);
  Json json{{"bits_per_weight", plan.bits_per_weight},
            {"predicted_loss", plan.predicted_loss},
            {"bound", plan.bound},
            {"gap", plan.predicted_loss - plan.bound},
            {"uniform_loss", plan.uniform_loss ? Json(*plan.uniform_loss) : Json()},
            {"uniform_bits", plan.uniform_bits ? Json(*plan.uniform_bits) : Json()},
            {"uniform_kept", plan.uniform_kept},
            {"patterns", patterns}};
  if (!plan.rotation) return json;
  json["rotated"] = Json::array();
  for (const LinearPlan& linear : plan.linears)
    if (linear.rotated) json["rotated"].push_back(linear.name);
  return json;
}

/// What a model is stored in, as reports name it: float32, float16 or bfloat16.
inline std::string dtype_word(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    default:
      return "float32";
  }
}

/// Every option that decides what a compression gives, by the names of a report; read_packed_report
/// reads them back.
/// @param policy   who chooses the widths
/// @param options  how; the solver's are in it
/// @param windows  what is calibrated on
/// @param seqlen   tokens of a window
/// @param model    its shape
/// @param backend  name of the backend
/// @param dtype    what the model is stored in while it is worked on
inline Json run_config(PolicyKind policy, const ModelCompressionOptions& options, index_t windows,
                       index_t seqlen, const Architecture& model, const std::string& backend,
                       DType dtype) {
  Json json = to_json(CompressionRequest{policy, options.solver});
  json.erase("half_scale");  // reports hold it further down, and always
  json["nsamples"] = windows;
  json["seqlen"] = seqlen;
  json["minlayer"] = options.selection.first_layer;
  json["maxlayer"] = std::min(options.selection.last_layer, model.num_hidden_layers);
  json["prune_only"] = options.selection.name_part;
  json["invert"] = options.selection.invert;
  json["gmp"] = options.magnitude;
  json["true_sequential"] = options.true_sequential;
  json["asymmetric"] = options.asymmetric;
  json["keep_zeros"] = options.keep_zeros;
  if (options.rotation) json["rotation_seed"] = options.rotation->seed;
  json["half_scale"] = options.solver.grid.half_scale;
  json["backend"] = backend;
  json["dtype"] = dtype_word(dtype);
  json["family"] = model.family;
  return json;
}

}  // namespace pare
