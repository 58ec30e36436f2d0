// Matrix products: oneDNN, any batch, transposition and broadcasting by strides.
#include "backends/cpu/onednn.h"

namespace deepseek::backends::cpu {

using graph::Dims;
using graph::TensorType;

KernelOrRefusal make_onednn_matmul(const NodeInfo& node) {
  DS_ASSIGN(const dnnl::memory::data_type dtype, onednn_dtype(node.context.in(0).dtype));
  const TensorType& y = node.outputs[0];
  if (y.num_elements() == 0 || node.context.in(0).num_elements() == 0) return refuse("an operand is empty");
  if (y.rank() > 12) return refuse("rank above 12");
  return onednn_guard([&]() -> KernelOrRefusal {
    // Leading ones give both operands y's rank; a transposition swaps the last two strides.
    const auto describe = [&](const TensorType& t, bool transposed) {
      Dims dims(static_cast<size_t>(y.rank() - t.rank()), 1);
      dims.insert(dims.end(), t.dims.begin(), t.dims.end());
      Dims strides = graph::contiguous_strides(dims);
      if (transposed) {
        std::swap(dims[dims.size() - 1], dims[dims.size() - 2]);
        std::swap(strides[strides.size() - 1], strides[strides.size() - 2]);
      }
      return dnnl::memory::desc(dims, dtype, strides);
    };
    const auto a = describe(node.context.in(0), node.context.flag("transpose_a"));
    const auto b = describe(node.context.in(1), node.context.flag("transpose_b"));
    const auto dst = onednn_plain(y.dims, dtype);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    // Weights that never change may lie as the primitive likes best.
    const bool known = node.constants.size() > 1 && node.constants[1];
    const auto wanted = known ? dnnl::memory::desc(b.get_dims(), dtype, dnnl::memory::format_tag::any) : b;
    const dnnl::matmul::primitive_desc pd(onednn_engine(), a, wanted, dst, attr);
    DS_TRY(require_fast(dtype, pd.impl_info_str()));
    auto kernel = std::make_unique<OnednnKernel>(dnnl::matmul(pd), pd.impl_info_str());
    kernel->add_input(DNNL_ARG_SRC, a, pd.src_desc());
    if (known && b != pd.weights_desc())
      kernel->add_packed_input(DNNL_ARG_WEIGHTS, b, pd.weights_desc(), *node.constants[1]);
    else
      kernel->add_input(DNNL_ARG_WEIGHTS, b, pd.weights_desc());
    kernel->add_output(DNNL_ARG_DST, dst, pd.dst_desc());
    kernel->set_scratchpad(pd.scratchpad_desc());
    return std::unique_ptr<Kernel>(std::move(kernel));
  });
}

}  // namespace deepseek::backends::cpu
