// Constants of programs that hold the same bytes lie in memory once: a model that is compiled for many shapes packs its
// weights for each, mostly into the same form. Test: tests/runtime/module_cache_test.cc
#pragma once

#include "graph/tensor.h"

namespace deepseek::runtime {

// A tensor of the same type and bytes that some program keeps already, or this one, which nobody may write from now on.
// Small tensors stay as they are.
graph::Tensor share_constant(graph::Tensor tensor);
// The same for one that its owner may write to later: where none is kept yet, a copy of it.
graph::Tensor share_copy(const graph::Tensor& tensor);

}  // namespace deepseek::runtime
