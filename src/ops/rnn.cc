// Recurrent layers as composites: one product for all steps' inputs, then a scan over the recurrence.
#include "ops/common.h"
#include "ops/scan.h"

namespace deepseek::ops {
namespace {

using graph::Graph;

// lstm: x, h0, c0, w_ih, w_hh, bias; gru: x, h0, w_ih, w_hh, b_ih, b_hh.
TypesOrError infer_rnn(const OpContext& c, bool lstm) {
  const TensorType &x = c.in(0), &h = c.in(1);
  if (!is_float(x.dtype) || x.rank() != 3 || h.rank() != 2 || h.dims[0] != x.dims[1])
    return invalid("expected float x [T,N,I] and h0 [N,H], got {} and {}", to_string(x), to_string(h));
  const int64_t hidden = h.dims[1], rows = (lstm ? 4 : 3) * hidden;
  const size_t w = lstm ? 3 : 2;
  std::vector<Dims> expected{x.dims, h.dims};
  if (lstm) expected.push_back(h.dims);
  expected.push_back({rows, x.dims[2]});
  expected.push_back({rows, hidden});
  for (size_t i = w + 2; i < c.num_inputs(); ++i) expected.push_back({rows});
  for (size_t i = 0; i < c.num_inputs(); ++i)
    if (c.in(i) != TensorType{x.dtype, expected[i]})
      return invalid("{}: expected {}, got {}", c.op->inputs.value[i].name, to_string(TensorType{x.dtype, expected[i]}),
                     to_string(c.in(i)));
  std::vector<TensorType> types{{x.dtype, {x.dims[0], x.dims[1], hidden}}, h};
  if (lstm) types.push_back(h);
  return types;
}

// Columns of gate i of [N, gates * H].
Expr gate(Expr all, int64_t i, int64_t hidden) { return slice(all, 1, i * hidden, (i + 1) * hidden); }

// A scan over `body`; results are y, then the final carries.
std::vector<Expr> run(Builder& b, const OpContext& c, Result<Graph> body, std::vector<Expr> carries, Expr x,
                      std::vector<Expr> consts) {
  if (!body.ok()) {
    b.fail(std::move(body).status());
    return std::vector<Expr>(carries.size() + 1, Expr(&b, graph::Value()));
  }
  ScanResult r = scan(b, std::move(*body), carries, {x}, consts, c.flag("reverse"));
  std::vector<Expr> results{r.ys[0]};
  results.insert(results.end(), r.carries.begin(), r.carries.end());
  return results;
}

std::vector<Expr> decompose_lstm(Builder& b, const OpContext& c, std::span<const Expr> in) {
  const int64_t hidden = in[1].dim(1);
  Expr projected = matmul(in[0], in[3], false, true) + in[5];
  Builder step(b.registry());
  Expr h = step.input("h", in[1].type()), cell = step.input("c", in[2].type());
  Expr x = step.input("x", {in[0].dtype(), {in[0].dim(1), 4 * hidden}}), w = step.input("w", in[4].type());
  Expr gates = x + matmul(h, w, false, true);
  Expr next_c = sigmoid(gate(gates, 1, hidden)) * cell + sigmoid(gate(gates, 0, hidden)) * tanh(gate(gates, 2, hidden));
  Expr next_h = sigmoid(gate(gates, 3, hidden)) * tanh(next_c);
  step.output("h", next_h);
  step.output("c", next_c);
  step.output("y", next_h);
  return run(b, c, step.finish(), {in[1], in[2]}, projected, {in[4]});
}

std::vector<Expr> decompose_gru(Builder& b, const OpContext& c, std::span<const Expr> in) {
  const int64_t hidden = in[1].dim(1);
  Expr projected = matmul(in[0], in[2], false, true) + in[4];
  Builder step(b.registry());
  Expr h = step.input("h", in[1].type()), x = step.input("x", {in[0].dtype(), {in[0].dim(1), 3 * hidden}});
  Expr w = step.input("w", in[3].type()), bias = step.input("b", in[5].type());
  Expr recurrent = matmul(h, w, false, true) + bias;
  Expr reset = sigmoid(gate(x, 0, hidden) + gate(recurrent, 0, hidden));
  Expr keep = sigmoid(gate(x, 1, hidden) + gate(recurrent, 1, hidden));
  Expr candidate = tanh(gate(x, 2, hidden) + reset * gate(recurrent, 2, hidden));
  Expr next = (1.0 - keep) * candidate + keep * h;
  step.output("h", next);
  step.output("y", next);
  return run(b, c, step.finish(), {in[1]}, projected, {in[3], in[5]});
}

}  // namespace

Status register_rnn(OpRegistry& registry) {
  DS_TRY(register_scan(registry));
  const AttrSpec reverse{"reverse", AttrKind::kBool, false, "from the last step to the first; y keeps the order of x"};
  const Attrs backwards{{"reverse", true}};
  const auto lstm = [](int64_t t, int64_t n, int64_t i, int64_t h) {
    return std::vector<SampleInput>{f32({t, n, i}),  f32({n, h}),     f32({n, h}),
                                    f32({4 * h, i}), f32({4 * h, h}), f32({4 * h})};
  };
  const auto gru = [](int64_t t, int64_t n, int64_t i, int64_t h) {
    return std::vector<SampleInput>{f32({t, n, i}),  f32({n, h}),  f32({3 * h, i}),
                                    f32({3 * h, h}), f32({3 * h}), f32({3 * h})};
  };
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "lstm",
       .doc = "Long short-term memory over time; gates in the order input, forget, cell, output (torch.nn.LSTM, one "
              "layer).",
       .inputs = std::vector<OperandSpec>{{"x", "float [T,N,I]"},
                                          {"h0", "[N,H]"},
                                          {"c0", "[N,H]"},
                                          {"w_ih", "[4H,I]"},
                                          {"w_hh", "[4H,H]"},
                                          {"bias", "[4H]"}},
       .outputs = std::vector<OperandSpec>{{"y", "[T,N,H]"}, {"h", "[N,H], after the last step"}, {"c", "[N,H]"}},
       .attrs = {reverse},
       .infer = [](const OpContext& c) { return infer_rnn(c, true); },
       .gradient = Gradient::by_decomposition(),
       .reference = Reference::by_decomposition(),
       .decompose = decompose_lstm,
       .precision = Precision::kParts,
       .samples = std::vector<Sample>{
           {"forward", lstm(5, 3, 4, 6)}, {"reverse", lstm(4, 2, 3, 5), backwards}, {"one_step", lstm(1, 2, 3, 2)}}});
  defs.push_back(
      {.name = "gru",
       .doc = "Gated recurrent unit over time; gates in the order reset, update, new, with a bias on both sides "
              "(torch.nn.GRU, one layer).",
       .inputs = std::vector<OperandSpec>{{"x", "float [T,N,I]"},
                                          {"h0", "[N,H]"},
                                          {"w_ih", "[3H,I]"},
                                          {"w_hh", "[3H,H]"},
                                          {"b_ih", "[3H]"},
                                          {"b_hh", "[3H]"}},
       .outputs = std::vector<OperandSpec>{{"y", "[T,N,H]"}, {"h", "[N,H], after the last step"}},
       .attrs = {reverse},
       .infer = [](const OpContext& c) { return infer_rnn(c, false); },
       .gradient = Gradient::by_decomposition(),
       .reference = Reference::by_decomposition(),
       .decompose = decompose_gru,
       .precision = Precision::kParts,
       .samples = std::vector<Sample>{
           {"forward", gru(5, 3, 4, 6)}, {"reverse", gru(4, 2, 3, 5), backwards}, {"one_step", gru(1, 2, 3, 2)}}});
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
