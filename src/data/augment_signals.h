// Time series and volumes changed at random. Invariant as in augment.h: what happens to a sample is a function of the
// options, the epoch and its number, on any number of threads. Test: tests/python/test_augment.py
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::data {

struct SeriesOptions {
  // jitter: normal noise of deviation `jitter`. scaling: each channel times a normal number around 1 of deviation
  // `scaling` (Um et al., 2017). window_warp: a window of the share `window` at half or twice its speed, the whole
  // brought back to its length by linear interpolation (Rashid and Louis, 2019).
  std::vector<std::string> methods = {"jitter", "scaling", "window_warp"};
  std::vector<double> probabilities = {0.5, 0.5, 0.5};
  uint64_t seed = 0;
  double jitter = 0.03, scaling = 0.1, window = 0.1;
};
// series: f32 [N, T, C]. Errors: kInvalidArgument for options and shapes that are wrong.
Result<graph::Tensor> augment_series(const SeriesOptions& options, const graph::Tensor& series, int64_t epoch,
                                     std::span<const int64_t> ids);

struct VolumeOptions {
  // flip: along each axis by chance 1/2. elastic: moved by normal displacements of deviation `displacement` voxels at
  // the points of a grid of `grid` per axis, linear between them (after Ronneberger et al., 2015). intensity: x * (1 +
  // a) + b, a and b uniform up to `contrast` and `brightness` either way.
  std::vector<std::string> methods = {"flip", "elastic", "intensity"};
  std::vector<double> probabilities = {0.5, 0.5, 0.5};
  uint64_t seed = 0;
  double displacement = 3, contrast = 0.2, brightness = 0.1;
  int64_t grid = 4;
};
struct Volumes {
  graph::Tensor images, masks;
};
// images: f32 [N, C, D, H, W], linear between voxels, those at the border continued. masks: i64 [N, D, H, W] or empty;
// they move with the images, by the nearest voxel.
Result<Volumes> augment_volumes(const VolumeOptions& options, const graph::Tensor& images, const graph::Tensor& masks,
                                int64_t epoch, std::span<const int64_t> ids);

}  // namespace deepseek::data
