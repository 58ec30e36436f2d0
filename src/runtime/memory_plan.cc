#include "runtime/memory_plan.h"

#include <algorithm>
#include <numeric>

namespace deepseek::runtime {

size_t plan_memory(std::vector<Block>& blocks) {
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  std::vector<size_t> placed;  // by offset
  size_t total = 0;
  for (size_t i : order) {
    Block& block = blocks[i];
    const size_t need = (block.bytes + 63) / 64 * 64;
    size_t best = 0, best_gap = SIZE_MAX, end = 0;
    bool found = false;
    for (size_t j : placed) {
      const Block& other = blocks[j];
      if (other.last < block.first || block.last < other.first) continue;
      if (other.offset > end && other.offset - end >= need && other.offset - end < best_gap) {
        best = end;
        best_gap = other.offset - end;
        found = true;
      }
      end = std::max(end, other.offset + (other.bytes + 63) / 64 * 64);
    }
    block.offset = found ? best : end;
    total = std::max(total, block.offset + need);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), block.offset,
                                   [&](size_t offset, size_t j) { return offset < blocks[j].offset; }),
                  i);
  }
  return total;
}

}  // namespace deepseek::runtime
