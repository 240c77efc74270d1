// A model folder compressed from beginning to end: measured, planned, compressed a layer at a time,
// measured again, saved and packed; what was stopped goes on.
#pragma once

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pare/pipeline/run/folder_compression.hpp"
#include "pare/pipeline/run/packed_folder.hpp"
#include "pare/pipeline/run/save_run.hpp"
#include "pare/pipeline/run/streamed_model.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// Notes of a run's record, as its version names them.
inline constexpr const char *saved_note = "--save", *packed_note = "--save-packed";
inline std::string exported_note(const SavedAs& as) {
  return "--save-as " + std::string(as.format->name);
}

/// One run of compress_folder. Every step is a function; run() calls them in order.
template <class B, class S>
class FolderRun {
 public:
  FolderRun(StreamedModel<B, S>& model, const std::filesystem::path& source,
            const FolderCompression& job, const FolderProgress& progress)
      : model_(model),
        source_(source),
        job_(job),
        progress_(progress),
        options_(job.options),
        plan_(job.plan) {
    options_.solver.grid.half_scale = packs() && options_.solver.bits;
    if (!job.save_as.empty() && !model.in_memory())
      options_.solver.grid.scale_digits =
          fitted_scale_digits(job.save_as, source, options_, job.policy, job.plan);
    if (plan_) {
      plan_->sensitivity.rotation = options_.rotation;
      plan_->options.added_bits_per_weight = job.added_bits_per_weight;
    }
    config_ = job.config;
    if (config_.is_null())
      config_ = run_config(job.policy, options_, job.windows.count(), job.windows.seqlen,
                           model.architecture(), std::string(B::name), scalar_traits<S>::dtype);
  }

  FolderResult run() {
    const AtExit forget([&] { model_.forget_finished(); });
    if (plan_)
      given_ = given_sensitivities(*plan_, job_.windows, options_.selection,
                                   [&] { return model_.fingerprint(); });
    open();
    require_results();
    reach(FolderStep::opened);
    result_.dense = perplexities("dense");
    reach(FolderStep::measured);
    if (plan_) {
      const Sensitivities measured = sensitivities();
      reach(FolderStep::sensitivities);
      result_.plan = plan_bits(measured, plan_->options);
      reach(FolderStep::planned);
      if (plan_->swaps.swaps > 0) swap(measured);
    }
    reach(FolderStep::compressing);
    compress();
    reach(FolderStep::compressed);
    result_.compressed = perplexities("compressed");
    reach(FolderStep::evaluated);
    save();
    return std::move(result_);
  }

 private:
  bool packs() const { return job_.save_packed || !job_.save_as.empty(); }

  void reach(FolderStep step) const {
    if (progress_.reached) progress_.reached(step, result_);
  }
  void advance(const std::string& what, double share) const {
    if (progress_.advanced) progress_.advanced(what, share);
  }

  /// Opens the checkpoint, or a temporary folder where finished layers are needed again.
  void open() {
    const bool needed = job_.save || packs() || !job_.texts.empty();
    if (model_.in_memory()) {
      for (const auto& [name, path] : {std::pair{"save", &job_.save},
                                       {"save_packed", &job_.save_packed},
                                       {"checkpoint", &job_.checkpoint}})
        if (*path)
          throw run_argument_error(name, (*path)->string(),
                                   "the model is in memory alone: there is no folder to go with "
                                   "it; give the model's folder");
      if (!job_.save_as.empty())
        throw run_argument_error("save_as", job_.save_as.front().folder.string(),
                                 "the model is in memory alone: there is no folder to go with it; "
                                 "give the model's folder");
      return;
    }
    if (!job_.checkpoint && !needed) return;
    if (job_.checkpoint) {
      const Json identity =
          job_.identity.is_null() ? run_identity(source_, job_, config_) : job_.identity;
      try {
        kept([&] { folder_ = std::make_unique<RunFolder>(*job_.checkpoint, identity); });
      } catch (const argument_error& e) {
        throw run_argument_error("checkpoint", job_.checkpoint->string(), e.what());
      }
    } else {
      make_temporary();
      const Json nothing{{"options", Json::object()}, {"files", Json::object()}};
      kept([&] { folder_ = std::make_unique<RunFolder>(temporary_->path(), nothing); });
    }
    result_.resumed = folder_->finished();
  }

  /// Makes the folder of finished layers, beside the results, which are as large.
  void make_temporary() {
    std::filesystem::path prefix;
    if (job_.save) {
      prefix = result_prefix(*job_.save, "layers");
    } else if (job_.save_packed) {
      prefix = result_prefix(*job_.save_packed, "layers");
    } else if (!job_.save_as.empty()) {
      prefix = result_prefix(job_.save_as.front().folder, "layers");
    } else {
      std::error_code error;
      prefix = std::filesystem::temp_directory_path(error) / "pare.layers-";
      if (error) throw run_argument_error("temporary", "TMPDIR", error.message());
    }
    try {
      temporary_.emplace(prefix);
    } catch (const io_error& e) {
      throw run_argument_error("temporary", prefix.parent_path().string(), e.what());
    }
  }

