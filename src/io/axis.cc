#include "io/axis.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace deepseek::io {

std::string short_number(double value, int digits) {
  std::string text = fmt::format("{:.{}g}", value, digits);
  if (std::abs(value) < 1e-3 && text.find('e') == std::string::npos && text.size() > 5) {
    text = fmt::format("{:.{}e}", value, std::max(digits - 1, 0));
    const size_t end = text.find('e');
    if (text.find('.') < end)
      text.erase(text.find_last_not_of("0.", end - 1) + 1, end - text.find_last_not_of("0.", end - 1) - 1);
  }
  // 1e-05 is 1e-5, 1e+06 is 1e6.
  const size_t e = text.find('e');
  if (e == std::string::npos) return text;
  size_t end = e + 1;
  if (text[end] == '-') ++end;
  size_t digit = end;
  while (digit + 1 < text.size() && (text[digit] == '+' || text[digit] == '0')) ++digit;
  text.erase(end, digit - end);
  return text;
}

Axis::Axis(double low, double high, int count, bool widen, bool log) : low_(low), high_(high), log_(log) {
  if (!(high_ > low_)) {
    if (log_) {
      low_ /= 2, high_ *= 2;
    } else {
      const double around = low_ == 0 ? 1 : std::abs(low_) * 0.1;
      low_ -= around, high_ += around;
    }
  }
  if (log_) {
    add_log_ticks(count, widen);
  } else {
    add_even_ticks(count, widen);
  }
}

void Axis::add_even_ticks(int count, bool widen) {
  const double raw = high_ / count - low_ / count, power = std::pow(10, std::floor(std::log10(raw))),
               part = raw / power;
  const double step = (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10) * power;
  if (widen) {
    low_ = std::floor(low_ / step + 1e-9) * step;
    high_ = std::ceil(high_ / step - 1e-9) * step;
  }
  const double largest = std::max(std::abs(low_), std::abs(high_));
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  // As many digits as tell neighbours apart.
  const int digits = std::clamp(static_cast<int>(std::ceil(std::log10(largest / step) + 1e-9)) + 1, 1, 17);
  const double first = std::ceil(low_ / step - 1e-9);
  for (int k = 0; k < 100 && (first + k) * step <= high_ + step * 1e-9; ++k) {
    const double v = (first + k) * step;
    ticks_.push_back({v, std::abs(v) < step * 1e-6        ? "0"
                         : largest >= 1e7 || decimals > 5 ? short_number(v, digits)
                                                          : fmt::format("{:.{}f}", v, decimals)});
    if (first + k + 1 == first + k) break;  // steps below the range's precision
  }
}

void Axis::add_log_ticks(int count, bool widen) {
  const double decades = std::log10(high_ / low_);
  const auto add = [&](double v) {
    if (v >= low_ * (1 - 1e-9) && v <= high_ * (1 + 1e-9)) ticks_.push_back({v, short_number(v)});
  };
  if (widen && decades > 2) {
    low_ = std::pow(10, std::floor(std::log10(low_) + 1e-9));
    high_ = std::pow(10, std::ceil(std::log10(high_) - 1e-9));
  }
  const int from = static_cast<int>(std::floor(std::log10(low_) + 1e-9)),
            to = static_cast<int>(std::floor(std::log10(high_) + 1e-9));
  const double whole = to - from + 1;
  if (decades >= 0.7) {
    const int stride = std::max(1, static_cast<int>(std::ceil(whole / count)));
    const bool more = stride == 1 && 3 * decades <= count + 1, few = stride == 1 && 2 * decades <= count + 1;
    for (int e = from; e <= to; e += stride) {
      const double power = std::pow(10, e);
      add(power);
      if (more) add(2 * power);
      if (more) add(5 * power);
      if (few && !more) add(3 * power);
    }
  }
  if (ticks_.size() >= 2) return;
  ticks_ = Axis(low_, high_, count, false).ticks();
}

double Axis::at(double value) const {
  if (log_) return value > 0 ? std::log(value / low_) / std::log(high_ / low_) : -1e6;
  // By halves: the difference of huge values of both signs is no double.
  return (value / 2 - low_ / 2) / (high_ / 2 - low_ / 2);
}

}  // namespace deepseek::io
