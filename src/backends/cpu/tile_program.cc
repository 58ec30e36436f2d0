#include "backends/cpu/tile_program.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/tile_compile.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

constexpr int64_t kTileBytes = kTile * 8;

template <class T>
void fill(void* dst, const void* src, int64_t n) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  std::fill_n(static_cast<T*>(dst), n, value);
}
void splat(void* dst, const void* src, size_t size, int64_t n) {
  if (size == 1) return fill<uint8_t>(dst, src, n);
  if (size == 2) return fill<uint16_t>(dst, src, n);
  if (size == 4) return fill<uint32_t>(dst, src, n);
  fill<uint64_t>(dst, src, n);
}

// Repeats the first `period` bytes up to `bytes`.
void repeat(char* dst, size_t period, size_t bytes) {
  for (size_t done = period; done < bytes; done *= 2) std::memcpy(dst + done, dst, std::min(done, bytes - done));
}

// Each of n / times elements as often as that.
template <class T>
void repeat_each(const void* from, int64_t n, int64_t times, void* to) {
  const T* in = static_cast<const T*>(from);
  T* out = static_cast<T*>(to);
  for (const T* const end = out + n; out < end; out += times) std::fill_n(out, times, *in++);
}
void repeat_each(const void* from, size_t size, int64_t n, int64_t times, void* to) {
  if (size == 1) return repeat_each<uint8_t>(from, n, times, to);
  if (size == 2) return repeat_each<uint16_t>(from, n, times, to);
  if (size == 4) return repeat_each<uint32_t>(from, n, times, to);
  repeat_each<uint64_t>(from, n, times, to);
}

}  // namespace

bool TileProgram::in_place(int out, int in) const {
  int written = -1;
  for (size_t i = 0; i < instructions_.size(); ++i)
    if (instructions_[i].output == out) written = static_cast<int>(i);
  // Half outputs are stored when the whole tile of every half input has been widened; other operands may not be there.
  if (is_half(out_dtypes_[out])) written = static_cast<int>(instructions_.size());
  if (written < 0) return false;
  for (size_t l = 0; l < leaves_.size(); ++l) {
    if (leaves_[l].input != in) continue;
    int64_t step = 1;
    for (size_t i = loops_.size(); i-- > 0; step *= loops_[i])
      if (leaves_[l].strides[i] != step && loops_[i] != 1) return false;
    if (leaves_[l].walk != Leaf::kSteps || size_of(leaves_[l].dtype) != out_sizes_[out]) return false;
    const auto reads = [&](const Operand& o) { return o.leaf() && o.index == static_cast<int>(l); };
    for (size_t i = written + 1; i < instructions_.size(); ++i)
      if (std::any_of(instructions_[i].in.begin(), instructions_[i].in.end(), reads)) return false;
    for (const Sum& sum : sums_)
      if (reads(sum.from)) return false;
    for (int copy : leaf_copies_)
      if (copy == static_cast<int>(l)) return false;
    for (const Narrowed& other : narrowed_)  // stored one after another
      if (reads(other.from) && other.output != out) return false;
  }
  return true;
}

// The operand's tile of n elements from `base` on, made in `buffer` where memory does not hold it as it is. `same`:
// the buffer was filled from this base before.
const void* TileProgram::load(const Leaf& leaf, const void* base, char* buffer, bool same, int64_t n) const {
  const void* from[] = {base};
  if (leaf.plain()) {
    if (leaf.widen == nullptr) return base;
    leaf.widen(from, buffer, n);
    return buffer;
  }
  const size_t size = leaf.widen != nullptr ? sizeof(float) : size_of(leaf.dtype);
  if (leaf.walk == Leaf::kStays) {
    float wide[kTile];
    if (leaf.widen != nullptr) leaf.widen(from, wide, n / period_);
    repeat_each(leaf.widen != nullptr ? wide : base, size, n, period_, buffer);
    return buffer;
  }
  if (same) return buffer;
  const int64_t length = std::min(kTile, loops_.back());
  if (leaf.walk == Leaf::kPeriodic) {
    if (leaf.widen != nullptr)
      leaf.widen(from, buffer, period_);
    else
      std::memcpy(buffer, base, static_cast<size_t>(period_) * size);
    repeat(buffer, static_cast<size_t>(period_) * size, static_cast<size_t>(length) * size);
    return buffer;
  }
  float wide;
  if (leaf.widen != nullptr) leaf.widen(from, &wide, 1);
  splat(buffer, leaf.widen != nullptr ? &wide : base, size, length);
  return buffer;
}

