// Hostile .npy and .npz files, made here byte by byte; what NumPy writes is read in tests/python/test_array_source.py.
#include "io/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

namespace deepseek::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string npy(const std::string& header, const std::string& data) {
  std::string out = "\x93NUMPY";
  out += '\x01';
  out += '\0';
  out += static_cast<char>(header.size() & 255);
  out += static_cast<char>(header.size() >> 8);
  return out + header + data;
}
std::string dict(const std::string& type, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
}
Result<NpyArray> parse(const std::string& bytes) { return parse_npy(std::as_bytes(std::span(bytes)), "a"); }
std::string error(const std::string& bytes) { return parse(bytes).status().message(); }

TEST(Npy, HeadersMayBeWrittenInManyWays) {
  for (const std::string& header :
       {dict("|u1", "(2, 2)"), std::string("{\"shape\":(2,2),'fortran_order':False,'descr':'u1'}"),
        std::string("{'descr': '<u1', 'fortran_order': False, 'shape': (2L, 2L)}   \n")}) {
    const Result<NpyArray> a = parse(npy(header, "abcd"));
    ASSERT_TRUE(a.ok()) << a.status().to_string();
    EXPECT_EQ(a->dims, (graph::Dims{2, 2}));
    EXPECT_EQ(a->values.at(3), 'd');
  }
  EXPECT_EQ(parse(npy(dict("<f4", "()"), std::string(4, '\0')))->dims.size(), 0u);
  EXPECT_EQ(parse(npy(dict("<f4", "(0, 9999999999)"), ""))->values.num_elements(), 0);
  EXPECT_THAT(parse(npy(dict("|S3", "(2,)"), std::string("a\0\0\xe9xy", 6)))->texts, ElementsAre("a", "\xc3\xa9xy"));
}

TEST(Npy, HostileHeadersAreErrors) {
  EXPECT_THAT(error(""), HasSubstr("does not begin as one"));
  EXPECT_THAT(error(std::string("\x93NUMPY\x01", 7)), HasSubstr("ends within the header"));
  EXPECT_THAT(error(npy(dict("<f4", "(2,)"), "abcd")), HasSubstr("should hold [2] of 8 bytes, but ends after 4"));
  EXPECT_THAT(error(npy(dict("<f8", "(4294967296, 4294967296)"), "")), HasSubstr("larger than any memory"));
  EXPECT_THAT(error(npy(dict("<f8", "(4611686018427387904,)"), "")), HasSubstr("larger than any memory"));
  EXPECT_THAT(error(npy(dict("<f8", "(99999999999999999999,)"), "")), HasSubstr("header is not as expected"));
  EXPECT_THAT(error(npy(dict("<f8", "(-1,)"), "")), HasSubstr("header is not as expected"));
  EXPECT_THAT(error(npy("{'descr': '<f4', 'shape': (1,)}", "abcd")), HasSubstr("header is not as expected"));
  EXPECT_THAT(error(npy("{'descr': '<f4', 'descr': '<f4'}", "abcd")), HasSubstr("header is not as expected"));
  EXPECT_THAT(error(npy(dict("<U99999999999", "(1,)"), "")), HasSubstr("header is not as expected"));
  EXPECT_THAT(error(npy(dict("<U0", "(9000000000,)"), "")), HasSubstr("what we do not know"));
  EXPECT_THAT(error(npy(dict("<f16", "(1,)"), std::string(16, '\0'))), HasSubstr("what we do not know ('<f16')"));
  EXPECT_THAT(error(npy(dict("|O", "(1,)"), "")), HasSubstr("could run any code"));
  EXPECT_THAT(error(npy(dict("<U1", "(1,)"), std::string("\0\xd8\0\0", 4))),
              HasSubstr("0xd800, which is no character"));
  EXPECT_THAT(error(npy(dict("|b1", "(1,)"), "\x02")), HasSubstr("element 0 is no bool"));
  std::string later = npy(dict("|u1", "(1,)"), "a");
  later[6] = 4;
  EXPECT_THAT(error(later), HasSubstr("its format is 4, expected 1 to 3"));
}

