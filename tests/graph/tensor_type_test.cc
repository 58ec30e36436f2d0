#include "graph/tensor_type.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace deepseek::graph {
namespace {

TEST(TensorType, PrintsDtypeDimsAndLayout) {
  EXPECT_EQ(to_string(TensorType{DType::kF32, {8, 64, 7}}), "f32[8,64,7]");
  EXPECT_EQ(to_string(TensorType{DType::kI64, {}}), "i64[]");
  EXPECT_EQ(to_string(TensorType{DType::kF32, {8, 64}, 16}), "f32[8,64]{c16}");
}

TEST(TensorType, ProductDoesNotOverflow) {
  EXPECT_EQ(product(Dims{}), 1);
  EXPECT_EQ(product(Dims{3, 0, 5}), 0);
  EXPECT_EQ(product(Dims{INT64_MAX, 2}), INT64_MAX);
  EXPECT_EQ(product(Dims{INT64_MAX, 2, 0}), 0);
}

TEST(TensorType, StridesAreRowMajor) { EXPECT_EQ(contiguous_strides(Dims{2, 3, 4}), (Dims{12, 4, 1})); }

TEST(TensorType, BroadcastingIsNumPys) {
  EXPECT_EQ(*broadcast_dims({2, 1, 4}, {3, 1}), (Dims{2, 3, 4}));
  EXPECT_EQ(*broadcast_dims({}, {5}), (Dims{5}));
  EXPECT_EQ(*broadcast_dims({0}, {1}), (Dims{0}));
  EXPECT_EQ(broadcast_dims({2, 3}, {2, 4}).status().message(),
            "shapes [2,3] and [2,4] do not broadcast: axis 1 from the end has sizes 3 and 4");
  EXPECT_FALSE(broadcast_dims({0}, {2}).ok());
}

TEST(TensorType, SizesHaveLimits) {
  EXPECT_TRUE(check_size({DType::kF32, {kMaxSize}}).ok());
  EXPECT_EQ(check_size({DType::kF32, {kMaxSize + 1}}).message(),
            "expected sizes in [0, 2147483647], got f32[2147483648]");
  EXPECT_EQ(check_size({DType::kF32, {1 << 20, 1 << 20, 2}}).message(),
            "expected at most 1099511627776 elements, got f32[1048576,1048576,2]");
  EXPECT_FALSE(check_size({DType::kF32, {0, kMaxSize, kMaxSize}}).ok());  // an empty axis counts as 1
}

}  // namespace
}  // namespace deepseek::graph
