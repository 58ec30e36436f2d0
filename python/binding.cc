#include "binding.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>

#include "ops/registry.h"
#include "runtime/cost.h"

namespace deepseek::python {

using namespace graph;

namespace {

using ReadOnly = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<nb::c_contig, nb::device::cpu>;

std::optional<DType> dtype_of(const nb::dlpack::dtype& d) {
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
  return std::nullopt;
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

// What a tensor over an array's memory keeps, until its last copy goes.
struct Lent {
  ReadOnly array;
  nb::object source;
};
struct LetGo {
  void operator()(Lent* lent) const noexcept {
    if (!may_touch_python()) return;
    const Acquired gil;
    delete lent;
  }
};

// The array's memory as a tensor; undefined for other dtypes. `dtype`: what the bytes mean, if not what the array says.
Tensor share(const ReadOnly& array, nb::handle source, std::optional<DType> dtype = {}) {
  if (!dtype) dtype = dtype_of(array.dtype());
  if (!dtype) return {};
  Dims dims;
  for (size_t i = 0; i < array.ndim(); ++i) dims.push_back(static_cast<int64_t>(array.shape(i)));
  if (array.size() == 0) return Tensor(*dtype, std::move(dims));
  return Tensor({*dtype, std::move(dims)}, const_cast<void*>(static_cast<const void*>(array.data())),
                std::shared_ptr<Lent>(new Lent{array, nb::borrow(source)}, LetGo()));
}

}  // namespace

bool Array::read(nb::handle source) {
  source_ = nb::borrow(source);
  ReadOnly array;
  if (nb::try_cast<ReadOnly>(source, array, false)) {
    tensor_ = share(array, source);
    return true;
  }
  PyErr_Clear();
  if (!nb::hasattr(source, "__array__") && !nb::hasattr(source, "__dlpack__")) return false;
  const nb::module_ numpy = nb::module_::import_("numpy");
  nb::object copy = numpy.attr(nb::hasattr(source, "__array__") ? "asarray" : "from_dlpack")(source);
  nb::object type = copy.attr("dtype");
  std::optional<DType> dtype;
  if (nb::cast<std::string>(type.attr("name")) == "bfloat16") {  // of ml_dtypes, which DLPack and buffers don't know
    dtype = DType::kBF16;
    copy = copy.attr("view")("u2");
    type = copy.attr("dtype");
  }
  copy = numpy.attr("require")(copy, type.attr("newbyteorder")("="), "C");
  if (!nb::try_cast<ReadOnly>(copy, array, false)) return false;
  tensor_ = share(array, copy, dtype);
  return true;
}

Tensor to_tensor(const Array& array) {
  if (array.tensor().defined()) return array.tensor();
  throw nb::type_error(
      fmt::format(
          "dtype {} is not supported; use float32, float64, float16, bfloat16, int64, int32, int8, uint8 or bool",
          nb::cast<std::string>(nb::str(nb::getattr(array.source(), "dtype", nb::str("of the array")))))
          .c_str());
}

Tensor to_state(const Array& array, const std::string& name) {
  Writable memory;
  if (nb::try_cast<Writable>(array.source(), memory, false)) {
    const Tensor tensor = to_tensor(array);
    if (tensor.data() == memory.data()) return tensor;
  }
  PyErr_Clear();
  throw nb::value_error(
      fmt::format("'{}' is state, which a run overwrites in place: expected a writable, contiguous array in this "
                  "machine's byte order; give a copy (numpy.array(x))",
                  name)
          .c_str());
}

std::vector<Tensor> to_inputs(const Graph& graph, const std::vector<Array>& arrays) {
  std::vector<Tensor> out;
  for (size_t i = 0; i < arrays.size(); ++i)
    out.push_back(i < graph.inputs().size() && graph.inputs()[i].kind == InputKind::kState
                      ? to_state(arrays[i], graph.inputs()[i].name)
                      : to_tensor(arrays[i]));
  return out;
}

NumpyArray to_numpy(const Tensor& t) {
  auto* keep = new Tensor(t);
  nb::capsule owner(keep, [](void* p) noexcept { delete static_cast<Tensor*>(p); });
  std::vector<size_t> shape(t.dims().begin(), t.dims().end());
  const bool brain = t.dtype() == DType::kBF16;  // NumPy has it by the package ml_dtypes
  const nb::dlpack::dtype dtype = brain ? nb::dtype<uint16_t>() : dlpack_dtype(t.dtype());
  const nb::object array =
      nb::cast(nb::ndarray<nb::numpy>(t.data(), shape.size(), shape.data(), owner, nullptr, dtype));
  // What Python lent for reading only goes back as such.
  if (std::get_deleter<LetGo>(t.owner()) != nullptr) {
    Writable memory;
    if (!nb::try_cast<Writable>(static_cast<const Lent*>(t.owner().get())->source, memory, false)) {
      PyErr_Clear();
      array.attr("flags").attr("writeable") = false;
    }
  }
  if (!brain) return nb::borrow<NumpyArray>(array);
  nb::object type;
  try {
    type = nb::module_::import_("ml_dtypes").attr("bfloat16");
  } catch (const nb::python_error&) {
    throw nb::type_error("NumPy has no bfloat16; install ml_dtypes, or cast the value to float32");
  }
  return nb::borrow<NumpyArray>(array.attr("view")(type));
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
