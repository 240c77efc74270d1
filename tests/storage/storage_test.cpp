// Safetensors reader, writer and rewriter; checkpoints of one or several files.
#define BOOST_TEST_MODULE pare_storage
#include <boost/test/unit_test.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "files.hpp"
#include "pare/core/fingerprint.hpp"
#include "pare/core/xxh64.hpp"
#include "pare/storage/checkpoint.hpp"
#include "pare/storage/quantized.hpp"
#include "pare/storage/safetensors.hpp"
#include "pare/storage/temporary.hpp"

namespace fs = std::filesystem;

namespace {

using test::Folder;
using test::read_text;
using test::write_text;

/// A safetensors file from its parts: length, header, `data_bytes` of data.
std::string make_file(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + header + std::string(data_bytes, '\x01');
}

/// Checks that f throws exactly E, in one line that begins with `file` and holds `cause`.
template <class E, class F>
void check_error(const fs::path& file, const std::string& cause, F&& f) {
  BOOST_TEST_CONTEXT(cause) {
    try {
      f();
      BOOST_ERROR("nothing was thrown");
    } catch (const pare::error& e) {
      const std::string message = e.what();
      BOOST_TEST_INFO(message);
      BOOST_CHECK(typeid(e) == typeid(E));
      BOOST_TEST_INFO(message);
      BOOST_CHECK(message.starts_with(file.string() + ": "));
      BOOST_TEST_INFO(message);
      BOOST_CHECK(message.find(cause) != std::string::npos);
      BOOST_TEST_INFO(message);
      BOOST_CHECK(message.find('\n') == std::string::npos);
    }
  }
}

std::vector<std::byte> counting_bytes(std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * 37 + 11);
  return bytes;
}

