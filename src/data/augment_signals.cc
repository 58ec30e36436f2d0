#include "data/augment_signals.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "base/strings.h"
#include "base/threads.h"

namespace deepseek::data {

namespace {

using graph::Tensor;

constexpr uint64_t kSeriesStream = 0x536572, kVolumeStream = 0x566f6c;

Status check_methods(const std::vector<std::string>& methods, const std::vector<double>& probabilities,
                     const std::vector<std::string>& known) {
  if (methods.empty()) return invalid("methods: expected one or more of {}", join(known, ", "));
  if (methods.size() != probabilities.size())
    return invalid("probabilities: expected one for each of {} methods, got {}", methods.size(), probabilities.size());
  for (size_t m = 0; m < methods.size(); ++m) {
    if (std::find(known.begin(), known.end(), methods[m]) == known.end())
      return invalid("methods: unknown '{}'{} There are {}", methods[m], did_you_mean(methods[m], known),
                     join(known, ", "));
    if (!(probabilities[m] >= 0 && probabilities[m] <= 1))
      return invalid("probabilities: {} of {} is not in [0, 1]", probabilities[m], methods[m]);
  }
  return {};
}

// f(method, its numbers) for those that are drawn, in order.
template <class Options, class F>
void each_drawn(const Options& o, uint64_t key, F f) {
  for (size_t m = 0; m < o.methods.size(); ++m) {
    Numbers numbers(hash_of(key, m));
    if (numbers.uniform() < o.probabilities[m]) f(o.methods[m], numbers);
  }
}

void warp_window(double share, int64_t steps, int64_t channels, Numbers& numbers, float* x) {
  const auto window = std::clamp<int64_t>(std::llround(share * static_cast<double>(steps)), 2, steps);
  const auto start = static_cast<int64_t>(numbers.uniform() * static_cast<double>(steps - window + 1));
  const double factor = numbers.uniform() < 0.5 ? 0.5 : 2;
  const double stretched = std::max(1.0, factor * static_cast<double>(window - 1)),
               length = static_cast<double>(steps - window) + stretched;
  const std::vector<float> from(x, x + steps * channels);
  const auto begin = static_cast<double>(start), inside = static_cast<double>(window - 1);
  for (int64_t t = 0; t < steps; ++t) {
    // Where it stands in the warped series, and where that came from.
    double at = static_cast<double>(t) * length / static_cast<double>(steps - 1);
    at = at <= begin              ? at
         : at < begin + stretched ? begin + (at - begin) * inside / stretched
                                  : at - stretched + inside;
    const auto low = std::clamp<int64_t>(static_cast<int64_t>(at), 0, steps - 2);
    const auto part = static_cast<float>(std::clamp(at - static_cast<double>(low), 0.0, 1.0));
    for (int64_t c = 0; c < channels; ++c) {
      const float a = from[static_cast<size_t>(low * channels + c)],
                  b = from[static_cast<size_t>((low + 1) * channels + c)];
      x[t * channels + c] = a + (b - a) * part;
    }
  }
}

struct Extent {
  int64_t depth, height, width;
  int64_t size() const { return depth * height * width; }
};

// Displacements of all voxels along three axes, linear between the points of a grid.
std::vector<float> displacements(const VolumeOptions& o, const Extent& e, Numbers& numbers) {
  const int64_t g = o.grid;
  std::vector<float> points(static_cast<size_t>(3 * g * g * g));
  for (float& p : points) p = static_cast<float>(o.displacement * numbers.normal());
  std::vector<float> field(static_cast<size_t>(3 * e.size()));
  const auto place = [&](int64_t i, int64_t n, int64_t& low, float& part) {
    const double at = n > 1 ? static_cast<double>(i) * static_cast<double>(g - 1) / static_cast<double>(n - 1) : 0;
    low = std::min(static_cast<int64_t>(at), g - 2);
    part = static_cast<float>(at - static_cast<double>(low));
  };
  for (int64_t z = 0; z < e.depth; ++z)
    for (int64_t y = 0; y < e.height; ++y)
      for (int64_t x = 0; x < e.width; ++x) {
        int64_t z0, y0, x0;
        float fz, fy, fx;
        place(z, e.depth, z0, fz), place(y, e.height, y0, fy), place(x, e.width, x0, fx);
        for (int64_t axis = 0; axis < 3; ++axis) {
          const auto p = [&](int64_t dz, int64_t dy, int64_t dx) {
            return points[static_cast<size_t>(((axis * g + z0 + dz) * g + y0 + dy) * g + x0 + dx)];
          };
          const auto row = [&](int64_t dz, int64_t dy) { return p(dz, dy, 0) * (1 - fx) + p(dz, dy, 1) * fx; };
          const auto plane = [&](int64_t dz) { return row(dz, 0) * (1 - fy) + row(dz, 1) * fy; };
          field[static_cast<size_t>(axis * e.size() + (z * e.height + y) * e.width + x)] =
              plane(0) * (1 - fz) + plane(1) * fz;
        }
      }
  return field;
}

// f(voxel, z, y, x) with where each voxel comes from, inside the volume.
template <class F>
void each_source(const Extent& e, const std::vector<float>& field, F f) {
  for (int64_t z = 0, i = 0; z < e.depth; ++z)
    for (int64_t y = 0; y < e.height; ++y)
      for (int64_t x = 0; x < e.width; ++x, ++i) {
        const auto moved = [&](int64_t at, int64_t axis, int64_t n) {
          return std::clamp(static_cast<float>(at) + field[static_cast<size_t>(axis * e.size() + i)], 0.0f,
                            static_cast<float>(n - 1));
        };
        f(i, moved(z, 0, e.depth), moved(y, 1, e.height), moved(x, 2, e.width));
      }
}

void move_image(const Extent& e, const std::vector<float>& field, float* image) {
  const std::vector<float> from(image, image + e.size());
  each_source(e, field, [&](int64_t i, float z, float y, float x) {
    const auto z0 = static_cast<int64_t>(z), y0 = static_cast<int64_t>(y), x0 = static_cast<int64_t>(x);
    const int64_t z1 = std::min(z0 + 1, e.depth - 1), y1 = std::min(y0 + 1, e.height - 1),
                  x1 = std::min(x0 + 1, e.width - 1);
    const float fz = z - static_cast<float>(z0), fy = y - static_cast<float>(y0), fx = x - static_cast<float>(x0);
    const auto v = [&](int64_t a, int64_t b, int64_t c) {
      return from[static_cast<size_t>((a * e.height + b) * e.width + c)];
    };
    const auto row = [&](int64_t a, int64_t b) { return v(a, b, x0) * (1 - fx) + v(a, b, x1) * fx; };
    const auto plane = [&](int64_t a) { return row(a, y0) * (1 - fy) + row(a, y1) * fy; };
    image[i] = plane(z0) * (1 - fz) + plane(z1) * fz;
  });
}

void move_mask(const Extent& e, const std::vector<float>& field, int64_t* mask) {
  const std::vector<int64_t> from(mask, mask + e.size());
  each_source(e, field, [&](int64_t i, float z, float y, float x) {
    mask[i] = from[static_cast<size_t>((std::lrint(z) * e.height + std::lrint(y)) * e.width + std::lrint(x))];
  });
}

template <class T>
void flip(const Extent& e, const bool (&axes)[3], T* volume) {
  const std::vector<T> from(volume, volume + e.size());
  for (int64_t z = 0, i = 0; z < e.depth; ++z)
    for (int64_t y = 0; y < e.height; ++y)
      for (int64_t x = 0; x < e.width; ++x, ++i)
        volume[i] = from[static_cast<size_t>(
            ((axes[0] ? e.depth - 1 - z : z) * e.height + (axes[1] ? e.height - 1 - y : y)) * e.width +
            (axes[2] ? e.width - 1 - x : x))];
}

}  // namespace

Result<Tensor> augment_series(const SeriesOptions& o, const Tensor& series, int64_t epoch,
                              std::span<const int64_t> ids) {
  DS_TRY(check_methods(o.methods, o.probabilities, {"jitter", "scaling", "window_warp"}));
  if (!(o.jitter >= 0) || !(o.scaling >= 0) || !(o.window > 0 && o.window <= 1))
    return invalid("jitter and scaling: expected 0 or more, window in (0, 1], got {}, {} and {}", o.jitter, o.scaling,
                   o.window);
  const graph::Dims& dims = series.dims();
  if (dims.size() != 3 || series.dtype() != DType::kF32 || dims[1] < 2)
    return invalid("series: expected f32 [N, T, C] of two steps or more, got {}", to_string(series.type()));
  if (static_cast<int64_t>(ids.size()) != dims[0]) return invalid("ids: {} for {} series", ids.size(), dims[0]);
  Tensor out = series.clone();
  const int64_t steps = dims[1], channels = dims[2];
  const uint64_t key = hash_of(hash_of(kSeriesStream, o.seed), static_cast<uint64_t>(epoch));
  parallel_for(dims[0], 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* const x = out.as<float>() + i * steps * channels;
      each_drawn(o, hash_of(key, static_cast<uint64_t>(ids[static_cast<size_t>(i)])),
                 [&](const std::string& method, Numbers& numbers) {
                   if (method == "jitter") {
                     for (int64_t t = 0; t < steps * channels; ++t)
                       x[t] += static_cast<float>(o.jitter * numbers.normal());
                   } else if (method == "scaling") {
                     for (int64_t c = 0; c < channels; ++c) {
                       const auto factor = static_cast<float>(1 + o.scaling * numbers.normal());
                       for (int64_t t = 0; t < steps; ++t) x[t * channels + c] *= factor;
                     }
                   } else {
                     warp_window(o.window, steps, channels, numbers, x);
                   }
                 });
    }
  });
  return out;
}

