// Rows by time, rows that belong together.
#include "features/entities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deepseek::features {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

tables::Table table_of(const std::vector<std::pair<std::string, std::vector<int64_t>>>& columns) {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  std::vector<std::shared_ptr<arrow::Array>> arrays;
  for (const auto& [name, values] : columns) {
    arrow::Int64Builder builder;
    EXPECT_TRUE(builder.AppendValues(values).ok());
    arrays.push_back(builder.Finish().ValueOrDie());
    fields.push_back(arrow::field(name, arrow::int64()));
  }
  return arrow::Table::Make(arrow::schema(fields), arrays);
}

TEST(Entities, RowsAreInOrderOfTimeThenOfTheIndex) {
  Entities entities;
  const auto table = table_of({{"id", {4, 3, 2, 1}}, {"t", {7, 5, 7, 5}}});
  ASSERT_TRUE(entities.add("a", table, {.index = "id", .time_index = "t"}).ok());
  const auto& entity = entities.entities()[0];
  EXPECT_THAT(entity.order, ElementsAre(3, 1, 2, 0));
  EXPECT_THAT(entity.times, ElementsAre(5, 5, 7, 7));
  const Vector ids = entities.values(0, 0).value();
  EXPECT_EQ(ids[0], 1);
  EXPECT_EQ(ids[3], 4);
}

TEST(Entities, ChildrenByParent) {
  // Dense keys, and keys so far apart that they are looked up by hash.
  for (const int64_t scale : {int64_t{1}, int64_t{1} << 40}) {
    Entities entities;
    const auto parents = table_of({{"id", {10 * scale, 20 * scale, 30 * scale}}});
    const auto children = table_of({{"parent", {20 * scale, 99 * scale, 10 * scale, 20 * scale}}, {"t", {4, 3, 2, 1}}});
    ASSERT_TRUE(entities.add("p", parents, {.index = "id"}).ok());
    ASSERT_TRUE(entities.add("c", children, {.time_index = "t"}).ok());
    ASSERT_TRUE(entities.relate("c", "parent", "p").ok());
    const auto& r = entities.relationships()[0];
    EXPECT_THAT(r.parent_of, ElementsAre(1, 0, -1, 1));
    EXPECT_THAT(r.children.begin, ElementsAre(0, 1, 3, 3));
    EXPECT_THAT(r.children.rows, ElementsAre(1, 0, 3));
    EXPECT_THAT(entities.last_times(0), ElementsAre(2, 4, INT64_MIN));
  }
}

TEST(Entities, RowsOfIndexValues) {
  Entities entities;
  ASSERT_TRUE(entities.add("p", table_of({{"id", {7, 8, 9}}}), {.index = "id"}).ok());
  const auto wanted = table_of({{"x", {9, 7}}})->column(0);
  EXPECT_THAT(entities.rows_of(0, wanted).value(), ElementsAre(2, 0));
  EXPECT_THAT(entities.rows_of(0, table_of({{"x", {9, 6}}})->column(0)).status().message(),
              HasSubstr("instance 2 is no 'id' of table 'p'"));
}

TEST(Entities, GroupByKeepsOrderWhateverTheThreads) {
  std::vector<int32_t> owner;
  for (int i = 0; i < 1000; ++i) owner.push_back(i % 7 == 6 ? -1 : i % 7);
  const Groups groups = group_by(owner, 6);
  ASSERT_EQ(groups.begin.size(), 7u);
  for (size_t o = 0; o < 6; ++o) {
    for (int64_t k = groups.begin[o]; k < groups.begin[o + 1]; ++k) {
      EXPECT_EQ(owner[static_cast<size_t>(groups.rows[static_cast<size_t>(k)])], static_cast<int32_t>(o));
      if (k > groups.begin[o]) {
        EXPECT_LT(groups.rows[static_cast<size_t>(k - 1)], groups.rows[static_cast<size_t>(k)]);
      }
    }
  }
}

}  // namespace
}  // namespace deepseek::features
