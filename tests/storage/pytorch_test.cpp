// Files of torch.save: archives, pickles and tensors, good and hostile.
#define BOOST_TEST_MODULE pare_pytorch
#include <boost/test/unit_test.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "address_sanitizer.hpp"
#include "files.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/convert.hpp"
#include "pare/storage/pytorch.hpp"
#include "torch_files.hpp"

namespace fs = std::filesystem;

namespace {

using namespace test;
using pare::TensorData;

const std::string magic_of_old_files = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Opens `content` as a file.
pare::PytorchFile open_file(const std::string& content) {
  return pare::PytorchFile(MemoryFile(content).path());
}

/// What opening the content and reading all of it comes to: nothing, or the message of a typed
/// error, without the file that it begins with.
std::string outcome(const std::string& content) {
  const MemoryFile file(content);
  try {
    const pare::PytorchFile opened(file.path());
    for (const pare::TensorInfo& info : opened.tensors()) {
      opened.read_bytes(info.name);
      if (pare::float_dtype(info.dtype) && (info.shape.size() == 1 || info.shape.size() == 2))
        opened.read_float(info.name);
    }
    return "";
  } catch (const pare::format_error& e) {
    const std::string message = e.what(), start = file.path().string() + ": ";
    BOOST_TEST_INFO(message);
    BOOST_CHECK(message.starts_with(start));
    BOOST_TEST_INFO(message);
    BOOST_CHECK(message.find('\n') == std::string::npos);
    return message.substr(start.size());
  }
}

/// Checks that the content is refused for `cause`.
void refuse(const std::string& content, const std::string& cause) {
  const std::string message = outcome(content);
  BOOST_TEST_INFO("expected '" << cause << "', got '" << message << "'");
  BOOST_CHECK(message.find(cause) != std::string::npos);
}

std::vector<std::byte> counting_bytes(std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * 37 + 11);
  return bytes;
}

/// Eight floats, the storage of the pickles below.
const std::map<std::string, std::string> eight{
    {"0", std::string("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40"
                      "\0\0\xa0\x40\0\0\xc0\x40\0\0\xe0\x40\0\0\0\x41",
                      32)}};

/// A file with one tensor, "x", of these eight floats.
std::string file_of_view(std::int64_t offset, const std::vector<std::int64_t>& shape,
                         const std::vector<std::int64_t>& stride, std::int64_t elements = 8) {
  return torch_file(p_dict(p_text("x") + p_tensor(p_storage("FloatStorage", "0", elements), offset,
                                                  p_ints(shape), p_ints(stride))),
                    eight);
}
const std::string x_of_eight =
    p_tensor(p_storage("FloatStorage", "0", 8), 0, p_ints({8}), p_ints({1}));

/// A small file with most of what a file may hold.
std::string small_file() {
  return torch_file({{"a", "F16", {2, 3}, counting_bytes(12)},
                     {"layers.0.weight", "F32", {2}, counting_bytes(8)}});
}

