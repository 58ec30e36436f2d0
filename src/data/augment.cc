#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/random.h"
#include "base/simd.h"
#include "base/strings.h"
#include "base/threads.h"
#include "data/color.h"

namespace deepseek::data {

namespace {

using graph::Tensor;

constexpr int64_t kMaxPadding = 1 << 20, kMaxOps = 1000;
constexpr uint64_t kStream = 0x41756721;  // tells these numbers from those of loaders

bool is_mix(const std::string& method) { return method == "cutmix" || method == "mixup"; }

using Shape = ImageShape;

DS_SIMD void reverse(const uint8_t* from, int64_t n, uint8_t* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[n - 1 - i];
}
DS_SIMD void reverse(const float* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[n - 1 - i];
}
template <class T>
void flip(const Shape& s, const T* from, T* to) {
  for (int64_t r = 0; r < s.planes * s.height; ++r, from += s.width * s.pixel, to += s.width * s.pixel) {
    if (s.pixel == 1) {
      reverse(from, s.width, to);
      continue;
    }
    const auto pixels = [&](auto count) {
      for (int64_t x = 0; x < s.width; ++x) std::copy_n(from + (s.width - 1 - x) * count, count, to + x * count);
    };
    if (s.pixel == 3)  // a size that the compiler knows takes a quarter of the time
      pixels(std::integral_constant<int64_t, 3>());
    else
      pixels(s.pixel);
  }
}

// Moved by (dy, dx) pixels, zeros coming in; `mirrored`: of the mirror image.
template <class T>
void shift(const Shape& s, int64_t dy, int64_t dx, bool mirrored, const T* from, T* to) {
  const int64_t n = std::max<int64_t>(0, s.width - std::abs(dx));
  const int64_t left = std::min(std::max<int64_t>(0, dx), s.width), right = s.width - left - n;
  for (int64_t p = 0; p < s.planes; ++p)
    for (int64_t y = 0; y < s.height; ++y) {
      T* const row = to + s.row(p, y);
      if (y - dy < 0 || y - dy >= s.height || n == 0) {
        std::fill_n(row, s.width * s.pixel, T(0));
        continue;
      }
      std::fill_n(row, left * s.pixel, T(0));
      // What stays is at the row's other end; of the mirror image that is this end, backwards.
      const T* const source = from + s.row(p, y - dy) + (mirrored ? left : right) * s.pixel;
      if (mirrored)
        flip(Shape{1, 1, n, s.pixel}, source, row + left * s.pixel);
      else
        std::copy_n(source, n * s.pixel, row + left * s.pixel);
      std::fill_n(row + (left + n) * s.pixel, right * s.pixel, T(0));
    }
}

struct Box {
  int64_t top, left, bottom, right;
  int64_t area() const { return (bottom - top) * (right - left); }
};
// Of this height and width around a centre anywhere, the part inside the image; corners at the nearest pixel's.
Box box_at(const Shape& s, double height, double width, Numbers& numbers) {
  const double y = numbers.uniform() * static_cast<double>(s.height);
  const double x = numbers.uniform() * static_cast<double>(s.width);
  const auto inside = [](double v, int64_t most) { return std::clamp<int64_t>(std::lround(v), 0, most); };
  return {inside(y - height / 2, s.height), inside(x - width / 2, s.width), inside(y + height / 2, s.height),
          inside(x + width / 2, s.width)};
}

// f(first element of the row's part, elements of it) for each row of the box.
template <class F>
void each_row(const Shape& s, const Box& b, F f) {
  for (int64_t p = 0; p < s.planes; ++p)
    for (int64_t y = b.top; y < b.bottom; ++y) f(s.row(p, y) + b.left * s.pixel, (b.right - b.left) * s.pixel);
}

// To the nearest even: by what a float of this size has no bits for.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23

// Every `step`-th element from or to a row of floats.
DS_SIMD void widen(const uint8_t* from, int64_t step, int64_t n, float* __restrict to) {
  if (step == 1)
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
  else
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i * step]);
}
DS_SIMD void narrow(const float* from, int64_t step, int64_t n, uint8_t* __restrict to) {
  const auto one = [&](int64_t i) {
    return static_cast<uint8_t>(static_cast<int32_t>((std::min(std::max(from[i], 0.0f), 255.0f) + kRound) - kRound));
  };
  if (step == 1)
    for (int64_t i = 0; i < n; ++i) to[i] = one(i);
  else
    for (int64_t i = 0; i < n; ++i) to[i * step] = one(i);
}
void widen(const float* from, int64_t step, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i * step];
}
void narrow(const float* from, int64_t step, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i * step] = from[i];
}

