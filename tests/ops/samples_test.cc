// Walks every sample of every op: round trip of the text form, the CPU backend against the reference kernel, the
// gradient against central differences in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/pipeline.h"
#include "graph/text.h"
#include "ops/interpreter.h"
#include "passes/autodiff.h"
#include "tests/ops/sample_data.h"

namespace deepseek {
namespace {

using namespace graph;

struct Case {
  const OpDef* def;
  const Sample* sample;
};
std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& [name, def] : ops::registry().all())
    for (const Sample& sample : def.samples.value) cases.push_back({&def, &sample});
  return cases;
}
class Samples : public ::testing::TestWithParam<Case> {};

TEST_P(Samples, TextFormRoundTrips) {
  const auto [def, sample] = GetParam();
  Result<Graph> graph = testing::sample_graph(*def, *sample);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  const std::string text = print(*graph);
  Result<Graph> parsed = parse(text, ops::registry());
  ASSERT_TRUE(parsed.ok()) << parsed.status().to_string() << "\n" << text;
  EXPECT_EQ(print(*parsed), text);
}

// The CPU program against the reference, which may refuse the data: an index out of range.
void expect_cpu_equals_reference(const Graph& graph, const std::vector<RefTensor>& inputs, double tolerance,
                                 const runtime::CompileOptions& options = {}) {
  Result<std::vector<RefTensor>> expected = ops::evaluate_reference(graph, inputs);
  auto program = backends::cpu::CpuBackend().compile(graph, options);
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  std::vector<Tensor> tensors;
  for (const RefTensor& t : inputs) tensors.push_back(testing::to_tensor(t));
  for (int run = 0; run < 2; ++run) {  // the second run reuses the arena
    Result<std::vector<Tensor>> actual = (*program)->run(tensors);
    if (!expected.ok()) return;
    ASSERT_TRUE(actual.ok()) << actual.status().to_string();
    for (size_t o = 0; o < actual->size(); ++o)
      for (int64_t i = 0; i < (*actual)[o].num_elements(); ++i) {
        const double e = (*expected)[o].data[i], a = (*actual)[o].at(i);
        if ((std::isnan(e) && std::isnan(a)) || a == e) continue;  // equal infinities have no difference
        ASSERT_NEAR(a, e, tolerance * std::max(1.0, std::fabs(e)))
            << "output " << o << " element " << i << " run " << run;
      }
  }
}

TEST_P(Samples, CpuEqualsReference) {
  const auto [def, sample] = GetParam();
  Result<Graph> graph = testing::sample_graph(*def, *sample);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  const std::vector<RefTensor> inputs = testing::sample_inputs(*sample);
  const Result<std::vector<RefTensor>> expected = ops::evaluate_reference(*graph, inputs);
  ASSERT_TRUE(expected.ok()) << expected.status().to_string();
  expect_cpu_equals_reference(*graph, inputs, sample->tolerance);
}

// Every pass that may be disabled is: what is left gives the same values.
TEST_P(Samples, CpuEqualsReferenceWithoutOptionalPasses) {
  const auto [def, sample] = GetParam();
  Result<Graph> graph = testing::sample_graph(*def, *sample);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  runtime::CompileOptions options;
  for (const passes::Pass& pass : backends::cpu::pipeline())
    if (pass.name != "decompose_composites") options.disabled_passes.emplace_back(pass.name);
  options.disabled_passes.emplace_back(backends::cpu::kPrecompute);
  expect_cpu_equals_reference(*graph, testing::sample_inputs(*sample), sample->tolerance, options);
}

// The sample with other sizes: all that equal `size` are 0, in attributes too if `attrs` says so.
Sample emptied(Sample sample, int64_t size, bool attrs) {
  const auto empty = [size](Dims& dims) { std::replace(dims.begin(), dims.end(), size, int64_t{0}); };
  for (SampleInput& input : sample.inputs) empty(input.type.dims);
  Attrs changed;
  for (const auto& [name, value] : sample.attrs) {
    AttrValue v = value;
    if (Dims* list = std::get_if<Dims>(&v); list != nullptr && attrs) empty(*list);
    if (int64_t* number = std::get_if<int64_t>(&v); number != nullptr && attrs && *number == size) *number = 0;
    changed.set(name, std::move(v));
  }
  sample.attrs = std::move(changed);
  return sample;
}

// Every axis of every sample without elements, forward and backward: an op refuses it, or the CPU equals the reference.
TEST_P(Samples, EmptyAxes) {
  const auto [def, sample] = GetParam();
  std::vector<Sample> variants;
  std::set<int64_t> sizes;
  for (const SampleInput& input : sample->inputs) sizes.insert(input.type.dims.begin(), input.type.dims.end());
  for (const auto& [name, value] : sample->attrs)
    if (const Dims* list = std::get_if<Dims>(&value)) sizes.insert(list->begin(), list->end());
  for (const int64_t size : sizes)
    for (const bool attrs : {false, true}) variants.push_back(emptied(*sample, size, attrs));
  for (size_t i = 0; i < sample->inputs.size(); ++i)
    for (size_t axis = 0; axis < sample->inputs[i].type.dims.size(); ++axis) {
      variants.push_back(*sample);
      variants.back().inputs[i].type.dims[axis] = 0;
    }
  variants.push_back(*sample);
  for (SampleInput& input : variants.back().inputs) std::fill(input.type.dims.begin(), input.type.dims.end(), 0);
  for (const Sample& variant : variants) {
    Result<Graph> graph = testing::sample_graph(*def, variant);
    if (!graph.ok()) {
      EXPECT_NE(graph.status().code(), ErrorCode::kInternal) << graph.status().to_string();
      continue;
    }
    SCOPED_TRACE(print(*graph));
    std::vector<RefTensor> inputs = testing::sample_inputs(variant);
    expect_cpu_equals_reference(*graph, inputs, sample->tolerance);
    if (!def->gradient.value.differentiable()) continue;
    Result<Graph> derivative = passes::vjp(*graph);
    ASSERT_TRUE(derivative.ok() || !sample->check_gradient) << derivative.status().to_string();
    if (!derivative.ok()) continue;  // second derivatives, of an output that nobody differentiates
    for (const Output& output : graph->outputs())
      if (RefTensor seed(graph->type(output.value)); is_float(seed.dtype)) {
        std::fill(seed.data.begin(), seed.data.end(), 1.0);
        inputs.push_back(std::move(seed));
      }
    expect_cpu_equals_reference(*derivative, inputs, 10 * sample->tolerance);
  }
}