template <class F>
void TileProgram::walk(int64_t begin, int64_t end, int64_t longest, F f) const {
  thread_local std::vector<int64_t> offsets;  // of leaves, then of sums
  offsets.resize(leaves_.size() + sums_.size());
  const int64_t inner = loops_.back();
  int64_t row = begin / inner, column = begin % inner;
  const auto enter_row = [&] {
    std::fill(offsets.begin(), offsets.end(), 0);
    int64_t rest = row;
    for (size_t d = loops_.size() - 1; d-- > 0; rest /= loops_[d]) {
      const int64_t index = rest % loops_[d];
      for (size_t l = 0; l < leaves_.size(); ++l) offsets[l] += index * leaves_[l].strides[d];
      for (size_t k = 0; k < sums_.size(); ++k) offsets[leaves_.size() + k] += index * sums_[k].strides[d];
    }
  };
  enter_row();
  for (int64_t at = begin; at < end;) {
    if (column == inner) {
      column = 0;
      ++row;
      enter_row();
    }
    const int64_t n = std::min({longest, inner - column, end - at});
    f(offsets.data(), at, column, n);
    at += n;
    column += n;
  }
}

const char* TileProgram::address(const Leaf& leaf, std::span<const void* const> in, int64_t offset,
                                 int64_t column) const {
  const void* const base = leaf.input >= 0 ? in[static_cast<size_t>(leaf.input)] : leaf.constant.data();
  const int64_t steps = leaf.walk == Leaf::kPeriodic ? 0 : leaf.walk == Leaf::kStays ? column / period_ : column;
  return static_cast<const char*>(base) +
         (offset + steps * leaf.strides.back()) * static_cast<int64_t>(size_of(leaf.dtype));
}

void TileProgram::add_sums(size_t k, const float* x, int64_t offset, int64_t column, int64_t n, bool by_lanes,
                           double* sums) const {
  const Sum& sum = sums_[k];
  double* to = sums + sum.offset + offset + (sum.periodic ? 0 : column * sum.strides.back());
  if (by_lanes)
    for (int64_t i = 0; i < code_->lanes(); ++i) to[sum.periodic ? i % period_ : 0] += static_cast<double>(x[i]);
  else if (sum.strides.back() == 0)
    *to += sum_tile(x, n);
  else
    add_rows(x, n, sum.periodic ? period_ : n, to);
}

bool TileProgram::run_code(std::span<const void* const> in_memory, std::span<void* const> out_memory, int64_t begin,
                           int64_t end, double* sums) const {
  for (const Instruction& i : instructions_)
    if (i.output >= 0 && out_memory[static_cast<size_t>(i.output)] == nullptr) return false;
  for (const Narrowed& o : narrowed_)
    if (out_memory[static_cast<size_t>(o.output)] == nullptr) return false;
  // A buffer per leaf, then one per sum.
  thread_local std::vector<uint64_t> storage;
  thread_local std::vector<float> numbers;
  thread_local std::vector<const void*> made, operand;
  thread_local std::vector<void*> results;
  const size_t buffers = leaves_.size() + sums_.size(), outputs = out_dtypes_.size();
  const bool tiles = std::find(in_code_.begin(), in_code_.end(), false) != in_code_.end() ||
                     std::any_of(sums_.begin(), sums_.end(), [](const Sum& sum) { return !sum.in_code; });
  // A lane's sum, of so many numbers in f32, goes on in double.
  const int64_t summed = 128 * code_->lanes();
  const int64_t longest = tiles ? kTile : !sums_.empty() ? summed : (end - begin + period_ - 1) / period_ * period_;
  if (storage.size() < buffers * kTile) storage.resize(buffers * kTile);
  char* const memory = reinterpret_cast<char*>(storage.data());
  made.assign(leaves_.size(), nullptr);
  operand.resize(leaves_.size());
  numbers.resize(leaves_.size());
  results.resize(outputs + sums_.size());
  for (size_t k = 0; k < sums_.size(); ++k)
    results[outputs + k] = memory + (leaves_.size() + k) * static_cast<size_t>(kTileBytes);
  walk(begin, end, longest / period_ * period_, [&](const int64_t* offsets, int64_t at, int64_t column, int64_t n) {
    for (size_t l = 0; l < leaves_.size(); ++l) {
      const Leaf& leaf = leaves_[l];
      const char* const base = address(leaf, in_memory, offsets[l], column);
      if (!in_code_[l]) {
        operand[l] = load(leaf, base, memory + l * static_cast<size_t>(kTileBytes), made[l] == base, n);
        made[l] = base;
      } else if (leaf.widen != nullptr && leaf.strides.back() == 0) {
        const void* from[] = {base};
        leaf.widen(from, &numbers[l], 1);
        operand[l] = &numbers[l];
      } else {
        operand[l] = base;
      }
    }
    for (size_t o = 0; o < outputs; ++o)
      if (out_memory[o] != nullptr)  // sums go elsewhere
        results[o] = static_cast<char*>(out_memory[o]) + at * static_cast<int64_t>(out_sizes_[o]);
    code_->run(operand.data(), results.data(), n);
    for (size_t k = 0; k < sums_.size(); ++k)
      add_sums(k, static_cast<const float*>(results[outputs + k]), offsets[leaves_.size() + k], column, n,
               sums_[k].in_code, sums);
  });
  return true;
}