// A row of the rotated plane. The plane has a border of zeros, one wide above and left and two below and right, so that
// what is outside needs no question; (x, y) of the first pixel, in a plane of width and height without the border.
DS_SIMD void rotate_row(const float* __restrict plane, float width, float height, float x, float y, float dx, float dy,
                        int64_t n, float* __restrict to) {
  const auto pitch = static_cast<int32_t>(width) + 3;
  for (int64_t i = 0; i < n; ++i) {
    const float step = static_cast<float>(static_cast<int32_t>(i));
    const float sx = std::min(std::max(x + dx * step, -1.0f), width) + 1;
    const float sy = std::min(std::max(y + dy * step, -1.0f), height) + 1;
    const auto x0 = static_cast<int32_t>(sx), y0 = static_cast<int32_t>(sy);
    const float fx = sx - static_cast<float>(x0), fy = sy - static_cast<float>(y0);
    const int32_t at = y0 * pitch + x0;
    const float upper = plane[at] + (plane[at + 1] - plane[at]) * fx;
    const float lower = plane[at + pitch] + (plane[at + pitch + 1] - plane[at + pitch]) * fx;
    to[i] = upper + (lower - upper) * fy;
  }
}

// Pixel (x, y) comes from the centre + m * (x - cx, y - cy) + (tx, ty).
struct Affine {
  double xx = 1, xy = 0, yx = 0, yy = 1, tx = 0, ty = 0;
};
Affine rotation_by(double degrees) {
  const double angle = degrees * std::numbers::pi / 180;
  return {std::cos(angle), -std::sin(angle), std::sin(angle), std::cos(angle)};
}

template <class T>
void warp(const Shape& s, const Affine& m, const T* from, T* to) {
  const double cy = 0.5 * static_cast<double>(s.height - 1), cx = 0.5 * static_cast<double>(s.width - 1);
  const int64_t pitch = s.width + 3;
  thread_local std::vector<float> plane, row;
  plane.assign(static_cast<size_t>((s.height + 3) * pitch), 0.0f);
  row.resize(static_cast<size_t>(s.width));
  for (int64_t p = 0; p < s.planes; ++p)
    for (int64_t c = 0; c < s.pixel; ++c) {
      for (int64_t y = 0; y < s.height; ++y) {
        widen(from + s.row(p, y) + c, s.pixel, s.width, plane.data() + (y + 1) * pitch + 1);
      }
      for (int64_t y = 0; y < s.height; ++y) {
        const double dy = static_cast<double>(y) - cy;
        rotate_row(plane.data(), static_cast<float>(s.width), static_cast<float>(s.height),
                   static_cast<float>(cx + m.tx + m.xy * dy - m.xx * cx),
                   static_cast<float>(cy + m.ty + m.yy * dy - m.yx * cx), static_cast<float>(m.xx),
                   static_cast<float>(m.yx), s.width, row.data());
        narrow(row.data(), s.pixel, s.width, to + s.row(p, y) + c);
      }
    }
}

