#include "backends/cpu/tile_code.h"

#include <algorithm>
#include <bit>
#include <exception>
#include <limits>
#include <map>

#if defined(__x86_64__)
#include <xbyak/xbyak.h>
#endif

namespace deepseek::backends::cpu {

#if defined(__x86_64__)

namespace {

constexpr int kLanes = static_cast<int>(TileCode::kLanes);
constexpr size_t kBytes = 4096;                   // of code at first; it grows
constexpr int kNearest = 8, kDown = 9, kUp = 10;  // immediates of vrndscaleps, without exceptions

bool has_instructions() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

constexpr int kMostSums = 8;

struct Unsupported : std::exception {};

class Generator : public Xbyak::CodeGenerator {
 public:
  Generator(const std::vector<TileCode::Leaf>& leaves, const std::vector<TileCode::Operation>& operations,
            const std::vector<TileCode::Store>& stores)
      : CodeGenerator(kBytes, Xbyak::AutoGrow), leaves_(leaves), operations_(operations), stores_(stores) {
    values_.resize(leaves.size() + operations.size());
    for (size_t i = 0; i < operations.size(); ++i)
      for (int v : operations[i].operands) values_[static_cast<size_t>(v)].last_use = static_cast<int>(i);
    for (const TileCode::Store& s : stores)
      values_[static_cast<size_t>(s.value)].last_use = static_cast<int>(operations.size());
    generate();
    ready(PROTECT_RE);
  }

 private:
  using Zmm = Xbyak::Zmm;
  using Opmask = Xbyak::Opmask;
  struct Place {
    int last_use = -1;  // an operation
    int reg = -1;       // a vector's, or of bool a mask's
  };

  // ---- Frame: rdi leaves, rsi outputs, rdx n; rcx the element; rax scratch; scalars on the stack.
  void generate() {
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
        if (++num_sums_ > kMostSums) throw Unsupported();
        const Zmm sum(32 - num_sums_);
        vpxord(sum, sum, sum);
      }
    Xbyak::Label again, tail, done;
    cmp(rdx, kLanes);
    jl(tail, T_NEAR);
    align(16);
    L(again);
    body(false);
    add(rcx, kLanes);
    lea(rax, ptr[rcx + kLanes]);
    cmp(rax, rdx);
    jle(again, T_NEAR);
    L(tail);
    sub(rdx, rcx);
    jle(done, T_NEAR);
    // The mask of what is left: ones up to it.
    xchg(rcx, rdx);
    mov(eax, 1);
    shl(eax, cl);
    sub(eax, 1);
    kmovw(k7, eax);
    xchg(rcx, rdx);
    body(true);
    L(done);
    int sum = 32;
    for (const TileCode::Store& s : stores_)
      if (s.sums) {
        mov(rax, ptr[rsi + s.output * 8]);
        vmovups(ptr[rax], Zmm(--sum));
      }
    if (frame > 0) add(rsp, frame);
    for (size_t i = saved.size(); i-- > 0;) pop(saved[i]);
    vzeroupper();
    ret();
    align(16);
    for (auto& [bits, label] : constants_) {
      L(label);
      dd(bits);
    }
    L(ones_);  // of bool
    for (int i = 0; i < 4; ++i) dd(0x01010101u);
  }

  void body(bool tail) {
    tail_ = tail;
    free_vectors_.clear();
    for (int r = 31 - num_sums_; r >= 0; --r) free_vectors_.push_back(r);
    free_masks_ = {6, 5, 4, 3, 2, 1};
    for (Place& p : values_) p.reg = -1;
    for (size_t i = 0; i < operations_.size(); ++i) {
      const TileCode::Operation& op = operations_[i];
      const size_t id = leaves_.size() + i;
      emit(op, id);
      while (!temporaries_.empty()) {
        free_vectors_.push_back(temporaries_.back());
        temporaries_.pop_back();
      }
      if (op.output >= 0) store(static_cast<int>(id), op.output, op.out);
      for (int v : op.operands) release(static_cast<size_t>(v), static_cast<int>(i));
      if (values_[id].last_use < 0) release(id, -1);
    }
    int sum = 32;
    for (const TileCode::Store& s : stores_) {
      if (!s.sums) {
        store(s.value, s.output, s.dtype);
        continue;
      }
      const Zmm total(--sum), z = vector(s.value);
      vaddps(tail_ ? total | k7 : total, total, z);
    }
  }

