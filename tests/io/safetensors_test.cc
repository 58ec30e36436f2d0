// The format's rules as its specification states them, each broken once; files are written here byte by byte.
#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>

#include "io/atomic_file.h"
#include "tests/io/temp_folder.h"

namespace deepseek::io {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> file_of(const std::string& header, size_t data_bytes, uint64_t claimed) {
  std::vector<std::byte> bytes(8 + header.size() + data_bytes, std::byte{1});
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(claimed >> (8 * i));
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}
std::vector<std::byte> file_of(const std::string& header, size_t data_bytes) {
  return file_of(header, data_bytes, header.size());
}

struct Hostile {
  const char* name;
  std::vector<std::byte> bytes;
  const char* message;
  ErrorCode code = ErrorCode::kDataCorrupt;
};

std::vector<Hostile> hostile_files() {
  const std::string nested(100000, '[');
  return {
      {"empty", {}, "is 0 bytes long, a header length alone takes 8"},
      {"huge_header", file_of("{}", 0, ~0ull), "claims a header of 18446744073709551615 bytes, at most 100000000"},
      {"cut_header", file_of("{}", 0, 50), "claims a header of 50 bytes, only 2 follow"},
      {"no_object", file_of("[1]", 0), "must start with '{'"},
      {"bad_json", file_of("{\"a\":", 0), "not valid JSON"},
      {"bad_utf8", file_of("{\"\xff\":{}}", 0), "not valid JSON"},
      {"deep", file_of("{\"a\":" + nested, 0), "nests deeper"},
      {"deep_closed", file_of(R"({"a":{"shape":[[[[[]]]]]}})", 0), "nests deeper"},
      {"twice",
       file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],)"
               R"("data_offsets":[0,1]}})",
               1),
       "names 'a' twice"},
      {"field_twice", file_of(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1),
       "names 'dtype' twice"},
      {"not_object", file_of(R"({"a":3})", 0), "tensor 'a': expected an object, got number"},
      {"no_dtype", file_of(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1), "'dtype' must be a string"},
      {"unknown_dtype", file_of(R"({"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,1]}})", 1), "unknown dtype 'Q7'"},
      {"other_dtype", file_of(R"({"a":{"dtype":"U16","shape":[1],"data_offsets":[0,2]}})", 2),
       "dtype U16, which is not supported", ErrorCode::kUnsupported},
      {"extra_field", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1),
       "unknown field 'x'"},
      {"negative_dim", file_of(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1), "got -1"},
      {"real_dim", file_of(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1), "got 1.5"},
      {"overflow", file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
       "overflows 64 bits"},
      {"hidden_overflow", file_of(R"({"a":{"dtype":"F32","shape":[0,9223372036854775807,2],"data_offsets":[0,0]}})", 0),
       "overflows 64 bits"},
      {"backwards", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1), "run backwards"},
      {"out_of_range", file_of(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 1),
       "[0, 9] reach past the 1 bytes of data; is the file truncated?"},
      {"three_offsets", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1),
       "must be two non-negative integers"},
      {"size_mismatch", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
       "need 8 bytes, data_offsets give 4"},
      {"overlap",
       file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
               R"("data_offsets":[1,3]}})",
               3),
       "tensor 'b': its data overlaps"},
      {"hole", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})", 3), "hole of 2 bytes"},
      {"left_over", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 4),
       "3 bytes after the last tensor"},
      {"metadata_number", file_of(R"({"__metadata__":{"epoch":3}})", 0), "metadata 'epoch': expected a string"},
      {"metadata_array", file_of(R"({"__metadata__":[]})", 0), "must be an object of strings"},
      {"bool", file_of(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}} )", 2), ""},
  };
}

TEST(Safetensors, EachBrokenRuleHasItsMessage) {
  for (const Hostile& hostile : hostile_files()) {
    SCOPED_TRACE(hostile.name);
    const auto result = parse_safetensors(hostile.bytes, "bad.safetensors");
    if (*hostile.message == '\0') {  // the control: the same writer makes a valid file
      EXPECT_TRUE(result.ok()) << result.status().to_string();
      continue;
    }
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), hostile.code);
    EXPECT_THAT(result.status().message(), HasSubstr(hostile.message));
    EXPECT_THAT(result.status().message(), HasSubstr("'bad.safetensors'"));
  }
}