// One of RandAugment's fourteen changes, with magnitudes as torchvision's, in place.
void rand_augment(const Shape& s, double magnitude, Numbers& numbers, uint8_t* image, std::vector<uint8_t>& spare) {
  const int which = static_cast<int>(numbers.uniform() * 14);
  const double m = magnitude / 30, sign = numbers.uniform() < 0.5 ? -1 : 1;
  const auto warped = [&](const Affine& by) {
    spare.assign(image, image + s.size());
    warp(s, by, spare.data(), image);
  };
  const auto enhanced = [&](Enhancement what) { enhance(s, what, static_cast<float>(1 + sign * 0.9 * m), image); };
  switch (which) {
    case 0: return;
    case 1: return warped({.xy = sign * 0.3 * m});
    case 2: return warped({.yx = sign * 0.3 * m});
    case 3: return warped({.tx = sign * m * 150.0 / 331 * static_cast<double>(s.width)});
    case 4: return warped({.ty = sign * m * 150.0 / 331 * static_cast<double>(s.height)});
    case 5: return warped(rotation_by(sign * 30 * m));
    case 6: return enhanced(Enhancement::kBrightness);
    case 7: return enhanced(Enhancement::kSaturation);
    case 8: return enhanced(Enhancement::kContrast);
    case 9: return enhanced(Enhancement::kSharpness);
    case 10: return posterize(s, 8 - static_cast<int>(std::lround(4 * m)), image);
    case 11: return solarize(s, static_cast<int>(std::lround(255 * (1 - m))), image);
    case 12: return autocontrast(s, image);
    default: return equalize(s, image);
  }
}

// own * weight + other * (1 - weight)
DS_SIMD void mean_of(const float* own, const float* other, int64_t n, float weight, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = own[i] * weight + other[i] * (1 - weight);
}
DS_SIMD void mean_of(const uint8_t* own, const uint8_t* other, int64_t n, float weight, uint8_t* to) {
  for (int64_t i = 0; i < n; ++i) {
    const float mean = static_cast<float>(own[i]) * weight + static_cast<float>(other[i]) * (1 - weight);
    to[i] = static_cast<uint8_t>(static_cast<int32_t>((mean + kRound) - kRound));
  }
}

// What happens to one sample on its own, written to `to`.
template <class T>
void alone(const AugmentOptions& o, const Shape& s, uint64_t key, const T* from, T* to, std::vector<T>& spare) {
  std::vector<size_t> drawn;
  for (size_t m = 0; m < o.methods.size(); ++m)
    if (!is_mix(o.methods[m]) && Numbers(hash_of(key, 1 + m)).uniform() < o.probabilities[m]) drawn.push_back(m);
  const auto in_place = [&](size_t k) {
    const std::string& method = o.methods[drawn[k]];
    return k > 0 && (method == "cutout" || method == "color" || method == "randaugment");
  };
  // A flip before a crop is done with it.
  const auto joins_next = [&](size_t k) {
    return k + 1 < drawn.size() && o.methods[drawn[k]] == "flip" && o.methods[drawn[k + 1]] == "crop";
  };
  // Results go to and fro between two places, so that the last one is where it should be.
  size_t left = 0;
  for (size_t k = 0; k < drawn.size(); ++k) left += !in_place(k) && !joins_next(k);
  if (left == 0) std::copy_n(from, s.size(), to);
  if (left > 1) spare.resize(static_cast<size_t>(s.size()));
  const T* now = from;
  for (size_t k = 0; k < drawn.size(); ++k) {
    const std::string& method = o.methods[drawn[k]];
    if (joins_next(k)) continue;
    Numbers numbers(hash_of(key, 1 + drawn[k]));
    numbers.uniform();  // the chance
    T* const next = in_place(k) ? const_cast<T*>(now) : left-- % 2 == 1 ? to : spare.data();
    if (method == "flip") {
      flip(s, now, next);
    } else if (method == "crop") {
      const auto move = [&] {
        return static_cast<int64_t>(numbers.uniform() * static_cast<double>(2 * o.crop_padding + 1)) - o.crop_padding;
      };
      const int64_t dy = move(), dx = move();
      shift(s, dy, dx, k > 0 && joins_next(k - 1), now, next);
    } else if (method == "rotate") {
      warp(s, rotation_by((2 * numbers.uniform() - 1) * o.rotation), now, next);
    } else if (method == "color") {
      if (now != next) std::copy_n(now, s.size(), next);
      for (const Enhancement what : {Enhancement::kBrightness, Enhancement::kContrast, Enhancement::kSaturation})
        enhance(s, what, static_cast<float>(1 + (2 * numbers.uniform() - 1) * o.color), next);
    } else if (method == "randaugment") {
      if (now != next) std::copy_n(now, s.size(), next);
      if constexpr (std::is_same_v<T, uint8_t>) {
        std::vector<uint8_t> work;
        for (int64_t n = 0; n < o.randaugment_ops; ++n)
          rand_augment(s, static_cast<double>(o.randaugment_magnitude), numbers, next, work);
      }
    } else {
      const double side = std::round(o.cutout_size * static_cast<double>(std::min(s.height, s.width)));
      const Box box = box_at(s, side, side, numbers);
      if (now != next) std::copy_n(now, s.size(), next);
      each_row(s, box, [&](int64_t at, int64_t n) { std::fill_n(next + at, n, T(0)); });
    }
    now = next;
  }
}

