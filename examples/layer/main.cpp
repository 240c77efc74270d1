// pare-layer: compresses one linear from a safetensors file.
#include "backends/choice.hpp"
#include "common/compression_options.hpp"
#include "common/outputs.hpp"
#include "pare/pipeline/options_json.hpp"

namespace {

using pare::index_t;

/// The shape in which SafetensorsFile::read_float gives a tensor, from the header alone.
std::pair<index_t, index_t> shape_of(const pare::SafetensorsFile& file, const char* name) {
  if (file.find(name) == nullptr) {
    std::string there;
    for (const pare::TensorInfo& info : file.tensors()) {
      if (there.size() > 100) {
        there += ", ...";
        break;
      }
      there += (there.empty() ? "" : ", ") + info.name;
    }
    throw pare::format_error(file.path().string() + ": there is no tensor '" + name + "' but " +
                             (there.empty() ? "none" : there) +
                             "; expected the weights W of one linear, and H or X to calibrate on");
  }
  const pare::TensorInfo& info = file.at(name);
  const std::size_t rank = info.shape.size();
  if (!pare::float_dtype(info.dtype) || rank < 1 || rank > 2)
    throw pare::format_error(file.path().string() + ": tensor '" + name + "' is " + info.dtype +
                             " of rank " + std::to_string(rank) +
                             "; expected F16, BF16, F32 or F64 of rank 1 or 2");
  return {rank == 1 ? 1 : info.shape[0], info.shape[rank - 1]};
}

/// Checks all that the header of IN tells, before any tensor is read.
void check_header(const pare::SafetensorsFile& file, const pare::CompressionRequest& request,
                  std::optional<index_t> sequences) {
  const std::string name = file.path().string();
  const auto [out, in] = shape_of(file, "W");
  const std::string W = "W " + pare::shape_text(out, in);
  if (out < 1 || in < 1)
    throw pare::format_error(name + ": " + W + " is empty; expected at least one row and column");
  tool::require_whole_runs(request, W, in);
  if (file.find("H") != nullptr) {
    const auto [rows, columns] = shape_of(file, "H");
    if (rows != in || columns != in)
      throw pare::format_error(name + ": H " + pare::shape_text(rows, columns) + " does not fit " +
                               W + "; expected the square " + pare::shape_text(in, in));
    if (sequences)
      throw tool::usage_error("--sequences " + std::to_string(*sequences) +
                              ": it scales what X gives, and " + name + " holds H; leave it out");
    return;
  }
  if (file.find("X") == nullptr)
    throw pare::format_error(name +
                             ": neither H (in, in) nor X (tokens, in) is there; expected one of "
                             "them to calibrate on");
  const auto [tokens, columns] = shape_of(file, "X");
  if (tokens < 1 || columns != in)
    throw pare::format_error(name + ": X " + pare::shape_text(tokens, columns) + " does not fit " +
                             W + "; expected " + std::to_string(in) +
                             " columns and at least one token");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Prunes and quantizes one linear", "pare-layer"};
  std::string input, output;
  tool::CompressionFlags flags;
  std::optional<index_t> sequences;
  std::optional<std::string> backend, precision;
  bool json = false;
  tool::add_argument(app, "IN", input,
                     "safetensors with W (out, in) and H (in, in) or X (tokens, in)");
  tool::add_argument(app, "OUT", output,
                     "safetensors to write: Q, mask, bits, scale, zero, grid, loss");
  tool::add_solver_options(app, flags);
  tool::add_bit_options(app, flags);
  tool::add_group_options(app, flags);
  tool::add_rotation_options(app, flags, "none or full");
  tool::begin_group(app, "Computing");
  tool::add_value(app, "--sequences", sequences,
                  "sequences in X; scales H and the loss (default: 1)");
  tool::add_backend_option(app, backend);
  tool::add_precision_option(app, precision);
  tool::begin_group(app, "Results");
  tool::add_flag(app, "--json", json, "print the statistics as JSON");

  tool::program = "pare-layer";
  return tool::run([&] {
    if (!tool::parse(app, argc, argv)) return;
    const pare::CompressionRequest request = tool::checked(flags);
    const tool::Rotating rotating = tool::checked_rotation(flags);
    if (rotating.kind == tool::Rotating::folded)
      throw tool::usage_error(
          "--rotate folded: a rotation goes into the linears around this one, which are not there; "
          "write --rotate full");
    if (rotating.kind == tool::Rotating::chosen)
      throw tool::usage_error(
          "--rotate auto: a plan for a model chooses, and this is one linear; "
          "write --rotate full");
    const tool::NamedBackend chosen = tool::chosen_backend(backend);
    tool::choose_precision(precision, chosen);
    if (sequences && *sequences < 1)
      throw tool::usage_error("--sequences " + std::to_string(*sequences) +
                              ": X holds at least one sequence; write 1 or more");
    tool::InputFiles inputs;
    inputs.add(input);
    inputs.refuse_standard_output();
    const tool::fs::path target = tool::writable_file("OUT", output, inputs);
    const pare::SafetensorsFile file(input);
    check_header(file, request, sequences);
    const pare::Statistics statistics = chosen.compress_linear(
        {file, request, sequences.value_or(1), target, flags.keep_zeros, rotating.inputs()});
    // Tensors and text would spoil one another.
    std::ostream& text = tool::is_standard_output(target) ? std::cerr : std::cout;
    if (json) {
      pare::Json report = pare::to_json(statistics);
      report["config"] = pare::to_json(request);
      report["config"]["keep_zeros"] = flags.keep_zeros;
      if (const auto rotation = rotating.inputs())
        report["config"]["rotation_seed"] = rotation->seed;
      report["config"]["backend"] = chosen.name;
      text << report.dump(2) << "\n";
    } else {
      if (!request.quantizes()) text << "quantization is off (no --wbits)\n";
      text << pare::statistics_text(statistics);
    }
  });
}
