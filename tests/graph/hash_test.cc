#include "graph/hash.h"

#include <gtest/gtest.h>

#include <set>

#include "graph/text.h"
#include "ops/registry.h"

namespace deepseek::graph {
namespace {

Hash128 hash_of(const std::string& text) {
  const Result<Graph> graph = parse(text, ops::registry());
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  Hasher hasher;
  add(hasher, *graph);
  return hasher.value();
}

TEST(GraphHash, CountsAllThatAProgramDependsOn) {
  const std::string base = R"(graph {
  input %0 "x" : f32[2,3]
  state %1 "w" : f32[2,3]
  %2 = constant() {value=f32[3]<1,2,3>} : f32[3]
  %3 = add(%0,%1) : f32[2,3] @"a"
  %4 = softmax(%3) {axis=1} : f32[2,3] @"b"
  output "y" %4
  output "c" %2
  update "w" %3
}
)";
  EXPECT_EQ(hash_of(base), hash_of(base));
  std::set<Hash128> seen{hash_of(base)};
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"\"x\"", "\"z\""},
                                                                                 {"input %0", "state %0"},
                                                                                 {"<1,2,3>", "<1,2,4>"},
                                                                                 {"<1,2,3>", "<3,2,1>"},
                                                                                 {"= add", "= sub"},
                                                                                 {"add(%0,%1)", "add(%1,%0)"},
                                                                                 {"axis=1", "axis=0"},
                                                                                 {"@\"b\"", "@\"d\""},
                                                                                 {"\"y\" %4", "\"y\" %3"},
                                                                                 {"update \"w\" %3", "update \"w\" %4"},
                                                                                 {"  update \"w\" %3\n", ""}}) {
    std::string text = base;
    text.replace(text.find(from), from.size(), to);
    EXPECT_TRUE(seen.insert(hash_of(text)).second) << from << " as " << to;
  }
}

}  // namespace
}  // namespace deepseek::graph
