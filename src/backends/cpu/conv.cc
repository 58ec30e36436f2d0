// Convolution forward, both gradients and transposed, by oneDNN. The primitive chooses its layouts; plain tensors are
// reordered on the way in and out.
#include "ops/conv.h"

#include <optional>

#include "backends/cpu/onednn.h"

namespace deepseek::backends::cpu {

using graph::Dims;

namespace {

// What a convolution is made of: descriptors of its primitive, and where the node's operands go.
struct Described {
  dnnl::memory::desc x, w, y;  // ours
  std::optional<dnnl::convolution_forward::primitive_desc> forward;
  std::optional<dnnl::convolution_backward_weights::primitive_desc> weights;
  std::optional<dnnl::convolution_backward_data::primitive_desc> data;

  std::string implementation() const {
    return data ? data->impl_info_str() : weights ? weights->impl_info_str() : forward->impl_info_str();
  }
};

Result<Described> describe(const NodeInfo& node) {
  DS_ASSIGN(const dnnl::memory::data_type dtype, onednn_dtype(node.context.in(0).dtype));
  DS_ASSIGN(const ops::ConvShape s, ops::conv_geometry(node.context));
  return onednn_guard([&]() -> Result<Described> {
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
    Described d{onednn_plain(s.x_dims(), dtype), onednn_plain(w_dims, dtype), onednn_plain(s.y_dims(), dtype)};
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const bool forward_only = op == "conv";
    // The window may not cover the input's end: oneDNN wants the high padding that gives exactly our output size.
    Dims high = s.window.padding_high;
    for (size_t i = 0; i < high.size(); ++i)
      high[i] = (s.output[i] - 1) * s.window.stride[i] + s.window.extent(i) - s.input[i] - s.window.padding_low[i];
    d.forward.emplace(e, forward_only ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training,
                      dnnl::algorithm::convolution_direct, any(s.x_dims()), any(w_dims), any(s.y_dims()),
                      s.window.stride, dilation, s.window.padding_low, high, attr);
    if (op == "conv_weight_grad")
      d.weights.emplace(e, dnnl::algorithm::convolution_direct, any(s.x_dims()), any(w_dims), any(s.y_dims()),
                        s.window.stride, dilation, s.window.padding_low, high, *d.forward, attr);
    else if (op != "conv")  // conv_input_grad and conv_transpose: from y and w to x
      d.data.emplace(e, dnnl::algorithm::convolution_direct, any(s.x_dims()), any(w_dims), any(s.y_dims()),
                     s.window.stride, dilation, s.window.padding_low, high, *d.forward, attr);
    return d;
  });
}

}  // namespace

Status takes_onednn_conv(const NodeInfo& node) {
  DS_TRY(onednn_dtype(node.context.in(0).dtype).status());
  DS_ASSIGN(const ops::ConvShape s, ops::conv_geometry(node.context));
  if (s.batch == 0 || s.in_channels == 0 || s.out_channels == 0) return refuse("an operand is empty");
  return onednn_is_fast(node.context.in(0).dtype, [&]() -> Result<std::string> {
    DS_ASSIGN(const Described d, describe(node));
    return d.implementation();
  });
}

KernelOrError make_onednn_conv(const NodeInfo& node) {
  DS_ASSIGN(const Described d, describe(node));
  return onednn_guard([&]() -> KernelOrError {
    std::unique_ptr<OnednnKernel> kernel;
    const auto add = [&](const auto& pd, auto primitive) {
      kernel = std::make_unique<OnednnKernel>(std::move(primitive), pd.impl_info_str());
      kernel->set_scratchpad(pd.scratchpad_desc());
    };
    if (d.weights) {
      add(*d.weights, dnnl::convolution_backward_weights(*d.weights));
      kernel->add_input(DNNL_ARG_SRC, d.x, d.weights->src_desc());
      kernel->add_input(DNNL_ARG_DIFF_DST, d.y, d.weights->diff_dst_desc());
      kernel->add_output(DNNL_ARG_DIFF_WEIGHTS, d.w, d.weights->diff_weights_desc());
    } else if (d.data) {
      add(*d.data, dnnl::convolution_backward_data(*d.data));
      kernel->add_input(DNNL_ARG_DIFF_DST, d.y, d.data->diff_dst_desc());
      kernel->add_input(DNNL_ARG_WEIGHTS, d.w, d.data->weights_desc());
      kernel->add_output(DNNL_ARG_DIFF_SRC, d.x, d.data->diff_src_desc());
    } else {
      add(*d.forward, dnnl::convolution_forward(*d.forward));
      kernel->add_input(DNNL_ARG_SRC, d.x, d.forward->src_desc());
      kernel->add_input(DNNL_ARG_WEIGHTS, d.w, d.forward->weights_desc());
      kernel->add_output(DNNL_ARG_DST, d.y, d.forward->dst_desc());
    }
    return std::unique_ptr<Kernel>(std::move(kernel));
  });
}

}  // namespace deepseek::backends::cpu
