// GGUF: what llama.cpp and the programs around it load.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pare/model/config_json.hpp"
#include "pare/storage/export/format.hpp"
#include "pare/storage/export/gguf_blocks.hpp"
#include "pare/storage/export/gguf_file.hpp"
#include "pare/storage/export/gguf_model.hpp"
#include "pare/storage/export/gguf_vocabulary.hpp"
#include "pare/tokenizer/tokenizer_files.hpp"

namespace pare::inline PARE_TARGET {

namespace detail::gguf {

inline constexpr const char* file_name = "model.gguf";

inline Architecture architecture_of(const ExportModel& model) {
  return parse_architecture((model.folder / "config.json").string(), model.config.dump());
}

inline std::optional<std::string> model_refusal(const ExportModel& model) {
  const Architecture a = architecture_of(model);
  const Family* family = find_family(a);
  if (family == nullptr)
    return "llama.cpp has no " + a.family + "; write --format compressed-tensors";
  if (const auto part = missing_part(a, *family))
    return "llama.cpp has no " + a.family + " with " + *part +
           "; write --format compressed-tensors";
  if (model.small_embeddings && a.hidden_size % q8_0.weights != 0)
    return "embeddings of " + std::to_string(a.hidden_size) +
           " numbers: blocks of Q8_0 have 32; leave --embeddings out";
  return tokenizer_refusal(describe_tokenizer(model.folder));
}

inline std::optional<std::string> linear_refusal(const ExportLinear&) { return std::nullopt; }

/// Blocks, or the checkpoint's own type where no kind of blocks is exact.
inline Kind kind_of_linear(const ExportLinear& linear) {
  return block_kind(linear).value_or(kind_of(linear.dtype));
}

inline double bits_per_weight(const ExportLinear& linear) {
  const Kind kind = kind_of_linear(linear);
  return 8 * double(kind.bytes) / double(kind.weights);
}

inline std::vector<std::string> notes(const ExportModel& model) {
  std::map<std::string, std::size_t> kinds;
  for (const ExportLinear& linear : model.linears) ++kinds[kind_of_linear(linear).name];
  std::vector<std::string> notes;
  notes.reserve(kinds.size());
  for (const auto& [name, count] : kinds)
    notes.push_back(std::to_string(count) + (count == 1 ? " linear" : " linears") + " as " + name);
  if (model.small_embeddings) notes.emplace_back("embeddings and head are rounded to Q8_0");
  const Architecture a = architecture_of(model);
  if (a.activation == kernels::Activation::gelu)
    notes.push_back("llama.cpp approximates gelu by tanh");
  if (!describe_tokenizer(model.folder).normalizer.empty())
    notes.push_back("llama.cpp does not bring texts into the normal form NFC");
  return notes;
}

/// Reads the tensors of a packed model and collects those of a GGUF file.
class Collector {
 public:
  Collector(const ExportSource& source, const Architecture& a, const Family& family)
      : source_(source), a_(a), family_(family) {
    for (const ExportLinear& linear : source.model.linears) linears_[linear.tensor] = &linear;
    for (const std::string& prefix : a.names.prefixes)
      if (has(prefix + a.names.layers + "0." + a.names.attention_norm + ".weight"))
        prefix_ = prefix;
  }