const std::string& whole(const std::string& pickle) {
  static std::string file;
  return file = torch_file(pickle, eight);
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_dtype_is_read) {
  std::vector<TensorData> tensors;
  for (const char* dtype : {"F16", "BF16", "F32", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL"})
    tensors.push_back({std::string("tensor ") + dtype,
                       dtype,
                       {3, 5},
                       counting_bytes(15 * std::size_t(pare::element_bytes(dtype)))});
  tensors.push_back({"scalar", "F32", {}, counting_bytes(4)});
  tensors.push_back({"empty", "F32", {0, 7}, {}});
  const auto read = open_file(torch_file(tensors));
  BOOST_REQUIRE(read.tensors().size() == tensors.size());
  for (const TensorData& t : tensors) {
    const pare::TensorInfo& info = read.at(t.name);
    BOOST_TEST(info.dtype == t.dtype);
    BOOST_TEST(info.shape == t.shape, boost::test_tools::per_element());
    BOOST_CHECK(read.read_bytes(t.name) == t.bytes);
  }
  BOOST_TEST(read.read_float("empty").rows() == 0);
  BOOST_CHECK(open_file(torch_file(std::vector<TensorData>{})).tensors().empty());
}

BOOST_AUTO_TEST_CASE(tensors_are_views_of_storages) {
  const auto read = open_file(file_of_view(2, {2, 3}, {3, 1}));
  BOOST_TEST(read.read_float("x")(0, 0) == 3.0f);
  BOOST_TEST(read.read_float("x")(1, 2) == 8.0f);
  // A stride that is never taken may be anything.
  BOOST_TEST(open_file(file_of_view(7, {1, 1}, {99, -3})).read_float("x")(0, 0) == 8.0f);
  BOOST_TEST(open_file(file_of_view(8, {0, 3}, {5, 5})).read_float("x").rows() == 0);

  refuse(file_of_view(0, {2, 3}, {1, 2}),
         "tensor 'x' is not contiguous: stride 2 on side 1, expected 1");
  refuse(file_of_view(0, {2, 2}, {4, 1}), "stride 4 on side 0, expected 2");
  refuse(file_of_view(0, {4}, {0}), "is not contiguous");
  refuse(file_of_view(3, {2, 3}, {3, 1}),
         "tensor 'x' has 6 elements from element 3 on, but its storage holds only 8");
  refuse(file_of_view(9, {0}, {1}), "from element 9 on");
  refuse(file_of_view(-1, {1}, {1}), "storage offset -1");
  refuse(file_of_view(0, {-8}, {1}), "negative side");
  refuse(file_of_view(0, {std::int64_t{1} << 40, std::int64_t{1} << 40}, {1, 1}), "overflows");
  refuse(file_of_view(0, {std::int64_t{1} << 60}, {1}), "tensor 'x' has");
  refuse(file_of_view(std::int64_t{1} << 62, {4}, {1}), "from element 4611686018427387904 on");
  refuse(file_of_view(0, {2}, {1, 1}), "a tensor with 1 sides and 2 strides");
  refuse(file_of_view(0, std::vector<std::int64_t>(9, 1), std::vector<std::int64_t>(9, 1)),
         "a tensor of rank 9, expected at most 8");
  refuse(file_of_view(0, {7}, {1}, 7),
         "storage '0' of 7 elements of F32, but the archive holds 32 bytes of it");
  refuse(file_of_view(0, {8}, {1}, std::int64_t{1} << 61), "but the archive holds 32 bytes");
  refuse(file_of_view(0, {8}, {1}, -8), "a storage of -8 elements");
}

BOOST_AUTO_TEST_CASE(storages_may_be_shared) {
  const std::vector<TensorData> tensors{{"embed", "F32", {2, 2}, counting_bytes(16)},
                                        {"head", "F32", {2, 2}, counting_bytes(16)},
                                        {"other", "F32", {2}, counting_bytes(8)}};
  const auto read = open_file(torch_file(tensors, true));
  BOOST_TEST(read.at("embed").begin == read.at("head").begin);
  for (const TensorData& t : tensors) BOOST_CHECK(read.read_bytes(t.name) == t.bytes);
}

BOOST_AUTO_TEST_CASE(pickles_of_every_writer) {
  // What state_dict() of a module gives: an OrderedDict, its items, its attribute _metadata.
  const std::string metadata = "}" + p_text("_metadata") + p_no_hooks + "(" + p_text("") + "}" +
                               p_text("version") + "K\x01su" + "sb";
  const std::string ordered =
      "\x80\x02" + p_no_hooks + "q\x01(" + p_text("x") + x_of_eight + "u" + metadata + ".";
  BOOST_TEST(open_file(whole(ordered)).read_float("x")(0, 3) == 4.0f);
  // A parameter, and protocol 4: frames, short strings, memoize, globals from the stack.
  const std::string name4 = "\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_parameter\x94\x93";
  const std::string hooks4 =
      "\x8c\x0b"
      "collections\x94\x8c\x0bOrderedDict\x94\x93)R";
  const std::string parameter = "}(\x8c\x01x" + name4 + x_of_eight + "\x88" + hooks4 + "\x87Ru.";
  const std::string protocol4 = "\x80\x04\x95" + raw(std::uint64_t(parameter.size())) + parameter;
  BOOST_TEST(open_file(whole(protocol4)).read_float("x")(0, 7) == 8.0f);
  // What was named before is fetched: by one byte, by four, and after a gap.
  const std::string memo = "\x80\x02}(" + p_text("x") + "r" + raw<std::uint32_t>(5) + "q\x07" +
                           x_of_eight + "q\x09u(j" + raw<std::uint32_t>(5);
  refuse(whole(memo + "h\x09u."), "data.pkl: entry 'x' occurs twice");
  refuse(whole(memo + "h\x08u."), "memo entry 8 was never written");
  const auto one = open_file(whole("\x80\x02}" + p_text("x") + x_of_eight + "s."));
  BOOST_TEST(one.tensors().size() == 1u);
}

BOOST_AUTO_TEST_CASE(every_other_opcode_is_refused_by_name) {
  const std::string allowed =
      "(.NJKM\x8a\x88\x89X\x8c}su)t\x85\x86\x87hjqr\x94"
      "c\x93RbQ\x95";
  for (int op = 0; op < 256; ++op) {
    if (allowed.find(char(op)) != std::string::npos) continue;
    refuse(whole(std::string("\x80\x02}") + char(op) + std::string(16, '\0')),
           "data.pkl: opcode " + pare::detail::pickle_op_text(std::uint8_t(op)) +
               " is refused: a file of tensors has no use for it, at byte 3");
  }
  BOOST_TEST(pare::detail::pickle_op_text(0x81) == "0x81 (NEWOBJ)");
  BOOST_TEST(pare::detail::pickle_op_text('i') == "0x69 (INST)");
  BOOST_TEST(pare::detail::pickle_op_text(0xff) == "0xff (of no name)");
}

BOOST_AUTO_TEST_CASE(every_other_global_is_refused_by_name) {
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"builtins", "getattr"},
                                                        {"torch", "load"},
                                                        {"torch", "ComplexDoubleStorage"},
                                                        {"torch", "float16"},
                                                        {"torch._utils", "_rebuild_tensor"},
                                                        {"torch._utils", "_rebuild_qtensor"},
                                                        {"torch.storage", "_load_from_bytes"},
                                                        {"collections", "defaultdict"},
                                                        {"torch", "FloatStorage.from_file"},
                                                        {"", ""},
                                                        {"torch.FloatStorage", ""},
                                                        {"numpy.core.multiarray",
                                                         "_reconstruct"}}) {
    const std::string cause = "data.pkl: global '" + module + " " + name + "' is refused";
    refuse(whole("\x80\x02" + p_global(module, name) + "(" + p_text("id") + "tR."), cause);
    refuse(whole("\x80\x04" + p_text(module) + p_text(name) + "\x93."), cause);
  }
  refuse(whole("\x80\x02" + p_global(std::string(500, 'm'), "a\tb") + "."), "mmm a\\x09b'");
}

