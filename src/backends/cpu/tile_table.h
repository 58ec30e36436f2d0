// The operations of loops, one row each, in one table: what loops are compiled of, what implementations ask before they
// take a body, the tile functions (tile_ops.cc) and the machine code (tile_emit.cc) are all read from it.
// Test: tests/backends_cpu/tile_table_test.cc
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace deepseek::backends::cpu {

// Columns:
//   id, name         what it is called here, and in graphs
//   n, work          how many operands; how long an element takes, in additions
//   (result)         Same: of the operands' type; Mask: bool
//   whole f64 f32 bools   on numbers of these types, what a tile function computes by: a functor of tile_ops.cc; None:
//                    there is none. What is Signed is not for types without a sign.
//   code, on masks   what machine code does on f32, and on bool: By a formula, If a comparison holds, and so on
//                    (tile_emit.cc)
// Select has the type of its last operand. Conversions have tile functions for pairs of types, see tile_fn().
// clang-format off
#define DEEPSEEK_TILE_OPS(X)                                                                                             \
  /* id            name           n  work     whole         f64         f32           bools   code, on masks */          \
  X(kAdd,          add,           2, 1, Same, Add,          Add,        Add,          None,   By(add), None)             \
  X(kSub,          sub,           2, 1, Same, Sub,          Sub,        Sub,          None,   By(sub), None)             \
  X(kMul,          mul,           2, 1, Same, Mul,          Mul,        Mul,          None,   By(mul), None)             \
  X(kDiv,          div,           2, 1, Same, DivWhole,     Div,        Div,          None,   By(div), None)             \
  X(kPow,          pow,           2, 8, Same, None,         Pow,        Pow,          None,   None, None)                \
  X(kMaximum,      maximum,       2, 1, Same, Max,          Max,        Max,          None,   By(maximum), None)         \
  X(kMinimum,      minimum,       2, 1, Same, Min,          Min,        Min,          None,   By(minimum), None)         \
  X(kNeg,          neg,           1, 1, Same, Neg,          Neg,        Neg,          None,   By(neg), None)             \
  X(kAbs,          abs,           1, 1, Same, Signed<Abs>,  Abs,        Abs,          None,   By(abs), None)             \
  X(kSign,         sign,          1, 1, Same, Signed<Sign>, Sign,       Sign,         None,   By(sign), None)            \
  X(kSqrt,         sqrt,          1, 1, Same, None,         Sqrt,       V1<SqrtV>,    None,   By(sqrt), None)            \
  X(kRsqrt,        rsqrt,         1, 1, Same, None,         Rsqrt,      V1<RsqrtV>,   None,   By(rsqrt), None)           \
  X(kReciprocal,   reciprocal,    1, 1, Same, None,         Reciprocal, Reciprocal,   None,   By(reciprocal), None)      \
  X(kFloor,        floor,         1, 1, Same, None,         Floor,      V1<FloorV>,   None,   By(floor), None)           \
  X(kCeil,         ceil,          1, 1, Same, None,         Ceil,       V1<CeilV>,    None,   By(ceil), None)            \
  X(kRound,        round,         1, 1, Same, None,         Round,      V1<RoundV>,   None,   By(round), None)           \
  X(kRelu,         relu,          1, 1, Same, None,         Relu,       Relu,         None,   By(relu), None)            \
  X(kExp,          exp,           1, 8, Same, None,         ExpD,       V1<ExpV>,     None,   By(exp), None)             \
  X(kExpm1,        expm1,         1, 8, Same, None,         Expm1D,     V1<Expm1V>,   None,   None, None)                \
  X(kLog,          log,           1, 8, Same, None,         LogD,       V1<LogV>,     None,   By(log), None)             \
  X(kLog1p,        log1p,         1, 8, Same, None,         Log1pD,     V1<Log1pV>,   None,   None, None)                \
  X(kSin,          sin,           1, 8, Same, None,         SinD,       V1<SinV>,     None,   None, None)                \
  X(kCos,          cos,           1, 8, Same, None,         CosD,       V1<CosV>,     None,   None, None)                \
  X(kTanh,         tanh,          1, 8, Same, None,         TanhD,      V1<TanhV>,    None,   By(tanh), None)            \
  X(kSigmoid,      sigmoid,       1, 8, Same, None,         SigmoidD,   V1<SigmoidV>, None,   By(sigmoid), None)         \
  X(kErf,          erf,           1, 8, Same, None,         ErfD,       V1<ErfV>,     None,   By(erf), None)             \
  X(kSilu,         silu,          1, 1, Same, None,         None,       V1<SiluV>,    None,   By(silu), None)            \
  X(kSiluGrad,     silu_grad,     2, 1, Same, None,         None,       V2<DSiluV>,   None,   By(silu_grad), None)       \
  X(kEqual,        equal,         2, 1, Mask, Eq,           Eq,         Eq,           Eq,     If(kEqualTo), Own(equal))  \
  X(kNotEqual,     not_equal,     2, 1, Mask, Ne,           Ne,         Ne,           Ne,     If(kNotEqualTo), Bit('^')) \
  X(kLess,         less,          2, 1, Mask, Lt,           Lt,         Lt,           None,   If(kLessThan), None)       \
  X(kLessEqual,    less_equal,    2, 1, Mask, Le,           Le,         Le,           None,   If(kAtMost), None)         \
  X(kGreater,      greater,       2, 1, Mask, Gt,           Gt,         Gt,           None,   If(kGreaterThan), None)    \
  X(kGreaterEqual, greater_equal, 2, 1, Mask, Ge,           Ge,         Ge,           None,   If(kAtLeast), None)        \
  X(kLogicalAnd,   logical_and,   2, 1, Mask, None,         None,       None,         And,    None, Bit('&'))            \
  X(kLogicalOr,    logical_or,    2, 1, Mask, None,         None,       None,         Or,     None, Bit('|'))            \
  X(kLogicalNot,   logical_not,   1, 1, Mask, None,         None,       None,         Not,    None, Bit('!'))            \
  X(kSelect,       select,        3, 1, Same, Select,       Select,     Select,       Select, Own(select), Own(choice))  \
  X(kCast,         cast,          1, 1, Same, None,         None,       None,         None,   Own(cast), Own(cast))      \
  /* Of loops alone, not of graphs: a * b + c, a * b - c, c - a * b, and rounding to the values of a half float. */      \
  X(kMulAdd,       mul_add,       3, 1, Same, None,         None,       MulPlus,      None,   By(mul_add), None)         \
  X(kMulSub,       mul_sub,       3, 1, Same, None,         None,       MulMinus,     None,   By(mul_sub), None)         \
  X(kNegMulAdd,    neg_mul_add,   3, 1, Same, None,         None,       MinusMul,     None,   By(neg_mul_add), None)     \
  X(kRoundTo,      round_to,      1, 1, Same, None,         None,       None,         None,   Own(round_to), None)
// clang-format on

enum class TileOp : uint8_t {
#define DEEPSEEK_TILE_OP(id, name, n, work, result, whole, f64, f32, bools, code, mask_code) id,
  DEEPSEEK_TILE_OPS(DEEPSEEK_TILE_OP)
#undef DEEPSEEK_TILE_OP
};

struct TileOpInfo {
  std::string_view name;
  int operands, work;
};
const TileOpInfo& info_of(TileOp op);
// Of an op of graphs.
std::optional<TileOp> find_tile_op(std::string_view name);

}  // namespace deepseek::backends::cpu