  /// All tensors, in the order of the file.
  std::vector<Tensor> collect() {
    const TensorNames& names = a_.names;
    const std::string head = names.head + ".weight";
    std::string embedding = prefix_ + names.embedding + ".weight";
    if (!has(embedding) && a_.tie_word_embeddings) embedding = head;
    const Kind& kind = source_.model.small_embeddings ? q8_0 : f16;
    table("token_embd.weight", embedding, kind);
    if (!names.positions.empty())
      table("position_embd.weight", prefix_ + names.positions + ".weight", f32);
    if (!names.embedding_norm.empty()) norm("token_embd_norm", prefix_ + names.embedding_norm);
    if (!a_.rotaries.empty() && a_.positions == PositionKind::rotary) {
      const RotaryScaling scaling = a_.rotaries.front().scaling;
      if (scaling == RotaryScaling::llama3 || scaling == RotaryScaling::yarn) {
        std::vector<float> factors = frequency_factors(a_.rotaries.front());
        const auto pairs = index_t(factors.size());
        tensors_.push_back({"rope_freqs.weight", {pairs}, f32, [factors = std::move(factors)] {
                              return encode_floats(factors, DType::f32);
                            }});
      }
    }
    for (index_t i = 0; i < a_.num_hidden_layers; ++i) layer(i);
    norm("output_norm", prefix_ + names.final_norm);
    if (!a_.tie_word_embeddings)
      table("output.weight", head, kind);
    else if (family_.owns_head)
      table("output.weight", embedding, kind);
    return std::move(tensors_);
  }

 private:
  void layer(index_t i) {
    const TensorNames& names = a_.names;
    const std::string from = prefix_ + names.layers + std::to_string(i) + ".";
    const std::string to = "blk." + std::to_string(i) + ".";
    const std::pair<const char*, const std::string*> norms[] = {
        {"attn_norm", &names.attention_norm},
        {"ffn_norm", &names.feed_forward_norm},
        {"post_attention_norm", &names.after_attention_norm},
        {"post_ffw_norm", &names.after_feed_forward_norm},
        {"attn_q_norm", &names.query_norm},
        {"attn_k_norm", &names.key_norm}};
    for (const auto& [name, of] : norms)
      if (!of->empty()) norm(to + name, from + *of);
    for (const LinearSpec& spec : a_.linears) linear(to + linear_name(spec.role), from, spec);
  }

  void linear(const std::string& to, const std::string& from, const LinearSpec& spec) {
    const std::string name = from + spec.name + ".weight";
    std::vector<index_t> order = row_order(a_, family_, spec.role);
    if (spec.bias) numbers(to + ".bias", from + spec.name + ".bias", 0, order);
    const std::vector<index_t> shape{rows_of(a_, spec.role), columns_of(a_, spec.role)};
    const auto found = linears_.find(name);
    const auto kind = found == linears_.end() ? std::nullopt : block_kind(*found->second);
    if (kind) {
      tensors_.push_back({to + ".weight", shape, *kind, [this, name, kind, order] {
                            const PackedLinear packed = source_.file.read(*source_.file.find(name));
                            return blocks_of(*kind, export_codes(packed), order);
                          }});
      return;
    }
    const PackedEntry* entry = source_.file.find(name);
    const DType dtype = entry != nullptr ? entry->dtype : dtype_of(name);
    tensors_.push_back(
        {to + ".weight", shape, kind_of(dtype), [this, name, order, shape, dtype, spec] {
           Matrix<float> stored = values(name);
           const bool turned = spec.transposed && source_.file.find(name) == nullptr;
           Matrix<float> ordered(shape[0], shape[1]);
           for (index_t r = 0; r < shape[0]; ++r)
             for (index_t c = 0; c < shape[1]; ++c) {
               const index_t row = order[std::size_t(r)];
               ordered(r, c) = turned ? stored(c, row) : stored(row, c);
             }
           return encode({ordered.data(), std::size_t(ordered.size())}, kind_of(dtype), name);
         }});
  }

  /// A norm's weight, and its bias where norms have one.
  void norm(const std::string& to, const std::string& from) {
    numbers(to + ".weight", from + ".weight", float(a_.norm_offset), {});
    if (a_.norm == NormKind::layer) numbers(to + ".bias", from + ".bias", 0, {});
  }

