// Rotated models in pare: pare rotate, and compress --rotate.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "backends/choice.hpp"
#include "common/progress.hpp"
#include "pare/pipeline/run/result_folder.hpp"
#include "pare/pipeline/run/side_files.hpp"
#include "pare/storage/temporary.hpp"
#include "tools/arguments.hpp"
#include "tools/outputs.hpp"
#include "tools/packing.hpp"

namespace tool {

/// Refuses what a rotation when the model runs does not go with.
/// @param planned  whether there is a plan
inline void check_rotation(const Arguments& arguments, const Rotating& rotating, bool planned) {
  if (rotating.kind == Rotating::none) return;
  if (arguments.shape)
    throw usage_error(written("--rotate", *arguments.flags.rotate) + " with --shape " +
                      *arguments.shape +
                      ": random weights have no outliers; leave one of them out");
  if (rotating.kind == Rotating::folded) return;
  if (rotating.kind == Rotating::chosen && !planned)
    throw usage_error(
        "--rotate auto without a plan: nothing is measured to choose by; add "
        "--target-bits-per-weight 3.0, or write --rotate full");
  const std::string given = written("--rotate", *arguments.flags.rotate);
  if (arguments.gmp)
    throw usage_error(given +
                      " with --gmp: magnitude pruning takes weights as they are; leave one of them "
                      "out");
  if (!arguments.save_as.empty())
    throw usage_error(given + " with --save-as " + arguments.save_as.front() +
                      ": the format does not say how inputs are rotated; write --rotate folded");
}

/// Rotates a model into a folder, and says what was done.
inline pare::Json fold_into(const NamedBackend& backend, const fs::path& source,
                            const fs::path& folder, std::uint64_t seed) {
  const auto start = std::chrono::steady_clock::now();
  const Rotated rotated = backend.fold_rotation(source, folder, seed);
  // What is copied beside the weights is what any result takes along.
  const pare::SideFiles beside = pare::side_files(source, {});
  for (const std::string& name : beside.copied) {
    std::error_code error;
    fs::copy_file(source / name, folder / name, fs::copy_options::skip_existing, error);
    if (error)
      throw pare::io_error((folder / name).string() + ": cannot be written: " + error.message());
  }
  const pare::RotationRule& rule = rotated.folded.rule;
  const bool residual = rule.residual != pare::ResidualRotation::none;
  std::printf("rotated in %.3f s: %s\n", seconds_since(start),
              residual ? "the residual stream and the values of heads"
                       : ("the values of heads; not the residual stream: " + rule.reason).c_str());
  const double added_bits =
      pare::added_bits_per_weight(rotated.folded, pare::load_architecture(source));
  if (rotated.folded.head_untied)
    std::printf(
        "the head is tied to the embeddings no more: %.1f MiB more, %.2f bits per weight of "
        "the linears\n",
        double(rotated.folded.added_bytes) / double(1 << 20), added_bits);
  std::printf("logits of the rotated model differ by %.2g of their deviation\n",
              rotated.distance.typical);
  std::fflush(stdout);
  return {{"seed", seed},
          {"residual", residual},
          {"reason", rule.reason},
          {"head_untied", rotated.folded.head_untied},
          {"added_bytes", rotated.folded.added_bytes},
          {"added_bits_per_weight", added_bits},
          {"logit_distance", rotated.distance.typical}};
}

/// Where a rotated model lies while it is compressed: beside the results, which are as large. With
/// a checkpoint its name is always the same, so that a process that goes on takes the place of what
/// a killed one left.
class RotatedFolder {
 public:
  /// Beside nothing: for the temporary folders of the system.
  RotatedFolder() { folder_.emplace(system_prefix()); }
  /// @throws usage_error where another process of the same run is at work
  explicit RotatedFolder(const Outputs& outputs) {
    if (!outputs.checkpoint) {
      folder_.emplace(prefix(outputs));
      return;
    }
    const fs::path prefix = pare::detail::temporary_prefix(*outputs.checkpoint, "rotated");
    const fs::path path = prefix.string() + "model";
    if (hold(path)) {
      std::error_code error;
      fs::remove_all(path, error);
      ::close(descriptor_);
    }
    folder_.emplace(prefix, 0700, "model");
    hold(path);
  }
  RotatedFolder(const RotatedFolder&) = delete;
  RotatedFolder& operator=(const RotatedFolder&) = delete;
  ~RotatedFolder() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  const fs::path& path() const { return folder_->path(); }

 private:
  static fs::path prefix(const Outputs& outputs) {
    for (const std::optional<fs::path>* result : {&outputs.save, &outputs.save_packed})
      if (*result) return pare::detail::result_prefix(**result, "rotated");
    if (!outputs.save_as.empty())
      return pare::detail::result_prefix(outputs.save_as.front().folder, "rotated");
    return system_prefix();
  }

  static fs::path system_prefix() {
    std::error_code error;
    const fs::path folder = fs::temp_directory_path(error);
    if (error)
      throw usage_error("TMPDIR: " + error.message() +
                        ": the rotated model lies there meanwhile; name a folder that can be "
                        "written");
    return folder / "pare.rotated-";
  }

  /// Opens a folder and holds it as long as this process lives. Returns whether it is there.
  bool hold(const fs::path& path) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor_ < 0) return false;
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return true;
    ::close(std::exchange(descriptor_, -1));
    throw usage_error(path.string() + ": another process is at work on it; wait for its end");
  }

  std::optional<pare::TemporaryFolder> folder_;
  int descriptor_ = -1;
};

/// pare rotate: writes a rotated model that any program loads.
inline void rotate_model(const std::string& model, const std::string& given,
                         const std::optional<std::string>& backend, std::uint64_t seed) {
  require_dense_model(model);
  const NamedBackend chosen = chosen_backend(backend);
  const fs::path target = savable_folder("OUT", given, model);
  pare::fill_folder(target,
                    [&](const fs::path& partial) { fold_into(chosen, model, partial, seed); });
  std::printf("rotated model written to %s\n", given.c_str());
}

}  // namespace tool
