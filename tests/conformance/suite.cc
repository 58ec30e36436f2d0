#include "tests/conformance/suite.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/interpreter.h"
#include "passes/autodiff.h"
#include "tests/ops/sample_data.h"

namespace deepseek::conformance {

using namespace graph;
using runtime::Backend;
using runtime::Buffer;
using runtime::CompileOptions;
using runtime::Program;
using runtime::StateBuffer;

namespace {

TensorType f32(Dims dims) { return {DType::kF32, std::move(dims)}; }
Tensor vector(std::vector<float> values) {
  const Tensor t(DType::kF32, {static_cast<int64_t>(values.size())});
  std::memcpy(t.data(), values.data(), t.num_bytes());
  return t;
}

// Collects what is wrong; each method is false where it found something.
class Checker {
 public:
  explicit Checker(const Backend& backend) : backend(backend) {}

  bool that(bool holds, const std::string& what) {
    if (!holds) failures.push_back(what);
    return holds;
  }
  bool ok(const Status& status, const std::string& what) {
    return that(status.ok(), what + ": " + (status.ok() ? "" : status.to_string()));
  }
  // An error of a user, whose message has all these parts.
  void refuses(const Status& status, const std::vector<std::string>& parts, const std::string& what) {
    if (!that(!status.ok(), what + ": expected an error, got none")) return;
    that(status.code() != ErrorCode::kInternal, what + ": expected a user's error, got an internal one");
    for (const std::string& part : parts)
      that(status.to_string().find(part) != std::string::npos,
           what + ": expected an error with '" + part + "', got '" + status.to_string() + "'");
  }
  void near(const Tensor& actual, const TensorType& type, const std::vector<double>& expected, double tolerance,
            const std::string& what) {
    if (!that(actual.type() == type, what + ": expected " + to_string(type) + ", got " + to_string(actual.type())))
      return;
    for (int64_t i = 0; i < actual.num_elements(); ++i) {
      const double e = expected[static_cast<size_t>(i)], a = actual.at(i);
      if ((std::isnan(e) && std::isnan(a)) || e == a) continue;
      if (!that(std::fabs(a - e) <= tolerance * std::max(1.0, std::fabs(e)),
                fmt::format("{}: element {}: expected {}, got {}", what, i, e, a)))
        return;
    }
  }

  std::shared_ptr<const Program> compile(const Graph& graph, const CompileOptions& options = {}) {
    Result<std::shared_ptr<const Program>> program = backend.compile(graph, options);
    if (!ok(program.status(), "compiling")) return nullptr;
    that(&(*program)->backend() == &backend, "a program's backend() is not what compiled it");
    return std::move(program).value();
  }
  Buffer upload(const Tensor& value) {
    Result<Buffer> buffer = backend.upload(value);
    return ok(buffer.status(), "uploading") ? *buffer : Buffer();
  }
  // The buffer's value, in memory of its own.
  Tensor download(const Buffer& buffer) {
    Result<Tensor> value = backend.download(buffer);
    return ok(value.status(), "downloading") ? value->clone() : Tensor(DType::kF32, {0});
  }

