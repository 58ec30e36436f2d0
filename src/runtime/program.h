// A compiled graph. Programs are immutable and re-entrant: each run takes an arena of its own from its backend's pool,
// so one program serves many threads. Test: tests/backends_cpu/program_test.cc, tests/conformance
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/tensor.h"
#include "passes/driver.h"
#include "runtime/buffer.h"

namespace deepseek::runtime {

// What compilation decided for one node; `deepseek explain` prints it.
struct NodeReport {
  std::string scope, op, implementation, types;
  std::vector<std::string> refusals;  // "onednn: dtype i32 is not supported"
  int32_t node = -1;                  // which of Program::graph().nodes()
};

// Where the time of runs went; summed over all runs that were given it.
struct Profile {
  int64_t runs = 0;
  std::vector<double> seconds;  // by node, as in Program::report()
  std::vector<double> starts;   // by node: seconds since the last run began
  double copies = 0;            // seconds for states and outputs that no node could write in their place
};

class Program {
 public:
  virtual ~Program() = default;
  // The graph as it runs: after all passes.
  virtual const graph::Graph& graph() const = 0;
  // What compiled it; buffers are made and read there.
  virtual const Backend& backend() const = 0;
  // Runs on the device. `data` are the graph's data inputs in order, `state` the places of its state inputs in order,
  // which hold the next value afterwards; on an error they may be partly updated. Returns the outputs in order. Wrong
  // operands are an error that names the input (check_operands). With a profile, each node is timed.
  virtual Result<std::vector<Buffer>> execute(std::span<const Buffer> data, std::span<StateBuffer* const> state,
                                              Profile* profile = nullptr) const = 0;
  // The same on host tensors, all inputs in order; those of state are overwritten (run_on_host, runtime/backend.h).
  Result<std::vector<graph::Tensor>> run(std::span<const graph::Tensor> inputs, Profile* profile = nullptr) const;
  virtual size_t arena_bytes() const = 0;
  // Of a run: inputs (state among them), outputs, constants and the arena.
  virtual size_t memory_bytes() const = 0;
  // What compilation did to the whole that a user should know, in sentences.
  virtual std::vector<std::string> notes() const { return {}; }
  virtual std::vector<NodeReport> report() const = 0;
};

// What a device can do at most, measured: the yardstick of profiles.
struct Peak {
  double flops = 0;    // f32 operations a second, a multiply-add as two
  double bytes = 0;    // a second, read and written, to memory beyond the caches
  std::string device;  // "avx512, 2 threads"
};

struct CompileOptions {
  std::vector<std::string> disabled_passes;           // by name, e.g. "simplify"; an unknown one is an error
  std::vector<std::string> disabled_implementations;  // by name, e.g. "onednn"
  passes::PassObserver observe = {};                  // sees each pass that the graph goes through
  // Of several fast implementations that take a node: the first of the ordered list, or the fastest as measured on this
  // machine, which is remembered there.
  bool measure_kernels = false;
  // Inputs by name that have this value in every run: they are no inputs of the program, which computes ahead what it
  // can, weights in a kernel's layout for instance. Later changes of the tensors do not reach it.
  std::map<std::string, graph::Tensor> constants;
  // Of Program::memory_bytes(); 0 is none. Where more would be needed, values are computed again instead of being kept
  // (passes/recompute.h); an error where that does not suffice.
  size_t memory_limit = 0;
};

}  // namespace deepseek::runtime
