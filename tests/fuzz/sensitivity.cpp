// Sensitivities from any text, and the plans made of what is accepted for a model.
#include "fuzz.hpp"
#include "pare/pipeline/sensitivity_json.hpp"

namespace {

/// Whoever writes the file knows the model, the text and the options it is to be taken for.
void accept(const pare::Sensitivities& s) {
  pare::SensitivityOptions options;
  options.patterns.clear();
  for (const pare::ModeSensitivity& mode : s.linears.at(0).modes)
    options.patterns.push_back(mode.pattern);
  options.solver = s.solver;
  const pare::CalibrationWindows windows;
  pare::Sensitivities same = s;
  same.text = pare::text_fingerprint(windows);
  same.seqlen = same.windows = 0;
  pare::require_measured_for(same, s.model, windows, options);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::check(data, size, [](std::string_view text) {
    const pare::Sensitivities s = pare::sensitivities_of_json(std::string(text));
    if (s.linears.empty()) return;
    accept(s);
    for (const auto scope : {pare::PlanScope::layer, pare::PlanScope::model})
      for (const auto objective :
           {pare::PlanObjective::distortion, pare::PlanObjective::divergence})
        for (const auto budget : {pare::BudgetKind::code_bits, pare::BudgetKind::stored_bits}) try {
            const pare::ModelPlan plan = pare::plan_bits(s, {scope, objective, budget, 5.0});
            if (plan.linears.size() != s.linears.size() || !(plan.bits_per_weight <= 5.0 + 1e-6))
              std::abort();
          } catch (const pare::error&) {
          }
  });
}
