// What a run's config says: the one source of YAML keys, --set overrides and `deepseek train --help`.
// Test: tests/train/trainer_test.cc
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/options.h"
#include "runtime/backend.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace deepseek::train {

struct DataOptions {
  std::string name = "fashion-mnist";
  OptionTable::FreeMap params;
  void describe(OptionTable& t) {
    t.field("name", name, {.doc = "data set"});
    t.rest(params, "parameters of the data set (folder, validation_fraction, ...)");
  }
};

struct ModelOptions {
  std::string name = "small_resnet";
  OptionTable::FreeMap params;
  void describe(OptionTable& t) {
    t.field("name", name, {.doc = "architecture from the zoo"});
    t.rest(params, "parameters of the architecture (width, blocks, ...)");
  }
};

struct RunOptimizerOptions : OptimizerOptions {
  double clip_norm = 0, clip_value = 0;
  void describe(OptionTable& t) {
    t.field("name", name, {.doc = "update rule", .choices = optimizer_names()});
    t.field("learning_rate", learning_rate,
            {.doc = "peak learning rate; auto: the rule's own, sgd 0.05, adam, adamw and lamb 0.001, rmsprop and "
                    "adagrad 0.01, lion 0.0001",
             .min = 0});
    t.field("momentum", momentum, {.doc = "sgd, rmsprop: momentum", .min = 0, .max = 1});
    t.field("nesterov", nesterov, {.doc = "sgd: Nesterov's form of momentum"});
    t.field("beta1", beta1, {.doc = "adam family: decay of the mean", .min = 0, .max = 1});
    t.field("beta2", beta2, {.doc = "adam family: decay of the square; auto: 0.999, lion 0.99", .min = 0, .max = 1});
    t.field("alpha", alpha, {.doc = "rmsprop: decay of the square", .min = 0, .max = 1});
    t.field("epsilon", epsilon, {.doc = "added to the denominator; auto: 1e-8, adagrad 1e-10", .min = 0});
    t.field("weight_decay", weight_decay,
            {.doc = "L2 (decoupled in adamw, lamb, lion); auto: 0, adamw 0.01", .min = 0});
    t.field("clip_norm", clip_norm, {.doc = "limit of the gradient's global L2 norm, 0 is off", .min = 0});
    t.field("clip_value", clip_value, {.doc = "limit of each gradient element, 0 is off", .min = 0});
  }
  double rate() const { return *with_defaults(*this).learning_rate; }
  void resolve() { static_cast<OptimizerOptions&>(*this) = with_defaults(*this); }
};

struct LossOptions {
  std::string name = "auto";
  OptionTable::FreeMap params;
  void describe(OptionTable& t) {
    t.field("name", name,
            {.doc = "what to minimise; auto: cross_entropy for class labels, else mse_loss", .choices = loss_names()});
    t.rest(params, "parameters of the loss (label_smoothing, ignore_index, delta, ...): see its op");
  }
};

struct TrainOptions {
  int64_t epochs = 4;
  int64_t batch_size = 64;
  int64_t accumulate = 1;
  bool drop_last = false;
  std::string precision = "float32", loss_scaling = "auto";
  int64_t loss_scale_interval = 2000;
  std::string kernels = "listed";
  std::vector<std::string> metrics;
  std::string monitor = "auto";
  int64_t patience = 0;
  double min_delta = 0;
  double ema_decay = 0;
  int64_t save_every = 0;
  bool check_numerics = false;
  int64_t seed = 0;
  int64_t threads = 0;
  std::string output = "runs/run";
  void describe(OptionTable& t) {
    t.field("epochs", epochs, {.doc = "passes over the training set", .min = 1});
    t.field("batch_size", batch_size, {.doc = "samples per forward and backward pass", .min = 1});
    t.field("accumulate", accumulate, {.doc = "batches whose mean gradient makes one update", .min = 1});
    t.field("drop_last", drop_last, {.doc = "leave out an epoch's last batch where it is smaller"});
    t.field("precision", precision,
            {.doc = "of forward and backward; weights, their update and validation are float32 in any case; auto: "
                    "bfloat16 on a CPU with instructions for it where the step measures faster, else float32",
             .choices = {"auto", "float32", "bfloat16", "float16"}});
    t.field("loss_scaling", loss_scaling,
            {.doc = "dynamic: scale the loss so that gradients stay in range, and skip updates that overflow; auto: "
                    "in float16",
             .choices = {"auto", "dynamic", "none"}});
    t.field("loss_scale_interval", loss_scale_interval,
            {.doc = "updates without an overflow after which the loss scale doubles", .min = 1});
    t.field(
        "kernels", kernels,
        {.doc = "listed: the first fast kernel of each op's list; measured: the fastest of them on this machine, timed "
                "once and remembered in $DEEPSEEK_CACHE or ~/.cache/deepseek",
         .choices = {"listed", "measured"}});
    t.field(
        "metrics", metrics,
        {.doc =
             "accuracy, top<k>, precision, recall, f1, auc, mae, rmse, r2, or of one target <target>/<metric>; [none]: no metrics; empty: accuracy, or mae, rmse, r2"});
    t.field("monitor", monitor,
            {.doc = "validation value that picks the best checkpoint: loss or a metric; auto: the first metric"});
    t.field("patience", patience, {.doc = "epochs without a better monitor after which to stop, 0 is off", .min = 0});
    t.field("min_delta", min_delta, {.doc = "least change of the monitor that counts as better", .min = 0});
    t.field("ema_decay", ema_decay,
            {.doc = "decay of the weights' moving average, which is then validated and kept, 0 is off",
             .min = 0,
             .max = 1});
    t.field("save_every", save_every, {.doc = "updates between checkpoints beside each epoch's, 0 is off", .min = 0});
    t.field(
        "check_numerics", check_numerics,
        {.doc =
             "before each update, look where the first value that is not finite comes from: the layer, the op, and a "
             "file with batch and state that shows it again; steps take two to three times as long"});
    t.field("seed", seed, {.doc = "of weights, order, augmentation and dropout", .min = 0});
    t.field("threads", threads, {.doc = "CPU threads, 0 means all cores", .min = 0, .max = 4096});
    t.field("output", output, {.doc = "run folder"});
  }
};

