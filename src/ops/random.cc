// Randomness from the counter-based generator: uniform numbers and dropout.
#include "base/philox.h"
#include "ops/common.h"

namespace deepseek::ops {
namespace {

Status check_rng(const TensorType& t) {
  if (t != TensorType{DType::kI64, {2}})
    return invalid("expected the random state i64[2] (seed, step), got {}", to_string(t));
  return {};
}

const AttrSpec kStream{"stream", AttrKind::kInt, int64_t{0},
                       "number of this place in the model: each draws a sequence of its own"};

Status uniform_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  const auto seed = static_cast<uint64_t>(static_cast<int64_t>(in[0].data[0]));
  const auto step = static_cast<uint32_t>(static_cast<int64_t>(in[0].data[1]));
  const auto stream = static_cast<uint32_t>(c.integer("stream"));
  for (uint64_t i = 0; i < out[0].data.size(); ++i) {
    const uint64_t block = i / 4;
    const auto words = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, step},
                                  {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    out[0].data[i] = static_cast<double>(words[i % 4] >> 8) / (1 << 24);
  }
  return {};
}

}  // namespace

Status register_random(OpRegistry& registry) {
  const SampleInput rng = indices({2}, 1000);
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "random_uniform",
       .doc =
           "Uniform numbers in [0, 1) on a grid of 2^-24. Element i is word i % 4 of Philox4x32-10 with the seed's low "
           "and high half as key and (i / 4 low, i / 4 high, stream, step) as counter.",
       .inputs = std::vector<OperandSpec>{{"rng", "i64[2]: seed, step"}},
       .outputs = std::vector<OperandSpec>{{"u", "f32, shape dims"}},
       .attrs = {{"dims", AttrKind::kInts, {}, "shape of the result"}, kStream},
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_TRY(check_rng(c.in(0)));
         for (int64_t d : c.ints("dims"))
           if (d < 0) return invalid("expected dims >= 0, got {}", to_string(c.ints("dims")));
         return std::vector<TensorType>{{DType::kF32, c.ints("dims")}};
       },
       .gradient = Gradient::non_differentiable("its input is an integer state"),
       .reference = Reference::kernel(uniform_reference),
       .traits = {.random = true},
       .samples = std::vector<Sample>{{"vector", {rng}, {{"dims", Dims{37}}}, false},
                                      {"matrix", {rng}, {{"dims", Dims{5, 6}}, {"stream", int64_t{3}}}, false},
                                      {"scalar", {rng}, {{"dims", Dims{}}}, false},
                                      {"empty", {rng}, {{"dims", Dims{0, 5}}}, false}}});
  defs.push_back(
      {.name = "dropout",
       .doc = "Sets elements to 0 with probability `rate` and scales the others by 1 / (1 - rate).",
       .inputs = std::vector<OperandSpec>{{"x", "float, any shape"}, {"rng", "i64[2]: seed, step"}},
       .outputs = std::vector<OperandSpec>{{"y", "x's type"}},
       .attrs = {{"rate", AttrKind::kFloat, 0.5, "in [0, 1)"}, kStream},
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_TRY(check_rng(c.in(1)));
         if (const double r = c.number("rate"); !(r >= 0 && r < 1))
           return invalid("expected a rate in [0, 1), got {}", r);
         return float_like_input(c);
       },
       // Linear in x, and the counter gives the same mask again: no mask is kept for the backward pass.
       .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
         return {g.builder.op("dropout", {g.output_grads[0], g.inputs[1]}, *g.node.attrs), Expr()};
       }),
       .reference = Reference::by_decomposition(),
       .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         const double rate = c.number("rate");
         Expr u = b.op("random_uniform", {in[1]}, {{"dims", in[0].dims()}, {"stream", c.integer("stream")}});
         Expr keep = cast(greater_equal(u, constant_like(u, rate)), in[0].dtype());
         return {in[0] * keep * (1 / (1 - rate))};
       },
       .traits = {.random = true},
       .precision = Precision::kFollow,
       .samples = std::vector<Sample>{{"half", {f32({6, 9}), rng}},
                                      {"tenth", {f32({2, 3, 5}), rng}, {{"rate", 0.1}, {"stream", int64_t{7}}}},
                                      {"none", {f32({5}), rng}, {{"rate", 0.0}}},
                                      {"empty", {f32({0, 5}), rng}}}});
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