BOOST_AUTO_TEST_CASE(types_without_a_storage_of_their_own) {
  const auto typed = [](const std::string& dtype, std::int64_t bytes, std::int64_t side) {
    const std::string storage = "(" + p_text("storage") +
                                p_global("torch.storage", "UntypedStorage") + p_text("0") +
                                p_text("cpu") + p_int(bytes) + "tQ";
    return p_global("torch._utils", "_rebuild_tensor_v3") + "(" + storage + p_int(0) +
           p_ints({side}) + p_ints({1}) + "\x89" + p_no_hooks + p_global("torch", dtype) + "tR";
  };
  const auto file = [&](const std::string& tensor) { return whole(p_dict(p_text("x") + tensor)); };
  for (const auto& [dtype, name, width] :
       std::vector<std::tuple<std::string, std::string, std::int64_t>>{
           {"uint16", "U16", 2},
           {"uint32", "U32", 4},
           {"uint64", "U64", 8},
           {"float8_e4m3fn", "F8_E4M3", 1},
           {"float8_e5m2", "F8_E5M2", 1},
           {"float8_e4m3fnuz", "F8_E4M3FNUZ", 1},
           {"float8_e5m2fnuz", "F8_E5M2FNUZ", 1},
           {"float8_e8m0fnu", "F8_E8M0", 1}}) {
    const auto read = open_file(file(typed(dtype, 32, 32 / width)));
    BOOST_TEST(read.at("x").dtype == name);
    BOOST_TEST(read.at("x").shape.at(0) == 32 / width);
    const auto bytes = read.read_bytes("x");
    BOOST_CHECK(std::memcmp(bytes.data(), eight.at("0").data(), 32) == 0);
  }
  refuse(file(typed("uint16", 32, 17)), "has 17 elements from element 0 on");
  refuse(file(typed("uint64", 31, 1)), "a storage of 31 bytes for elements of 8");
  refuse(file(typed("float16", 32, 1)), "global 'torch float16' is refused");
  const std::string storage = p_storage("FloatStorage", "0", 8), one = p_ints({1});
  const std::string rebuild = p_global("torch._utils", "_rebuild_tensor_v3");
  const std::string half = "(" + storage + p_int(0) + one + one + "\x89" + p_no_hooks;
  refuse(file(rebuild + half + p_global("torch", "uint16") + "tR"),
         "a tensor of dtype 'uint16' in a storage of another type");
  refuse(file(rebuild + half + p_global("torch", "FloatStorage") + "tR"),
         "'FloatStorage' is not a dtype");
  refuse(file(rebuild + half + "NtR"), "the dtype of a tensor: expected a global, got None");
  refuse(file(rebuild + half + "tR"), "'_rebuild_tensor_v3' with 6 arguments, expected 7");
  const std::string untyped = "(" + p_text("storage") +
                              p_global("torch.storage", "UntypedStorage") + p_text("0") +
                              p_text("cpu") + p_int(32) + "tQ";
  refuse(file(p_tensor(untyped, 0, one, one)), "a tensor without a dtype");
  refuse(file(p_global("torch", "uint16") + ")R"), "'uint16' is called");
}

