// pare-opt verify: a packed model held against its original and against its own report.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "backends/choice.hpp"
#include "opt/packing.hpp"
#include "pare/core/text.hpp"
#include "pare/pipeline/options_json.hpp"
#include "pare/pipeline/verify_packed.hpp"
#include "pare/storage/json.hpp"

namespace tool {

/// What verify reads from the command line.
struct VerifyArguments {
  std::string original, packed, text;
  std::optional<std::string> backend;
};

/// What a packed folder's report says of the compression.
struct PackedReport {
  pare::ModelCompressionOptions options;
  index_t seqlen = 0, windows = 0;
  std::string calibration;  ///< fingerprint of the calibration windows
  std::string dtype;
  std::uint64_t file_bytes = 0;
  std::map<std::string, std::string> checksums;             ///< by tensor
  std::vector<std::pair<std::string, pare::Json>> linears;  ///< by name, in order
  std::map<std::string, pare::RecordedLinear> recorded;     ///< by linear
};

/// Reads it. Throws format_error when it does not say what is needed.
inline PackedReport read_packed_report(const fs::path& file) {
  const std::string text = pare::detail::read_whole_file(file);
  pare::detail::parse_json_object(file.string(), text);  // the checks of a hostile file
  PackedReport report;
  const auto number = [&](const pare::Json& object, const char* key) {
    return pare::whole_number(object.at(key), file.string() + ": " + key);
  };
  try {
    const pare::Json json = pare::Json::parse(text);
    const pare::Json &config = json.at("config"), &packed = json.at("packed");
    pare::ModelCompressionOptions& options = report.options;
    options.solver = pare::request_of_json(config, file.string() + ": config").solver;
    options.selection.first_layer = number(config, "minlayer");
    options.selection.last_layer = number(config, "maxlayer");
    options.selection.name_part = config.at("prune_only").get<std::string>();
    options.selection.invert = config.at("invert").get<bool>();
    options.magnitude = config.at("gmp").get<bool>();
    options.true_sequential = config.at("true_sequential").get<bool>();
    options.asymmetric = config.at("asymmetric").get<double>();
    report.seqlen = number(config, "seqlen");
    report.windows = number(config, "nsamples");
    report.dtype = config.at("dtype").get<std::string>();
    report.calibration = packed.at("calibration").get<std::string>();
    report.file_bytes =
        std::uint64_t(pare::whole_number(packed.at("file_bytes"), file.string() + ": file_bytes",
                                         std::numeric_limits<std::int64_t>::max()));
    packed.at("checksums").get_to(report.checksums);
    for (const pare::Json& linear : json.at("layers")) {
      const std::string name = linear.at("name").get<std::string>();
      report.recorded[name] = {linear.at("damping").get<double>(), linear.at("loss").get<double>()};
      report.linears.emplace_back(name, linear);
    }
  } catch (const pare::Json::exception& e) {
    throw pare::format_error(file.string() +
                             ": not a report of compress --save-packed: " + e.what());
  }
  return report;
}

/// Collects what differs; each is printed where it is found.
class Differences {
 public:
  void add(const std::string& where, const std::string& what) {
    std::printf("DIFFERS: %s: %s\n", where.c_str(), what.c_str());
    if (count_++ == 0) first_ = where + ": " + what;
  }
  std::size_t count() const { return count_; }
  const std::string& first() const { return first_; }

