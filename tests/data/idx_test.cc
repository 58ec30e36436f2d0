// IDX bytes written by hand, plain and packed by zlib's own gzip writer, and each way to damage them.
#include "data/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

namespace deepseek::data {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<unsigned char>;

Result<graph::Tensor> parse(const Bytes& bytes, size_t limit = 1 << 20) {
  return parse_idx(std::as_bytes(std::span(bytes)), "x.idx", limit);
}

Bytes gzip(const Bytes& bytes) {
  z_stream s{};
  EXPECT_EQ(deflateInit2(&s, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Bytes out(deflateBound(&s, bytes.size()) + 64);
  s.next_in = const_cast<Bytef*>(bytes.data());
  s.avail_in = static_cast<uInt>(bytes.size());
  s.next_out = out.data();
  s.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&s, Z_FINISH), Z_STREAM_END);
  out.resize(s.total_out);
  deflateEnd(&s);
  return out;
}

const Bytes kMatrix = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255};

TEST(Idx, ReadsPlainAndGzip) {
  for (const Bytes& bytes : {kMatrix, gzip(kMatrix)}) {
    const auto t = parse(bytes);
    ASSERT_TRUE(t.ok()) << t.status().to_string();
    EXPECT_EQ(t->type(), (graph::TensorType{DType::kU8, {2, 3}}));
    EXPECT_EQ(t->at(5), 255);
  }
}

TEST(Idx, ElementsAreBigEndian) {
  EXPECT_EQ(parse({0, 0, 0x0B, 1, 0, 0, 0, 1, 0xff, 0xfe})->at(0), -2);
  EXPECT_EQ(parse({0, 0, 0x0C, 1, 0, 0, 0, 1, 0, 1, 0, 2})->at(0), 65538);
  EXPECT_EQ(parse({0, 0, 0x0D, 1, 0, 0, 0, 1, 0x3f, 0xc0, 0, 0})->at(0), 1.5);
  EXPECT_EQ(parse({0, 0, 0x0E, 1, 0, 0, 0, 1, 0xc0, 0, 0, 0, 0, 0, 0, 0})->at(0), -2.0);
}

TEST(Idx, DamageIsNamed) {
  EXPECT_THAT(parse({}).status().message(), HasSubstr("is 0 bytes long"));
  EXPECT_THAT(parse({1, 0, 8, 1, 0, 0, 0, 0}).status().message(), HasSubstr("two zero bytes"));
  EXPECT_THAT(parse({0, 0, 7, 1, 0, 0, 0, 0}).status().message(), HasSubstr("unknown element type 0x07"));
  EXPECT_THAT(parse({0, 0, 8, 0}).status().message(), HasSubstr("has 0 dimensions"));
  EXPECT_THAT(parse({0, 0, 8, 2, 0, 0}).status().message(), HasSubstr("truncated within its header"));
  Bytes cut = kMatrix;
  cut.pop_back();
  EXPECT_THAT(parse(cut).status().message(), HasSubstr("dims [2,3] need 6 bytes of data, the file has 5"));
  EXPECT_THAT(parse({0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}).status().message(),
              HasSubstr("overflow"));
  Bytes packed = gzip(kMatrix);
  packed.resize(packed.size() - 9);
  EXPECT_THAT(parse(packed).status().message(), HasSubstr("gzip stream ends too early"));
  packed = gzip(kMatrix);
  packed[packed.size() - 6] ^= 1;
  EXPECT_THAT(parse(packed).status().message(), HasSubstr("gzip stream is damaged: incorrect data check"));
  EXPECT_EQ(parse(packed).status().code(), ErrorCode::kDataCorrupt);
  Bytes long_one = {0, 0, 8, 1, 0, 0x0f, 0x42, 0x40};  // a million bytes
  long_one.resize(1000008);
  EXPECT_THAT(parse(gzip(long_one), 500000).status().message(),
              HasSubstr("claims 1000000 bytes of data, at most 500000"));
  EXPECT_THAT(parse(gzip(long_one), 1000).status().message(), HasSubstr("unpacks to more than 1000 bytes"));
  EXPECT_TRUE(parse(gzip(long_one), 1000008).ok());
  // A bomb: what follows is not what the header says, and is not even unpacked.
  Bytes bomb = {0, 0, 8, 1, 0, 0, 0, 8};
  bomb.resize(50000000);
  EXPECT_THAT(parse(gzip(bomb), 100000000).status().message(), HasSubstr("unpacks to more than 16 bytes"));
  EXPECT_THAT(parse(gzip({0, 0, 8, 2, 0, 1, 0, 0, 0, 1, 0, 0}), 1000000).status().message(),
              HasSubstr("claims 4294967296 bytes of data, at most 1000000"));
  EXPECT_EQ(load_idx("/no/such.idx").status().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace deepseek::data
