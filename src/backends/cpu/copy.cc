// Ops that only move elements: transpose, slice, flip, broadcast copies, concat, pad. All are strided copies.
#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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
  size_t size = 4, input = 0;
};

// The same copy over as few axes as can be: those of size 1 go, neighbours that step as one on both sides are joined.
void simplify(StridedCopy& c) {
  Dims dims, src, dst;
  for (size_t i = 0; i < c.dims.size(); ++i) {
    if (c.dims[i] == 1) continue;
    if (!dims.empty() && src.back() == c.src[i] * c.dims[i] && dst.back() == c.dst[i] * c.dims[i]) {
      dims.back() *= c.dims[i];
      src.back() = c.src[i];
      dst.back() = c.dst[i];
    } else {
      dims.push_back(c.dims[i]);
      src.push_back(c.src[i]);
      dst.push_back(c.dst[i]);
    }
  }
  if (dims.empty()) dims = src = dst = {1};
  c.dims = dims;
  c.src = src;
  c.dst = dst;
}

template <class T>
void copy_row(const T* s, T* d, int64_t n, int64_t ss, int64_t ds) {
  if (ss == 1 && ds == 1)
    std::memcpy(d, s, static_cast<size_t>(n) * sizeof(T));
  else
    for (int64_t i = 0; i < n; ++i) d[i * ds] = s[i * ss];
}

#if defined(__SSE2__)
// Sides of the squares that are transposed in registers, by the size of an element.
constexpr int64_t square_side(size_t size) { return size == 2 ? 8 : size == 4 ? 4 : 0; }

void transpose_square(const uint16_t* s, uint16_t* d, int64_t sj, int64_t di) {
  __m128i r[8], t[8];
  for (int64_t j = 0; j < 8; ++j) r[j] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(s + j * sj));
  for (int j = 0; j < 4; ++j) {  // pairs of rows j and j + 4, three times: the numbers of a column come together
    t[2 * j] = _mm_unpacklo_epi16(r[j], r[j + 4]);
    t[2 * j + 1] = _mm_unpackhi_epi16(r[j], r[j + 4]);
  }
  for (int j = 0; j < 4; ++j) {
    r[2 * j] = _mm_unpacklo_epi16(t[j], t[j + 4]);
    r[2 * j + 1] = _mm_unpackhi_epi16(t[j], t[j + 4]);
  }
  for (int j = 0; j < 4; ++j) {
    t[2 * j] = _mm_unpacklo_epi16(r[j], r[j + 4]);
    t[2 * j + 1] = _mm_unpackhi_epi16(r[j], r[j + 4]);
  }
  for (int64_t i = 0; i < 8; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(d + i * di), t[i]);
}
void transpose_square(const uint32_t* s, uint32_t* d, int64_t sj, int64_t di) {
  __m128 r[4];
  for (int64_t j = 0; j < 4; ++j) r[j] = _mm_loadu_ps(reinterpret_cast<const float*>(s + j * sj));
  _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
  for (int64_t i = 0; i < 4; ++i) _mm_storeu_ps(reinterpret_cast<float*>(d + i * di), r[i]);
}
#endif

// d[i * di + j] = s[i + j * sj]: tiles, so that each line of either side is used whole while it is in cache.
template <class T>
void transpose_tile(const T* s, T* d, int64_t rows, int64_t columns, int64_t sj, int64_t di) {
  constexpr int64_t kTile = 16;
  for (int64_t i0 = 0; i0 < rows; i0 += kTile)
    for (int64_t j0 = 0; j0 < columns; j0 += kTile) {
      const int64_t i1 = std::min(rows, i0 + kTile), j1 = std::min(columns, j0 + kTile);
      int64_t in_squares = i0;  // rows before it are done
#if defined(__SSE2__)
      if constexpr (constexpr int64_t kSide = square_side(sizeof(T)); kSide > 0)
        if ((j1 - j0) % kSide == 0)
          for (; in_squares + kSide <= i1; in_squares += kSide)
            for (int64_t j = j0; j < j1; j += kSide)
              transpose_square(s + in_squares + j * sj, d + in_squares * di + j, sj, di);
#endif
      for (int64_t i = in_squares; i < i1; ++i)
        for (int64_t j = j0; j < j1; ++j) d[i * di + j] = s[i + j * sj];
    }
}