std::size_t files_in(const fs::path& folder) {
  return std::size_t(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

pare::TensorData float_tensor(const std::string& name, std::vector<float> values,
                              std::vector<std::int64_t> shape, pare::DType type) {
  return {name, pare::dtype_name(type), std::move(shape), pare::encode_floats(values, type)};
}

constexpr pare::DType float_types[] = {pare::DType::f16, pare::DType::bf16, pare::DType::f32,
                                       pare::DType::f64};

}  // namespace

BOOST_AUTO_TEST_CASE(round_trip_of_every_dtype) {
  const Folder folder;
  const fs::path file = folder.path / "all.safetensors";
  std::vector<pare::TensorData> tensors;
  for (const char* dtype :
       {"F16", "BF16", "F32", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL", "U16", "U32", "U64",
        "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
    tensors.push_back({std::string("tensor ") + dtype,
                       dtype,
                       {3, 5},
                       counting_bytes(15 * std::size_t(pare::element_bytes(dtype)))});
  tensors.push_back({"half bytes", "F4", {3, 6}, counting_bytes(9)});
  tensors.push_back({"three quarters", "F6_E2M3", {2, 4}, counting_bytes(6)});
  tensors.push_back({"scalar", "F32", {}, counting_bytes(4)});
  tensors.push_back({"empty", "F32", {0, 7}, {}});
  tensors.push_back({"quote \" newline \n \xc3\xa9", "U8", {2, 1, 3}, counting_bytes(6)});
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"a", "\"b\"\n"}};
  pare::write_safetensors(file, tensors, metadata);

  const pare::SafetensorsFile read(file);
  BOOST_TEST(read.data_offset() % 8 == 0u);
  BOOST_CHECK(read.metadata() == metadata);
  BOOST_REQUIRE(read.tensors().size() == tensors.size());
  for (const auto& t : tensors) {
    const pare::TensorInfo* info = read.find(t.name);
    BOOST_REQUIRE(info != nullptr);
    BOOST_TEST(info->dtype == t.dtype);
    BOOST_TEST(info->shape == t.shape, boost::test_tools::per_element());
    BOOST_CHECK(read.read_bytes(t.name) == t.bytes);
  }
  std::uint64_t end = 0;
  for (const auto& info : read.tensors()) {
    BOOST_TEST(info.begin == end);
    end = info.end;
  }
  BOOST_CHECK(read.find("absent") == nullptr);
  BOOST_TEST(files_in(folder.path) == 1u);
  check_error<pare::format_error>(file, "no tensor 'absent'", [&] { read.read_bytes("absent"); });
  check_error<pare::format_error>(file,
                                  "tensor 'tensor I64' has dtype I64; expected one of F16, "
                                  "BF16, F32, F64",
                                  [&] { read.read_float("tensor I64"); });
  check_error<pare::format_error>(file, "tensor 'scalar' has rank 0; expected 1 or 2",
                                  [&] { read.read_float("scalar"); });
  BOOST_TEST(read.read_float("empty").rows() == 0);
  BOOST_TEST(read.read_float("empty").cols() == 7);
}

BOOST_AUTO_TEST_CASE(fingerprints_are_fnv_1a) {
  // From the test suite of its authors.
  BOOST_TEST(pare::hex_text(pare::fingerprint("")) == "cbf29ce484222325");
  BOOST_TEST(pare::hex_text(pare::fingerprint("a")) == "af63dc4c8601ec8c");
  BOOST_TEST(pare::hex_text(pare::fingerprint("foobar")) == "85944171f73967e8");
  pare::Fingerprint pieces;
  pieces.add("foo", 3);
  pieces.add("bar", 3);
  BOOST_TEST(pieces.value() == pare::fingerprint("foobar"));
}

BOOST_AUTO_TEST_CASE(checksums_are_xxh64) {
  const auto of = [](std::string_view text) {
    return pare::hex_text(pare::xxh64(std::as_bytes(std::span(text))));
  };
  BOOST_TEST(of("") == "ef46db3751d8e999");
  BOOST_TEST(of("a") == "d24ec4f1a98c6e5b");
  BOOST_TEST(of("abc") == "44bc2cf5ad770999");
  std::vector<std::byte> bytes;  // 0, 1, 2, ...
  for (int i = 0; i < 101; ++i) bytes.push_back(std::byte(i));
  BOOST_TEST(pare::hex_text(pare::xxh64(bytes)) == "e99038495f85381e");
  for (std::size_t piece = 1; piece < 40; ++piece) {
    pare::Xxh64 whole;
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      whole.add(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
    BOOST_TEST(pare::hex_text(whole.value()) == "e99038495f85381e");
  }
}

BOOST_AUTO_TEST_CASE(released_bytes_are_read_again) {
  const Folder folder;
  std::string text(100'000, 'x');
  text.back() = 'y';
  write_text(folder / "file", text);
  const pare::detail::InputFile file(folder / "file");
  const auto span = file.bytes(0, file.size());
  BOOST_TEST(char(span.back()) == 'y');
  file.release(5000, 1);
  file.release(0, file.size());
  file.release(file.size() - 1, 1000);  // what is behind the end is nobody's
  BOOST_TEST(file.text(0, file.size()) == text);
}

BOOST_AUTO_TEST_CASE(files_without_tensors) {
  const Folder folder;
  const fs::path file = folder.path / "none.safetensors";
  pare::write_safetensors(file, {});
  BOOST_TEST(pare::SafetensorsFile(file).tensors().empty());
  write_text(file, make_file("{}", 0));
  BOOST_TEST(pare::SafetensorsFile(file).tensors().empty());
}

BOOST_AUTO_TEST_CASE(floats_read_as_stored) {
  const Folder folder;
  const fs::path file = folder.path / "f.safetensors";
  const std::vector<float> values{0.0f, -1.5f, 3.14159265f, 65504.0f, 1e-7f, -1e30f};
  std::vector<pare::TensorData> tensors;
  for (const pare::DType type : float_types) {
    tensors.push_back(float_tensor(pare::dtype_name(type) + "2", values, {2, 3}, type));
    tensors.push_back(float_tensor(pare::dtype_name(type) + "1", values, {6}, type));
  }
  pare::write_safetensors(file, tensors);
  const pare::SafetensorsFile read(file);
  for (const pare::DType type : float_types) {
    BOOST_CHECK(pare::float_dtype(pare::dtype_name(type)) == type);
    const auto matrix = read.read_float(pare::dtype_name(type) + "2");
    const auto vector = read.read_float(pare::dtype_name(type) + "1");
    BOOST_TEST(matrix.rows() == 2);
    BOOST_TEST(matrix.cols() == 3);
    BOOST_TEST(vector.rows() == 1);
    BOOST_TEST(vector.cols() == 6);
    for (std::size_t i = 0; i < 6; ++i) {
      BOOST_TEST(matrix.data()[i] == pare::round_to(type, values[i]));
      BOOST_TEST(vector.data()[i] == pare::round_to(type, values[i]));
    }
  }
}

BOOST_AUTO_TEST_CASE(large_tensors_are_read_in_pieces) {
  const Folder folder;
  const fs::path file = folder.path / "large.safetensors";
  std::vector<float> values(1'500'001);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = float(i % 2048);
  pare::write_safetensors(file, {float_tensor("x", values, {1'500'001}, pare::DType::f16)});
  const auto x = pare::SafetensorsFile(file).read_float("x");
  BOOST_CHECK(std::equal(values.begin(), values.end(), x.data()));
}

BOOST_AUTO_TEST_CASE(halves_exhaustively) {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto h = static_cast<std::uint16_t>(bits);
    const float value = pare::half_to_float(h);
    const bool is_nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0;
    if (is_nan != std::isnan(value)) ++wrong;
    const std::uint16_t back = pare::float_to_half(value);
    if (is_nan ? !std::isnan(pare::half_to_float(back)) : back != h) ++wrong;
    const float wide = pare::bfloat_to_float(h);
    const std::uint16_t bf = pare::float_to_bfloat(wide);
    if (std::isnan(wide) ? !std::isnan(pare::bfloat_to_float(bf)) : bf != h) ++wrong;
  }
  BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(bfloat16_is_rounded_to_nearest_even) {
  const std::pair<std::uint32_t, std::uint16_t> rounded[] = {
      {0x3f807fff, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82},
      {0x3f81ffff, 0x3f82}, {0xbf818000, 0xbf82}, {0x3fffffff, 0x4000}, {0x7f7fffff, 0x7f80},
      {0x00008000, 0x0000}, {0x00018000, 0x0002}};
  for (const auto& [bits, expected] : rounded)
    BOOST_TEST(pare::float_to_bfloat(std::bit_cast<float>(bits)) == expected);
}

#if defined(__FLT16_MANT_DIG__)
BOOST_AUTO_TEST_CASE(halves_as_the_compiler_rounds) {
  std::mt19937 random(7);
  const auto check = [](float value) {
    const auto theirs = std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
    return pare::float_to_half(value) == theirs || std::isnan(value);
  };
  int wrong = 0;
  for (int i = 0; i < 2'000'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    if (!check(std::bit_cast<float>(bits))) ++wrong;
    // Exponents a half can hold, subnormals and the edge to infinity included.
    const std::uint32_t exponent = 100 + bits % 45;
    if (!check(std::bit_cast<float>((bits & 0x807fffffu) | exponent << 23))) ++wrong;
  }
  for (unsigned h = 0; h < 0x7c00; ++h) {  // halfway between neighbours: ties go to even
    const float low = pare::half_to_float(static_cast<std::uint16_t>(h));
    const float high =
        h == 0x7bff ? 65536.0f : pare::half_to_float(static_cast<std::uint16_t>(h + 1));
    const float middle = (low + high) / 2;
    for (const float v : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e6f)})
      if (!check(v) || !check(-v)) ++wrong;
  }
  BOOST_TEST(wrong == 0);
}
#endif

BOOST_AUTO_TEST_CASE(hostile_files) {
  const Folder folder;
  const fs::path file = folder.path / "hostile.safetensors";
  const auto refuse = [&](const std::string& content, const std::string& cause) {
    write_text(file, content);
    check_error<pare::format_error>(file, cause, [&] { pare::SafetensorsFile{file}; });
  };
  const auto refuse_header = [&](const std::string& header, std::size_t data,
                                 const std::string& cause) {
    refuse(make_file(header, data), cause);
  };
  const std::string f32 = R"("dtype":"F32",)";

  refuse("", "too short");
  refuse("1234567", "too short for a safetensors file: 7 bytes");
  refuse(std::string("\x09\0\0\0\0\0\0\0{}", 10), "header length 9 is larger");
  refuse(std::string("\0\0\0\0\0\0\0\x80{}", 10), "header length 9223372036854775808 is larger");
  refuse(std::string(8, '\xff') + "{}", "header length 18446744073709551615 is larger");
  refuse(std::string(8, '\0'), "does not begin with '{'");
  refuse_header(" {}", 0, "does not begin with '{'");
  refuse_header("[]", 0, "does not begin with '{'");
  refuse_header("not json", 0, "does not begin with '{'");
  refuse_header("{\"a\":", 0, "not valid JSON at byte");
  refuse_header("{}x", 0, "not valid JSON at byte");
  refuse_header("{\"\xff\":1}", 0, "not valid JSON at byte");
  refuse_header("{\"x\":" + std::string(100'000, '['), 0, "nested deeper");
  refuse_header("{\"a\\nb\":1}", 0, "tensor 'a\\x0ab' is not described by an object");
  refuse_header("{\"" + std::string(5000, 'n') + "\":1}", 0, "nnn...' is not described");

  const std::string good = "{\"a\":{" + f32 + R"("shape":[2],"data_offsets":[0,8]}})";
  write_text(file, make_file(good, 8));
  BOOST_CHECK_NO_THROW(pare::SafetensorsFile{file});
  refuse_header(good, 7, "tensor 'a' ends at data byte 8 but the file holds only 7 bytes");
  refuse_header(good, 9, "1 extra bytes after the last tensor");

  const auto one = [&](const std::string& body) { return "{\"W\":{" + body + "}}"; };
  refuse_header(one(R"("shape":[2],"data_offsets":[0,8])"), 8, "tensor 'W' has no dtype");
  refuse_header(one(f32 + R"("data_offsets":[0,8])"), 8, "tensor 'W' has no shape");
  refuse_header(one(f32 + R"("shape":[2])"), 8, "tensor 'W' has no data_offsets");
  refuse_header(one(R"("dtype":4,"shape":[2],"data_offsets":[0,8])"), 8, "not a string");
  refuse_header(one(R"("dtype":"F8_E4M3","shape":[9],"data_offsets":[0,8])"), 8,
                "tensor 'W' needs 9 bytes for its shape but has 8");
  refuse_header(one(R"("dtype":"F4","shape":[3,5],"data_offsets":[0,8])"), 8, "no whole byte");
  refuse_header(one(R"("dtype":"F4","shape":[4294967296,4294967298],"data_offsets":[0,8])"), 8,
                "a shape whose size overflows");
  refuse_header(one(f32 + R"("shape":2,"data_offsets":[0,8])"), 8, "shape that is not an array");
  refuse_header(one(f32 + R"("shape":[-2],"data_offsets":[0,8])"), 8, "not an integer from 0");
  refuse_header(one(f32 + R"("shape":[2.0],"data_offsets":[0,8])"), 8, "not an integer from 0");
  refuse_header(one(f32 + R"("shape":["2"],"data_offsets":[0,8])"), 8, "not an integer from 0");
  refuse_header(one(f32 + R"("shape":[9223372036854775808],"data_offsets":[0,8])"), 8,
                "not an integer from 0");
  refuse_header(one(f32 + R"("shape":[4294967296,4294967298],"data_offsets":[0,8])"), 8,
                "tensor 'W' has a shape whose size overflows");
  refuse_header(one(f32 + R"("shape":[4611686018427387906],"data_offsets":[0,8])"), 8,
                "tensor 'W' has a shape whose size overflows");
  refuse_header(one(f32 + R"("shape":[3],"data_offsets":[0,8])"), 8,
                "tensor 'W' needs 12 bytes for its shape but has 8");
  refuse_header(one(f32 + R"("shape":[2],"data_offsets":[8,0])"), 8, "before it begins");
  refuse_header(one(f32 + R"("shape":[2],"data_offsets":[0])"), 8, "not two integers");
  refuse_header(one(f32 + R"("shape":[2],"data_offsets":[0,8.0])"), 8, "not an integer");
  refuse_header(one(f32 + R"("shape":[2],"data_offsets":[-8,0])"), 8, "not an integer");
  refuse_header(one(f32 + R"("shape":[2],"data_offsets":[0,18446744073709551615])"), 8,
                "not an integer");
  refuse_header(one(f32 + f32 + R"("shape":[2],"data_offsets":[0,8])"), 8,
                "the name 'dtype' occurs twice");

  const auto two = [&](const std::string& second, const std::string& offsets) {
    return "{\"a\":{" + f32 + R"("shape":[2],"data_offsets":[0,8]},")" + second + "\":{" + f32 +
           R"("shape":[2],"data_offsets":)" + offsets + "}}";
  };
  refuse_header(two("b", "[4,12]"), 12, "tensor 'b' overlaps the one before it");
  refuse_header(two("b", "[0,8]"), 8, "tensor 'b' overlaps the one before it");
  refuse_header(two("b", "[12,20]"), 20, "tensor 'b' comes after a hole");
  refuse_header(two("a", "[8,16]"), 16, "the name 'a' occurs twice");
  refuse_header(one(f32 + R"("shape":[2],"data_offsets":[4,12])"), 12,
                "tensor 'W' comes after a hole");

  refuse_header(R"({"__metadata__":[]})", 0, "__metadata__ is not an object");
  refuse_header(R"({"__metadata__":{"k":1}})", 0, "__metadata__ entry 'k' is not a string");

  fs::remove(file);
  check_error<pare::io_error>(file, "No such file", [&] { pare::SafetensorsFile{file}; });
  check_error<pare::io_error>(folder.path, "not a regular file",
                              [&] { pare::SafetensorsFile{folder.path}; });
}

BOOST_AUTO_TEST_CASE(header_of_more_than_the_limit) {
  const Folder folder;
  const fs::path file = folder.path / "limit.safetensors";
  const std::uint64_t length = pare::SafetensorsFile::header_limit + 1;
  std::string start(8, '\0');
  std::memcpy(start.data(), &length, 8);
  write_text(file, start);
  fs::resize_file(file, 8 + length);  // sparse
  check_error<pare::format_error>(file, "exceeds the limit", [&] { pare::SafetensorsFile{file}; });
}

BOOST_AUTO_TEST_CASE(file_cut_after_opening) {
  const Folder folder;
  const fs::path file = folder.path / "cut.safetensors";
  pare::write_safetensors(file, {{"x", "F32", {100}, counting_bytes(400)}});
  const pare::SafetensorsFile read(file);
  fs::resize_file(file, read.data_offset() + 40);
  check_error<pare::io_error>(file, "more bytes were expected", [&] { read.read_bytes("x"); });
  check_error<pare::io_error>(file, "more bytes were expected", [&] { read.read_float("x"); });
}

BOOST_AUTO_TEST_CASE(tensors_that_make_no_file) {
  const Folder folder;
  const fs::path file = folder.path / "no.safetensors";
  const auto refuse = [&](const std::vector<pare::TensorData>& tensors, const std::string& cause) {
    check_error<pare::argument_error>(file, cause, [&] { pare::write_safetensors(file, tensors); });
    BOOST_TEST(files_in(folder.path) == 0u);
  };
  refuse({{"x", "F32", {2}, counting_bytes(7)}}, "tensor 'x': expected 8 bytes");
  refuse({{"x", "F4", {2}, counting_bytes(8)}}, "tensor 'x': expected 1 bytes");
  refuse({{"x", "F4", {3}, counting_bytes(2)}},
         "the size of dtype 'F4' is no whole number of bytes");
  refuse({{"x", "f32", {2}, counting_bytes(8)}}, "dtype 'f32' is unknown");
  refuse({{"x", "F32", {-2}, counting_bytes(8)}}, "negative");
  refuse({{"x", "U8", {1}, counting_bytes(1)}, {"x", "U8", {1}, counting_bytes(1)}}, "used twice");
  refuse({{"__metadata__", "U8", {1}, counting_bytes(1)}}, "reserved");
  refuse({{"\xff", "U8", {1}, counting_bytes(1)}}, "not valid UTF-8");
}

BOOST_AUTO_TEST_CASE(failed_writes_leave_nothing) {
  const Folder folder;
  const std::vector<pare::TensorData> tensors{{"x", "U8", {100'000}, counting_bytes(100'000)}};

  const fs::path nowhere = folder.path / "absent" / "x.safetensors";
  check_error<pare::io_error>(nowhere, "cannot create: No such file",
                              [&] { pare::write_safetensors(nowhere, tensors); });

  const fs::path taken = folder.path / "taken";
  fs::create_directory(taken);
  check_error<pare::io_error>(taken, "this is a folder",
                              [&] { pare::write_safetensors(taken, tensors); });
  BOOST_TEST(files_in(folder.path) == 1u);
  fs::remove(taken);

  // A limit on file sizes stands in for a full disk.
  const fs::path old = folder.path / "old.safetensors";
  write_text(old, "old content");
  rlimit limit{};
  BOOST_REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit small{50'000, limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  BOOST_REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    pare::write_safetensors(old, tensors);
  } catch (const pare::io_error& e) {
    message = e.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  BOOST_TEST(message == old.string() + ": cannot write: File too large");
  BOOST_TEST(files_in(folder.path) == 1u);
  BOOST_TEST(read_text(old) == "old content");
}

BOOST_AUTO_TEST_CASE(temporaries_have_new_names_and_go) {
  const Folder folder;
  const fs::path prefix = folder / "x.part-";
  fs::path first, kept;
  {
    const pare::TemporaryFolder one(prefix), other(prefix);
    first = one.path();
    BOOST_TEST(one.path() != other.path());
    write_text(one.path() / "file", "text");
    fs::create_directories(one.path() / "deep/er");
    BOOST_TEST(files_in(folder.path) == 2u);
  }
  BOOST_TEST(files_in(folder.path) == 0u);
  {
    pare::TemporaryFolder one(prefix);
    kept = one.keep();
    pare::TemporaryFolder other(prefix);
    BOOST_TEST(!other.release([&] { return ::rename(other.path().c_str(), "/nowhere/x") == 0; }));
    BOOST_TEST(other.release(
        [&] { return ::rename(other.path().c_str(), (folder / "renamed").c_str()) == 0; }));
  }
  BOOST_TEST(fs::exists(kept));
  BOOST_TEST(fs::exists(folder / "renamed"));
  BOOST_TEST(files_in(folder.path) == 2u);
  check_error<pare::io_error>(folder / "absent", "cannot be written: No such file",
                              [&] { pare::TemporaryFolder{folder / "absent/x-"}; });
}

BOOST_AUTO_TEST_CASE(copies_replace_only_what_they_are_given) {
  const Folder folder;
  const fs::path file = folder.path / "a.safetensors", copy = folder.path / "b.safetensors";
  // A header no writer of ours makes: order, spaces and escapes must survive.
  const std::string header =
      R"({ "b":{"shape":[3],"dtype":"U8","data_offsets":[4,7]}, "__metadata__":{"k":"v"},)"
      R"("\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   )";
  write_text(file, make_file(header, 7));
  const pare::SafetensorsFile source(file);
  BOOST_TEST(source.tensors()[0].name == "a");
  BOOST_TEST(source.metadata().at("k") == "v");

  const auto keep = [](const pare::TensorInfo&) { return std::nullopt; };
  pare::copy_safetensors(source, copy, keep);
  BOOST_TEST(read_text(copy) == read_text(file));

  const auto replace_b = [](const pare::TensorInfo& t) -> std::optional<std::vector<std::byte>> {
    if (t.name == "b") return counting_bytes(3);
    return std::nullopt;
  };
  pare::copy_safetensors(source, copy, replace_b);
  const std::string before = read_text(file), after = read_text(copy);
  BOOST_TEST(after.size() == before.size());
  BOOST_TEST(after.substr(0, after.size() - 3) == before.substr(0, before.size() - 3));
  BOOST_CHECK(pare::SafetensorsFile(copy).read_bytes("b") == counting_bytes(3));

  fs::remove(copy);
  const auto replace_badly = [](const pare::TensorInfo& t) {
    return t.name == "b" ? std::optional(counting_bytes(4)) : std::nullopt;
  };
  check_error<pare::argument_error>(copy, "tensor 'b': expected 3 bytes as replacement, got 4",
                                    [&] { pare::copy_safetensors(source, copy, replace_badly); });
  BOOST_TEST(files_in(folder.path) == 1u);

  pare::copy_safetensors(source, file, replace_b);  // onto itself
  BOOST_TEST(read_text(file) == after);
  BOOST_TEST(files_in(folder.path) == 1u);
}

BOOST_AUTO_TEST_CASE(a_type_that_came_later_is_kept_as_it_is) {
  const Folder folder;
  const fs::path file = folder.path / "a.safetensors", copy = folder.path / "b.safetensors";
  // Its elements may be of any size; a quote in its name must not break what is written.
  const std::string header =
      R"({"__metadata__":null,"new":{"dtype":"F3_\"x","shape":[5,7],"data_offsets":[0,11]},)"
      R"("w":{"dtype":"U8","shape":[2],"data_offsets":[11,13]}})";
  write_text(file, make_file(header, 13));
  const pare::SafetensorsFile source(file);
  BOOST_TEST(source.metadata().empty());
  BOOST_TEST(source.at("new").dtype == "F3_\"x");
  BOOST_TEST(source.read_bytes("new").size() == 11u);
  check_error<pare::format_error>(file, "tensor 'new' has dtype 'F3_\"x'; expected one of F16",
                                  [&] { source.read_float("new"); });
  const auto keep = [](const pare::TensorInfo&) { return std::nullopt; };
  pare::copy_safetensors(source, copy, keep);
  BOOST_TEST(read_text(copy) == read_text(file));
  pare::write_safetensors(copy, source, source.tensors(), keep);
  const auto same = [&] {
    const pare::SafetensorsFile read(copy);
    BOOST_TEST(read.at("new").dtype == "F3_\"x");
    BOOST_TEST(read.at("new").shape == source.at("new").shape, boost::test_tools::per_element());
    for (const char* name : {"new", "w"})
      BOOST_CHECK(read.read_bytes(name) == source.read_bytes(name));
  };
  same();
  pare::write_safetensors(copy, source.tensors(), {},
                          [&](std::size_t i) { return source.bytes(source.tensors()[i]); });
  same();
}

BOOST_AUTO_TEST_CASE(files_of_another_kind_are_called_by_name) {
  const Folder folder;
  for (const auto& [content, what] : std::vector<std::pair<std::string, std::string>>{
           {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"},
           {"GGUF\x03", "a GGUF file of llama.cpp"},
           {"\x89HDF\r\n", "an HDF5 file of TensorFlow"},
           {"<!DOCTYPE html><html>", "a web page, not the file itself"}})
    for (const char* name : {"model.safetensors", "pytorch_model.bin"}) {
      const Folder model;
      write_text(model / name, content);
      check_error<pare::format_error>(model / name, what, [&] { pare::Checkpoint{model.path}; });
    }
}

BOOST_AUTO_TEST_CASE(quantized_checkpoints_are_known_by_their_tensors) {
  const auto found = [](const std::vector<std::string>& tensors, const char* beside = nullptr) {
    const Folder folder;
    std::vector<pare::TensorData> data;
    for (const std::string& name : tensors) data.push_back({name, "I32", {1}, counting_bytes(4)});
    pare::write_safetensors(folder / "model.safetensors", data);
    if (beside != nullptr) write_text(folder / beside, "{}");
    return pare::quantized_by(pare::Checkpoint(folder.path)).value_or("nothing");
  };
  BOOST_TEST(found({"a.weight", "qweight", "scales"}) == "nothing");
  BOOST_TEST(found({"a.qweight", "a.qzeros", "a.g_idx"}) == "gptq (tensor 'a.qweight')");
  BOOST_TEST(found({"a.qweight", "a.qzeros"}) == "gptq or awq (tensor 'a.qweight')");
  BOOST_TEST(found({"a.qweight"}, "quantize_config.json") == "gptq (tensor 'a.qweight')");
  BOOST_TEST(found({"a.qweight"}, "quant_config.json") == "awq (tensor 'a.qweight')");
  BOOST_TEST(found({"a.weight_packed"}) == "compressed-tensors (tensor 'a.weight_packed')");
  BOOST_TEST(found({"a.weight", "a.weight.absmax"}) == "bitsandbytes (tensor 'a.weight.absmax')");
}

BOOST_AUTO_TEST_CASE(checkpoint_of_one_file) {
  const Folder folder;
  pare::write_safetensors(folder.path / "model.safetensors",
                          {float_tensor("x", {1, 2, 3, 4}, {2, 2}, pare::DType::f16)});
  const pare::Checkpoint checkpoint(folder.path);
  BOOST_TEST(!checkpoint.sharded());
  BOOST_TEST(checkpoint.files().size() == 1u);
  BOOST_TEST(checkpoint.read_float("x")(1, 0) == 3.0f);
  BOOST_CHECK(!checkpoint.find("y"));
  check_error<pare::format_error>(folder.path, "no tensor 'y'",
                                  [&] { checkpoint.read_float("y"); });
}

BOOST_AUTO_TEST_CASE(checkpoint_of_shards) {
  const Folder folder;
  const fs::path index = folder.path / "model.safetensors.index.json";
  pare::write_safetensors(folder.path / "s1.safetensors",
                          {float_tensor("x", {1}, {1}, pare::DType::f32)});
  pare::write_safetensors(folder.path / "s2.safetensors",
                          {float_tensor("y", {2}, {1}, pare::DType::bf16)});
  write_text(index, R"({"weight_map":{"x":"s1.safetensors","y":"s2.safetensors"}})");
  pare::Checkpoint opened(folder.path);
  const pare::Checkpoint checkpoint = std::move(opened);
  BOOST_TEST(checkpoint.sharded());
  BOOST_TEST(checkpoint.files().size() == 2u);
  BOOST_TEST(checkpoint.read_float("y")(0, 0) == 2.0f);
  BOOST_REQUIRE(checkpoint.find("x").has_value());
  BOOST_TEST(checkpoint.find("x")->file->path() == folder.path / "s1.safetensors");
  BOOST_TEST(checkpoint.find("x")->info->dtype == "F32");

  const auto refuse = [&](const std::string& text, const std::string& cause) {
    write_text(index, text);
    check_error<pare::format_error>(index, cause, [&] { pare::Checkpoint{folder.path}; });
  };
  refuse("", "not valid JSON");
  refuse("[]", "expected a JSON object, got array");
  refuse("{}", "weight_map is missing");
  refuse(R"({"weight_map":[]})", "weight_map is missing or not an object");
  refuse(R"({"weight_map":{"x":1}})", "the file of tensor 'x' is not a string");
  refuse(R"({"weight_map":{"x":"../s1.safetensors"}})", "not a plain file name");
  refuse(R"({"weight_map":{"x":"/etc/passwd"}})", "not a plain file name");
  refuse(R"({"weight_map":{"x":""}})", "not a plain file name");
  refuse(R"({"weight_map":{"x":"s1.safetensors\u0000"}})", "not a plain file name");
  refuse(R"({"weight_map":{"y":"s1.safetensors"}})",
         "tensor 'y' is not in its shard 's1.safetensors'");
  refuse(R"({"weight_map":{"x":"s1.safetensors","x":"s2.safetensors"}})", "'x' occurs twice");
  write_text(index, R"({"weight_map":{"x":"s3.safetensors"}})");
  check_error<pare::io_error>(index, "shard 's3.safetensors' is missing",
                              [&] { pare::Checkpoint{folder.path}; });
}

BOOST_AUTO_TEST_CASE(folders_without_weights) {
  const Folder folder;
  const auto open = [&] { pare::Checkpoint{folder.path}; };
  check_error<pare::io_error>(folder.path,
                              "found none of model.safetensors, model.safetensors.index.json, "
                              "pytorch_model.bin and pytorch_model.bin.index.json",
                              open);
  write_text(folder / "model.fp16.safetensors", "");
  check_error<pare::io_error>(folder.path,
                              "pytorch_model.bin.index.json; 'model.fp16.safetensors' is not read "
                              "under that name",
                              open);
  check_error<pare::io_error>(folder.path / "absent", "not a folder",
                              [&] { pare::Checkpoint{folder.path / "absent"}; });
}

BOOST_AUTO_TEST_CASE(shared_models_open) {
  const auto found = test::shared_folder("the shared models and golden files");
  if (!found) return;
  const fs::path& shared = *found;
  const pare::Checkpoint small(shared / "models" / "opt-small");
  BOOST_TEST(small.files().size() == 4u);
  const auto embedding = small.read_float("model.decoder.embed_positions.weight");
  BOOST_TEST(embedding.rows() > 0);
  BOOST_TEST(std::isfinite(embedding(0, 0)));
  for (const auto& file : small.files()) {
    const Folder folder;
    pare::copy_safetensors(pare::SafetensorsFile(file.path()), folder.path / "copy",
                           [](const pare::TensorInfo&) { return std::nullopt; });
    BOOST_CHECK(read_text(file.path()) == read_text(folder.path / "copy"));
  }
  for (const auto& entry : fs::directory_iterator(shared / "golden"))
    if (entry.path().extension() == ".safetensors")
      BOOST_CHECK_NO_THROW(pare::SafetensorsFile{entry.path()});
}
