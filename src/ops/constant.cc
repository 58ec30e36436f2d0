// constant, iota.
#include "ops/common.h"

namespace deepseek::ops {

Status register_constant(OpRegistry& registry) {
  return add_all(
      registry,
      {{.name = "constant",
        .doc = "A tensor known at compile time.",
        .inputs = std::vector<OperandSpec>{},
        .outputs = std::vector<OperandSpec>{{"y", "the value"}},
        .attrs = {{"value", AttrKind::kTensor, {}, "the value"}},
        .infer = [](const OpContext& c) -> TypesOrError {
          return std::vector<TensorType>{c.attrs->get<graph::Tensor>("value").type()};
        },
        .gradient = Gradient::rule([](GradContext&) { return std::vector<Expr>{}; }),
        .reference = Reference::kernel([](const OpContext& c, auto, std::span<RefTensor> out) -> Status {
          const auto& value = c.attrs->get<graph::Tensor>("value");
          for (int64_t i = 0; i < value.num_elements(); ++i) out[0].data[i] = value.at(i);
          return {};
        }),
        .cost = moves_all,
        .samples = std::vector<Sample>{{"vector", {}, {{"value", graph::Tensor::full(DType::kF32, {3}, 1.5)}}}}},
       {.name = "iota",
        .doc = "Counts 0, 1, 2, ... along `axis`, the same on all other axes.",
        .inputs = std::vector<OperandSpec>{},
        .outputs = std::vector<OperandSpec>{{"y", "the counts"}},
        .attrs = {{"dims", AttrKind::kInts, {}, "shape of the result"},
                  {"axis", AttrKind::kInt, int64_t{0}, "the axis that counts"},
                  {"dtype", AttrKind::kDType, DType::kI64, "dtype of the result"}},
        .infer = [](const OpContext& c) -> TypesOrError {
          for (int64_t d : c.ints("dims"))
            if (d < 0) return invalid("expected dims >= 0, got {}", to_string(c.ints("dims")));
          DS_TRY(normalize_axis(c.integer("axis"), static_cast<int64_t>(c.ints("dims").size())).status());
          return std::vector<TensorType>{{c.attrs->get<DType>("dtype"), c.ints("dims")}};
        },
        .gradient = Gradient::rule([](GradContext&) { return std::vector<Expr>{}; }),
        .reference = Reference::kernel([](const OpContext& c, auto, std::span<RefTensor> out) -> Status {
          const Dims& dims = out[0].dims;
          const int64_t axis = *normalize_axis(c.integer("axis"), static_cast<int64_t>(dims.size()));
          const int64_t inner = product(std::span(dims).subspan(axis + 1));
          for (size_t i = 0; i < out[0].data.size(); ++i)
            out[0].data[i] = static_cast<double>(static_cast<int64_t>(i) / inner % dims[axis]);
          return {};
        }),
        .cost = moves_all,
        .samples = std::vector<Sample>{{"matrix", {}, {{"dims", Dims{2, 3}}, {"axis", int64_t{1}}}}}}});
}

}  // namespace deepseek::ops
