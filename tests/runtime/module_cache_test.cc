#include "runtime/module_cache.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "graph/text.h"
#include "ops/registry.h"
#include "runtime/shared_constants.h"

namespace deepseek::runtime {
namespace {

using graph::Graph;
using graph::Tensor;

Graph graph_of(int n) {
  return *graph::parse(
      fmt::format("graph {{\n  input %0 \"x\" : f32[{}]\n  %1 = exp(%0) : f32[{}]\n  output \"y\" %1\n}}", n, n),
      ops::registry());
}

struct FakeProgram : Program {
  FakeProgram(Graph g, const Backend& b, size_t bytes) : graph_(std::move(g)), backend_(b), bytes_(bytes) {}
  const Backend& backend() const override { return backend_; }
  const Graph& graph() const override { return graph_; }
  Result<std::vector<Buffer>> execute(std::span<const Buffer>, std::span<StateBuffer* const>, Profile*) const override {
    return std::vector<Buffer>();
  }
  size_t arena_bytes() const override { return bytes_; }
  size_t memory_bytes() const override {
    return bytes_ + graph_.type(graph_.inputs()[0].value).num_bytes();  // inputs are not the cache's
  }
  std::vector<NodeReport> report() const override { return {}; }
  Graph graph_;
  const Backend& backend_;
  size_t bytes_;
};

struct FakeBackend : Backend {
  std::string name() const override { return name_; }
  Result<std::shared_ptr<const Program>> compile(const Graph& graph, const CompileOptions&) const override {
    if (fails) return invalid("no");
    return std::shared_ptr<const Program>(std::make_shared<FakeProgram>(graph, *this, 100));
  }
  std::map<std::string, std::string> properties() const override { return {}; }
  Result<Buffer> make_buffer(const graph::TensorType&) const override { return Buffer(); }
  Result<Buffer> upload(const Tensor&) const override { return Buffer(); }
  Result<Tensor> download(const Buffer&) const override { return Tensor(); }
  bool host_memory() const override { return true; }
  MemoryUse memory_use() const override { return {}; }
  void set_memory_limit(size_t) const override {}
  bool has_fast(DType) const override { return false; }
  size_t memory_bytes() const override { return 0; }
  Peak measure_peak() const override { return {}; }
  std::string name_ = "fake";
  bool fails = false;
};

TEST(ModuleCache, FindsByContentWhoeverAsks) {
  ModuleCache cache({});
  FakeBackend backend;
  const auto a = cache.get(backend, graph_of(3), {})->slot, b = cache.get(backend, graph_of(3), {})->slot;
  EXPECT_EQ(a, b);
  EXPECT_EQ(cache.counts().compiled, 1);
  EXPECT_EQ(cache.counts().found, 1);
  std::vector<ModuleCache::SlotPtr> others{cache.get(backend, graph_of(4), {})->slot};
  others.push_back(cache.get(backend, graph_of(3), {.disabled_passes = {"cse"}})->slot);
  others.push_back(cache.get(backend, graph_of(3), {.disabled_implementations = {"cse"}})->slot);
  others.push_back(cache.get(backend, graph_of(3), {.measure_kernels = true})->slot);
  others.push_back(cache.get(backend, graph_of(3), {.memory_limit = 7})->slot);
  for (double value : {1.0, 2.0})
    others.push_back(
        cache.get(backend, graph_of(3), {.constants = {{"w", Tensor::full(DType::kF32, {2}, value)}}})->slot);
  backend.name_ = "other";
  others.push_back(cache.get(backend, graph_of(3), {})->slot);
  EXPECT_EQ(cache.counts().compiled, 9);
  EXPECT_EQ(cache.counts().programs, 9u);
  EXPECT_EQ(cache.counts().bytes, 900u);
  others.clear();
  EXPECT_EQ(cache.counts().programs, 1u);  // a program goes with its last owner
  EXPECT_EQ(cache.counts().bytes, 100u);
}

TEST(ModuleCache, TheLongestUnusedGoFirst) {
  ModuleCache cache({.programs = 100, .bytes = 300, .always = 1});
  FakeBackend backend;
  std::vector<ModuleCache::SlotPtr> slots;
  for (int n = 1; n <= 3; ++n) slots.push_back(cache.get(backend, graph_of(n), {})->slot);
  EXPECT_NE(slots[0]->use(), nullptr);
  slots.push_back(cache.get(backend, graph_of(4), {})->slot);
  EXPECT_NE(slots[0]->use(), nullptr);
  EXPECT_EQ(slots[1]->use(), nullptr);
  EXPECT_EQ(cache.counts().dropped, 1);
  const auto again = cache.get(backend, graph_of(2), {})->slot;
  EXPECT_NE(again->use(), nullptr);
  cache.set_limits({.programs = 1, .bytes = 1, .always = 2});
  EXPECT_EQ(cache.counts().programs, 2u);
}

TEST(ModuleCache, AFailureIsNotKept) {
  ModuleCache cache({});
  FakeBackend backend;
  backend.fails = true;
  EXPECT_FALSE(cache.get(backend, graph_of(3), {}).ok());
  backend.fails = false;
  EXPECT_TRUE(cache.get(backend, graph_of(3), {}).ok());
}

TEST(ModuleCache, ManyThreads) {
  ModuleCache cache({.programs = 5, .bytes = 0, .always = 1});
  const FakeBackend backend;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      CacheView<> view(6);
      for (int i = 0; i < 300; ++i) {
        const int n = 1 + (i * 7 + t) % 9;
        const auto program = view.get(std::to_string(n), [&] { return cache.get(backend, graph_of(n), {}); });
        ASSERT_TRUE(program.ok());
        EXPECT_EQ((*program)->graph().type((*program)->graph().inputs()[0].value).dims[0], n);
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(cache.counts().programs, 0u);
  EXPECT_EQ(cache.counts().bytes, 0u);
}

TEST(CacheView, KeepsTheLatestUsedAndWhatLiesBeside) {
  ModuleCache cache({});
  const FakeBackend backend;
  CacheView<int> view(2);
  const auto add = [&](const std::string& key, int n) { view.put(key, cache.get(backend, graph_of(n), {})->slot, n); };
  add("a", 1);
  add("b", 2);
  EXPECT_EQ(*view.find("a").extra, 1);
  add("c", 3);
  EXPECT_FALSE(view.find("b"));
  EXPECT_TRUE(view.find("a") && view.find("c"));
  add("a", 4);
  EXPECT_EQ(*view.find("a").extra, 4);
  view.erase_if([](const std::string& key) { return key == "a"; });
  EXPECT_EQ(view.size(), 1u);
  EXPECT_EQ(cache.counts().programs, 1u);
}

TEST(SharedConstants, EqualBytesLieInMemoryOnce) {
  const auto make = [](double value) { return share_constant(Tensor::full(DType::kF32, {5000}, value)); };
  const Tensor a = make(1), b = make(2);
  EXPECT_EQ(make(1).data(), a.data());
  EXPECT_NE(b.data(), a.data());
  EXPECT_NE(share_constant(Tensor::full(DType::kF32, {50, 100}, 1)).data(), a.data());  // another type
  const std::weak_ptr<void> watch = make(3).owner();
  EXPECT_TRUE(watch.expired());  // nothing is kept for its own sake
  const Tensor small = Tensor::full(DType::kF32, {4}, 1);
  EXPECT_EQ(share_constant(small).data(), small.data());
}

TEST(SharedConstants, CopiesWhatItsOwnerMayWriteTo) {
  const Tensor owned = Tensor::full(DType::kF32, {5000}, 4), small = Tensor::full(DType::kF32, {4}, 4);
  const Tensor copy = share_copy(owned);
  EXPECT_NE(copy.data(), owned.data());
  owned.set(9, 5);
  EXPECT_EQ(copy.at(9), 4);
  EXPECT_EQ(share_copy(Tensor::full(DType::kF32, {5000}, 4)).data(), copy.data());
  EXPECT_NE(share_copy(owned).data(), copy.data());
  EXPECT_NE(share_copy(small).data(), small.data());
}

}  // namespace
}  // namespace deepseek::runtime