  // ---- Registers.
  bool is_mask(size_t v) const {
    return v < leaves_.size() ? leaves_[v].dtype == DType::kBool : operations_[v - leaves_.size()].out == DType::kBool;
  }
  int take(std::vector<int>& free) {
    if (free.empty()) throw Unsupported();
    const int reg = free.back();
    free.pop_back();
    return reg;
  }
  Zmm temporary() {
    temporaries_.push_back(take(free_vectors_));
    return Zmm(temporaries_.back());
  }
  void release(size_t v, int operation) {
    Place& p = values_[v];
    if (p.last_use != operation || p.reg < 0) return;
    (is_mask(v) ? free_masks_ : free_vectors_).push_back(p.reg);
    p.reg = -1;
  }
  Zmm result(size_t v) {
    values_[v].reg = take(free_vectors_);
    return Zmm(values_[v].reg);
  }
  Opmask mask_result(size_t v) {
    values_[v].reg = take(free_masks_);
    return Opmask(values_[v].reg);
  }

  // ---- Memory.
  Xbyak::RegExp at(int pointer, const Xbyak::Reg64& base, int index, DType dtype) {
    Xbyak::Reg64 reg = rax;
    if (pointer >= 0)
      reg = pointers_[static_cast<size_t>(pointer)];
    else
      mov(rax, ptr[base + index * 8]);
    return reg + rcx * static_cast<int>(size_of(dtype));
  }
  Zmm masked(const Zmm& z) const { return tail_ ? z | k7 | T_z : z; }

  // Where value v is, a leaf being loaded when it is first asked for.
  Zmm vector(int value) {
    const auto v = static_cast<size_t>(value);
    Place& p = values_[v];
    if (p.reg >= 0) return Zmm(p.reg);
    p.reg = take(free_vectors_);
    const Zmm z(p.reg);
    const TileCode::Leaf& leaf = leaves_[v];
    if (leaf.scalar) {
      vbroadcastss(z, dword[rsp + leaf_slot_[v] * 4]);
      return z;
    }
    const Xbyak::RegExp address = at(leaf_pointer_[v], rdi, value, leaf.dtype);
    if (leaf.dtype == DType::kF32) {
      vmovups(masked(z), ptr[address]);
    } else if (leaf.dtype == DType::kBF16) {
      vpmovzxwd(masked(z), ptr[address]);
      vpslld(z, z, 16);
    } else if (leaf.dtype == DType::kF16) {
      vcvtph2ps(masked(z), ptr[address]);
    } else {
      throw Unsupported();
    }
    return z;
  }
  Opmask mask(int value) {
    const auto v = static_cast<size_t>(value);
    Place& p = values_[v];
    if (p.reg >= 0) return Opmask(p.reg);
    p.reg = take(free_masks_);
    const Xbyak::Xmm x(take(free_vectors_));
    const Xbyak::RegExp address = at(leaf_pointer_[v], rdi, value, DType::kBool);
    if (tail_)
      vmovdqu8(x | k7 | T_z, ptr[address]);
    else
      vmovdqu8(x, ptr[address]);
    vptestmb(Opmask(p.reg), x, x);
    free_vectors_.push_back(x.getIdx());
    return Opmask(p.reg);
  }

  void store(int value, int output, DType dtype) {
    const auto pointer = output_pointer_.find(output);
    if (dtype == DType::kBool) {
      const Opmask k = mask(value);
      const Xbyak::Xmm x(take(free_vectors_));
      const Xbyak::RegExp address = at(pointer == output_pointer_.end() ? -1 : pointer->second, rsi, output, dtype);
      vmovdqu8(x | k | T_z, ptr[rip + ones_]);
      if (tail_)
        vmovdqu8(ptr[address] | k7, x);
      else
        vmovdqu8(ptr[address], x);
      free_vectors_.push_back(x.getIdx());
      return;
    }
    const Zmm z = vector(value);
    const Xbyak::RegExp address = at(pointer == output_pointer_.end() ? -1 : pointer->second, rsi, output, dtype);
    if (dtype == DType::kF32) {
      if (tail_)
        vmovups(ptr[address] | k7, z);
      else
        vmovups(ptr[address], z);
      return;
    }
    const Zmm half = Zmm(take(free_vectors_));
    narrow(half, z, dtype);
    const Xbyak::Ymm y(half.getIdx());
    if (tail_)
      vmovdqu16(ptr[address] | k7, y);
    else
      vmovdqu16(ptr[address], y);
    free_vectors_.push_back(half.getIdx());
  }

