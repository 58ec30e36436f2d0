// Runs on a small set of striped pictures in IDX files: learning, bit-exact resume, clear errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "io/safetensors.h"
#include "nn/layers.h"
#include "train/run.h"

namespace deepseek::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

void put_u32(std::string& out, uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(v >> shift & 0xff);
}
void write(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// Class c has bright rows where row % 4 == c; noise everywhere.
void write_stripes(const fs::path& folder, const std::string& part, int count) {
  std::mt19937 random(part.size());
  std::string images("\0\0\x08\x03", 4), labels("\0\0\x08\x01", 4);
  put_u32(images, static_cast<uint32_t>(count));
  put_u32(images, 8);
  put_u32(images, 8);
  put_u32(labels, static_cast<uint32_t>(count));
  for (int i = 0; i < count; ++i) {
    const int label = i % 4;
    labels += static_cast<char>(label);
    for (int p = 0; p < 64; ++p) images += static_cast<char>(random() % 120 + (p / 8 % 4 == label ? 80 : 0));
  }
  write(folder / (part + "_images"), images);
  write(folder / (part + "_labels"), labels);
}

class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("deepseek_trainer_test_" + std::to_string(::getpid()) + "_" +
                                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder_);
    write_stripes(folder_, "train", 320);
    write_stripes(folder_, "test", 80);
  }
  void TearDown() override { fs::remove_all(folder_); }

  RunOptions options(const std::string& run) const {
    RunOptions o;
    o.data.name = "idx";
    for (const char* key : {"train_images", "train_labels", "test_images", "test_labels"})
      o.data.params[key] = (folder_ / key).string();
    o.data.params["class_names"] = "a,b,c,d";
    o.model.params = {{"width", "4"}};
    o.optimizer.name = "adamw";
    o.optimizer.learning_rate = 0.01;
    o.optimizer.clip_norm = 5;
    o.train.epochs = 3;
    o.train.batch_size = 32;
    o.train.output = (folder_ / run).string();
    return o;
  }
  static Hooks quiet(int64_t stop_at = -1) {
    Hooks hooks;
    hooks.progress = [stop_at](const StepReport& r) { return r.step != stop_at; };
    return hooks;
  }
  fs::path folder_;
};

TEST_F(TrainerTest, LearnsAndWritesTheRunFolder) {
  Result<RunResult> result = run_training(options("run"), false, quiet());
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  EXPECT_GT(result->test->value("accuracy"), 0.9);  // chance is 0.25
  const std::vector<EpochRecord>& history = result->fit.history;
  EXPECT_LT(history.back().training[0].second, history.front().training[0].second);
  for (const char* file : {"config.yaml", "history.csv", "last.safetensors", "best.safetensors", "loss.png",
                           "accuracy.png", "confusion.png"})
    EXPECT_GT(fs::file_size(folder_ / "run" / file), 0u) << file;
  Result<TrainedRun> loaded = load_run((folder_ / "run").string());
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  Result<Evaluation> again = Trainer(loaded->model, loaded->options).evaluate(loaded->data.test);
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(again->confusions[0].counts, result->test->confusions[0].counts);
}

TEST_F(TrainerTest, ResumeEqualsUninterruptedBitForBit) {
  ASSERT_TRUE(run_training(options("whole"), false, quiet()).ok());
  for (const int64_t stop : {1, 9, 13}) {
    Result<RunResult> stopped = run_training(options("parts"), false, quiet(stop));
    ASSERT_TRUE(stopped.ok()) << stopped.status().to_string();
    ASSERT_TRUE(stopped->fit.interrupted);
    Result<RunResult> resumed = run_training(options("parts"), true, quiet());
    ASSERT_TRUE(resumed.ok()) << resumed.status().to_string();
    Result<io::TensorFile> a = io::load_safetensors((folder_ / "whole/last.safetensors").string());
    Result<io::TensorFile> b = io::load_safetensors((folder_ / "parts/last.safetensors").string());
    ASSERT_TRUE(a.ok() && b.ok());
    ASSERT_EQ(a->tensors.size(), b->tensors.size());
    for (const auto& [name, tensor] : a->tensors)
      EXPECT_EQ(0, std::memcmp(tensor.data(), b->tensors.at(name).data(), tensor.num_bytes()))
          << name << " after a stop at " << stop;
  }
}