  const Backend& backend;
  Failures failures;
};

// The program on host tensors against the reference kernels on the same.
void compare(Checker& check, const Graph& graph, const std::vector<RefTensor>& inputs, double tolerance,
             const std::string& what) {
  const Result<std::vector<RefTensor>> expected = ops::evaluate_reference(graph, inputs);
  if (!check.ok(expected.status(), what + ": the reference")) return;
  const std::shared_ptr<const Program> program = check.compile(graph);
  if (program == nullptr) return;
  std::vector<Tensor> tensors;
  for (const RefTensor& t : inputs) tensors.push_back(testing::to_tensor(t));
  for (int run = 0; run < 2; ++run) {  // the second run reuses memory
    const Result<std::vector<Tensor>> actual = program->run(tensors);
    if (!check.ok(actual.status(), what)) return;
    for (size_t o = 0; o < actual->size(); ++o)
      check.near((*actual)[o], graph.type(graph.outputs()[o].value), (*expected)[o].data, tolerance,
                 fmt::format("{}, run {}, output {}", what, run, o));
  }
}

Failures buffers(const Backend& backend) {
  Checker check(backend);
  const size_t before = backend.memory_use().in_use;
  for (DType dtype : {DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kI8, DType::kU8, DType::kI32,
                      DType::kI64, DType::kBool})
    for (const Dims& dims : {Dims{}, Dims{3}, Dims{2, 0, 3}, Dims{4, 5}}) {
      const Tensor value(dtype, dims);
      for (int64_t i = 0; i < value.num_elements(); ++i) value.set(i, static_cast<double>(i % 2));
      const Buffer buffer = check.upload(value);
      if (!buffer.defined()) continue;
      check.that(buffer.type() == value.type() && buffer.backend() == &backend, "an uploaded buffer has another type");
      const Tensor back = check.download(buffer);
      check.that(back.type() == value.type() && std::memcmp(back.data(), value.data(), value.num_bytes()) == 0,
                 "what was uploaded as " + to_string(value.type()) + " comes back otherwise");
    }
  {
    const Result<Buffer> made = backend.make_buffer(f32({1000}));
    if (check.ok(made.status(), "make_buffer")) {
      check.that(made->type() == f32({1000}) && made->available(), "make_buffer gives another type");
      const runtime::MemoryUse use = backend.memory_use();
      check.that(use.in_use >= before + 4000, "memory_use() does not count a buffer");
      check.that(use.peak >= use.in_use, "memory_use(): the peak is below what is in use");
    }
  }
  check.that(backend.memory_use().in_use <= before, "memory_use() still counts buffers that are gone");
  check.refuses(backend.upload(Tensor()).status(), {}, "uploading nothing");
  check.refuses(backend.download(Buffer()).status(), {}, "downloading nothing");
  return check.failures;
}

// w <- w + x; y = w * 2 of the old w.
Graph accumulate() {
  Builder b(ops::registry());
  Expr x = b.input("x", f32({3})), w = b.state("w", f32({3}));
  b.output("y", w * 2.0);
  b.update(w, w + x);
  return *b.finish();
}

Failures state(const Backend& backend) {
  Checker check(backend);
  const std::shared_ptr<const Program> program = check.compile(accumulate());
  if (program == nullptr) return check.failures;
  // On the device from run to run.
  StateBuffer w{check.upload(vector({1, 2, 3}))};
  StateBuffer* const places[] = {&w};
  const std::vector<Buffer> x{check.upload(vector({10, 20, 30}))};
  for (int run = 0; run < 3; ++run) {
    const Result<std::vector<Buffer>> out = program->execute(x, places);
    if (!check.ok(out.status(), "running")) return check.failures;
    std::vector<double> old;
    for (double i : {1.0, 2.0, 3.0}) old.push_back(2 * (i + run * 10 * i));
    check.near(check.download((*out)[0]), f32({3}), old, 0, "an output of a state's old value");
  }
  check.near(check.download(w.value), f32({3}), {31, 62, 93}, 0, "state after three runs");
  check.near(check.download(x[0]), f32({3}), {10, 20, 30}, 0, "an input after a run");
  // On host tensors.
  const Tensor host = vector({1, 2, 3});
  check.ok(program->run(std::vector<Tensor>{vector({10, 20, 30}), host}).status(), "running on host tensors");
  check.near(host, f32({3}), {11, 22, 33}, 0, "state on the host after a run");
  // Two states that take each other's value, one read by an output.
  Builder b(ops::registry());
  Expr p = b.state("p", f32({2})), q = b.state("q", f32({2}));
  b.output("p", p);
  b.update(p, q);
  b.update(q, p);
  const std::shared_ptr<const Program> swap = check.compile(*b.finish());
  if (swap == nullptr) return check.failures;
  StateBuffer first{check.upload(vector({1, 2}))}, second{check.upload(vector({3, 4}))};
  StateBuffer* const both[] = {&first, &second};
  const Result<std::vector<Buffer>> out = swap->execute({}, both);
  if (!check.ok(out.status(), "swapping states")) return check.failures;
  check.near(check.download((*out)[0]), f32({2}), {1, 2}, 0, "a state as an output");
  check.near(check.download(first.value), f32({2}), {3, 4}, 0, "the first of two states that swap");
  check.near(check.download(second.value), f32({2}), {1, 2}, 0, "the second of two states that swap");
  return check.failures;
}

// A random counter that a run advances: the same seed gives the same numbers, the next run others.
Failures random_counter(const Backend& backend) {
  Checker check(backend);
  Builder b(ops::registry());
  Expr counter = b.state("random", {DType::kI64, {2}});
  Expr u = b.op("random_uniform", {counter}, {{"dims", Dims{64}}, {"stream", int64_t{0}}});
  b.output("u", u);
  Tensor one(DType::kI64, {2});
  one.as<int64_t>()[0] = 0;
  one.as<int64_t>()[1] = 1;
  b.update(counter, counter + b.constant(one));
  const Result<Graph> graph = b.finish();
  if (!check.ok(graph.status(), "building")) return check.failures;
  const std::shared_ptr<const Program> program = check.compile(*graph);
  if (program == nullptr) return check.failures;
  std::vector<Tensor> draws;
  for (int64_t seed : {7, 7, 8}) {
    const Tensor start = Tensor::zeros(DType::kI64, {2});
    start.as<int64_t>()[0] = seed;
    StateBuffer place{check.upload(start)};
    StateBuffer* const places[] = {&place};
    for (int run = 0; run < 2; ++run) {
      const Result<std::vector<Buffer>> out = program->execute({}, places);
      if (!check.ok(out.status(), "drawing")) return check.failures;
      draws.push_back(check.download((*out)[0]));
    }
    check.that(check.download(place.value).as<int64_t>()[1] == 2, "the counter has not advanced by one a run");
  }
  const auto same = [&](size_t i, size_t k) {
    return std::memcmp(draws[i].data(), draws[k].data(), draws[i].num_bytes()) == 0;
  };
  check.that(same(0, 2) && same(1, 3), "the same seed gives other numbers");
  check.that(!same(0, 1), "the next run gives the same numbers");
  check.that(!same(0, 4), "another seed gives the same numbers");
  // Philox is the same everywhere: equal to the reference kernel in every bit of f32.
  RefTensor start({DType::kI64, {2}});
  start.data = {7, 0};
  const Result<std::vector<RefTensor>> expected = ops::evaluate_reference(*graph, {start}, true);
  if (check.ok(expected.status(), "the reference"))
    check.near(draws[0], f32({64}), (*expected)[0].data, 0, "random numbers against the reference");
  return check.failures;
}

Failures donation(const Backend& backend) {
  Checker check(backend);
  Builder b(ops::registry());
  Expr x = b.input("x", f32({4})), z = b.input("z", f32({4}));
  b.output("y", ops::exp(x) + z);
  const std::shared_ptr<const Program> program = check.compile(*b.finish());
  if (program == nullptr) return check.failures;
  const std::vector<double> expected{1 + 1, std::exp(1.0) + 1, std::exp(2.0) + 1, std::exp(-1.0) + 1};
  const Buffer given = check.upload(vector({0, 1, 2, -1})), kept = check.upload(vector({1, 1, 1, 1}));
  const Result<std::vector<Buffer>> out = program->execute(std::vector<Buffer>{given.donate(), kept}, {});
  if (!check.ok(out.status(), "running on a donated buffer")) return check.failures;
  check.near(check.download((*out)[0]), f32({4}), expected, 1e-5, "what a run makes of a donated buffer");
  check.that(!given.available(), "a donated buffer is still available() after the run");
  check.that(kept.available(), "a buffer that was not donated is gone after the run");
  check.near(check.download(kept), f32({4}), {1, 1, 1, 1}, 0, "a buffer that was not donated");
  check.refuses(program->execute(std::vector<Buffer>{given, kept}, {}).status(), {"'x'", "donated"},
                "running on a buffer that was donated before");
  check.refuses(backend.download(given).status(), {"donated"}, "downloading a donated buffer");
  check.refuses(program->execute(std::vector<Buffer>{kept.donate(), kept}, {}).status(), {"donated"},
                "one buffer twice, once donated");
  check.that(kept.available(), "a run that was refused took a donated buffer");
  return check.failures;
}

// Several programs at once from several threads, some sharing one: each result is as alone.
Failures threads(const Backend& backend) {
  Checker check(backend);
  constexpr int kThreads = 4, kRuns = 25;
  std::vector<std::shared_ptr<const Program>> programs;
  for (int p = 0; p < 2; ++p) {
    Builder b(ops::registry());
    Expr x = b.input("x", f32({8, 8})), w = b.state("w", f32({8, 8}));
    Expr y = ops::matmul(x, w);
    b.output("y", ops::sum(p == 0 ? ops::tanh(y) : y * y, {1}));
    b.update(w, w + 1.0);
    programs.push_back(check.compile(*b.finish()));
    if (programs.back() == nullptr) return check.failures;
  }
  const auto once = [&](const Program& program, int t) -> Result<std::vector<double>> {
    const Tensor w = Tensor::zeros(DType::kF32, {8, 8}), x = Tensor::full(DType::kF32, {8, 8}, 0.01 * (t + 1));
    DS_ASSIGN(const Buffer data, backend.upload(x));
    DS_ASSIGN(const Buffer start, backend.upload(w));
    StateBuffer place{start};
    StateBuffer* const places[] = {&place};
    std::vector<double> seen;
    for (int run = 0; run < kRuns; ++run) {
      DS_ASSIGN(const std::vector<Buffer> out, program.execute(std::span(&data, 1), places));
      DS_ASSIGN(const Tensor y, backend.download(out[0]));
      for (int64_t i = 0; i < y.num_elements(); ++i) seen.push_back(y.at(i));
    }
    return seen;
  };
  std::vector<std::vector<double>> alone;
  for (int t = 0; t < kThreads; ++t) {
    Result<std::vector<double>> values = once(*programs[static_cast<size_t>(t % 2)], t);
    if (!check.ok(values.status(), "running alone")) return check.failures;
    alone.push_back(*values);
  }
  std::vector<Status> status(kThreads);
  std::vector<std::vector<double>> together(kThreads);
  std::vector<std::thread> pool;
  for (int t = 0; t < kThreads; ++t)
    pool.emplace_back([&, t] {
      Result<std::vector<double>> values = once(*programs[static_cast<size_t>(t % 2)], t);
      status[static_cast<size_t>(t)] = values.status();
      if (values.ok()) together[static_cast<size_t>(t)] = *values;
    });
  for (std::thread& thread : pool) thread.join();
  for (size_t t = 0; t < kThreads; ++t) {
    check.ok(status[t], fmt::format("thread {}", t));
    check.that(together[t] == alone[t], fmt::format("thread {} computes otherwise than alone", t));
  }
  // Compiling at once.
  std::vector<std::thread> compilers;
  std::atomic<int> compiled{0};
  for (int t = 0; t < kThreads; ++t)
    compilers.emplace_back([&] { compiled += backend.compile(accumulate(), {}).ok(); });
  for (std::thread& thread : compilers) thread.join();
  check.that(compiled == kThreads, "compiling in several threads at once fails");
  return check.failures;
}

Failures errors(const Backend& backend) {
  Checker check(backend);
  const std::shared_ptr<const Program> program = check.compile(accumulate());
  if (program == nullptr) return check.failures;
  const Buffer right = check.upload(vector({1, 2, 3})), wrong = check.upload(vector({1, 2}));
  StateBuffer w{right}, bad{wrong}, none;
  StateBuffer* const places[] = {&w};
  StateBuffer* const misfit[] = {&bad};
  StateBuffer* const empty[] = {&none};
  check.refuses(program->execute({}, places).status(), {"expected 1 data inputs and 1 of state", "got 0 and 1"},
                "too few inputs");
  check.refuses(program->execute(std::vector<Buffer>{right}, {}).status(), {"got 1 and 0"}, "too few states");
  check.refuses(program->execute(std::vector<Buffer>{wrong}, places).status(), {"'x'", "f32[3]", "f32[2]"},
                "an input of another shape");
  check.refuses(program->execute(std::vector<Buffer>{right}, misfit).status(), {"'w'", "f32[3]", "f32[2]"},
                "a state of another shape");
  check.refuses(program->execute(std::vector<Buffer>{Buffer()}, places).status(), {"'x'"}, "an input that is missing");
  check.refuses(program->execute(std::vector<Buffer>{right}, empty).status(), {"'w'"}, "a state that is missing");
  check.refuses(program->run(std::vector<Tensor>{}).status(), {"expected 2 inputs, got 0"}, "no host tensors");
  const Tensor host = vector({1, 2, 3});
  const Buffer foreign(host.type(), nullptr, host.owner(), host.data());
  check.refuses(program->execute(std::vector<Buffer>{foreign}, places).status(), {"'x'", "another device"},
                "a buffer of another backend");
  check.refuses(backend.download(foreign).status(), {"another device"}, "downloading another backend's buffer");
  CompileOptions options;
  options.disabled_passes = {"no_such_pass"};
  check.refuses(backend.compile(accumulate(), options).status(), {"no_such_pass"}, "disabling an unknown pass");
  options = {};
  options.constants = {{"x", vector({1, 2})}};
  check.refuses(backend.compile(accumulate(), options).status(), {"'x'", "f32[3]", "f32[2]"},
                "a constant of another shape");
  options.constants = {{"w", vector({1, 2, 3})}};
  check.refuses(backend.compile(accumulate(), options).status(), {"'w'", "updates"}, "a state as a constant");
  options.constants = {{"v", vector({1})}};
  check.refuses(backend.compile(accumulate(), options).status(), {"'v'"}, "a constant of no input");
  // What went wrong leaves the program usable.
  const Result<std::vector<Buffer>> out = program->execute(std::vector<Buffer>{right}, places);
  if (check.ok(out.status(), "running after errors"))
    check.near(check.download((*out)[0]), f32({3}), {2, 4, 6}, 0, "a run after errors");
  return check.failures;
}

// Inputs that are constants: not inputs any more, and not the caller's memory.
Failures constants(const Backend& backend) {
  Checker check(backend);
  Builder b(ops::registry());
  Expr x = b.input("x", f32({2, 3})), w = b.state("w", f32({3, 2}));
  b.output("y", ops::matmul(x, w * 2.0));
  const Graph graph = *b.finish();
  CompileOptions options;
  const Tensor weights(DType::kF32, {3, 2});
  for (int64_t i = 0; i < 6; ++i) weights.set(i, static_cast<double>(i));
  options.constants = {{"w", weights}};
  const std::shared_ptr<const Program> program = check.compile(graph, options);
  if (program == nullptr) return check.failures;
  check.that(program->graph().inputs().size() == 1, "a constant is still an input of the program");
  for (int64_t i = 0; i < 6; ++i) weights.set(i, 100);
  const Tensor ones = Tensor::full(DType::kF32, {2, 3}, 1);
  const Result<std::vector<Tensor>> out = program->run(std::vector<Tensor>{ones});
  if (check.ok(out.status(), "running"))
    check.near((*out)[0], f32({2, 2}), {12, 18, 12, 18}, 1e-6, "a product with a constant");
  return check.failures;
}

Failures memory_limit(const Backend& backend) {
  Checker check(backend);
  Builder b(ops::registry());
  Expr x = b.input("x", f32({256, 256}));
  Expr y = ops::matmul(x, x);
  b.output("y", ops::sum(ops::matmul(ops::tanh(y), y)));
  const Graph graph = *b.finish();
  const std::shared_ptr<const Program> program = check.compile(graph);
  if (program == nullptr) return check.failures;
  check.that(program->memory_bytes() >= 256 * 256 * 4, "memory_bytes() does not count the inputs");
  CompileOptions options;
  options.memory_limit = 1000;
  check.refuses(backend.compile(graph, options).status(), {"limit"}, "compiling within 1000 bytes");
  options.memory_limit = size_t{1} << 30;
  check.compile(graph, options);
  // The limit of the process: too little is an error, and lifting it mends it.
  const Tensor value = Tensor::full(DType::kF32, {256, 256}, 0.01);
  backend.set_memory_limit(1000);
  check.refuses(program->run(std::vector<Tensor>{value}).status(), {"limit"}, "running within 1000 bytes");
  backend.set_memory_limit(0);
  check.ok(program->run(std::vector<Tensor>{value}).status(), "running without a limit");
  check.that(backend.memory_bytes() > 0, "memory_bytes() of the device is 0");
  return check.failures;
}

Failures profile(const Backend& backend) {
  Checker check(backend);
  const std::shared_ptr<const Program> program = check.compile(accumulate());
  if (program == nullptr) return check.failures;
  runtime::Profile times;
  const std::vector<Tensor> inputs{vector({1, 2, 3}), vector({1, 2, 3})};
  check.ok(program->run(inputs, &times).status(), "running with a profile");
  check.that(times.runs == 1, "a profile does not count its run");
  check.that(times.seconds.size() == program->report().size(), "a profile has another length than the report");
  for (const runtime::NodeReport& node : program->report())
    check.that(!node.implementation.empty() && node.node >= 0, "the report does not say what runs a node");
  return check.failures;
}

Failures whole(const Backend& backend, Failures (*of)(const Backend&, const std::string&)) {
  Failures all;
  for (const std::string& op : ops::registry().names())
    for (std::string& failure : of(backend, op)) all.push_back(std::move(failure));
  return all;
}

}  // namespace

Failures check_forward(const Backend& backend, const std::string& op) {
  Checker check(backend);
  const OpDef& def = *ops::registry().find(op);
  for (const Sample& sample : def.samples.value) {
    const Result<Graph> graph = testing::sample_graph(def, sample);
    if (check.ok(graph.status(), op + "/" + sample.name))
      compare(check, *graph, testing::sample_inputs(sample), sample.tolerance, op + "/" + sample.name);
  }
  return check.failures;
}

Failures check_gradient(const Backend& backend, const std::string& op) {
  Checker check(backend);
  const OpDef& def = *ops::registry().find(op);
  if (!def.gradient.value.differentiable()) return {};
  for (const Sample& sample : def.samples.value) {
    const std::string what = "gradient of " + op + "/" + sample.name;
    const Result<Graph> graph = testing::sample_graph(def, sample);
    if (!check.ok(graph.status(), what)) continue;
    const Result<Graph> derivative = passes::vjp(*graph);
    // Some outputs have no derivative of their own (second derivatives), which no backend can change.
    if (!derivative.ok() && !sample.check_gradient) continue;
    if (!check.ok(derivative.status(), what)) continue;
    if (derivative->outputs().empty()) continue;  // no float inputs
    std::vector<RefTensor> inputs = testing::sample_inputs(sample);
    std::mt19937 random(99);
    for (const Output& output : graph->outputs()) {
      RefTensor seed(graph->type(output.value));
      if (!is_float(seed.dtype)) continue;
      for (double& x : seed.data) x = static_cast<float>(std::normal_distribution<double>()(random));
      inputs.push_back(std::move(seed));
    }
    // Gradients sum over many elements, so rounding adds up.
    compare(check, *derivative, inputs, std::max(sample.tolerance, 2e-5) * 10, what);
  }
  return check.failures;
}

const std::vector<Check>& checks() {
  static const std::vector<Check> all = {
      {"Buffers", "upload, download, make_buffer and memory_use", buffers},
      {"State", "updates in place from run to run", state},
      {"RandomCounter", "draws by seed and step, equal to the reference", random_counter},
      {"Donation", "donated buffers are taken, others kept", donation},
      {"Threads", "several programs from several threads", threads},
      {"Errors", "wrong operands and options", errors},
      {"Constants", "inputs bound for good", constants},
      {"MemoryLimit", "of a program, of the process", memory_limit},
      {"Profile", "times by node", profile},
      {"Forward", "every op sample", [](const Backend& b) { return whole(b, check_forward); }},
      {"Gradient", "every op sample's gradient", [](const Backend& b) { return whole(b, check_gradient); }},
  };
  return all;
}

}  // namespace deepseek::conformance