  // To the lower half of `to`.
  void narrow(const Zmm& to, const Zmm& from, DType dtype) {
    const Xbyak::Ymm y(to.getIdx());
    if (dtype == DType::kF16) {
      vcvtps2ph(y, from, 0);  // to nearest even
      return;
    }
    if (__builtin_cpu_supports("avx512bf16")) {
      vcvtneps2bf16(y, from);
      return;
    }
    // bits + 0x7fff + the last bit that stays, and a quiet NaN for a NaN.
    const Opmask nan(take(free_masks_));
    vcmpps(nan, from, from, 3);
    vpsrld(to, from, 16);
    vpandd(to, to, number(1u));
    vpaddd(to, to, number(0x7fffu));
    vpaddd(to, to, from);
    vpord(to | nan, from, number(0x400000u));
    vpsrld(to, to, 16);
    vpmovdw(y, to);
    free_masks_.push_back(nan.getIdx());
  }

  // ---- Constants, after the code.
  Xbyak::Address number(uint32_t bits) { return ptr_b[rip + constants_[bits]]; }
  Xbyak::Address number(float value) { return number(std::bit_cast<uint32_t>(value)); }
  // z, or those of its lanes that a mask leaves, become `value`.
  void set(const Zmm& z, float value) { vbroadcastss(z, dword[rip + constants_[std::bit_cast<uint32_t>(value)]]); }

  // ---- Operations. Formulas are those of tile_ops.cc, which names their sources.
  void emit(const TileCode::Operation& op, size_t id) {
    const auto& in = op.operands;
    if (op.in == DType::kBool && op.op != "cast") return emit_logical(op, id);
    if (op.out == DType::kBool) return emit_comparison(op, id);
    if (op.op == "select") {
      const Opmask k = mask(in[0]);
      const Zmm a = vector(in[1]), b = vector(in[2]);
      vblendmps(result(id) | k, b, a);
      return;
    }
    if (op.op == "cast") {
      if (op.in == DType::kBool) {
        const Opmask k = mask(in[0]);
        set(result(id) | k | T_z, 1.0f);
        return;
      }
      if (op.in != DType::kF32 || op.out != DType::kF32) throw Unsupported();
      const Zmm a = vector(in[0]);
      vmovaps(result(id), a);
      return;
    }
    std::vector<Zmm> x;
    for (int v : in) x.push_back(vector(v));
    const Zmm y = result(id);
    if (op.op == "round_to") {
      narrow(y, x[0], op.out);
      const Xbyak::Ymm half(y.getIdx());
      if (op.out == DType::kF16) {
        vcvtph2ps(y, half);
      } else {
        vpmovzxwd(y, half);
        vpslld(y, y, 16);
      }
      return;
    }
    if (op.in != DType::kF32 || op.out != DType::kF32) throw Unsupported();
    static const std::map<std::string, void (Generator::*)(const Zmm&, const std::vector<Zmm>&)> kOps = {
        {"add", &Generator::emit_add},         {"sub", &Generator::emit_sub},
        {"mul", &Generator::emit_mul},         {"div", &Generator::emit_div},
        {"maximum", &Generator::emit_maximum}, {"minimum", &Generator::emit_minimum},
        {"neg", &Generator::emit_neg},         {"abs", &Generator::emit_abs},
        {"sign", &Generator::emit_sign},       {"sqrt", &Generator::emit_sqrt},
        {"rsqrt", &Generator::emit_rsqrt},     {"reciprocal", &Generator::emit_reciprocal},
        {"relu", &Generator::emit_relu},       {"floor", &Generator::emit_floor},
        {"ceil", &Generator::emit_ceil},       {"round", &Generator::emit_round},
        {"mul_add", &Generator::emit_mul_add}, {"mul_sub", &Generator::emit_mul_sub},
        {"exp", &Generator::emit_exp},         {"neg_mul_add", &Generator::emit_neg_mul_add},
        {"silu", &Generator::emit_silu},       {"silu_grad", &Generator::emit_silu_grad},
        {"tanh", &Generator::emit_tanh},       {"sigmoid", &Generator::emit_sigmoid},
        {"erf", &Generator::emit_erf},         {"log", &Generator::emit_log}};
    const auto it = kOps.find(op.op);
    if (it == kOps.end()) throw Unsupported();
    (this->*it->second)(y, x);
  }