// The scale doubles every third update, so that it soon overflows; the scale and its counters are resumed, too.
TEST_F(TrainerTest, ResumeIsExactInFloat16WithSkippedUpdates) {
  const auto make = [&](const std::string& run) {
    RunOptions o = options(run);
    o.train.precision = "float16";
    o.train.loss_scale_interval = 3;
    o.train.accumulate = 2;
    o.train.batch_size = 16;
    return o;
  };
  std::string log;
  Hooks hooks = quiet();
  hooks.message = [&](const std::string& text) { log += text + "\n"; };
  const Result<RunResult> whole = run_training(make("whole"), false, hooks);
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  double skipped = 0;
  for (const EpochRecord& r : whole->fit.history) {
    EXPECT_EQ(r.training.back().first, "skipped_updates");
    EXPECT_TRUE(std::isfinite(r.training[0].second));
    skipped += r.training.back().second;
  }
  EXPECT_GT(skipped, 0);
  EXPECT_THAT(log, HasSubstr("its gradients overflow at loss scale"));
  EXPECT_GT(whole->test->value("accuracy"), 0.9);
  for (const int64_t stop : {4, 14}) {
    ASSERT_TRUE(run_training(make("parts"), false, quiet(stop))->fit.interrupted);
    const Result<RunResult> resumed = run_training(make("parts"), true, quiet());
    ASSERT_TRUE(resumed.ok()) << resumed.status().to_string();
    Result<io::TensorFile> a = io::load_safetensors((folder_ / "whole/last.safetensors").string());
    Result<io::TensorFile> b = io::load_safetensors((folder_ / "parts/last.safetensors").string());
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(a->tensors.at("loss_scale/skipped").at(0), skipped);
    ASSERT_EQ(a->tensors.size(), b->tensors.size());
    for (const auto& [name, tensor] : a->tensors)
      EXPECT_EQ(0, std::memcmp(tensor.data(), b->tensors.at(name).data(), tensor.num_bytes())) << name;
    for (size_t i = 0; i < whole->fit.history.size(); ++i)
      EXPECT_EQ(whole->fit.history[i].training, resumed->fit.history[i].training);
  }
}

TEST_F(TrainerTest, ADivergedRunInFloat16EndsWithTheError) {
  RunOptions o = options("run");
  o.train.precision = "float16";
  o.optimizer.name = "sgd";
  o.optimizer.clip_norm = 0;
  o.optimizer.learning_rate = 1e30;
  EXPECT_THAT(run_training(o, false, quiet()).status().message(), HasSubstr("lower optimizer.learning_rate"));
}

TEST_F(TrainerTest, ErrorsSayWhatToDo) {
  RunOptions o = options("run");
  o.train.batch_size = 1000;
  o.train.drop_last = true;
  EXPECT_THAT(run_training(o, false, quiet()).status().message(),
              HasSubstr("batch_size 1000 with drop_last leaves no batch of 288 samples"));
  o = options("run");
  o.model.name = "resnot";
  EXPECT_THAT(run_training(o, false, quiet()).status().message(),
              HasSubstr("there is no model 'resnot'; the zoo has: mlp, small_resnet"));
  o = options("run");
  o.optimizer.name = "sgd";
  o.optimizer.clip_norm = 0;
  o.optimizer.learning_rate = 1e30;
  EXPECT_THAT(run_training(o, false, quiet()).status().message(), HasSubstr("lower optimizer.learning_rate"));
  EXPECT_THAT(run_training(options("fresh"), true, quiet()).status().message(), HasSubstr("last.safetensors"));
  ASSERT_TRUE(run_training(options("other"), false, quiet(1)).ok());
  o = options("other");
  o.model.params["width"] = "8";
  EXPECT_THAT(run_training(o, true, quiet()).status().message(),
              HasSubstr("the checkpoint does not fit the model and optimizer"));
}

