#include "io/image.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/guard.h"
#include "base/strings.h"
#include "io/atomic_file.h"
#include "io/exif.h"
#include "io/jpeg.h"
#include "io/png.h"
#include "io/webp.h"

namespace deepseek::io {

using graph::Tensor;

namespace {

constexpr int kBits = 22;  // of the weights' fraction; sums of 255 times one stay in 32 bits

// What one axis of a result reads: for each of its elements, weights of `count` from `first` on.
struct Weights {
  struct Row {
    int64_t first, count;
  };
  std::vector<Row> rows;
  std::vector<int32_t> values;  // `longest` a row
  int64_t longest = 0;
};

Weights triangle(int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), reach = std::max(scale, 1.0);
  Weights w;
  w.longest = static_cast<int64_t>(std::ceil(reach)) * 2 + 1;
  w.values.resize(static_cast<size_t>(to * w.longest));
  std::vector<double> row(static_cast<size_t>(w.longest));
  for (int64_t i = 0; i < to; ++i) {
    const double middle = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(middle - reach + 0.5));
    const int64_t count = std::min(from, static_cast<int64_t>(middle + reach + 0.5)) - first;
    double sum = 0;
    for (int64_t k = 0; k < count; ++k) {
      const double at = std::fabs((static_cast<double>(k + first) - middle + 0.5) / reach);
      row[static_cast<size_t>(k)] = std::max(0.0, 1.0 - at);
      sum += row[static_cast<size_t>(k)];
    }
    for (int64_t k = 0; k < count; ++k)
      w.values[static_cast<size_t>(i * w.longest + k)] =
          static_cast<int32_t>(std::lround(row[static_cast<size_t>(k)] / sum * (1 << kBits)));
    w.rows.push_back({first, count});
  }
  return w;
}

uint8_t rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

// Grey repeated, or colour as luma.
Tensor with_channels(const Tensor& image, int64_t channels) {
  const int64_t plane = image.dims()[1] * image.dims()[2];
  Tensor out(DType::kU8, {channels, image.dims()[1], image.dims()[2]});
  const uint8_t* const from = image.as<uint8_t>();
  for (int64_t p = 0; p < plane; ++p) {
    if (channels == 3)
      for (int64_t c = 0; c < 3; ++c) out.as<uint8_t>()[c * plane + p] = from[p];
    else
      out.as<uint8_t>()[p] =
          static_cast<uint8_t>((from[p] * 19595 + from[plane + p] * 38470 + from[2 * plane + p] * 7471 + 0x8000) >> 16);
  }
  return out;
}

Status check_channels(int64_t channels) {
  if (channels == 1 || channels == 3) return {};
  return invalid("[image] channels is {}, expected 1 or 3", channels);
}

bool is_webp(std::string_view start) { return start.starts_with("RIFF") && start.substr(0, 12).ends_with("WEBP"); }

Status unknown_format(std::string_view start, const std::string& where) {
  struct Format {
    size_t at;
    std::string_view magic, name;
  };
  static constexpr Format kFormats[] = {{0, "GIF8", "GIF"},        {0, "BM", "BMP"},          {0, {"II*\0", 4}, "TIFF"},
                                        {0, {"MM\0*", 4}, "TIFF"}, {4, "ftypavif", "AVIF"},   {4, "ftypheic", "HEIF"},
                                        {4, "ftypmif1", "HEIF"},   {4, "jP  ", "JPEG 2000"},  {0, "8BPS", "Photoshop"},
                                        {0, "%PDF", "PDF"},        {0, "<svg", "SVG"},        {0, "<?xml", "SVG"},
                                        {4, "JXL ", "JPEG XL"},    {0, "\xff\x0a", "JPEG XL"}};
  for (const Format& f : kFormats)
    if (start.size() > f.at && start.substr(f.at).starts_with(f.magic))
      return make_error(ErrorCode::kUnsupported,
                        "[image] '{}' is a {} file; JPEG, PNG and WebP are read: convert it, with Pillow by "
                        "Image.open(path).convert('RGB').save('new.png')",
                        where, f.name);
  return make_error(ErrorCode::kDataCorrupt,
                    "[image] '{}' is neither a JPEG nor a PNG nor a WebP file; replace it, or leave it out", where);
}

}  // namespace

