#include "training.h"

#include <vector>

#include "base/strings.h"

namespace deepseek::python {

using namespace graph;

train::TrainerOptions read_options(const Settings& settings) {
  train::TrainerOptions options;
  options.train.output = "";  // Python writes files only where it is told to
  OptionTable table = train::option_table(options);
  std::vector<std::string> problems;
  for (const auto& [path, value] : settings)
    if (Status s = table.set(path + "=" + value, "Trainer"); !s.ok()) problems.push_back(s.message());
  if (!problems.empty()) throw nb::value_error(join(problems, "\n").c_str());
  return options;
}

train::LossFunction python_loss(nb::object loss) {
  if (loss.is_none()) return {};
  return [held = kept(std::move(loss))](Expr prediction, Expr target) {
    const std::vector<Expr> out = call_traced(*held, prediction.builder(), nullptr, {prediction, target});
    if (out.size() == 1) return out[0];
    prediction.builder().fail(invalid("the loss function returned {} values, expected one scalar", out.size()));
    return prediction;
  };
}

}  // namespace deepseek::python