BOOST_AUTO_TEST_CASE(pickles_that_build_something_else) {
  const auto refuse = [](const std::string& body, const std::string& cause) {
    ::refuse(whole("\x80\x02" + body), "data.pkl: " + cause);
  };
  const std::string storage = p_storage("FloatStorage", "0", 8);
  const std::string one = p_ints({1}), dict = p_no_hooks;
  ::refuse(whole(""), "data.pkl: ends too early");
  ::refuse(whole("}."), "expected opcode 0x80 (PROTO), got 0x7d (EMPTY_DICT)");
  ::refuse(whole("\x80\x01}."), "expected a pickle protocol from 2 to 5, got 1");
  ::refuse(whole("\x80\x06}."), "expected a pickle protocol from 2 to 5, got 6");
  refuse("}\x80\x02.", "opcode 0x80 (PROTO) is refused");
  refuse("}", "ends too early: 1 bytes were expected and 0 are left, at byte 3");
  refuse("}..", "1 extra bytes after the end of the pickle");
  refuse(".", "expected one value at the end, got 0");
  refuse("}}.", "expected one value at the end, got 2");
  refuse("}(.", "expected one value at the end, got 2");
  refuse("K\x01.", "what was saved: expected a dictionary, got an integer");
  refuse(x_of_eight + ".", "what was saved: expected a dictionary, got a tensor");
  refuse("}" + p_text("x") + "K\x01s.", "entry 'x': expected a tensor, got an integer");
  refuse("}" + p_text("x") + "}s.", "entry 'x': expected a tensor, got a dictionary");
  refuse("}" + p_text("x") + storage + "s.", "entry 'x': expected a tensor, got a storage");
  refuse("}K\x01" + x_of_eight + "s.", "a key: expected a string, got an integer");
  refuse("}(" + p_text("x") + "u.", "a key without a value");
  refuse("u.", "there is no mark on the stack");
  refuse("t.", "there is no mark on the stack");
  refuse("(u.", "the stack is empty");
  refuse("}(" + p_text("x") + "s.", "the stack is empty");
  refuse("}(" + p_text("x") + x_of_eight + "su.", "the stack is empty");
  refuse("}(\x85.", "the stack is empty");
  refuse("N" + p_text("x") + x_of_eight + "s.", "what is written to: expected a dictionary, got N");
  refuse("(q\x01.", "the stack is empty");
  refuse("h\x01.", "memo entry 1 was never written");
  refuse("}r\xff\xff\xff\xff.", "memo entry 4294967295 in a pickle of 9 bytes");
  refuse("X\xff\xff\xff\xff.", "ends too early: 4294967295 bytes were expected");
  refuse("\x95" + raw(~std::uint64_t{0}) + "}.", "a frame of 18446744073709551615 bytes");
  refuse("\x8a\x09" + std::string(9, '\1') + ".", "an integer of 9 bytes, expected at most 8");
  refuse("cos", "ends too early: the name of a global has no end");
  refuse("cos\nsystem", "ends too early: the name of a global has no end");
  refuse("K\x01K\x02\x93.", "the name of a global: expected a string, got an integer");

  refuse("K\x01Q.", "a persistent id: expected a tuple, got an integer");
  refuse(")Q.", "a persistent id that is not of a storage and five elements");
  refuse("(" + p_text("module") + "NNNNtQ.", "a persistent id that is not of a storage");
  refuse("(" + p_text("storage") + "NNNNtQ.", "the type of a storage: expected a global, got None");
  refuse("(" + p_text("storage") + p_global("collections", "OrderedDict") + p_text("0") +
             p_text("cpu") + "K\x08tQ.",
         "'OrderedDict' is not the type of a storage");

  const std::string rebuild = p_global("torch._utils", "_rebuild_tensor_v2");
  refuse(rebuild + "NR.", "the arguments of a call: expected a tuple, got None");
  refuse("N)R.", "what is called: expected a global, got None");
  refuse(p_global("torch", "FloatStorage") + ")R.", "'FloatStorage' is called");
  refuse(p_global("collections", "OrderedDict") + one + "R.",
         "'OrderedDict' with 1 arguments, expected 0");
  refuse(rebuild + ")R.", "'_rebuild_tensor_v2' with 0 arguments, expected 6");
  refuse(rebuild + "(" + storage + "K\x01" + one + one + "\x89" + dict + "}tR.",
         "'_rebuild_tensor_v2' with 7 arguments, expected 6");
  refuse(rebuild + "(NK\x01" + one + one + "\x89" + dict + "tR.",
         "the storage of a tensor: expected a storage, got None");
  refuse(rebuild + "(" + storage + "N" + one + one + "\x89" + dict + "tR.",
         "the storage offset of a tensor: expected an integer, got None");
  refuse(rebuild + "(" + storage +
             "K\x01"
             "K\x01" +
             one + "\x89" + dict + "tR.",
         "the shape of a tensor: expected a tuple, got an integer");
  refuse(rebuild + "(" + storage + "K\x01" + one + "N\x85\x89" + dict + "tR.",
         "a side or stride of a tensor: expected an integer, got None");
  refuse(p_global("torch._utils", "_rebuild_parameter") + "N\x88" + dict + "\x87R.",
         "the data of a parameter: expected a tensor, got None");

  const std::string state = "}" + p_text("_metadata") + "}s";
  refuse(dict + "}b.", "a state other than the _metadata of an OrderedDict");
  refuse("}" + state + "b.", "a state other than the _metadata of an OrderedDict");
  refuse(dict + "}" + p_text("__class__") + "}sb.", "a state other than the _metadata");
  refuse(dict + state + p_text("y") + "}sb.", "a state other than the _metadata");
  refuse(x_of_eight + state + "b.", "what a state is set on: expected a dictionary, got a tensor");
  refuse(dict + "Nb.", "a state: expected a dictionary, got None");
}