  bool durable() const { return folder_ && !temporary_; }
  Json noted(const std::string& note) const {
    return durable() ? folder_->note(note) : Json(nullptr);
  }

  /// Refuses folders of results before hours of work.
  void require_results() const {
    const auto require = [&](const char* name, const std::string& note,
                             const std::optional<std::filesystem::path>& path) {
      if (!path) return;
      if (const auto refusal = folder_refusal(*path, noted(note), others()))
        throw run_argument_error(name, path->string(), *refusal);
    };
    require("save", saved_note, job_.save);
    require("save_packed", packed_note, job_.save_packed);
    for (const SavedAs& as : job_.save_as) require("save_as", exported_note(as), as.folder);
  }
  /// What may lie in folders of results.
  std::vector<std::filesystem::path> others() const {
    std::vector<std::filesystem::path> all = job_.beside;
    if (temporary_) all.push_back(temporary_->path());
    return all;
  }

  /// What the checkpoint has under this name, or what is measured, which it then has.
  Perplexities perplexities(const std::string& name) {
    Perplexities result;
    if (durable()) {
      const Json note = folder_->note(name);
      if (note.is_array() && note.size() == job_.texts.size()) {
        for (std::size_t i = 0; i < note.size(); ++i)
          result.emplace_back(job_.texts[i].name, note[i].get<double>());
        return result;
      }
    }
    const index_t held = held_tokens(model_.architecture(), job_.windows.count() > 0
                                                                ? index_t(job_.windows.ids.size())
                                                                : 128 * job_.evaluation.seqlen);
    Json values = Json::array();
    for (const NamedText& text : job_.texts) {
      const std::string what = "perplexity of the " + name + " model on " + text.name;
      const AtExit end([&] { advance(what, 1); });
      const double value =
          model_.perplexity(text.ids, job_.evaluation, held, [&](index_t done, index_t all) {
            advance(what, double(done) / double(all));
          });
      result.emplace_back(text.name, value);
      values.push_back(value);
    }
    if (durable()) kept([&] { folder_->keep_note(name, values); });
    return result;
  }

  /// From the checkpoint, the file of the plan, or measured; the former two then have them.
  Sensitivities sensitivities() {
    constexpr const char* name = "sensitivities.json";
    const std::optional<std::filesystem::path>& file = plan_->file;
    if (!durable()) return measured();
    const auto here = folder_->text(name);
    if (!here) {
      Sensitivities found = measured();
      kept([&] { folder_->keep_text(name, to_json(found).dump()); });
      return found;
    }
    Sensitivities read = read_sensitivities(*here);
    std::error_code error;
    if (file && !std::filesystem::exists(*file, error))
      write_json(*file, to_json(read));
    else if (file && to_json(read_sensitivities(*file)).dump() != to_json(read).dump())
      throw run_argument_error("sensitivities", file->string(),
                               "holds others than those in " + here->string() +
                                   ", which the run is planned with; name another file");
    result_.sensitivities.read = *here;
    return read;
  }

  Sensitivities measured() {
    return find_sensitivities(
        *plan_, options_.selection, given_,
        [&](const SensitivityOptions& options) {
          const std::string what = "measuring sensitivities";
          const AtExit end([&] { advance(what, 1); });
          return model_.measure(job_.windows, options, [&](double share) { advance(what, share); });
        },
        result_.sensitivities);
  }

  /// Tries trades on the plan.
  void swap(const Sensitivities& measured) {
    const std::string what = "trading bits between linears";
    {
      const AtExit end([&] { advance(what, 1); });
      result_.swapped = model_.swap(job_.windows, sensitivity_options(*plan_, options_.selection),
                                    measured, *result_.plan, plan_->options, plan_->swaps,
                                    [&](double share) { advance(what, share); });
    }
    result_.plan = result_.swapped->plan;
    reach(FolderStep::swapped);
  }

  void compress() {
    const std::string what = "compressing";
    const AtExit end([&] { advance(what, 1); });
    CompressionProgress told;
    told.advanced = [&](double share) { advance(what, share); };
    told.linear_done = progress_.linear_done;
    const Keeping keeping{folder_.get(), packs(), durable()};
    const auto start = std::chrono::steady_clock::now();
    ModelCompressionOptions options = options_;
    if (result_.plan) {
      options.solver = without_choices(options_.solver);
      result_.statistics = model_.compress(*result_.plan, job_.windows, options, told, keeping);
    } else {
      result_.statistics = model_.compress(CompressionRequest{job_.policy, options_.solver},
                                           job_.windows, options, told, keeping);
    }
    result_.statistics.added_bits_per_weight = job_.added_bits_per_weight;
    result_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if constexpr (requires { B::peak_bytes(); }) result_.peak_device_bytes = B::peak_bytes();
  }

