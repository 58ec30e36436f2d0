#include "backends/cpu/cpu_backend.h"

#include <atomic>
#include <new>

#include "backends/cpu/peak.h"
#include "backends/cpu/program.h"
#include "base/guard.h"
#include "base/memory.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

using runtime::Buffer;

namespace {

// Bytes of living buffers that make_buffer() gave.
struct Held {
  std::atomic<size_t> bytes{0}, peak{0};
  void add(size_t more) {
    const size_t now = bytes += more;
    size_t most = peak.load();
    while (most < now && !peak.compare_exchange_weak(most, now)) {
    }
  }
};
Held& held() {
  static Held* const counts = new Held;  // outlives buffers that die late
  return *counts;
}

}  // namespace

std::map<std::string, std::string> CpuBackend::properties() const {
  return {{"isa", isa_name()}, {"threads", std::to_string(num_threads())}};
}

Result<Buffer> CpuBackend::make_buffer(const graph::TensorType& type) const {
  return guarded("a buffer " + to_string(type), [&]() -> Result<Buffer> {
    const graph::Tensor memory(type);
    const size_t bytes = type.num_bytes();
    held().add(bytes);
    std::shared_ptr<void> owner(memory.data(), [memory, bytes](void*) { held().bytes -= bytes; });
    return Buffer(type, cpu_backend(), std::move(owner), memory.data());
  });
}

Result<Buffer> CpuBackend::upload(const graph::Tensor& value) const {
  if (!value.defined()) return invalid("upload: expected a tensor, got none");
  // What is nobody's (static memory) has to look owned: an owner that is empty means a donated buffer.
  std::shared_ptr<void> owner = value.owner();
  if (owner == nullptr) owner = std::shared_ptr<void>(value.data(), [](void*) {});
  return Buffer(value.type(), cpu_backend(), std::move(owner), value.data());
}

Result<graph::Tensor> CpuBackend::download(const Buffer& buffer) const {
  if (!buffer.available()) return invalid("download: the buffer is undefined, or was donated to a run");
  if (buffer.backend() != cpu_backend()) return invalid("download: the buffer belongs to another device than 'cpu'");
  return graph::Tensor(buffer.type(), buffer.data(), buffer.owner());
}

Result<std::shared_ptr<const runtime::Program>> CpuBackend::compile(const graph::Graph& graph,
                                                                    const runtime::CompileOptions& options) const {
  return guarded("compiling for the CPU", [&]() -> Result<std::shared_ptr<const runtime::Program>> {
    auto program = std::make_shared<CpuProgram>();
    DS_TRY(program->build(graph, options));
    return std::shared_ptr<const runtime::Program>(std::move(program));
  });
}

size_t CpuBackend::memory_bytes() const { return machine_memory(); }

runtime::MemoryUse CpuBackend::memory_use() const {
  const runtime::ArenaPool& pool = arena_pool();
  return {held().bytes + pool.in_use(), held().peak + pool.peak(), pool.idle()};
}

void CpuBackend::set_memory_limit(size_t bytes) const { arena_pool().set_limit(bytes); }

bool CpuBackend::has_fast(DType dtype) const {
  return dtype == DType::kF32 || (dtype == DType::kBF16 && isa_name() == "avx512_bf16");
}

runtime::Peak CpuBackend::measure_peak() const { return cpu::measure_peak(); }

const CpuBackend* cpu_backend() {
  static const std::shared_ptr<const CpuBackend>* const backend =
      new std::shared_ptr<const CpuBackend>(std::make_shared<CpuBackend>());  // outlives buffers that die late
  return backend->get();
}

Status register_cpu() {
  return runtime::register_backend(
      {"cpu", "oneDNN and kernels of our own; instructions chosen at run time", []() -> Result<runtime::BackendPtr> {
         return runtime::BackendPtr(runtime::BackendPtr(), cpu_backend());  // never dies, so nobody owns it
       }});
}

runtime::ArenaPool& arena_pool() {
  static runtime::ArenaPool* const pool = new runtime::ArenaPool;  // outlives programs that die late
  return *pool;
}

std::string isa_name() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bf16")) return "avx512_bf16";
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return "avx512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
  return "sse2";
}

}  // namespace deepseek::backends::cpu