BOOST_AUTO_TEST_CASE(archives_that_are_none_of_torch_save) {
  const std::string pickle = "\x80\x02}.";
  refuse("", "not a zip archive, or cut: it has no end record");
  refuse("PK", "not a zip archive");
  refuse(std::string(100'000, 'x'), "not a zip archive");
  refuse(magic_of_old_files + "...", "written in the format of PyTorch before 1.6");
  refuse("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer");
  refuse(zip_of({}), "a zip archive without data.pkl");
  refuse(zip_of({{"data.pkl", pickle}}), "a zip archive without data.pkl");
  refuse(zip_of({{"a/data.pkl", pickle}, {"b/data.pkl", pickle}}),
         "holds both 'a/data.pkl' and 'b/data.pkl', expected one data.pkl");
  refuse(torch_file(pickle, {}, "big"), "expected byteorder 'little', got 'big'");
  refuse(torch_file(pickle, {}, "odd\n"), "expected byteorder 'little', got 'odd\\x0a'");
  refuse(torch_file(p_dict(p_text("x") + x_of_eight), {}),
         "tensor 'x' is in storage '0', which the archive does not hold");
  refuse(torch_file(p_dict(p_text("\xff") + x_of_eight), eight), "is not valid UTF-8");
  BOOST_CHECK(open_file(zip_of({{"any name/data.pkl", pickle}})).tensors().empty());

  const Folder folder;
  BOOST_CHECK_THROW(pare::PytorchFile{folder / "absent"}, pare::io_error);
  BOOST_CHECK_THROW(pare::PytorchFile{folder.path}, pare::io_error);
}

BOOST_AUTO_TEST_CASE(archives_good_and_bad) {
  const ZipPart pickle{"a/data.pkl", p_dict(p_text("x") + x_of_eight)};
  const ZipPart storage{"a/data/0", eight.at("0")};
  const auto changed = [](ZipPart part, const std::function<void(ZipPart&)>& change) {
    change(part);
    return part;
  };
  const auto reads = [&](const std::string& content) {
    BOOST_TEST(open_file(content).read_float("x")(0, 7) == 8.0f);
  };
  reads(zip_of({pickle, storage}));
  reads(zip_of({pickle, storage}, {.zip64 = true}));
  reads(zip_of({pickle, storage}, {.comment = "PK\5\6 is not the end of this archive"}));
  const auto wide = [](ZipPart& part) { part.zip64 = true; };
  reads(zip_of({changed(pickle, wide), changed(storage, wide)}));
  reads(zip_of({changed(pickle, wide), changed(storage, wide)}, {.zip64 = true}));
  reads(zip_of({changed(pickle, [](ZipPart& p) { p.flags = 0x808; }), storage, {"a/dir/", ""}}));

  const auto refuse_entry = [&](const std::function<void(ZipPart&)>& change,
                                const std::string& cause) {
    refuse(zip_of({pickle, changed(storage, change)}), cause);
  };
  const std::string entry = "zip entry 'a/data/0' ";
  refuse_entry([](ZipPart& p) { p.flags = 1; }, entry + "is encrypted");
  refuse_entry([](ZipPart& p) { p.method = 8; },
               entry + "is compressed (method 8); only stored entries are read");
  refuse_entry([](ZipPart& p) { p.local_name = "a/data/1"; },
               entry + "has another name in its header");
  refuse_entry([](ZipPart& p) { p.name = "a/data.pkl"; }, "zip entry 'a/data.pkl' occurs twice");
  refuse_entry([](ZipPart& p) { p.claimed = 33; }, entry + "with 33 bytes at byte");
  refuse_entry([](ZipPart& p) { p.claimed = 0xffffffff; }, entry + "lacks its zip64 sizes");
  refuse_entry([](ZipPart& p) { p.claimed = std::uint64_t{1} << 63, p.zip64 = true; },
               entry + "with 9223372036854775808 bytes");
  refuse_entry([](ZipPart& p) { p.shift = 1; }, entry + "has no header at byte");
  refuse_entry([](ZipPart& p) { p.shift = 1000; }, entry + "with 32 bytes at byte");
  refuse_entry([](ZipPart& p) { p.shift = -1000, p.zip64 = true; },
               entry + "with 32 bytes at byte");
  // An entry within another: both headers are there.
  std::vector<ZipPart> overlapping{pickle, storage, storage};
  overlapping[1].data = zip_of({{"a/data/1", "12"}});  // begins with a local header
  overlapping[2].name = "a/data/1";
  overlapping[2].data = "12";
  overlapping[2].shift = -std::int64_t(overlapping[1].data.size());
  refuse(zip_of(overlapping), "zip entry 'a/data/1' overlaps 'a/data/0'");

  const auto refuse_end = [&](const ZipEnd& end, const std::string& cause) {
    refuse(zip_of({pickle, storage}, end), cause);
  };
  for (const bool zip64 : {false, true}) {
    refuse_end({.zip64 = zip64, .count = 1}, "cannot hold the 3 entries it claims");
    refuse_end({.zip64 = zip64, .count = -1}, "extra bytes in the zip directory");
    refuse_end({.zip64 = zip64, .directory_bytes = 1}, "reaches beyond its end record");
    refuse_end({.zip64 = zip64, .directory_bytes = -1}, "reaches beyond the directory");
    refuse_end({.zip64 = zip64, .directory = 1}, "reaches beyond its end record");
    refuse_end({.zip64 = zip64, .directory = -1}, "there is no zip directory entry at byte");
    refuse_end({.zip64 = zip64, .disk = 1}, "a zip archive of several volumes");
  }
  refuse_end({.zip64 = true, .count = std::int64_t{1} << 40}, "entries it claims");
  refuse_end({.zip64 = true, .directory = -(std::int64_t{1} << 40)}, "reaches beyond");
  refuse_end({.zip64 = true, .locator = 1}, "the zip64 end record is not at byte");
  refuse_end({.zip64 = true, .locator = -1}, "the zip64 end record is not at byte");
  refuse_end({.zip64 = true, .locator = std::int64_t{1} << 62}, "the zip64 end record is not at");
}

BOOST_AUTO_TEST_CASE(a_file_cut_anywhere_is_refused) {
  const std::string good = small_file();
  BOOST_TEST(outcome(good) == "");
  for (std::size_t keep = 0; keep < good.size(); ++keep) {
    BOOST_TEST_INFO("cut to " << keep);
    BOOST_CHECK(!outcome(good.substr(0, keep)).empty());
  }
}

BOOST_AUTO_TEST_CASE(a_pickle_cut_anywhere_is_refused) {
  const std::string pickle = p_dict(p_text("x") + x_of_eight);
  BOOST_CHECK_NO_THROW(pare::detail::read_tensor_pickle("f", pickle));
  for (std::size_t keep = 0; keep < pickle.size(); ++keep)
    BOOST_CHECK_THROW(pare::detail::read_tensor_pickle("f", pickle.substr(0, keep)),
                      pare::format_error);
}

BOOST_AUTO_TEST_CASE(flipped_bits_give_an_error_or_a_file) {
  const std::string good = small_file();
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < 8 * good.size(); bit += 3) {
    std::string bad = good;
    bad[bit / 8] = char(bad[bit / 8] ^ (1 << bit % 8));
    refused += !outcome(bad).empty();
  }
  BOOST_TEST(refused > 8 * good.size() / 6);
  std::mt19937 engine(1);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    for (int k = 0; k < 4; ++k) bad[engine() % bad.size()] = char(engine());
    outcome(bad);
  }
}

