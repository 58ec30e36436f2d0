#include "passes/cse.h"

#include <map>

#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

Result<Graph> cse(const Graph& graph, const PassContext&) {
  struct Known {
    const Attrs* attrs;
    std::vector<Expr> results;
  };
  // By op and inputs; attributes, which may be whole tensors, are only compared where these agree.
  std::map<std::pair<const OpDef*, std::vector<int32_t>>, std::vector<Known>> seen;
  bool found = false;
  const auto replace = [&](Builder& builder, const Graph&, const Node& node,
                           const std::vector<Expr>& inputs) -> std::optional<std::vector<Expr>> {
    if (node.op->traits.random) return std::nullopt;  // two places that draw stay two
    std::vector<int32_t> ids;
    for (const Expr& e : inputs) ids.push_back(e.value().id);
    std::vector<Known>& known = seen[{node.op, std::move(ids)}];
    for (const Known& k : known)
      if (*k.attrs == node.attrs) {
        found = true;
        return k.results;
      }
    known.push_back({&node.attrs, builder.emit(node.op_name(), inputs, node.attrs)});
    return known.back().results;
  };
  DS_ASSIGN(Graph result, rewrite(graph, replace));
  return found ? result : graph;
}

}  // namespace deepseek::passes
