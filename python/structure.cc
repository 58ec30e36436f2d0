// What a module is beside its tensors, as Python sees it: settings as attributes, changes that traces must not miss,
// and what pickling needs.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <utility>

#include "base/hash.h"
#include "base/strings.h"
#include "nn/initializer.h"
#include "trace.h"

namespace deepseek::python {

using graph::Dims;

namespace {

nb::object setting_to_python(const nn::Setting& setting) {
  return std::visit(
      [](auto* value) -> nb::object {
        if constexpr (std::is_same_v<decltype(value), Dims*>)
          return nb::tuple(nb::cast(*value));
        else
          return nb::cast(*value);
      },
      setting.value);
}

// Raises TypeError where the value is of another kind.
void set(const nn::Setting& setting, nb::handle value) {
  std::visit(
      [&](auto* to) {
        using T = std::remove_pointer_t<decltype(to)>;
        if constexpr (std::is_same_v<T, Dims>) {
          int64_t all = 0;
          if (nb::try_cast<int64_t>(value, all)) {
            *to = {all};
            return;
          }
        }
        T given{};
        if (!nb::try_cast<T>(value, given)) {
          const std::string text = nb::cast<std::string>(nb::repr(value));
          throw nb::type_error(fmt::format("{}: {} is of the wrong type", setting.name, text).c_str());
        }
        *to = std::move(given);
      },
      setting.value);
}

// True where the module has such a setting; `all`: also those that may not change after it was made.
bool set_setting(nn::Module& module, const std::string& name, nb::handle value, bool all) {
  for (const nn::Setting& setting : module.settings()) {
    if (setting.name != name || (setting.kind == nn::Setting::kHidden && !all)) continue;
    if (setting.kind == nn::Setting::kFixed && !all)
      throw nb::attribute_error(
          fmt::format("'{}' decides the shapes of the layer's tensors; make another layer instead", name).c_str());
    set(setting, value);
    // What lies after an axis follows what lies before it, unless a constructor tells them apart.
    if (name == "padding" && !all)
      for (const nn::Setting& other : module.settings())
        if (std::string_view(other.name) == "padding_high") *std::get<Dims*>(other.value) = {};
    module.changed();
    return true;
  }
  return false;
}

bool is_module(PyObject* o) { return nb::isinstance<nn::Module>(nb::handle(o)); }

// Whether nobody can change the object.
bool is_constant(PyObject* o) {
  if (o == Py_None || PyBool_Check(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) ||
      PyBytes_CheckExact(o) || PyType_Check(o) || PyCFunction_Check(o) || is_module(o))
    return true;
  if (PyFunction_Check(o)) return PyFunction_GetClosure(o) == nullptr && PyFunction_GetDefaults(o) == nullptr;
  if (!PyTuple_CheckExact(o)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i)
    if (!is_constant(PyTuple_GET_ITEM(o, i))) return false;
  return true;
}

// What the module keeps for its own calls (deepseek.nn.module).
bool is_calls(PyObject* key) { return PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, "_calls") == 0; }

thread_local bool in_pass = false;
thread_local std::unordered_map<PyObject*, uint64_t> looked_into;  // during a pass

// A number that tells what a Python object holds: numbers and strings by value, arrays by their bytes, lists, dicts and
// objects with attributes by what is in them, anything else by identity.
class Contents {
 public:
  void add(PyObject* o) {
    hash_.word(reinterpret_cast<uintptr_t>(Py_TYPE(o)));
    if (o == Py_None) return;
    if (PyLong_CheckExact(o) || PyBool_Check(o)) {
      int overflow = 0;
      const long long value = PyLong_AsLongLongAndOverflow(o, &overflow);
      hash_.word(overflow == 0 ? static_cast<uint64_t>(value) : static_cast<uint64_t>(PyObject_Hash(o)));
    } else if (PyFloat_CheckExact(o)) {
      hash_.word(std::bit_cast<uint64_t>(PyFloat_AS_DOUBLE(o)));
    } else if (PyUnicode_CheckExact(o) || PyBytes_CheckExact(o)) {
      hash_.word(static_cast<uint64_t>(PyObject_Hash(o)));
    } else if (is_constant(o) && !PyTuple_CheckExact(o) && !is_module(o)) {
      hash_.word(reinterpret_cast<uintptr_t>(o));
    } else if (std::find(seen_.begin(), seen_.end(), o) != seen_.end()) {
      hash_.word(reinterpret_cast<uintptr_t>(o));
    } else {
      seen_.push_back(o);
      add_contents(o);
    }
  }
  // Of a module those that are no modules themselves: its parts count anyway.
  void attributes(PyObject* dict, bool of_module = false) {
    PyObject *key = nullptr, *value = nullptr;
    for (Py_ssize_t at = 0; PyDict_Next(dict, &at, &key, &value);) {
      if (of_module && (is_module(value) || is_calls(key))) continue;
      const nb::object held_key = nb::borrow(key), held_value = nb::borrow(value);
      add(key);
      add(value);
    }
  }
  uint64_t value() const { return hash_.value().low; }

