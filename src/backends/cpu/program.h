// A graph compiled for the CPU: its nodes' kernels in order, and where each value's bytes lie. How it comes about:
// compile.cc (passes, what is computed ahead, the memory limit), select_kernels.cc, place_values.cc.
// Test: tests/backends_cpu/program_test.cc
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/kernel.h"
#include "passes/driver.h"
#include "passes/predicates.h"
#include "runtime/backend.h"

namespace deepseek::backends::cpu {

// Where a value's bytes live during a run.
struct Place {
  enum Kind { kNone, kInput, kOutput, kConstant, kArena } kind = kNone;
  size_t index = 0;  // input, output or constant number; arena: byte offset
};

struct Step {
  std::unique_ptr<Kernel> kernel;
  int32_t node = 0;
  std::vector<graph::Value> in, out;
  size_t scratch = 0, prepared = 0;  // arena offsets
  graph::Tensor own;                 // of a program that is no body: what is prepared, of constants
  bool once = false;                 // runs in prepare(), as it reads nothing but fixed values
};

class CpuProgram : public runtime::Program, public Body {
 public:
  CpuProgram() = default;
  ~CpuProgram() override;
  const graph::Graph& graph() const override { return graph_; }
  size_t arena_bytes() const override { return arena_bytes_; }
  size_t memory_bytes() const override;
  std::vector<std::string> notes() const override { return notes_; }
  std::vector<runtime::NodeReport> report() const override { return report_; }
  const runtime::Backend& backend() const override;
  Result<std::vector<runtime::Buffer>> execute(std::span<const runtime::Buffer> data,
                                               std::span<runtime::StateBuffer* const> state,
                                               runtime::Profile* profile) const override;
  Status run_body(std::span<void* const> inputs, std::span<void* const> outputs, void* arena) const override {
    return run_steps(inputs, outputs, arena, nullptr);
  }
  Status prepare(std::span<void* const> inputs, void* arena) const override;
  // `fixed` is for bodies: which inputs stay the same from prepare() on.
  Status build(const graph::Graph& graph, const runtime::CompileOptions& options,
               const std::vector<bool>* fixed = nullptr);

 private:
  Result<std::vector<runtime::Buffer>> execute_checked(std::span<const runtime::Buffer> data,
                                                       std::span<runtime::StateBuffer* const> state,
                                                       runtime::Profile* profile) const;
  Status run_steps(std::span<void* const> inputs, std::span<void* const> outputs, void* arena,
                   runtime::Profile* profile) const;
  void find_fixed(const std::vector<bool>& inputs);
  static Result<graph::Graph> precompute(const graph::Graph& graph, const runtime::CompileOptions& options);
  Status choose_kernels(const runtime::CompileOptions& options);
  Status prepare_constants();
  void plan(const runtime::CompileOptions& options);
  Status choose_and_plan(const runtime::CompileOptions& options, const std::vector<bool>* fixed);
  Status shrink(const runtime::CompileOptions& options, const passes::PassDriver& driver);
  Status noted(Status status, const Step& step) const;

  struct Copy {  // after the steps: a state or output that could not be produced in its place
    graph::Value from;
    bool to_output;
    size_t index;
  };

  graph::Graph graph_;
  std::vector<Step> steps_;
  std::vector<Place> places_;  // by value id
  bool is_body_ = false;       // prepare() is called before runs
  std::vector<bool> fixed_;    // by value id: constants, and in a body what is the same from prepare() on
  std::vector<graph::Tensor> constants_;
  std::vector<Copy> copies_;
  std::vector<runtime::NodeReport> report_;
  std::vector<std::string> notes_;
  size_t arena_bytes_ = 0;
  bool pooled_ = false;       // known to the pool of arenas
  mutable std::mutex mutex_;  // of outputs_
  // The latest outputs: where nobody else holds one any more, the next run writes it again, since fresh memory costs
  // more than many a kernel.
  mutable std::vector<graph::Tensor> outputs_;
};

using passes::is_view;

// The value of v if it is a constant, or a view of one.
std::optional<graph::Tensor> constant_value(const graph::Graph& graph, graph::Value v);

}  // namespace deepseek::backends::cpu
