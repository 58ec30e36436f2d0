// Operations in machine code. Formulas are those of tile_ops.cc, which names their sources.
#include "backends/cpu/tile_generator.h"

#if defined(__x86_64__)
#include <limits>

namespace deepseek::backends::cpu {

Generator::Emit Generator::find_emit(TileOp op, DType in, DType out) {
  using G = Generator;
  constexpr Emit None = nullptr;
  constexpr DType Same = DType::kF32, Mask = DType::kBool;
  struct Cells {
    DType result;  // of f32
    Emit code, mask_code;
  };
#define By(name) &G::formula<&G::emit_##name>
#define If(predicate) &G::comparison<predicate>
#define Bit(op) &G::logic<op>
#define Own(name) &G::emit_##name
  static constexpr Cells kCells[] = {
#define DEEPSEEK_TILE_OP(id, name, n, work, result, whole, f64, f32, bools, code, mask_code) {result, code, mask_code},
      DEEPSEEK_TILE_OPS(DEEPSEEK_TILE_OP)
#undef DEEPSEEK_TILE_OP
  };
#undef By
#undef If
#undef Bit
#undef Own
  const Cells& cells = kCells[static_cast<size_t>(op)];
  const bool f32 = in == DType::kF32, to_f32 = out == DType::kF32, to_mask = out == DType::kBool;
  if (op == TileOp::kCast) return (f32 && (to_f32 || to_mask)) || (in == DType::kBool && to_f32) ? cells.code : None;
  if (op == TileOp::kRoundTo) return f32 && (out == DType::kBF16 || out == DType::kF16) ? cells.code : None;
  if (in == DType::kBool) return to_mask ? cells.mask_code : None;
  if (in == DType::kI32) return op == TileOp::kEqual && to_mask ? cells.code : None;
  return f32 && out == cells.result ? cells.code : None;
}

// ---- Between types.
void Generator::emit_cast(const TileCode::Operation& op, size_t id) {
  if (op.in == DType::kBool) {
    const Mask m = mask(op.operands[0]);
    const Vec y = result(id);
    if (wide_)
      set(y | Xbyak::Opmask(m.reg) | T_z, 1.0f);
    else
      vandps(y, vec(m.reg), number(1.0f));
    return;
  }
  const Vec a = vector(op.operands[0]);
  if (op.out == DType::kBool) {
    const Vec zero = temporary();
    vxorps(zero, zero, zero);
    compare(mask_result(id), a, zero, kNotEqualTo);
  } else {
    vmovaps(result(id), a);
  }
}
void Generator::emit_round_to(const TileCode::Operation& op, size_t id) {
  const Vec x = vector(op.operands[0]), y = result(id);
  narrow(y, x, op.out);
  if (op.out == DType::kF16) {
    vcvtph2ps(y, half(y));
  } else {
    vpmovzxwd(y, half(y));
    vpslld(y, y, 16);
  }
}

// ---- To masks, and of masks.
template <int kPredicate>
void Generator::comparison(const TileCode::Operation& op, size_t id) {
  const Vec a = vector(op.operands[0]), b = vector(op.operands[1]);
  const Mask m = mask_result(id);
  if (op.in != DType::kI32)
    compare(m, a, b, kPredicate);
  else if (wide_)
    vpcmpeqd(Xbyak::Opmask(m.reg), a, b);
  else
    vpcmpeqd(vec(m.reg), a, b);
}
template <char kOp>
void Generator::logic(const TileCode::Operation& op, size_t id) {
  const Mask a = mask(op.operands[0]), b = mask(op.operands.back());
  logical(kOp, mask_result(id), a, b);
}
void Generator::emit_equal(const TileCode::Operation& op, size_t id) {
  const Mask a = mask(op.operands[0]), b = mask(op.operands[1]), y = mask_result(id), other = temporary_mask();
  logical('^', other, a, b);
  logical('!', y, other, other);
}
void Generator::emit_choice(const TileCode::Operation& op, size_t id) {
  const Mask m = mask(op.operands[0]), a = mask(op.operands[1]), b = mask(op.operands[2]), y = mask_result(id),
             part = temporary_mask();
  logical('&', part, m, a);
  logical('-', y, m, b);
  logical('|', y, y, part);
}
void Generator::emit_select(const TileCode::Operation& op, size_t id) {
  const Mask m = mask(op.operands[0]);
  const Vec a = vector(op.operands[1]), b = vector(op.operands[2]), y = result(id);
  if (wide_)
    vblendmps(y | Xbyak::Opmask(m.reg), b, a);
  else
    vblendvps(y, b, a, vec(m.reg));
}
void Generator::logical(char op, const Mask& y, const Mask& a, const Mask& b) {
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

// ---- On numbers.
void Generator::emit_add(const Vec& y, const Vecs& x) { vaddps(y, x[0], x[1]); }
void Generator::emit_sub(const Vec& y, const Vecs& x) { vsubps(y, x[0], x[1]); }
void Generator::emit_mul(const Vec& y, const Vecs& x) { vmulps(y, x[0], x[1]); }
void Generator::emit_div(const Vec& y, const Vecs& x) { vdivps(y, x[0], x[1]); }
void Generator::emit_sqrt(const Vec& y, const Vecs& x) { vsqrtps(y, x[0]); }
void Generator::emit_floor(const Vec& y, const Vecs& x) { round(y, x[0], kDown); }
void Generator::emit_ceil(const Vec& y, const Vecs& x) { round(y, x[0], kUp); }
void Generator::emit_round(const Vec& y, const Vecs& x) { round(y, x[0], kNearest); }
void Generator::emit_neg(const Vec& y, const Vecs& x) { vxorps(y, x[0], number(0x80000000u)); }
void Generator::emit_abs(const Vec& y, const Vecs& x) { vandps(y, x[0], number(0x7fffffffu)); }
void Generator::emit_reciprocal(const Vec& y, const Vecs& x) {
  set(y, 1.0f);
  vdivps(y, y, x[0]);
}
void Generator::emit_rsqrt(const Vec& y, const Vecs& x) {
  const Vec root = temporary();
  vsqrtps(root, x[0]);
  emit_reciprocal(y, {root});
}
// The instruction gives its second operand where one is NaN: a NaN that is first is put in.
void Generator::emit_maximum(const Vec& y, const Vecs& x) { emit_extremum(y, x, true); }
void Generator::emit_minimum(const Vec& y, const Vecs& x) { emit_extremum(y, x, false); }
void Generator::emit_extremum(const Vec& y, const Vecs& x, bool largest) {
  const Mask nan = temporary_mask();
  compare(nan, x[0], x[0], kUnordered);
  if (largest)
    vmaxps(y, x[0], x[1]);
  else
    vminps(y, x[0], x[1]);
  move_where(y, nan, x[0]);
}
void Generator::emit_relu(const Vec& y, const Vecs& x) {
  vxorps(y, y, y);
  vmaxps(y, y, x[0]);
}
void Generator::emit_sign(const Vec& y, const Vecs& x) {
  const Vec zero = temporary(), one = temporary();
  const Mask m = temporary_mask();
  vxorps(zero, zero, zero);
  vmovaps(y, zero);
  set(one, 1.0f);
  compare(m, x[0], zero, kGreaterThan);
  move_where(y, m, one);
  set(one, -1.0f);
  compare(m, x[0], zero, kLessThan);
  move_where(y, m, one);
}
void Generator::emit_mul_add(const Vec& y, const Vecs& x) {
  vmovaps(y, x[0]);
  vfmadd213ps(y, x[1], x[2]);
}
void Generator::emit_mul_sub(const Vec& y, const Vecs& x) {
  vmovaps(y, x[0]);
  vfmsub213ps(y, x[1], x[2]);
}
void Generator::emit_neg_mul_add(const Vec& y, const Vecs& x) {
  vmovaps(y, x[0]);
  vfnmadd213ps(y, x[1], x[2]);
}

// SafeExp of vector_math-inl.h; y may not be x.
void Generator::emit_exp(const Vec& y, const Vecs& x) {
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
void Generator::emit_sigmoid(const Vec& y, const Vecs& x) {
  const Vec e = temporary(), negative = temporary();
  emit_neg(negative, x);
  emit_exp(e, {negative});
  vaddps(e, e, number(1.0f));
  emit_reciprocal(y, {e});
}
void Generator::emit_silu(const Vec& y, const Vecs& x) {
  emit_sigmoid(y, x);
  vmulps(y, y, x[0]);
}
// dy * s * (1 + x * (1 - s))
void Generator::emit_silu_grad(const Vec& y, const Vecs& x) {
  const Vec s = temporary();
  emit_sigmoid(s, {x[0]});
  set(y, 1.0f);
  vsubps(y, y, s);
  vfmadd213ps(y, x[0], number(1.0f));
  vmulps(s, s, x[1]);
  vmulps(y, y, s);
}
// Near 0 the odd polynomial of Cephes' tanhf (Moshier), else 1 - 2 / (e^2|x| + 1) with the sign of x.
void Generator::emit_tanh(const Vec& y, const Vecs& x) {
  const Vec a = temporary(), e = temporary(), z = temporary();
  const Mask small = temporary_mask();
  vandps(a, x[0], number(0x7fffffffu));
  set(z, 0.625f);
  compare(small, a, z, kLessThan);
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
void Generator::emit_erf(const Vec& y, const Vecs& x) {
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
  compare(small, a, e, kLessThan);
  move_where(y, small, t);
}
// x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m by Cephes' logf (Moshier). 0 gives -inf, less NaN.
void Generator::emit_log(const Vec& y, const Vecs& x) {
  const Vec e = temporary(), m = temporary(), z = temporary(), t = temporary();
  const Mask at = temporary_mask();
  if (wide_) {
    vgetexpps(e, x[0]);
    vgetmantps(m, x[0], 0);  // [1, 2)
  } else {
    // What is below the least normal number is scaled up first.
    set(t, std::numeric_limits<float>::min());
    compare(at, x[0], t, kLessThan);
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
  compare(at, m, t, kAtLeast);
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
  compare(at, x[0], t, kEqualTo);
  move_where(y, at, z);
  set(z, std::numeric_limits<float>::quiet_NaN());
  compare(at, x[0], t, kLessThan);
  move_where(y, at, z);
  set(t, std::numeric_limits<float>::infinity());
  compare(at, x[0], t, kNotLess);
  move_where(y, at, x[0]);
}

}  // namespace deepseek::backends::cpu
#endif
