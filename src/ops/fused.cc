// fused: a group of nodes that runs as one kernel: a loop of element-wise nodes and sums, or a heavy op with such loops
// around it. Made by the passes fuse_elementwise and fuse_epilogues.
#include "ops/common.h"
#include "ops/interpreter.h"

namespace deepseek::ops {

using graph::Graph;
using graph::GraphRef;

namespace {

Result<GraphRef> sample_body(const OpRegistry& registry) {
  Builder builder(registry);
  Expr a = builder.input("a", {DType::kF32, {6, 33}}), b = builder.input("b", {DType::kF32, {33}});
  Expr y = relu(a + b);
  builder.output("0", y);
  builder.output("1", y * 2.0 - b);
  DS_ASSIGN(Graph body, builder.finish());
  return GraphRef(std::make_shared<const Graph>(std::move(body)));
}

TypesOrError infer_fused(const OpContext& c) {
  const GraphRef& body = c.attrs->get<GraphRef>("body");
  if (!body || !body->defined()) return invalid("expected a body, got none");
  if (body->inputs().size() != c.num_inputs())
    return invalid("expected {} inputs, one per input of the body, got {}", body->inputs().size(), c.num_inputs());
  for (size_t i = 0; i < c.num_inputs(); ++i)
    if (body->type(body->inputs()[i].value) != c.in(i))
      return invalid("input {}: expected {} as in the body, got {}", i, to_string(body->type(body->inputs()[i].value)),
                     to_string(c.in(i)));
  std::vector<TensorType> types;
  for (const graph::Output& output : body->outputs()) types.push_back(body->type(output.value));
  return types;
}

}  // namespace

Status register_fused(OpRegistry& registry) {
  DS_ASSIGN(GraphRef body, sample_body(registry));
  return add_all(
      registry,
      {{.name = "fused",
        .doc = "A group of nodes as one kernel: an element-wise loop with sums, perhaps around one heavy op.",
        .inputs = std::vector<OperandSpec>{{"inputs", "the body's inputs; none where it computes from constants", true,
                                            true}},
        .outputs = std::vector<OperandSpec>{{"outputs", "the body's outputs"}},
        .attrs = {{"body", AttrKind::kGraph, {}, "what the node computes"}},
        .infer = infer_fused,
        .gradient = Gradient::non_differentiable("it is made after autodiff"),
        .reference = Reference::kernel([](const OpContext& c, std::span<const RefTensor> in,
                                          std::span<RefTensor> out) -> Status {
          DS_ASSIGN(std::vector<RefTensor> results,
                    evaluate_reference(*c.attrs->get<GraphRef>("body"), std::vector<RefTensor>(in.begin(), in.end())));
          for (size_t i = 0; i < out.size(); ++i) out[i] = std::move(results[i]);
          return {};
        }),
        .samples = std::vector<Sample>{{"two_outputs", {f32({6, 33}), f32({33})}, {{"body", body}}, false}}}});
}

}  // namespace deepseek::ops
