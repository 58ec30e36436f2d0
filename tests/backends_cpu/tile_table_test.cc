// The table of operations against the registry of ops and the functions that are made of it.
#include "backends/cpu/tile_table.h"

#include <gtest/gtest.h>

#include <set>

#include "backends/cpu/tile_code.h"
#include "backends/cpu/tile_ops.h"
#include "backends/cpu/tile_program.h"
#include "graph/builder.h"
#include "ops/registry.h"

namespace deepseek::backends::cpu {
namespace {

constexpr DType kTypes[] = {DType::kBool, DType::kU8,  DType::kI8,   DType::kI32, DType::kI64,
                            DType::kF16,  DType::kF32, DType::kBF16, DType::kF64};

TEST(TileTable, NamesAreOfOpsOfGraphsWithAsManyOperands) {
  for (uint8_t i = 0; i < static_cast<uint8_t>(TileOp::kMulAdd); ++i) {
    const TileOpInfo& info = info_of(TileOp(i));
    EXPECT_EQ(find_tile_op(info.name), TileOp(i));
    const graph::OpDef* def = ops::registry().find(info.name);
    ASSERT_NE(def, nullptr) << info.name;
    EXPECT_TRUE(def->traits.elementwise) << info.name;
    ASSERT_FALSE(def->samples.value.empty()) << info.name;
    EXPECT_EQ(def->samples.value[0].inputs.size(), static_cast<size_t>(info.operands)) << info.name;
    EXPECT_GE(info.work, 1);
  }
  for (const TileOp op : {TileOp::kMulAdd, TileOp::kMulSub, TileOp::kNegMulAdd, TileOp::kRoundTo})
    EXPECT_EQ(find_tile_op(info_of(op).name), std::nullopt) << "no op of graphs";
  EXPECT_EQ(find_tile_op("matmul"), std::nullopt);
}

// What has no decomposition must have a row.
TEST(TileTable, HasEveryElementwiseOpThatIsNoComposite) {
  for (const auto& [name, def] : ops::registry().all())
    if (def.traits.elementwise && !def.decompose && name != "broadcast_to") EXPECT_TRUE(find_tile_op(name)) << name;
}

TEST(TileTable, MachineCodeIsOfWhatHasTileFunctions) {
  int functions = 0, code = 0;
  for (uint8_t i = 0; i <= static_cast<uint8_t>(TileOp::kRoundTo); ++i)
    for (const DType in : kTypes)
      for (const DType out : kTypes) {
        const bool has = TileCode::has(TileOp(i), in, out), fn = tile_fn(TileOp(i), in, out) != nullptr;
        functions += fn;
        code += has;
        EXPECT_TRUE(fn || !has) << info_of(TileOp(i)).name << " of " << to_string(in) << " to " << to_string(out);
      }
  EXPECT_GT(functions, 150);
  EXPECT_EQ(code > 40, TileCode::best_lanes() > 0) << code;
}

TEST(TileTable, TypesThatAnOpDoesNotHave) {
  EXPECT_EQ(tile_fn(TileOp::kAbs, DType::kU8, DType::kU8), nullptr);
  EXPECT_NE(tile_fn(TileOp::kAbs, DType::kI8, DType::kI8), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kSqrt, DType::kI32, DType::kI32), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kSilu, DType::kF64, DType::kF64), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kMulAdd, DType::kF64, DType::kF64), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kAdd, DType::kBool, DType::kBool), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kAdd, DType::kBF16, DType::kBF16), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kLess, DType::kF32, DType::kF32), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kLess, DType::kBool, DType::kBool), nullptr);
  EXPECT_EQ(tile_fn(TileOp::kCast, DType::kBF16, DType::kF64), nullptr);
  EXPECT_NE(tile_fn(TileOp::kSelect, DType::kBool, DType::kBool), nullptr);
  EXPECT_NE(tile_fn(TileOp::kSelect, DType::kI64, DType::kI64), nullptr);
}

}  // namespace
}  // namespace deepseek::backends::cpu
