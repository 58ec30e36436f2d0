#include "io/png.h"

#include <png.h>

#include <array>
#include <csetjmp>
#include <cstring>
#include <new>
#include <vector>

#include "base/guard.h"
#include "io/atomic_file.h"

namespace deepseek::io {
namespace {

// What libpng reads from and tells of errors, which leave it by longjmp: nothing with a destructor may live between a
// setjmp and a call of libpng. Its png_image does not do: from 1.6.51 on it mixes up the rows of interlaced files of 16
// bits.
struct Reader {
  explicit Reader(std::span<const std::byte> from) : rest(from) {}
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const std::byte> rest;
  std::array<char, 128> message{};
  std::jmp_buf out;
};

[[noreturn]] void fail(png_structp png, png_const_charp message) {
  auto* const reader = static_cast<Reader*>(png_get_error_ptr(png));
  std::strncpy(reader->message.data(), message, reader->message.size() - 1);
  std::longjmp(reader->out, 1);
}
void ignore(png_structp, png_const_charp) {}

void read(png_structp png, png_bytep to, size_t bytes) {
  auto* const reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (reader->rest.size() < bytes) png_error(png, "it ends early");
  std::memcpy(to, reader->rest.data(), bytes);
  reader->rest = reader->rest.subspan(bytes);
}

bool read_header(Reader& r) {
  r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, fail, ignore);
  if (r.png == nullptr) throw std::bad_alloc();
  if (setjmp(r.out) != 0) return false;
  r.info = png_create_info_struct(r.png);
  if (r.info == nullptr) png_error(r.png, "no memory");
  png_set_read_fn(r.png, &r, read);
  png_set_benign_errors(r.png, 1);  // as warnings
  png_read_info(r.png, r.info);
  return true;
}

// From here on samples are of 8 bits in sRGB, grey or RGB, with alpha where the file has transparency.
bool set_transforms(Reader& r) {
  if (setjmp(r.out) != 0) return false;
  png_set_alpha_mode(r.png, PNG_ALPHA_PNG, PNG_DEFAULT_sRGB);
  png_set_expand(r.png);
  png_set_scale_16(r.png);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
  return true;
}

bool read_pixels(Reader& r, png_bytepp rows) {
  if (setjmp(r.out) != 0) return false;
  png_read_image(r.png, rows);
  png_read_end(r.png, nullptr);
  return true;
}

}  // namespace

Result<graph::Tensor> parse_png(std::span<const std::byte> bytes, std::string_view where, int64_t max_side) {
  const auto corrupt = [&](const char* reason) {
    return make_error(ErrorCode::kDataCorrupt,
                      "[png] '{}': {}; the file is damaged or not a PNG; replace it, or leave it out", where, reason);
  };
  if (bytes.empty()) return corrupt("the file is empty");
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<graph::Tensor> {
    Reader reader(bytes);
    if (!read_header(reader)) return corrupt(reader.message.data());
    const int64_t width = png_get_image_width(reader.png, reader.info);
    const int64_t height = png_get_image_height(reader.png, reader.info), plane = height * width;
    if (width > max_side || height > max_side)
      return invalid("[png] '{}' is {}x{} pixels, at most {} a side are allowed; scale it down first", where, width,
                     height, max_side);
    if (plane > kMaxPixels) return too_many_pixels("png", where, width, height);
    if (!set_transforms(reader)) return corrupt(reader.message.data());
    const int64_t stored = png_get_channels(reader.png, reader.info);
    const bool alpha = stored == 2 || stored == 4;
    const int64_t channels = stored - (alpha ? 1 : 0);
    if (png_get_rowbytes(reader.png, reader.info) != static_cast<size_t>(stored * width))
      return make_error(ErrorCode::kInternal, "[png] '{}': rows of {} bytes", where,
                        png_get_rowbytes(reader.png, reader.info));
    std::vector<uint8_t> pixels(static_cast<size_t>(stored * plane));
    std::vector<png_bytep> rows(static_cast<size_t>(height));
    for (int64_t y = 0; y < height; ++y) rows[static_cast<size_t>(y)] = pixels.data() + y * stored * width;
    if (!read_pixels(reader, rows.data())) return corrupt(reader.message.data());
    graph::Tensor out(DType::kU8, {channels, height, width});
    for (int64_t c = 0; c < channels; ++c) {
      uint8_t* const to = out.as<uint8_t>() + c * plane;
      const uint8_t* from = pixels.data() + c;
      if (alpha)
        for (int64_t p = 0; p < plane; ++p, from += stored) to[p] = over_white(from[0], from[channels - c]);
      else
        for (int64_t p = 0; p < plane; ++p) to[p] = from[p * stored];
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
  png_image out{};
  out.version = PNG_IMAGE_VERSION;
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
