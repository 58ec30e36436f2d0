// Which implementations an op has on the CPU, fastest first. Order is by measurement; "reference" ends every list.
#include <algorithm>

#include "backends/cpu/kernel.h"

namespace deepseek::backends::cpu {

namespace {

struct Row {
  std::string_view op;
  Implementation implementation;
};
constexpr Row kRows[] = {
    {"matmul", {"gemm", make_gemm}},
    {"matmul", {"onednn", make_onednn_matmul}},
    {"conv", {"onednn", make_onednn_conv}},
    {"conv_input_grad", {"onednn", make_onednn_conv}},
    {"conv_weight_grad", {"onednn", make_onednn_conv}},
    {"conv_transpose", {"onednn", make_onednn_conv}},
    {"blocked_conv", {"winograd", make_winograd_conv}},
    {"blocked_conv", {"microgemm", make_blocked_conv}},
    {"blocked_conv_input_grad", {"winograd", make_winograd_conv}},
    {"blocked_conv_input_grad", {"microgemm", make_blocked_conv}},
    {"blocked_conv_weight_grad", {"winograd", make_winograd_conv}},
    {"blocked_conv_weight_grad", {"microgemm", make_blocked_conv}},
    {"depthwise_conv", {"native", make_depthwise_conv}},
    {"depthwise_conv_input_grad", {"native", make_depthwise_conv}},
    {"depthwise_conv_weight_grad", {"native", make_depthwise_conv}},
    {"attention", {"native", make_attention}},
    {"attention_grad", {"native", make_attention}},
    {"softmax", {"native", make_softmax}},
    {"log_softmax", {"native", make_softmax}},
    {"softmax_grad", {"native", make_softmax}},
    {"log_softmax_grad", {"native", make_softmax}},
    {"batch_norm", {"native_blocked", make_blocked_batch_norm}},
    {"batch_norm", {"native", make_batch_norm}},
    {"batch_norm_grad", {"native_blocked", make_blocked_batch_norm}},
    {"batch_norm_grad", {"native", make_batch_norm}},
    {"batch_norm_inference", {"native_blocked", make_blocked_batch_norm}},
    {"batch_norm_inference", {"native", make_batch_norm_inference}},
    {"layer_norm", {"native", make_layer_norm}},
    {"layer_norm_grad", {"native", make_layer_norm}},
    {"group_norm", {"native", make_group_norm}},
    {"group_norm_grad", {"native", make_group_norm}},
    {"max_pool", {"native", make_max_pool}},
    {"max_pool_grad", {"native", make_max_pool_grad}},
    {"avg_pool", {"native", make_avg_pool}},
    {"avg_pool_grad", {"native", make_avg_pool}},
    {"fused", {"elementwise", make_elementwise}},
    {"fused", {"native_blocked", make_blocked_batch_norm}},
    {"fused", {"winograd", make_winograd_conv}},
    {"fused", {"microgemm", make_blocked_conv}},
    {"sum", {"elementwise", make_elementwise}},
    {"sum", {"native", make_reduce}},
    {"mean", {"elementwise", make_elementwise}},
    {"mean", {"native", make_reduce}},
    {"max", {"native", make_reduce}},
    {"min", {"native", make_reduce}},
    {"prod", {"native", make_reduce}},
    {"transpose", {"native", make_copy}},
    {"slice", {"native", make_copy}},
    {"flip", {"native", make_copy}},
    {"concat", {"native", make_copy}},
    {"pad", {"native", make_copy}},
    {"gather", {"native", make_gather}},
    {"take_along_axis", {"native", make_gather}},
    {"scatter_add", {"native", make_scatter}},
    {"put_along_axis_add", {"native", make_scatter}},
    {"one_hot", {"native", make_one_hot}},
    {"iota", {"native", make_iota}},
    {"argmax", {"native", make_arg_extremum}},
    {"argmin", {"native", make_arg_extremum}},
    {"top_k", {"native", make_top_k}},
    {"cumsum", {"native", make_cumsum}},
    {"random_uniform", {"native", make_random}},
    {"dropout", {"native", make_random}},
    {"scan", {"native", make_scan}},
    {"ctc_loss", {"native", make_ctc}},
};

}  // namespace

bool is_empty(const NodeInfo& node) {
  const auto none = [](const graph::TensorType& type) { return type.num_elements() == 0; };
  return std::any_of(node.context.inputs.begin(), node.context.inputs.end(), none) ||
         std::any_of(node.outputs.begin(), node.outputs.end(), none);
}

KernelOrRefusal make_kernel_by(const Implementation& implementation, const NodeInfo& node) {
  if (implementation.make != make_reference && is_empty(node)) return refuse("a tensor without elements");
  return implementation.make(node);
}

bool is_disabled(const runtime::CompileOptions& options, std::string_view implementation) {
  const auto& off = options.disabled_implementations;
  return std::find(off.begin(), off.end(), implementation) != off.end();
}

std::vector<Implementation> implementations(const graph::OpDef& op) {
  std::vector<Implementation> list;
  for (const Row& row : kRows)
    if (row.op == op.name.value) list.push_back(row.implementation);
  if (op.traits.elementwise) list.push_back({"elementwise", make_elementwise});
  list.push_back({"widened", make_widened});
  list.push_back({"reference", make_reference});
  return list;
}

}  // namespace deepseek::backends::cpu
