// Columns to vectors and back.
#include "features/vector.h"

#include <gtest/gtest.h>

#include <cmath>

namespace deepseek::features {
namespace {

using tables::Column;

Column chunked(std::vector<std::shared_ptr<arrow::Array>> chunks) {
  return std::make_shared<arrow::ChunkedArray>(std::move(chunks));
}

std::shared_ptr<arrow::Array> strings(const std::vector<std::string>& values, const std::vector<bool>& there) {
  arrow::StringBuilder builder;
  for (size_t i = 0; i < values.size(); ++i)
    EXPECT_TRUE((there[i] ? builder.Append(values[i]) : builder.AppendNull()).ok());
  return builder.Finish().ValueOrDie();
}

TEST(Vector, CategoriesAreNumbersOfSortedWordsOverAllChunks) {
  const Column column = chunked({strings({"b", "", "a"}, {true, false, true}), strings({"c", "a"}, {true, true})});
  const Vector v = from_arrow("x", column, Logical::kCategorical).value();
  ASSERT_EQ(v.size, 5);
  EXPECT_EQ(v[0], 1);
  EXPECT_TRUE(std::isnan(v[1]));
  EXPECT_EQ(v[2], 0);
  EXPECT_EQ(v[3], 2);
  EXPECT_EQ(v[4], 0);
  const auto back = to_arrow(v, Logical::kCategorical).value();
  EXPECT_EQ(back->null_count(), 1);
  EXPECT_EQ(back->GetScalar(3).ValueOrDie()->ToString().find('c') != std::string::npos, true);
}

TEST(Vector, DoublesWithoutMissingOnesAreNotCopied) {
  arrow::DoubleBuilder builder;
  ASSERT_TRUE(builder.AppendValues({1.0, 2.0}).ok());
  const auto array = builder.Finish().ValueOrDie();
  const Vector v = from_arrow("x", chunked({array}), Logical::kDouble).value();
  EXPECT_EQ(v.data, array->data()->GetValues<double>(1));
}

TEST(Vector, MissingValuesComeBackAsNulls) {
  arrow::Int32Builder builder;
  ASSERT_TRUE(builder.Append(3).ok() && builder.AppendNull().ok() && builder.Append(-4).ok());
  const Vector v = from_arrow("x", chunked({builder.Finish().ValueOrDie()}), Logical::kIntegerNullable).value();
  EXPECT_TRUE(std::isnan(v[1]));
  const auto back = to_arrow(v, Logical::kIntegerNullable).value();
  EXPECT_EQ(back->type()->id(), arrow::Type::INT64);
  EXPECT_TRUE(back->IsNull(1));
  EXPECT_EQ(std::static_pointer_cast<arrow::Int64Array>(back)->Value(2), -4);
}

TEST(Vector, TextIsCodedOnDemand) {
  const Vector raw =
      from_arrow("x", chunked({strings({"b b", "a", "b b"}, {true, true, true})}), Logical::kText).value();
  EXPECT_EQ(raw.data, nullptr);
  const Vector v = coded(raw).value();
  EXPECT_EQ(v[0], 1);
  EXPECT_EQ(v[1], 0);
  EXPECT_EQ(v[2], 1);
}

TEST(Vector, WrongTypesAreNamed) {
  const auto status = from_arrow("price", chunked({strings({"a"}, {true})}), Logical::kDouble).status();
  EXPECT_EQ(status.message(), "column 'price' is string, expected numbers");
}

}  // namespace
}  // namespace deepseek::features
