// Data sets by name, as a run's config asks for them, split into train, validation and test.
// Invariant: every data set returned has passed Dataset::validate(), and the split depends only on the seed.
// Test: tests/data/sources_test.cc
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"

namespace deepseek::data {

struct Splits {
  Dataset train;
  Dataset validation;  // size() 0 where validation_fraction is 0
  Dataset test;
};

// Names and parameters (all text):
//   "fashion-mnist": folder = "/usr/share/datasets/fashion-mnist" (Debian's dataset-fashion-mnist) or any folder with
//                    its four files.
//   "idx": train_images, train_labels, test_images, test_labels = paths (plain or .gz);
//          class_names = comma-separated, default "0,1,...".
//   "image-folder": folder = a path with one folder of .jpg, .jpeg or .png files for each class, or with `train` and
//                    `test` (or `val`) that are such; test = another path for the test part, or without any
//                    test_fraction = 0.1 of all pictures; size = 224 pixels a side, which a picture covers, its middle
//                    cut out; channels = 3, or 1 for grey. Pictures are decoded when they are read.
//   All:  validation_fraction = 0.1, in [0, 1), taken from train by a seeded permutation; seed = 0.
// Images become [N, C, H, W] u8 with scale 1/255 and mean and stddev of the training part. Errors: kInvalidArgument
// (unknown name or parameter, named with what exists), kNotFound, kIo, kDataCorrupt.
Result<Splits> open_dataset(const std::string& name, const std::map<std::string, std::string>& params);

std::vector<std::string> dataset_names();

}  // namespace deepseek::data