Result<Volumes> augment_volumes(const VolumeOptions& o, const Tensor& images, const Tensor& masks, int64_t epoch,
                                std::span<const int64_t> ids) {
  DS_TRY(check_methods(o.methods, o.probabilities, {"flip", "elastic", "intensity"}));
  if (!(o.displacement >= 0) || !(o.contrast >= 0) || !(o.brightness >= 0) || o.grid < 2)
    return invalid("displacement, contrast and brightness: expected 0 or more, grid 2 or more, got {}, {}, {} and {}",
                   o.displacement, o.contrast, o.brightness, o.grid);
  const graph::Dims& dims = images.dims();
  if (dims.size() != 5 || images.dtype() != DType::kF32)
    return invalid("volumes: expected f32 [N, C, D, H, W], got {}", to_string(images.type()));
  if (static_cast<int64_t>(ids.size()) != dims[0]) return invalid("ids: {} for {} volumes", ids.size(), dims[0]);
  const Extent e{dims[2], dims[3], dims[4]};
  if (masks.defined() &&
      (masks.dtype() != DType::kI64 || masks.dims() != graph::Dims{dims[0], e.depth, e.height, e.width}))
    return invalid("masks: expected i64 [N, D, H, W] of {} volumes of {} x {} x {}, got {}", dims[0], e.depth, e.height,
                   e.width, to_string(masks.type()));
  Volumes out{images.clone(), masks.defined() ? masks.clone() : Tensor()};
  const uint64_t key = hash_of(hash_of(kVolumeStream, o.seed), static_cast<uint64_t>(epoch));
  parallel_for(dims[0], 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* const image = out.images.as<float>() + i * dims[1] * e.size();
      int64_t* const mask = masks.defined() ? out.masks.as<int64_t>() + i * e.size() : nullptr;
      each_drawn(o, hash_of(key, static_cast<uint64_t>(ids[static_cast<size_t>(i)])),
                 [&](const std::string& method, Numbers& numbers) {
                   if (method == "flip") {
                     const bool axes[3] = {numbers.uniform() < 0.5, numbers.uniform() < 0.5, numbers.uniform() < 0.5};
                     for (int64_t c = 0; c < dims[1]; ++c) flip(e, axes, image + c * e.size());
                     if (mask) flip(e, axes, mask);
                   } else if (method == "elastic") {
                     const std::vector<float> field = displacements(o, e, numbers);
                     for (int64_t c = 0; c < dims[1]; ++c) move_image(e, field, image + c * e.size());
                     if (mask) move_mask(e, field, mask);
                   } else {
                     const auto factor = static_cast<float>(1 + o.contrast * (2 * numbers.uniform() - 1));
                     const auto offset = static_cast<float>(o.brightness * (2 * numbers.uniform() - 1));
                     for (int64_t v = 0; v < dims[1] * e.size(); ++v) image[v] = image[v] * factor + offset;
                   }
                 });
    }
  });
  return out;
}

}  // namespace deepseek::data
