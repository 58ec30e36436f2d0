// One drawing as SVG and as PNG; ticks of axes.
#include "io/canvas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "io/axis.h"
#include "io/png.h"
#include "tests/io/temp_folder.h"

namespace deepseek::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> labels(const Axis& axis) {
  std::vector<std::string> list;
  for (const Tick& t : axis.ticks()) list.push_back(t.label);
  return list;
}

TEST(Canvas, SvgIsShortAndEscaped) {
  const std::string svg = draw_svg(200, 100, [](Canvas& c) {
    c.colour({1, 0, 0});
    c.tag(17);
    c.disc(10.04, 20.25, 3);
    c.hint("a < 'b'");
    c.box(0, 0, 5, 5);
    c.tag(-1), c.hint("");
    c.text(1, 2, "<script>\xff", 0.5);
    const Spot spots[] = {{0, 0}, {10.5, 3}, {11, NAN}};
    c.polyline(spots, 1.5);
  });
  EXPECT_THAT(svg, HasSubstr("<circle cx='10' cy='20.3' r='3' fill='#ff0000' data-t='17'/>"));
  EXPECT_THAT(svg, HasSubstr("<title>a &lt; &#39;b&#39;</title></rect>"));
  EXPECT_THAT(svg, HasSubstr("&lt;script&gt;\xef\xbf\xbd"));
  EXPECT_THAT(svg, HasSubstr("d='M0 0l10.5 3 0.5 0'"));
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
}

TEST(Canvas, TheSameDrawingIsAPicture) {
  TempFolder folder;
  ASSERT_TRUE(draw_file(folder / "a.png", 40, 30, [](Canvas& c) {
                c.colour({1, 0, 0});
                c.box(10, 10, 20, 10);
                c.colour({0, 0, 1}, 0.5);
                c.disc(20, 15, 4);
              }).ok());
  const auto image = load_png(folder / "a.png");
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->dims(), (graph::Dims{3, 60, 80}));
  const auto at = [&](int64_t channel, int64_t x, int64_t y) { return image->at((channel * 60 + y) * 80 + x); };
  EXPECT_EQ(at(0, 24, 24), 255);
  EXPECT_EQ(at(1, 24, 24), 0);
  EXPECT_EQ(at(1, 4, 4), 255);
  EXPECT_NEAR(at(2, 40, 30), 128, 2);
  EXPECT_THAT(draw_file(folder / "a.gif", 4, 3, [](Canvas&) {}).message(), HasSubstr(".png or .svg"));
}

TEST(Axis, TicksAreRoundNumbers) {
  EXPECT_THAT(labels(Axis(0, 1, 5, true)), ElementsAre("0", "0.2", "0.4", "0.6", "0.8", "1.0"));
  EXPECT_THAT(labels(Axis(-3, 7, 5, false)), ElementsAre("-2", "0", "2", "4", "6"));
  EXPECT_THAT(labels(Axis(0, 3e8, 3, true)), ElementsAre("0", "1e8", "2e8", "3e8"));
  EXPECT_THAT(labels(Axis(1e-5, 0.1, 5, false, true)), ElementsAre("1e-5", "1e-4", "0.001", "0.01", "0.1"));
  EXPECT_THAT(labels(Axis(2, 80, 5, false, true)), ElementsAre("2", "5", "10", "20", "50"));
  EXPECT_THAT(labels(Axis(10, 12, 4, false, true)), ElementsAre("10.0", "10.5", "11.0", "11.5", "12.0"));
  EXPECT_DOUBLE_EQ(Axis(1e-4, 1, 5, false, true).at(0.01), 0.5);
}

TEST(Axis, NumbersAreShort) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(0.0012345), "0.001234");
  EXPECT_EQ(short_number(0.00012), "1.2e-4");
  EXPECT_EQ(short_number(-0.000123456), "-1.235e-4");
  EXPECT_EQ(short_number(1e-10), "1e-10");
  EXPECT_EQ(short_number(12345678, 4), "1.235e7");
  EXPECT_EQ(short_number(1e100), "1e100");
  EXPECT_EQ(short_number(INFINITY), "inf");
}

TEST(Axis, ExtremeRangesHaveTicks) {
  for (const bool widen : {false, true}) {
    for (const auto& [low, high] :
         std::vector<std::pair<double, double>>{{5, 5}, {0, 0}, {-1e299, 1e299}, {1e-300, 2e-300}, {1e15, 1e15 + 2}}) {
      const Axis axis(low, high, 5, widen);
      EXPECT_GE(axis.ticks().size(), 2u) << low;
      EXPECT_LE(axis.ticks().size(), 12u) << low;
      EXPECT_TRUE(std::isfinite(axis.at(high))) << high;
      EXPECT_NE(axis.ticks()[0].label, axis.ticks()[1].label);
    }
    EXPECT_GE(Axis(1e-200, 1e200, 5, widen, true).ticks().size(), 2u);
    EXPECT_LE(Axis(1e-200, 1e200, 5, widen, true).ticks().size(), 8u);
  }
}

}  // namespace
}  // namespace deepseek::io
