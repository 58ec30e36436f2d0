// A module called on arrays: traced once per structure, compiled once per type of the arrays, run.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>

#include "graph/hash.h"
#include "graph/resize.h"
#include "runtime/module_cache.h"
#include "trace.h"
#include "training.h"

namespace deepseek::python {

using namespace graph;

namespace {

Hash128 weights_of(const nn::Module& module) {
  Hasher hasher;
  for (const nn::State& s : module.named_state()) {
    hasher.text(s.name);
    add(hasher, s.value);
  }
  return hasher.value();
}

bool trains(const nn::Module& module) {
  if (module.training()) return true;
  for (const auto& [name, child] : module.children())
    if (trains(*child)) return true;
  return false;
}

std::string key_of(uint64_t structure, const std::string& form, const std::vector<Tensor>& arrays) {
  std::string key(reinterpret_cast<const char*>(&structure), sizeof(structure));
  key += form;
  for (const Tensor& t : arrays) {
    key += static_cast<char>(t.dtype());
    key += static_cast<char>(t.dims().size());
    key.append(reinterpret_cast<const char*>(t.dims().data()), t.dims().size() * sizeof(int64_t));
  }
  return key;
}

// One module's calls. `form` is the arguments' structure around their arrays, which deepseek.nn.module flattens and,
// for a trace, puts together again.
class Calls {
 public:
  // Frozen: the module as it is now is all that this knows; its weights are constants.
  Calls(nb::handle module, bool frozen, bool measure) : frozen_(frozen) {
    how_.measure_kernels = measure;
    // Each module draws its own masks.
    random_ = Tensor::zeros(DType::kI64, {2});
    random_.as<int64_t>()[0] = static_cast<int64_t>(nn::default_initializer().next_seed());
    if (!frozen) return;
    const auto& m = nb::cast<const nn::Module&>(module);
    structure_.update(m);
    weights_ = without_gil([&] { return weights_of(m); });
  }

  // The results, and the structure that they belong into.
  nb::tuple run(nb::handle self, const std::string& form, nb::list leaves, nb::handle args, nb::handle kwargs) {
    Ready ready = prepare(self, form, leaves, args, kwargs);
    return nb::make_tuple(to_list(unwrap(without_gil([&] { return ready.program->run(ready.inputs); }))), ready.output);
  }
  nb::list profile(nb::handle self, const std::string& form, nb::list leaves, nb::handle args, nb::handle kwargs) {
    Ready ready = prepare(self, form, leaves, args, kwargs);
    runtime::Profile profile;
    unwrap(without_gil([&] { return ready.program->run(ready.inputs, &profile); }));
    return to_list(*ready.program, profile);
  }
  size_t programs() const { return programs_.size(); }

 private:
  struct Bound {
    std::vector<Tensor> inputs;  // the state; undefined ones are the call's arrays
    nb::object output;
  };
  struct Ready {
    runtime::ModuleCache::Entry program;
    std::vector<Tensor> inputs;
    nb::object output;
  };
  struct Traced {
    Traces traces;
    nb::object output;
  };
  static constexpr size_t kStructures = 8;  // the latest ones whose traces are kept: modes that come and go

  Ready prepare(nb::handle self, const std::string& form, nb::list leaves, nb::handle args, nb::handle kwargs) {
    std::vector<Tensor> arrays;
    arrays.reserve(nb::len(leaves));
    for (nb::handle leaf : leaves) {
      Array array;
      if (!array.read(leaf)) {
        PyErr_Clear();
        throw nb::type_error(
            fmt::format("expected arrays, got {}", nb::cast<std::string>(nb::repr(leaf.type()))).c_str());
      }
      arrays.push_back(to_tensor(array));
    }
    auto& module = nb::cast<nn::Module&>(self);
    if (const ContentsPass pass; !frozen_ && structure_.update(module)) find_structure();
    const uint64_t structure = current_;  // another thread may find another one meanwhile
    const std::string key = key_of(structure, form, arrays);
    Ready ready = find(key);
    if (ready.program == nullptr) ready = compile(module, self, structure, key, form, arrays, args, kwargs);
    auto next = arrays.begin();
    for (Tensor& t : ready.inputs)
      if (!t.defined() && next != arrays.end()) t = std::move(*next++);
    return ready;
  }

  Ready find(const std::string& key) {
    const auto found = programs_.find(key);
    return found ? Ready{found.program, found.extra->inputs, found.extra->output} : Ready();
  }

  void find_structure() {
    const auto known = std::find_if(structures_.begin(), structures_.end(),
                                    [&](const auto& s) { return s.first == structure_.key(); });
    if (known != structures_.end()) {
      current_ = known->second;
      std::rotate(structures_.begin(), known, known + 1);
      return;
    }
    structures_.emplace_front(structure_.key(), current_ = ++made_);
    if (structures_.size() <= kStructures) return;
    const uint64_t gone = structures_.back().second;
    structures_.pop_back();
    std::erase_if(traced_, [&](const auto& t) { return t.first.first == gone; });
    programs_.erase_if([&](const std::string& key) { return key.compare(0, sizeof(gone), key_of(gone, "", {})) == 0; });
  }

