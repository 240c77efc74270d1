// A whole model from C++: an OPT folder and a text go in, a compressed folder comes out.
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <span>
#include <string>

// [headers]
#include "pare/backend/eigen.hpp"
#include "pare/model/load.hpp"
#include "pare/model/perplexity.hpp"
#include "pare/model/save.hpp"
#include "pare/model/text.hpp"
#include "pare/pipeline/compress.hpp"
#include "pare/pipeline/text_windows.hpp"
#include "pare/report/text.hpp"
// [headers]

namespace {

// [model]
/// Prunes half of a model's weights, keeps 3.5 bits on average for each of the others, and measures
/// what that does to the predictions of another text.
void compress_folder(const std::filesystem::path& folder, const std::string& calibration_text,
                     const std::string& evaluation_text, const std::filesystem::path& result) {
  using namespace pare;
  using Config = Compression<Unstructured, BaseQuantizer, MixedPrecision<Budget>>;

  auto model = load_model<backend::Eigen, float>(folder);
  const Tokenizer tokenizer = load_tokenizer(folder, model.config);
  const CalibrationWindows windows = text_windows(tokenizer, model.config, calibration_text, 16);
  const auto ids = token_ids(tokenizer, model.config, evaluation_text);

  const double dense = perplexity(model, ids, windows.seqlen);
  const Statistics statistics =
      compress_model<Config>(model, windows,
                             {.solver = {.sparsity = 0.5, .bits = 4, .target_average_bits = 3.5}});
  const double compressed = perplexity(model, ids, windows.seqlen);
  save_model(model, folder, result);

  std::fputs(totals_text(statistics).c_str(), stdout);
  std::printf("perplexity         %.3f, of the dense model %.3f\n", compressed, dense);
  const auto saved = load_model<backend::Eigen, float>(result);
  std::printf("perplexity, saved  %.3f\n", perplexity(saved, ids, windows.seqlen));
}
// [model]

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: %s MODEL CALIB_TEXT EVAL_TEXT NEW_FOLDER\n", argv[0]);
    return 2;
  }
  try {
    compress_folder(argv[1], pare::read_text_file(argv[2]), pare::read_text_file(argv[3]), argv[4]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
