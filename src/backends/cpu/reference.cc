// The last entry of every list: the op's reference kernel, with elements widened to double. Slow, takes all dtypes.
#include <cstring>

#include "backends/cpu/kernel.h"

namespace deepseek::backends::cpu {

using namespace graph;

Status takes_reference(const NodeInfo& node) {
  return node.context.op->reference.value.fn() ? Status() : refuse("has no reference kernel, only a decomposition");
}

KernelOrError make_reference(const NodeInfo& node) {
  const ReferenceFn& fn = node.context.op->reference.value.fn();
  return make_kernel([node, attrs = *node.context.attrs, &fn](const KernelArgs& args) -> Status {
    OpContext context = node.context;
    context.attrs = &attrs;
    std::vector<RefTensor> in, out;
    for (size_t i = 0; i < args.in.size(); ++i) {
      RefTensor& t = in.emplace_back(context.in(i));
      for (size_t j = 0; j < t.data.size(); ++j)
        t.data[j] = load_as_double(t.dtype, args.in[i], static_cast<int64_t>(j));
    }
    for (const TensorType& type : node.outputs) out.emplace_back(type);
    DS_TRY(fn(context, in, out));
    for (size_t i = 0; i < out.size(); ++i)
      if (args.out[i] != nullptr)
        for (size_t j = 0; j < out[i].data.size(); ++j)
          store_from_double(out[i].dtype, args.out[i], static_cast<int64_t>(j), out[i].data[j]);
    return {};
  });
}

}  // namespace deepseek::backends::cpu
