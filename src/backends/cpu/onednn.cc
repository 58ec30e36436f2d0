#include "backends/cpu/onednn.h"

#include <unordered_map>

namespace deepseek::backends::cpu {

const dnnl::engine& onednn_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& onednn_stream() {
  thread_local dnnl::stream stream(onednn_engine());
  return stream;
}

Result<dnnl::memory::data_type> onednn_dtype(DType dtype) {
  switch (dtype) {
    case DType::kF32: return dnnl::memory::data_type::f32;
    case DType::kBF16: return dnnl::memory::data_type::bf16;
    default: return refuse(fmt::format("dtype {} is not supported", to_string(dtype)));
  }
}

dnnl::memory::desc onednn_plain(const graph::Dims& dims, dnnl::memory::data_type dtype) {
  return dnnl::memory::desc(dims, dtype, graph::contiguous_strides(dims));
}

Status require_bf16_instructions() {
  // A set of instructions is a set of bits, which those that build on it include.
  const auto has = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needs = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (has & needs) == needs ? Status() : refuse("the CPU has no bf16 instructions");
}

Status require_vectors(const std::string& primitive) {
  if (primitive.starts_with("ref") || primitive.starts_with("gemm:ref"))
    return refuse("onednn has only '" + primitive + "' for bf16 here");
  return {};
}

namespace {

// A place of `bytes` at the end of `total`.
size_t reserve(size_t& total, size_t bytes) {
  const size_t offset = total;
  total += (bytes + 63) / 64 * 64;
  return offset;
}

template <class F>
Status run_guard(F run) {
  try {
    run();
    return {};
  } catch (const dnnl::error& e) {
    return internal_error("onednn failed while running: {}", e.what());
  }
}

}  // namespace

void OnednnKernel::set_scratchpad(const dnnl::memory::desc& md) {
  scratchpad_ = md;
  if (md.get_size() > 0) scratchpad_offset_ = reserve(scratch_, md.get_size());
}

void OnednnKernel::add(std::vector<OnednnOperand>& list, int argument, const dnnl::memory::desc& ours,
                       const dnnl::memory::desc& theirs, bool input, bool fixed) {
  OnednnOperand operand{argument, ours, theirs, {}, fixed, 0};
  if (ours != theirs) {
    const dnnl::engine& e = onednn_engine();
    operand.reorder = dnnl::reorder(input ? dnnl::reorder::primitive_desc(e, ours, e, theirs)
                                          : dnnl::reorder::primitive_desc(e, theirs, e, ours));
    operand.offset = reserve(fixed ? prepared_ : scratch_, theirs.get_size());
  }
  list.push_back(std::move(operand));
}

Status OnednnKernel::prepare(const KernelArgs& args) const {
  return run_guard([&] {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const OnednnOperand& o = inputs_[i];
      if (!o.reorder || !o.fixed) continue;
      dnnl::memory ours(o.ours, onednn_engine(), const_cast<void*>(args.in[i]));
      dnnl::memory theirs(o.theirs, onednn_engine(), static_cast<char*>(args.prepared) + o.offset);
      o.reorder.execute(onednn_stream(), ours, theirs);
    }
    onednn_stream().wait();
  });
}

Status OnednnKernel::run(const KernelArgs& args) const {
  return run_guard([&] {
    dnnl::stream& stream = onednn_stream();
    const dnnl::engine& engine = onednn_engine();
    char* const scratch = static_cast<char*>(args.scratch);
    std::unordered_map<int, dnnl::memory> memory;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const OnednnOperand& o = inputs_[i];
      dnnl::memory ours(o.ours, engine, const_cast<void*>(args.in[i]));
      if (o.reorder) {
        dnnl::memory theirs(o.theirs, engine, (o.fixed ? static_cast<char*>(args.prepared) : scratch) + o.offset);
        if (!o.fixed) o.reorder.execute(stream, ours, theirs);
        ours = theirs;
      }
      memory.emplace(o.argument, std::move(ours));
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const OnednnOperand& o = outputs_[i];
      memory.emplace(o.argument, o.reorder ? dnnl::memory(o.theirs, engine, scratch + o.offset)
                                           : dnnl::memory(o.ours, engine, args.out[i]));
    }
    if (scratchpad_.get_size() > 0)
      memory.emplace(DNNL_ARG_SCRATCHPAD, dnnl::memory(scratchpad_, engine, scratch + scratchpad_offset_));
    primitive_.execute(stream, memory);
    for (size_t i = 0; i < outputs_.size(); ++i)
      if (const OnednnOperand& o = outputs_[i]; o.reorder) {
        dnnl::memory ours(o.ours, engine, args.out[i]);
        o.reorder.execute(stream, memory.at(o.argument), ours);
      }
    stream.wait();
  });
}

}  // namespace deepseek::backends::cpu
