#include "base/html.h"

#include "base/strings.h"

namespace deepseek {

std::string html_escaped(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = first_invalid_utf8(text);
    for (const char c : text.substr(0, valid)) {
      switch (c) {
        case '&': out += "&amp;"; break;
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '"': out += "&quot;"; break;
        case '\'': out += "&#39;"; break;
        case '\t':
        case '\n':
        case '\r': out += c; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            out += "\xef\xbf\xbd";
          } else {
            out += c;
          }
      }
    }
    text.remove_prefix(valid);
    if (text.empty()) break;
    out += "\xef\xbf\xbd";
    text.remove_prefix(1);
  }
  return out;
}

std::string page_head(std::string_view title, std::string_view style) {
  static constexpr std::string_view kStyle =
      "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 "
      "1em;color:#222;background:#fff}"
      "h1{font-size:1.5em;overflow-wrap:anywhere}h2{margin-top:1.6em}h3{margin:0;font-size:1.05em;overflow-wrap:"
      "anywhere}"
      ".facts{border-collapse:collapse;font-size:.9em}.facts "
      "th{text-align:left;font-weight:normal;color:#666;padding-right:1em}"
      ".facts td{font-variant-numeric:tabular-nums}.warnings li{color:#8a3b00}"
      "section{border:1px solid #ddd;border-radius:6px;padding:.8em}"
      "@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}section{border-color:#333}.facts "
      "th{color:#999}.warnings li{color:#f0a060}}";
  const std::string name = html_escaped(title);
  std::string html = "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>" + name + "</title><style>";
  html += kStyle;
  html += style;
  return html + "</style></head><body><h1>" + name + "</h1>";
}

}  // namespace deepseek
