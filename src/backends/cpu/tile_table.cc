#include "backends/cpu/tile_table.h"

#include <iterator>
#include <unordered_map>

namespace deepseek::backends::cpu {

namespace {

constexpr TileOpInfo kInfos[] = {
#define DEEPSEEK_TILE_OP(id, name, n, work, result, whole, f64, f32, bools, code, mask_code) {#name, n, work},
    DEEPSEEK_TILE_OPS(DEEPSEEK_TILE_OP)
#undef DEEPSEEK_TILE_OP
};

}  // namespace

const TileOpInfo& info_of(TileOp op) { return kInfos[static_cast<size_t>(op)]; }

std::optional<TileOp> find_tile_op(std::string_view name) {
  static const std::unordered_map<std::string_view, TileOp> by_name = [] {
    std::unordered_map<std::string_view, TileOp> map;
    for (size_t i = 0; i < static_cast<size_t>(TileOp::kMulAdd); ++i) map.emplace(kInfos[i].name, TileOp(i));
    return map;
  }();
  const auto it = by_name.find(name);
  return it == by_name.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace deepseek::backends::cpu
