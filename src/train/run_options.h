// What a run's config says: the one source of YAML keys, --set overrides and `deepseek train --help`.
// Test: tests/train/trainer_test.cc
#pragma once

#include <map>
#include <string>

#include "base/options.h"
#include "train/schedule.h"
#include "train/step.h"

namespace deepseek::train {

struct DataOptions {
  std::string name = "fashion-mnist";
  OptionTable::FreeMap params;
  void describe(OptionTable& t) {
    t.field("name", name, {.doc = "data set"});
    t.rest(params, "parameters of the data set (root, validation_fraction, ...)");
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
  double learning_rate = 0.05;
  double clip_norm = 0, clip_value = 0;
  void describe(OptionTable& t) {
    t.field("name", name, {.doc = "update rule", .choices = optimizer_names()});
    t.field("learning_rate", learning_rate, {.doc = "peak learning rate", .min = 0});
    t.field("momentum", momentum, {.doc = "sgd, rmsprop: momentum", .min = 0, .max = 1});
    t.field("nesterov", nesterov, {.doc = "sgd: Nesterov's form of momentum"});
    t.field("beta1", beta1, {.doc = "adam family: decay of the mean", .min = 0, .max = 1});
    t.field("beta2", beta2, {.doc = "adam family: decay of the square", .min = 0, .max = 1});
    t.field("alpha", alpha, {.doc = "rmsprop: decay of the square", .min = 0, .max = 1});
    t.field("epsilon", epsilon, {.doc = "added to the denominator", .min = 0});
    t.field("weight_decay", weight_decay, {.doc = "L2 (decoupled in adamw, lamb, lion)", .min = 0});
    t.field("clip_norm", clip_norm, {.doc = "limit of the gradient's global L2 norm, 0 is off", .min = 0});
    t.field("clip_value", clip_value, {.doc = "limit of each gradient element, 0 is off", .min = 0});
  }
};

struct TrainOptions {
  int64_t epochs = 4;
  int64_t batch_size = 64;
  int64_t seed = 0;
  int64_t threads = 0;
  double label_smoothing = 0;
  std::string output = "runs/run";
  void describe(OptionTable& t) {
    t.field("epochs", epochs, {.doc = "passes over the training set", .min = 1});
    t.field("batch_size", batch_size, {.doc = "samples per step", .min = 1});
    t.field("seed", seed, {.doc = "of weights, order and dropout", .min = 0});
    t.field("threads", threads, {.doc = "CPU threads, 0 means all cores", .min = 0, .max = 4096});
    t.field("label_smoothing", label_smoothing, {.doc = "weight of the uniform target", .min = 0, .max = 1});
    t.field("output", output, {.doc = "run folder"});
  }
};

struct RunOptions {
  DataOptions data;
  ModelOptions model;
  RunOptimizerOptions optimizer;
  ScheduleOptions schedule;
  TrainOptions train;
  void describe(OptionTable& t) {
    t.group("data", data, "what to train on");
    t.group("model", model, "what to train");
    t.group("optimizer", optimizer, "how to update");
    t.group("schedule", schedule, "the learning rate over time");
    t.group("train", train, "how long, how much, where to");
  }
};

// A table over `options`, which must outlive it.
inline OptionTable option_table(RunOptions& options) {
  OptionTable table;
  options.describe(table);
  return table;
}

}  // namespace deepseek::train
