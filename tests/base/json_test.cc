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

}  // namespace
}  // namespace deepseek
