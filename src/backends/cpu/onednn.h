// The bridge to oneDNN 3: engine, dtypes, memory descriptors for our layouts, errors as refusals.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

#include "backends/cpu/kernel.h"

namespace deepseek::backends::cpu {

const dnnl::engine& onednn_engine();
// A stream per thread that runs programs.
dnnl::stream& onednn_stream();

Result<dnnl::memory::data_type> onednn_dtype(DType dtype);
// Row-major of any rank up to 12.
dnnl::memory::desc onednn_plain(const graph::Dims& dims, dnnl::memory::data_type dtype);

// An argument that a primitive wants in a layout of its own: reordered through scratch memory when it differs, once
// before many runs if it is fixed.
struct OnednnOperand {
  int argument = 0;  // DNNL_ARG_...
  dnnl::memory::desc ours, theirs;
  dnnl::reorder reorder;  // empty if ours == theirs
  bool fixed = false;
  size_t offset = 0;  // of theirs in scratch, or in what is prepared
};

// One primitive with operands from the node's inputs and outputs.
class OnednnKernel : public Kernel {
 public:
  explicit OnednnKernel(dnnl::primitive primitive, std::string detail)
      : primitive_(std::move(primitive)), detail_(std::move(detail)) {}
  // The node's next input, and whether it is fixed.
  void add_input(int argument, const dnnl::memory::desc& ours, const dnnl::memory::desc& theirs, bool fixed = false) {
    add(inputs_, argument, ours, theirs, true, fixed);
  }
  void add_output(int argument, const dnnl::memory::desc& ours, const dnnl::memory::desc& theirs) {
    add(outputs_, argument, ours, theirs, false, false);
  }
  void set_scratchpad(const dnnl::memory::desc& md);

  Status run(const KernelArgs& args) const override;
  size_t scratch_bytes() const override { return scratch_; }
  Status prepare(const KernelArgs& args) const override;
  size_t prepared_bytes() const override { return prepared_; }
  bool reads(int in) const override {
    const auto i = static_cast<size_t>(in);
    return i >= inputs_.size() || !inputs_[i].fixed || !inputs_[i].reorder;
  }
  std::string detail() const override { return detail_; }

 private:
  void add(std::vector<OnednnOperand>& list, int argument, const dnnl::memory::desc& ours,
           const dnnl::memory::desc& theirs, bool input, bool fixed);

  dnnl::primitive primitive_;
  std::string detail_;
  std::vector<OnednnOperand> inputs_, outputs_;
  dnnl::memory::desc scratchpad_;
  size_t scratchpad_offset_ = 0, scratch_ = 0, prepared_ = 0;
};

// Calls make(), of a result, and turns oneDNN's exceptions into errors with its message.
template <class F>
auto onednn_guard(F make) -> decltype(make()) {
  try {
    return make();
  } catch (const dnnl::error& e) {
    return internal_error("onednn: {}", e.what());
  }
}

// Without instructions for bf16, oneDNN offers plain loops or emulates; f32 with conversions around it is faster then.
// Which loops it has for bf16 only its descriptor tells: `implementation` makes that and gives its name.
Status require_bf16_instructions();
Status require_vectors(const std::string& implementation);
template <class F>
Status onednn_is_fast(DType dtype, F implementation) {
  if (dtype == DType::kF32) return {};
  DS_TRY(require_bf16_instructions());
  DS_ASSIGN(const std::string name, implementation());
  return require_vectors(name);
}

}  // namespace deepseek::backends::cpu
