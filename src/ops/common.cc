#include "ops/common.h"

#include <algorithm>

namespace deepseek::ops {

Result<int64_t> normalize_axis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= rank) return invalid("expected an axis in [{}, {}), got {}", -rank, rank, axis);
  return axis < 0 ? axis + rank : axis;
}

Result<Dims> normalize_axes(const Dims& axes, int64_t rank) {
  Dims out;
  if (axes.empty())
    for (int64_t i = 0; i < rank; ++i) out.push_back(i);
  for (int64_t axis : axes) {
    DS_ASSIGN(int64_t a, normalize_axis(axis, rank));
    out.push_back(a);
  }
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end())
    return invalid("expected different axes, got {}", to_string(axes));
  return out;
}

TypesOrError same_as_input(const OpContext& c) { return std::vector<TensorType>{c.in(0)}; }

TypesOrError float_like_input(const OpContext& c) {
  if (!is_float(c.in(0).dtype)) return invalid("expected a float tensor, got {}; cast it first", to_string(c.in(0)));
  return std::vector<TensorType>{c.in(0)};
}

bool next_index(Dims& index, const Dims& dims) {
  for (size_t i = dims.size(); i-- > 0;) {
    if (++index[i] < dims[i]) return true;
    index[i] = 0;
  }
  return false;
}

int64_t broadcast_offset(const Dims& index, const Dims& dims) {
  int64_t offset = 0;
  const size_t extra = index.size() - dims.size();
  for (size_t i = 0; i < dims.size(); ++i) offset = offset * dims[i] + (dims[i] == 1 ? 0 : index[i + extra]);
  return offset;
}

void moves_all(const OpContext&, std::span<const TensorType>, graph::Cost& cost) { cost.flops = 0; }

void moves_part(const OpContext& c, std::span<const TensorType> outputs, graph::Cost& cost) {
  size_t written = 0;
  for (const TensorType& t : outputs) written += t.num_bytes();
  size_t moved = written;
  for (const TensorType& t : c.inputs) moved += std::min(written, t.num_bytes());
  cost = {0, static_cast<double>(moved)};
}

Status add_all(OpRegistry& registry, std::vector<OpDef> defs) {
  for (OpDef& def : defs) DS_TRY(registry.add(std::move(def)));
  return {};
}

}  // namespace deepseek::ops
