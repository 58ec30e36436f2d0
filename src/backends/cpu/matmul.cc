// Matrix products: oneDNN, any batch, transposition and broadcasting by strides.
#include "backends/cpu/onednn.h"

namespace deepseek::backends::cpu {

using graph::Dims;
using graph::TensorType;

namespace {

// Rows from which on it pays to put the other operand into oneDNN's own layout in each run.
constexpr int64_t kManyRows = 256;

// One product for all of a's batches, where b has none.
void flatten(Dims& a, Dims& y) {
  const int64_t k = a.back(), n = y.back();
  y = {graph::product(y) / n, n};
  a = {y[0], k};
}

}  // namespace

namespace {

struct Described {
  dnnl::memory::desc a, b, dst;  // ours
  dnnl::matmul::primitive_desc pd;
};

Result<Described> describe(const NodeInfo& node) {
  DS_ASSIGN(const dnnl::memory::data_type dtype, onednn_dtype(node.context.in(0).dtype));
  const bool transpose_a = node.context.flag("transpose_a"), transpose_b = node.context.flag("transpose_b");
  Dims a_dims = node.context.in(0).dims, b_dims = node.context.in(1).dims, y_dims = node.outputs[0].dims;
  if (b_dims.size() == 2 && a_dims.size() == y_dims.size() && !transpose_a) flatten(a_dims, y_dims);
  return onednn_guard([&]() -> Result<Described> {
    // Leading ones give both operands y's rank; a transposition swaps the last two strides.
    const auto describe = [&](const Dims& shape, bool transposed) {
      Dims dims(y_dims.size() - shape.size(), 1);
      dims.insert(dims.end(), shape.begin(), shape.end());
      Dims strides = graph::contiguous_strides(dims);
      if (transposed) {
        std::swap(dims[dims.size() - 1], dims[dims.size() - 2]);
        std::swap(strides[strides.size() - 1], strides[strides.size() - 2]);
      }
      return dnnl::memory::desc(dims, dtype, strides);
    };
    const auto a = describe(a_dims, transpose_a), b = describe(b_dims, transpose_b);
    const auto dst = onednn_plain(y_dims, dtype);
    const bool own_layout = y_dims.size() == 2 && (node.is_fixed(1) || y_dims[0] >= kManyRows);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const auto any = dnnl::memory::desc(b.get_dims(), dtype, dnnl::memory::format_tag::any);
    return Described{a, b, dst, dnnl::matmul::primitive_desc(onednn_engine(), a, own_layout ? any : b, dst, attr)};
  });
}

}  // namespace

Status takes_onednn_matmul(const NodeInfo& node) {
  DS_TRY(onednn_dtype(node.context.in(0).dtype).status());
  if (node.outputs[0].num_elements() == 0 || node.context.in(0).num_elements() == 0)
    return refuse("an operand is empty");
  if (node.outputs[0].rank() > 12) return refuse("rank above 12");
  return onednn_is_fast(node.context.in(0).dtype, [&]() -> Result<std::string> {
    DS_ASSIGN(const Described d, describe(node));
    return std::string(d.pd.impl_info_str());
  });
}

KernelOrError make_onednn_matmul(const NodeInfo& node) {
  DS_ASSIGN(const Described d, describe(node));
  return onednn_guard([&]() -> KernelOrError {
    auto kernel = std::make_unique<OnednnKernel>(dnnl::matmul(d.pd), d.pd.impl_info_str());
    kernel->add_input(DNNL_ARG_SRC, d.a, d.pd.src_desc());
    kernel->add_input(DNNL_ARG_WEIGHTS, d.b, d.pd.weights_desc(), node.is_fixed(1));
    kernel->add_output(DNNL_ARG_DST, d.dst, d.pd.dst_desc());
    kernel->set_scratchpad(d.pd.scratchpad_desc());
    return std::unique_ptr<Kernel>(std::move(kernel));
  });
}

}  // namespace deepseek::backends::cpu