// What OpDef::rematerialize gives is the first output, from the operands that it says it reads.
TEST_P(Samples, RematerializedEqualsReference) {
  const auto [def, sample] = GetParam();
  if (!def->rematerialize) return;  // has no shorter way
  Builder builder(ops::registry());
  std::vector<Expr> inputs;
  for (size_t i = 0; i < sample->inputs.size(); ++i)
    inputs.push_back(builder.input(std::to_string(i), sample->inputs[i].type));
  const std::vector<Expr> outputs = builder.emit(def->name.value, inputs, sample->attrs);
  std::vector<Expr> in(inputs.size()), out(outputs.size());
  for (int32_t i : def->rematerialize->inputs) in[static_cast<size_t>(i)] = inputs[static_cast<size_t>(i)];
  for (int32_t i : def->rematerialize->outputs) out[static_cast<size_t>(i)] = outputs[static_cast<size_t>(i)];
  OpContext context{def, {}, &builder.data().nodes.back().attrs};
  for (const Expr& e : inputs) context.inputs.push_back(e.type());
  builder.output("first", outputs[0]);
  // The attributes live in the builder, which moves them as it grows.
  const Attrs attrs = *context.attrs;
  context.attrs = &attrs;
  builder.output("again", def->rematerialize->fn(context, in, out));
  Result<Graph> graph = builder.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  Result<std::vector<RefTensor>> results = ops::evaluate_reference(*graph, testing::sample_inputs(*sample));
  ASSERT_TRUE(results.ok()) << results.status().to_string();
  ASSERT_EQ((*results)[0].dims, (*results)[1].dims);
  for (size_t i = 0; i < (*results)[0].data.size(); ++i)
    ASSERT_NEAR((*results)[0].data[i], (*results)[1].data[i], 1e-9 * std::max(1.0, std::fabs((*results)[0].data[i])));
}

TEST_P(Samples, GradientEqualsCentralDifferences) {
  const auto [def, sample] = GetParam();
  const bool has_gradient = def->gradient.value.differentiable();
  if (!has_gradient || !sample->check_gradient) return;  // the record says why
  Result<Graph> graph = testing::sample_graph(*def, *sample);
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  Result<Graph> derivative = passes::vjp(*graph);
  ASSERT_TRUE(derivative.ok()) << derivative.status().to_string();
  std::vector<RefTensor> inputs = testing::sample_inputs(*sample);
  // A fixed random weight per output element makes one scalar of all outputs.
  std::mt19937 random(99);
  std::vector<RefTensor> args = inputs, seeds;
  for (const Output& output : graph->outputs()) {
    RefTensor seed(graph->type(output.value));
    if (is_float(seed.dtype))
      for (double& x : seed.data) x = std::normal_distribution<double>()(random);
    seeds.push_back(seed);
    if (is_float(seed.dtype)) args.push_back(seed);
  }
  Result<std::vector<RefTensor>> grads = ops::evaluate_reference(*derivative, args);
  ASSERT_TRUE(grads.ok()) << grads.status().to_string();
  const auto scalar = [&](const std::vector<RefTensor>& at) {
    Result<std::vector<RefTensor>> out = ops::evaluate_reference(*graph, at);
    EXPECT_TRUE(out.ok()) << out.status().to_string();
    double total = 0;
    for (size_t o = 0; o < seeds.size(); ++o)
      for (size_t i = 0; i < seeds[o].data.size(); ++i)
        if (seeds[o].data[i] != 0) total += seeds[o].data[i] * (*out)[o].data[i];
    return total;
  };
  size_t next = 0;
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (!is_float(inputs[k].dtype)) continue;
    const RefTensor& grad = (*grads)[next++];
    const size_t step = std::max<size_t>(1, inputs[k].data.size() / 24);
    for (size_t i = 0; i < inputs[k].data.size(); i += step) {
      const double x = inputs[k].data[i], h = 1e-5;
      inputs[k].data[i] = x + h;
      const double up = scalar(inputs);
      inputs[k].data[i] = x - h;
      const double down = scalar(inputs);
      inputs[k].data[i] = x;
      const double expected = (up - down) / (2 * h);
      ASSERT_NEAR(grad.data[i], expected, 1e-5 * std::max(1.0, std::fabs(expected)))
          << "input " << k << " element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, Samples, ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.def->name.value + "_" + info.param.sample->name; });

}  // namespace
}  // namespace deepseek
