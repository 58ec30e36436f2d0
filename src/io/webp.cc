#include "io/webp.h"

#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>
#include <vector>

#include "base/guard.h"
#include "io/png.h"

namespace deepseek::io {
namespace {

// RGBA of the first frame as it lies on the canvas.
bool first_frame(std::span<const std::byte> bytes, std::vector<uint8_t>& pixels) {
  WebPAnimDecoderOptions options;
  if (!WebPAnimDecoderOptionsInit(&options)) return false;
  options.color_mode = MODE_RGBA;
  const WebPData data{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  const std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(WebPAnimDecoderNew(&data, &options),
                                                                             WebPAnimDecoderDelete);
  uint8_t* frame = nullptr;
  int time = 0;
  WebPAnimInfo info;
  if (!decoder || !WebPAnimDecoderGetInfo(decoder.get(), &info) ||
      uint64_t{info.canvas_width} * info.canvas_height * 4 != pixels.size() ||
      !WebPAnimDecoderGetNext(decoder.get(), &frame, &time))
    return false;
  pixels.assign(frame, frame + pixels.size());
  return true;
}

}  // namespace

Result<graph::Tensor> parse_webp(std::span<const std::byte> bytes, std::string_view where, int64_t max_side) {
  const auto corrupt = [&] {
    return make_error(ErrorCode::kDataCorrupt,
                      "[webp] '{}': the file is damaged or not a WebP; replace it, or leave it out", where);
  };
  const auto* const data = reinterpret_cast<const uint8_t*>(bytes.data());
  WebPBitstreamFeatures features;
  if (bytes.empty() || WebPGetFeatures(data, bytes.size(), &features) != VP8_STATUS_OK) return corrupt();
  if (features.width < 1 || features.height < 1) return corrupt();
  if (features.width > max_side || features.height > max_side)
    return invalid("[webp] '{}' is {}x{} pixels, at most {} a side are allowed; scale it down first", where,
                   features.width, features.height, max_side);
  if (static_cast<int64_t>(features.width) * features.height > kMaxPixels)
    return too_many_pixels("webp", where, features.width, features.height);
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<graph::Tensor> {
    const bool alpha = features.has_alpha != 0 || features.has_animation != 0;
    const int64_t plane = static_cast<int64_t>(features.width) * features.height, stored = alpha ? 4 : 3;
    std::vector<uint8_t> pixels(static_cast<size_t>(plane * stored));
    const int stride = features.width * static_cast<int>(stored);
    const bool read = features.has_animation != 0 ? first_frame(bytes, pixels)
                      : alpha ? WebPDecodeRGBAInto(data, bytes.size(), pixels.data(), pixels.size(), stride) != nullptr
                              : WebPDecodeRGBInto(data, bytes.size(), pixels.data(), pixels.size(), stride) != nullptr;
    if (!read) return corrupt();
    graph::Tensor out(DType::kU8, {3, features.height, features.width});
    for (int64_t c = 0; c < 3; ++c)
      for (int64_t p = 0; p < plane; ++p) {
        const uint8_t* const from = pixels.data() + p * stored;
        out.as<uint8_t>()[c * plane + p] = alpha ? over_white(from[c], from[3]) : from[c];
      }
    return out;
  });
}

}  // namespace deepseek::io