  /// How a folder is written, so that the next process knows it again.
  Saving saving(const std::string& note) const {
    if (!durable()) return {};
    return {.noted = noted(note),
            .note = [this, note](const Json& value) { folder_->keep_note(note, value); }};
  }
  /// Whether an earlier process of this run has written a folder.
  bool has_saved(const std::string& note, const std::filesystem::path& path) const {
    return durable() && is_complete(noted(note), path, job_.beside);
  }

  void save() {
    if (job_.save) {
      if (!has_saved(saved_note, *job_.save))
        result_.left_out = save_run(*folder_, source_, *job_.save, saving(saved_note));
      reach(FolderStep::saved);
      result_.left_out.clear();
    }
    Json& report = result_.report;
    report = {{"perplexity",
               {{"dense", to_json(result_.dense)}, {"compressed", to_json(result_.compressed)}}}};
    report.update(to_json(result_.statistics));
    report["totals"]["solver_seconds"] = report["totals"]["seconds"];
    report["totals"]["seconds"] = result_.seconds;
    report["totals"]["peak_device_bytes"] =
        result_.peak_device_bytes ? Json(*result_.peak_device_bytes) : Json(nullptr);
    report["plan"] = result_.plan ? to_json(*result_.plan) : Json(nullptr);
    if (result_.swapped)
      report["plan"]["swaps"] = {{"tried", result_.swapped->tried},
                                 {"kept", result_.swapped->kept},
                                 {"windows", result_.swapped->windows},
                                 {"kl", result_.swapped->divergence},
                                 {"swapped_kl", result_.swapped->swapped_divergence}};
    report["config"] = config_;
    if (job_.save_packed) {
      if (has_saved(packed_note, *job_.save_packed))
        report["packed"] = packed_member(*job_.save_packed);
      else
        result_.left_out = save_packed(*folder_, source_, *job_.save_packed,
                                       text_fingerprint(job_.windows), report, saving(packed_note));
      reach(FolderStep::packed);
    }
    if (!job_.save_as.empty()) export_all();
  }

  /// Writes the folders of save_as, from the packed one or a temporary of its kind.
  void export_all() {
    std::optional<TemporaryFolder> packed;
    for (const SavedAs& as : job_.save_as) {
      const std::string note = exported_note(as);
      result_.exports.emplace_back();
      if (!has_saved(note, as.folder)) {
        if (!job_.save_packed && !packed) {
          packed.emplace(result_prefix(as.folder, "layers"));
          Json ignored = result_.report;
          save_packed(*folder_, source_, packed->path(), text_fingerprint(job_.windows), ignored);
        }
        result_.exports.back() =
            export_folder(job_.save_packed ? *job_.save_packed : packed->path(), as.folder,
                          *as.format, as.options, saving(note));
      }
      reach(FolderStep::exported);
    }
  }

  StreamedModel<B, S>& model_;
  const std::filesystem::path& source_;
  const FolderCompression& job_;
  const FolderProgress& progress_;
  ModelCompressionOptions options_;
  std::optional<FolderPlan> plan_;  // with what the rest of the job says of it
  Json config_;
  FolderResult result_;
  std::optional<Sensitivities> given_;  // of the plan's file
  std::optional<TemporaryFolder> temporary_;
  std::unique_ptr<RunFolder> folder_;  // null: nothing is kept
};

}  // namespace detail

/// Compresses a model from beginning to end: perplexities of the dense model, the plan, the linears,
/// perplexities of the compressed model, the folders of results. One decoder layer is in memory at
/// a time, but while sensitivities are measured. Finished layers are kept in job.checkpoint, or in a
/// temporary folder beside the results. After the process was stopped, by whatever, the same call
/// goes on from a checkpoint and gives the same bytes.
/// @param model     of `source`, or in memory, which is compressed in place and can neither be saved
///                  nor go on
/// @param source    a folder with a dense model; not looked at when the model is in memory
/// @param job       what is done
/// @param progress  what is told meanwhile
/// @return          statistics, perplexities, the plan, the report
/// @throws run_argument_error naming the folder or file that cannot be used, before any work where
///         that shows then; unattainable_error for a target of the plan that no widths meet;
///         save_error when a result cannot be written; what compress_model throws
template <class B, class S>
FolderResult compress_folder(StreamedModel<B, S>& model, const std::filesystem::path& source,
                             const FolderCompression& job, const FolderProgress& progress = {}) {
  return detail::FolderRun<B, S>(model, source, job, progress).run();
}

/// The same of a folder that nothing has opened yet.
/// @tparam B, S  backend, and what the model is stored in while it is worked on
/// @throws argument_error when the folder holds a packed model; as ModelFiles
template <class B, class S>
FolderResult compress_folder(const std::filesystem::path& source, const FolderCompression& job,
                             const FolderProgress& progress = {}) {
  if (PackedFile::is_in(source))
    throw argument_error("source: expected a dense model, got the packed one in " +
                         source.string() + "; unpack_folder makes a dense one of it");
  StreamedModel<B, S> model(source);
  return compress_folder(model, source, job, progress);
}

}  // namespace pare
