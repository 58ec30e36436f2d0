#include "base/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace deepseek {
namespace {

TEST(Json, ReadsAndWrites) {
  const std::string text = R"({"b":[1,2.5,null],"a":"\u00e4"})";
  EXPECT_EQ(dump_json(parse_json<nlohmann::ordered_json>(text)), "{\"b\":[1,2.5,null],\"a\":\"\xc3\xa4\"}");
  EXPECT_EQ(dump_json(parse_json<nlohmann::json>(text), 1),
            "{\n \"a\": \"\xc3\xa4\",\n \"b\": [\n  1,\n  2.5,\n  null\n ]\n}");
}

TEST(Json, TellsBadText) {
  EXPECT_TRUE(parse_json<nlohmann::json>("{", false).is_discarded());
  try {
    parse_json<nlohmann::json>("{\n1");
    FAIL();
  } catch (const nlohmann::json::parse_error& e) {
    EXPECT_NE(std::string(e.what()).find("line 2, column 1"), std::string::npos) << e.what();
  }
}

TEST(Json, TextThatIsNotUtf8) {
  const nlohmann::json text = "a\xff";
  EXPECT_THROW(dump_json(text), nlohmann::json::type_error);
  EXPECT_EQ(dump_json(text, -1, true), "\"a\xef\xbf\xbd\"");
}

TEST(Json, ChecksTextOfStrangers) {
  EXPECT_TRUE(check_json(R"({"a":[1,{"b":"[[["}]})", 3).ok());
  EXPECT_EQ(check_json(R"({"a":[1,{"b":2}]})", 2).message(), "nests deeper than 2 levels");
  EXPECT_EQ(check_json(std::string(10'000'000, '['), 64).message(), "nests deeper than 64 levels");
  const Status bad = check_json("{\n1", 64);
  EXPECT_EQ(bad.code(), ErrorCode::kDataCorrupt);
  EXPECT_NE(bad.message().find("is not valid JSON"), std::string::npos);
  EXPECT_NE(bad.message().find("line 2, column 1"), std::string::npos) << bad.message();
  for (const char* text : {"", "{} {}", "\"a\xff\"", "1e999"}) EXPECT_FALSE(check_json(text, 64).ok()) << text;
}

}  // namespace
}  // namespace deepseek