  Ready compile(nn::Module& module, nb::handle self, uint64_t structure, const std::string& key,
                const std::string& form, const std::vector<Tensor>& arrays, nb::handle args, nb::handle kwargs) {
    const Turn turn(mutex_);
    if (Ready ready = find(key); ready.program != nullptr) return ready;  // another thread was faster
    if (frozen_) check_frozen(module, self, arrays);
    std::vector<TensorType> types;
    for (const Tensor& t : arrays) types.push_back(t.type());
    const std::shared_ptr<Traced> traced =
        traced_.try_emplace({structure, form}, std::make_shared<Traced>()).first->second;
    const Graph graph = unwrap(traced->traces.get(types, [&]() -> Result<Graph> {
      const nb::object tracer = nb::module_::import_("deepseek.nn.module").attr("_Tracer")(self, args, kwargs);
      Graph made = trace_module(module, types, trains(module), tracer);
      traced->output = tracer.attr("output");
      return made;
    }));
    std::map<std::string, Tensor> state;
    for (const nn::State& s : module.named_state()) state.emplace(s.name, s.value);
    runtime::CompileOptions how = how_;
    if (frozen_)
      for (const auto& [name, value] : state)
        if (graph.find_input(name) >= 0) how.constants.emplace(name, value);
    const nb::object output = traced->output;
    const runtime::BackendPtr backend = unwrap(runtime::open_backend(runtime::kDefaultDevice));
    runtime::ModuleCache::Got got =
        unwrap(without_gil([&] { return runtime::ModuleCache::shared().get(*backend, graph, how); }));
    Bound bound{{}, output};
    for (const Input& input : got.program->graph().inputs()) {
      const auto it = state.find(input.name);
      bound.inputs.push_back(input.kind == InputKind::kData ? Tensor() : it != state.end() ? it->second : random_);
    }
    Ready ready{std::move(got.program), bound.inputs, output};
    programs_.put(key, std::move(got.slot), std::move(bound));
    return ready;
  }

  // What is not compiled yet has to be compiled of the same module.
  void check_frozen(const nn::Module& module, nb::handle self, const std::vector<Tensor>& arrays) const {
    const std::string name = "freeze(" + nb::cast<std::string>(self.type().attr("__name__")) + ")";
    if (trains(module))
      throw std::runtime_error(
          name + ": the module is in training mode again; call eval() before a new shape of inputs compiles");
    nn::Structure now;
    now.update(module);
    const bool same = now.key() == structure_.key();
    if (same && without_gil([&] { return weights_of(module); }) == weights_) return;
    nb::list shapes;
    for (const Tensor& t : arrays) shapes.append(nb::tuple(nb::cast(t.dims())));
    throw std::runtime_error(
        fmt::format("{}: the module's {} have changed since freeze(), and inputs of these shapes, {}, are not compiled "
                    "yet, or no longer; call freeze() again",
                    name, same ? "weights" : "layers", nb::cast<std::string>(nb::repr(shapes))));
  }

  bool frozen_;
  runtime::CompileOptions how_;
  Tensor random_;  // one counter: each call in training mode draws new masks
  nn::Structure structure_;
  Hash128 weights_;
  uint64_t current_ = 0, made_ = 0;
  std::deque<std::pair<std::string, uint64_t>> structures_;  // by key; the latest first
  std::map<std::pair<uint64_t, std::string>, std::shared_ptr<Traced>> traced_;
  runtime::CacheView<Bound> programs_;
  Turn::Mutex mutex_;  // who traces
};

}  // namespace

void bind_calls(nb::module_& m) {
  nb::class_<Calls>(m, "Calls", "A module's calls on arrays: its traces and programs.")
      .def(nb::init<nb::handle, bool, bool>(), nb::arg("module"), nb::arg("frozen") = false,
           nb::arg("measure_kernels") = false)
      .def("run", &Calls::run)
      .def("profile", &Calls::profile)
      .def_prop_ro("programs", &Calls::programs);
  m.def(
      "cache_counts",
      [] {
        const runtime::ModuleCache::Counts c = runtime::ModuleCache::shared().counts();
        nb::dict out;
        out["programs"] = c.programs;
        out["bytes"] = c.bytes;
        out["compiled"] = c.compiled;
        out["found"] = c.found;
        out["dropped"] = c.dropped;
        return out;
      },
      "Of the cache of compiled programs: how many there are and what they keep, and how often one was compiled, "
      "found, "
      "dropped.");
  m.def(
      "set_cache_limits",
      [](size_t programs, size_t bytes) {
        runtime::ModuleCache::shared().set_limits({.programs = programs, .bytes = bytes});
      },
      nb::arg("programs") = runtime::ModuleCache::Limits().programs, nb::arg("bytes") = 0,
      "bytes=0: an eighth of the machine's memory, 512 MiB at least.");
}

}  // namespace deepseek::python
