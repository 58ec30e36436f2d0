#include "io/jpeg.h"

#include <turbojpeg.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/guard.h"
#include "io/png.h"

namespace deepseek::io {
namespace {

// Ink and black are stored inverted, as Adobe does, 255 being none: what light each leaves, one after the other.
uint8_t unprinted(uint32_t ink, uint32_t black) { return static_cast<uint8_t>((ink * black + 127) / 255); }

}  // namespace

Result<graph::Tensor> parse_jpeg(std::span<const std::byte> bytes, std::string_view where, int64_t least,
                                 int64_t max_side) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  if (!decoder) return make_error(ErrorCode::kIo, "[jpeg] no memory for a decoder");
  const auto corrupt = [&] {
    return make_error(ErrorCode::kDataCorrupt,
                      "[jpeg] '{}': {}; the file is damaged or not a JPEG; replace it, or leave it out", where,
                      tjGetErrorStr2(decoder.get()));
  };
  if (bytes.empty())
    return make_error(ErrorCode::kDataCorrupt,
                      "[jpeg] '{}': the file is empty; the file is damaged or not a JPEG; replace it, or leave it out",
                      where);
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  int width = 0, height = 0, sampling = 0, colours = 0;
  if (tjDecompressHeader3(decoder.get(), data, bytes.size(), &width, &height, &sampling, &colours) != 0)
    return corrupt();
  if (width > max_side || height > max_side)
    return invalid("[jpeg] '{}' is {}x{} pixels, at most {} a side are allowed; scale it down first", where, width,
                   height, max_side);
  if (static_cast<int64_t>(width) * height > kMaxPixels) return too_many_pixels("jpeg", where, width, height);
  const bool print = colours == TJCS_CMYK || colours == TJCS_YCCK;
  const int smaller = std::min(width, height);
  for (const int divisor : {8, 4, 2})
    if (least > 0 && smaller / divisor >= least) {
      width = TJSCALED(width, (tjscalingfactor{1, divisor}));
      height = TJSCALED(height, (tjscalingfactor{1, divisor}));
      break;
    }
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<graph::Tensor> {
    const int channels = colours == TJCS_GRAY ? 1 : 3, stored = print ? 4 : channels;
    std::vector<unsigned char> pixels(static_cast<size_t>(stored) * static_cast<size_t>(width) *
                                      static_cast<size_t>(height));
    // A warning, of a file that ends early for instance, is an error: the rest of the picture would be grey.
    if (tjDecompress2(decoder.get(), data, bytes.size(), pixels.data(), width, 0, height,
                      print           ? TJPF_CMYK
                      : channels == 1 ? TJPF_GRAY
                                      : TJPF_RGB,
                      TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS) != 0)
      return corrupt();
    graph::Tensor out(DType::kU8, {channels, height, width});
    const int64_t plane = static_cast<int64_t>(width) * height;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t p = 0; p < plane; ++p) {
        const unsigned char* const from = pixels.data() + p * stored;
        out.as<uint8_t>()[c * plane + p] = print ? unprinted(from[c], from[3]) : from[c];
      }
    return out;
  });
}

}  // namespace deepseek::io
