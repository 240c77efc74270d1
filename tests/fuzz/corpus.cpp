// Writes the seeds of every fuzz target into folders of its name: corpus FOLDER
#include <iostream>

#include "../files.hpp"
#include "../torch_files.hpp"
#include "pare/model/tokenizer.hpp"

namespace {

namespace fs = std::filesystem;
using namespace test;

std::vector<pare::TensorData> tensors() {
  return {{"model.decoder.embed_tokens.weight", "F16", {2, 3}, std::vector<std::byte>(12)},
          {"lm_head.weight", "F16", {2, 3}, std::vector<std::byte>(12)},
          {"b", "F32", {1}, std::vector<std::byte>(4)},
          {"i", "I64", {}, std::vector<std::byte>(8)}};
}

void write_all(const fs::path& root) {
  for (const char* target : {"safetensors", "pytorch", "pickle", "index", "config", "tokenizer"})
    fs::create_directories(root / target);

  pare::write_safetensors(root / "safetensors" / "whole", tensors(), {{"format", "pt"}});
  pare::write_safetensors(root / "safetensors" / "empty", {});

  write_text(root / "pytorch" / "shared", torch_file(tensors(), true));
  write_text(root / "pytorch" / "apart", torch_file(tensors()));
  const std::string x = p_text("x") + p_tensor(p_storage("FloatStorage", "0", 8), 1,
                                               p_ints({2, 3}), p_ints({3, 1}));
  const std::string data(32, '\1');
  write_text(root / "pytorch" / "zip64",
             zip_of({{.name = "a/data.pkl", .data = p_dict(x), .zip64 = true},
                     {.name = "a/data/0", .data = data, .flags = 0x808, .zip64 = true}},
                    {.zip64 = true, .comment = "c"}));
  const std::string metadata =
      "}" + p_text("_metadata") + p_no_hooks + "(" + p_text("") + "}" + p_text("version") +
      "K\x01susb";
  write_text(root / "pickle" / "dict", p_dict(x));
  write_text(root / "pickle" / "ordered",
             "\x80\x02" + p_no_hooks + "q\x01(" + x + "q\x02u" + metadata + ".");
  write_text(root / "pickle" / "protocol4",
             "\x80\x04\x95\x01" + std::string(7, '\0') +
                 "}(\x8c\x01y\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_parameter\x94\x93" +
                 x.substr(6) + "q\x09\x88" + p_no_hooks + "\x87R" + "h\x01j\x09" +
                 std::string(3, '\0') + "u.");

  write_text(root / "index" / "safetensors",
             R"({"metadata":{"total_size":6},"weight_map":{"a":"s","b":"s"}})");
  write_text(root / "index" / "pytorch", R"({"weight_map":{"a":"t","b":"t"}})");

  write_text(root / "config" / "opt",
             R"({"model_type":"opt","activation_function":"relu","hidden_size":12,"ffn_dim":20,)"
             R"("num_hidden_layers":2,"num_attention_heads":3,"vocab_size":17,)"
             R"("max_position_embeddings":9,"word_embed_proj_dim":6,"do_layer_norm_before":true,)"
             R"("_remove_final_layer_norm":false,"enable_bias":true,"bos_token_id":2,)"
             R"("layer_norm_elementwise_affine":true,"tie_word_embeddings":true})");

  std::string vocabulary = "{\"</s>\":0,\"ab\":1,\"abc\":2,\"\xc4\xa0" "a\":3";
  int id = 4;
  for (const std::string& symbol : pare::detail::byte_symbols())
    vocabulary += "," + nlohmann::json(symbol).dump() + ":" + std::to_string(id++);
  const std::string zero(1, '\0');
  write_text(root / "tokenizer" / "bytes",
             vocabulary + "}" + zero + "#version: 0.2\na b\nab c\n\xc4\xa0 a\n" + zero +
                 "abc a</s>ab\xc3\xa9");
  write_text(root / "tokenizer" / "few",
             R"({"a":0,"b":1,"ab":2})" + zero + "a b\n" + zero + "abab");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "corpus: expected one folder to write to\n";
    return 2;
  }
  write_all(argv[1]);
}
