// Charts of a study, each described once and drawn as SVG on a page or as PNG in a file. Marks of trials carry their
// numbers (Canvas::tag). Test: tests/tune/report_test.cc
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/canvas.h"
#include "tune/report/view.h"

namespace deepseek::tune {

struct Chart {
  std::string id;       // the file's name without its ending
  std::string caption;  // how to read it; plain text
  double width, height;
  io::Paint paint;  // the view must outlive it
};

// Those that the study has something for, in the order of a page: history (of each objective), curves, pareto,
// hypervolume, importances, slices, parallel, contour.
std::vector<Chart> charts(const View& view);

// charts() as <folder>/<id>.png; the folder is made where it doesn't exist. Gives the files' paths. Errors: kIo.
Result<std::vector<std::string>> write_charts(const std::string& folder, const Setting& setting,
                                              const std::vector<Trial>& trials);

// By themselves; without paint where there is nothing to show.
Chart history_chart(const View& view, size_t objective);
Chart curves_chart(const View& view);
Chart pareto_chart(const View& view);
Chart hypervolume_chart(const View& view);
Chart importances_chart(const View& view);
Chart slices_chart(const View& view);
Chart parallel_chart(const View& view);
Chart contour_chart(const View& view);

}  // namespace deepseek::tune
