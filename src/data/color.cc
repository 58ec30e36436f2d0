#include "data/color.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace deepseek::data {

namespace {

template <class T>
T stored(float x) {
  if constexpr (sizeof(T) == 1)
    return static_cast<T>(std::lrintf(std::clamp(x, 0.0f, 255.0f)));
  else
    return x;
}

// ITU-R 601, as Pillow's.
template <class T>
float grey(const ImageShape& s, const T* image, int64_t i) {
  if (s.channels() != 3) return static_cast<float>(image[s.at(0, i)]);
  return 0.299f * static_cast<float>(image[s.at(0, i)]) + 0.587f * static_cast<float>(image[s.at(1, i)]) +
         0.114f * static_cast<float>(image[s.at(2, i)]);
}

// image = other + (image - other) * factor, other(channel, pixel)
template <class T, class F>
void blend(const ImageShape& s, float factor, T* image, F other) {
  for (int64_t c = 0; c < s.channels(); ++c)
    for (int64_t i = 0; i < s.height * s.width; ++i) {
      T& x = image[s.at(c, i)];
      const float o = other(c, i);
      x = stored<T>(o + (static_cast<float>(x) - o) * factor);
    }
}

using Lookup = std::array<uint8_t, 256>;
void map_channel(const ImageShape& s, int64_t c, const Lookup& to, uint8_t* image) {
  for (int64_t i = 0; i < s.height * s.width; ++i) image[s.at(c, i)] = to[image[s.at(c, i)]];
}
std::array<int64_t, 256> histogram(const ImageShape& s, int64_t c, const uint8_t* image) {
  std::array<int64_t, 256> counts{};
  for (int64_t i = 0; i < s.height * s.width; ++i) ++counts[image[s.at(c, i)]];
  return counts;
}

}  // namespace

template <class T>
void enhance(const ImageShape& s, Enhancement what, float factor, T* image) {
  const int64_t pixels = s.height * s.width;
  switch (what) {
    case Enhancement::kBrightness: blend(s, factor, image, [](int64_t, int64_t) { return 0.0f; }); return;
    case Enhancement::kContrast: {
      double sum = 0;
      for (int64_t i = 0; i < pixels; ++i) sum += static_cast<double>(grey(s, image, i));
      const auto mean = static_cast<float>(sum / static_cast<double>(std::max<int64_t>(pixels, 1)));
      blend(s, factor, image, [&](int64_t, int64_t) { return mean; });
      return;
    }
    case Enhancement::kSaturation: {
      if (s.channels() != 3) return;
      std::vector<float> greys(static_cast<size_t>(pixels));
      for (int64_t i = 0; i < pixels; ++i) greys[static_cast<size_t>(i)] = grey(s, image, i);
      blend(s, factor, image, [&](int64_t, int64_t i) { return greys[static_cast<size_t>(i)]; });
      return;
    }
    case Enhancement::kSharpness: {
      // The mean of nine, the middle one five times; the border stays.
      std::vector<float> smooth(static_cast<size_t>(s.channels() * pixels));
      for (int64_t c = 0; c < s.channels(); ++c)
        for (int64_t y = 0; y < s.height; ++y)
          for (int64_t x = 0; x < s.width; ++x) {
            const auto value = [&](int64_t dy, int64_t dx) {
              return static_cast<float>(image[s.at(c, (y + dy) * s.width + x + dx)]);
            };
            float& to = smooth[static_cast<size_t>(c * pixels + y * s.width + x)];
            to = value(0, 0);
            if (y == 0 || x == 0 || y + 1 == s.height || x + 1 == s.width) continue;
            float sum = 4 * value(0, 0);
            for (int64_t dy = -1; dy <= 1; ++dy)
              for (int64_t dx = -1; dx <= 1; ++dx) sum += value(dy, dx);
            to = sum / 13;
          }
      blend(s, factor, image, [&](int64_t c, int64_t i) { return smooth[static_cast<size_t>(c * pixels + i)]; });
      return;
    }
  }
}
template void enhance<uint8_t>(const ImageShape&, Enhancement, float, uint8_t*);
template void enhance<float>(const ImageShape&, Enhancement, float, float*);

void posterize(const ImageShape& s, int bits, uint8_t* image) {
  const auto mask = static_cast<uint8_t>(~((1 << (8 - std::clamp(bits, 0, 8))) - 1));
  for (int64_t i = 0; i < s.size(); ++i) image[i] = static_cast<uint8_t>(image[i] & mask);
}

void solarize(const ImageShape& s, int threshold, uint8_t* image) {
  for (int64_t i = 0; i < s.size(); ++i)
    if (image[i] >= threshold) image[i] = static_cast<uint8_t>(255 - image[i]);
}

void autocontrast(const ImageShape& s, uint8_t* image) {
  for (int64_t c = 0; c < s.channels(); ++c) {
    const auto counts = histogram(s, c, image);
    int low = 0, high = 255;
    while (low < 255 && counts[static_cast<size_t>(low)] == 0) ++low;
    while (high > 0 && counts[static_cast<size_t>(high)] == 0) --high;
    if (high <= low) continue;
    Lookup to;
    for (int v = 0; v < 256; ++v)
      to[static_cast<size_t>(v)] = static_cast<uint8_t>(std::clamp((v - low) * 255.0 / (high - low), 0.0, 255.0));
    map_channel(s, c, to, image);
  }
}

void equalize(const ImageShape& s, uint8_t* image) {
  for (int64_t c = 0; c < s.channels(); ++c) {
    const auto counts = histogram(s, c, image);
    int64_t last = 0;
    for (const int64_t n : counts)
      if (n > 0) last = n;
    const int64_t step = (s.height * s.width - last) / 255;
    if (step == 0) continue;
    Lookup to;
    int64_t n = step / 2;
    for (size_t v = 0; v < 256; ++v) {
      to[v] = static_cast<uint8_t>(std::min<int64_t>(n / step, 255));
      n += counts[v];
    }
    map_channel(s, c, to, image);
  }
}

}  // namespace deepseek::data