 private:
  static constexpr int kObjects = 200;  // with attributes; a logger, say, leads to all others. Later ones by identity

  void add_contents(PyObject* o) {
    const nb::object held = nb::borrow(o);
    if (is_module(o)) {
      nn::Structure structure;
      structure.update(nb::cast<nn::Module&>(held));
      hash_.bytes(structure.key().data(), structure.key().size());
    } else if (PyFunction_Check(o)) {
      hash_.word(reinterpret_cast<uintptr_t>(o));
      if (PyObject* defaults = PyFunction_GetDefaults(o)) add(defaults);
      PyObject* closure = PyFunction_GetClosure(o);
      for (Py_ssize_t i = 0; closure != nullptr && i < PyTuple_GET_SIZE(closure); ++i) {
        const nb::object value = nb::steal(PyCell_Get(PyTuple_GET_ITEM(closure, i)));
        if (value.is_valid()) add(value.ptr());
      }
    } else if (PyMethod_Check(o)) {
      add(PyMethod_GET_FUNCTION(o));
      add(PyMethod_GET_SELF(o));
    } else if (PyDict_Check(o)) {
      attributes(o);
    } else if (PyList_Check(o) || PyTuple_Check(o)) {
      const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
      hash_.word(static_cast<uint64_t>(n));
      for (Py_ssize_t i = 0; i < std::min(n, PySequence_Fast_GET_SIZE(o)); ++i) add(PySequence_Fast_GET_ITEM(o, i));
    } else if (PyAnySet_Check(o)) {
      uint64_t sum = 0;  // of any order
      for (nb::handle item : nb::borrow<nb::iterable>(held)) {
        Contents one;
        one.add(item.ptr());
        sum += one.value();
      }
      hash_.word(sum);
    } else if (Array array; (PyObject_CheckBuffer(o) || nb::hasattr(held, "__dlpack__")) && array.read(o) &&
                            array.tensor().defined()) {
      const graph::Tensor& t = array.tensor();
      hash_.word(static_cast<uint64_t>(t.dtype()));
      for (int64_t d : t.dims()) hash_.word(static_cast<uint64_t>(d));
      hash_.bytes(t.data(), t.num_bytes());
    } else {
      PyErr_Clear();
      add_object(held);
    }
  }

  void add_object(const nb::object& o) {
    const auto identity = reinterpret_cast<uintptr_t>(o.ptr());
    if (in_pass) {
      if (const auto known = looked_into.find(o.ptr()); known != looked_into.end()) return hash_.word(known->second);
      looked_into.emplace(o.ptr(), identity);  // it may lead to itself
    }
    const nb::object dict = nb::getattr(o, "__dict__", nb::none());
    if (!PyDict_Check(dict.ptr()) || ++objects_ > kObjects) return hash_.word(identity);
    if (!in_pass) return attributes(dict.ptr());
    Contents own;
    own.objects_ = objects_;
    own.attributes(dict.ptr());
    objects_ = own.objects_;
    hash_.word(looked_into[o.ptr()] = own.value());
  }

