// Messages of index, loss, attention, random and resizing ops: what was expected, what was given. Embedding's padding
// row.
#include <gtest/gtest.h>

#include "ops/common.h"
#include "ops/interpreter.h"

namespace deepseek::ops {
namespace {

constexpr DType kF = DType::kF32, kI = DType::kI64;

std::string error_of(const char* op, const std::vector<TensorType>& types, Attrs attrs = {}) {
  Builder b(registry());
  std::vector<Expr> inputs;
  for (const TensorType& t : types) inputs.push_back(b.input("x" + std::to_string(inputs.size()), t));
  b.emit(op, inputs, std::move(attrs));
  return b.status().ok() ? "ok" : b.status().message();
}

TEST(OpErrors, NameExpectedAndActual) {
  EXPECT_EQ(error_of("gather", {{kF, {3, 2}}, {kF, {4}}}),
            "[gather] expected i64 or i32 indices, got f32[4]; cast them");
  EXPECT_EQ(error_of("top_k", {{kF, {3, 2}}}, {{"k", int64_t{5}}}),
            "[top_k] expected k in [0, 2] on axis 1 of f32[3,2], got 5");
  EXPECT_EQ(error_of("take_along_axis", {{kF, {3, 2}}, {kI, {2, 2}}}),
            "[take_along_axis] expected indices with the shape of f32[3,2] but on axis 1, got i64[2,2]");
  EXPECT_EQ(error_of("cross_entropy", {{kF, {4, 3}}, {kI, {3}}}),
            "[cross_entropy] expected targets i64[4] (class indices) or f32[4,3] (probabilities), got i64[3]");
  EXPECT_EQ(error_of("cross_entropy", {{kF, {4, 3}}, {kI, {4}}}, {{"reduction", std::string("avg")}}),
            "[cross_entropy] reduction: expected \"mean\", \"sum\" or \"none\", got \"avg\"");
  EXPECT_EQ(error_of("dropout", {{kF, {4}}, {kI, {2}}}, {{"rate", 1.0}}), "[dropout] expected a rate in [0, 1), got 1");
  EXPECT_EQ(error_of("random_uniform", {{kI, {3}}}, {{"dims", Dims{4}}}),
            "[random_uniform] expected the random state i64[2] (seed, step), got i64[3]");
  EXPECT_EQ(error_of("lstm", {{kF, {5, 2, 3}}, {kF, {2, 4}}, {kF, {2, 4}}, {kF, {12, 3}}, {kF, {16, 4}}, {kF, {16}}}),
            "[lstm] w_ih: expected f32[16,3], got f32[12,3]");
  EXPECT_EQ(error_of("attention", {{kF, {1, 2, 3, 4}}, {kF, {1, 2, 5, 4}}, {kF, {1, 2, 6, 4}}}),
            "[attention] expected q and k of one width, k and v of one length, got f32[1,2,3,4], f32[1,2,5,4] and "
            "f32[1,2,6,4]");
  EXPECT_EQ(error_of("interpolate", {{kF, {1, 2, 3, 4}}}, {{"size", Dims{6}}}),
            "[interpolate] expected 2 sizes, one per spatial axis of f32[1,2,3,4], got [6]");
  EXPECT_EQ(error_of("clamp", {{kF, {2}}}, {{"min", 1.0}, {"max", 0.0}}),
            "[clamp] expected min <= max, got min 1 and max 0");
  EXPECT_EQ(error_of("gelu", {{kF, {2}}}, {{"approximate", std::string("fast")}}),
            "[gelu] approximate: expected \"none\" or \"tanh\", got \"fast\"");
}

TEST(OpErrors, IndexOutOfRangeNamesValueAndRange) {
  for (const char* op : {"gather", "take_along_axis"}) {
    Builder b(registry());
    b.output("y", b.op(op, {b.input("x", {kF, {3}}), b.input("i", {kI, {2}})}, {{"axis", int64_t{0}}}));
    Result<graph::Graph> graph = b.finish();
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    RefTensor indices(TensorType{kI, {2}});
    indices.data = {1, 3};
    EXPECT_EQ(evaluate_reference(*graph, {RefTensor(TensorType{kF, {3}}), indices}).status().message(),
              "index 3 at position 1 is out of range [0, 3)");
  }
}

TEST(Embedding, PaddingRowTakesNoGradient) {
  Builder b(registry());
  Expr weight = b.input("w", {kF, {3, 2}}), ids = b.input("i", {kI, {4}}), dy = b.input("dy", {kF, {4, 2}});
  const graph::OpDef& def = *registry().find("embedding");
  const Attrs attrs{{"padding_idx", int64_t{1}}};
  const OpContext node{&def, {weight.type(), ids.type()}, &attrs};
  GradContext g{b, node, {weight, ids}, {dy}, {dy}, {true, false}, {}};
  b.output("dw", def.gradient.value.fn()(g)[0]);
  Result<graph::Graph> graph = b.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  RefTensor w(TensorType{kF, {3, 2}}), i(TensorType{kI, {4}}), d(TensorType{kF, {4, 2}});
  i.data = {0, 1, 2, 0};
  d.data = {1, 2, 3, 4, 5, 6, 7, 8};
  auto out = evaluate_reference(*graph, {w, i, d});
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  EXPECT_EQ((*out)[0].data, (std::vector<double>{8, 10, 0, 0, 5, 6}));
}

}  // namespace
}  // namespace deepseek::ops
