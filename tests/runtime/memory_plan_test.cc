#include "runtime/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace deepseek::runtime {
namespace {

TEST(MemoryPlan, NoTwoLiveBlocksOverlapAndTheArenaHoldsAll) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Block> blocks(1 + random() % 40);
    for (Block& b : blocks) {
      b.bytes = 1 + random() % 5000;
      b.first = static_cast<int32_t>(random() % 30);
      b.last = b.first + static_cast<int32_t>(random() % 8);
    }
    const size_t total = plan_memory(blocks);
    for (size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_EQ(blocks[i].offset % 64, 0u);
      EXPECT_LE(blocks[i].offset + blocks[i].bytes, total);
      for (size_t j = 0; j < i; ++j) {
        const bool together = blocks[i].first <= blocks[j].last && blocks[j].first <= blocks[i].last;
        const bool overlap = blocks[i].offset < blocks[j].offset + blocks[j].bytes &&
                             blocks[j].offset < blocks[i].offset + blocks[i].bytes;
        EXPECT_FALSE(together && overlap) << i << " and " << j;
      }
    }
  }
}

TEST(MemoryPlan, ReusesMemoryOfTheDead) {
  std::vector<Block> blocks = {{640, 0, 1}, {640, 2, 3}, {640, 4, 5}};
  EXPECT_EQ(plan_memory(blocks), 640u);
}

}  // namespace
}  // namespace deepseek::runtime
