#include "predict/print.h"

#include "base/console.h"

namespace deepseek::predict {
namespace {

std::string cell(const data::TableColumn& column, size_t row) {
  return std::visit([&](const auto& values) { return fmt::format("{}", values.at(row)); }, column.values);
}

}  // namespace

std::string part_text(const data::TablePart& part) {
  std::string text;
  const size_t rows = std::visit([](const auto& v) { return v.size(); }, part.at(0).values);
  for (size_t row = 0; row < rows; ++row) {
    std::string line, label;
    for (const data::TableColumn& c : part) {
      const size_t end = c.name.rfind("prediction"), chance = c.name.rfind("probability");
      if (end == std::string::npos && chance == std::string::npos) {
        label += (label.empty() ? "" : " ") + cell(c, row);
      } else if (chance != std::string::npos) {
        if (c.name.ends_with("probability"))
          line += fmt::format(" ({:.1f} %)", 100 * std::get<std::vector<double>>(c.values).at(row));
      } else {
        std::string name = c.name.substr(0, end);
        if (!name.empty()) name.back() = ' ';
        line += (line.empty() ? "" : c.name.ends_with("prediction") ? ", " : " ") + name + cell(c, row);
      }
    }
    text += label + ": " + line + "\n";
  }
  return text;
}

Status print_part(const data::TablePart& part) {
  console_out(part_text(part));
  return {};
}

}  // namespace deepseek::predict