struct MemoryOptions {
  std::string limit = "auto", reserve = "20%";
  void describe(OptionTable& t) {
    t.field(
        "limit", limit,
        {.doc = "most that a training step may take for state, batch and intermediate values, such as 8GiB; where "
                "more would be needed, values are computed again instead of being kept; auto: what reserve leaves"});
    t.field("reserve", reserve, {.doc = "share of the machine's memory that a step leaves free in any case"});
  }
  // Bytes.
  Result<size_t> budget(size_t machine) const;
};

// Images changed while they are loaded, see data/augment.h.
struct AugmentationOptions {
  std::vector<std::string> methods, probabilities;
  double alpha = 1;
  int64_t crop_padding = 4;
  double cutout_size = 0.5, rotation = 15, color = 0.4;
  int64_t randaugment_ops = 2, randaugment_magnitude = 9;
  void describe(OptionTable& t) {
    t.field("methods", methods,
            {.doc = "flip, crop, rotate, color, randaugment, cutout, cutmix, mixup; the last two make labels weights "
                    "of classes. "
                    "Empty: none"});
    t.field("probabilities", probabilities, {.doc = "one for each method; empty: 0.5 each"});
    t.field("alpha", alpha, {.doc = "cutmix and mixup weigh by Beta(alpha, alpha)", .min = 0});
    t.field("crop_padding", crop_padding, {.doc = "crop: pixels each way", .min = 0, .max = 1 << 20});
    t.field("cutout_size", cutout_size, {.doc = "cutout: its side, of the shorter side", .min = 0, .max = 1});
    t.field("rotation", rotation, {.doc = "rotate: degrees each way"});
    t.field("color", color,
            {.doc = "color: brightness, contrast and saturation by up to this share each way", .min = 0, .max = 1});
    t.field("randaugment_ops", randaugment_ops, {.doc = "randaugment: changes of an image", .min = 1, .max = 1000});
    t.field("randaugment_magnitude", randaugment_magnitude, {.doc = "randaugment: of 30", .min = 0, .max = 30});
  }
};

// What training needs beside a model and data: the keywords of Python's Trainer.
struct TrainerOptions {
  std::string device{runtime::kDefaultDevice};
  LossOptions loss;
  RunOptimizerOptions optimizer;
  ScheduleOptions schedule;
  TrainOptions train;
  MemoryOptions memory;
  AugmentationOptions augmentation;
  void describe(OptionTable& t) {
    t.field("device", device, {.doc = "what runs the model; `deepseek devices` lists what there is"});
    t.group("loss", loss, "what to minimise");
    t.group("optimizer", optimizer, "how to update");
    t.group("schedule", schedule, "the learning rate over time");
    t.group("train", train, "how long, how much, where to");
    t.group("memory", memory, "how much a step may take");
    t.group("augmentation", augmentation, "how training images are changed at random");
  }
};

struct RunOptions : TrainerOptions {
  DataOptions data;
  ModelOptions model;
  void describe(OptionTable& t) {
    t.group("data", data, "what to train on");
    t.group("model", model, "what to train");
    TrainerOptions::describe(t);
  }
};

// A table over `options`, which must outlive it.
template <class Options>
OptionTable option_table(Options& options) {
  OptionTable table;
  options.describe(table);
  return table;
}

}  // namespace deepseek::train
