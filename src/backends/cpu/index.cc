// Moves by index: gather and its adjoint, take_along_axis and its adjoint, one_hot, iota. All dtypes.
// Each element of a sum is added in the order of the indices by one thread, so results don't depend on the thread
// count.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"
#include "ops/common.h"

namespace deepseek::backends::cpu {

namespace {

constexpr int64_t kGrain = 16384;  // elements per thread below which a second thread does not pay

// A tensor around one axis: [outer][n][inner].
struct Axis {
  int64_t outer, n, inner;
  Axis(const graph::Dims& dims, int64_t axis)
      : outer(graph::product(std::span(dims).first(static_cast<size_t>(axis)))),
        n(dims[axis]),
        inner(graph::product(std::span(dims).subspan(static_cast<size_t>(axis) + 1))) {}
};

template <class I>
Status check_indices(const I* indices, int64_t count, int64_t n) {
  std::atomic<bool> good = true;
  parallel_for(count, 4 * kGrain, [&](int64_t begin, int64_t end) {
    bool all = true;
    for (int64_t i = begin; i < end; ++i) all &= indices[i] >= 0 && indices[i] < n;
    if (!all) good = false;
  });
  for (int64_t i = 0; !good && i < count; ++i)
    if (indices[i] < 0 || indices[i] >= n)
      return invalid("index {} at position {} is out of range [0, {})", indices[i], i, n);
  return {};
}

template <class T, class I>
void gather(const T* x, Axis a, const I* indices, int64_t count, T* y) {
  parallel_for(a.outer * count, std::max<int64_t>(1, kGrain / std::max<int64_t>(a.inner, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t k = begin; k < end; ++k) {
                   const T* from = x + (k / count * a.n + indices[k % count]) * a.inner;
                   if (a.inner == 1)
                     y[k] = *from;
                   else
                     std::memcpy(y + k * a.inner, from, static_cast<size_t>(a.inner) * sizeof(T));
                 }
               });
}

template <class T, class U>
void add_row(T* y, const U* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

// y[outer][indices[i]][inner] += u[outer][i][inner]. Threads own columns where there are many, else rows of y, each
// reading all indices.
template <class T, class U, class I>
void scatter_add(const U* u, Axis a, const I* indices, int64_t count, T* y) {
  const int64_t columns = a.outer * a.inner;
  std::fill_n(y, columns * a.n, T{});
  if (columns * count == 0) return;
  if (columns >= 64 * num_threads() || a.n < 2 * num_threads()) {
    parallel_for(columns, std::max<int64_t>(16, kGrain / count), [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end;) {
        const int64_t o = at / a.inner, j = at % a.inner, width = std::min(a.inner - j, end - at);
        for (int64_t i = 0; i < count; ++i)
          add_row(y + (o * a.n + indices[i]) * a.inner + j, u + (o * count + i) * a.inner + j, width);
        at += width;
      }
    });
    return;
  }
  parallel_for(a.n, std::max<int64_t>(1, a.n * kGrain / (count * columns)), [&](int64_t begin, int64_t end) {
    for (int64_t o = 0; o < a.outer; ++o)
      for (int64_t i = 0; i < count; ++i)
        if (indices[i] >= begin && indices[i] < end)
          add_row(y + (o * a.n + indices[i]) * a.inner, u + (o * count + i) * a.inner, a.inner);
  });
}

template <class T, class I>
void take_along(const T* x, Axis a, const I* indices, int64_t k, T* y) {
  parallel_for(a.outer * k, std::max<int64_t>(1, kGrain / std::max<int64_t>(a.inner, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row)
                   for (int64_t j = 0; j < a.inner; ++j)
                     y[row * a.inner + j] = x[(row / k * a.n + indices[row * a.inner + j]) * a.inner + j];
               });
}

// y's column (outer, inner) takes only that column's updates.
template <class T, class U, class I>
void put_along(const U* u, Axis a, const I* indices, int64_t k, T* y) {
  std::fill_n(y, a.outer * a.n * a.inner, T{});
  parallel_for(a.outer * a.inner, std::max<int64_t>(1, kGrain / std::max<int64_t>(k, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t at = begin; at < end;) {
                   const int64_t o = at / a.inner, j = at % a.inner, width = std::min(a.inner - j, end - at);
                   for (int64_t i = 0; i < k; ++i)
                     for (int64_t c = j; c < j + width; ++c)
                       y[(o * a.n + indices[(o * k + i) * a.inner + c]) * a.inner + c] += u[(o * k + i) * a.inner + c];
                   at += width;
                 }
               });
}

// Half floats are summed in f32, in scratch memory.
class ScatterKernel : public Kernel {
 public:
  ScatterKernel(const NodeInfo& node, Axis y, bool along)
      : type_(node.outputs[0]),
        index_(node.context.in(1)),
        axis_(y),
        count_(index_.num_elements()),
        steps_(along ? count_ / std::max<int64_t>(y.outer * y.inner, 1) : count_),
        along_(along) {}
  size_t scratch_bytes() const override {
    return size_of(type_.dtype) == 2 ? static_cast<size_t>(type_.num_elements()) * sizeof(float) : 0;
  }
  Status run(const KernelArgs& args) const override {
    return index_.dtype == DType::kI32 ? run_indexed<int32_t>(args) : run_indexed<int64_t>(args);
  }

