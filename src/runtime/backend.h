// A device as a table of functions, and the backends by name. What a backend owes is walked by tests/conformance, which
// runs over any of them; src/backends/null is the shortest right one. Nothing above this room names a backend: programs
// (apps, the Python extension, tests) register those there are, everything else asks by name.
// Test: tests/runtime/backend_test.cc, tests/conformance
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/program.h"

namespace deepseek::runtime {

// Bytes of a device that this process holds there for buffers and for what runs need.
struct MemoryUse {
  size_t in_use = 0;
  size_t peak = 0;  // of in_use, since the process began
  size_t idle = 0;  // kept for later runs, given back where it is needed
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  // What there is: {"isa": "avx2", "threads": "2"}.
  virtual std::map<std::string, std::string> properties() const = 0;

  // Uninitialised. Errors: kIo where the device's memory does not suffice.
  virtual Result<Buffer> make_buffer(const graph::TensorType& type) const = 0;
  // The tensor's value on the device. Where host_memory() this may be the tensor's own bytes: who changes them changes
  // the buffer.
  virtual Result<Buffer> upload(const graph::Tensor& value) const = 0;
  // The buffer's value on the host, by the same rule. Errors: of a buffer of another backend, or one that was donated.
  virtual Result<graph::Tensor> download(const Buffer& buffer) const = 0;
  // Whether buffers are host memory, so that a tensor that was uploaded and its buffer are one.
  virtual bool host_memory() const = 0;

  virtual Result<std::shared_ptr<const Program>> compile(const graph::Graph& graph,
                                                         const CompileOptions& options) const = 0;
  // Of the device, as far as this process may use it.
  virtual size_t memory_bytes() const = 0;
  virtual MemoryUse memory_use() const = 0;
  // Most that all programs of the process together may hold for intermediate values, idle memory included; 0 is none.
  // Runs that would need more wait for others to end; one that alone needs more is an error.
  virtual void set_memory_limit(size_t bytes) const = 0;
  // Whether products of this type run on instructions of their own, so that training in it may pay.
  virtual bool has_fast(DType dtype) const = 0;
  // Takes about 0.3 s on all threads.
  virtual Peak measure_peak() const = 0;
};

using BackendPtr = std::shared_ptr<const Backend>;

// What `device` is where nobody says otherwise.
inline constexpr std::string_view kDefaultDevice = "cpu";

struct BackendEntry {
  std::string name, doc;
  // Called once, when the backend is first asked for; the error says why it is not usable on this machine.
  std::function<Result<BackendPtr>()> open;
};

// A second backend of a name is an internal error. Thread-safe, like all of these.
Status register_backend(BackendEntry entry);
// Errors: kInvalidArgument for a name that is not registered, with the nearest; what `open` said.
Result<BackendPtr> open_backend(std::string_view name);
// In order of registration.
std::vector<BackendEntry> registered_backends();

// A program's data inputs by position, from host tensors: uploads them, runs, downloads the outputs and, where the
// backend's memory is not the host's, the new state. `inputs` are all inputs of the graph in order; state tensors are
// overwritten. What tests and one-off runs use; loops keep their state in StateBuffers.
Result<std::vector<graph::Tensor>> run_on_host(const Program& program, std::span<const graph::Tensor> inputs,
                                               Profile* profile = nullptr);

// Checks the operands of Program::execute against the graph: their number, types, that they belong to `backend` and
// were not given away, that no donated one is used twice. The error names the input.
Status check_operands(const graph::Graph& graph, const Backend& backend, std::span<const Buffer> data,
                      std::span<StateBuffer* const> state);

}  // namespace deepseek::runtime