// Mixes a sample with its partner into `to`; the weight of its own label.
template <class T>
double mix(const AugmentOptions& o, const Shape& s, uint64_t key, const T* own, const T* other, T* to) {
  Numbers numbers(hash_of(key, 0));
  double chance = numbers.uniform();
  for (size_t m = 0; m < o.methods.size(); ++m) {
    if (!is_mix(o.methods[m])) continue;
    chance -= o.probabilities[m];
    if (chance >= 0) continue;
    const double weight = symmetric_beta(o.alpha, hash_of(key, 0, 1));
    if (o.methods[m] == "mixup") {
      mean_of(own, other, s.size(), static_cast<float>(weight), to);
      return weight;
    }
    const double side = std::sqrt(1 - weight);
    const Box box = box_at(s, side * static_cast<double>(s.height), side * static_cast<double>(s.width), numbers);
    std::copy_n(own, s.size(), to);
    each_row(s, box, [&](int64_t at, int64_t n) { std::copy_n(other + at, n, to + at); });
    return 1 - static_cast<double>(box.area()) / static_cast<double>(s.height * s.width);
  }
  std::copy_n(own, s.size(), to);
  return 1;
}

template <class T>
std::vector<double> run(const AugmentOptions& o, const Shape& s, const Tensor& images, uint64_t key,
                        std::span<const int64_t> ids, std::span<const int64_t> partners, bool mixes, Tensor& out) {
  const auto n = static_cast<int64_t>(ids.size());
  const T* const from = images.as<T>();
  T* const to = out.as<T>();
  const bool singly = std::any_of(o.methods.begin(), o.methods.end(), [](const auto& m) { return !is_mix(m); });
  Tensor changed = !singly ? images : mixes ? Tensor(images.type()) : out;
  const auto key_of_sample = [&](int64_t i) {
    return hash_of(key, static_cast<uint64_t>(ids[static_cast<size_t>(i)]));
  };
  if (singly)
    parallel_for(n, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> spare;
      for (int64_t i = begin; i < end; ++i) {
        alone(o, s, key_of_sample(i), from + i * s.size(), changed.as<T>() + i * s.size(), spare);
      }
    });
  std::vector<double> weights(ids.size(), 1.0);
  if (mixes)
    parallel_for(n, 1, [&](int64_t begin, int64_t end) {
      const T* const own = changed.as<T>();
      for (int64_t i = begin; i < end; ++i)
        weights[static_cast<size_t>(i)] = mix(o, s, key_of_sample(i), own + i * s.size(),
                                              own + partners[static_cast<size_t>(i)] * s.size(), to + i * s.size());
    });
  return weights;
}

}  // namespace

double symmetric_beta(double alpha, uint64_t key) {
  Numbers numbers(key);
  if (alpha == 1) return numbers.uniform();
  const double a = numbers.gamma(alpha), b = numbers.gamma(alpha);
  if (a + b > 0) return a / (a + b);
  return numbers.uniform() < 0.5 ? 0 : 1;  // both too small for a double: one end or the other
}

