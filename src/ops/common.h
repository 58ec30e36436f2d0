// What op families share: axis checks, simple inference functions, index iteration for reference kernels.
#pragma once

#include "graph/builder.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::ops {

using graph::AttrKind;
using graph::AttrSpec;
using graph::Fill;
using graph::GradContext;
using graph::Gradient;
using graph::OpContext;
using graph::OpDef;
using graph::OperandSpec;
using graph::OpRegistry;
using graph::Precision;
using graph::product;
using graph::Reference;
using graph::RefTensor;
using graph::Sample;
using graph::SampleInput;
using graph::to_string;
using graph::Traits;
using graph::TypesOrError;

// `axis` in [0, rank), negative from the end; the message names both.
Result<int64_t> normalize_axis(int64_t axis, int64_t rank);
// Sorted unique axes; empty means all.
Result<Dims> normalize_axes(const Dims& axes, int64_t rank);

TypesOrError same_as_input(const OpContext& c);     // one output of input 0's type
TypesOrError float_like_input(const OpContext& c);  // the same, and the dtype must be a float

// Steps a row-major index; false after the last.
bool next_index(Dims& index, const Dims& dims);
// Offset in a row-major array of `dims` of an index of a shape it broadcasts to.
int64_t broadcast_offset(const Dims& index, const Dims& dims);

// From element `first` on; null where there is nothing, as no offset may be added to null.
inline const double* elements(const RefTensor& x, int64_t first) {
  return x.data.empty() ? nullptr : x.data.data() + first;
}
inline double* elements(RefTensor& x, int64_t first) { return x.data.empty() ? nullptr : x.data.data() + first; }

inline SampleInput f32(Dims dims, Fill fill = Fill::kNormal) { return {{DType::kF32, std::move(dims)}, fill}; }
inline SampleInput indices(Dims dims, int64_t limit) { return {{DType::kI64, std::move(dims)}, Fill::kIndices, limit}; }

// CostFn of ops that move elements and compute nothing, and of those that also read only what they write.
void moves_all(const OpContext& c, std::span<const TensorType> outputs, graph::Cost& cost);
void moves_part(const OpContext& c, std::span<const TensorType> outputs, graph::Cost& cost);

// Registers a list, stopping at the first error.
Status add_all(OpRegistry& registry, std::vector<OpDef> defs);

}  // namespace deepseek::ops