bool is_image_name(std::string_view name) {
  const std::string end = lower(name);
  return end.ends_with(".jpg") || end.ends_with(".jpeg") || end.ends_with(".png") || end.ends_with(".webp");
}

std::string_view foreign_image_ending(std::string_view name) {
  const std::string end = lower(name);
  for (const std::string_view other : {".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl",
                                       ".ppm", ".pgm", ".tga", ".psd", ".dng"})
    if (end.ends_with(other)) return other;
  return "";
}

Result<Tensor> parse_image(std::span<const std::byte> bytes, const std::string& where, int64_t channels, int64_t least,
                           int64_t max_side) {
  DS_TRY(check_channels(channels));
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 32));
  Result<Tensor> image = unknown_format(start, where);
  if (start.starts_with("\xff\xd8\xff"))
    image = parse_jpeg(bytes, where, least, max_side);
  else if (start.starts_with("\x89PNG"))
    image = parse_png(bytes, where, std::min(max_side, kMaxPngSide));
  else if (is_webp(start))
    image = parse_webp(bytes, where, std::min(max_side, kMaxWebpSide));
  if (!image.ok()) return image;
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<Tensor> {
    const Tensor turned = upright(*image, orientation_of(bytes));
    return turned.dims()[0] == channels ? turned : with_channels(turned, channels);
  });
}

Result<Tensor> load_image(const std::string& path, int64_t channels, int64_t least) {
  DS_TRY(check_channels(channels));
  DS_ASSIGN(const std::vector<std::byte> bytes, read_file(path));
  return parse_image(bytes, path, channels, least);
}

Tensor resize_image(const Tensor& image, int64_t height, int64_t width) {
  const int64_t channels = image.dims()[0], from_height = image.dims()[1], from_width = image.dims()[2];
  if (from_height == height && from_width == width) return image;
  const Weights across = triangle(from_width, width), down = triangle(from_height, height);
  Tensor rows(DType::kU8, {channels, from_height, width}), out(DType::kU8, {channels, height, width});
  for (int64_t r = 0; r < channels * from_height; ++r) {
    const uint8_t* const from = image.as<uint8_t>() + r * from_width;
    uint8_t* const to = rows.as<uint8_t>() + r * width;
    for (int64_t i = 0; i < width; ++i) {
      const auto [first, count] = across.rows[static_cast<size_t>(i)];
      const int32_t* const weights = across.values.data() + i * across.longest;
      int32_t sum = 1 << (kBits - 1);
      for (int64_t k = 0; k < count; ++k) sum += weights[k] * from[first + k];
      to[i] = rounded(sum);
    }
  }
  std::vector<int32_t> sums(static_cast<size_t>(width));
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < height; ++i) {
      const auto [first, count] = down.rows[static_cast<size_t>(i)];
      std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
      for (int64_t k = 0; k < count; ++k) {
        const int32_t weight = down.values[static_cast<size_t>(i * down.longest + k)];
        const uint8_t* const from = rows.as<uint8_t>() + (c * from_height + first + k) * width;
        for (int64_t x = 0; x < width; ++x) sums[static_cast<size_t>(x)] += weight * from[x];
      }
      uint8_t* const to = out.as<uint8_t>() + (c * height + i) * width;
      for (int64_t x = 0; x < width; ++x) to[x] = rounded(sums[static_cast<size_t>(x)]);
    }
  return out;
}

Tensor cover_image(const Tensor& image, int64_t height, int64_t width) {
  const int64_t channels = image.dims()[0], from_height = image.dims()[1], from_width = image.dims()[2];
  const double scale = std::max(static_cast<double>(height) / static_cast<double>(from_height),
                                static_cast<double>(width) / static_cast<double>(from_width));
  const auto scaled = [scale](int64_t from, int64_t least) {
    return std::max(least, static_cast<int64_t>(std::lround(static_cast<double>(from) * scale)));
  };
  const Tensor covering = resize_image(image, scaled(from_height, height), scaled(from_width, width));
  const int64_t rows = covering.dims()[1], columns = covering.dims()[2];
  if (rows == height && columns == width) return covering;
  const int64_t top = (rows - height) / 2, left = (columns - width) / 2;
  Tensor out(DType::kU8, {channels, height, width});
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < height; ++i)
      std::copy_n(covering.as<uint8_t>() + (c * rows + top + i) * columns + left, width,
                  out.as<uint8_t>() + (c * height + i) * width);
  return out;
}

}  // namespace deepseek::io
