// Sessions: what the graph means for every batch size, from any number of threads, in memory that does not grow.
#include "infer/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <functional>
#include <thread>

#include "base/threads.h"
#include "tests/infer/models.h"
#include "tests/io/temp_folder.h"

namespace deepseek::infer {
namespace {

using graph::Builder;
using graph::Expr;
using graph::Tensor;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Named = std::map<std::string, Tensor>;

constexpr int64_t kWidth = 5;

std::shared_ptr<Session> session_of(ModelFile model, const SessionOptions& options = {}) {
  Result<std::shared_ptr<Session>> session = Session::open(std::move(model), options);
  EXPECT_TRUE(session.ok()) << session.status().to_string();
  return session.ok() ? *session : nullptr;
}

Tensor batch(int64_t n, int seed = 0) {
  Tensor x(DType::kF32, {n, 4});
  for (int64_t i = 0; i < x.num_elements(); ++i) x.set(i, std::sin(static_cast<double>(i + 100 * seed)));
  return x;
}

// How far off the results are, of the MLP.
double error_of(const Named& results, const Tensor& x, int64_t width = kWidth) {
  double most = 0;
  for (int64_t row = 0; row < x.dims()[0]; ++row) {
    if (const auto hidden = results.find("hidden"); hidden != results.end())
      for (int64_t i = 0; i < width; ++i)
        most = std::max(most, std::fabs(hidden->second.at(row * width + i) - mlp_hidden(x, row, i, width)));
    if (const auto logits = results.find("logits"); logits != results.end())
      for (int64_t j = 0; j < 3; ++j)
        most = std::max(most, std::fabs(logits->second.at(row * 3 + j) - mlp_logit(x, row, j, width)));
  }
  return most;
}

size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * 4096;
}

TEST(Session, ComputesWhatTheGraphMeans) {
  TempFolder folder;
  ASSERT_TRUE(save_model(folder / "m", mlp(kWidth)).ok());
  for (const char* device : {"cpu", "null"}) {
    const auto opened = Session::open(folder / "m", {.device = device});
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    Session& session = **opened;
    EXPECT_EQ(session.backend().name(), device);
    for (const int64_t n : {1, 2, 3, 4, 7, 33}) {
      const Tensor x = batch(n);
      const Result<Named> results = session.run({{"x", x}});
      ASSERT_TRUE(results.ok()) << results.status().to_string();
      ASSERT_EQ(results->size(), 2u);
      EXPECT_EQ(results->at("logits").dims(), (graph::Dims{n, 3}));
      EXPECT_LT(error_of(*results, x), 1e-5);
    }
    EXPECT_EQ(session.programs(), 6u);
    EXPECT_EQ(session.class_names("logits")[2], "fl\xc3\xbcgel");
    EXPECT_TRUE(session.class_names("hidden").empty());
    EXPECT_EQ(session.outputs().at("logits").task, "classification");
    EXPECT_THAT(session.preprocessing(), HasSubstr("resize"));
    EXPECT_EQ(session.provenance().at("framework_version"), "0.1.0");
    EXPECT_EQ(to_string(session.signature().inputs[0]), "f32[?,4]");
  }
}

TEST(Session, FixedSizes) {
  const auto session = session_of(mlp(kWidth, 6), {.warm_up = {6}});
  EXPECT_EQ(session->programs(), 1u);
  const Result<Named> results = session->run({{"x", batch(6)}});
  ASSERT_TRUE(results.ok()) << results.status().to_string();
  EXPECT_LT(error_of(*results, batch(6)), 1e-5);
  EXPECT_THAT(session->run({{"x", batch(7)}}).status().message(),
              HasSubstr("input 'x': expected f32[6,4], got f32[7,4]: axis 0 is 7 instead of 6"));
  EXPECT_THAT(Session::open(mlp(kWidth, 6), {.warm_up = {7}}).status().to_string(),
              AllOf(HasSubstr("the model takes inputs of its own sizes alone: 'x' f32[6,4]"),
                    HasSubstr("while warming up with a batch of 7")));
}

TEST(Session, OnlyOutputsThatAreAskedFor) {
  const auto session = session_of(mlp(kWidth));
  const Tensor x = batch(3);
  for (const std::vector<std::string>& names :
       std::vector<std::vector<std::string>>{{"hidden"}, {"logits"}, {"hidden", "hidden"}, {"logits", "hidden"}, {}}) {
    const Result<Named> results = session->run({{"x", x}}, names);
    ASSERT_TRUE(results.ok()) << results.status().to_string();
    EXPECT_EQ(results->size(), names.empty() || names[0] != names.back() ? 2u : 1u);
    for (const std::string& name : names) EXPECT_TRUE(results->contains(name));
    EXPECT_LT(error_of(*results, x), 1e-5);
  }
  EXPECT_EQ(session->programs(), 3u);
  const std::vector<std::string> wrong{"logit"};
  EXPECT_THAT(session->run({{"x", x}}, wrong).status().message(),
              HasSubstr("the model has no output 'logit'; it has: hidden, logits; did you mean 'logits'?"));
}

TEST(Session, AnInputCalledLikeAWeightAndOnePassedThrough) {
  const auto trace = [](int64_t n) {
    Builder b(ops::registry());
    const Expr x = b.input("input/w", {DType::kF32, {n, 2}}), w = b.state("w", {DType::kF32, {2}});
    b.output("y", x * w);
    b.output("same", x);
    b.output("weight", w);
    return *b.finish();
  };
  const auto session = session_of(model_of({trace(2), trace(3)}, {{"w", Tensor::full(DType::kF32, {2}, 3)}}));
  const Tensor x = Tensor::full(DType::kF32, {5, 2}, 2);
  const Result<Named> results = session->run({{"w", x}});
  ASSERT_TRUE(results.ok()) << results.status().to_string();
  EXPECT_EQ(results->at("y").at(9), 6);
  EXPECT_EQ(results->at("same").at(9), 2);
  EXPECT_NE(results->at("same").data(), x.data());
  results->at("weight").set(0, 7);  // is the caller's
  EXPECT_EQ(session->run({{"w", x}})->at("y").at(0), 6);
}

TEST(Session, InputsThatAreWrong) {
  const auto trace = [](int64_t n) {
    Builder b(ops::registry());
    const Expr x = b.input("image", {DType::kF32, {n, 2}}), m = b.input("mask", {DType::kBool, {n}});
    const Expr pairs = b.input("pairs", {DType::kF32, {2 * n}});
    b.output("y", ops::select(m, ops::sum(x, {1}), ops::sum(ops::reshape(pairs, {n, 2}), {1})));
    return *b.finish();
  };
  const auto session = session_of(model_of({trace(2), trace(3)}, {}));
  const Named right{{"image", Tensor::zeros(DType::kF32, {5, 2})},
                    {"mask", Tensor::zeros(DType::kBool, {5})},
                    {"pairs", Tensor::zeros(DType::kF32, {10})}};
  ASSERT_TRUE(session->run(right).ok()) << session->run(right).status().to_string();
  const auto error = [&](const std::function<void(Named&)>& change) {
    Named inputs = right;
    change(inputs);
    const Result<Named> results = session->run(inputs);
    EXPECT_FALSE(results.ok());
    EXPECT_TRUE(results.ok() || results.status().code() == ErrorCode::kInvalidArgument);
    return results.ok() ? "" : results.status().to_string();
  };
  EXPECT_EQ(error([](Named& in) { in.erase("mask"); }), "input 'mask' is missing, expected bool[?]");
  EXPECT_EQ(error([](Named& in) { in["imag"] = in["image"]; }),
            "the model has no input 'imag'; it has: image, mask, pairs; did you mean 'image'?");
  EXPECT_EQ(error([](Named& in) { in["image"] = in["image"].cast(DType::kF64); }),
            "input 'image': expected f32[?,2], got f64[5,2]; convert it to f32");
  EXPECT_EQ(error([](Named& in) { in["image"] = Tensor::zeros(DType::kF32, {5}); }),
            "input 'image': expected f32[?,2], got f32[5]: 1 axes instead of 2");
  EXPECT_EQ(error([](Named& in) {
              in["image"] = Tensor::zeros(DType::kF32, {5, 3});
            }),
            "input 'image': expected f32[?,2], got f32[5,3]: axis 1 is 3 instead of 2");
  EXPECT_EQ(error([](Named& in) { in["mask"] = Tensor::zeros(DType::kBool, {4}); }),
            "input 'mask': expected a batch of 5 as in input 'image', f32[5,2], got one of 4, bool[4]");
  EXPECT_EQ(error([](Named& in) { in["pairs"] = Tensor::zeros(DType::kF32, {11}); }),
            "input 'pairs': axis 0 must be 2 times the batch size, got 11");
  EXPECT_EQ(error([](Named& in) {
              in["image"] = Tensor::zeros(DType::kF32, {0, 2});
            }),
            "input 'image': the batch is empty, got f32[0,2]; leave the call out");
  EXPECT_EQ(error([](Named& in) { in["image"] = Tensor(); }), "input 'image' has no data, expected f32[?,2]");
  EXPECT_THAT(error([](Named& in) {
                in["image"] = Tensor({DType::kF32, {5, 2}, 2}, in["image"].data(), in["image"].owner());
              }),
              HasSubstr("its layout is not row-major"));
  EXPECT_TRUE(session->run(right).ok());
}

TEST(Session, OptionsThatAreWrong) {
  const auto error = [](const SessionOptions& options) {
    const auto session = Session::open(mlp(kWidth), options);
    EXPECT_FALSE(session.ok());
    return session.status().to_string();
  };
  EXPECT_THAT(error({.device = "cqu"}),
              HasSubstr("there is no device 'cqu'; there are: cpu, null; did you mean 'cpu'?"));
  EXPECT_THAT(error({.max_programs = 0}), HasSubstr("max_programs: expected at least 1, got 0"));
  EXPECT_THAT(error({.warm_up = {4, 0}}),
              AllOf(HasSubstr("expected a batch size in [1, 2147483647], got 0"), HasSubstr("a batch of 0")));
  ModelFile broken = mlp(kWidth);
  broken.weights.erase("w");
  EXPECT_THAT(Session::open(std::move(broken)).status().message(), HasSubstr("weight 'w', f32[4,5], is missing"));
  EXPECT_EQ(Session::open("none.safetensors").status().code(), ErrorCode::kNotFound);
}

TEST(Session, WarmUpCompilesAhead) {
  const auto session = session_of(mlp(kWidth), {.warm_up = {1, 8, 8}});
  EXPECT_EQ(session->compiled(), 2);
  ASSERT_TRUE(session->run({{"x", batch(8)}}).ok());
  EXPECT_EQ(session->compiled(), 2);
}

TEST(Session, MoreThanTheMemoryIsAnError) {
  const auto trace = [](int64_t n) {
    Builder b(ops::registry());
    const Expr x = b.input("x", {DType::kU8, {n, 1}});
    b.output("y", ops::cast(x, DType::kF64) * b.state("w", {DType::kF64, {1, 100000}}));
    return *b.finish();
  };
  const auto session = session_of(model_of({trace(2), trace(3)}, {{"w", Tensor::zeros(DType::kF64, {1, 100000})}}));
  const Result<Named> results = session->run({{"x", Tensor::zeros(DType::kU8, {1 << 20, 1})}});
  ASSERT_FALSE(results.ok());
  EXPECT_THAT(results.status().message(), HasSubstr("use smaller batches"));
  EXPECT_EQ(session->programs(), 0u);
  EXPECT_TRUE(session->run({{"x", Tensor::zeros(DType::kU8, {1, 1})}}).ok());
}

TEST(Session, ManyThreadsCompileEachSizeOnce) {
  const auto session = session_of(mlp(kWidth));
  constexpr int kThreads = 64;
  std::atomic<int> wrong{0}, ready{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      ++ready;
      while (ready < kThreads) std::this_thread::yield();
      for (int i = 0; i < 40; ++i) {
        const Tensor x = batch(1 + (t / 8 + i) % 10, t);
        const Result<Named> results = session->run({{"x", x}});
        if (!results.ok() || error_of(*results, x) > 1e-5) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(session->compiled(), 10);
  EXPECT_EQ(session->programs(), 10u);
}

TEST(Session, ManyThreadsBeyondTheBound) {
  const auto session = session_of(mlp(kWidth), {.max_programs = 3});
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const Tensor x = batch(1 + (3 * t + i) % 9, t);
        const Result<Named> results = session->run({{"x", x}});
        if (!results.ok() || error_of(*results, x) > 1e-5) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(session->programs(), 3u);
  EXPECT_GT(session->compiled(), 9);
}

// AddressSanitizer keeps what was freed for a while, so the process grows under it whatever we do.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kKeepsFreed = true;
#else
constexpr bool kKeepsFreed = false;
#endif
#else
constexpr bool kKeepsFreed = false;
#endif

TEST(Session, ThousandsOfSizesKeepMemoryFlat) {
  const int64_t sizes = kKeepsFreed ? 300 : 3000;
  const auto session = session_of(mlp(kWidth), {.max_programs = 8});
  const auto run = [&](int64_t n) {
    const Result<Named> results = session->run({{"x", batch(n)}});
    ASSERT_TRUE(results.ok()) << results.status().to_string();
  };
  size_t before = 0;
  for (int64_t n = 1; n <= sizes; ++n) {
    run(n);
    if (n == sizes / 3) before = resident_bytes();
  }
  EXPECT_EQ(session->programs(), 8u);
  EXPECT_EQ(session->compiled(), sizes);
  if (!kKeepsFreed) EXPECT_LT(resident_bytes(), before + (size_t{8} << 20));
}

TEST(Session, WeightsLieInMemoryOnce) {
  constexpr int64_t kRows = 400000, kColumns = 64;  // 98 MiB, read row by row
  const auto trace = [](int64_t n) {
    Builder b(ops::registry());
    const Expr x = b.input("ids", {DType::kI64, {n}}), table = b.state("table", {DType::kF32, {kRows, kColumns}});
    b.output("rows", b.op("gather", {table, x}));
    return *b.finish();
  };
  const size_t before = resident_bytes(), table = kRows * kColumns * sizeof(float);
  const auto session =
      session_of(model_of({trace(2), trace(3)}, {{"table", Tensor::full(DType::kF32, {kRows, kColumns}, 1)}}));
  for (int64_t n = 1; n <= 6; ++n) {
    const Result<Named> results = session->run({{"ids", Tensor::full(DType::kI64, {n}, 7)}});
    ASSERT_TRUE(results.ok()) << results.status().to_string();
    EXPECT_EQ(results->at("rows").at(0), 1);
  }
  EXPECT_LT(resident_bytes(), before + table + table / 4);
}

}  // namespace
}  // namespace deepseek::infer