  void emit_logical(const TileCode::Operation& op, size_t id) {
    if (op.out != DType::kBool) throw Unsupported();
    std::vector<Opmask> k;
    for (int v : op.operands) k.push_back(mask(v));
    const Opmask y = mask_result(id);
    if (op.op == "logical_and") {
      kandw(y, k[0], k[1]);
    } else if (op.op == "logical_or") {
      korw(y, k[0], k[1]);
    } else if (op.op == "logical_not") {
      knotw(y, k[0]);
    } else if (op.op == "equal") {
      kxnorw(y, k[0], k[1]);
    } else if (op.op == "not_equal") {
      kxorw(y, k[0], k[1]);
    } else if (op.op == "select") {
      const Opmask part(take(free_masks_));
      kandw(part, k[0], k[1]);
      kandnw(y, k[0], k[2]);
      korw(y, y, part);
      free_masks_.push_back(part.getIdx());
    } else {
      throw Unsupported();
    }
  }

  void emit_comparison(const TileCode::Operation& op, size_t id) {
    if (op.in != DType::kF32) throw Unsupported();
    // Predicates of vcmpps, ordered but for "not equal".
    static const std::map<std::string, int> kPredicates = {{"equal", 0},     {"less", 17},    {"less_equal", 18},
                                                           {"not_equal", 4}, {"greater", 30}, {"greater_equal", 29}};
    const Zmm a = vector(op.operands[0]);
    if (op.op == "cast") {
      const Zmm zero = temporary();
      vpxord(zero, zero, zero);
      vcmpps(mask_result(id), a, zero, 4);
      return;
    }
    const auto it = kPredicates.find(op.op);
    if (it == kPredicates.end()) throw Unsupported();
    const Zmm b = vector(op.operands[1]);
    vcmpps(mask_result(id), a, b, it->second);
  }

  void emit_add(const Zmm& y, const std::vector<Zmm>& x) { vaddps(y, x[0], x[1]); }
  void emit_sub(const Zmm& y, const std::vector<Zmm>& x) { vsubps(y, x[0], x[1]); }
  void emit_mul(const Zmm& y, const std::vector<Zmm>& x) { vmulps(y, x[0], x[1]); }
  void emit_div(const Zmm& y, const std::vector<Zmm>& x) { vdivps(y, x[0], x[1]); }
  void emit_sqrt(const Zmm& y, const std::vector<Zmm>& x) { vsqrtps(y, x[0]); }
  void emit_floor(const Zmm& y, const std::vector<Zmm>& x) { vrndscaleps(y, x[0], kDown); }
  void emit_ceil(const Zmm& y, const std::vector<Zmm>& x) { vrndscaleps(y, x[0], kUp); }
  void emit_round(const Zmm& y, const std::vector<Zmm>& x) { vrndscaleps(y, x[0], kNearest); }
  void emit_neg(const Zmm& y, const std::vector<Zmm>& x) { vpxord(y, x[0], number(0x80000000u)); }
  void emit_abs(const Zmm& y, const std::vector<Zmm>& x) { vpandd(y, x[0], number(0x7fffffffu)); }
  void emit_reciprocal(const Zmm& y, const std::vector<Zmm>& x) {
    set(y, 1.0f);
    vdivps(y, y, x[0]);
  }
  void emit_rsqrt(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm root = temporary();
    vsqrtps(root, x[0]);
    emit_reciprocal(y, {root});
  }
  // The instruction gives its second operand where one is NaN: a NaN that is first is put in.
  void emit_maximum(const Zmm& y, const std::vector<Zmm>& x) { emit_extremum(y, x, true); }
  void emit_minimum(const Zmm& y, const std::vector<Zmm>& x) { emit_extremum(y, x, false); }
  void emit_extremum(const Zmm& y, const std::vector<Zmm>& x, bool largest) {
    const Opmask nan(take(free_masks_));
    vcmpps(nan, x[0], x[0], 3);
    if (largest)
      vmaxps(y, x[0], x[1]);
    else
      vminps(y, x[0], x[1]);
    vmovaps(y | nan, x[0]);
    free_masks_.push_back(nan.getIdx());
  }
  void emit_relu(const Zmm& y, const std::vector<Zmm>& x) {
    vpxord(y, y, y);
    vmaxps(y, y, x[0]);
  }
  void emit_sign(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm zero = temporary();
    const Opmask k(take(free_masks_));
    vpxord(zero, zero, zero);
    vcmpps(k, x[0], zero, 30);
    set(y | k | T_z, 1.0f);
    vcmpps(k, x[0], zero, 17);
    set(y | k, -1.0f);
    free_masks_.push_back(k.getIdx());
  }
  void emit_mul_add(const Zmm& y, const std::vector<Zmm>& x) {
    vmovaps(y, x[0]);
    vfmadd213ps(y, x[1], x[2]);
  }
  void emit_mul_sub(const Zmm& y, const std::vector<Zmm>& x) {
    vmovaps(y, x[0]);
    vfmsub213ps(y, x[1], x[2]);
  }
  void emit_neg_mul_add(const Zmm& y, const std::vector<Zmm>& x) {
    vmovaps(y, x[0]);
    vfnmadd213ps(y, x[1], x[2]);
  }

