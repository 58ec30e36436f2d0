// Ops that only move elements: transpose, slice, flip, broadcast copies, concat, pad. All are strided copies.
#include <cstring>

#include "backends/cpu/kernel.h"
#include "base/threads.h"
#include "ops/common.h"

namespace deepseek::backends::cpu {

using graph::Dims;
using graph::TensorType;

namespace {

// dst[index] = src[index] over `dims`, each side with its own element strides and start.
struct StridedCopy {
  Dims dims, src, dst;
  int64_t src_start = 0, dst_start = 0;
  size_t size = 4;
};

template <class T>
void copy_row(const T* s, T* d, int64_t n, int64_t ss, int64_t ds) {
  if (ss == 1 && ds == 1)
    std::memcpy(d, s, static_cast<size_t>(n) * sizeof(T));
  else
    for (int64_t i = 0; i < n; ++i) d[i * ds] = s[i * ss];
}

template <class T>
void run_copy(const StridedCopy& c, const void* src, void* dst) {
  const T* s = static_cast<const T*>(src) + c.src_start;
  T* d = static_cast<T*>(dst) + c.dst_start;
  if (c.dims.empty()) {
    *d = *s;
    return;
  }
  const int64_t inner = c.dims.back(), rows = graph::product(c.dims) / std::max<int64_t>(inner, 1);
  if (inner == 0) return;
  parallel_for(rows, std::max<int64_t>(1, 32768 / inner), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t rest = r, so = 0, dof = 0;
      for (size_t i = c.dims.size() - 1; i-- > 0; rest /= c.dims[i]) {
        so += rest % c.dims[i] * c.src[i];
        dof += rest % c.dims[i] * c.dst[i];
      }
      copy_row(s + so, d + dof, inner, c.src.back(), c.dst.back());
    }
  });
}

void run_copy(const StridedCopy& c, const void* src, void* dst) {
  if (c.size == 1) return run_copy<uint8_t>(c, src, dst);
  if (c.size == 2) return run_copy<uint16_t>(c, src, dst);
  if (c.size == 4) return run_copy<uint32_t>(c, src, dst);
  run_copy<uint64_t>(c, src, dst);
}

}  // namespace

KernelOrRefusal make_copy(const NodeInfo& node) {
  const graph::OpContext& c = node.context;
  const std::string& op = c.op->name.value;
  const TensorType& y = node.outputs[0];
  std::vector<StridedCopy> copies;
  bool fill = false;
  if (op == "concat") {
    DS_ASSIGN(const int64_t axis, ops::normalize_axis(c.integer("axis"), y.rank()));
    int64_t begin = 0;
    const Dims strides = graph::contiguous_strides(y.dims);
    for (const TensorType& in : c.inputs) {
      copies.push_back({in.dims, graph::contiguous_strides(in.dims), strides, 0, begin * strides[axis]});
      begin += in.dims[axis];
    }
  } else {
    const TensorType& x = c.in(0);
    StridedCopy copy{y.dims, graph::contiguous_strides(x.dims), graph::contiguous_strides(y.dims)};
    if (op == "transpose") {
      Dims strides;
      for (int64_t p : c.ints("permutation")) strides.push_back(copy.src[p]);
      copy.src = strides;
    } else if (op == "slice" || op == "flip") {
      DS_ASSIGN(const int64_t axis, ops::normalize_axis(c.integer("axis"), x.rank()));
      if (op == "slice") {
        copy.src_start = c.integer("start") * copy.src[axis];
        copy.src[axis] *= c.integer("step");
      } else {
        copy.src_start = std::max<int64_t>(x.dims[axis] - 1, 0) * copy.src[axis];
        copy.src[axis] = -copy.src[axis];
      }
    } else if (op == "pad") {
      fill = true;
      copy.dims = x.dims;
      for (size_t i = 0; i < copy.dst.size(); ++i) {
        copy.dst_start += c.ints("low")[i] * copy.dst[i];
        if (!c.ints("interior").empty()) copy.dst[i] *= c.ints("interior")[i] + 1;
      }
    } else {
      return refuse("is no copy");
    }
    copies.push_back(std::move(copy));
  }
  for (StridedCopy& copy : copies) copy.size = size_of(y.dtype);
  const double value = fill ? c.number("value") : 0;
  return make_kernel([copies, y, fill, value](const KernelArgs& args) -> Status {
    if (fill) {
      if (value == 0)
        std::memset(args.out[0], 0, y.num_bytes());
      else
        for (int64_t i = 0; i < y.num_elements(); ++i) store_from_double(y.dtype, args.out[0], i, value);
    }
    for (size_t i = 0; i < copies.size(); ++i) run_copy(copies[i], args.in[i], args.out[0]);
    return {};
  });
}

}  // namespace deepseek::backends::cpu
