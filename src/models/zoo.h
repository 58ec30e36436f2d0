// The model zoo: one file per architecture, one table of names. Test: tests/models/zoo_test.cc
#pragma once

#include <map>
#include <string>
#include <vector>

#include "nn/module.h"

namespace deepseek::models {

// What a model is made for.
struct ModelData {
  graph::Dims input;  // one sample's shape, without the batch: [C, H, W], [C, D, H, W], [features], [T, features]
                      // or [T] (tokens)
  int64_t classes = 10;
};
using Parameters = std::map<std::string, std::string>;  // from the config's model block

// Errors name the unknown model or parameter and list the known ones.
Result<nn::ModulePtr> create(const std::string& name, const ModelData& data, const Parameters& parameters);
std::vector<std::string> names();
std::string summary(const std::string& name);  // one line; empty for a name that is not in the zoo

// One function per family; `name` is one of its names in the table, and chooses the size.

// `layers` (2) hidden layers of `width` (256) with ReLU.
Result<nn::ModulePtr> make_mlp(const std::string& name, const ModelData& data, const Parameters& parameters);
// ResNet (He et al. 2015) for small images: 3x3 stem without pooling, basic blocks in three stages.
Result<nn::ModulePtr> make_small_resnet(const std::string& name, const ModelData& data, const Parameters& parameters);

// ResNet-18 to -152 for images [C, H, W]; `width` 64 channels in the first stage, `blocks` in each stage (0: as the
// paper has them), `stem` "imagenet" (7x7 with stride 2 and max pooling) or "small" (3x3), for small images.
Result<nn::ModulePtr> make_resnet(const std::string& name, const ModelData& data, const Parameters& parameters);

// EfficientNet-B0 to -B7 (Tan, Le 2019) for images [C, H, W]; `width` and `depth` multiply B0's channels and blocks (by
// default as the paper has them for the name), `dropout` acts before the classifier, `drop_connect` (0.2) is the
// stochastic depth that the last block would have; the first has none.
Result<nn::ModulePtr> make_efficientnet(const std::string& name, const ModelData& data, const Parameters& parameters);

// 3D U-Net (Çiçek et al. 2016) for volumes [C, D, H, W]: gives [N, classes, D, H, W], a class for each voxel.
// `channels` "32,64,128" of each level from the finest; each further level halves the sides. `slope` (0) of the leaky
// ReLU, `down` "max_pool" or "stride" (of the level's first convolution).
Result<nn::ModulePtr> make_unet3d(const std::string& name, const ModelData& data, const Parameters& parameters);

// Classifiers of sequences: samples [T, F], or tokens [T] with the parameter `vocabulary`. `width` (128) and `layers`
// (1 of the LSTM, 2 of the Transformer, which also has `heads`, 4).
Result<nn::ModulePtr> make_lstm(const std::string& name, const ModelData& data, const Parameters& parameters);
Result<nn::ModulePtr> make_transformer(const std::string& name, const ModelData& data, const Parameters& parameters);

// BERT (Devlin et al. 2018), in the base or the large size. Samples are tokens [T], or vectors [T, width] that go
// straight to the layers. `dropout` (0.1) acts on vectors and attention weights in training. `head`: "classifier" (the
// default) gives [N, classes], "mlm" (the decoder shares the word embeddings) [N, T, vocabulary], "pooler" [N, width],
// "none" [N, T, width]; vectors have "none" only. Further inputs, in Hugging Face's order, as are the names: attention
// mask [N, T] (not 0 where a token is seen; none: all) and token types [N, T] (none: 0).
Result<nn::ModulePtr> make_bert(const std::string& name, const ModelData& data, const Parameters& parameters);

// Reads an integer parameter with default and bounds.
Result<int64_t> integer(const Parameters& parameters, const std::string& key, int64_t fallback, int64_t low,
                        int64_t high);
// Reads integers that commas separate, at least one, each within the bounds.
Result<graph::Dims> integers(const Parameters& parameters, const std::string& key, graph::Dims fallback, int64_t low,
                             int64_t high);
// The same as integer() for a real number.
Result<double> number(const Parameters& parameters, const std::string& key, double fallback, double low, double high);
// Reads a parameter that is one of `values`; the first is the default.
Result<std::string> choice(const Parameters& parameters, const std::string& key,
                           const std::vector<std::string>& values);
// An error for the first key that is not in `known`.
Status only(const Parameters& parameters, const std::vector<std::string>& known, const std::string& model);
// Whether the samples are images, [C, H, W].
Status check_images(const ModelData& data, const std::string& model);
// Whether the samples are sequences: [T] with a vocabulary, [T, F] without (0).
Status check_sequence(const ModelData& data, int64_t vocabulary, const std::string& model);

}  // namespace deepseek::models