  // SafeExp of vector_math-inl.h; y may not be x.
  void emit_exp(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm n = temporary(), r = temporary();
    set(y, -105.0f);
    vmaxps(y, y, x[0]);
    set(n, 105.0f);
    vminps(r, n, y);
    vmulps(n, r, number(1.44269504f));
    vrndscaleps(n, n, kNearest);
    vfnmadd231ps(r, n, number(0.693145752f));
    vfnmadd231ps(r, n, number(1.42860677e-6f));
    set(y, 0.00139337021f);
    for (const float c : {0.00836321432f, 0.041666463f, 0.166665763f, 0.5f}) vfmadd213ps(y, r, number(c));
    const Zmm square = temporary();
    vmulps(square, r, r);
    vfmadd213ps(y, square, r);
    vaddps(y, y, number(1.0f));
    vscalefps(y, y, n);
  }
  void emit_sigmoid(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm e = temporary(), negative = temporary();
    emit_neg(negative, x);
    emit_exp(e, {negative});
    vaddps(e, e, number(1.0f));
    emit_reciprocal(y, {e});
  }
  void emit_silu(const Zmm& y, const std::vector<Zmm>& x) {
    emit_sigmoid(y, x);
    vmulps(y, y, x[0]);
  }
  // dy * s * (1 + x * (1 - s))
  void emit_silu_grad(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm s = temporary();
    emit_sigmoid(s, {x[0]});
    set(y, 1.0f);
    vsubps(y, y, s);
    vfmadd213ps(y, x[0], number(1.0f));
    vmulps(s, s, x[1]);
    vmulps(y, y, s);
  }
  // Near 0 the odd polynomial of Cephes' tanhf (Moshier), else 1 - 2 / (e^2|x| + 1) with the sign of x.
  void emit_tanh(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm a = temporary(), e = temporary(), z = temporary();
    const Opmask small(take(free_masks_));
    vpandd(a, x[0], number(0x7fffffffu));
    set(z, 0.625f);
    vcmpps(small, a, z, 17);
    vaddps(a, a, a);
    emit_exp(e, {a});
    vaddps(e, e, number(1.0f));
    set(a, 2.0f);
    vdivps(a, a, e);
    set(y, 1.0f);
    vsubps(y, y, a);
    vpandd(a, x[0], number(0x80000000u));
    vpord(y, y, a);
    vmulps(z, x[0], x[0]);
    set(a, -5.70498872745e-3f);
    for (const float c : {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f})
      vfmadd213ps(a, z, number(c));
    vmulps(a, a, z);
    vfmadd213ps(a, x[0], x[0]);
    vmovaps(y | small, a);
    free_masks_.push_back(small.getIdx());
  }
  // ErfV of tile_ops.cc.
  void emit_erf(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm a = temporary(), t = temporary(), e = temporary(), square = temporary();
    vpandd(a, x[0], number(0x7fffffffu));
    vmulps(square, x[0], x[0]);
    set(t, 0.3275911f);
    vfmadd213ps(t, a, number(1.0f));
    emit_reciprocal(e, {t});
    vmovaps(t, e);
    set(y, 1.061405429f);
    for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) vfmadd213ps(y, t, number(c));
    vmulps(y, y, t);
    vpxord(t, square, number(0x80000000u));
    emit_exp(e, {t});
    vfnmadd213ps(y, e, number(1.0f));
    vpandd(y, y, number(0x7fffffffu));  // the sign of x in the place of its own
    vpandd(t, x[0], number(0x80000000u));
    vpord(y, y, t);
    set(t, 0.00522398f);
    for (const float c : {-0.02686617f, 0.11283792f, -0.37612639f, 1.12837917f}) vfmadd213ps(t, square, number(c));
    vmulps(t, t, x[0]);
    const Opmask small(take(free_masks_));
    set(e, 0.5f);
    vcmpps(small, a, e, 17);
    vmovaps(y | small, t);
    free_masks_.push_back(small.getIdx());
  }
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m by Cephes' logf (Moshier). 0 gives -inf, less NaN.
  void emit_log(const Zmm& y, const std::vector<Zmm>& x) {
    const Zmm e = temporary(), m = temporary(), z = temporary(), t = temporary();
    const Opmask large(take(free_masks_));
    vgetexpps(e, x[0]);
    vgetmantps(m, x[0], 0);  // [1, 2), NaN for what is negative by its sign
    set(t, 1.41421356f);
    vcmpps(large, m, t, 29);
    vmulps(m | large, m, number(0.5f));
    vaddps(e | large, e, number(1.0f));
    vsubps(m, m, number(1.0f));
    vmulps(z, m, m);
    set(y, 7.0376836292e-2f);
    for (const float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                          2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
      vfmadd213ps(y, m, number(c));
    vmulps(y, y, m);
    vmulps(y, y, z);
    vfmadd231ps(y, e, number(-2.12194440e-4f));
    vfnmadd231ps(y, z, number(0.5f));
    vaddps(y, y, m);
    vfmadd231ps(y, e, number(0.693359375f));
    // What isn't positive and finite.
    vpxord(t, t, t);
    vcmpps(large, x[0], t, 0);
    set(y | large, -std::numeric_limits<float>::infinity());
    vcmpps(large, x[0], t, 17);
    set(y | large, std::numeric_limits<float>::quiet_NaN());
    set(t, std::numeric_limits<float>::infinity());
    vcmpps(large, x[0], t, 5);  // not less: infinite or NaN
    vmovaps(y | large, x[0]);
    free_masks_.push_back(large.getIdx());
  }

  const std::vector<TileCode::Leaf>& leaves_;
  const std::vector<TileCode::Operation>& operations_;
  const std::vector<TileCode::Store>& stores_;
  std::vector<Place> values_;
  std::vector<Xbyak::Reg64> pointers_;
  std::vector<int> leaf_slot_, leaf_pointer_;
  std::map<int, int> output_pointer_;
  std::vector<int> free_vectors_, free_masks_, temporaries_;
  std::map<uint32_t, Xbyak::Label> constants_;
  Xbyak::Label ones_;
  int num_sums_ = 0;
  bool tail_ = false;
};

}  // namespace

std::optional<TileCode> TileCode::make(const std::vector<Leaf>& leaves, const std::vector<Operation>& operations,
                                       const std::vector<Store>& stores) {
  if (!has_instructions()) return {};
  try {
    auto generator = std::make_shared<Generator>(leaves, operations, stores);
    TileCode code;
    code.function_ = generator->getCode<Function>();
    code.memory_ = std::move(generator);
    return code;
  } catch (const std::exception&) {  // what has no code runs as tile functions
    return {};
  }
}

#else

std::optional<TileCode> TileCode::make(const std::vector<Leaf>&, const std::vector<Operation>&,
                                       const std::vector<Store>&) {
  return {};
}

#endif

}  // namespace deepseek::backends::cpu