BOOST_AUTO_TEST_CASE(sizes_in_headers_allocate_nothing) {
  // Each claims a lot of memory; none may take more than the file justifies.
  std::vector<std::string> files{
      file_of_view(0, {std::int64_t{1} << 38}, {1}),
      file_of_view(0, {8}, {1}, std::int64_t{1} << 40),
      whole("\x80\x02}r\xf0\xff\xff\x7f."),
      whole("\x80\x02X\xf0\xff\xff\x7fx."),
      zip_of({{"a/data.pkl", "\x80\x02}."}}, {.zip64 = true, .count = std::int64_t{1} << 34}),
  };
  // A pickle of the largest size, dense in what costs most for its bytes.
  const std::size_t most = pare::detail::PickleReader::size_limit;
  for (const std::string& unit : {std::string("}"), std::string("N"), std::string(")"),
                                  std::string("N\x85"), std::string("}\x94"), std::string("(")}) {
    std::string pickle = "\x80\x04";
    while (pickle.size() + unit.size() <= most) pickle += unit;
    files.push_back(whole(pickle));
  }
  files.push_back(whole(std::string(most + 1, '\x80')));

  rlimit limit{};
  BOOST_REQUIRE(::getrlimit(RLIMIT_AS, &limit) == 0);
  // The address sanitizer maps terabytes for itself; the fuzz targets hold allocations to a bound.
  const rlimit small{address_sanitizer ? limit.rlim_cur : rlim_t{2} << 30, limit.rlim_max};
  BOOST_REQUIRE(::setrlimit(RLIMIT_AS, &small) == 0);
  std::vector<std::string> outcomes;
  std::string other;
  try {
    for (const std::string& file : files) outcomes.push_back(outcome(file));
  } catch (const std::exception& e) {
    other = e.what();
  }
  ::setrlimit(RLIMIT_AS, &limit);
  BOOST_TEST(other == "");
  BOOST_TEST(outcomes.size() == files.size());
  for (const std::string& message : outcomes) BOOST_CHECK(!message.empty());
}

