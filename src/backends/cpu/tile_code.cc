#include "backends/cpu/tile_code.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/microgemm.h"
#include "backends/cpu/tile_generator.h"

namespace deepseek::backends::cpu {

#if defined(__x86_64__)

int64_t TileCode::best_lanes() {
  if (has_wide_vectors() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return 16;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8 : 0;  // F16C came before AVX2
}

std::optional<TileCode> TileCode::make(const std::vector<Leaf>& leaves, const std::vector<Operation>& operations,
                                       const std::vector<Store>& stores, int64_t lanes) {
  if (lanes == 0) return {};
  try {
    auto generator = std::make_shared<Generator>(leaves, operations, stores, static_cast<int>(lanes));
    TileCode code;
    code.function_ = generator->getCode<Function>();
    code.lanes_ = lanes;
    for (const Leaf& leaf : leaves) code.leaf_sizes_.push_back(leaf.scalar || leaf.vector ? 0 : size_of(leaf.dtype));
    const auto output = [&](int o, size_t size, bool sums) {
      const size_t count = std::max(code.output_sizes_.size(), static_cast<size_t>(o) + 1);
      code.output_sizes_.resize(count);
      code.sums_.resize(count);
      code.output_sizes_[static_cast<size_t>(o)] = size;
      code.sums_[static_cast<size_t>(o)] = sums;
    };
    for (const Operation& op : operations)
      if (op.output >= 0) output(op.output, size_of(op.out), false);
    for (const Store& s : stores) output(s.output, size_of(s.dtype), s.sums);
    code.memory_ = std::move(generator);
    return code;
  } catch (const std::exception&) {  // what has no code runs as tile functions
    return {};
  }
}

bool TileCode::has(TileOp op, DType in, DType out) {
  return best_lanes() > 0 && Generator::find_emit(op, in, out) != nullptr;
}

#else

int64_t TileCode::best_lanes() { return 0; }
bool TileCode::has(TileOp, DType, DType) { return false; }

std::optional<TileCode> TileCode::make(const std::vector<Leaf>&, const std::vector<Operation>&,
                                       const std::vector<Store>&, int64_t) {
  return {};
}

#endif

void TileCode::run(const void* const* leaves, void* const* outputs, int64_t n) const {
  const int64_t whole = n / lanes_ * lanes_;
  function_(leaves, outputs, whole);
  if (whole < n) run_tail(leaves, outputs, whole, n - whole);
}

// On copies that are whole vectors.
void TileCode::run_tail(const void* const* leaves, void* const* outputs, int64_t first, int64_t n) const {
  constexpr size_t kVector = 64;
  struct Vector {
    alignas(kVector) char bytes[kVector];
  };
  thread_local std::vector<Vector> memory;
  thread_local std::vector<const void*> in;
  thread_local std::vector<void*> out;
  const size_t count = leaf_sizes_.size() + output_sizes_.size();
  if (memory.size() < count) memory.resize(count);
  in.resize(leaf_sizes_.size());
  out.resize(output_sizes_.size());
  const auto part = [](auto* base, int64_t elements, size_t size) {
    return base + elements * static_cast<int64_t>(size);
  };
  for (size_t l = 0; l < in.size(); ++l) {
    in[l] = leaves[l];
    if (leaf_sizes_[l] == 0) continue;
    char* const copy = memory[l].bytes;
    std::memcpy(copy, part(static_cast<const char*>(leaves[l]), first, leaf_sizes_[l]),
                static_cast<size_t>(n) * leaf_sizes_[l]);
    in[l] = copy;
  }
  for (size_t o = 0; o < out.size(); ++o) out[o] = memory[in.size() + o].bytes;
  function_(in.data(), out.data(), lanes_);
  for (size_t o = 0; o < out.size(); ++o) {
    if (sums_[o]) {
      for (int64_t i = 0; i < n; ++i) static_cast<float*>(outputs[o])[i] += static_cast<const float*>(out[o])[i];
    } else if (output_sizes_[o] > 0) {
      std::memcpy(part(static_cast<char*>(outputs[o]), first, output_sizes_[o]), out[o],
                  static_cast<size_t>(n) * output_sizes_[o]);
    }
  }
}

}  // namespace deepseek::backends::cpu
