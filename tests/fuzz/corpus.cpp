// Writes the seeds of every fuzz target into folders of its name: corpus FOLDER
#include <iostream>

#include "../files.hpp"
#include "../torch_files.hpp"
#include "packed_files.hpp"
#include "pare/tokenizer/tokenizer.hpp"

namespace {

namespace fs = std::filesystem;
using namespace test;

std::vector<pare::TensorData> tensors() {
  return {{"model.decoder.embed_tokens.weight", "F16", {2, 3}, std::vector<std::byte>(12)},
          {"lm_head.weight", "F16", {2, 3}, std::vector<std::byte>(12)},
          {"b", "F32", {1}, std::vector<std::byte>(4)},
          {"i", "I64", {}, std::vector<std::byte>(8)}};
}

/// Every layout of a packed linear: as it stands, to be repaired, and as a recipe.
void write_packed_seeds(const fs::path& folder) {
  unsigned state = 1;
  const auto random = [&] { return char((state = state * 1664525u + 1013904223u) >> 24); };
  for (char axis = 0; axis < 2; ++axis)
    for (char mask = 0; mask < 3; ++mask)
      for (char widths = 0; widths < 3; ++widths) {
        const char dtype = char((axis + mask + widths) % 4);
        // One linear, not wild, 5 rows, 12 columns.
        std::string recipe{0, 0, 4, 11, axis, dtype, mask};
        if (mask == 2) recipe += std::string{2, 1};  // 2:4
        recipe += widths;
        for (int i = 0; i < 150; ++i) recipe += random();
        const std::string name{char('0' + axis), char('0' + mask), char('0' + widths)};
        const std::string file = fuzz::packed_of_recipe(recipe);
        write_text(folder / ("file" + name), '\0' + file);
        write_text(folder / ("repaired" + name), '\1' + file);
        write_text(folder / ("recipe" + name), '\2' + recipe);
      }
  // Layouts that promise more than the file holds.
  int claims = 0;
  for (const std::string description :
       {R"("shape":[16777216,16777216],"bits":null,"mask":"none")",
        R"("shape":[16777216,1],"bits":null,"mask":"none")",
        R"("shape":[1,16777216],"bits":null,"mask":"bits")",
        R"("shape":[1,16777216],"bits":null,"mask":"groups","zeros":2,"group":4)"}) {
    const std::string packed = R"({"version":1,"linears":[{"tensor":"w","dtype":"F32",)"
                               R"("axis":"output","checksum":"cbf29ce484222325",)"
                               R"("original":"0000000000000000",)" +
                               description + "}]}";
    write_text(folder / ("claims" + std::to_string(claims++)),
               '\0' +
                   pare::detail::safetensors_start("seed",
                                                   {{"w.codes", "U8", {0}}, {"w.mask", "U8", {0}}},
                                                   {{pare::detail::packed_key, packed}}));
  }
}

void write_report_seeds(const fs::path& root) {
  write_text(root / "report" / "whole",
             R"({"config":{"percdamp":0.01,"minlayer":0,"maxlayer":2,"prune_only":"",)"
             R"("invert":false,"gmp":false,"true_sequential":false,"asymmetric":0.0,)"
             R"("seqlen":64,"nsamples":8,"dtype":"float32"},)"
             R"("packed":{"calibration":"00ff00ff00ff00ff","file_bytes":123,)"
             R"("checksums":{"model.decoder.layers.0.fc1.weight":"0123456789abcdef"}},)"
             R"("layers":[{"name":"layers.0.fc1","damping":0.01,"loss":1.5e-3}]})");
  write_text(root / "sensitivity" / "whole",
             R"({"version":1,"model":"00000000000000ff","text":"0123456789abcdef",)"
             R"("axis":"output","symmetric":false,"clip_search":false,"damping":0.01,)"
             R"("block_size":128,"act_order":false,"seqlen":64,"windows":8,)"
             R"("divergence_windows":2,"divergence_widths":[3],"widths":[2,3,4,6,8],"linears":[)"
             R"({"name":"a","rows":2,"columns":8,"modes":[{"pattern":{},"divergence":{"3":0.01},)"
             R"("kept":[1,1],"distortion":[9,4,2,1,0.5,8,4,2,1,0.25]},)"
             R"({"pattern":{"zeros":2,"group":4},"divergence":{"3":0.02},"kept":[0.5,0.5],)"
             R"("distortion":[19,14,12,11,10.5,18,14,12,11,10.25]}]},)"
             R"({"name":"b","rows":1,"columns":4,"modes":[{"pattern":{},"divergence":{"3":0.01},)"
             R"("kept":[1],"distortion":[9,4,2,1,0.5]},{"pattern":{"zeros":2,"group":4},)"
             R"("divergence":{"3":0.02},"kept":[0.5],"distortion":[19,14,12,11,10.5]}]}]})");
}

void write_all(const fs::path& root) {
  for (const char* target : {"safetensors", "pytorch", "pickle", "index", "config", "tokenizer",
                             "packed", "report", "sensitivity"})
    fs::create_directories(root / target);
  write_packed_seeds(root / "packed");
  write_report_seeds(root);

  pare::write_safetensors(root / "safetensors" / "whole", tensors(), {{"format", "pt"}});
  pare::write_safetensors(root / "safetensors" / "empty", {});

  write_text(root / "pytorch" / "shared", torch_file(tensors(), true));
  write_text(root / "pytorch" / "apart", torch_file(tensors()));
  const std::string x =
      p_text("x") + p_tensor(p_storage("FloatStorage", "0", 8), 1, p_ints({2, 3}), p_ints({3, 1}));
  const std::string data(32, '\1');
  write_text(root / "pytorch" / "zip64",
             zip_of({{.name = "a/data.pkl", .data = p_dict(x), .zip64 = true},
                     {.name = "a/data/0", .data = data, .flags = 0x808, .zip64 = true}},
                    {.zip64 = true, .comment = "c"}));
  const std::string metadata = "}" + p_text("_metadata") + p_no_hooks + "(" + p_text("") + "}" +
                               p_text("version") + "K\x01susb";
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

  write_text(root / "config" / "nulls",
             R"({"model_type":"opt","hidden_size":12,"ffn_dim":20,"num_hidden_layers":2,)"
             R"("num_attention_heads":3,"vocab_size":17,"max_position_embeddings":9,)"
             R"("word_embed_proj_dim":null,"bos_token_id":null,"quantization_config":null})");
  write_text(root / "config" / "quantized",
             R"({"quantization_config":{"quant_method":"gptq","bits":4}})");
  write_text(root / "config" / "opt",
             R"({"model_type":"opt","activation_function":"relu","hidden_size":12,"ffn_dim":20,)"
             R"("num_hidden_layers":2,"num_attention_heads":3,"vocab_size":17,)"
             R"("max_position_embeddings":9,"word_embed_proj_dim":6,"do_layer_norm_before":true,)"
             R"("_remove_final_layer_norm":false,"enable_bias":true,"bos_token_id":2,)"
             R"("layer_norm_elementwise_affine":true,"tie_word_embeddings":true})");

  std::string vocabulary =
      "{\"</s>\":0,\"ab\":1,\"abc\":2,\"\xc4\xa0"
      "a\":3";
  int id = 4;
  for (const std::string& symbol : pare::detail::byte_symbols())
    vocabulary += "," + nlohmann::json(symbol).dump() + ":" + std::to_string(id++);
  const std::string zero(1, '\0');
  write_text(root / "tokenizer" / "bytes", vocabulary + "}" + zero +
                                               "#version: 0.2\na b\nab c\n\xc4\xa0 a\n" + zero +
                                               "abc a</s>ab\xc3\xa9");
  write_text(root / "tokenizer" / "few",
             R"({"a":0,"b":1,"ab":2})" + zero + "a b\n" + zero + "abab");
  const auto whole = [](const std::string& merges) {
    return R"({"version":"1.0","added_tokens":[{"id":0,"content":"<s>","single_word":false,)"
           R"("lstrip":false,"rstrip":true,"normalized":false,"special":true},{"id":6,)"
           R"("content":"ca","single_word":true,"lstrip":true,"normalized":true}],)"
           R"("normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true,)"
           R"("use_regex":true},"post_processor":{"type":"Sequence","processors":[{"type":)"
           R"("ByteLevel"},{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>",)"
           R"("type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<s>":{"id":)"
           R"("<s>","ids":[0],"tokens":["<s>"]}}}]},"decoder":{"type":"ByteLevel"},"model":{)"
           R"("type":"BPE","dropout":null,"unk_token":"<s>","fuse_unk":true,"byte_fallback":false,)"
           R"("ignore_merges":true,"vocab":{"<s>":0,"a":1,"b":2,"c":3,"ab":4,"abc":5},"merges":)" +
           merges + "}}";
  };
  const std::string text = "abc <s>  abca ca b?";
  write_text(root / "tokenizer" / "json", "\1" + whole(R"(["a b","ab c"])") + zero + text);
  write_text(root / "tokenizer" / "json_pairs",
             "\1" + whole(R"([["a","b"],["ab","c"]])") + zero + text);
  // Every component once: as LLaMA 2, and with splits.
  const auto steps = [](const std::string& normalizer, const std::string& pre_tokenizer,
                        const std::string& decoder) {
    return R"({"added_tokens":[{"id":9,"content":"A B","normalized":true}],"normalizer":)" +
           normalizer + R"(,"pre_tokenizer":)" + pre_tokenizer +
           R"(,"post_processor":{"type":"RobertaProcessing","sep":["</s>",0],"cls":["<s>",0]},)"
           R"("decoder":)" +
           decoder +
           R"(,"model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,)"
           R"("vocab":{"<unk>":0,"_":1,"a":2,"b":3,"_a":4,"<0x0A>":5,"<0xC3>":6,"<0xA9>":7},)"
           R"("merges":["_ a"]}})";
  };
  const std::string llama = R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"_"},)"
                            R"({"type":"Replace","pattern":{"String":" "},"content":"_"}]})";
  const std::string decoder =
      R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},)"
      R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1}]})";
  const std::string splits =
      R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"[^(\\s|[,])]+"},)"
      R"("behavior":"MergedWithNext","invert":true},{"type":"Digits","individual_digits":true},)"
      R"({"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true}]})";
  const std::string forms =
      R"({"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Strip"},{"type":"Lowercase"},)"
      R"({"type":"Replace","pattern":{"Regex":"\\d{1,3}+"},"content":"b"}]})";
  const std::string words = " A B e\xcc\x81 a\n12 \xef\xac\x81,b ";
  write_text(root / "tokenizer" / "fallback", "\1" + steps(llama, "null", decoder) + zero + words);
  write_text(root / "tokenizer" / "splits",
             "\1" + steps(forms, splits, R"({"type":"Metaspace","replacement":"_"})") + zero +
                 words);
  const std::string parts = R"({"<s>":0,"a":1,"b":2,"c":3,"ab":4,"abc":5})" + zero +
                            "#version: 0.2\na b\nab c\n" + zero + R"({"ca":6})" + zero +
                            R"({"add_prefix_space":false,"added_tokens_decoder":{"6":{"content":)"
                            R"("ca","single_word":true}}})" +
                            zero;
  write_text(root / "tokenizer" / "folder", "\2" + parts + zero + text);
  write_text(root / "tokenizer" / "folder_json",
             "\2" + parts + whole(R"(["a b","ab c"])") + zero + text);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "corpus: expected one folder to write to\n";
    return 2;
  }
  write_all(argv[1]);
}
