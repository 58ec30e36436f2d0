// What the files of the extension module share: errors as exceptions, arrays without copies, attributes.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <functional>
#include <string>
#include <vector>

#include "errors.h"
#include "graph/builder.h"
#include "graph/tensor.h"
#include "nn/module.h"
#include "runtime/program.h"

namespace deepseek::python {

namespace nb = nanobind;

// What Python hands in as an array: of any layout and byte order, writable or not. What can't be used where it lies is
// copied. NumPy's, or anything of DLPack or the buffer protocol.
class Array {
 public:
  // False where it is no array of numbers; may leave Python's error set.
  bool read(nb::handle source);
  const graph::Tensor& tensor() const { return tensor_; }  // undefined for dtypes that we don't have
  nb::handle source() const { return source_; }

 private:
  nb::object source_;
  graph::Tensor tensor_;
};

// An object that is a NumPy array: what type stubs call it.
class NumpyArray : public nb::object {
  static bool is_numpy_array(nb::handle h) { return nb::ndarray_check(h); }

 public:
  NB_OBJECT_DEFAULT(NumpyArray, nb::object, "numpy.ndarray", is_numpy_array)
};

// Shares the array's memory where it can, which lives as long as the tensor. For reading only. Raises TypeError for
// dtypes that we don't have.
graph::Tensor to_tensor(const Array& array);
// Of memory that a run writes: raises ValueError where the array is read-only or would have to be copied.
graph::Tensor to_state(const Array& array, const std::string& name);
// In the order of the graph's inputs, states among them.
std::vector<graph::Tensor> to_inputs(const graph::Graph& graph, const std::vector<Array>& arrays);
// NumPy arrays over the tensor's memory.
NumpyArray to_numpy(const graph::Tensor& tensor);
nb::list to_list(const std::vector<graph::Tensor>& tensors);

// One dict per node of the program, with the seconds of a run, and one for what runs outside of nodes.
nb::list to_list(const runtime::Program& program, const runtime::Profile& profile);

nb::object attr_to_python(const graph::AttrValue& value);
// Reads a Python value as the kind that the op's record says; the error names op, attribute, expected and actual.
graph::AttrValue attr_from_python(const std::string& op, const graph::AttrSpec& spec, nb::handle value);

// Runs `body` with the interpreter's lock while C++ traces into `builder` (and `trace`, if modules may be called); its
// argument makes symbolic values for Python. Python's exceptions pass through.
using WrapExpr = std::function<nb::object(graph::Expr)>;
void in_trace(graph::Builder& builder, nn::Trace* trace, const std::function<void(const WrapExpr&)>& body);

void bind_trace(nb::module_& m);      // Value, Parameter, Module, tracing of functions and modules
void bind_structure(nb::module_& m);  // settings and changes of modules; after bind_trace
void bind_calls(nb::module_& m);      // modules called on arrays
void bind_layers(nb::module_& m);     // the engine's layers and the model zoo; after bind_trace
void bind_files(nb::module_& m);      // safetensors
void bind_data(nb::module_& m);       // data sets, augmentation
void bind_profile(nb::module_& m);    // profiles, metrics
void bind_step(nb::module_& m);
void bind_trainer(nb::module_& m);
void bind_session(nb::module_& m);  // models in files

}  // namespace deepseek::python

namespace nanobind::detail {

template <>
struct type_caster<deepseek::python::Array> {
  NB_TYPE_CASTER(deepseek::python::Array, const_name("numpy.typing.ArrayLike"))
  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    try {
      if (value.read(source)) return true;
    } catch (...) {
    }
    PyErr_Clear();
    return false;
  }
  static handle from_cpp(const deepseek::python::Array& array, rv_policy, cleanup_list*) noexcept {
    return array.source().inc_ref();
  }
};

}  // namespace nanobind::detail
