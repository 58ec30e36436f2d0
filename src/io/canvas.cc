#include "io/canvas.h"

#include <cairo.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/html.h"
#include "base/strings.h"
#include "io/atomic_file.h"

namespace deepseek::io {
namespace {

constexpr double kPixelsPerPoint = 2.0;
constexpr const char* kFont = "sans-serif";

// Cairo stops at what isn't UTF-8.
std::string valid(std::string_view text) {
  std::string out;
  for (size_t good = 0; !text.empty();) {
    good = first_invalid_utf8(text);
    out += text.substr(0, good);
    text.remove_prefix(good);
    if (text.empty()) break;
    out += "\xef\xbf\xbd";
    text.remove_prefix(1);
  }
  std::replace(out.begin(), out.end(), '\0', ' ');
  return out;
}

void set_font(cairo_t* cr, double size, bool bold) {
  cairo_select_font_face(cr, kFont, CAIRO_FONT_SLANT_NORMAL, bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(cr, size);
}

class SvgCanvas : public Canvas {
 public:
  SvgCanvas(double width, double height) {
    out_ = fmt::format(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {:.6g} {:.6g}' width='{:.6g}' height='{:.6g}' "
        "font-family='sans-serif'><path fill='#fff' d='M0 0H{:.6g}V{:.6g}H0z'/>",
        width, height, width, height, width, height);
  }
  std::string finish() && { return std::move(out_) + "</svg>"; }

  void text(double x, double y, const std::string& text, double align, double angle) override {
    out_ += "<text";
    if (angle == 0) {
      attribute("x", x), attribute("y", y);
    } else {
      out_ += " transform='translate(";
      number(x), out_ += ' ', number(y), out_ += ") rotate(", number(angle * 180 / M_PI), out_ += ")'";
    }
    if (align > 0) out_ += align < 1 ? " text-anchor='middle'" : " text-anchor='end'";
    attribute("font-size", size_);
    if (bold_) out_ += " font-weight='bold'";
    paint("fill");
    out_ += '>' + html_escaped(text) + "</text>";
  }
  void polyline(std::span<const Spot> spots, double thickness) override {
    if (spots.size() < 2) return;
    out_ += "<path fill='none' stroke-linejoin='round' stroke-linecap='round'";
    paint("stroke");
    attribute("stroke-width", thickness);
    if (on_ > 0) {
      out_ += " stroke-dasharray='";
      number(on_), out_ += ' ', number(off_), out_ += '\'';
    }
    out_ += " d='";
    path(spots);
    out_ += '\'';
    end("path");
  }
  void polygons(std::span<const std::vector<Spot>> list) override {
    if (list.empty()) return;
    out_ += "<path";
    paint("fill");
    out_ += " d='";
    for (const std::vector<Spot>& spots : list) {
      if (spots.size() < 3) continue;
      path(spots);
      out_ += 'z';
    }
    out_ += '\'';
    end("path");
  }
  void box(double x, double y, double w, double h) override {
    out_ += "<rect";
    attribute("x", x), attribute("y", y), attribute("width", w), attribute("height", h);
    paint("fill"), end("rect");
  }
  void disc(double x, double y, double radius) override {
    out_ += "<circle";
    attribute("cx", x), attribute("cy", y), attribute("r", radius);
    paint("fill"), end("circle");
  }

 private:
  // One decimal, without what isn't needed.
  void number(double v) {
    char buffer[32];
    if (!std::isfinite(v)) v = 0;
    v = std::round(std::clamp(v, -1e6, 1e6) * 10);
    // + 0 makes a zero of a minus zero.
    const auto [end, error] = std::to_chars(buffer, std::end(buffer), v / 10 + 0.0, std::chars_format::fixed);
    out_.append(buffer, end);
  }
  void attribute(const char* name, double v) { out_ += ' ', out_ += name, out_ += "='", number(v), out_ += '\''; }
  void paint(const char* what) {
    const auto byte = [](double v) { return static_cast<int>(std::lround(std::clamp(v, 0.0, 1.0) * 255)); };
    out_ += fmt::format(" {}='#{:02x}{:02x}{:02x}'", what, byte(colour_.r), byte(colour_.g), byte(colour_.b));
    if (opacity_ < 1) out_ += fmt::format(" opacity='{:.3g}'", opacity_);
  }
  // From spot to spot by differences, which are short.
  void path(std::span<const Spot> spots) {
    double x = 0, y = 0;
    for (size_t i = 0; i < spots.size(); ++i) {
      const double to_x = std::round(spots[i].x * 10) / 10, to_y = std::round(spots[i].y * 10) / 10;
      out_ += i == 0 ? "M" : i == 1 ? "l" : " ";
      number(to_x - x), out_ += ' ', number(to_y - y);
      x = to_x, y = to_y;
    }
  }
  void end(const char* element) {
    if (tag_ >= 0) out_ += fmt::format(" data-t='{}'", tag_);
    if (hint_.empty()) {
      out_ += "/>";
    } else {
      out_ += "><title>" + html_escaped(hint_) + "</title></" + element + '>';
    }
  }

  std::string out_;
};

class CairoCanvas : public Canvas {
 public:
  explicit CairoCanvas(cairo_t* cr) : cr_(cr) {
    cairo_set_source_rgb(cr_, 1, 1, 1);
    cairo_paint(cr_);
    cairo_set_line_join(cr_, CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(cr_, CAIRO_LINE_CAP_ROUND);
  }
  void text(double x, double y, const std::string& text, double align, double angle) override {
    source();
    set_font(cr_, size_, bold_);
    cairo_save(cr_);
    cairo_translate(cr_, x, y);
    cairo_rotate(cr_, angle);
    cairo_move_to(cr_, align == 0 ? 0 : -align * width(text), 0);
    cairo_show_text(cr_, valid(text).c_str());
    cairo_restore(cr_);
  }
  void polyline(std::span<const Spot> spots, double thickness) override {
    if (spots.size() < 2) return;
    source();
    cairo_set_line_width(cr_, thickness);
    const double pattern[] = {on_, off_};
    cairo_set_dash(cr_, pattern, on_ > 0 ? 2 : 0, 0);
    cairo_new_path(cr_);
    path(spots);
    cairo_stroke(cr_);
  }
  void polygons(std::span<const std::vector<Spot>> list) override {
    source();
    cairo_new_path(cr_);
    for (const std::vector<Spot>& spots : list) {
      if (spots.size() < 3) continue;
      path(spots);
      cairo_close_path(cr_);
    }
    cairo_fill(cr_);
  }
  void box(double x, double y, double w, double h) override {
    source();
    cairo_rectangle(cr_, x, y, w, h);
    cairo_fill(cr_);
  }
  void disc(double x, double y, double radius) override {
    source();
    cairo_new_sub_path(cr_);
    cairo_arc(cr_, x, y, radius, 0, 2 * M_PI);
    cairo_fill(cr_);
  }

 private:
  void source() { cairo_set_source_rgba(cr_, colour_.r, colour_.g, colour_.b, opacity_); }
  void path(std::span<const Spot> spots) {
    cairo_new_sub_path(cr_);
    for (const Spot& s : spots) cairo_line_to(cr_, s.x, s.y);
  }

  cairo_t* cr_;
};

// To measure texts by; each thread has its own.
class Ruler {
 public:
  Ruler() : surface_(cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1)), cr_(cairo_create(surface_)) {}
  ~Ruler() {
    cairo_destroy(cr_);
    cairo_surface_destroy(surface_);
  }
  double width(const std::string& text, double size, bool bold) {
    set_font(cr_, size, bold);
    cairo_text_extents_t e;
    cairo_text_extents(cr_, text.c_str(), &e);
    return e.x_advance;
  }

 private:
  cairo_surface_t* surface_;
  cairo_t* cr_;
};

cairo_status_t append(void* closure, const unsigned char* data, unsigned length) {
  static_cast<std::string*>(closure)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

}  // namespace

double Canvas::width(std::string_view text) const {
  thread_local Ruler ruler;
  return ruler.width(valid(text), size_, bold_);
}

void Canvas::line(double x0, double y0, double x1, double y1, double thickness) {
  const Spot spots[] = {{x0, y0}, {x1, y1}};
  polyline(spots, thickness);
}

void Canvas::ring(double x, double y, double radius, double thickness) {
  constexpr int kSides = 24;
  std::vector<Spot> spots;
  for (int k = 0; k <= kSides; ++k)
    spots.push_back({x + radius * std::cos(2 * M_PI * k / kSides), y + radius * std::sin(2 * M_PI * k / kSides)});
  polyline(spots, thickness);
}

std::string draw_svg(double width, double height, const Paint& paint) {
  SvgCanvas canvas(width, height);
  paint(canvas);
  return std::move(canvas).finish();
}

Result<std::string> draw_png(double width, double height, const Paint& paint) {
  std::string bytes;
  cairo_surface_t* surface =
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(std::lround(width * kPixelsPerPoint)),
                                 static_cast<int>(std::lround(height * kPixelsPerPoint)));
  cairo_t* cr = cairo_create(surface);
  cairo_scale(cr, kPixelsPerPoint, kPixelsPerPoint);
  CairoCanvas canvas(cr);
  paint(canvas);
  cairo_status_t state = cairo_status(cr);
  cairo_destroy(cr);
  if (state == CAIRO_STATUS_SUCCESS) state = cairo_surface_write_to_png_stream(surface, append, &bytes);
  cairo_surface_finish(surface);
  if (state == CAIRO_STATUS_SUCCESS) state = cairo_surface_status(surface);
  cairo_surface_destroy(surface);
  if (state != CAIRO_STATUS_SUCCESS)
    return make_error(ErrorCode::kIo, "[plot] cannot draw: {}", cairo_status_to_string(state));
  return bytes;
}

Status draw_file(const std::string& path, double width, double height, const Paint& paint) {
  std::string bytes;
  if (path.ends_with(".svg")) {
    bytes = draw_svg(width, height, paint) + "\n";
  } else if (path.ends_with(".png")) {
    Result<std::string> drawn = draw_png(width, height, paint);
    if (!drawn.ok()) return std::move(drawn).status().note("while drawing '" + path + "'");
    bytes = std::move(drawn).value();
  } else {
    return invalid("[plot] '{}': the name must end in .png or .svg", path);
  }
  return write_file_atomic(path, std::as_bytes(std::span(bytes)));
}

}  // namespace deepseek::io