  /// @param order  of the elements; empty: as they are
  void numbers(const std::string& to, const std::string& name, float offset,
               const std::vector<index_t>& order) {
    tensors_.push_back({to, {index_t(length(name))}, f32, [this, name, offset, order] {
                          const Matrix<float> stored = values(name);
                          std::vector<float> out(stored.data(), stored.data() + stored.size());
                          for (std::size_t i = 0; i < out.size(); ++i)
                            out[i] =
                                offset + stored.data()[order.empty() ? i : std::size_t(order[i])];
                          return encode_floats(out, DType::f32);
                        }});
  }

  void table(const std::string& to, const std::string& name, const Kind& kind) {
    const TensorInfo& info = source_.file.file().at(name);
    tensors_.push_back({to, {info.shape.begin(), info.shape.end()}, kind, [this, name, kind] {
                          const Matrix<float> stored = values(name);
                          return encode({stored.data(), std::size_t(stored.size())}, kind, name);
                        }});
  }

  static std::vector<std::byte> encode(std::span<const float> values, const Kind& kind,
                                       const std::string& name) {
    if (kind == q8_0) return rounded_blocks(values);
    if (kind == f16)
      for (const float value : values)
        if (std::isfinite(value) && !std::isfinite(half_to_float(float_to_half(value))))
          throw format_error("tensor " + quoted_name(name) + ": " + std::to_string(value) +
                             " is beyond float16, in which GGUF gets it");
    return encode_floats(values, kind == f16    ? DType::f16
                                 : kind == bf16 ? DType::bf16
                                                : DType::f32);
  }

  bool has(const std::string& name) const {
    return source_.file.file().find(name) != nullptr || source_.file.find(name) != nullptr;
  }
  DType dtype_of(const std::string& name) const {
    return float_dtype(source_.file.file().at(name).dtype).value_or(DType::f32);
  }
  std::int64_t length(const std::string& name) const {
    std::int64_t elements = 1;
    for (const std::int64_t side : source_.file.file().at(name).shape) elements *= side;
    return elements;
  }
  /// A dense tensor as stored, or a packed linear as (out, in).
  Matrix<float> values(const std::string& name) const {
    if (const PackedEntry* entry = source_.file.find(name)) {
      const PackedLinear packed = source_.file.read(*entry);
      Matrix<float> weights(packed.layout.rows, packed.layout.columns);
      unpack_rows(packed, 0, weights.view());
      rotate_back(packed, weights.view());
      return weights;
    }
    source_.file.require_intact(name, source_.file.file().read_bytes(name));
    return source_.file.file().read_float(name);
  }

  const ExportSource& source_;
  const Architecture& a_;
  const Family& family_;
  std::map<std::string, const ExportLinear*> linears_;
  std::string prefix_;
  std::vector<Tensor> tensors_;
};

inline void write(const ExportSource& source, const std::filesystem::path& folder) {
  const Architecture a = architecture_of(source.model);
  const Family& family = *find_family(a);
  Fields fields;
  const auto positions = token_of_config(source.model.config, "seq_length");
  set_architecture(fields, a, family, index_t(positions.value_or(2048)));
  set_tokenizer(fields, describe_tokenizer(source.model.folder), source.model.config,
                source.model.folder, a.vocab_size);
  Collector collector(source, a, family);
  write_file(folder / file_name, fields, collector.collect());
}

}  // namespace detail::gguf

/// GGUF of llama.cpp: for each linear the smallest blocks in which every value is exact, else the
/// checkpoint's own type; the families that llama.cpp runs, with byte-level tokenizers.
/// @hideinitializer
inline constexpr ExportFormat gguf_format{.name = "gguf",
                                          .title = "GGUF (llama.cpp)",
                                          .model_refusal = detail::gguf::model_refusal,
                                          .linear_refusal = detail::gguf::linear_refusal,
                                          .bits_per_weight = detail::gguf::bits_per_weight,
                                          .notes = detail::gguf::notes,
                                          .scale_digits = detail::gguf::scale_digits_of,
                                          .side_files = false,
                                          .fuses = false,
                                          .rounds_embeddings = true,
                                          .write = detail::gguf::write};

}  // namespace pare
