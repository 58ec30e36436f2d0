// What ops say of operands whose dtypes don't go together.
#pragma once

#include "graph/tensor_type.h"

namespace deepseek::ops {

// The error of two operands that must be floats of one dtype, with what most likely has to be done.
Status not_one_float_dtype(const graph::TensorType& a, const graph::TensorType& b);

}  // namespace deepseek::ops
