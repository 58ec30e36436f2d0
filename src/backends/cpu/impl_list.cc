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
    {"matmul", {"gemm", takes_gemm, make_gemm}},
    {"matmul", {"onednn", takes_onednn_matmul, make_onednn_matmul}},
    {"conv", {"onednn", takes_onednn_conv, make_onednn_conv}},
    {"conv_input_grad", {"onednn", takes_onednn_conv, make_onednn_conv}},
    {"conv_weight_grad", {"onednn", takes_onednn_conv, make_onednn_conv}},
    {"conv_transpose", {"onednn", takes_onednn_conv, make_onednn_conv}},
    {"blocked_conv", {"winograd", takes_winograd_conv, make_winograd_conv}},
    {"blocked_conv", {"microgemm", takes_blocked_conv, make_blocked_conv}},
    {"blocked_conv_input_grad", {"winograd", takes_winograd_conv, make_winograd_conv}},
    {"blocked_conv_input_grad", {"microgemm", takes_blocked_conv, make_blocked_conv}},
    {"blocked_conv_weight_grad", {"winograd", takes_winograd_conv, make_winograd_conv}},
    {"blocked_conv_weight_grad", {"microgemm", takes_blocked_conv, make_blocked_conv}},
    {"depthwise_conv", {"native", takes_depthwise_conv, make_depthwise_conv}},
    {"depthwise_conv_input_grad", {"native", takes_depthwise_conv, make_depthwise_conv}},
    {"depthwise_conv_weight_grad", {"native", takes_depthwise_conv, make_depthwise_conv}},
    {"attention", {"native", takes_attention, make_attention}},
    {"attention_grad", {"native", takes_attention, make_attention}},
    {"softmax", {"native", takes_softmax, make_softmax}},
    {"log_softmax", {"native", takes_softmax, make_softmax}},
    {"softmax_grad", {"native", takes_softmax, make_softmax}},
    {"log_softmax_grad", {"native", takes_softmax, make_softmax}},
    {"batch_norm", {"native_blocked", takes_blocked_batch_norm, make_blocked_batch_norm}},
    {"batch_norm", {"native", takes_batch_norm, make_batch_norm}},
    {"batch_norm_grad", {"native_blocked", takes_blocked_batch_norm, make_blocked_batch_norm}},
    {"batch_norm_grad", {"native", takes_batch_norm, make_batch_norm}},
    {"batch_norm_inference", {"native_blocked", takes_blocked_batch_norm, make_blocked_batch_norm}},
    {"batch_norm_inference", {"native", takes_batch_norm_inference, make_batch_norm_inference}},
    {"layer_norm", {"native", takes_layer_norm, make_layer_norm}},
    {"layer_norm_grad", {"native", takes_layer_norm, make_layer_norm}},
    {"group_norm", {"native", takes_group_norm, make_group_norm}},
    {"group_norm_grad", {"native", takes_group_norm, make_group_norm}},
    {"max_pool", {"native", takes_max_pool, make_max_pool}},
    {"max_pool_grad", {"native", takes_max_pool_grad, make_max_pool_grad}},
    {"avg_pool", {"native", takes_avg_pool, make_avg_pool}},
    {"avg_pool_grad", {"native", takes_avg_pool, make_avg_pool}},
    {"fused", {"elementwise", takes_elementwise, make_elementwise}},
    {"fused", {"native_blocked", takes_blocked_batch_norm, make_blocked_batch_norm}},
    {"fused", {"winograd", takes_winograd_conv, make_winograd_conv}},
    {"fused", {"microgemm", takes_blocked_conv, make_blocked_conv}},
    {"sum", {"elementwise", takes_elementwise, make_elementwise}},
    {"sum", {"native", takes_reduce, make_reduce}},
    {"mean", {"elementwise", takes_elementwise, make_elementwise}},
    {"mean", {"native", takes_reduce, make_reduce}},
    {"max", {"native", takes_reduce, make_reduce}},
    {"min", {"native", takes_reduce, make_reduce}},
    {"prod", {"native", takes_reduce, make_reduce}},
    {"transpose", {"native", takes_all, make_copy}},
    {"slice", {"native", takes_all, make_copy}},
    {"flip", {"native", takes_all, make_copy}},
    {"concat", {"native", takes_all, make_copy}},
    {"pad", {"native", takes_all, make_copy}},
    {"gather", {"native", takes_all, make_gather}},
    {"take_along_axis", {"native", takes_all, make_gather}},
    {"scatter_add", {"native", takes_scatter, make_scatter}},
    {"put_along_axis_add", {"native", takes_scatter, make_scatter}},
    {"one_hot", {"native", takes_all, make_one_hot}},
    {"iota", {"native", takes_all, make_iota}},
    {"argmax", {"native", takes_all, make_arg_extremum}},
    {"argmin", {"native", takes_all, make_arg_extremum}},
    {"top_k", {"native", takes_all, make_top_k}},
    {"cumsum", {"native", takes_all, make_cumsum}},
    {"random_uniform", {"native", takes_all, make_random}},
    {"dropout", {"native", takes_all, make_random}},
    {"scan", {"native", takes_all, make_scan}},
    {"ctc_loss", {"native", takes_ctc, make_ctc}},
};

}  // namespace

bool is_empty(const NodeInfo& node) {
  const auto none = [](const graph::TensorType& type) { return type.num_elements() == 0; };
  return std::any_of(node.context.inputs.begin(), node.context.inputs.end(), none) ||
         std::any_of(node.outputs.begin(), node.outputs.end(), none);
}

Status takes_all(const NodeInfo&) { return {}; }

Status takes(const Implementation& implementation, const NodeInfo& node) {
  if (node.options != nullptr && is_disabled(*node.options, implementation.name)) return refuse("disabled by option");
  if (implementation.make != make_reference && is_empty(node)) return refuse("a tensor without elements");
  return implementation.takes(node);
}

bool is_disabled(const runtime::CompileOptions& options, std::string_view implementation) {
  const auto& off = options.disabled_implementations;
  return std::find(off.begin(), off.end(), implementation) != off.end();
}

std::vector<Implementation> implementations(const graph::OpDef& op) {
  std::vector<Implementation> list;
  for (const Row& row : kRows)
    if (row.op == op.name.value) list.push_back(row.implementation);
  if (op.traits.elementwise) list.push_back({"elementwise", takes_elementwise, make_elementwise});
  list.push_back({"upcast", takes_upcast, make_upcast});
  list.push_back({"reference", takes_all, make_reference});
  return list;
}

}  // namespace deepseek::backends::cpu
