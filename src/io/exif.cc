#include "io/exif.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace deepseek::io {
namespace {

using Bytes = std::span<const std::byte>;

uint32_t number(Bytes bytes, size_t at, size_t size, bool big) {
  uint32_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= std::to_integer<uint32_t>(bytes[at + i]) << (8 * (big ? size - 1 - i : i));
  return value;
}
bool has(Bytes bytes, size_t at, std::string_view text) {
  return at <= bytes.size() && bytes.size() - at >= text.size() &&
         std::memcmp(bytes.data() + at, text.data(), text.size()) == 0;
}

// Exif is a TIFF file: its first directory's entries are of 12 bytes, tag, type, count and value.
int orientation_in(Bytes tiff) {
  if (has(tiff, 0, "Exif")) tiff = tiff.subspan(std::min<size_t>(tiff.size(), 6));
  const bool big = has(tiff, 0, "MM");
  if (tiff.size() < 8 || (!big && !has(tiff, 0, "II"))) return 1;
  const size_t directory = number(tiff, 4, 4, big);
  if (directory > tiff.size() || tiff.size() - directory < 2) return 1;
  const size_t count = number(tiff, directory, 2, big);
  for (size_t i = 0, at = directory + 2; i < count && tiff.size() - at >= 12; ++i, at += 12) {
    if (number(tiff, at, 2, big) != 0x0112) continue;
    const uint32_t value = number(tiff, at + 8, 2, big);
    const bool is_short = number(tiff, at + 2, 2, big) == 3;
    return is_short && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

int in_jpeg(Bytes file) {
  for (size_t at = 2; file.size() - at >= 4 && file[at] == std::byte{0xff};) {
    const auto marker = std::to_integer<int>(file[at + 1]);
    if (marker == 0xff) {  // padding
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) break;  // pixels
    const size_t length = number(file, at + 2, 2, true);
    if (length < 2 || file.size() - at - 2 < length) break;
    if (marker == 0xe1 && has(file, at + 4, std::string_view("Exif\0\0", 6)))
      return orientation_in(file.subspan(at + 4, length - 2));
    at += 2 + length;
  }
  return 1;
}

int in_png(Bytes file) {
  for (size_t at = 8; file.size() - at >= 12;) {
    const size_t length = number(file, at, 4, true);
    if (file.size() - at - 12 < length) break;
    if (has(file, at + 4, "eXIf")) return orientation_in(file.subspan(at + 8, length));
    at += 12 + length;
  }
  return 1;
}

int in_webp(Bytes file) {
  for (size_t at = 12; file.size() - at >= 8;) {
    const size_t length = number(file, at + 4, 4, false);
    if (file.size() - at - 8 < length) break;
    if (has(file, at, "EXIF")) return orientation_in(file.subspan(at + 8, length));
    at += 8 + length + (length & 1);
    if (at > file.size()) break;
  }
  return 1;
}

}  // namespace

int orientation_of(Bytes file) {
  if (has(file, 0, "\xff\xd8\xff")) return in_jpeg(file);
  if (has(file, 0, "\x89PNG\r\n\x1a\n")) return in_png(file);
  if (has(file, 0, "RIFF") && has(file, 8, "WEBP")) return in_webp(file);
  return 1;
}

graph::Tensor upright(const graph::Tensor& image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const int64_t channels = image.dims()[0], height = image.dims()[1], width = image.dims()[2];
  const bool swapped = orientation >= 5;
  const int64_t rows = swapped ? width : height, columns = swapped ? height : width;
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  graph::Tensor out(DType::kU8, {channels, rows, columns});
  for (int64_t c = 0; c < channels; ++c) {
    const uint8_t* const from = image.as<uint8_t>() + c * height * width;
    uint8_t* to = out.as<uint8_t>() + c * height * width;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column) {
        const int64_t y = swapped ? column : row, x = swapped ? row : column;
        *to++ = from[(mirror_y ? height - 1 - y : y) * width + (mirror_x ? width - 1 - x : x)];
      }
  }
  return out;
}

}  // namespace deepseek::io