void TileProgram::run(std::span<const void* const> in_memory, std::span<void* const> out_memory, int64_t begin,
                      int64_t end, double* sums) const {
  if (affine_) return run_affine(in_memory, out_memory, begin, end);
  if (code_ && run_code(in_memory, out_memory, begin, end, sums)) return;
  // Registers, then one buffer per leaf.
  thread_local std::vector<uint64_t> storage;
  thread_local std::vector<const void*> made, operand;
  const size_t buffers = static_cast<size_t>(num_registers_) + leaves_.size();
  if (storage.size() < buffers * kTile) storage.resize(buffers * kTile);
  made.assign(leaves_.size(), nullptr);
  operand.resize(leaves_.size());
  char* const registers = reinterpret_cast<char*>(storage.data());
  walk(begin, end, kTile / period_ * period_, [&](const int64_t* offsets, int64_t at, int64_t column, int64_t n) {
    for (size_t l = 0; l < leaves_.size(); ++l) {
      const char* const base = address(leaves_[l], in_memory, offsets[l], column);
      char* buffer = registers + (num_registers_ + static_cast<int64_t>(l)) * kTileBytes;
      operand[l] = load(leaves_[l], base, buffer, made[l] == base, n);
      made[l] = base;
    }
    const auto place = [&](const Operand& o) -> const void* {
      if (o.kind == Operand::kLeaf) return operand[o.index];
      if (o.kind == Operand::kRegister) return registers + o.index * kTileBytes;
      return static_cast<const char*>(out_memory[o.index]) + at * static_cast<int64_t>(out_sizes_[o.index]);
    };
    for (const Instruction& instruction : instructions_) {
      const void* in[4];
      for (size_t i = 0; i < instruction.in.size(); ++i) in[i] = place(instruction.in[i]);
      void* out = registers + instruction.reg * kTileBytes;
      if (instruction.output >= 0)
        out = static_cast<char*>(out_memory[instruction.output]) +
              at * static_cast<int64_t>(out_sizes_[instruction.output]);
      instruction.fn(in, out, n);
    }
    for (size_t k = 0; k < sums_.size(); ++k)
      add_sums(k, static_cast<const float*>(place(sums_[k].from)), offsets[leaves_.size() + k], column, n, false, sums);
    for (size_t o = 0; o < leaf_copies_.size(); ++o)
      if (leaf_copies_[o] >= 0 && out_memory[o] != nullptr)
        std::memcpy(static_cast<char*>(out_memory[o]) + at * static_cast<int64_t>(out_sizes_[o]),
                    operand[leaf_copies_[o]], static_cast<size_t>(n) * out_sizes_[o]);
    for (const Narrowed& o : narrowed_) {
      const void* in[] = {place(o.from)};
      if (out_memory[o.output] != nullptr)
        o.fn(in, static_cast<char*>(out_memory[o.output]) + at * static_cast<int64_t>(out_sizes_[o.output]), n);
    }
  });
}

void TileProgram::store(const double* sums, std::span<void* const> out) const {
  for (const Sum& sum : sums_) {
    const DType dtype = out_dtypes_[static_cast<size_t>(sum.output)];
    void* const to = out[static_cast<size_t>(sum.output)];
    for (int64_t i = 0; i < sum.size; ++i) {
      const double value = sums[sum.offset + i] * sum.scale;
      if (dtype == DType::kF32)
        static_cast<float*>(to)[i] = static_cast<float>(value);
      else
        store_from_double(dtype, to, i, value);
    }
  }
}

}  // namespace deepseek::backends::cpu