TEST(Npy, MappedFilesAreReadAsOthers) {
  std::string header = dict("<f4", "(3,)");
  header.insert(header.size() - 1, 128 - 10 - header.size(), ' ');  // data at a multiple of 64, as NumPy writes it
  const std::vector<float> values = {1, -2, 3};
  const std::string path = ::testing::TempDir() + "mapped.npy";
  std::ofstream(path, std::ios::binary) << npy(header, std::string(reinterpret_cast<const char*>(values.data()), 12));
  for (const size_t least : {size_t{0}, std::numeric_limits<size_t>::max()}) {
    const Result<NpyArray> a = load_npy(path, least);
    ASSERT_TRUE(a.ok()) << a.status().to_string();
    EXPECT_TRUE(std::equal(values.begin(), values.end(), a->values.as<float>()));
    a->values.set(0, 9);  // Python may write; the file stays
  }
  EXPECT_EQ(load_npy(path, 0)->values.at(0), 1);
  EXPECT_EQ(load_npy(path + "x").status().code(), ErrorCode::kNotFound);
}

// An archive of one stored entry, with what its directory claims.
std::string zip(const std::string& content, uint32_t bytes, uint32_t offset = 0, uint16_t entries = 1,
                uint16_t method = 0) {
  const auto number = [](uint64_t v, int size) {
    std::string out;
    for (int i = 0; i < size; ++i) out += i < 8 ? static_cast<char>(v >> (8 * i)) : '\0';
    return out;
  };
  const auto packed = static_cast<uint32_t>(content.size());
  const std::string local = "PK\x03\x04" + std::string(22, '\0') + number(5, 2) + number(0, 2) + "a.npy" + content;
  const std::string entry = "PK\x01\x02" + number(0, 6) + number(method, 2) + number(0, 4) + number(0, 4) +
                            number(packed, 4) + number(bytes, 4) + number(5, 2) + number(0, 12) + number(offset, 4) +
                            "a.npy";
  return local + entry + "PK\x05\x06" + number(0, 4) + number(entries, 2) + number(entries, 2) +
         number(entry.size(), 4) + number(local.size(), 4) + number(0, 2);
}
std::string npz_error(const std::string& bytes) {
  return parse_npz(std::as_bytes(std::span(bytes)), "z").status().message();
}

TEST(Npz, HostileArchivesAreErrors) {
  EXPECT_THAT(npz_error("PK"), HasSubstr("ends before the directory"));
  EXPECT_THAT(npz_error(std::string(100, 'P')), HasSubstr("has no directory"));
  EXPECT_THAT(npz_error(zip("abc", 3)), HasSubstr("the checksum of 'a.npy' is another"));
  EXPECT_THAT(npz_error(zip("abc", 4)), HasSubstr("'a.npy' has two sizes"));
  EXPECT_THAT(npz_error(zip("abc", 3, 99999)), HasSubstr("'a.npy' is not where the directory says"));
  EXPECT_THAT(npz_error(zip("abc", 3, 0, 2)), HasSubstr("directory ends after 1 of 2 entries"));
  EXPECT_THAT(npz_error(zip("abc", 0xfffffff0u, 0, 1, 8)),
              HasSubstr("claims 4294967280 bytes, more than 3 bytes can hold"));
  EXPECT_THAT(npz_error(zip("abc", 3, 0, 1, 8)), HasSubstr("does not unpack to the 3 bytes"));
  EXPECT_THAT(npz_error(zip("abc", 3, 0, 1, 12)), HasSubstr("packed by method 12"));
  EXPECT_THAT(npz_error(zip("abc", 0xffffffffu)), HasSubstr("lacks sizes of zip64"));
}

}  // namespace
}  // namespace deepseek::io
