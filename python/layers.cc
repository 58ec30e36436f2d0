// The engine's layers and the model zoo as Python classes. python/deepseek/nn gives them PyTorch's names and calls.
#include "nn/layers.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "models/zoo.h"
#include "nn/attention.h"
#include "nn/recurrent.h"
#include "trace.h"

namespace deepseek::python {

using namespace graph;

namespace {

// Constructs in place; raises ValueError for arguments that the layer refuses.
template <class Layer, class... Args>
void construct(Layer* self, Args&&... args) {
  new (self) Layer(std::forward<Args>(args)...);
  const Status status = self->tree_status();
  if (status.ok()) return;
  self->~Layer();
  check(status);
}

nn::AttentionMasks masks(nb::handle attention, nb::handle key_padding, bool causal) {
  return {to_optional_expr(attention), to_optional_expr(key_padding), causal};
}

void bind_basic(nb::module_& m) {
  nb::class_<nn::Sequential, nn::Module>(m, "Sequential", "Modules one after the other; nn.Sequential of the engine.");
  nb::class_<nn::Linear, nn::Module>(m, "Linear")
      .def(
          "__init__", [](nn::Linear* self, int64_t in, int64_t out, bool bias) { construct(self, in, out, bias); },
          nb::arg("in_features"), nb::arg("out_features"), nb::arg("bias") = true);
  nb::class_<nn::Embedding, nn::Module>(m, "Embedding")
      .def(
          "__init__",
          [](nn::Embedding* self, int64_t rows, int64_t width, std::optional<int64_t> padding) {
            construct(self, rows, width, padding);
          },
          nb::arg("num_embeddings"), nb::arg("embedding_dim"), nb::arg("padding_idx") = nb::none());
  nb::class_<nn::Dropout, nn::Module>(m, "Dropout")
      .def(
          "__init__", [](nn::Dropout* self, double p, bool) { construct(self, p); }, nb::arg("p") = 0.5,
          nb::arg("inplace") = false);
  nb::class_<nn::Conv, nn::Module>(m, "Conv").def(
      "__init__",
      [](nn::Conv* self, int64_t in, int64_t out, Dims kernel, Dims stride, Dims low, Dims high, Dims dilation,
         int64_t groups, bool bias, bool same) {
        construct(self, in, out, kernel,
                  nn::ConvOptions{.stride = stride,
                                  .padding = low,
                                  .dilation = dilation,
                                  .groups = groups,
                                  .bias = bias,
                                  .padding_high = high,
                                  .same_padding = same});
      },
      nb::arg("in_channels"), nb::arg("out_channels"), nb::arg("kernel_size"), nb::arg("stride"), nb::arg("padding"),
      nb::arg("padding_high"), nb::arg("dilation"), nb::arg("groups"), nb::arg("bias"),
      nb::arg("same_padding") = false);
  nb::class_<nn::ConvTranspose, nn::Module>(m, "ConvTranspose")
      .def(
          "__init__",
          [](nn::ConvTranspose* self, int64_t in, int64_t out, Dims kernel, Dims stride, Dims padding,
             Dims output_padding, Dims dilation, int64_t groups, bool bias) {
            construct(self, in, out, kernel,
                      nn::ConvOptions{.stride = stride,
                                      .padding = padding,
                                      .dilation = dilation,
                                      .groups = groups,
                                      .bias = bias,
                                      .output_padding = output_padding});
          },
          nb::arg("in_channels"), nb::arg("out_channels"), nb::arg("kernel_size"), nb::arg("stride"),
          nb::arg("padding"), nb::arg("output_padding"), nb::arg("dilation"), nb::arg("groups"), nb::arg("bias"));
}

template <class Norm>
void bind_running_norm(nb::module_& m, const char* name) {
  nb::class_<Norm, nn::Module>(m, name).def(
      "__init__",
      [](Norm* self, int64_t channels, double epsilon, std::optional<double> momentum, bool affine, bool track) {
        construct(self, channels,
                  nn::RunningOptions{.epsilon = epsilon, .momentum = momentum, .affine = affine, .track = track});
      },
      nb::arg("num_features"), nb::arg("eps"), nb::arg("momentum").none(), nb::arg("affine"),
      nb::arg("track_running_stats"));
}

void bind_norms(nb::module_& m) {
  bind_running_norm<nn::BatchNorm>(m, "BatchNorm");
  bind_running_norm<nn::InstanceNorm>(m, "InstanceNorm");
  nb::class_<nn::LayerNorm, nn::Module>(m, "LayerNorm")
      .def(
          "__init__",
          [](nn::LayerNorm* self, Dims shape, double epsilon, bool affine, bool bias) {
            construct(self, shape, epsilon, affine, bias);
          },
          nb::arg("normalized_shape"), nb::arg("eps"), nb::arg("elementwise_affine"), nb::arg("bias"));
  nb::class_<nn::RMSNorm, nn::Module>(m, "RMSNorm")
      .def(
          "__init__",
          [](nn::RMSNorm* self, Dims shape, double epsilon, bool affine) { construct(self, shape, epsilon, affine); },
          nb::arg("normalized_shape"), nb::arg("eps"), nb::arg("elementwise_affine"));
  nb::class_<nn::GroupNorm, nn::Module>(m, "GroupNorm")
      .def(
          "__init__",
          [](nn::GroupNorm* self, int64_t groups, int64_t channels, double epsilon, bool affine) {
            construct(self, groups, channels, epsilon, affine);
          },
          nb::arg("num_groups"), nb::arg("num_channels"), nb::arg("eps") = 1e-5, nb::arg("affine") = true);
}

template <class Layer>
void bind_recurrent(nb::module_& m, const char* name) {
  nb::class_<Layer, nn::Module>(m, name).def(
      "__init__",
      [](Layer* self, int64_t input, int64_t hidden, int64_t layers, bool bias, bool batch_first, double dropout,
         bool bidirectional) {
        construct(self, input, hidden, nn::RecurrentOptions{layers, bias, batch_first, dropout, bidirectional});
      },
      nb::arg("input_size"), nb::arg("hidden_size"), nb::arg("num_layers") = 1, nb::arg("bias") = true,
      nb::arg("batch_first") = false, nb::arg("dropout") = 0.0, nb::arg("bidirectional") = false);
}

void bind_attention(nb::module_& m) {
  nb::class_<nn::MultiheadAttention, nn::Module>(m, "MultiheadAttention")
      .def(
          "__init__",
          [](nn::MultiheadAttention* self, int64_t width, int64_t heads, double dropout, bool bias, bool batch_first,
             int64_t key_width, int64_t value_width) {
            construct(self, width, heads, nn::AttentionOptions{dropout, bias, batch_first, key_width, value_width});
          },
          nb::arg("embed_dim"), nb::arg("num_heads"), nb::arg("dropout"), nb::arg("bias"), nb::arg("batch_first"),
          nb::arg("kdim"), nb::arg("vdim"))
      .def(
          "_attend",
          [](nn::MultiheadAttention& self, nb::handle q, nb::handle k, nb::handle v, nb::handle padding,
             nb::handle attention, bool causal, bool weights) {
            const Expr query = to_expr(q), key = k.is(q) ? query : to_expr(k);
            const Expr value = v.is(q) ? query : v.is(k) ? key : to_expr(v);
            return unpack(self.attend(active_trace(), query, key, value, masks(attention, padding, causal), weights));
          },
          nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("key_padding_mask").none(),
          nb::arg("attn_mask").none(), nb::arg("causal"), nb::arg("weights"));
  using Layer = nn::TransformerEncoderLayer;
  nb::class_<Layer, nn::Module>(m, "TransformerEncoderLayer")
      .def(
          "__init__",
          [](Layer* self, int64_t width, int64_t heads, int64_t feedforward, double dropout,
             const std::string& activation, double epsilon, bool batch_first, bool norm_first, bool bias) {
            construct(self, width, heads,
                      nn::EncoderOptions{feedforward, dropout, activation, epsilon, batch_first, norm_first, bias});
          },
          nb::arg("d_model"), nb::arg("nhead"), nb::arg("dim_feedforward"), nb::arg("dropout"), nb::arg("activation"),
          nb::arg("layer_norm_eps"), nb::arg("batch_first"), nb::arg("norm_first"), nb::arg("bias"))
      .def(
          "_encode",
          [](Layer& self, nb::handle x, nb::handle attention, nb::handle padding, bool causal) {
            return wrap(self.encode(active_trace(), to_expr(x), masks(attention, padding, causal)));
          },
          nb::arg("src"), nb::arg("mask").none(), nb::arg("key_padding_mask").none(), nb::arg("causal"));
  using Encoder = nn::TransformerEncoder;
  nb::class_<Encoder, nn::Module>(m, "TransformerEncoder")
      .def(
          "__init__",
          [](Encoder* self, const Layer& layer, int64_t count, std::shared_ptr<nn::Module> norm) {
            constexpr int64_t kMost = 10'000;  // of a graph that can still be compiled
            if (count < 0 || count > kMost)
              throw nb::value_error(fmt::format("expected num_layers in [0, {}], got {}", kMost, count).c_str());
            std::vector<std::shared_ptr<Layer>> layers;
            for (int64_t i = 0; i < count; ++i) layers.push_back(layer.clone());
            construct(self, layers, norm);
          },
          nb::arg("encoder_layer"), nb::arg("num_layers"), nb::arg("norm").none() = nb::none())
      .def(
          "_encode",
          [](Encoder& self, nb::handle x, nb::handle attention, nb::handle padding, bool causal) {
            return wrap(self.encode(active_trace(), to_expr(x), masks(attention, padding, causal)));
          },
          nb::arg("src"), nb::arg("mask").none(), nb::arg("key_padding_mask").none(), nb::arg("causal"));
}

}  // namespace

void bind_layers(nb::module_& m) {
  bind_basic(m);
  bind_norms(m);
  bind_recurrent<nn::LSTM>(m, "LSTM");
  bind_recurrent<nn::GRU>(m, "GRU");
  bind_attention(m);
  m.def("model_names", &models::names);
  m.def(
      "create_model",
      [](const std::string& name, const Dims& input, int64_t classes,
         const std::map<std::string, std::string>& parameters) {
        return unwrap(models::create(name, {input, classes}, parameters));
      },
      nb::arg("name"), nb::arg("input"), nb::arg("classes"), nb::arg("parameters"));
}

}  // namespace deepseek::python
