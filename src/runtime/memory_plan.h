// Places blocks with lifetimes into one arena: best fit over liveness, largest first. Deterministic.
// Test: tests/runtime/memory_plan_test.cc
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deepseek::runtime {

struct Block {
  size_t bytes;
  int32_t first, last;  // steps at which it must be valid, both included
  size_t offset = 0;    // result, 64-byte aligned
};

// Fills in offsets so that no two blocks that live at one step overlap; returns the arena's size.
size_t plan_memory(std::vector<Block>& blocks);

}  // namespace deepseek::runtime
