// Shapes and error messages of convolution, pooling and normalisation. Values are compared with PyTorch over every
// sample, in tests/python.
#include "ops/conv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "ops/pool.h"

namespace deepseek::ops {
namespace {

using ::testing::HasSubstr;

struct Call {
  std::vector<Expr> outputs;
  std::string error;  // "" where the op was built
};

Call call(const char* op, std::vector<Dims> dims, Attrs attrs = {}) {
  static std::optional<Builder> builder;  // outlives the call: the test looks at its Exprs
  builder.emplace(registry());
  std::vector<Expr> inputs;
  for (Dims& d : dims)
    inputs.push_back(builder->input("x" + std::to_string(inputs.size()), {DType::kF32, std::move(d)}));
  Call result{builder->emit(op, std::move(inputs), std::move(attrs)), ""};
  if (!builder->status().ok()) result.error = builder->status().message();
  return result;
}

Dims output_dims(const char* op, std::vector<Dims> dims, Attrs attrs = {}) {
  const Call result = call(op, std::move(dims), std::move(attrs));
  EXPECT_EQ(result.error, "");
  return result.outputs[0].dims();
}

TEST(Conv, OutputSizesFollowThePublishedFormulas) {
  EXPECT_EQ(output_dims("conv", {{8, 3, 224, 224}, {64, 3, 7, 7}},
                        {{"stride", Dims{2, 2}}, {"padding_low", Dims{3, 3}}, {"padding_high", Dims{3, 3}}}),
            (Dims{8, 64, 112, 112}));
  EXPECT_EQ(output_dims("conv", {{1, 4, 20}, {4, 1, 3}}, {{"dilation", Dims{4}}, {"groups", int64_t{4}}}),
            (Dims{1, 4, 12}));
  EXPECT_EQ(output_dims("conv_transpose", {{1, 4, 5, 6}, {4, 2, 3, 3}},
                        {{"stride", Dims{2, 3}}, {"output_padding", Dims{1, 2}}, {"groups", int64_t{2}}}),
            (Dims{1, 4, 12, 20}));
}

TEST(Conv, AnEmptyBatchIsAllowed) { EXPECT_EQ(output_dims("conv", {{0, 3, 5, 5}, {4, 3, 3, 3}}), (Dims{0, 4, 3, 3})); }

TEST(Conv, ErrorsNameTheShapes) {
  EXPECT_THAT(call("conv", {{2, 3, 8, 8}, {4, 5, 3, 3}}).error,
              HasSubstr("expected w [O, 3, ...] (3 channels of x [2,3,8,8] in 1 groups), got [4,5,3,3]"));
  EXPECT_THAT(call("conv", {{2, 3, 8, 8}, {4, 3, 3}}).error, HasSubstr("expected w [O, C/groups, 2 kernel sizes]"));
  EXPECT_THAT(call("conv", {{2, 8}, {4, 8}}).error, HasSubstr("1 to 3 spatial axes, got [2,8]"));
  EXPECT_THAT(call("conv", {{2, 3, 8, 8}, {4, 3, 3, 3}}, {{"groups", int64_t{2}}}).error,
              HasSubstr("expected groups to divide the 3 input and 4 output channels, got 2"));
  EXPECT_THAT(call("conv", {{2, 3, 8, 8}, {4, 3, 3, 3}}, {{"groups", int64_t{0}}}).error, HasSubstr("got 0"));
  EXPECT_THAT(call("conv", {{2, 3, 8, 8}, {4, 3, 3, 3}}, {{"stride", Dims{2}}}).error,
              HasSubstr("expected stride to be 2 integers >= 1, one per spatial axis, got [2]"));
  EXPECT_THAT(call("conv", {{2, 3, 8, 8}, {4, 3, 3, 3}}, {{"padding_low", Dims{1, -1}}}).error,
              HasSubstr("expected padding_low"));
  EXPECT_THAT(
      call("conv", {{2, 3, 8, 4}, {4, 3, 3, 3}}, {{"dilation", Dims{1, 2}}}).error,
      HasSubstr("the kernel does not fit: spatial axis 1 has 4 elements with padding (0 + 4 + 0), the kernel spans 5"));
}

TEST(Conv, GradientOpsCheckDyAgainstTheGeometry) {
  EXPECT_THAT(call("conv_input_grad", {{2, 4, 5, 6}, {4, 3, 3, 3}}, {{"input_dims", Dims{2, 3, 8, 8}}}).error,
              HasSubstr("expected dy to have the shape [2,4,6,6], got [2,4,5,6]"));
  EXPECT_THAT(call("conv_weight_grad", {{2, 3, 8, 8}, {2, 4, 5, 6}}, {{"kernel", Dims{3, 3}}}).error,
              HasSubstr("expected dy to have the shape [2,4,6,6], got [2,4,5,6]"));
  EXPECT_THAT(call("conv_weight_grad", {{2, 3, 8, 8}, {2, 4, 6, 6}}, {{"kernel", Dims{3}}}).error,
              HasSubstr("2 kernel sizes"));
}

TEST(ConvTranspose, ErrorsNameTheShapes) {
  EXPECT_THAT(call("conv_transpose", {{2, 3, 8}, {4, 3, 3}}).error,
              HasSubstr("expected w [3, O/groups, 1 kernel sizes]"));
  EXPECT_THAT(call("conv_transpose", {{2, 3, 8}, {3, 4, 3}}, {{"output_padding", Dims{1}}}).error,
              HasSubstr("output_padding to be 1 integers >= 0 and below the stride [1], got [1]"));
  EXPECT_THAT(call("conv_transpose", {{2, 3, 1}, {3, 4, 3}}, {{"padding_low", Dims{3}}}).error, HasSubstr("pad less"));
}

TEST(ConvTranspose, IsDescribedByTheConvolutionItReverses) {
  Attrs attrs{{"stride", Dims{2}},  {"padding_low", Dims{}}, {"padding_high", Dims{}},
              {"dilation", Dims{}}, {"groups", int64_t{1}},  {"output_padding", Dims{1}}};
  const OpContext c{registry().find("conv_transpose"), {{DType::kF32, {2, 3, 6}}, {DType::kF32, {3, 4, 3}}}, &attrs};
  const Result<ConvShape> s = conv_geometry(c);
  ASSERT_TRUE(s.ok()) << s.status().to_string();
  EXPECT_EQ(s->x_dims(), (Dims{2, 4, 14}));
  EXPECT_EQ(s->y_dims(), (Dims{2, 3, 6}));
  EXPECT_EQ(s->w_dims(), (Dims{3, 4, 3}));
}

TEST(Pool, CeilModeDropsAWindowThatStartsPastTheEnd) {
  const Dims kernel{2}, pad{1};
  EXPECT_EQ(output_dims("max_pool", {{1, 1, 5}}, {{"kernel", kernel}, {"ceil_mode", true}}), (Dims{1, 1, 3}));
  // 5 + 2 elements give 4 windows by rounding up, but the fourth would start at element 5, past the end.
  EXPECT_EQ(output_dims("max_pool", {{1, 1, 5}},
                        {{"kernel", kernel}, {"padding_low", pad}, {"padding_high", pad}, {"ceil_mode", true}}),
            (Dims{1, 1, 3}));
}

TEST(Pool, ErrorsNameWhatIsWrong) {
  EXPECT_THAT(call("max_pool", {{1, 2, 8, 8}}, {{"kernel", Dims{2}}}).error,
              HasSubstr("expected 2 kernel sizes, one per spatial axis of [1,2,8,8], got [2]"));
  EXPECT_THAT(call("max_pool", {{1, 2, 8, 8}}, {{"kernel", Dims{2, 0}}}).error,
              HasSubstr("expected kernel sizes >= 1, got [2,0]"));
  EXPECT_THAT(call("avg_pool", {{1, 2, 8}}, {{"kernel", Dims{2}}, {"padding_low", Dims{2}}}).error,
              HasSubstr("window 0 of spatial axis 0 lies in the padding alone"));
  EXPECT_THAT(call("max_pool", {{1, 2, 8}}, {}).error, HasSubstr("needs the attribute 'kernel'"));
  EXPECT_THAT(call("avg_pool_grad", {{1, 2, 5}}, {{"kernel", Dims{2}}, {"input_dims", Dims{1, 2, 8}}}).error,
              HasSubstr("expected dy to have the shape [1,2,4], got f32[1,2,5]"));
  EXPECT_THAT(call("adaptive_avg_pool", {{1, 2, 8, 8}}, {{"output_size", Dims{3}}}).error,
              HasSubstr("expected output_size to be 2 integers >= 1"));
  EXPECT_THAT(call("adaptive_max_pool", {{1, 2, 0, 8}}, {{"output_size", Dims{1, 1}}}).error,
              HasSubstr("at least one element on every spatial axis"));
}

TEST(Pool, AdaptiveRangesCoverTheAxis) {
  EXPECT_EQ(adaptive_range(0, 7, 3), (std::pair<int64_t, int64_t>{0, 3}));
  EXPECT_EQ(adaptive_range(1, 7, 3), (std::pair<int64_t, int64_t>{2, 5}));
  EXPECT_EQ(adaptive_range(2, 7, 3), (std::pair<int64_t, int64_t>{4, 7}));
}

TEST(Pool, MaxPoolGradRefusesAnIndexOutsideThePlane) {
  const OpDef* op = registry().find("max_pool_grad");
  Attrs attrs{{"input_dims", Dims{1, 1, 4}}};
  const OpContext c{op, {{DType::kF32, {1, 1, 1}}, {DType::kI32, {1, 1, 1}}}, &attrs};
  std::vector<RefTensor> in{RefTensor(c.in(0)), RefTensor(c.in(1))}, out{RefTensor(TensorType{DType::kF32, {1, 1, 4}})};
  in[1].data[0] = 4;
  const Status s = op->reference.value.fn()(c, in, out);
  ASSERT_FALSE(s.ok());
  EXPECT_THAT(s.message(), HasSubstr("index 4 is outside the plane of 4 elements"));
}

TEST(Norm, StatisticsHaveTheirShapes) {
  EXPECT_EQ(call("layer_norm", {{2, 3, 4, 5}, {4, 5}, {4, 5}}, {{"axes_count", int64_t{2}}}).outputs[1].dims(),
            (Dims{2, 3}));
  EXPECT_EQ(call("group_norm", {{2, 6, 4}, {6}, {6}}, {{"groups", int64_t{3}}}).outputs[2].dims(), (Dims{2, 3}));
}

TEST(Norm, ErrorsNameTheOperand) {
  EXPECT_THAT(call("batch_norm", {{4, 3, 5}, {3}, {4}, {3}, {3}}).error,
              HasSubstr("expected bias of the shape [3] for x f32[4,3,5], got f32[4]"));
  EXPECT_THAT(call("batch_norm", {{4, 3, 5}, {3}, {3}, {3}, {2}}).error,
              HasSubstr("expected running_var of the shape [3]"));
  EXPECT_THAT(call("batch_norm", {{1, 3}, {3}, {3}, {3}, {3}}).error,
              HasSubstr("expected more than one element per channel to train on"));
  EXPECT_THAT(call("batch_norm_inference", {{1, 3}, {3}, {3}, {3}, {3}}, {{"epsilon", -1.0}}).error,
              HasSubstr("expected epsilon >= 0, got -1"));
  EXPECT_THAT(call("layer_norm", {{4, 3}, {4}, {4}}).error, HasSubstr("expected scale of the shape [3]"));
  EXPECT_THAT(call("layer_norm", {{4, 3}, {3}, {3}}, {{"axes_count", int64_t{3}}}).error,
              HasSubstr("expected axes_count in [1, 2]"));
  EXPECT_THAT(call("group_norm", {{2, 6, 4}, {6}, {6}}, {{"groups", int64_t{4}}}).error,
              HasSubstr("expected groups to divide the 6 channels of f32[2,6,4], got 4"));
  EXPECT_THAT(call("instance_norm", {{2, 6}, {6}, {6}}).error, HasSubstr("expected x [N, C, spatial...]"));
}

}  // namespace
}  // namespace deepseek::ops
