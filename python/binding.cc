#include "binding.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "ops/registry.h"
#include "runtime/cost.h"

namespace deepseek::python {

using namespace graph;

namespace {

DType dtype_of(const nb::dlpack::dtype& d) {
  using Code = nb::dlpack::dtype_code;
  const auto is = [&](Code code, int bits) {
    return d.code == static_cast<uint8_t>(code) && d.bits == bits && d.lanes == 1;
  };
  if (is(Code::Float, 32)) return DType::kF32;
  if (is(Code::Float, 64)) return DType::kF64;
  if (is(Code::Float, 16)) return DType::kF16;
  if (is(Code::Bfloat, 16)) return DType::kBF16;
  if (is(Code::Int, 64)) return DType::kI64;
  if (is(Code::Int, 32)) return DType::kI32;
  if (is(Code::Int, 8)) return DType::kI8;
  if (is(Code::UInt, 8)) return DType::kU8;
  if (is(Code::Bool, 8)) return DType::kBool;
  throw nb::type_error(
      "array dtype is not supported; use float32, float64, float16, int64, int32, int8, uint8 or bool");
}
nb::dlpack::dtype dlpack_dtype(DType d) {
  using Code = nb::dlpack::dtype_code;
  const Code code = d == DType::kBool   ? Code::Bool
                    : d == DType::kU8   ? Code::UInt
                    : d == DType::kBF16 ? Code::Bfloat
                    : is_float(d)       ? Code::Float
                                        : Code::Int;
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(8 * size_of(d)), 1};
}

}  // namespace

Tensor to_tensor(const Array& array) {
  Dims dims;
  for (size_t i = 0; i < array.ndim(); ++i) dims.push_back(static_cast<int64_t>(array.shape(i)));
  auto owner = std::shared_ptr<Array>(new Array(array), [](Array* a) {
    nb::gil_scoped_acquire gil;
    delete a;
  });
  return Tensor({dtype_of(array.dtype()), dims}, const_cast<void*>(static_cast<const void*>(array.data())), owner);
}
NumpyArray to_numpy(const Tensor& t) {
  auto* keep = new Tensor(t);
  nb::capsule owner(keep, [](void* p) noexcept { delete static_cast<Tensor*>(p); });
  std::vector<size_t> shape(t.dims().begin(), t.dims().end());
  return nb::borrow<NumpyArray>(
      nb::cast(nb::ndarray<nb::numpy>(t.data(), shape.size(), shape.data(), owner, nullptr, dlpack_dtype(t.dtype()))));
}
nb::list to_list(const std::vector<Tensor>& tensors) {
  nb::list out;
  for (const Tensor& t : tensors) out.append(to_numpy(t));
  return out;
}
nb::list to_list(const runtime::Program& program, const runtime::Profile& profile) {
  nb::list out;
  const double runs = static_cast<double>(std::max<int64_t>(profile.runs, 1));
  const Graph& graph = program.graph();
  const std::vector<int32_t> uses = graph.use_counts();
  const auto add = [&](const runtime::NodeReport& r, double seconds) {
    nb::dict d;
    d["scope"] = r.scope;
    d["op"] = r.op;
    d["implementation"] = r.implementation;
    d["types"] = r.types;
    d["refusals"] = r.refusals;
    d["seconds"] = seconds / runs;
    d["flops"] =
        r.node < 0 ? 0.0 : unwrap(runtime::node_cost(graph, graph.nodes()[static_cast<size_t>(r.node)], uses)).flops;
    out.append(d);
  };
  const std::vector<runtime::NodeReport> nodes = program.report();
  for (size_t i = 0; i < nodes.size(); ++i) add(nodes[i], profile.seconds.at(i));
  add({.scope = "", .op = "copy of states and outputs", .implementation = "memcpy", .types = "", .refusals = {}},
      profile.copies);
  return out;
}
std::vector<Tensor> to_tensors(const std::vector<Array>& arrays) {
  std::vector<Tensor> out;
  for (const Array& a : arrays) out.push_back(to_tensor(a));
  return out;
}

nb::object attr_to_python(const AttrValue& value) {
  struct Visitor {
    nb::object operator()(bool v) const { return nb::bool_(v); }
    nb::object operator()(int64_t v) const { return nb::int_(v); }
    nb::object operator()(double v) const { return nb::float_(v); }
    nb::object operator()(const std::string& v) const { return nb::cast(v); }
    nb::object operator()(const std::vector<int64_t>& v) const { return nb::cast(v); }
    nb::object operator()(const std::vector<double>& v) const { return nb::cast(v); }
    nb::object operator()(DType v) const { return nb::cast(std::string(to_string(v))); }
    nb::object operator()(const Tensor& v) const { return to_numpy(v); }
    nb::object operator()(const GraphRef& v) const { return v ? nb::cast(Graph(*v)) : nb::none(); }
  };
  return std::visit(Visitor{}, value);
}

namespace {

// Not by int(), which for a size means that Python has looked at it (deepseek.tensor.AxisSize).
int64_t to_int(nb::handle value) {
  if (!nb::isinstance<nb::int_>(value)) return nb::cast<int64_t>(value);
  const int64_t result = PyLong_AsLongLong(value.ptr());
  if (result == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    throw nb::cast_error();
  }
  return result;
}

}  // namespace

AttrValue attr_from_python(const std::string& op, const AttrSpec& spec, nb::handle value) {
  const auto mistake = [&](const std::string& expected) {
    return nb::type_error(
        fmt::format("{}: '{}' expected {}, got {}", op, spec.name, expected, nb::cast<std::string>(nb::repr(value)))
            .c_str());
  };
  try {
    switch (spec.kind) {
      case AttrKind::kBool:
        if (!nb::isinstance<nb::bool_>(value)) break;
        return nb::cast<bool>(value);
      case AttrKind::kInt:
        if (nb::isinstance<nb::bool_>(value)) break;
        return to_int(value);
      case AttrKind::kFloat: return nb::cast<double>(value);
      case AttrKind::kString: return nb::cast<std::string>(value);
      case AttrKind::kInts:
        if (nb::isinstance<nb::int_>(value)) return std::vector<int64_t>{to_int(value)};
        if (nb::isinstance<nb::list>(value) || nb::isinstance<nb::tuple>(value)) {
          std::vector<int64_t> list;
          for (nb::handle item : value) list.push_back(to_int(item));
          return list;
        }
        return nb::cast<std::vector<int64_t>>(value);
      case AttrKind::kFloats: return nb::cast<std::vector<double>>(value);
      case AttrKind::kDType: return unwrap(parse_dtype(nb::cast<std::string>(value)));
      case AttrKind::kTensor: return to_tensor(nb::cast<Array>(value)).clone();
      case AttrKind::kGraph: return std::make_shared<const Graph>(nb::cast<Graph>(value));
    }
  } catch (const nb::cast_error&) {
  }
  throw mistake("a " + std::string(to_string(spec.kind)));
}

}  // namespace deepseek::python
