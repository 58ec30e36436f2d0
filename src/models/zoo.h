// The model zoo: one file per architecture, one table of names. Test: tests/models/zoo_test.cc
#pragma once

#include <map>
#include <string>
#include <vector>

#include "nn/module.h"

namespace deepseek::models {

// What a model is made for.
struct Task {
  graph::Dims input;  // one sample's shape, without the batch: [C, H, W], [features], [T, features] or [T] (tokens)
  int64_t classes = 10;
};
using Parameters = std::map<std::string, std::string>;  // from the config's model block

// Errors name the unknown model or parameter and list the known ones.
Result<nn::ModulePtr> create(const std::string& name, const Task& task, const Parameters& parameters);
std::vector<std::string> names();

Result<nn::ModulePtr> make_mlp(const Task& task, const Parameters& parameters);
// ResNet (He et al. 2015) for small images: 3x3 stem without pooling, basic blocks in three stages.
Result<nn::ModulePtr> make_small_resnet(const Task& task, const Parameters& parameters);

// Classifiers of sequences: samples [T, F], or tokens [T] with the parameter `vocabulary`.
Result<nn::ModulePtr> make_lstm(const Task& task, const Parameters& parameters);
Result<nn::ModulePtr> make_transformer(const Task& task, const Parameters& parameters);

// Reads an integer parameter with default and bounds.
Result<int64_t> integer(const Parameters& parameters, const std::string& key, int64_t fallback, int64_t low,
                        int64_t high);
// An error for the first key that is not in `known`.
Status only(const Parameters& parameters, const std::vector<std::string>& known, const std::string& model);
// Whether the samples are sequences: [T] with a vocabulary, [T, F] without (0).
Status check_sequence(const Task& task, int64_t vocabulary, const std::string& model);

}  // namespace deepseek::models
