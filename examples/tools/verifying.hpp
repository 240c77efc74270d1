// pare verify: a packed model held against its original and against its own report.
#pragma once

#include <cstdio>
#include <optional>
#include <string>

#include "backends/choice.hpp"
#include "pare/pipeline/run/verify_folder.hpp"
#include "pare/report/text.hpp"
#include "tools/packing.hpp"
#include "tools/rotating.hpp"

namespace tool {

/// What verify reads from the command line.
struct VerifyArguments {
  std::string original, packed, text;
  std::optional<std::string> backend;
};

/// Verifies. Prints what was checked; throws pare::error when anything differs.
inline void verify_packed(const VerifyArguments& arguments) {
  const NamedBackend backend = chosen_backend(arguments.backend);
  require_dense_model(arguments.original);
  require_packed_model("verify", arguments.packed);
  const fs::path folder = arguments.packed, file = folder / pare::packed_report_name;
  const pare::PackedReport report = pare::read_packed_report(file);
  if (report.options.magnitude && !arguments.text.empty())
    throw usage_error("verify with TEXT " + arguments.text +
                      ": magnitude pruning made this model and read no text; leave it out");
  fs::path original = arguments.original;
  std::optional<RotatedFolder> rotated;
  if (report.folded_seed) {
    rotated.emplace();
    fold_into(backend, original, rotated->path(), *report.folded_seed);
    original = rotated->path();
  }
  ModelSource source{.folder = original, .whole = true};
  source.dtype = dtype_of(report.dtype, backend);
  const pare::Architecture config = pare::load_architecture(arguments.original);
  if (report.seqlen < 1 ||
      (!config.extrapolates() && report.seqlen > config.max_position_embeddings) ||
      report.windows < 0)
    throw pare::format_error(file.string() + ": seqlen and nsamples do not fit the model");
  pare::CalibrationWindows windows;
  if (!arguments.text.empty()) {
    const pare::Tokenizer tokenizer = read_tokenizer(arguments.original, config);
    try {
      windows = pare::reported_windows(report,
                                       pare::window_ids(read_ids(tokenizer, config, arguments.text),
                                                        pare::leading_ids(tokenizer, config),
                                                        config, report.seqlen));
    } catch (const pare::argument_error& e) {
      throw pare::error(arguments.text + ": " + e.what());
    }
  }

  const bool with_losses = windows.count() > 0 || report.options.magnitude;
  const auto shown = [&](const pare::Difference& difference) {
    return (difference.where == "windows" ? arguments.text : difference.where) + ": " +
           difference.what;
  };
  pare::VerifyProgress progress;
  progress.differs = [&](const pare::Difference& difference) {
    std::printf("DIFFERS: %s\n", shown(difference).c_str());
  };
  progress.compared = [](std::size_t as_before, std::size_t packed) {
    std::printf("original           %zu tensors as they were, %zu packed\n", as_before, packed);
  };
  progress.recomputed = [] {
    std::printf("\n%-28s %13s %7s %9s %9s %13s %13s\n", "linear", "shape", "bits", "zeros",
                "stored", "loss", "recorded");
  };
  progress.linear = [&](const pare::RecomputedLinear& linear, double recorded) {
    const pare::LinearStatistics& s = linear.statistics;
    const std::string shape = std::to_string(s.rows) + " x " + std::to_string(s.columns);
    const std::string loss =
        with_losses ? pare::detail::format_text("%.6g", s.loss) : std::string("-");
    std::printf("%-28s %13s %7s %8.2f%% %9.3f %13s %13.6g\n", s.name.c_str(), shape.c_str(),
                pare::detail::bits_text(s.average_bits).c_str(), 100 * s.zeros,
                s.stored_bits / double(s.weights()), loss.c_str(), recorded);
  };
  const pare::FolderVerification result = pare::verify_folder(
      original, folder, report, windows,
      [&](const pare::PackedFile& packed, const pare::CalibrationWindows& of) {
        return backend.load_model(source)->recompute(packed, of, report.options, report.recorded);
      },
      progress);
  std::fflush(stdout);
  const std::size_t count = result.differences.size();
  if (count > 0)
    throw pare::error(arguments.packed + ": " + std::to_string(count) +
                      (count == 1 ? " difference: " : " differences, the first: ") +
                      shown(result.differences.front()));
  std::printf("\nverified: %zu linears, every mask, code and grid%s\n", result.linears.size(),
              with_losses ? ", and every loss" : "; no TEXT was given, so no loss was computed");
}

}  // namespace tool