// Every kind of state at once: average, accumulation with a remainder, dropout-free model, plateau, auc's scores.
TEST_F(TrainerTest, ResumeIsExactWithAccumulationAverageAndPlateau) {
  const auto make = [&](const std::string& run) {
    RunOptions o = options(run);
    o.train.accumulate = 2;
    o.train.batch_size = 50;  // 288 samples: 6 batches, the last of 38
    o.train.ema_decay = 0.9;
    o.train.metrics = {"f1", "auc"};
    o.augmentation.methods = {"flip", "crop"};
    o.schedule.name = "plateau";
    o.schedule.patience = 0;
    return o;
  };
  Result<RunResult> whole = run_training(make("whole"), false, quiet());
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  for (const int64_t stop : {2, 4}) {
    ASSERT_TRUE(run_training(make("parts"), false, quiet(stop))->fit.interrupted);
    Result<RunResult> resumed = run_training(make("parts"), true, quiet());
    ASSERT_TRUE(resumed.ok()) << resumed.status().to_string();
    for (const char* file : {"last.safetensors", "best.safetensors"}) {
      Result<io::TensorFile> a = io::load_safetensors((folder_ / "whole" / file).string());
      Result<io::TensorFile> b = io::load_safetensors((folder_ / "parts" / file).string());
      ASSERT_TRUE(a.ok() && b.ok());
      ASSERT_EQ(a->tensors.size(), b->tensors.size());
      for (const auto& [name, tensor] : a->tensors)
        EXPECT_EQ(0, std::memcmp(tensor.data(), b->tensors.at(name).data(), tensor.num_bytes())) << name;
    }
    ASSERT_EQ(whole->fit.history.size(), resumed->fit.history.size());
    for (size_t i = 0; i < whole->fit.history.size(); ++i) {
      EXPECT_EQ(whole->fit.history[i].training, resumed->fit.history[i].training);
      EXPECT_EQ(whole->fit.history[i].validation, resumed->fit.history[i].validation);
    }
    EXPECT_EQ(whole->test->metrics, resumed->test->metrics);
  }
}

TEST_F(TrainerTest, AProfileTrainsNothing) {
  RunOptions o = options("profiled");
  o.train.accumulate = 2;  // each profiled step is an update of its own
  o.train.ema_decay = 0.9;
  const Result<explain::StepProfile> p =
      profile_training(o, {.warmup = 1, .steps = 12});  // more than an epoch's batches
  ASSERT_TRUE(p.ok()) << p.status().to_string();
  EXPECT_EQ(p->subject, "small_resnet on idx, a training step of 32 samples");
  EXPECT_GT(p->cost().flops, 0);
  EXPECT_FALSE(fs::exists(o.train.output));
}

TEST_F(TrainerTest, AnEarlierRunIsMovedAway) {
  RunOptions o = options("run");
  o.train.epochs = 1;
  ASSERT_TRUE(run_training(o, false, quiet()).ok());
  std::string said;
  Hooks hooks = quiet();
  hooks.message = [&](const std::string& text) { said += text + "\n"; };
  ASSERT_TRUE(run_training(o, false, hooks).ok());
  EXPECT_THAT(said, HasSubstr("is now " + (folder_ / "run.1").string()));
  EXPECT_TRUE(fs::exists(folder_ / "run.1/best.safetensors"));
}