 private:
  template <class T, class U, class I>
  void add(const KernelArgs& args, const I* indices, void* y) const {
    const U* u = static_cast<const U*>(args.in[0]);
    if (along_)
      put_along(u, axis_, indices, steps_, static_cast<T*>(y));
    else
      scatter_add(u, axis_, indices, steps_, static_cast<T*>(y));
  }
  template <class H, class I>
  void add_half(const KernelArgs& args, const I* indices) const {
    add<float, H>(args, indices, args.scratch);
    const float* sums = static_cast<const float*>(args.scratch);
    H* y = static_cast<H*>(args.out[0]);
    parallel_for(type_.num_elements(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = H(sums[i]);
    });
  }

  template <class I>
  Status run_indexed(const KernelArgs& args) const {
    const I* indices = static_cast<const I*>(args.in[1]);
    DS_TRY(check_indices(indices, count_, axis_.n));
    switch (type_.dtype) {
      case DType::kF32: add<float, float>(args, indices, args.out[0]); break;
      case DType::kF64: add<double, double>(args, indices, args.out[0]); break;
      case DType::kI32: add<uint32_t, uint32_t>(args, indices, args.out[0]); break;
      case DType::kI64: add<uint64_t, uint64_t>(args, indices, args.out[0]); break;
      case DType::kBF16: add_half<BF16>(args, indices); break;
      default: add_half<F16>(args, indices);
    }
    return {};
  }

  graph::TensorType type_, index_;
  Axis axis_;
  int64_t count_, steps_;
  bool along_;
};

}  // namespace

KernelOrError make_gather(const NodeInfo& node) {
  const graph::TensorType &x = node.context.in(0), &index = node.context.in(1);
  DS_ASSIGN(const int64_t axis, ops::normalize_axis(node.context.integer("axis"), x.rank()));
  const bool along = node.context.op->name.value == "take_along_axis";
  const int64_t count = index.num_elements(), k = along ? index.dims[axis] : count;
  return make_kernel([=, a = Axis(x.dims, axis)](const KernelArgs& args) -> Status {
    return visit_index(index.dtype, [&](auto i) -> Status {
      const auto* indices = static_cast<const decltype(i)*>(args.in[1]);
      DS_TRY(check_indices(indices, count, a.n));
      visit_size(size_of(x.dtype), [&](auto element) {
        using T = decltype(element);
        const T* from = static_cast<const T*>(args.in[0]);
        T* to = static_cast<T*>(args.out[0]);
        if (along)
          take_along(from, a, indices, k, to);
        else
          gather(from, a, indices, k, to);
      });
      return {};
    });
  });
}

Status takes_scatter(const NodeInfo& node) {
  const DType dtype = node.outputs[0].dtype;
  return size_of(dtype) > 1 ? Status() : refuse(fmt::format("sums of {} are not supported", to_string(dtype)));
}

KernelOrError make_scatter(const NodeInfo& node) {
  const graph::TensorType& y = node.outputs[0];
  DS_ASSIGN(const int64_t axis, ops::normalize_axis(node.context.integer("axis"), y.rank()));
  const bool along = node.context.op->name.value == "put_along_axis_add";
  return std::unique_ptr<Kernel>(std::make_unique<ScatterKernel>(node, Axis(y.dims, axis), along));
}

KernelOrError make_one_hot(const NodeInfo& node) {
  const graph::TensorType &index = node.context.in(0), &y = node.outputs[0];
  const int64_t depth = node.context.integer("depth"), count = index.num_elements();
  const size_t size = size_of(y.dtype);
  uint64_t one = 0;
  store_from_double(y.dtype, &one, 0, 1);
  return make_kernel([=](const KernelArgs& args) -> Status {
    return visit_index(index.dtype, [&](auto i) -> Status {
      const auto* indices = static_cast<const decltype(i)*>(args.in[0]);
      DS_TRY(check_indices(indices, count, depth));
      char* to = static_cast<char*>(args.out[0]);
      parallel_for(count, std::max<int64_t>(1, kGrain / depth), [&](int64_t begin, int64_t end) {
        const size_t row = static_cast<size_t>(depth) * size;
        std::memset(to + static_cast<size_t>(begin) * row, 0, static_cast<size_t>(end - begin) * row);
        for (int64_t k = begin; k < end; ++k)
          std::memcpy(to + static_cast<size_t>(k) * row + static_cast<size_t>(indices[k]) * size, &one, size);
      });
      return {};
    });
  });
}

KernelOrError make_iota(const NodeInfo& node) {
  const graph::TensorType& y = node.outputs[0];
  DS_ASSIGN(const int64_t axis, ops::normalize_axis(node.context.integer("axis"), y.rank()));
  return make_kernel([y, a = Axis(y.dims, axis)](const KernelArgs& args) -> Status {
    parallel_for(a.outer * a.n, std::max<int64_t>(1, kGrain / std::max<int64_t>(a.inner, 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row)
                     for (int64_t j = 0; j < a.inner; ++j)
                       store_from_double(y.dtype, args.out[0], row * a.inner + j, static_cast<double>(row % a.n));
                 });
    return {};
  });
}

}  // namespace deepseek::backends::cpu
