// scan: the body compiles once, like any graph, and runs in a loop on one arena, after what depends on consts alone.
// Slices of the xs and stacked results
// are read and written where they lie; a carry is written into its place among the saved carries, or into one of two
// buffers in turn, so that no step copies it.
#include <algorithm>
#include <cstring>

#include "backends/cpu/kernel.h"

namespace deepseek::backends::cpu {

using graph::Graph;

namespace {

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

class ScanKernel : public Kernel {
 public:
  ScanKernel(const NodeInfo& node, const Graph& graph, std::shared_ptr<const Body> body)
      : body_(std::move(body)),
        carries_(static_cast<size_t>(node.context.integer("num_carry"))),
        xs_(static_cast<size_t>(node.context.integer("num_xs"))),
        steps_(node.context.in(carries_).dims[0]),
        reverse_(node.context.flag("reverse")),
        save_(node.context.flag("save_carries")) {
    for (const graph::Input& i : graph.inputs()) in_bytes_.push_back(graph.type(i.value).num_bytes());
    scratch_ = aligned(body_->arena_bytes());
    for (const graph::Output& o : graph.outputs()) {
      out_bytes_.push_back(graph.type(o.value).num_bytes());
      buffers_.push_back(scratch_);
      scratch_ += aligned(out_bytes_.back()) * (buffers_.size() <= carries_ ? 2 : 1);
    }
  }

  size_t scratch_bytes() const override { return scratch_; }
  std::string detail() const override {
    std::string slow;
    for (const runtime::NodeReport& r : body_->report())
      if (r.implementation.starts_with("reference")) slow += (slow.empty() ? ", on reference: " : " ") + r.op;
    return fmt::format("{} kernels a step{}", body_->report().size(), slow);
  }

  Status run(const KernelArgs& args) const override {
    char* const scratch = static_cast<char*>(args.scratch);
    const size_t outputs = out_bytes_.size();
    std::vector<void*> in, out(outputs);
    for (const void* p : args.in) in.push_back(const_cast<void*>(p));  // the body has no updates, so it only reads
    const auto saved = [&](size_t carry, int64_t k) -> char* {
      void* const all = save_ ? args.out[outputs + carry] : nullptr;
      return all == nullptr ? nullptr : static_cast<char*>(all) + static_cast<size_t>(at(k)) * out_bytes_[carry];
    };
    for (size_t i = 0; i < carries_; ++i) {
      if (steps_ == 0 && args.out[i] != nullptr) std::memcpy(args.out[i], args.in[i], out_bytes_[i]);
      if (steps_ > 0 && saved(i, 0) != nullptr) std::memcpy(saved(i, 0), args.in[i], out_bytes_[i]);
    }
    if (steps_ > 0) DS_TRY(body_->prepare(in, scratch));
    for (int64_t k = 0; k < steps_; ++k) {
      const auto t = static_cast<size_t>(at(k));
      for (size_t i = carries_; i < carries_ + xs_; ++i)
        in[i] = static_cast<char*>(const_cast<void*>(args.in[i])) + t * in_bytes_[i];
      for (size_t o = 0; o < outputs; ++o) {
        char* const buffer = scratch + buffers_[o];
        if (o < carries_) {
          out[o] = k + 1 == steps_ ? args.out[o] : saved(o, k + 1);
          if (out[o] == nullptr) out[o] = buffer + static_cast<size_t>(k % 2) * aligned(out_bytes_[o]);
        } else {
          out[o] = args.out[o] == nullptr ? buffer : static_cast<char*>(args.out[o]) + t * out_bytes_[o];
        }
      }
      DS_TRY(body_->run_body(in, out, scratch));
      for (size_t i = 0; i < carries_; ++i) in[i] = out[i];
    }
    return {};
  }

 private:
  int64_t at(int64_t k) const { return reverse_ ? steps_ - 1 - k : k; }

  std::shared_ptr<const Body> body_;
  size_t carries_, xs_;
  int64_t steps_;
  bool reverse_, save_;
  std::vector<size_t> in_bytes_, out_bytes_;  // of the body's operands
  std::vector<size_t> buffers_;               // offsets in scratch: two for a carry, one for a result nobody reads
  size_t scratch_ = 0;
};

}  // namespace

KernelOrError make_scan(const NodeInfo& node) {
  const Graph& graph = *node.context.attrs->get<graph::GraphRef>("body");
  std::vector<bool> fixed(graph.inputs().size(), true);  // the consts
  std::fill_n(fixed.begin(), node.context.integer("num_carry") + node.context.integer("num_xs"), false);
  DS_ASSIGN(std::shared_ptr<const Body> body,
            compile_body(graph, node.options == nullptr ? runtime::CompileOptions() : *node.options, fixed));
  return std::unique_ptr<Kernel>(std::make_unique<ScanKernel>(node, graph, std::move(body)));
}

}  // namespace deepseek::backends::cpu