// Steps through the outer axes of a copy, keeping both offsets.
class Walk {
 public:
  Walk(const Dims& dims, const Dims& src, const Dims& dst, int64_t start)
      : dims_(dims), src_(src), dst_(dst), at_(dims.size()) {
    for (size_t i = dims.size(); i-- > 0; start /= dims[i]) {
      at_[i] = start % dims[i];
      from += at_[i] * src[i];
      to += at_[i] * dst[i];
    }
  }
  void step() {
    for (size_t i = dims_.size(); i-- > 0;) {
      from += src_[i];
      to += dst_[i];
      if (++at_[i] < dims_[i]) return;
      from -= src_[i] * dims_[i];
      to -= dst_[i] * dims_[i];
      at_[i] = 0;
    }
  }
  int64_t from = 0, to = 0;

 private:
  const Dims &dims_, &src_, &dst_;
  Dims at_;
};

template <class T>
void run_copy(const StridedCopy& c, const void* src, void* dst) {
  const T* s = static_cast<const T*>(src) + c.src_start;
  T* d = static_cast<T*>(dst) + c.dst_start;
  Dims dims = c.dims, from = c.src, to = c.dst;
  const int64_t inner = dims.back(), inner_from = from.back(), inner_to = to.back();
  dims.pop_back();
  from.pop_back();
  to.pop_back();
  const auto unit = std::find(from.begin(), from.end(), 1) - from.begin();
  if (inner_from != 1 && inner_to == 1 && unit < static_cast<int64_t>(from.size())) {
    // One axis is contiguous in the source and another in the destination. Long ones are split among threads.
    const int64_t rows = dims[unit], row_to = to[unit], part = 256, parts = (rows + part - 1) / part;
    dims[unit] = parts;
    from[unit] = part;
    to[unit] = part * row_to;
    const int64_t count = graph::product(dims), stride = graph::product(std::span(dims).subspan(unit + 1));
    parallel_for(count, std::max<int64_t>(1, 32768 / (inner * std::min(rows, part))), [&](int64_t begin, int64_t end) {
      Walk walk(dims, from, to, begin);
      for (int64_t r = begin; r < end; ++r, walk.step()) {
        const int64_t first = r / stride % parts * part;
        transpose_tile(s + walk.from, d + walk.to, std::min(part, rows - first), inner, inner_from, row_to);
      }
    });
    return;
  }
  parallel_for(graph::product(dims), std::max<int64_t>(1, 32768 / inner), [&](int64_t begin, int64_t end) {
    Walk walk(dims, from, to, begin);
    for (int64_t r = begin; r < end; ++r, walk.step())
      copy_row(s + walk.from, d + walk.to, inner, inner_from, inner_to);
  });
}

void run_copy(const StridedCopy& c, const void* src, void* dst) {
  if (c.size == 1) return run_copy<uint8_t>(c, src, dst);
  if (c.size == 2) return run_copy<uint16_t>(c, src, dst);
  if (c.size == 4) return run_copy<uint32_t>(c, src, dst);
  run_copy<uint64_t>(c, src, dst);
}

}  // namespace

KernelOrError make_copy(const NodeInfo& node) {
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
      copies.back().input = copies.size() - 1;
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
      return internal_error("'{}' is no copy", op);
    }
    copies.push_back(std::move(copy));
  }
  std::erase_if(copies, [](const StridedCopy& copy) { return graph::product(copy.dims) == 0; });
  for (StridedCopy& copy : copies) {
    copy.size = size_of(y.dtype);
    simplify(copy);
  }
  const double value = fill ? c.number("value") : 0;
  return make_kernel([copies, y, fill, value](const KernelArgs& args) -> Status {
    if (fill) {
      if (value == 0)
        std::memset(args.out[0], 0, y.num_bytes());
      else
        for (int64_t i = 0; i < y.num_elements(); ++i) store_from_double(y.dtype, args.out[0], i, value);
    }
    for (const StridedCopy& copy : copies) run_copy(copy, args.in[copy.input], args.out[0]);
    return {};
  });
}

}  // namespace deepseek::backends::cpu