 private:
  std::size_t count_ = 0;
  std::string first_;
};

namespace detail {

/// Everything of the model that is not packed, and what the packed linears were made from.
inline void compare_with_original(const fs::path& original, const pare::PackedFile& packed,
                                  const fs::path& folder, Differences& differences) {
  const pare::Checkpoint checkpoint(original);
  const std::set<std::string> tied = tied_head(pare::load_architecture(original), checkpoint);
  std::size_t known = 0, linears = 0;
  for (const auto& file : checkpoint.files())
    for (const pare::TensorInfo& info : file.tensors()) {
      if (!checkpoint.reads(file, info.name)) continue;
      const std::span<const std::byte> bytes = file.bytes(info);
      if (const pare::PackedEntry* entry = packed.find(info.name)) {
        ++linears;
        if (info.shape != entry->stored_shape() || info.dtype != pare::dtype_name(entry->dtype))
          differences.add(info.name, "the original has another shape or dtype");
        else if (pare::fingerprint(bytes) != entry->original)
          differences.add(info.name, "was made from other weights than the original's");
        continue;
      }
      const pare::TensorInfo* kept = packed.file().find(info.name);
      if (kept == nullptr && tied.contains(info.name)) continue;  // the embeddings, once more
      if (kept == nullptr) {
        differences.add(info.name, "is missing in the packed model");
        continue;
      }
      ++known;
      if (kept->dtype != info.dtype || kept->shape != info.shape ||
          !std::ranges::equal(packed.file().bytes(*kept), bytes))
        differences.add(info.name, "is not the original's, though it is not packed");
    }
  for (const pare::TensorInfo& info : packed.file().tensors())
    if (!packed.is_part(info.name) &&
        std::ranges::none_of(checkpoint.files(), [&](const pare::TensorFile& file) {
          return file.find(info.name) != nullptr;
        }))
      differences.add(info.name, "is not in the original");
  for (const pare::PackedEntry& entry : packed.linears())
    if (!checkpoint.find(entry.tensor)) differences.add(entry.tensor, "is not in the original");
  for (const char* name : model_files) {
    const bool before = fs::exists(original / name), after = fs::exists(folder / name);
    if (before != after || (before && pare::detail::read_whole_file(original / name) !=
                                          pare::detail::read_whole_file(folder / name)))
      differences.add(name, "is not the original's");
  }
  std::printf("original           %zu tensors as they were, %zu packed\n", known, linears);
}

/// What was counted of a linear against what was recorded.
inline void compare_linear(const pare::RecomputedLinear& found, const pare::Json& recorded,
                           bool with_loss, Differences& differences) {
  const pare::LinearStatistics& statistics = found.statistics;
  const pare::Json now = pare::to_json(statistics);
  std::vector<std::string> exact{"rows",
                                 "columns",
                                 "axis",
                                 "channels",
                                 "average_bits",
                                 "bits_histogram",
                                 "stored_bits_per_weight"};
  if (found.mask_stored) exact.push_back("sparsity");
  // Values that were only pruned may have become zero in the checkpoint's type.
  if (statistics.channels > 0) exact.push_back("zeros");
  for (const std::string& key : exact)
    if (!recorded.contains(key) || recorded[key] != now[key])
      differences.add(statistics.name,
                      key + ": recorded " +
                          (recorded.contains(key) ? recorded[key].dump() : "none") + ", found " +
                          now[key].dump());
  if (!found.mask_stored && recorded.contains("sparsity") && recorded["sparsity"].is_number() &&
      statistics.zeros < recorded["sparsity"].get<double>())
    differences.add(statistics.name, "zeros: recorded at least " + recorded["sparsity"].dump() +
                                         ", found " + now["zeros"].dump());
  if (with_loss && !found.loss_agrees)
    differences.add(statistics.name, "loss: recorded " + recorded["loss"].dump() + ", found " +
                                         pare::number_text(statistics.loss));
}

}  // namespace detail

/// Verifies. Prints what was checked; throws pare::error when anything differs.
inline void verify_packed(const VerifyArguments& arguments) {
  const NamedBackend backend = chosen_backend(arguments.backend);
  require_dense_model(arguments.original);
  require_packed_model("verify", arguments.packed);
  const fs::path folder = arguments.packed;
  const PackedReport report = read_packed_report(folder / packed_report_name);
  if (report.options.magnitude && !arguments.text.empty())
    throw usage_error("verify with TEXT " + arguments.text +
                      ": magnitude pruning made this model and read no text; leave it out");
  ModelSource source{.folder = arguments.original, .whole = true};
  source.dtype = dtype_of(report.dtype, backend);
  const pare::PackedFile file(folder);
  const pare::Architecture config = pare::load_architecture(arguments.original);
  if (report.seqlen < 1 ||
      (!config.extrapolates() && report.seqlen > config.max_position_embeddings) ||
      report.windows < 0)
    throw pare::format_error((folder / packed_report_name).string() +
                             ": seqlen and nsamples do not fit the model");

  Differences differences;
  pare::CalibrationWindows windows;
  if (!arguments.text.empty()) {
    const pare::Tokenizer tokenizer = read_tokenizer(arguments.original, config);
    std::vector<std::int32_t> ids = read_tokens(arguments.text, tokenizer, config, report.seqlen);
    if (index_t(ids.size()) / report.seqlen < report.windows)
      throw pare::error(arguments.text + ": the model was calibrated on " +
                        std::to_string(report.windows) + " windows of " +
                        std::to_string(report.seqlen) + " tokens, the text has " +
                        std::to_string(ids.size()) + " tokens");
    ids.resize(std::size_t(report.windows * report.seqlen));
    windows = {std::move(ids), report.seqlen};
    if (pare::hex_text(pare::text_fingerprint(windows)) != report.calibration)
      differences.add(arguments.text, "is not the text that the model was calibrated on");
  }

  const std::uint64_t bytes = fs::file_size(folder / pare::PackedFile::name);
  if (bytes != report.file_bytes)
    differences.add(pare::PackedFile::name, "bytes: recorded " + std::to_string(report.file_bytes) +
                                                ", found " + std::to_string(bytes));
  for (const pare::PackedEntry& entry : file.linears()) {
    const auto recorded = report.checksums.find(entry.tensor);
    const std::string found = pare::hex_text(entry.checksum);
    if (recorded == report.checksums.end() || recorded->second != found)
      differences.add(entry.tensor,
                      "checksum: recorded " +
                          (recorded == report.checksums.end() ? "none" : recorded->second) +
                          ", found " + found);
  }
  if (report.checksums.size() != file.linears().size() ||
      report.linears.size() != file.linears().size())
    differences.add("linears", "recorded " + std::to_string(report.linears.size()) + ", found " +
                                   std::to_string(file.linears().size()));
  detail::compare_with_original(arguments.original, file, folder, differences);

  const bool with_loss = !arguments.text.empty() || report.options.magnitude;
  std::map<std::string, const pare::Json*> recorded;
  for (const auto& [name, linear] : report.linears) recorded[name] = &linear;
  const std::unique_ptr<Model> model = backend.load_model(source);
  const auto found = model->recompute(file, windows, report.options, report.recorded);
  std::printf("\n%-28s %13s %7s %9s %9s %13s %13s\n", "linear", "shape", "bits", "zeros", "stored",
              "loss", "recorded");
  for (const pare::RecomputedLinear& linear : found) {
    const pare::LinearStatistics& s = linear.statistics;
    const std::string shape = std::to_string(s.rows) + " x " + std::to_string(s.columns);
    const std::string loss =
        with_loss ? pare::detail::format_text("%.6g", s.loss) : std::string("-");
    std::printf("%-28s %13s %7s %8.2f%% %9.3f %13s %13.6g\n", s.name.c_str(), shape.c_str(),
                pare::detail::bits_text(s.average_bits).c_str(), 100 * s.zeros,
                s.stored_bits / double(s.weights()), loss.c_str(), report.recorded.at(s.name).loss);
    detail::compare_linear(linear, *recorded.at(s.name), with_loss, differences);
  }
  std::fflush(stdout);
  if (differences.count() > 0)
    throw pare::error(arguments.packed + ": " + std::to_string(differences.count()) +
                      (differences.count() == 1 ? " difference: " : " differences, the first: ") +
                      differences.first());
  std::printf("\nverified: %zu linears, every mask, code and grid%s\n", found.size(),
              with_loss ? ", and every loss" : "; no TEXT was given, so no loss was computed");
}

}  // namespace tool
