// Pages and tables made of the op records, with the CPU backend's choices.
#include "explain/op_docs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/cpu/cpu_backend.h"
#include "ops/registry.h"

namespace deepseek::explain {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const backends::cpu::CpuBackend kCpu;

std::string runs(const char* op, size_t sample, DType dtype) {
  const graph::OpDef* def = ops::registry().find(op);
  EXPECT_NE(def, nullptr) << op;
  Result<std::string> text = sample_runs_on(*def, def->samples.value[sample], dtype, kCpu);
  EXPECT_TRUE(text.ok()) << op << ": " << text.status().to_string();
  return text.ok() ? *text : "";
}

TEST(OpDocs, ASampleNamesWhatRunsIt) {
  EXPECT_EQ(runs("matmul", 0, DType::kF32), "gemm");
  EXPECT_EQ(runs("matmul", 0, DType::kI32), "");  // inference wants floats
  EXPECT_EQ(runs("softmax", 0, DType::kF32), "native");
  EXPECT_EQ(runs("softmax", 0, DType::kBF16), "upcast");
  EXPECT_EQ(runs("add", 0, DType::kI64), "elementwise");
  EXPECT_EQ(runs("gelu", 0, DType::kF32), "elementwise");
  EXPECT_EQ(runs("reshape", 0, DType::kU8), "none needed");
  EXPECT_THAT(runs("l1_loss", 0, DType::kF32), StartsWith("parts: "));
}

// Bodies and constants change their type with the sample.
TEST(OpDocs, BodiesTakeTheColumnsType) {
  EXPECT_EQ(runs("fused", 0, DType::kF64), "elementwise");
  EXPECT_EQ(runs("iota", 0, DType::kI32), "native");
  EXPECT_EQ(runs("constant", 0, DType::kBF16), "none needed");
}

TEST(OpDocs, TheListHasEveryOp) {
  const std::string list = op_list(ops::registry());
  for (const std::string& name : ops::registry().names()) EXPECT_THAT("\n" + list, HasSubstr("\n" + name + " "));
}

TEST(OpDocs, APageShowsTheWholeRecord) {
  const Result<std::string> page = op_page(ops::registry(), "max_pool", kCpu);
  ASSERT_TRUE(page.ok()) << page.status().to_string();
  const graph::OpDef& def = *ops::registry().find("max_pool");
  EXPECT_THAT(*page, HasSubstr(def.doc.value));
  for (const graph::OperandSpec& spec : def.inputs.value) EXPECT_THAT(*page, HasSubstr("takes " + spec.name));
  for (const graph::AttrSpec& spec : def.attrs) EXPECT_THAT(*page, HasSubstr("attribute " + spec.name + " ("));
  for (const graph::Sample& sample : def.samples.value) EXPECT_THAT(*page, HasSubstr("\n  " + sample.name + " "));
  EXPECT_THAT(*page, HasSubstr("required"));
  EXPECT_THAT(*page, HasSubstr("gradient: a rule of its own"));
}

TEST(OpDocs, AnUnknownOpNamesTheNearest) {
  const Result<std::string> page = op_page(ops::registry(), "sofmax", kCpu);
  ASSERT_FALSE(page.ok());
  EXPECT_EQ(page.status().message(), "there is no op 'sofmax'; did you mean 'softmax'?");
  EXPECT_EQ(op_table(ops::registry(), kCpu, {"zzzzzzzz"}).status().message(),
            "there is no op 'zzzzzzzz'; `deepseek ops` lists them");
}

TEST(OpDocs, TheTableHasARowAndASectionPerOp) {
  const Result<std::string> table = op_table(ops::registry(), kCpu, {"matmul", "relu", "logical_and"});
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  EXPECT_THAT(*table, HasSubstr("| op | samples | f32 | f64 | bf16 | f16 | i32 | i64 | u8 | bool |\n"));
  EXPECT_THAT(*table, HasSubstr("| [logical_and](#logical_and) | 3 | – | – | – | – | – | – | – | elementwise |\n"));
  EXPECT_THAT(*table, HasSubstr("| [relu](#relu) | "));
  EXPECT_THAT(*table, HasSubstr("\n## matmul\n"));
  EXPECT_THAT(*table, HasSubstr("- attribute transpose_a (bool, default false): "));
  EXPECT_THAT(*table, Not(HasSubstr("softmax")));
}

}  // namespace
}  // namespace deepseek::explain
