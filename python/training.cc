#include "training.h"

#include <algorithm>
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

train::LossFunction python_loss(nb::object loss, std::shared_ptr<const bool> paired) {
  if (loss.is_none()) return {};
  return [held = kept(std::move(loss)), paired](const train::ModelOutputs& outputs, const train::BatchValues& batch) {
    std::vector<train::LossTerm> terms;
    Builder& builder = outputs.values[0].builder();
    in_trace(builder, nullptr, [&](const WrapExpr& wrap) {
      nb::object first, second;
      if (outputs.named) {
        nb::dict named;
        for (size_t i = 0; i < outputs.values.size(); ++i) named[outputs.names[i].c_str()] = wrap(outputs.values[i]);
        first = named;
      } else if (outputs.values.size() == 1) {
        first = wrap(outputs.values[0]);
      } else {
        nb::list all;
        for (const Expr e : outputs.values) all.append(wrap(e));
        first = nb::tuple(all);
      }
      if (const auto target = batch.find("y"); *paired && target != batch.end()) {
        second = wrap(target->second);
      } else {
        nb::dict all;
        for (const auto& [name, value] : batch) all[name.c_str()] = wrap(value);
        second = all;
      }
      const nb::object result = (*held)(first, second);
      const auto is_sequence = [](nb::handle h) { return nb::isinstance<nb::tuple>(h) || nb::isinstance<nb::list>(h); };
      if (nb::isinstance<nb::dict>(result)) {
        for (auto [name, value] : nb::cast<nb::dict>(result)) {
          train::LossTerm term{nb::cast<std::string>(nb::str(name)), {}, 1};
          if (is_sequence(value)) {
            if (nb::len(value) != 2)
              throw nb::value_error(fmt::format("the loss's term '{}' is a sequence of {}, expected a scalar or a pair "
                                                "(scalar, weight)",
                                                term.name, nb::len(value))
                                        .c_str());
            term.value = to_expr(value[nb::int_(0)]);
            term.weight = nb::cast<double>(value[nb::int_(1)]);
          } else {
            term.value = to_expr(value);
          }
          terms.push_back(std::move(term));
        }
      } else if (is_sequence(result)) {
        if (nb::len(result) != 1)
          throw nb::value_error(fmt::format("the loss function returned {} values, expected one scalar, or a dict of "
                                            "terms by name, each a scalar or a pair (scalar, weight)",
                                            nb::len(result))
                                    .c_str());
        terms.push_back({"", to_expr(result[nb::int_(0)]), 1});
      } else {
        terms.push_back({"", to_expr(result), 1});
      }
    });
    return terms;
  };
}

bool is_input(const std::vector<nn::InputName>& names, const std::string& name) {
  if (names.empty())  // x, or x0, x1, ...
    return name.starts_with('x') && name.find_first_not_of("0123456789", 1) == std::string::npos;
  return std::any_of(names.begin(), names.end(), [&](const nn::InputName& n) { return n.name == name; });
}

// What was given in the place of an array of numbers, and what makes one of it.
std::string told(nb::handle value) {
  const std::string type = nb::cast<std::string>(value.type().attr("__name__"));
  if (!nb::hasattr(value, "dtype")) return fmt::format("got {}; make one of it: np.asarray(values, np.float32)", type);
  const std::string dtype = nb::cast<std::string>(nb::str(nb::object(value.attr("dtype"))));
  return fmt::format(
      "got {} of {}; number the classes of labels of text: classes, y = np.unique(y, return_inverse=True)", type,
      dtype);
}

GivenBatch to_batch(const nn::Module& model, nb::handle x, nb::handle y) {
  GivenBatch batch;
  const auto add = [&](const std::string& name, nb::handle value, data::Role role) {
    Array array;
    if (!array.read(value)) {
      PyErr_Clear();
      throw nb::type_error(fmt::format("'{}': expected an array of numbers, {}", name, told(value)).c_str());
    }
    const Tensor& tensor = batch.tensors[name] = to_tensor(array);
    batch.type.push_back({name, tensor.type(), role});
  };
  if (nb::isinstance<nb::dict>(x)) {
    if (!y.is_none()) throw nb::type_error("expected a dict with inputs and targets alone, got a second argument");
    batch.named = true;
    const std::vector<nn::InputName> names = model.input_names();
    for (auto [key, value] : nb::cast<nb::dict>(x)) {
      if (!nb::isinstance<nb::str>(key))
        throw nb::type_error(
            fmt::format("the batch has the key {}, expected names", nb::cast<std::string>(nb::repr(key))).c_str());
      const std::string name = nb::cast<std::string>(key);
      if (name.empty() || name.find('/') != std::string::npos)
        throw nb::value_error(
            fmt::format("the batch has the name '{}'; names are not empty and hold no '/'", name).c_str());
      add(name, value, is_input(names, name) ? data::Role::kInput : data::Role::kTarget);
    }
    return batch;
  }
  if (nb::isinstance<nb::tuple>(x)) {
    const std::vector<nn::InputName> names = model.input_names();
    size_t i = 0;
    for (nb::handle value : x) {
      add(i < names.size() ? names[i].name : "x" + std::to_string(i), value, data::Role::kInput);
      ++i;
    }
  } else {
    add("x", x, data::Role::kInput);
  }
  if (y.is_none()) throw nb::type_error("expected x and y, or a dict of arrays by name, got x alone");
  add("y", y, data::Role::kTarget);
  return batch;
}

nb::object to_python(const data::Batch& outputs) {
  if (outputs.size() == 1 && outputs.begin()->first == "output") return to_numpy(outputs.begin()->second);
  nb::dict out;
  for (const auto& [name, value] : outputs) out[name.c_str()] = to_numpy(value);
  return out;
}

}  // namespace deepseek::python
