// The generator of a loop's machine code (tile_code.h): tile_generator.cc has its frame, registers and memory,
// tile_emit.cc the operations. Test: tests/backends_cpu/tile_code_test.cc
#pragma once

#if defined(__x86_64__)
#include <xbyak/xbyak.h>

#include <bit>
#include <exception>
#include <map>
#include <utility>
#include <vector>

#include "backends/cpu/tile_code.h"

namespace deepseek::backends::cpu {

// Thrown where there is no code for an operation or a type, or where registers don't suffice.
struct Unsupported : std::exception {};

// A vector is of 16 floats (zmm) or of 8 (ymm). A mask, which bool values are, is an opmask register beside the former
// and all ones or zeros in a vector register beside the latter.
class Generator : public Xbyak::CodeGenerator {
 public:
  Generator(const std::vector<TileCode::Leaf>& leaves, const std::vector<TileCode::Operation>& operations,
            const std::vector<TileCode::Store>& stores, int lanes);

  // Emits an operation, whose result is value `id`.
  using Emit = void (Generator::*)(const TileCode::Operation& op, size_t id);
  // By the table; null where there is none.
  static Emit find_emit(TileOp op, DType in, DType out);

 private:
  using Vec = Xbyak::Xmm;  // of the width in use
  using Vecs = std::vector<Vec>;
  struct Mask {
    int reg;
  };
  struct Place {
    int last_use = -1;  // an operation
    int reg = -1;       // a vector's, or of bool a mask's
  };
  static constexpr int kNearest = 8, kDown = 9, kUp = 10;  // rounding, without exceptions
  // Predicates of vcmpps, ordered but for "not equal" and "not less", which are true of NaN.
  static constexpr int kEqualTo = 0, kUnordered = 3, kNotEqualTo = 4, kNotLess = 5, kLessThan = 17, kAtMost = 18,
                       kAtLeast = 29, kGreaterThan = 30;

  void generate();
  void body();

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
  static int take(std::vector<int>& free);
  // Until the end of the operation.
  Vec temporary();
  Mask temporary_mask();
  void release(size_t v, int operation);
  Vec result(size_t v);
  Mask mask_result(size_t v);

  // ---- Memory.
  Xbyak::Reg64 base(int pointer, const Xbyak::Reg64& all, int index);
  Xbyak::RegExp at(int pointer, const Xbyak::Reg64& all, int index, DType dtype);
  // Where value v is, a leaf being loaded when it is first asked for.
  Vec vector(int value);
  Mask mask(int value);
  void store(int value, int output, DType dtype);
  // Eight numbers of 32 bits, none above 16, to words in the lower half.
  void to_words(const Vec& x);
  // To the lower half of `to`.
  void narrow(const Vec& to, const Vec& from, DType dtype);

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

  // ---- Operations. y of the operands x, as the formula says.
  template <auto kFormula>
  void formula(const TileCode::Operation& op, size_t id) {
    Vecs x;
    for (int v : op.operands) x.push_back(vector(v));
    (this->*kFormula)(result(id), x);
  }
  template <int kPredicate>
  void comparison(const TileCode::Operation& op, size_t id);
  template <char kOp>
  void logic(const TileCode::Operation& op, size_t id);
  void emit_equal(const TileCode::Operation& op, size_t id);
  void emit_select(const TileCode::Operation& op, size_t id);
  void emit_choice(const TileCode::Operation& op, size_t id);
  void emit_cast(const TileCode::Operation& op, size_t id);
  void emit_round_to(const TileCode::Operation& op, size_t id);
  // '-': b where a isn't.
  void logical(char op, const Mask& y, const Mask& a, const Mask& b);

  // y of the operands x.
  void emit_add(const Vec& y, const Vecs& x);
  void emit_sub(const Vec& y, const Vecs& x);
  void emit_mul(const Vec& y, const Vecs& x);
  void emit_div(const Vec& y, const Vecs& x);
  void emit_sqrt(const Vec& y, const Vecs& x);
  void emit_floor(const Vec& y, const Vecs& x);
  void emit_ceil(const Vec& y, const Vecs& x);
  void emit_round(const Vec& y, const Vecs& x);
  void emit_neg(const Vec& y, const Vecs& x);
  void emit_abs(const Vec& y, const Vecs& x);
  void emit_reciprocal(const Vec& y, const Vecs& x);
  void emit_rsqrt(const Vec& y, const Vecs& x);
  void emit_maximum(const Vec& y, const Vecs& x);
  void emit_minimum(const Vec& y, const Vecs& x);
  void emit_relu(const Vec& y, const Vecs& x);
  void emit_sign(const Vec& y, const Vecs& x);
  void emit_mul_add(const Vec& y, const Vecs& x);
  void emit_mul_sub(const Vec& y, const Vecs& x);
  void emit_neg_mul_add(const Vec& y, const Vecs& x);
  void emit_exp(const Vec& y, const Vecs& x);
  void emit_sigmoid(const Vec& y, const Vecs& x);
  void emit_silu(const Vec& y, const Vecs& x);
  void emit_silu_grad(const Vec& y, const Vecs& x);
  void emit_tanh(const Vec& y, const Vecs& x);
  void emit_erf(const Vec& y, const Vecs& x);
  void emit_log(const Vec& y, const Vecs& x);
  void emit_extremum(const Vec& y, const Vecs& x, bool largest);

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

}  // namespace deepseek::backends::cpu
#endif
