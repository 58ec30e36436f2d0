// Round trips through libpng's own encoder and damage at every byte.
#include "io/png.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "io/atomic_file.h"
#include "tests/io/temp_folder.h"

namespace deepseek::io {
namespace {

using ::testing::HasSubstr;

graph::Tensor picture(int64_t channels) {
  graph::Tensor t(DType::kU8, {channels, 5, 7});
  for (int64_t i = 0; i < t.num_elements(); ++i) t.set(i, static_cast<double>(i * 37 % 256));
  return t;
}

TEST(Png, RoundTripsGreyAndColour) {
  TempFolder folder;
  for (int64_t channels : {1, 3}) {
    const graph::Tensor t = picture(channels);
    ASSERT_TRUE(save_png(folder / "a.png", t).ok());
    const auto back = load_png(folder / "a.png");
    ASSERT_TRUE(back.ok()) << back.status().to_string();
    EXPECT_EQ(back->type(), t.type());
    EXPECT_EQ(std::memcmp(back->data(), t.data(), t.num_bytes()), 0);
  }
}

TEST(Png, DamageIsAnErrorNeverACrash) {
  TempFolder folder;
  ASSERT_TRUE(save_png(folder / "a.png", picture(3)).ok());
  const auto whole = read_file(folder / "a.png");
  ASSERT_TRUE(whole.ok());
  const size_t end_chunk = 12;  // IEND may be missing; the pixels are all there
  for (size_t n = 0; n < whole->size() - end_chunk; ++n) {
    const auto result = parse_png(std::span(*whole).first(n), "cut.png");
    ASSERT_FALSE(result.ok()) << n;
    EXPECT_EQ(result.status().code(), ErrorCode::kDataCorrupt);
    EXPECT_THAT(result.status().message(), HasSubstr("'cut.png'"));
  }
  for (size_t i = 0; i < whole->size(); ++i) {
    std::vector<std::byte> bad = *whole;
    bad[i] ^= std::byte{0x41};
    (void)parse_png(bad, "bad.png").ok();
  }
}

TEST(Png, SizeLimitAndWrongTensors) {
  TempFolder folder;
  ASSERT_TRUE(save_png(folder / "a.png", picture(1)).ok());
  EXPECT_THAT(load_png(folder / "a.png", 6).status().message(), HasSubstr("is 7x5 pixels, at most 6 a side"));
  EXPECT_THAT(save_png(folder / "b.png", picture(2)).message(), HasSubstr("got u8[2,5,7]"));
  EXPECT_EQ(load_png(folder / "none.png").status().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace deepseek::io
