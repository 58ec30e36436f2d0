// A record that contradicts itself is not registered, so no op lacks samples, meaning or gradient.
#include "graph/op_def.h"

#include <gtest/gtest.h>

namespace deepseek::graph {
namespace {

OpDef copy_op() {
  return {.name = "copy",
          .doc = "x",
          .inputs = std::vector<OperandSpec>{{"x", "any"}},
          .outputs = std::vector<OperandSpec>{{"y", "as x"}},
          .infer = [](const OpContext& c) -> TypesOrError { return c.inputs; },
          .gradient = Gradient::non_differentiable("it is a test"),
          .reference = Reference::kernel([](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) {
            out[0].data = in[0].data;
            return Status();
          }),
          .samples = std::vector<Sample>{{"one", {{{DType::kF32, {2}}}}}}};
}

std::string refusal(const std::function<void(OpDef&)>& change) {
  OpRegistry registry;
  OpDef def = copy_op();
  change(def);
  const Status status = registry.add(std::move(def));
  EXPECT_EQ(registry.find("copy") == nullptr, !status.ok());
  return status.ok() ? "registered" : status.message();
}

TEST(OpRegistry, RefusesRecordsThatContradictThemselves) {
  EXPECT_EQ(refusal([](OpDef&) {}), "registered");
  EXPECT_EQ(refusal([](OpDef& d) { d.samples.value.clear(); }), "op 'copy' has no samples");
  EXPECT_EQ(refusal([](OpDef& d) { d.reference = Reference::by_decomposition(); }),
            "op 'copy' has neither a reference kernel nor a decomposition");
  EXPECT_EQ(refusal([](OpDef& d) { d.gradient = Gradient::by_decomposition(); }),
            "op 'copy' takes its gradient from a decomposition that it does not have");
  EXPECT_EQ(refusal([](OpDef& d) {
              d.inputs = std::vector<OperandSpec>{{.name = "a", .doc = "", .variadic = true}, {"b", ""}};
            }),
            "op 'copy': only the last input may be variadic");
  EXPECT_EQ(refusal([](OpDef& d) {
              d.attrs = {{"k", AttrKind::kInt, 1.0, ""}};
            }),
            "op 'copy': the default of 'k' is not a int");
}

TEST(OpRegistry, NamesAreUnique) {
  OpRegistry registry;
  ASSERT_TRUE(registry.add(copy_op()).ok());
  EXPECT_EQ(registry.add(copy_op()).message(), "op 'copy' is registered twice");
  EXPECT_EQ(registry.names(), std::vector<std::string>{"copy"});
}

TEST(OpDef, InferenceKeepsToTheLimits) {
  OpDef def = copy_op();
  Attrs attrs{{"dims", Dims{INT64_MAX}}};
  const OpContext c{&def, {{DType::kF32, {2}}}, &attrs};
  EXPECT_EQ(infer_types(c).status().message(),
            "attribute 'dims': expected integers in [-2147483647, 2147483647], got [9223372036854775807]");
  attrs = {};
  def.infer = InferFn([](const OpContext&) -> TypesOrError {
    return std::vector<TensorType>{{DType::kF32, {kMaxSize, kMaxSize}}};
  });
  EXPECT_NE(infer_types(c).status().message().find("output 0: expected at most"), std::string::npos);
}

}  // namespace
}  // namespace deepseek::graph