BOOST_AUTO_TEST_CASE(no_pickle_takes_long) {
  // What could be made quadratic: one long value named time and again.
  const std::string name(60'000, 'n');
  std::string many, states;
  for (int i = 0; i < 200'000; ++i) {
    many += "h\x01h\x02Q0";
    states +=
        "h\x03"
        "b";
  }
  const auto refused = [](const std::string& pickle) {
    try {
      pare::detail::read_tensor_pickle("f", pickle);
    } catch (const pare::format_error&) {
      return true;
    }
    return false;
  };
  BOOST_TEST(refused("\x80\x02" + p_text(name) + "q\x01(" + p_text("storage") + "h\x01Nh\x01Nt" +
                     "q\x02" + many));
  BOOST_TEST(refused("\x80\x02" + p_no_hooks + "q\x01}" + p_text("_metadata") + "}sq\x03" +
                     std::string(2, '0') + states));
  std::string wide = "\x80\x02}(" + p_text("x") + x_of_eight + "q\x02";
  for (int i = 0; i < 100'000; ++i) wide += p_text("y" + std::to_string(i)) + "h\x02";
  BOOST_TEST(pare::detail::read_tensor_pickle("f", wide + "u.").size() == 100'001u);
}

BOOST_AUTO_TEST_CASE(checkpoints_prefer_safetensors) {
  const Folder folder;
  const std::vector<TensorData> bin{{"bin", "U8", {1}, counting_bytes(1)}};
  const std::vector<TensorData> shard{{"shard", "U8", {1}, counting_bytes(1)}};
  write_text(folder / "pytorch_model-00001-of-00001.bin", torch_file(shard));
  write_text(folder / "pytorch_model.bin.index.json",
             R"({"weight_map":{"shard":"pytorch_model-00001-of-00001.bin"}})");
  {
    const pare::Checkpoint checkpoint(folder.path);
    BOOST_CHECK(checkpoint.format() == pare::CheckpointFormat::pytorch);
    BOOST_TEST(checkpoint.sharded());
    BOOST_CHECK(checkpoint.find("shard").has_value());
  }
  write_text(folder / "pytorch_model.bin", torch_file(bin));
  BOOST_CHECK(pare::Checkpoint(folder.path).find("bin").has_value());
  BOOST_TEST(!pare::Checkpoint(folder.path).sharded());
  pare::write_safetensors(folder / "s.safetensors", {{"safe shard", "U8", {1}, counting_bytes(1)}});
  write_text(folder / "model.safetensors.index.json",
             R"({"weight_map":{"safe shard":"s.safetensors"}})");
  BOOST_CHECK(pare::Checkpoint(folder.path).find("safe shard").has_value());
  pare::write_safetensors(folder / "model.safetensors", {{"safe", "U8", {1}, counting_bytes(1)}});
  BOOST_CHECK(pare::Checkpoint(folder.path).find("safe").has_value());
  BOOST_CHECK(pare::Checkpoint(folder.path).format() == pare::CheckpointFormat::safetensors);
}

BOOST_AUTO_TEST_CASE(checkpoints_are_written_as_safetensors) {
  const Folder source, target;
  const TensorData a{"a", "F16", {2, 3}, counting_bytes(12)}, b{"b", "U8", {3}, counting_bytes(3)};
  const TensorData c{"c", "F32", {2}, counting_bytes(8)}, d{"d", "F32", {2}, counting_bytes(8)};
  const auto replace = [](const pare::TensorInfo& info) {
    return info.name == "c" ? std::optional(std::vector<std::byte>(8)) : std::nullopt;
  };
  write_text(source / "pytorch_model.bin", torch_file({b, a, c, d}, true));
  pare::write_as_safetensors(pare::Checkpoint(source.path), target.path, {"a"}, replace);
  {
    const pare::SafetensorsFile file(target / "model.safetensors");
    BOOST_TEST(file.metadata().at("format") == "pt");
    BOOST_TEST(file.tensors().size() == 3u);
    BOOST_CHECK(file.read_bytes("b") == b.bytes);
    BOOST_CHECK(file.read_bytes("c") == std::vector<std::byte>(8));
    BOOST_CHECK(file.read_bytes("d") == d.bytes);  // shared its bytes with c
    for (const pare::TensorInfo& info : file.tensors())
      BOOST_TEST(info.begin % std::uint64_t(pare::element_bytes(info.dtype)) == 0u);
  }
  const auto too_long = [](const pare::TensorInfo&) {
    return std::optional(std::vector<std::byte>(100));
  };
  BOOST_CHECK_THROW(pare::write_as_safetensors(pare::Checkpoint(source.path), target.path, {},
                                               too_long),
                    pare::argument_error);

  const Folder sharded, saved;
  write_text(sharded / "pytorch_model-00001-of-00002.bin", torch_file({a, b}));
  write_text(sharded / "pytorch_model-00002-of-00002.bin", torch_file({b, c}));
  write_text(sharded / "pytorch_model.bin.index.json",
             R"({"weight_map":{"a":"pytorch_model-00001-of-00002.bin",)"
             R"("b":"pytorch_model-00002-of-00002.bin","c":"pytorch_model-00002-of-00002.bin"}})");
  pare::write_as_safetensors(pare::Checkpoint(sharded.path), saved.path, {}, replace);
  const auto index = nlohmann::json::parse(read_text(saved / "model.safetensors.index.json"));
  BOOST_TEST(index.at("metadata").at("total_size") == 23);
  BOOST_TEST(index.at("weight_map").at("a") == "model-00001-of-00002.safetensors");
  BOOST_TEST(index.at("weight_map").at("b") == "model-00002-of-00002.safetensors");
  const pare::Checkpoint after(saved.path);
  BOOST_TEST(after.files().size() == 2u);
  BOOST_CHECK(after.files()[0].read_bytes("a") == a.bytes);
  BOOST_CHECK(after.files()[0].find("b") == nullptr);
  BOOST_CHECK(after.at("b").file->read_bytes("b") == b.bytes);
  BOOST_CHECK(after.at("c").file->read_bytes("c") == std::vector<std::byte>(8));
}

BOOST_AUTO_TEST_CASE(shards_that_cannot_be_used_are_named) {
  const Folder f;
  const fs::path index = f / "pytorch_model.bin.index.json";
  const auto message = [&](const std::string& map) {
    write_text(index, "{\"weight_map\":" + map + "}");
    try {
      pare::Checkpoint{f.path};
    } catch (const pare::error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  write_text(f / "s.bin", small_file());
  BOOST_TEST(message(R"({"a":"s.bin"})") == "");
  BOOST_TEST(message(R"({"a":"t.bin"})") == index.string() + ": shard 't.bin' is missing");
  BOOST_TEST(message(R"({"b":"s.bin"})") ==
             index.string() + ": tensor 'b' is not in its shard 's.bin'");
  BOOST_TEST(message(R"({"a":"../s.bin"})") ==
             index.string() + ": tensor 'a' is in file '../s.bin', which is not a plain file name");
  write_text(f / "s.bin", "x");
  BOOST_TEST(message(R"({"a":"s.bin"})").starts_with((f / "s.bin").string() + ": not a zip"));
}

BOOST_AUTO_TEST_CASE(the_shared_model_equals_its_safetensors) {
  const auto shared = shared_folder("opt-tiny as PyTorch saved it");
  if (!shared) return;
  const pare::Checkpoint bin(*shared / "models" / "opt-tiny-bin");
  const pare::Checkpoint safe(*shared / "models" / "opt-tiny");
  BOOST_CHECK(bin.format() == pare::CheckpointFormat::pytorch);
  std::size_t equal = 0;
  for (const pare::TensorInfo& info : safe.files().at(0).tensors()) {
    const pare::TensorLocation other = bin.at(info.name);
    BOOST_TEST(other.info->dtype == info.dtype);
    BOOST_TEST(other.info->shape == info.shape, boost::test_tools::per_element());
    equal += std::ranges::equal(other.file->bytes(*other.info), safe.files()[0].bytes(info));
  }
  BOOST_TEST(equal == safe.files()[0].tensors().size());
  // The file holds the head as well, which is tied.
  BOOST_TEST(bin.files().at(0).tensors().size() == equal + 1);
  BOOST_CHECK(bin.files()[0].read_bytes("lm_head.weight") ==
              bin.files()[0].read_bytes("model.decoder.embed_tokens.weight"));
}
