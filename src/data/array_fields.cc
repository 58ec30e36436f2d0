#include "data/array_fields.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json.h"
#include "data/builtin_sources.h"

namespace deepseek::data {
namespace {

using graph::Tensor;
using io::NpyArray;
using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 3> kLayouts = {"as_is", "add_channel", "move_channels"};

std::string type_text(const NpyArray& a) {
  return fmt::format("{} {}", a.is_text() ? "text" : std::string(to_string(a.values.dtype())),
                     graph::to_string(a.dims));
}

template <class T>
void move_channels(const Tensor& from, Tensor& to) {
  const graph::Dims& d = from.dims();
  const int64_t plane = d[1] * d[2], channels = d[3];
  for (int64_t i = 0; i < d[0]; ++i)
    for (int64_t p = 0; p < plane; ++p)
      for (int64_t c = 0; c < channels; ++c)
        to.as<T>()[(i * channels + c) * plane + p] = from.as<T>()[(i * plane + p) * channels + c];
}

Tensor laid_out(const Tensor& t, Layout layout) {
  graph::Dims dims = t.dims();
  if (layout == Layout::kAsIs) return t;
  if (layout == Layout::kAddChannel) {
    dims.insert(dims.begin() + 1, 1);
    return t.reshaped(std::move(dims));
  }
  Tensor out(t.dtype(), {dims[0], dims[3], dims[1], dims[2]});
  if (size_of(t.dtype()) == 1)
    move_channels<uint8_t>(t, out);
  else if (size_of(t.dtype()) == 4)
    move_channels<uint32_t>(t, out);
  else
    move_channels<uint64_t>(t, out);
  return out;
}

// In the type of the field; numbers that it cannot hold are an error.
Result<Tensor> converted(const std::string& name, const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  if (dtype == DType::kF32) return t.cast(dtype);
  if (is_float(t.dtype()) || dtype == DType::kU8)
    for (int64_t i = 0; i < t.num_elements(); ++i) {
      const double v = t.at(i), most = dtype == DType::kU8 ? 255 : 0x1p53, least = dtype == DType::kU8 ? 0 : -0x1p53;
      if (std::isfinite(v) && v == std::floor(v) && v >= least && v <= most) continue;
      return make_error(ErrorCode::kDataCorrupt, "[data] '{}' holds {} at position {}, expected whole numbers{}", name,
                        v, i, dtype == DType::kU8 ? " from 0 to 255, as in training" : "");
    }
  return t.cast(dtype);
}

Status check_samples(const std::string& name, const NpyArray& a) {
  if (a.dims.empty())
    return invalid("[data] '{}' is a single {}, expected a first axis of samples", name, type_text(a));
  return {};
}

// [N, 1] as [N].
graph::Dims without_last_of_one(graph::Dims dims) {
  if (dims.size() == 2 && dims[1] == 1) dims.pop_back();
  return dims;
}

}  // namespace

Result<Tensor> input_tensor(const ArrayInput& input, const NpyArray& a, const std::string& where) {
  DS_TRY(check_samples(input.name, a));
  if (a.is_text())
    return invalid("[data] '{}' of {} is text, which no input is; encode it first, or read a table (`name: table`)",
                   input.name, where);
  const size_t rank = input.layout == Layout::kAsIs ? a.dims.size() : input.layout == Layout::kAddChannel ? 3 : 4;
  const auto wrong = [&] {
    graph::Dims raw = input.sample.dims;
    if (input.layout == Layout::kAddChannel) raw.erase(raw.begin());
    if (input.layout == Layout::kMoveChannels) raw = {raw[1], raw[2], raw[0]};
    return invalid("[data] '{}' of {} is {}, expected {} per sample", input.name, where, type_text(a),
                   graph::to_string(raw));
  };
  if (a.dims.size() != rank) return wrong();
  DS_ASSIGN(const Tensor t, converted(input.name, a.values, input.sample.dtype));
  Tensor out = laid_out(t, input.layout);
  if (graph::Dims(out.dims().begin() + 1, out.dims().end()) != input.sample.dims) return wrong();
  return out;
}

Result<ArrayInput> describe_input(const std::string& name, const NpyArray& a, const std::string& layout) {
  DS_TRY(check_samples(name, a));
  ArrayInput in;
  in.name = name;
  const graph::Dims& d = a.dims;
  const DType stored = a.is_text() ? DType::kF32 : a.values.dtype();
  in.sample.dtype = stored == DType::kU8                         ? DType::kU8
                    : is_float(stored) || stored == DType::kBool ? DType::kF32
                                                                 : DType::kI64;
  const auto channels = [](int64_t size) { return size == 1 || size == 3 || size == 4; };
  const bool image = layout == "auto" && stored == DType::kU8;
  if (layout == "channels_last" && d.size() != 3 && d.size() != 4 && stored == DType::kU8)
    return invalid("[data] layout is channels_last, but '{}' is {}, expected [N,H,W] or [N,H,W,C]", name, type_text(a));
  if (d.size() == 3 && (image || (layout == "channels_last" && stored == DType::kU8))) in.layout = Layout::kAddChannel;
  if (d.size() == 4 && (layout == "channels_last" || (image && channels(d[3]) && !channels(d[1]))))
    in.layout = Layout::kMoveChannels;
  in.sample.dims.assign(d.begin() + 1, d.end());
  if (in.layout == Layout::kAddChannel) in.sample.dims.insert(in.sample.dims.begin(), 1);
  if (in.layout == Layout::kMoveChannels) in.sample.dims = {d[3], d[1], d[2]};
  return in;
}

Result<Tensor> target_tensor(const Field& field, bool classes, const NpyArray& a, const std::string& where) {
  DS_TRY(check_samples(field.name, a));
  const graph::Dims dims = without_last_of_one(a.dims);
  if (!a.is_text()) {
    DS_ASSIGN(const Tensor t, converted(field.name, a.values, classes ? DType::kI64 : DType::kF32));
    return t.reshaped(dims);
  }
  std::map<std::string_view, int64_t> codes;
  for (size_t i = 0; i < field.class_names.size(); ++i) codes.emplace(field.class_names[i], static_cast<int64_t>(i));
  Tensor out(DType::kI64, dims);
  for (size_t i = 0; i < a.texts.size(); ++i) {
    const auto it = codes.find(a.texts[i]);
    if (it == codes.end())
      return make_error(ErrorCode::kDataCorrupt,
                        "[data] label {} of '{}' in {} is '{}', which is none of the classes {}", i, field.name, where,
                        a.texts[i], fmt::join(field.class_names, ", "));
    out.as<int64_t>()[i] = it->second;
  }
  return out;
}

std::string to_spec(const std::vector<ArrayInput>& inputs) {
  Json all = Json::object();
  for (const ArrayInput& in : inputs)
    all[in.name] = {{"type", std::string(to_string(in.sample.dtype))},
                    {"dims", in.sample.dims},
                    {"layout", std::string(kLayouts[static_cast<size_t>(in.layout)])}};
  return dump_json(Json{{"source", "arrays"}, {"inputs", std::move(all)}});
}

Result<std::vector<ArrayInput>> from_spec(const std::string& text) {
  const Json spec = parse_json<Json>(text);
  const auto corrupt = [](const std::string& what) {
    return make_error(ErrorCode::kDataCorrupt, "[data] {} of an input spec of arrays is missing or wrong", what);
  };
  std::vector<ArrayInput> out;
  if (!spec.contains("inputs") || !spec["inputs"].is_object() || spec["inputs"].empty()) return corrupt("\"inputs\"");
  for (const auto& [name, what] : spec["inputs"].items()) {
    if (!what.is_object()) return corrupt("'" + name + "'");
    ArrayInput in;
    in.name = name;
    DS_ASSIGN(const std::string type, spec_text(what, "type"));
    DS_ASSIGN(in.sample.dtype, parse_dtype(type));
    DS_ASSIGN(const std::string layout, spec_text(what, "layout"));
    const auto* const at = std::find(kLayouts.begin(), kLayouts.end(), layout);
    if (at == kLayouts.end()) return corrupt("\"layout\" of '" + name + "'");
    in.layout = static_cast<Layout>(at - kLayouts.begin());
    const Json dims = what.value("dims", Json());
    if (!dims.is_array() || (in.layout != Layout::kAsIs && dims.size() != 3))
      return corrupt("\"dims\" of '" + name + "'");
    for (const Json& d : dims) {
      if (!d.is_number_integer() || d.get<int64_t>() < 1) return corrupt("\"dims\" of '" + name + "'");
      in.sample.dims.push_back(d.get<int64_t>());
    }
    if (in.sample.dtype != DType::kU8 && in.sample.dtype != DType::kF32 && in.sample.dtype != DType::kI64)
      return corrupt("\"type\" of '" + name + "'");
    out.push_back(std::move(in));
  }
  return out;
}

}  // namespace deepseek::data