TEST(Safetensors, BoolsAreZeroOrOne) {
  auto bytes = file_of(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", 2);
  bytes.back() = std::byte{7};
  const auto result = parse_safetensors(bytes, "f");
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("BOOL element 1 is 7"));
}

TEST(Safetensors, ReadsAFileLaidOutByHand) {
  auto bytes = file_of(R"({"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"__metadata__":{"k":"v"}})", 8);
  const float values[2] = {1.5f, -2.f};
  std::memcpy(bytes.data() + bytes.size() - 8, values, 8);
  const auto file = parse_safetensors(bytes, "memory");
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  const graph::Tensor& w = file->tensors.at("w");
  EXPECT_EQ(w.dims(), (graph::Dims{2, 1}));
  EXPECT_EQ(w.at(0), 1.5);
  EXPECT_EQ(w.at(1), -2.0);
  EXPECT_EQ(file->metadata.at("k"), "v");
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const auto whole = file_of(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 16);
  for (size_t n = 0; n < whole.size(); ++n) {
    EXPECT_FALSE(parse_safetensors(std::span(whole).first(n), "cut").ok()) << n;
  }
}

TEST(Safetensors, RoundTripKeepsEveryBit) {
  TempFolder folder;
  TensorFile file;
  file.metadata = {{"step", "12"}, {"name", "Grüße \"quoted\""}};
  for (DType dtype : {DType::kBool, DType::kU8, DType::kI8, DType::kI32, DType::kI64, DType::kF16, DType::kBF16,
                      DType::kF32, DType::kF64}) {
    graph::Tensor t(dtype, {3, 5});
    for (int64_t i = 0; i < 15; ++i) t.set(i, is_float(dtype) && i == 4 ? NAN : static_cast<double>(i % 7));
    file.tensors[std::string("t.") + std::string(to_string(dtype))] = t;
  }
  file.tensors["scalar"] = graph::Tensor::scalar(DType::kF32, 0.25);
  file.tensors["empty"] = graph::Tensor(DType::kF32, {0, 4});
  const std::string path = folder / "a.safetensors";
  ASSERT_TRUE(save_safetensors(path, file).ok());
  const auto back = load_safetensors(path);
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  EXPECT_EQ(back->metadata, file.metadata);
  ASSERT_EQ(back->tensors.size(), file.tensors.size());
  for (const auto& [name, tensor] : file.tensors) {
    const graph::Tensor& other = back->tensors.at(name);
    EXPECT_EQ(other.type(), tensor.type()) << name;
    EXPECT_EQ(std::memcmp(other.data(), tensor.data(), tensor.num_bytes()), 0) << name;
  }
}

// Twice the tensors take twice the time, or a header of the allowed size would take hours.
TEST(Safetensors, ManyTensorsTakeTimeInProportion) {
  const auto seconds = [](int n) {
    std::string header = "{";
    for (int i = 0; i < n; ++i)
      header +=
          fmt::format(R"({}"t{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}})", i > 0 ? "," : "", i, i, i + 1);
    const std::vector<std::byte> bytes = file_of(header + "}", static_cast<size_t>(n));
    const auto start = std::chrono::steady_clock::now();
    const auto file = parse_safetensors(bytes, "many");
    EXPECT_TRUE(file.ok() && file->tensors.size() == static_cast<size_t>(n)) << file.status().to_string();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const double few = seconds(3000), many = seconds(48000);
  EXPECT_LT(many, 16 * 5 * few);  // a quadratic reader: 256 times
}

TEST(Safetensors, SaveRefusesWhatCannotBeRead) {
  TempFolder folder;
  TensorFile file;
  file.tensors["a"] = graph::Tensor();
  EXPECT_THAT(save_safetensors(folder / "a", file).message(), HasSubstr("tensor 'a' has no data"));
  file.tensors.clear();
  file.tensors["__metadata__"] = graph::Tensor::scalar(DType::kF32, 0);
  EXPECT_THAT(save_safetensors(folder / "a", file).message(), HasSubstr("is reserved"));
  file.tensors.clear();
  file.metadata["k"] = "\xff";
  EXPECT_THAT(save_safetensors(folder / "a", file).message(), HasSubstr("must be UTF-8"));
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
}

}  // namespace
}  // namespace deepseek::io
