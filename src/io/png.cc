#include "io/png.h"

#include <png.h>

#include <vector>

#include "base/guard.h"
#include "io/atomic_file.h"

namespace deepseek::io {
namespace {

struct Image : png_image {
  Image() : png_image{} { version = PNG_IMAGE_VERSION; }
  ~Image() { png_image_free(this); }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
};

}  // namespace

Result<graph::Tensor> parse_png(std::span<const std::byte> bytes, std::string_view where, int64_t max_side) {
  const auto corrupt = [&](const char* reason) {
    return make_error(ErrorCode::kDataCorrupt, "[png] '{}': {}; the file is damaged or not a PNG", where, reason);
  };
  if (bytes.empty()) return corrupt("the file is empty");
  Image image;
  if (png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()) == 0) return corrupt(image.message);
  if (image.width > max_side || image.height > max_side) {
    return invalid("[png] '{}' is {}x{} pixels, at most {} a side are allowed; scale it down first", where, image.width,
                   image.height, max_side);
  }
  if (static_cast<int64_t>(image.width) * image.height > kMaxPixels)
    return too_many_pixels("png", where, image.width, image.height);
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<graph::Tensor> {
    const bool colour = (image.format & PNG_FORMAT_FLAG_COLOR) != 0;
    const bool alpha = (image.format & PNG_FORMAT_FLAG_ALPHA) != 0;
    // Without this samples of 16 bits are taken for linear light, and with a background libpng blends in linear light.
    image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
    image.format = (colour ? PNG_FORMAT_FLAG_COLOR : 0u) | (alpha ? PNG_FORMAT_FLAG_ALPHA : 0u);
    const int64_t channels = colour ? 3 : 1, height = image.height, width = image.width, plane = height * width;
    const int64_t stored = channels + (alpha ? 1 : 0);
    std::vector<uint8_t> pixels(static_cast<size_t>(stored * plane));
    if (png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr) == 0) return corrupt(image.message);
    graph::Tensor out(DType::kU8, {channels, height, width});
    for (int64_t c = 0; c < channels; ++c) {
      uint8_t* const to = out.as<uint8_t>() + c * plane;
      const uint8_t* from = pixels.data() + c;
      if (!alpha) {
        for (int64_t p = 0; p < plane; ++p) to[p] = from[p * stored];
        continue;
      }
      for (int64_t p = 0; p < plane; ++p, from += stored) {
        const uint32_t opaque = from[channels - c], sum = from[0] * opaque + 255 * (255 - opaque);
        to[p] = static_cast<uint8_t>((sum + 127) / 255);
      }
    }
    return out;
  });
}

Status too_many_pixels(std::string_view format, std::string_view where, int64_t width, int64_t height) {
  return invalid("[{}] '{}' is {}x{}, at most {} pixels are allowed; scale it down first", format, where, width, height,
                 kMaxPixels);
}

Result<graph::Tensor> load_png(const std::string& path, int64_t max_side) {
  DS_ASSIGN(const std::vector<std::byte> bytes, read_file(path));
  return parse_png(bytes, path, max_side);
}

Status save_png(const std::string& path, const graph::Tensor& image) {
  const graph::Dims& dims = image.dims();
  const int64_t channels = dims.size() == 3 ? dims[0] : 1;
  if (!image.defined() || image.dtype() != DType::kU8 || (dims.size() != 2 && dims.size() != 3) ||
      (channels != 1 && channels != 3) || image.num_elements() == 0) {
    return invalid("[png] '{}': expected u8 [1,H,W], [3,H,W] or [H,W], got {}", path, to_string(image.type()));
  }
  const int64_t height = dims[dims.size() - 2], width = dims[dims.size() - 1], plane = height * width;
  if (height > kMaxPngSide || width > kMaxPngSide) {
    return invalid("[png] '{}': {}x{} pixels, at most {} a side are allowed", path, width, height, kMaxPngSide);
  }
  std::vector<uint8_t> pixels(static_cast<size_t>(channels * plane));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t p = 0; p < plane; ++p) {
      pixels[static_cast<size_t>(p * channels + c)] = image.as<uint8_t>()[c * plane + p];
    }
  }
  Image out;
  out.width = static_cast<png_uint_32>(width);
  out.height = static_cast<png_uint_32>(height);
  out.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(out);
  std::vector<std::byte> file(size);
  if (png_image_write_to_memory(&out, file.data(), &size, 0, pixels.data(), 0, nullptr) == 0) {
    return make_error(ErrorCode::kIo, "[png] cannot encode '{}': {}", path, out.message);
  }
  return write_file_atomic(path, std::span<const std::byte>(file).first(size));
}

}  // namespace deepseek::io
