#include "base/html.h"

#include <gtest/gtest.h>

namespace deepseek {
namespace {

TEST(Html, EscapesWhatHasMeaning) {
  EXPECT_EQ(html_escaped("<a href='x'>\"Tom & Jerry\"</a>"),
            "&lt;a href=&#39;x&#39;&gt;&quot;Tom &amp; Jerry&quot;&lt;/a&gt;");
  EXPECT_EQ(html_escaped("\xc3\xa9t\xc3\xa9\n"), "\xc3\xa9t\xc3\xa9\n");
  EXPECT_EQ(html_escaped(std::string_view("a\0b\x1b\xff", 5)),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Html, PagesHoldTheirTitleEscaped) {
  const std::string head = page_head("<b>", "p{}");
  EXPECT_NE(head.find("<title>&lt;b&gt;</title>"), std::string::npos);
  EXPECT_NE(head.find("<h1>&lt;b&gt;</h1>"), std::string::npos);
  EXPECT_NE(head.find("p{}</style>"), std::string::npos);
}

}  // namespace
}  // namespace deepseek
