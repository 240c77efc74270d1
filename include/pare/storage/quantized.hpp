// What tells a checkpoint whose weights are codes already.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "pare/core/text.hpp"
#include "pare/storage/checkpoint.hpp"

namespace pare::inline PARE_TARGET {

/// Which program has quantized the weights of a checkpoint, by the names of its tensors and the
/// files beside them, and one such tensor: "gptq (tensor 'x.qweight')". Nothing for a checkpoint
/// of plain weights.
inline std::optional<std::string> quantized_by(const Checkpoint& checkpoint) {
  struct Sign {
    std::string_view suffix;
    const char* method;
  };
  static constexpr Sign signs[] = {{".qweight", "gptq or awq"},
                                   {".weight_packed", "compressed-tensors"},
                                   {".weight_scale", "compressed-tensors or fp8"},
                                   {".weight_scale_inv", "fp8"},
                                   {".weight.absmax", "bitsandbytes"},
                                   {".weight.quant_map", "bitsandbytes"},
                                   {".SCB", "bitsandbytes"},
                                   {".W_q", "hqq"},
                                   {".codebooks", "aqlm"},
                                   {".trellis", "exllamav3"},
                                   {".q_weight", "exllamav2"},
                                   {".Qidxs", "quip#"}};
  const auto beside = [&](const char* name) {
    std::error_code ignored;
    return std::filesystem::exists(checkpoint.folder() / name, ignored);
  };
  for (const TensorFile& file : checkpoint.files())
    for (const TensorInfo& info : file.tensors())
      for (const Sign& sign : signs) {
        if (!info.name.ends_with(sign.suffix)) continue;
        std::string method = sign.method;
        if (sign.suffix == ".qweight") {
          const std::string linear = info.name.substr(0, info.name.size() - sign.suffix.size());
          if (beside("quantize_config.json") || checkpoint.find(linear + ".g_idx"))
            method = "gptq";
          else if (beside("quant_config.json"))
            method = "awq";
        }
        return method + " (tensor " + detail::quoted_name(info.name) + ")";
      }
  return std::nullopt;
}

}  // namespace pare
