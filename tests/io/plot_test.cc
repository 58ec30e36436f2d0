// Charts hold what they were given: read back as pixels (colours, gaps) and as SVG; wrong data is refused.
#include "io/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "io/atomic_file.h"
#include "io/png.h"
#include "tests/io/temp_folder.h"

namespace deepseek::io {
namespace {

using ::testing::HasSubstr;

int64_t pixels_of(const graph::Tensor& image, int r, int g, int b) {
  const int64_t plane = image.dims()[1] * image.dims()[2];
  const uint8_t* p = image.as<uint8_t>();
  int64_t n = 0;
  for (int64_t i = 0; i < plane; ++i) {
    n += std::abs(p[i] - r) < 3 && std::abs(p[plane + i] - g) < 3 && std::abs(p[2 * plane + i] - b) < 3;
  }
  return n;
}

TEST(Plot, LinesAppearInTheirColoursAndNansLeaveGaps) {
  TempFolder folder;
  Series train{"train", {}, {}}, validation{"validation", {}, {}};
  for (int i = 0; i < 100; ++i) {
    train.xs.push_back(i);
    train.ys.push_back(2.3 * std::exp(-i / 25.0) + 0.1);
    validation.xs.push_back(i);
    validation.ys.push_back(2.3 * std::exp(-i / 22.0) + 0.25);
  }
  ASSERT_TRUE(line_chart(folder / "a.png", "Loss", "epoch", "cross-entropy", {train, validation}).ok());
  const auto image = load_png(folder / "a.png");
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->dims(), (graph::Dims{3, 960, 1600}));
  EXPECT_GT(pixels_of(*image, 0, 115, 178), 2000);
  EXPECT_GT(pixels_of(*image, 214, 94, 0), 2000);
  for (size_t i = 20; i < 80; ++i) train.ys[i] = NAN;
  ASSERT_TRUE(line_chart(folder / "b.png", "Loss", "epoch", "cross-entropy", {train, validation}).ok());
  EXPECT_LT(pixels_of(*load_png(folder / "b.png"), 0, 115, 178), pixels_of(*image, 0, 115, 178) * 3 / 4);
}

TEST(Plot, ExtremeRangesStillDraw) {
  TempFolder folder;
  for (const auto& ys : std::vector<std::vector<double>>{{1, 1}, {0, 0}, {1e-12, 2e-12}, {-1e15, 1e15}, {5, NAN}}) {
    EXPECT_TRUE(line_chart(folder / "a.svg", "t", "x", "y", {{"s", {0, 1}, ys}}).ok());
  }
  EXPECT_GT(read_file(folder / "a.svg")->size(), 500u);
}

TEST(Plot, ConfusionMatrixDarkensTheDiagonal) {
  TempFolder folder;
  const std::vector<int64_t> counts = {90, 10, 0, 100};
  ASSERT_TRUE(confusion_matrix_chart(folder / "c.png", "Confusion", {"cat", "dog"}, counts).ok());
  const auto image = load_png(folder / "c.png");
  ASSERT_TRUE(image.ok());
  EXPECT_GT(pixels_of(*image, 9, 89, 158), 10000);  // the full cell: share 1
}

TEST(Plot, WrongDataIsRefused) {
  TempFolder folder;
  EXPECT_THAT(line_chart(folder / "a.png", "", "", "", {}).message(), HasSubstr("no finite point"));
  EXPECT_THAT(line_chart(folder / "a.png", "", "", "", {{"s", {1}, {}}}).message(),
              HasSubstr("series 's' has 1 x values and 0 y values"));
  EXPECT_THAT(line_chart(folder / "a.gif", "", "", "", {{"s", {1}, {1}}}).message(), HasSubstr(".png or .svg"));
  EXPECT_THAT(line_chart(folder / "a.png", "\xff", "", "", {{"s", {1}, {1}}}).message(), HasSubstr("UTF-8"));
  const std::vector<int64_t> counts = {1, 2, -3, 4};
  EXPECT_THAT(confusion_matrix_chart(folder / "a.png", "", {"a"}, counts).message(), HasSubstr("need 1 counts, got 4"));
  EXPECT_THAT(confusion_matrix_chart(folder / "a.png", "", {"a", "b"}, counts).message(), HasSubstr("counts[2] is -3"));
}

}  // namespace
}  // namespace deepseek::io
