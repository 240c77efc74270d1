// Checkpoint on any index, beside one shard of each format that it may name.
#include "../torch_files.hpp"
#include "fuzz.hpp"
#include "pare/storage/checkpoint.hpp"

namespace {

struct Shards : test::Folder {
  Shards() {
    const std::vector<pare::TensorData> tensors{{"a", "U8", {2}, std::vector<std::byte>(2)},
                                                {"b", "F32", {1}, std::vector<std::byte>(4)}};
    pare::write_safetensors(path / "s", tensors);
    test::write_text(path / "t", test::torch_file(tensors));
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Shards shards;
  for (const char* name : {pare::Checkpoint::index_name, pare::Checkpoint::pytorch_index_name}) {
    fuzz::check(data, size, [&](std::string_view content) {
      test::write_text(shards / name, content);
      const pare::Checkpoint checkpoint(shards.path);
      for (const char* tensor : {"a", "b"})
        if (const auto found = checkpoint.find(tensor)) found->file->read_bytes(tensor);
    });
    std::filesystem::remove(shards / name);
  }
  return 0;
}
