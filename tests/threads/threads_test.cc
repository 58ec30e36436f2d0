// What several threads do at once, small enough for ThreadSanitizer (`make tsan`): one frozen model for all, programs
// compiled and dropped, training with its loader beside prediction.
#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "data/dataset.h"
#include "nn/layers.h"
#include "ops/dsl.h"
#include "ops/registry.h"
#include "runtime/backend.h"
#include "runtime/module_cache.h"
#include "train/trainer.h"

namespace deepseek {
namespace {

using namespace graph;

constexpr int kThreads = 8;

void in_threads(const std::function<void(int)>& run) {
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back([&, t] { run(t); });
  for (std::thread& thread : threads) thread.join();
}

// y = tanh(x w) v, with both weights constants or inputs.
Graph network(int64_t width) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {2, width}});
  Expr w = b.state("w", {DType::kF32, {width, width}}), v = b.state("v", {DType::kF32, {width, 3}});
  b.output("y", ops::matmul(ops::tanh(ops::matmul(x, w)), v));
  return *b.finish();
}
runtime::CompileOptions frozen(int64_t width) {
  runtime::CompileOptions options;
  options.constants = {{"w", Tensor::full(DType::kF32, {width, width}, 0.01)},
                       {"v", Tensor::full(DType::kF32, {width, 3}, 0.5)}};
  return options;
}
Tensor input(int64_t width, int t) { return Tensor::full(DType::kF32, {2, width}, 0.1 * (t + 1)); }
double expected(int64_t width, int t) {
  return static_cast<double>(width) * 0.5 * std::tanh(static_cast<double>(width) * 0.1 * (t + 1) * 0.01);
}

TEST(Threads, OneFrozenModelServesAll) {
  const runtime::BackendPtr cpu = *runtime::open_backend("cpu");
  const auto program = cpu->compile(network(16), frozen(16));
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  std::atomic<int> wrong{0};
  in_threads([&](int t) {
    for (int i = 0; i < 50; ++i) {
      const Result<std::vector<Tensor>> out = (*program)->run(std::vector<Tensor>{input(16, t)});
      if (!out.ok() || std::fabs((*out)[0].at(5) - expected(16, t)) > 1e-4) ++wrong;
    }
  });
  EXPECT_EQ(wrong, 0);
}

TEST(Threads, ProgramsAreCompiledAndDroppedAtOnce) {
  const runtime::BackendPtr cpu = *runtime::open_backend("cpu");
  runtime::ModuleCache cache({.programs = 2, .bytes = 0, .always = 1});
  std::atomic<int> wrong{0};
  in_threads([&](int t) {
    std::vector<runtime::ModuleCache::SlotPtr> held;
    for (int i = 0; i < 12; ++i) {
      const int64_t width = 4 + (t + i) % 5;
      const Result<runtime::ModuleCache::Got> got = cache.get(*cpu, network(width), frozen(width));
      if (!got.ok()) {
        ++wrong;
        continue;
      }
      const Result<std::vector<Tensor>> out = got->program->run(std::vector<Tensor>{input(width, t)});
      if (!out.ok() || std::fabs((*out)[0].at(0) - expected(width, t)) > 1e-4) ++wrong;
      held.push_back(got->slot);
      (void)held[static_cast<size_t>(i) / 2]->use();  // may have gone meanwhile
    }
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(cache.counts().dropped, 0u);
}

// Each thread trains a model of its own, with a loader's thread beside it, and predicts with a common program.
TEST(Threads, TrainingWithLoadersBesidePrediction) {
  const runtime::BackendPtr cpu = *runtime::open_backend("cpu");
  const auto program = cpu->compile(network(8), frozen(8));
  ASSERT_TRUE(program.ok());
  std::atomic<int> wrong{0};
  std::vector<double> losses(kThreads);
  nn::manual_seed(4);
  std::vector<nn::ModulePtr> models;
  for (int t = 0; t < kThreads; ++t)
    models.push_back(std::make_shared<nn::Sequential>(
        std::vector<nn::ModulePtr>{std::make_shared<nn::Linear>(4, 8), std::make_shared<nn::Linear>(8, 2)}));
  in_threads([&](int t) {
    Tensor x(DType::kF32, {40, 4});
    for (int64_t i = 0; i < 160; ++i) x.set(i, static_cast<double>(i * 7 % 11) / 11 - 0.5);
    const data::DatasetPtr data = *data::ArrayDataset::create(
        {{.name = "x"}, {.name = "y", .role = data::Role::kTarget, .class_names = {"a", "b"}}},
        {{"x", x}, {"y", Tensor::zeros(DType::kI64, {40})}});
    train::TrainerOptions options;
    options.train.output = "";
    options.train.epochs = 2;
    options.train.batch_size = 8;
    train::Trainer trainer(models[static_cast<size_t>(t)], options);
    const Result<train::FitResult> result = trainer.fit(data, data, false, {});
    if (!result.ok()) ++wrong;
    if (result.ok()) losses[static_cast<size_t>(t)] = result->history.back().validation[0].second;
    const Result<std::vector<Tensor>> out = (*program)->run(std::vector<Tensor>{input(8, t)});
    if (!out.ok() || std::fabs((*out)[0].at(0) - expected(8, t)) > 1e-4) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
  for (double loss : losses) EXPECT_LT(loss, 0.69);  // better than guessing: log 2
}

TEST(Threads, WhatIsSetHoldsInAll) {
  const int before = num_threads();
  ASSERT_TRUE(set_num_threads(1).ok());
  std::atomic<int> wrong{0};
  in_threads([&](int) { wrong += num_threads() != 1; });
  EXPECT_EQ(wrong, 0);
  ASSERT_TRUE(set_num_threads(before).ok());
}

}  // namespace
}  // namespace deepseek
