// Names, sizes and limits of pictures. What decoding and resizing give is compared with Pillow in
// tests/python/test_images.py.
#include "io/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/jpeg.h"

namespace deepseek::io {
namespace {

using graph::Dims;
using graph::Tensor;
using ::testing::HasSubstr;

TEST(Image, IsKnownByItsName) {
  for (const char* name : {"a.jpg", "a.JPEG", "b.c.Png", "d.webp"}) EXPECT_TRUE(is_image_name(name)) << name;
  for (const char* name : {"jpg", "a.jp", "a.png.txt", ""}) EXPECT_FALSE(is_image_name(name)) << name;
}

TEST(Image, CoversAnySizeAndKeepsOneColour) {
  for (const Dims& from : {Dims{3, 1, 1}, Dims{3, 7, 50}, Dims{1, 64, 3}, Dims{3, 10, 10}})
    for (const auto& [height, width] : {std::pair{1, 1}, {10, 10}, {3, 31}, {40, 2}}) {
      const Tensor out = cover_image(Tensor::full(DType::kU8, from, 201), height, width);
      ASSERT_EQ(out.dims(), (Dims{from[0], height, width}));
      for (int64_t i = 0; i < out.num_elements(); ++i) ASSERT_EQ(out.at(i), 201);
    }
}

TEST(Image, MissingFilesAndOtherNumbersOfChannelsAreErrors) {
  EXPECT_EQ(load_image("/no/such/file.jpg", 3).status().code(), ErrorCode::kNotFound);
  EXPECT_THAT(load_image("/no/such/file.jpg", 4).status().message(), HasSubstr("channels is 4"));
}

// A start of image and the header of a frame that claims 65500 x 65500 pixels: refused before memory is taken.
TEST(Jpeg, ClaimsOfSizeAreCheckedFirst) {
  const unsigned char bytes[] = {0xff, 0xd8, 0xff, 0xc0, 0, 17, 8,    0xff, 0xdc, 0xff, 0xdc, 3,    1,
                                 0x11, 0,    2,    0x11, 0, 3,  0x11, 0,    0xff, 0xd9, 0,    0x3f, 0};
  const Status status = parse_jpeg(std::as_bytes(std::span(bytes)), "claim", 0, 4096).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("claim"));
}

}  // namespace
}  // namespace deepseek::io