Result<ImageAugmenter> ImageAugmenter::create(AugmentOptions o) {
  static const std::vector<std::string> known = {"flip",        "crop",   "rotate", "color",
                                                 "randaugment", "cutout", "cutmix", "mixup"};
  if (o.methods.empty()) return invalid("methods: expected one or more of {}", join(known, ", "));
  if (o.methods.size() != o.probabilities.size())
    return invalid("probabilities: expected one for each of {} methods, got {}", o.methods.size(),
                   o.probabilities.size());
  double mixed = 0;
  for (size_t m = 0; m < o.methods.size(); ++m) {
    const std::string& method = o.methods[m];
    if (std::find(known.begin(), known.end(), method) == known.end()) {
      return invalid("methods: unknown '{}'{} There are {}", method, did_you_mean(method, known), join(known, ", "));
    }
    if (!(o.probabilities[m] >= 0 && o.probabilities[m] <= 1))
      return invalid("probabilities: {} of {} is not in [0, 1]", o.probabilities[m], method);
    if (is_mix(method)) mixed += o.probabilities[m];
  }
  if (mixed > 1 + 1e-9)
    return invalid("probabilities: those of cutmix and mixup add up to {}, at most 1: a sample gets one of them",
                   mixed);
  if (!(o.alpha > 0) || !std::isfinite(o.alpha)) return invalid("alpha: {} is not above 0", o.alpha);
  if (o.crop_padding < 0 || o.crop_padding > kMaxPadding)
    return invalid("crop_padding: {} is not in [0, {}]", o.crop_padding, kMaxPadding);
  if (!(o.cutout_size >= 0 && o.cutout_size <= 1)) return invalid("cutout_size: {} is not in [0, 1]", o.cutout_size);
  if (!(o.color >= 0 && o.color <= 1)) return invalid("color: {} is not in [0, 1]", o.color);
  if (o.randaugment_ops < 1 || o.randaugment_ops > kMaxOps)
    return invalid("randaugment_ops: {} is not in [1, {}]", o.randaugment_ops, kMaxOps);
  if (o.randaugment_magnitude < 0 || o.randaugment_magnitude > 30)
    return invalid("randaugment_magnitude: {} is not in [0, 30]", o.randaugment_magnitude);
  if (!std::isfinite(o.rotation)) return invalid("rotation: {} is no angle", o.rotation);
  return ImageAugmenter(std::move(o));
}

bool ImageAugmenter::mixes() const { return std::any_of(options_.methods.begin(), options_.methods.end(), is_mix); }

std::vector<int64_t> ImageAugmenter::partners(int64_t n, int64_t epoch) const {
  return permutation(n, hash_of(hash_of(kStream, options_.seed), static_cast<uint64_t>(epoch), 1));
}

Result<ImageAugmenter::Mixed> ImageAugmenter::transform(const Tensor& images, bool channels_last, int64_t epoch,
                                                        std::span<const int64_t> ids,
                                                        std::span<const int64_t> partners) const {
  const graph::Dims& dims = images.dims();
  if (dims.size() != 4 || (images.dtype() != DType::kU8 && images.dtype() != DType::kF32))
    return invalid("images: expected u8 or f32 [N, {}], got {}", channels_last ? "H, W, C" : "C, H, W",
                   to_string(images.type()));
  if (images.dtype() != DType::kU8 &&
      std::find(options_.methods.begin(), options_.methods.end(), "randaugment") != options_.methods.end())
    return invalid("images: randaugment changes u8 images, got {}", to_string(images.type()));
  if (static_cast<int64_t>(ids.size()) != dims[0]) return invalid("ids: {} for {} images", ids.size(), dims[0]);
  if (mixes()) {
    if (partners.size() != ids.size()) return invalid("partners: {} for {} images", partners.size(), dims[0]);
    for (const int64_t p : partners)
      if (p < 0 || p >= dims[0]) return invalid("partners: {} is not among {} images", p, dims[0]);
  }
  const Shape shape = channels_last ? Shape{1, dims[1], dims[2], dims[3]} : Shape{dims[1], dims[2], dims[3], 1};
  Mixed mixed{Tensor(images.type()), {}};
  const uint64_t key = hash_of(hash_of(kStream, options_.seed), static_cast<uint64_t>(epoch));
  mixed.weights = images.dtype() == DType::kU8
                      ? run<uint8_t>(options_, shape, images, key, ids, partners, mixes(), mixed.images)
                      : run<float>(options_, shape, images, key, ids, partners, mixes(), mixed.images);
  return mixed;
}

}  // namespace deepseek::data
