// Charts for reports, drawn on a canvas (canvas.h): training curves and confusion matrices. The name's ending picks the
// format, .png (2 pixels per point) or .svg. Invariant: files appear whole or not at all. Test: tests/io/plot_test.cc
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace deepseek::io {

struct Series {
  std::string name;
  std::vector<double> xs, ys;  // equal length; a NaN or infinity leaves a gap
};

// Lines over a common x axis, with a legend where there are two series or more. Errors: kInvalidArgument (no finite
// point, lengths that differ, another ending), kIo.
Status line_chart(const std::string& path, const std::string& title, const std::string& x_label,
                  const std::string& y_label, const std::vector<Series>& series);

// counts[true * C + predicted], C = class_names.size() in 1 to 100. Cells are shaded by the share of their row; the
// caption tells the accuracy. Errors: kInvalidArgument (counts of another size or negative), kIo.
Status confusion_matrix_chart(const std::string& path, const std::string& title,
                              const std::vector<std::string>& class_names, std::span<const int64_t> counts);

}  // namespace deepseek::io
