#include "backends/null/null_backend.h"

#include <atomic>
#include <cstring>

#include "base/guard.h"
#include "base/memory.h"
#include "base/strings.h"
#include "graph/tensor.h"
#include "ops/interpreter.h"
#include "passes/bind_inputs.h"
#include "runtime/backend.h"

namespace deepseek::backends::null {

using namespace graph;
using runtime::Buffer;
using runtime::StateBuffer;

namespace {

class NullBackend : public runtime::Backend {
 public:
  std::string name() const override { return "null"; }
  std::map<std::string, std::string> properties() const override { return {{"kernels", "reference"}}; }
  Result<Buffer> make_buffer(const TensorType& type) const override;
  Result<Buffer> upload(const Tensor& value) const override;
  Result<Tensor> download(const Buffer& buffer) const override;
  bool host_memory() const override { return false; }
  Result<std::shared_ptr<const runtime::Program>> compile(const Graph& graph,
                                                          const runtime::CompileOptions& options) const override;
  size_t memory_bytes() const override { return machine_memory(); }
  runtime::MemoryUse memory_use() const override { return {in_use_, peak_, 0}; }
  void set_memory_limit(size_t bytes) const override { limit_ = bytes; }
  bool has_fast(DType) const override { return false; }
  // Of what is never meant to be fast there is nothing to measure.
  runtime::Peak measure_peak() const override { return {1, 1, "null"}; }

 private:
  mutable std::atomic<size_t> in_use_{0}, peak_{0}, limit_{0};
};

const NullBackend& backend() {
  static const NullBackend* const instance = new NullBackend;  // outlives buffers that die late
  return *instance;
}

RefTensor read(const Buffer& buffer) {
  RefTensor t(buffer.type());
  for (size_t i = 0; i < t.data.size(); ++i)
    t.data[i] = load_as_double(t.dtype, buffer.data(), static_cast<int64_t>(i));
  return t;
}

void write(const RefTensor& t, const Buffer& buffer) {
  for (size_t i = 0; i < t.data.size(); ++i)
    store_from_double(t.dtype, buffer.data(), static_cast<int64_t>(i), t.data[i]);
}

class NullProgram : public runtime::Program {
 public:
  explicit NullProgram(Graph graph) : graph_(std::move(graph)) {}
  const Graph& graph() const override { return graph_; }
  const runtime::Backend& backend() const override { return null::backend(); }
  size_t arena_bytes() const override { return 0; }
  size_t memory_bytes() const override {
    size_t bytes = 0;
    for (int32_t v = 0; v < graph_.num_values(); ++v) bytes += graph_.type({v}).num_bytes();
    return bytes;
  }
  std::vector<runtime::NodeReport> report() const override {
    std::vector<runtime::NodeReport> list;
    for (const Node& node : graph_.nodes())
      list.push_back({node.scope,
                      node.op_name(),
                      "reference",
                      to_string(graph_.type(node.output())),
                      {},
                      static_cast<int32_t>(list.size())});
    return list;
  }

  Result<std::vector<Buffer>> execute(std::span<const Buffer> data, std::span<StateBuffer* const> state,
                                      runtime::Profile* profile) const override {
    DS_TRY(runtime::check_operands(graph_, backend(), data, state));
    return guarded("running a program", [&]() -> Result<std::vector<Buffer>> {
      std::vector<RefTensor> inputs;
      size_t d = 0, s = 0;
      for (const Input& input : graph_.inputs())
        inputs.push_back(read(input.kind == InputKind::kState ? state[s++]->value : data[d++]));
      for (const Buffer& buffer : data)
        if (buffer.donated()) buffer.take();
      DS_ASSIGN(const std::vector<RefTensor> results, ops::evaluate_reference(graph_, inputs, true));
      std::vector<Buffer> outputs;
      for (const Output& output : graph_.outputs()) {
        DS_ASSIGN(Buffer buffer, backend().make_buffer(graph_.type(output.value)));
        write(results[outputs.size()], buffer);
        outputs.push_back(std::move(buffer));
      }
      std::vector<StateBuffer*> place(graph_.inputs().size());
      s = 0;
      for (size_t i = 0; i < place.size(); ++i)
        if (graph_.inputs()[i].kind == InputKind::kState) place[i] = state[s++];
      for (size_t u = 0; u < graph_.updates().size(); ++u)
        write(results[outputs.size() + u], place[static_cast<size_t>(graph_.updates()[u].input)]->value);
      if (profile != nullptr) {
        profile->seconds.resize(graph_.nodes().size());
        profile->starts.resize(graph_.nodes().size());
        ++profile->runs;
      }
      return outputs;
    });
  }

 private:
  Graph graph_;
};

Result<Buffer> NullBackend::make_buffer(const TensorType& type) const {
  const size_t bytes = type.num_bytes();
  if (limit_ > 0 && in_use_ + bytes > limit_)
    return make_error(ErrorCode::kIo, "device 'null': {} more than the {} in use is beyond the limit of {}",
                      format_bytes(bytes), format_bytes(in_use_), format_bytes(limit_));
  return guarded("a buffer " + to_string(type), [&]() -> Result<Buffer> {
    const Tensor memory(type);
    const size_t now = in_use_ += bytes;
    if (now > peak_) peak_ = now;
    std::shared_ptr<void> owner(memory.data(), [this, memory, bytes](void*) { in_use_ -= bytes; });
    return Buffer(type, this, std::move(owner), memory.data());
  });
}

Result<Buffer> NullBackend::upload(const Tensor& value) const {
  if (!value.defined()) return invalid("upload: expected a tensor, got none");
  DS_ASSIGN(Buffer buffer, make_buffer(value.type()));
  std::memcpy(buffer.data(), value.data(), value.num_bytes());
  return buffer;
}

Result<Tensor> NullBackend::download(const Buffer& buffer) const {
  if (!buffer.available()) return invalid("download: the buffer is undefined, or was donated to a run");
  if (buffer.backend() != this) return invalid("download: the buffer belongs to another device than 'null'");
  return guarded("downloading",
                 [&]() -> Result<Tensor> { return Tensor(buffer.type(), buffer.data(), buffer.owner()).clone(); });
}

Result<std::shared_ptr<const runtime::Program>> NullBackend::compile(const Graph& graph,
                                                                     const runtime::CompileOptions& options) const {
  if (!options.disabled_passes.empty())
    return invalid("disabled_passes: there is no pass '{}'; the device 'null' runs none", options.disabled_passes[0]);
  std::map<std::string, Tensor> constants;  // the caller may change its own later
  for (const auto& [name, value] : options.constants) constants.emplace(name, value.clone());
  DS_ASSIGN(Graph bound, passes::bind_inputs(graph, constants));
  auto program = std::make_shared<NullProgram>(std::move(bound));
  if (options.memory_limit > 0 && program->memory_bytes() > options.memory_limit)
    return invalid("the program needs {}, the limit is {}; use smaller batches, or raise the limit",
                   format_bytes(program->memory_bytes()), format_bytes(options.memory_limit));
  return std::shared_ptr<const runtime::Program>(std::move(program));
}

}  // namespace

Status register_null() {
  return runtime::register_backend(
      {"null", "reference kernels on host buffers: what ops mean, slowly", []() -> Result<runtime::BackendPtr> {
         return runtime::BackendPtr(runtime::BackendPtr(), &backend());  // never dies, so nobody owns it
       }});
}

}  // namespace deepseek::backends::null
