// Element-wise ops, composites of them, sums, and fused groups of these: one pass over memory, see tile_program.h.
#include <algorithm>

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_program.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

class ElementwiseKernel : public Kernel {
 public:
  explicit ElementwiseKernel(TileProgram program) : program_(std::move(program)) {
    grain_ = std::max<int64_t>(program_.unit(), kGrain / program_.work());
    // Where there are sums, the parts don't depend on the number of threads, so that the result doesn't either.
    const int64_t sums = program_.num_sums();
    if (sums > 0) parts_ = std::clamp<int64_t>(program_.size() / std::max(kGrain / 4, 16 * sums), 1, kMostParts);
  }

  Status run(const KernelArgs& args) const override {
    const int64_t unit = program_.unit(), units = program_.size() / unit;
    if (parts_ == 0) {
      parallel_for(units, std::max<int64_t>(1, grain_ / unit), [&](int64_t begin, int64_t end) {
        program_.run(args.in, args.out, begin * unit, end * unit, nullptr);
      });
      return {};
    }
    auto* sums = static_cast<double*>(args.scratch);
    const int64_t count = program_.num_sums();
    std::fill_n(sums, parts_ * count, 0.0);
    const int64_t grain = std::max<int64_t>(1, parts_ * grain_ / program_.size());
    parallel_for(parts_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        program_.run(args.in, args.out, units * p / parts_ * unit, units * (p + 1) / parts_ * unit, sums + p * count);
    });
    for (int64_t p = 1; p < parts_; ++p)
      for (int64_t i = 0; i < count; ++i) sums[i] += sums[p * count + i];
    program_.store(sums, args.out);
    return {};
  }

  size_t scratch_bytes() const override { return static_cast<size_t>(parts_ * program_.num_sums()) * sizeof(double); }
  bool in_place(int out, int in) const override { return program_.in_place(out, in); }
  std::string detail() const override { return fmt::format("{} tile ops", program_.num_instructions()); }

 private:
  static constexpr int64_t kGrain = 32768;  // cheap operations per thread below which a second thread does not pay
  static constexpr int64_t kMostParts = 64;

  TileProgram program_;
  int64_t grain_ = kGrain, parts_ = 0;
};

}  // namespace

KernelOrRefusal make_elementwise(const NodeInfo& node) {
  DS_ASSIGN(const Graph body, body_of(node));
  DS_ASSIGN(TileProgram program, TileProgram::compile(body));
  if (program.size() == 0) return refuse("an empty result");
  return std::unique_ptr<Kernel>(new ElementwiseKernel(std::move(program)));
}

}  // namespace deepseek::backends::cpu
