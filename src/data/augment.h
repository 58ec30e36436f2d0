// Images changed at random: each of its own (flip, crop, cutout, rotation), then mixed with another (CutMix, MixUp).
// Invariant: what happens to a sample is a function of (options, epoch, its number), whatever the threads and whichever
// other samples are there. Test: tests/python/test_augment.py
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::data {

struct AugmentOptions {
  // flip: left-right. crop: moved by up to `crop_padding` pixels each way, zeros coming in (He et al., 2015). cutout: a
  // square of zeros, its side `cutout_size` of the shorter one, its centre anywhere (DeVries and Taylor, 2017). rotate:
  // by up to `rotation` degrees either way, between pixels bilinear, zeros from outside.
  // color: brightness, contrast and saturation, each by a factor of up to 1 +- `color`, in this order, as torchvision's
  // ColorJitter. randaugment: `randaugment_ops` changes, each one of fourteen with equal chance at magnitude
  // `randaugment_magnitude` of 30 (Cubuk et al., 2020); of u8 images.
  // cutmix: a rectangle of another image (Yun et al., 2019). mixup: the weighted mean with another image (Zhang et al.,
  // 2018). Both with the weight Beta(alpha, alpha); cutmix's label weight is the area that was really pasted.
  std::vector<std::string> methods = {"cutmix", "mixup"};
  // One per method, in [0, 1]. Of cutmix and mixup a sample gets one at most, so theirs add up to 1 or less; the others
  // come each by its own chance, in the order of `methods`.
  std::vector<double> probabilities = {0.5, 0.5};
  double alpha = 1.0;  // > 0
  uint64_t seed = 0;
  int64_t crop_padding = 4;
  double cutout_size = 0.5;
  double rotation = 15;
  double color = 0.4;
  int64_t randaugment_ops = 2, randaugment_magnitude = 9;
};

class ImageAugmenter {
 public:
  static Result<ImageAugmenter> create(AugmentOptions options);

  bool mixes() const;  // whether labels change
  // With whom each of n samples is mixed, if it is: a permutation.
  std::vector<int64_t> partners(int64_t n, int64_t epoch) const;

  struct Mixed {
    graph::Tensor images;         // as the images that came in
    std::vector<double> weights;  // of each sample's own label; the rest, up to 1, is its partner's
  };
  // images: [N, C, H, W], or [N, H, W, C] if channels_last; u8 or f32. Of u8, means are rounded to the nearest even.
  // ids: numbers of the samples, which decide what happens to them. partners: positions among `images`.
  // Errors: kInvalidArgument for shapes, dtypes and positions that are wrong.
  Result<Mixed> transform(const graph::Tensor& images, bool channels_last, int64_t epoch, std::span<const int64_t> ids,
                          std::span<const int64_t> partners) const;

 private:
  explicit ImageAugmenter(AugmentOptions options) : options_(std::move(options)) {}

  AugmentOptions options_;
};

// Beta(alpha, alpha) as a function of the key, by two gamma numbers (Marsaglia and Tsang, 2000).
double symmetric_beta(double alpha, uint64_t key);

}  // namespace deepseek::data
