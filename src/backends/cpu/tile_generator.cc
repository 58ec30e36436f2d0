#include "backends/cpu/tile_generator.h"

#if defined(__x86_64__)

namespace deepseek::backends::cpu {

namespace {

constexpr size_t kBytes = 4096;  // of code at first; it grows

}  // namespace

Generator::Generator(const std::vector<TileCode::Leaf>& leaves, const std::vector<TileCode::Operation>& operations,
                     const std::vector<TileCode::Store>& stores, int lanes)
    : CodeGenerator(kBytes, Xbyak::AutoGrow),
      leaves_(leaves),
      operations_(operations),
      stores_(stores),
      lanes_(lanes),
      wide_(lanes == 16),
      bf16_(wide_ && __builtin_cpu_supports("avx512bf16")) {
  values_.resize(leaves.size() + operations.size());
  for (size_t i = 0; i < operations.size(); ++i)
    for (int v : operations[i].operands) values_[static_cast<size_t>(v)].last_use = static_cast<int>(i);
  for (const TileCode::Store& s : stores)
    values_[static_cast<size_t>(s.value)].last_use = static_cast<int>(operations.size());
  generate();
  ready(PROTECT_RE);
}

// ---- Frame: rdi leaves, rsi outputs, rdx n, a multiple of the lanes; rcx the element; rax scratch; scalars on the
// stack.
void Generator::generate() {
  const std::vector<Xbyak::Reg64> saved = {rbx, rbp, r12, r13, r14, r15};
  pointers_ = {r8, r9, r10, r11, rbx, rbp, r12, r13, r14, r15};
  for (const Xbyak::Reg64& r : saved) push(r);
  int slots = 0;
  for (const TileCode::Leaf& leaf : leaves_) slots += leaf.scalar;
  const int frame = (slots * 4 + 15) / 16 * 16;
  if (frame > 0) sub(rsp, frame);
  // Which operands have a register for their address.
  size_t next = 0;
  int slot = 0;
  for (size_t i = 0; i < leaves_.size(); ++i) {
    leaf_slot_.push_back(-1);
    leaf_pointer_.push_back(-1);
    if (values_[i].last_use < 0) continue;
    if (leaves_[i].scalar) {
      mov(rax, ptr[rdi + static_cast<int>(i) * 8]);
      mov(eax, dword[rax]);
      mov(dword[rsp + slot * 4], eax);
      leaf_slot_.back() = slot++;
    } else if (next < pointers_.size()) {
      mov(pointers_[next], ptr[rdi + static_cast<int>(i) * 8]);
      leaf_pointer_.back() = static_cast<int>(next++);
    }
  }
  std::vector<int> outputs;
  for (const TileCode::Operation& op : operations_)
    if (op.output >= 0) outputs.push_back(op.output);
  for (const TileCode::Store& s : stores_)
    if (!s.sums) outputs.push_back(s.output);
  for (int o : outputs)
    if (next < pointers_.size() && output_pointer_.count(o) == 0) {
      mov(pointers_[next], ptr[rsi + o * 8]);
      output_pointer_[o] = static_cast<int>(next++);
    }
  xor_(ecx, ecx);
  // Sums stay in the last registers.
  for (const TileCode::Store& s : stores_)
    if (s.sums) {
      if (++num_sums_ > (wide_ ? 8 : 4)) throw Unsupported();
      const Vec sum = vec(registers() - num_sums_);
      vxorps(sum, sum, sum);
    }
  Xbyak::Label again, done;
  test(rdx, rdx);
  jz(done, T_NEAR);
  align(16);
  L(again);
  body();
  add(rcx, lanes_);
  cmp(rcx, rdx);
  jl(again, T_NEAR);
  L(done);
  int sum = registers();
  for (const TileCode::Store& s : stores_)
    if (s.sums) {
      mov(rax, ptr[rsi + s.output * 8]);
      vmovups(ptr[rax], vec(--sum));
    }
  if (frame > 0) add(rsp, frame);
  for (size_t i = saved.size(); i-- > 0;) pop(saved[i]);
  vzeroupper();
  ret();
  align(32);
  for (auto& [bits, label] : constants_) {
    L(label);
    for (int i = 0; i < (wide_ ? 1 : lanes_); ++i) dd(bits);  // broadcast as it is read, or whole vectors
  }
  L(ones_);  // of bool
  for (int i = 0; i < 4; ++i) dd(0x01010101u);
}

void Generator::body() {
  for (int r = registers() - num_sums_; r-- > 0;) free_vectors_.push_back(r);
  if (wide_) free_opmasks_ = {7, 6, 5, 4, 3, 2, 1};
  for (size_t i = 0; i < operations_.size(); ++i) {
    const TileCode::Operation& op = operations_[i];
    const size_t id = leaves_.size() + i;
    const Emit emit = find_emit(op.op, op.in, op.out);
    if (emit == nullptr) throw Unsupported();
    (this->*emit)(op, id);
    for (const auto& [free, reg] : temporaries_) free->push_back(reg);
    temporaries_.clear();
    if (op.output >= 0) store(static_cast<int>(id), op.output, op.out);
    for (int v : op.operands) release(static_cast<size_t>(v), static_cast<int>(i));
    if (values_[id].last_use < 0) release(id, -1);
  }
  int sum = registers();
  for (const TileCode::Store& s : stores_) {
    if (!s.sums) {
      store(s.value, s.output, s.dtype);
    } else {
      --sum;
      vaddps(vec(sum), vec(sum), vector(s.value));
    }
  }
}

// ---- Registers.
int Generator::take(std::vector<int>& free) {
  if (free.empty()) throw Unsupported();
  const int reg = free.back();
  free.pop_back();
  return reg;
}
Generator::Vec Generator::temporary() {
  const int reg = take(free_vectors_);
  temporaries_.emplace_back(&free_vectors_, reg);
  return vec(reg);
}
Generator::Mask Generator::temporary_mask() {
  const int reg = take(free_masks());
  temporaries_.emplace_back(&free_masks(), reg);
  return {reg};
}
void Generator::release(size_t v, int operation) {
  Place& p = values_[v];
  if (p.last_use != operation || p.reg < 0) return;
  (is_mask(v) ? free_masks() : free_vectors_).push_back(p.reg);
  p.reg = -1;
}
Generator::Vec Generator::result(size_t v) {
  values_[v].reg = take(free_vectors_);
  return vec(values_[v].reg);
}
Generator::Mask Generator::mask_result(size_t v) {
  values_[v].reg = take(free_masks());
  return {values_[v].reg};
}

// ---- Memory.
Xbyak::Reg64 Generator::base(int pointer, const Xbyak::Reg64& all, int index) {
  if (pointer >= 0) return pointers_[static_cast<size_t>(pointer)];
  mov(rax, ptr[all + index * 8]);
  return rax;
}
Xbyak::RegExp Generator::at(int pointer, const Xbyak::Reg64& all, int index, DType dtype) {
  return base(pointer, all, index) + rcx * static_cast<int>(size_of(dtype));
}

Generator::Vec Generator::vector(int value) {
  const auto v = static_cast<size_t>(value);
  Place& p = values_[v];
  if (p.reg >= 0) return vec(p.reg);
  p.reg = take(free_vectors_);
  const Vec z = vec(p.reg);
  const TileCode::Leaf& leaf = leaves_[v];
  if (leaf.scalar) {
    vbroadcastss(z, dword[rsp + leaf_slot_[v] * 4]);
    return z;
  }
  if (leaf.vector) {
    vmovups(z, ptr[base(leaf_pointer_[v], rdi, value)]);
    return z;
  }
  const Xbyak::RegExp address = at(leaf_pointer_[v], rdi, value, leaf.dtype);
  if (leaf.dtype == DType::kF32 || leaf.dtype == DType::kI32) {
    vmovups(z, ptr[address]);
  } else if (leaf.dtype == DType::kBF16) {
    vpmovzxwd(z, ptr[address]);
    vpslld(z, z, 16);
  } else if (leaf.dtype == DType::kF16) {
    vcvtph2ps(z, ptr[address]);
  } else {
    throw Unsupported();
  }
  return z;
}
Generator::Mask Generator::mask(int value) {
  const auto v = static_cast<size_t>(value);
  Place& p = values_[v];
  if (p.reg >= 0) return {p.reg};
  p.reg = take(free_masks());
  const Vec x = temporary();
  const Xbyak::RegExp address = at(leaf_pointer_[v], rdi, value, DType::kBool);
  if (wide_) {
    const Xbyak::Xmm bytes(x.getIdx());
    vmovdqu8(bytes, ptr[address]);
    vptestmb(Xbyak::Opmask(p.reg), bytes, bytes);
  } else {
    const Vec zero = temporary();
    vxorps(zero, zero, zero);
    vpmovzxbd(x, ptr[address]);
    vpcmpgtd(vec(p.reg), x, zero);
  }
  return {p.reg};
}

void Generator::store(int value, int output, DType dtype) {
  const auto found = output_pointer_.find(output);
  const int pointer = found == output_pointer_.end() ? -1 : found->second;
  const int spare = take(free_vectors_);  // back at the end
  const Vec x = vec(spare);
  const Xbyak::Xmm low(spare);
  if (dtype == DType::kBool) {
    const Mask m = mask(value);
    const Xbyak::RegExp address = at(pointer, rsi, output, dtype);
    if (wide_) {
      vmovdqu8(low | Xbyak::Opmask(m.reg) | T_z, ptr[rip + ones_]);
      vmovdqu8(ptr[address], low);
    } else {
      vpsrld(x, vec(m.reg), 31);
      to_words(x);
      vpackuswb(low, low, low);
      vmovq(ptr[address], low);
    }
  } else {
    const Vec z = vector(value);
    const Xbyak::RegExp address = at(pointer, rsi, output, dtype);
    if (dtype == DType::kF32) {
      vmovups(ptr[address], z);
    } else {
      narrow(x, z, dtype);
      if (wide_)
        vmovdqu16(ptr[address], half(x));
      else
        vmovdqu(ptr[address], half(x));
    }
  }
  free_vectors_.push_back(spare);
  for (const auto& [free, reg] : temporaries_) free->push_back(reg);
  temporaries_.clear();
}

void Generator::to_words(const Vec& x) {
  const int high = take(free_vectors_);
  vextracti128(Xbyak::Xmm(high), Xbyak::Ymm(x.getIdx()), 1);
  vpackusdw(Xbyak::Xmm(x.getIdx()), Xbyak::Xmm(x.getIdx()), Xbyak::Xmm(high));
  free_vectors_.push_back(high);
}

void Generator::narrow(const Vec& to, const Vec& from, DType dtype) {
  if (dtype == DType::kF16) {
    vcvtps2ph(half(to), from, 0);  // to nearest even
    return;
  }
  if (bf16_) {
    vcvtneps2bf16(half(to), from);
    return;
  }
  // bits + 0x7fff + the last bit that stays, and a quiet NaN for a NaN.
  const Mask nan{take(free_masks())};
  const int quiet = take(free_vectors_);
  compare(nan, from, from, kUnordered);
  vpsrld(to, from, 16);
  vandps(to, to, number(1u));
  vpaddd(to, to, number(0x7fffu));
  vpaddd(to, to, from);
  vorps(vec(quiet), from, number(0x400000u));
  move_where(to, nan, vec(quiet));
  vpsrld(to, to, 16);
  if (wide_)
    vpmovdw(half(to), to);
  else
    to_words(to);
  free_vectors_.push_back(quiet);
  free_masks().push_back(nan.reg);
}

}  // namespace deepseek::backends::cpu
#endif