// A config that cannot train, or a second training, leaves the folder as it is.
TEST_F(TrainerTest, AnEarlierRunStaysWhereTheNextCannotBegin) {
  RunOptions o = options("run");
  o.train.epochs = 1;
  o.train.output += "/";
  ASSERT_TRUE(run_training(o, false, quiet()).ok());
  const auto time = fs::last_write_time(folder_ / "run/last.safetensors");
  RunOptions wrong = o;
  wrong.train.monitor = "acuracy";
  EXPECT_FALSE(run_training(wrong, false, quiet()).ok());
  wrong = o;
  wrong.loss.params["label_smoothing"] = "2";
  EXPECT_FALSE(run_training(wrong, false, quiet()).ok());
  wrong = o;
  wrong.memory.limit = "1KiB";
  EXPECT_FALSE(run_training(wrong, false, quiet()).ok());
  EXPECT_EQ(fs::last_write_time(folder_ / "run/last.safetensors"), time);
  EXPECT_FALSE(fs::exists(folder_ / "run.1"));
  wrong.train.output = (folder_ / "fresh").string();
  EXPECT_FALSE(run_training(wrong, false, quiet()).ok());
  EXPECT_FALSE(fs::exists(folder_ / "fresh"));
  Status second;
  Hooks hooks = quiet();
  hooks.progress = [&](const StepReport& r) {
    if (r.step == 1) second = run_training(o, false, quiet()).status();
    return true;
  };
  ASSERT_TRUE(run_training(o, false, hooks).ok());
  EXPECT_THAT(second.message(), HasSubstr("another training"));
  EXPECT_TRUE(fs::exists(folder_ / "run.1/best.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "run.2"));
}

TEST_F(TrainerTest, ResumesWithTheSettingsItBeganWith) {
  ASSERT_TRUE(run_training(options("run"), false, quiet(4))->fit.interrupted);
  RunOptions o = options("run");
  o.train.batch_size = 16;
  o.train.accumulate = 2;
  o.train.seed = 3;
  o.train.metrics = {"f1"};
  o.train.precision = "bfloat16";
  o.data.params["validation_fraction"] = "0.2";
  const std::string message = run_training(o, true, quiet()).status().message();
  for (const char* text : {"train.batch_size: 32 when the run began, 16 now", "train.accumulate: 1", "train.seed: 0",
                           "train.metrics: ", "train.monitor: ", "train.precision: ", "training data: 288 samples",
                           "256 samples", "validation data: 32"})
    EXPECT_THAT(message, HasSubstr(text));
  o = options("run");
  o.optimizer.learning_rate = 0.001;
  std::string said;
  Hooks hooks = quiet();
  hooks.message = [&](const std::string& text) { said += text + "\n"; };
  ASSERT_TRUE(run_training(o, true, hooks).ok());
  EXPECT_THAT(said,
              HasSubstr("changed since the run began: optimizer.learning_rate: 0.01 when the run began, 0.001 now"));
}

TEST_F(TrainerTest, StopsEarly) {
  RunOptions o = options("run");
  o.train.epochs = 50;
  o.train.patience = 2;
  o.optimizer.learning_rate = 0;  // nothing gets better after the first epoch
  const Result<RunResult> result = run_training(o, false, quiet());
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  EXPECT_TRUE(result->fit.stopped_early);
  EXPECT_LE(result->fit.history.size(), 5u);
  // Batch norm's statistics still move; a run that is resumed after its early stop stays stopped.
  const Result<RunResult> again = run_training(o, true, quiet());
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(again->fit.history.size(), result->fit.history.size());
}

// Two batches of 16 accumulated are one batch of 32 where no layer looks across samples.
TEST_F(TrainerTest, AccumulationEqualsTheLargeBatch) {
  const auto weights = [&](int64_t batch, int64_t accumulate) {
    RunOptions o = options("run" + std::to_string(batch));
    o.model = {"mlp", {{"width", "8"}}};
    o.train.epochs = 2;
    o.train.batch_size = batch;
    o.train.accumulate = accumulate;
    EXPECT_TRUE(run_training(o, false, quiet()).ok());
    return io::load_safetensors(o.train.output + "/last.safetensors")->tensors;
  };
  const auto large = weights(64, 1), small = weights(16, 4);  // 288 = 4 * 64 + 32: the last window is smaller
  double moved = 0;
  for (const auto& [name, tensor] : large) {
    if (name.starts_with("training/")) continue;
    for (int64_t i = 0; i < tensor.num_elements(); ++i) {
      EXPECT_NEAR(tensor.at(i), small.at(name).at(i), 1e-4 * std::max(1.0, std::abs(tensor.at(i)))) << name;
      moved = std::max(moved, std::abs(tensor.at(i)));
    }
  }
  EXPECT_GT(moved, 0);
}

// Regression by hand: one weight, one sample, learning rate 1/32 and mse: w' = w - 2/32 (w x - y) x. The average
// follows min(0.5, (1 + t) / (10 + t)).
TEST(TrainerRegressionTest, FollowsTheClosedForm) {
  auto model = std::make_shared<nn::Linear>(1, 1, false);
  double w = model->named_state()[0].value.at(0), average = w;
  const data::DatasetPtr d = *data::ArrayDataset::create(
      {{.name = "x"}, {.name = "y", .role = data::Role::kTarget}},
      {{"x", graph::Tensor::full(DType::kF32, {1, 1}, 2)}, {"y", graph::Tensor::full(DType::kF32, {1}, 3)}});
  TrainerOptions o;
  o.optimizer.learning_rate = 0.03125;
  o.schedule.name = "constant";
  o.train.epochs = 4;
  o.train.ema_decay = 0.5;
  o.train.monitor = "loss";
  o.train.output = "";
  Trainer trainer(model, o);
  const Result<FitResult> result = trainer.fit(d, nullptr, false, {});
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  for (int t = 1; t <= 4; ++t) {
    EXPECT_NEAR(result->history[static_cast<size_t>(t - 1)].training[0].second, (2 * w - 3) * (2 * w - 3), 1e-5);
    w -= 0.03125 * 2 * (2 * w - 3) * 2;
    const double decay = std::min(0.5, (1.0 + t) / (10 + t));
    average = decay * average + (1 - decay) * w;
  }
  EXPECT_NEAR(model->named_state()[0].value.at(0), average, 1e-5);
}

TEST(RunOptionsTest, CollectsAllMistakesWithPlaces) {
  RunOptions options;
  const Status status = option_table(options).load_yaml(
      "train:\n  epochs: ten\n  batchsize: 3\noptimzer:\n  name: sgd\noptimizer:\n  name: adam_w\n  momentum: 2\n",
      "run.yaml");
  EXPECT_EQ(status.message(),
            "run.yaml:2:11: 'train.epochs' expected an integer >= 1, got 'ten'\n"
            "run.yaml:3:3: unknown key 'train.batchsize'; did you mean 'train.batch_size'?\n"
            "run.yaml:4:1: unknown key 'optimzer'; did you mean 'optimizer'?\n"
            "run.yaml:7:9: 'optimizer.name' expected one of sgd, adam, adamw, lamb, rmsprop, adagrad, lion, got "
            "'adam_w'; did you mean 'adamw'?\n"
            "run.yaml:8:13: 'optimizer.momentum' expected a number in [0, 1], got '2'");
}

TEST(RunOptionsTest, YamlRoundTrips) {
  RunOptions a, b;
  a.model.params = {{"width", "8"}, {"blocks", "2"}};
  a.optimizer.learning_rate = 0.1 + 0.2;
  a.train.output = "a: \"quoted\" #path";
  const std::string text = option_table(a).to_yaml();
  const Status status = option_table(b).load_yaml(text, "text");
  ASSERT_TRUE(status.ok()) << status.to_string() << "\n" << text;
  EXPECT_EQ(option_table(b).to_yaml(), text);
  EXPECT_EQ(b.optimizer.learning_rate, a.optimizer.learning_rate);
  EXPECT_EQ(b.model.params, a.model.params);
}

TEST(RunOptionsTest, Overrides) {
  RunOptions options;
  OptionTable table = option_table(options);
  ASSERT_TRUE(table.set("train.epochs=7", "--set #1").ok());
  EXPECT_EQ(options.train.epochs, 7);
  EXPECT_EQ(table.set("train.epochs", "--set #1").message(), "--set #1: expected key=value, got 'train.epochs'");
  EXPECT_THAT(table.set("train.epoch=7", "--set #2").message(), HasSubstr("did you mean 'train.epochs'?"));
}

TEST(ScheduleTest, PlateauDropsAfterPatience) {
  const ScheduleOptions o{.name = "plateau", .gamma = 0.5, .final_factor = 0.2, .patience = 1};
  Plateau p;
  std::vector<double> factors;
  for (const bool better : {true, false, false, false, false, true, false, false}) {
    p.epoch(o, better);
    factors.push_back(p.factor);
  }
  EXPECT_EQ(factors, (std::vector<double>{1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2}));
}

TEST(ScheduleTest, OnlyPlateauDropsByWhatIsMonitored) {
  for (const char* name : {"constant", "step", "cosine", "one_cycle"}) {
    Plateau p;
    for (int i = 0; i < 20; ++i) p.epoch({.name = name, .patience = 0}, false);
    EXPECT_EQ(p.factor, 1) << name;
  }
}

TEST(ScheduleTest, ClosedForms) {
  EXPECT_DOUBLE_EQ(schedule_factor({.name = "cosine"}, 0, 100, 10), 1);
  EXPECT_NEAR(schedule_factor({.name = "cosine"}, 50, 100, 10), 0.5, 1e-12);
  EXPECT_DOUBLE_EQ(schedule_factor({.name = "constant", .warmup = 0.1}, 4, 100, 10), 0.5);
  EXPECT_NEAR(schedule_factor({.name = "step", .step_epochs = 2, .gamma = 0.1}, 45, 100, 10), 0.01, 1e-12);
  EXPECT_NEAR(schedule_factor({.name = "one_cycle"}, 29, 100, 10), 1, 1e-12);
  EXPECT_NEAR(schedule_factor({.name = "one_cycle"}, 0, 100, 10), 0.04, 1e-12);
  EXPECT_NEAR(schedule_factor({.name = "one_cycle", .final_factor = 0.01}, 99, 100, 10), 0.01, 1e-12);
}

}  // namespace
}  // namespace deepseek::train
