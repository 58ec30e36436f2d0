// Convolution forward, both gradients and transposed, by oneDNN. The primitive chooses its layouts; plain tensors are
// reordered on the way in and out.
#include "ops/conv.h"

#include "backends/cpu/onednn.h"

namespace deepseek::backends::cpu {

using graph::Dims;

KernelOrRefusal make_onednn_conv(const NodeInfo& node) {
  DS_ASSIGN(const dnnl::memory::data_type dtype, onednn_dtype(node.context.in(0).dtype));
  DS_ASSIGN(const ops::ConvShape s, ops::conv_geometry(node.context));
  if (s.batch == 0 || s.in_channels == 0 || s.out_channels == 0) return refuse("an operand is empty");
  return onednn_guard([&]() -> KernelOrRefusal {
    using dnnl::memory;
    const std::string& op = node.context.op->name.value;
    const dnnl::engine& e = onednn_engine();
    // Grouped weights have the group as an axis of its own; the bytes are the same.
    Dims w_dims = s.w_dims();
    if (s.groups > 1) {
      w_dims[0] /= s.groups;
      w_dims.insert(w_dims.begin(), s.groups);
    }
    Dims dilation = s.window.dilation;
    for (int64_t& d : dilation) --d;  // oneDNN counts the zeros between taps
    const auto any = [&](const Dims& d) { return memory::desc(d, dtype, memory::format_tag::any); };
    const auto x = onednn_plain(s.x_dims(), dtype), w = onednn_plain(w_dims, dtype),
               y = onednn_plain(s.y_dims(), dtype);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const bool forward_only = op == "conv";
    // The window may not cover the input's end: oneDNN wants the high padding that gives exactly our output size.
    Dims high = s.window.padding_high;
    for (size_t i = 0; i < high.size(); ++i)
      high[i] = (s.output[i] - 1) * s.window.stride[i] + s.window.extent(i) - s.input[i] - s.window.padding_low[i];
    const dnnl::convolution_forward::primitive_desc forward(
        e, forward_only ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training,
        dnnl::algorithm::convolution_direct, any(s.x_dims()), any(w_dims), any(s.y_dims()), s.window.stride, dilation,
        s.window.padding_low, high, attr);
    std::unique_ptr<OnednnKernel> kernel;
    if (op == "conv") {
      DS_TRY(require_fast(dtype, forward.impl_info_str()));
      kernel = std::make_unique<OnednnKernel>(dnnl::convolution_forward(forward), forward.impl_info_str());
      kernel->add_input(DNNL_ARG_SRC, x, forward.src_desc());
      kernel->add_input(DNNL_ARG_WEIGHTS, w, forward.weights_desc());
      kernel->add_output(DNNL_ARG_DST, y, forward.dst_desc());
      kernel->set_scratchpad(forward.scratchpad_desc());
    } else if (op == "conv_weight_grad") {
      const dnnl::convolution_backward_weights::primitive_desc pd(
          e, dnnl::algorithm::convolution_direct, any(s.x_dims()), any(w_dims), any(s.y_dims()), s.window.stride,
          dilation, s.window.padding_low, high, forward, attr);
      DS_TRY(require_fast(dtype, pd.impl_info_str()));
      kernel = std::make_unique<OnednnKernel>(dnnl::convolution_backward_weights(pd), pd.impl_info_str());
      kernel->add_input(DNNL_ARG_SRC, x, pd.src_desc());
      kernel->add_input(DNNL_ARG_DIFF_DST, y, pd.diff_dst_desc());
      kernel->add_output(DNNL_ARG_DIFF_WEIGHTS, w, pd.diff_weights_desc());
      kernel->set_scratchpad(pd.scratchpad_desc());
    } else {  // conv_input_grad and conv_transpose: from y and w to x
      const dnnl::convolution_backward_data::primitive_desc pd(e, dnnl::algorithm::convolution_direct, any(s.x_dims()),
                                                               any(w_dims), any(s.y_dims()), s.window.stride, dilation,
                                                               s.window.padding_low, high, forward, attr);
      DS_TRY(require_fast(dtype, pd.impl_info_str()));
      kernel = std::make_unique<OnednnKernel>(dnnl::convolution_backward_data(pd), pd.impl_info_str());
      kernel->add_input(DNNL_ARG_DIFF_DST, y, pd.diff_dst_desc());
      kernel->add_input(DNNL_ARG_WEIGHTS, w, pd.weights_desc());
      kernel->add_output(DNNL_ARG_DIFF_SRC, x, pd.diff_src_desc());
      kernel->set_scratchpad(pd.scratchpad_desc());
    }
    return std::unique_ptr<Kernel>(std::move(kernel));
  });
}

}  // namespace deepseek::backends::cpu
