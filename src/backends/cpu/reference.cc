// The last entry of every list: what the op means, by its reference kernel or by those of its decomposition, with
// elements widened to double. Slow, takes all dtypes and sizes.
#include <cstring>

#include "backends/cpu/kernel.h"
#include "ops/interpreter.h"

namespace deepseek::backends::cpu {

using namespace graph;

KernelOrError make_reference(const NodeInfo& node) {
  return make_kernel([node, attrs = *node.context.attrs](const KernelArgs& args) -> Status {
    OpContext context = node.context;
    context.attrs = &attrs;
    std::vector<RefTensor> in;
    for (size_t i = 0; i < args.in.size(); ++i) {
      RefTensor& t = in.emplace_back(context.in(i));
      for (size_t j = 0; j < t.data.size(); ++j)
        t.data[j] = load_as_double(t.dtype, args.in[i], static_cast<int64_t>(j));
    }
    DS_ASSIGN(const std::vector<RefTensor> out, ops::evaluate_node(context, std::move(in), node.outputs));
    for (size_t i = 0; i < out.size(); ++i)
      if (args.out[i] != nullptr)
        for (size_t j = 0; j < out[i].data.size(); ++j)
          store_from_double(out[i].dtype, args.out[i], static_cast<int64_t>(j), out[i].data[j]);
    return {};
  });
}

}  // namespace deepseek::backends::cpu
