// What the files of the extension module share: errors as exceptions, arrays without copies, attributes.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <vector>

#include "errors.h"
#include "graph/builder.h"
#include "graph/tensor.h"
#include "nn/module.h"
#include "runtime/program.h"

namespace deepseek::python {

namespace nb = nanobind;
using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;
// An object that is a NumPy array: what type stubs call it.
class NumpyArray : public nb::object {
  static bool is_numpy_array(nb::handle h) { return nb::ndarray_check(h); }

 public:
  NB_OBJECT_DEFAULT(NumpyArray, nb::object, "numpy.ndarray", is_numpy_array)
};

// Shares the array's memory, which lives as long as the tensor. Raises TypeError for dtypes that we don't have.
graph::Tensor to_tensor(const Array& array);
std::vector<graph::Tensor> to_tensors(const std::vector<Array>& arrays);
// NumPy arrays over the tensor's memory.
NumpyArray to_numpy(const graph::Tensor& tensor);
nb::list to_list(const std::vector<graph::Tensor>& tensors);

// One dict per node of the program, with the seconds of a run, and one for what runs outside of nodes.
nb::list to_list(const runtime::Program& program, const runtime::Profile& profile);

nb::object attr_to_python(const graph::AttrValue& value);
// Reads a Python value as the kind that the op's record says; the error names op, attribute, expected and actual.
graph::AttrValue attr_from_python(const std::string& op, const graph::AttrSpec& spec, nb::handle value);

// Calls a Python callable with symbolic values for `inputs` while C++ traces into `builder` (and `trace`, if modules
// may be called); returns what it returns. Python's exceptions pass through.
std::vector<graph::Expr> call_traced(nb::handle callable, graph::Builder& builder, nn::Trace* trace,
                                     const std::vector<graph::Expr>& inputs);

void bind_trace(nb::module_& m);     // Value, Parameter, Module, tracing of functions and modules
void bind_layers(nb::module_& m);    // the engine's layers and the model zoo; after bind_trace
void bind_files(nb::module_& m);     // safetensors
void bind_training(nb::module_& m);  // data sets, training steps, Trainer, metrics

}  // namespace deepseek::python