  Hasher hash_;
  std::vector<PyObject*> seen_;
  int objects_ = 0;
};

uint64_t contents_of(const nn::Module& module) {
  // A module may lead to itself by what lies in its lists.
  thread_local std::vector<const nn::Module*> under_way;
  if (!may_touch_python() || std::find(under_way.begin(), under_way.end(), &module) != under_way.end()) return 0;
  under_way.push_back(&module);
  const auto leave = [](std::vector<const nn::Module*>* all) { all->pop_back(); };
  const std::unique_ptr<std::vector<const nn::Module*>, decltype(leave)> left(&under_way, leave);
  const Acquired gil;
  const nb::object self = nb::find(&module);
  if (!self.is_valid()) return 0;
  Contents contents;
  contents.attributes(nb::object(self.attr("__dict__")).ptr(), true);
  return contents.value();
}

// Before a module's attribute is set to what is no module and no Parameter: true where it was a setting of the layer's.
bool set_attribute(nb::handle self, const std::string& name, nb::handle value) {
  if (!nb::inst_ready(self)) return false;  // before the class called super().__init__()
  auto& module = nb::cast<nn::Module&>(self);
  const auto tensors = module.own_state();
  const bool tensor = std::any_of(tensors.begin(), tensors.end(), [&](const nn::State& s) { return s.name == name; });
  const bool child =
      std::any_of(module.children().begin(), module.children().end(), [&](const auto& c) { return c.first == name; });
  if ((tensor || child) && !value.is_none())
    throw nb::type_error(fmt::format("'{}' is a {} of this module: expected {} or None, got {}", name,
                                     tensor ? "parameter or buffer" : "part", tensor ? "a Parameter" : "a module",
                                     nb::cast<std::string>(nb::repr(value.type())))
                             .c_str());
  if (tensor || child) module.unregister(name);
  if (set_setting(module, name, value, false)) return true;
  if (tracing()) return false;  // forward() notes something; the next trace would do so again
  module.changed();
  if (!is_constant(value.ptr())) module.watch(true);
  return false;
}

}  // namespace

ContentsPass::ContentsPass() : outer_(std::exchange(in_pass, true)) {}
ContentsPass::~ContentsPass() {
  in_pass = outer_;
  if (!in_pass && !looked_into.empty()) looked_into.clear();
}

uint64_t contents_of(nb::handle object) {
  Contents contents;
  contents.add(object.ptr());
  return contents.value();
}

void bind_structure(nb::module_& m) {
  nn::Module::set_watcher(&contents_of);
  m.def("set_attribute", &set_attribute, nb::arg("module"), nb::arg("name"), nb::arg("value").none());
  m.def("did_you_mean",
        [](const std::string& name, const std::vector<std::string>& known) { return did_you_mean(name, known); });
  // What is called by its slots alone, so that an __init__ that Python sets is heard.
  m.def("call_by_slots",
        [](nb::type_object type) { reinterpret_cast<PyTypeObject*>(type.ptr())->tp_vectorcall = nullptr; });
  m.def(
      "is_made", [](nb::handle self) { return nb::inst_ready(self); }, nb::arg("module").none());
  m.def("unregister", &nn::Module::unregister);
  m.def("module_changed", &nn::Module::changed);
  m.def("set_setting", &set_setting, nb::arg("module"), nb::arg("name"), nb::arg("value").none(), nb::arg("all"));
  m.def(
      "settings",
      [](nn::Module& module, bool hidden) {
        nb::dict out;
        for (const nn::Setting& s : module.settings())
          if (hidden || s.kind != nn::Setting::kHidden) out[s.name] = setting_to_python(s);
        return out;
      },
      nb::arg("module"), nb::arg("hidden"));
  m.def(
      "make_unset",
      [](nb::callable make) {
        const nn::UnsetWeights unset;
        return nb::object(make());
      },
      "make(), whose layers draw no weights.");
}

}  // namespace deepseek::python
