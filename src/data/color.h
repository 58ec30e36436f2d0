// What images look like, changed: brightness, contrast, saturation, sharpness, and tables of u8 values. Definitions are
// those of Pillow's ImageEnhance and ImageOps, with results rounded. Test: tests/python/test_augment.py
#pragma once

#include <cstdint>
#include <string>

namespace deepseek::data {

// Planes of rows of pixels, of which each is so many elements: [C, H, W] has C planes of one, [H, W, C] one plane of C.
struct ImageShape {
  int64_t planes, height, width, pixel;
  int64_t size() const { return planes * height * width * pixel; }
  int64_t row(int64_t plane, int64_t y) const { return (plane * height + y) * width * pixel; }
  int64_t channels() const { return planes * pixel; }
  // Where channel c of pixel i stands.
  int64_t at(int64_t c, int64_t i) const { return planes > 1 ? c * height * width + i : i * pixel + c; }
};

// In place. factor 1 changes nothing; brightness 0 is black, contrast 0 the mean grey, saturation 0 grey (of three
// channels; others stay), sharpness 0 smoothed. u8 stays in its range.
enum class Enhancement { kBrightness, kContrast, kSaturation, kSharpness };
template <class T>
void enhance(const ImageShape& shape, Enhancement what, float factor, T* image);

// Of u8 images. posterize: keeps the highest `bits` bits; solarize: inverts values from the threshold on; autocontrast:
// each channel's range becomes 0 to 255; equalize: each channel's histogram becomes even.
void posterize(const ImageShape& shape, int bits, uint8_t* image);
void solarize(const ImageShape& shape, int threshold, uint8_t* image);
void autocontrast(const ImageShape& shape, uint8_t* image);
void equalize(const ImageShape& shape, uint8_t* image);

}  // namespace deepseek::data
