#include "tune/space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/random.h"

namespace deepseek::tune {
namespace {

using testing::HasSubstr;

Space space_of(const char* json) {
  Result<Space> space = Space::parse(json);
  EXPECT_TRUE(space.ok()) << space.status().to_string();
  return std::move(space).value();
}
std::string error_of(const char* json) {
  const Result<Space> space = Space::parse(json);
  return space.ok() ? "" : space.status().message();
}

TEST(Space, TypesFollowFromValues) {
  const Space s = space_of(
      R"({"rate": {"low": 1e-5, "high": 1e-2}, "dropout": {"low": 0.1, "high": 0.5}, "layers": {"low": 1, "high": 4},
                               "width": {"low": 8, "high": 1024}, "batch": [32, 64, 128], "kind": ["relu", "gelu"], "one": 3})");
  EXPECT_EQ(s[0].kind, Kind::kFloat);
  EXPECT_TRUE(s[0].log);
  EXPECT_FALSE(s[1].log);
  EXPECT_EQ(s[2].kind, Kind::kInt);
  EXPECT_FALSE(s[2].log);
  EXPECT_TRUE(s[3].log);
  EXPECT_TRUE(s[4].ordered);
  EXPECT_FALSE(s[5].ordered);
  EXPECT_EQ(s[6].cardinality(), 1);
  EXPECT_TRUE(std::isinf(s.cardinality()));
}

TEST(Space, RoundTripsAsJson) {
  const Space s = space_of(
      R"({"a": {"low": 0.1, "high": 0.9, "step": 0.2}, "n": {"low": 1, "high": 7, "step": 2}, "c": ["x", null, true, [1, 2]],
                               "d": {"low": 0.0, "high": 1.0, "when": {"c": ["x", true]}}, "e": {"low": 1, "high": 2, "when": {"n": 3}}})");
  const Space again = space_of(s.to_json().c_str());
  EXPECT_EQ(again.to_json(), s.to_json());
  ASSERT_TRUE(again[3].when.has_value());
  EXPECT_EQ(again[3].when->values, (std::vector<double>{0, 2}));
}

TEST(Space, MistakesAreNamed) {
  EXPECT_THAT(error_of(R"({"a": {"low": 2, "high": 1}})"), HasSubstr("expected low <= high, got 2 and 1"));
  EXPECT_THAT(error_of(R"({"a": {"low": 0.0, "high": 1.0, "log": true}})"), HasSubstr("must start above 0"));
  EXPECT_THAT(error_of(R"({"a": {"low": 0.0, "hihg": 1.0}})"), HasSubstr("did you mean 'high'?"));
  EXPECT_THAT(error_of(R"({"a": []})"), HasSubstr("at least one choice"));
  EXPECT_THAT(error_of(R"({"a": [1, 1]})"), HasSubstr("1 is there twice"));
  EXPECT_THAT(error_of(R"({"kind": ["x", "y"], "b": {"low": 0, "high": 1, "when": {"kimd": "x"}}})"),
              HasSubstr("did you mean 'kind'?"));
  EXPECT_THAT(error_of(R"({"kind": ["x", "y"], "b": {"low": 0, "high": 1, "when": {"kind": "z"}}})"),
              HasSubstr("never is \"z\""));
  EXPECT_THAT(error_of(R"({"a": {"low": 0.5, "high": 3, "type": "int"}})"), HasSubstr("whole numbers"));
  EXPECT_THAT(error_of("[1]"), HasSubstr("expected an object"));
  EXPECT_THAT(error_of("{}"), HasSubstr("at least one parameter"));
}

// Every value's unit coordinate comes back to it, and equal shares of the unit interval belong to the values of a step.
TEST(Space, UnitCoordinates) {
  const Space s = space_of(
      R"({"a": {"low": 1e-4, "high": 1.0}, "n": {"low": 1, "high": 1000}, "m": {"low": -3, "high": 4}, "q": {"low": 0.0, "high": 1.0, "step": 0.25},
                               "c": ["x", "y", "z"]})");
  for (const Parameter& p : s.parameters())
    for (int k = 0; k <= 40; ++k) {
      const double v = p.from_unit(k / 40.0);
      EXPECT_GE(v, p.low);
      EXPECT_LE(v, p.high);
      EXPECT_NEAR(p.from_unit(p.to_unit(v)), v, 1e-12 * std::max(1.0, std::abs(v)));
    }
  std::map<double, int> counts;
  for (int k = 0; k < 8000; ++k) ++counts[s[2].from_unit((k + 0.5) / 8000)];
  ASSERT_EQ(counts.size(), 8u);
  for (const auto& [value, count] : counts) EXPECT_EQ(count, 1000) << value;
  EXPECT_NEAR(s[0].from_unit(0.5), 1e-2, 1e-9);
  // 0.1 + 2 * 0.1 is a hair above 0.3.
  const Space tenths = space_of(R"({"a": {"low": 0.1, "high": 0.3, "step": 0.1}})");
  for (const Point& p : {tenths.from_unit({1.0}), tenths.all(10).back(), tenths.repaired({0.29})}) {
    EXPECT_EQ(p[0], 0.3);
    EXPECT_TRUE(tenths.check(p).ok());
  }
}

TEST(Space, CardinalityIsThatOfTheGrid) {
  for (
      const char* json :
      {R"({"a": [1, 2, 3], "b": {"low": 0, "high": 4}})",
       R"({"c": ["x", "y", "z"], "d": {"low": 1, "high": 4, "when": {"c": "x"}}, "e": [1, 2], "f": {"choices": [1, 2, 5], "when": {"c": ["x", "y"]}}})",
       R"({"c": ["x", "y"], "d": {"choices": ["p", "q"], "when": {"c": "x"}}, "e": {"low": 1, "high": 3, "when": {"d": "q"}}})"}) {
    const Space s = space_of(json);
    const std::vector<Point> all = s.all(10000);
    EXPECT_EQ(static_cast<double>(all.size()), s.cardinality()) << json;
    for (const Point& p : all) EXPECT_TRUE(s.check(p).ok()) << s.text(p);
  }
}

TEST(Space, PointsAsText) {
  const Space s =
      space_of(R"({"c": ["x", "y"], "d": {"low": 0.0, "high": 1.0, "when": {"c": "x"}}, "n": {"low": 1, "high": 5}})");
  const Result<Point> p = s.parse_point(R"({"c": "x", "d": 0.125, "n": 2})");
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(s.text(*p), R"({"c": "x", "d": 0.125, "n": 2})");
  EXPECT_TRUE(std::isnan((*s.parse_point(R"({"c": "y", "n": 2})"))[1]));
  EXPECT_THAT(s.parse_point(R"({"c": "x", "n": 2})").status().message(), HasSubstr("'d' is missing"));
  EXPECT_THAT(s.parse_point(R"({"c": "y", "n": 9})").status().message(), HasSubstr("from 1 to 5, got 9"));
  EXPECT_THAT(s.parse_point(R"({"c": "y", "m": 2})").status().message(), HasSubstr("unknown parameter 'm'"));
}

}  // namespace
}  // namespace deepseek::tune
