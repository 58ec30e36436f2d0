#include "ops/dtypes.h"

namespace deepseek::ops {

Status not_one_float_dtype(const graph::TensorType& a, const graph::TensorType& b) {
  // Of arrays from NumPy, which are float64 and int64 by default, where weights are float32.
  const bool wide = a.dtype == DType::kF32 || b.dtype == DType::kF32;
  const DType other = a.dtype == DType::kF32 ? b.dtype : a.dtype;
  std::string advice = "; cast one of them";
  if (wide && !is_float(other))
    advice = "; where the integers are values and no indices, give them as float32: array.astype(np.float32)";
  else if (wide && other == DType::kF64)
    advice = "; give float32: array.astype(np.float32)";
  return invalid("expected two float inputs of one dtype, got {} and {}{}", to_string(a), to_string(b), advice);
}

}  // namespace deepseek::ops
