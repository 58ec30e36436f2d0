#include "backends/cpu/tile_code.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>
#include <limits>
#include <map>

#include "backends/cpu/microgemm.h"

#if defined(__x86_64__)
#include <xbyak/xbyak.h>
#endif

namespace deepseek::backends::cpu {

#if defined(__x86_64__)

namespace {

constexpr size_t kBytes = 4096;                   // of code at first; it grows
constexpr int kNearest = 8, kDown = 9, kUp = 10;  // rounding, without exceptions
// Predicates of vcmpps, ordered but for "not equal" and "not less", which are true of NaN.
constexpr int kEqual = 0, kUnordered = 3, kNotEqual = 4, kNotLess = 5, kLess = 17, kLessEqual = 18, kGreaterEqual = 29,
              kGreater = 30;

struct Unsupported : std::exception {};

// A vector is of 16 floats (zmm) or of 8 (ymm). A mask, which bool values are, is an opmask register beside the former
// and all ones or zeros in a vector register beside the latter.
class Generator : public Xbyak::CodeGenerator {
 public:
  Generator(const std::vector<TileCode::Leaf>& leaves, const std::vector<TileCode::Operation>& operations,
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

 private:
  using Vec = Xbyak::Xmm;  // of the width in use
  struct Mask {
    int reg;
  };
  struct Place {
    int last_use = -1;  // an operation
    int reg = -1;       // a vector's, or of bool a mask's
  };

  // ---- Frame: rdi leaves, rsi outputs, rdx n, a multiple of the lanes; rcx the element; rax scratch; scalars on the
  // stack.
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

  void body() {
    for (int r = registers() - num_sums_; r-- > 0;) free_vectors_.push_back(r);
    if (wide_) free_opmasks_ = {7, 6, 5, 4, 3, 2, 1};
    for (size_t i = 0; i < operations_.size(); ++i) {
      const TileCode::Operation& op = operations_[i];
      const size_t id = leaves_.size() + i;
      emit(op, id);
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
  int registers() const { return wide_ ? 32 : 16; }
  Vec vec(int reg) const { return wide_ ? static_cast<Vec>(Xbyak::Zmm(reg)) : static_cast<Vec>(Xbyak::Ymm(reg)); }
  // The lower half of a vector.
  static Vec half(const Vec& v) {
    return v.isZMM() ? static_cast<Vec>(Xbyak::Ymm(v.getIdx())) : Xbyak::Xmm(v.getIdx());
  }
  std::vector<int>& free_masks() { return wide_ ? free_opmasks_ : free_vectors_; }
  bool is_mask(size_t v) const {
    return v < leaves_.size() ? leaves_[v].dtype == DType::kBool : operations_[v - leaves_.size()].out == DType::kBool;
  }
  static int take(std::vector<int>& free) {
    if (free.empty()) throw Unsupported();
    const int reg = free.back();
    free.pop_back();
    return reg;
  }
  // Until the end of the operation.
  Vec temporary() {
    const int reg = take(free_vectors_);
    temporaries_.emplace_back(&free_vectors_, reg);
    return vec(reg);
  }
  Mask temporary_mask() {
    const int reg = take(free_masks());
    temporaries_.emplace_back(&free_masks(), reg);
    return {reg};
  }
  void release(size_t v, int operation) {
    Place& p = values_[v];
    if (p.last_use != operation || p.reg < 0) return;
    (is_mask(v) ? free_masks() : free_vectors_).push_back(p.reg);
    p.reg = -1;
  }
  Vec result(size_t v) {
    values_[v].reg = take(free_vectors_);
    return vec(values_[v].reg);
  }
  Mask mask_result(size_t v) {
    values_[v].reg = take(free_masks());
    return {values_[v].reg};
  }

  // ---- Memory.
  Xbyak::Reg64 base(int pointer, const Xbyak::Reg64& all, int index) {
    if (pointer >= 0) return pointers_[static_cast<size_t>(pointer)];
    mov(rax, ptr[all + index * 8]);
    return rax;
  }
  Xbyak::RegExp at(int pointer, const Xbyak::Reg64& all, int index, DType dtype) {
    return base(pointer, all, index) + rcx * static_cast<int>(size_of(dtype));
  }

  // Where value v is, a leaf being loaded when it is first asked for.
  Vec vector(int value) {
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
  Mask mask(int value) {
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

  void store(int value, int output, DType dtype) {
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

  // Eight numbers of 32 bits, none above 16, to words in the lower half.
  void to_words(const Vec& x) {
    const int high = take(free_vectors_);
    vextracti128(Xbyak::Xmm(high), Xbyak::Ymm(x.getIdx()), 1);
    vpackusdw(Xbyak::Xmm(x.getIdx()), Xbyak::Xmm(x.getIdx()), Xbyak::Xmm(high));
    free_vectors_.push_back(high);
  }

  // To the lower half of `to`.
  void narrow(const Vec& to, const Vec& from, DType dtype) {
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

  // ---- What differs between the two widths.
  Xbyak::Address number(uint32_t bits) { return wide_ ? ptr_b[rip + constants_[bits]] : ptr[rip + constants_[bits]]; }
  Xbyak::Address number(float value) { return number(std::bit_cast<uint32_t>(value)); }
  void set(const Vec& z, float value) { vbroadcastss(z, dword[rip + constants_[std::bit_cast<uint32_t>(value)]]); }
  void round(const Vec& y, const Vec& x, int how) {
    if (wide_)
      vrndscaleps(y, x, how);
    else
      vroundps(y, x, how);
  }
  void compare(const Mask& m, const Vec& a, const Xbyak::Operand& b, int predicate) {
    if (wide_)
      vcmpps(Xbyak::Opmask(m.reg), a, b, predicate);
    else
      vcmpps(vec(m.reg), a, b, predicate);
  }
  // y = x where the mask is.
  void move_where(const Vec& y, const Mask& m, const Vec& x) {
    if (wide_)
      vmovaps(y | Xbyak::Opmask(m.reg), x);
    else
      vblendvps(y, y, x, vec(m.reg));
  }
  // y = x * 2^n for a whole n between -252 and 252.
  void scale(const Vec& y, const Vec& x, const Vec& n) {
    if (wide_) {
      vscalefps(y, x, n);
      return;
    }
    // In two steps, as half of it fits an exponent: results below the least normal number are rounded once.
    const Vec whole = temporary(), part = temporary();
    vcvtps2dq(whole, n);
    vpsrad(part, whole, 1);
    vpsubd(whole, whole, part);
    for (const Vec& power : {part, whole}) {
      vpaddd(power, power, number(127u));
      vpslld(power, power, 23);
    }
    vmulps(y, x, part);
    vmulps(y, y, whole);
  }

  // ---- Operations. Formulas are those of tile_ops.cc, which names their sources.
  void emit(const TileCode::Operation& op, size_t id) {
    const auto& in = op.operands;
    if (op.in == DType::kBool && op.op != "cast") return emit_logical(op, id);
    if (op.out == DType::kBool) return emit_comparison(op, id);
    if (op.op != "round_to" && op.out != DType::kF32) throw Unsupported();
    if (op.op == "select") {
      const Mask m = mask(in[0]);
      const Vec a = vector(in[1]), b = vector(in[2]), y = result(id);
      if (wide_)
        vblendmps(y | Xbyak::Opmask(m.reg), b, a);
      else
        vblendvps(y, b, a, vec(m.reg));
      return;
    }
    if (op.op == "cast") {
      if (op.in == DType::kBool) {
        const Mask m = mask(in[0]);
        const Vec y = result(id);
        if (wide_)
          set(y | Xbyak::Opmask(m.reg) | T_z, 1.0f);
        else
          vandps(y, vec(m.reg), number(1.0f));
        return;
      }
      if (op.in != DType::kF32) throw Unsupported();
      const Vec a = vector(in[0]);
      vmovaps(result(id), a);
      return;
    }
    std::vector<Vec> x;
    for (int v : in) x.push_back(vector(v));
    const Vec y = result(id);
    if (op.op == "round_to") {
      narrow(y, x[0], op.out);
      if (op.out == DType::kF16) {
        vcvtph2ps(y, half(y));
      } else {
        vpmovzxwd(y, half(y));
        vpslld(y, y, 16);
      }
      return;
    }
    if (op.in != DType::kF32) throw Unsupported();
    static const std::map<std::string, void (Generator::*)(const Vec&, const std::vector<Vec>&)> kOps = {
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
    std::vector<Mask> m;
    for (int v : op.operands) m.push_back(mask(v));
    const Mask y = mask_result(id);
    if (op.op == "logical_and") {
      logical('&', y, m[0], m[1]);
    } else if (op.op == "logical_or") {
      logical('|', y, m[0], m[1]);
    } else if (op.op == "not_equal") {
      logical('^', y, m[0], m[1]);
    } else if (op.op == "logical_not") {
      logical('!', y, m[0], m[0]);
    } else if (op.op == "equal") {
      const Mask other = temporary_mask();
      logical('^', other, m[0], m[1]);
      logical('!', y, other, other);
    } else if (op.op == "select") {
      const Mask part = temporary_mask();
      logical('&', part, m[0], m[1]);
      logical('-', y, m[0], m[2]);
      logical('|', y, y, part);
    } else {
      throw Unsupported();
    }
  }
  // '-': b where a isn't.
  void logical(char op, const Mask& y, const Mask& a, const Mask& b) {
    if (wide_) {
      const Xbyak::Opmask to(y.reg), x(a.reg), z(b.reg);
      if (op == '&') kandw(to, x, z);
      if (op == '|') korw(to, x, z);
      if (op == '^') kxorw(to, x, z);
      if (op == '-') kandnw(to, x, z);
      if (op == '!') knotw(to, x);
      return;
    }
    const Vec to = vec(y.reg), x = vec(a.reg), z = vec(b.reg);
    if (op == '&') vandps(to, x, z);
    if (op == '|') vorps(to, x, z);
    if (op == '^') vxorps(to, x, z);
    if (op == '-') vandnps(to, x, z);
    if (op == '!') vxorps(to, x, number(0xffffffffu));
  }

  void emit_comparison(const TileCode::Operation& op, size_t id) {
    if (op.in == DType::kI32 && op.op == "equal") {
      const Vec a = vector(op.operands[0]), b = vector(op.operands[1]);
      const Mask m = mask_result(id);
      if (wide_)
        vpcmpeqd(Xbyak::Opmask(m.reg), a, b);
      else
        vpcmpeqd(vec(m.reg), a, b);
      return;
    }
    if (op.in != DType::kF32) throw Unsupported();
    static const std::map<std::string, int> kPredicates = {
        {"equal", kEqual},        {"less", kLess},       {"less_equal", kLessEqual},
        {"not_equal", kNotEqual}, {"greater", kGreater}, {"greater_equal", kGreaterEqual}};
    const Vec a = vector(op.operands[0]);
    if (op.op == "cast") {
      const Vec zero = temporary();
      vxorps(zero, zero, zero);
      compare(mask_result(id), a, zero, kNotEqual);
      return;
    }
    const auto it = kPredicates.find(op.op);
    if (it == kPredicates.end()) throw Unsupported();
    const Vec b = vector(op.operands[1]);
    compare(mask_result(id), a, b, it->second);
  }

  void emit_add(const Vec& y, const std::vector<Vec>& x) { vaddps(y, x[0], x[1]); }
  void emit_sub(const Vec& y, const std::vector<Vec>& x) { vsubps(y, x[0], x[1]); }
  void emit_mul(const Vec& y, const std::vector<Vec>& x) { vmulps(y, x[0], x[1]); }
  void emit_div(const Vec& y, const std::vector<Vec>& x) { vdivps(y, x[0], x[1]); }
  void emit_sqrt(const Vec& y, const std::vector<Vec>& x) { vsqrtps(y, x[0]); }
  void emit_floor(const Vec& y, const std::vector<Vec>& x) { round(y, x[0], kDown); }
  void emit_ceil(const Vec& y, const std::vector<Vec>& x) { round(y, x[0], kUp); }
  void emit_round(const Vec& y, const std::vector<Vec>& x) { round(y, x[0], kNearest); }
  void emit_neg(const Vec& y, const std::vector<Vec>& x) { vxorps(y, x[0], number(0x80000000u)); }
  void emit_abs(const Vec& y, const std::vector<Vec>& x) { vandps(y, x[0], number(0x7fffffffu)); }
  void emit_reciprocal(const Vec& y, const std::vector<Vec>& x) {
    set(y, 1.0f);
    vdivps(y, y, x[0]);
  }
  void emit_rsqrt(const Vec& y, const std::vector<Vec>& x) {
    const Vec root = temporary();
    vsqrtps(root, x[0]);
    emit_reciprocal(y, {root});
  }
  // The instruction gives its second operand where one is NaN: a NaN that is first is put in.
  void emit_maximum(const Vec& y, const std::vector<Vec>& x) { emit_extremum(y, x, true); }
  void emit_minimum(const Vec& y, const std::vector<Vec>& x) { emit_extremum(y, x, false); }
  void emit_extremum(const Vec& y, const std::vector<Vec>& x, bool largest) {
    const Mask nan = temporary_mask();
    compare(nan, x[0], x[0], kUnordered);
    if (largest)
      vmaxps(y, x[0], x[1]);
    else
      vminps(y, x[0], x[1]);
    move_where(y, nan, x[0]);
  }
  void emit_relu(const Vec& y, const std::vector<Vec>& x) {
    vxorps(y, y, y);
    vmaxps(y, y, x[0]);
  }
  void emit_sign(const Vec& y, const std::vector<Vec>& x) {
    const Vec zero = temporary(), one = temporary();
    const Mask m = temporary_mask();
    vxorps(zero, zero, zero);
    vmovaps(y, zero);
    set(one, 1.0f);
    compare(m, x[0], zero, kGreater);
    move_where(y, m, one);
    set(one, -1.0f);
    compare(m, x[0], zero, kLess);
    move_where(y, m, one);
  }
  void emit_mul_add(const Vec& y, const std::vector<Vec>& x) {
    vmovaps(y, x[0]);
    vfmadd213ps(y, x[1], x[2]);
  }
  void emit_mul_sub(const Vec& y, const std::vector<Vec>& x) {
    vmovaps(y, x[0]);
    vfmsub213ps(y, x[1], x[2]);
  }
  void emit_neg_mul_add(const Vec& y, const std::vector<Vec>& x) {
    vmovaps(y, x[0]);
    vfnmadd213ps(y, x[1], x[2]);
  }

  // SafeExp of vector_math-inl.h; y may not be x.
  void emit_exp(const Vec& y, const std::vector<Vec>& x) {
    const Vec n = temporary(), r = temporary();
    set(y, -105.0f);
    vmaxps(y, y, x[0]);
    set(n, 105.0f);
    vminps(r, n, y);
    vmulps(n, r, number(1.44269504f));
    round(n, n, kNearest);
    vfnmadd231ps(r, n, number(0.693145752f));
    vfnmadd231ps(r, n, number(1.42860677e-6f));
    set(y, 0.00139337021f);
    for (const float c : {0.00836321432f, 0.041666463f, 0.166665763f, 0.5f}) vfmadd213ps(y, r, number(c));
    const Vec square = temporary();
    vmulps(square, r, r);
    vfmadd213ps(y, square, r);
    vaddps(y, y, number(1.0f));
    scale(y, y, n);
  }
  void emit_sigmoid(const Vec& y, const std::vector<Vec>& x) {
    const Vec e = temporary(), negative = temporary();
    emit_neg(negative, x);
    emit_exp(e, {negative});
    vaddps(e, e, number(1.0f));
    emit_reciprocal(y, {e});
  }
  void emit_silu(const Vec& y, const std::vector<Vec>& x) {
    emit_sigmoid(y, x);
    vmulps(y, y, x[0]);
  }
  // dy * s * (1 + x * (1 - s))
  void emit_silu_grad(const Vec& y, const std::vector<Vec>& x) {
    const Vec s = temporary();
    emit_sigmoid(s, {x[0]});
    set(y, 1.0f);
    vsubps(y, y, s);
    vfmadd213ps(y, x[0], number(1.0f));
    vmulps(s, s, x[1]);
    vmulps(y, y, s);
  }
  // Near 0 the odd polynomial of Cephes' tanhf (Moshier), else 1 - 2 / (e^2|x| + 1) with the sign of x.
  void emit_tanh(const Vec& y, const std::vector<Vec>& x) {
    const Vec a = temporary(), e = temporary(), z = temporary();
    const Mask small = temporary_mask();
    vandps(a, x[0], number(0x7fffffffu));
    set(z, 0.625f);
    compare(small, a, z, kLess);
    vaddps(a, a, a);
    emit_exp(e, {a});
    vaddps(e, e, number(1.0f));
    set(a, 2.0f);
    vdivps(a, a, e);
    set(y, 1.0f);
    vsubps(y, y, a);
    vandps(a, x[0], number(0x80000000u));
    vorps(y, y, a);
    vmulps(z, x[0], x[0]);
    set(a, -5.70498872745e-3f);
    for (const float c : {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f})
      vfmadd213ps(a, z, number(c));
    vmulps(a, a, z);
    vfmadd213ps(a, x[0], x[0]);
    move_where(y, small, a);
  }
  // ErfV of tile_ops.cc.
  void emit_erf(const Vec& y, const std::vector<Vec>& x) {
    const Vec a = temporary(), t = temporary(), e = temporary(), square = temporary();
    vandps(a, x[0], number(0x7fffffffu));
    vmulps(square, x[0], x[0]);
    set(t, 0.3275911f);
    vfmadd213ps(t, a, number(1.0f));
    emit_reciprocal(e, {t});
    vmovaps(t, e);
    set(y, 1.061405429f);
    for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) vfmadd213ps(y, t, number(c));
    vmulps(y, y, t);
    vxorps(t, square, number(0x80000000u));
    emit_exp(e, {t});
    vfnmadd213ps(y, e, number(1.0f));
    vandps(y, y, number(0x7fffffffu));  // the sign of x in the place of its own
    vandps(t, x[0], number(0x80000000u));
    vorps(y, y, t);
    set(t, 0.00522398f);
    for (const float c : {-0.02686617f, 0.11283792f, -0.37612639f, 1.12837917f}) vfmadd213ps(t, square, number(c));
    vmulps(t, t, x[0]);
    const Mask small = temporary_mask();
    set(e, 0.5f);
    compare(small, a, e, kLess);
    move_where(y, small, t);
  }
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m by Cephes' logf (Moshier). 0 gives -inf, less NaN.
  void emit_log(const Vec& y, const std::vector<Vec>& x) {
    const Vec e = temporary(), m = temporary(), z = temporary(), t = temporary();
    const Mask at = temporary_mask();
    if (wide_) {
      vgetexpps(e, x[0]);
      vgetmantps(m, x[0], 0);  // [1, 2)
    } else {
      // What is below the least normal number is scaled up first.
      set(t, std::numeric_limits<float>::min());
      compare(at, x[0], t, kLess);
      vmulps(z, x[0], number(0x1p25f));
      vmovaps(m, x[0]);
      move_where(m, at, z);
      vpsrld(e, m, 23);
      vpsubd(e, e, number(127u));
      vcvtdq2ps(e, e);
      vandps(t, vec(at.reg), number(25.0f));
      vsubps(e, e, t);
      vandps(m, m, number(0x7fffffu));
      vorps(m, m, number(1.0f));
    }
    set(t, 1.41421356f);
    compare(at, m, t, kGreaterEqual);
    vmulps(z, m, number(0.5f));
    move_where(m, at, z);
    vaddps(z, e, number(1.0f));
    move_where(e, at, z);
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
    vxorps(t, t, t);
    set(z, -std::numeric_limits<float>::infinity());
    compare(at, x[0], t, kEqual);
    move_where(y, at, z);
    set(z, std::numeric_limits<float>::quiet_NaN());
    compare(at, x[0], t, kLess);
    move_where(y, at, z);
    set(t, std::numeric_limits<float>::infinity());
    compare(at, x[0], t, kNotLess);
    move_where(y, at, x[0]);
  }

  const std::vector<TileCode::Leaf>& leaves_;
  const std::vector<TileCode::Operation>& operations_;
  const std::vector<TileCode::Store>& stores_;
  const int lanes_;
  const bool wide_, bf16_;
  std::vector<Place> values_;
  std::vector<Xbyak::Reg64> pointers_;
  std::vector<int> leaf_slot_, leaf_pointer_;
  std::map<int, int> output_pointer_;
  std::vector<int> free_vectors_, free_opmasks_;
  std::vector<std::pair<std::vector<int>*, int>> temporaries_;
  std::map<uint32_t, Xbyak::Label> constants_;
  Xbyak::Label ones_;
  int num_sums_ = 0;
};

}  // namespace

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

#else

int64_t TileCode::best_lanes() { return 0; }

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
