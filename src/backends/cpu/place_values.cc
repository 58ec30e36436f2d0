// Where each value of a program lives during a run.
#include <algorithm>

#include "backends/cpu/program.h"
#include "runtime/memory_plan.h"
#include "runtime/shared_constants.h"

namespace deepseek::backends::cpu {

using namespace graph;

// Assigns each value a place. Views share their source's place; an update is produced straight in the state's memory if
// nothing reads the old state afterwards; an element-wise result may overwrite an input that dies there.
void CpuProgram::plan(const runtime::CompileOptions& options) {
  const int32_t num_values = graph_.num_values();
  const int32_t end = static_cast<int32_t>(steps_.size());
  std::vector<int32_t> root(num_values), made(num_values, -1), last(num_values, -1);
  for (int32_t v = 0; v < num_values; ++v) root[v] = v;
  for (const Node& node : graph_.nodes())
    if (is_view(node)) root[node.output().id] = root[node.inputs[0].id];
  for (int32_t s = 0; s < end; ++s) {
    for (Value v : steps_[s].in)
      if (v.defined()) last[root[v.id]] = s;
    for (Value v : steps_[s].out) made[v.id] = s;
  }
  places_.assign(num_values, {});
  for (size_t i = 0; i < graph_.inputs().size(); ++i) places_[graph_.inputs()[i].value.id] = {Place::kInput, i};
  std::vector<bool> pinned(num_values);  // read after the last step
  for (const Output& o : graph_.outputs()) pinned[root[o.value.id]] = true;
  for (const Update& u : graph_.updates()) pinned[root[u.value.id]] = true;
  const auto borrowed = [&](const Tensor& t) {  // of the caller, who may change it later
    return std::any_of(options.constants.begin(), options.constants.end(),
                       [&](const auto& named) { return named.second.data() == t.data(); });
  };
  for (const Node& node : graph_.nodes()) {
    const int32_t v = node.output().id;
    if (node.op_name() != "constant" || (last[v] < 0 && !pinned[v])) continue;
    const auto& value = node.attrs.get<Tensor>("value");
    places_[v] = {Place::kConstant, constants_.size()};
    constants_.push_back(borrowed(value) ? runtime::share_copy(value) : runtime::share_constant(value));
  }

  for (const Update& u : graph_.updates()) {
    const int32_t r = root[u.value.id], state = graph_.inputs()[u.input].value.id;
    if (r == state) continue;
    bool direct = places_[r].kind == Place::kNone && made[r] >= 0 && !pinned[state] && last[state] <= made[r];
    if (direct && last[state] == made[r]) {
      const Step& step = steps_[made[r]];
      for (size_t i = 0; i < step.in.size(); ++i)
        for (size_t o = 0; o < step.out.size(); ++o)
          if (step.in[i].defined() && root[step.in[i].id] == state && step.out[o].id == r)
            direct = direct && step.kernel->in_place(static_cast<int>(o), static_cast<int>(i));
    }
    if (direct)
      places_[r] = {Place::kInput, static_cast<size_t>(u.input)};
    else
      copies_.push_back({u.value, false, static_cast<size_t>(u.input)});
  }
  for (size_t i = 0; i < graph_.outputs().size(); ++i) {
    const int32_t r = root[graph_.outputs()[i].value.id];
    if (places_[r].kind == Place::kNone)
      places_[r] = {Place::kOutput, i};
    else
      copies_.push_back({graph_.outputs()[i].value, true, i});
  }

  // Arena: one block per root value, in-place results join their input's block; scratch lives for its step only, what
  // is prepared always.
  std::vector<runtime::Block> blocks;
  std::vector<int32_t> block_of(num_values, -1), scratch_block(end, -1), prepared_block(end, -1);
  for (int32_t s = 0; s < end; ++s) {
    const Step& step = steps_[s];
    for (size_t o = 0; o < step.out.size(); ++o) {
      const int32_t v = step.out[o].id;
      if (places_[v].kind != Place::kNone || (last[v] < 0 && !pinned[v])) continue;
      const size_t bytes = graph_.type({v}).num_bytes();
      const int32_t until = pinned[v] || step.once ? end : last[v];
      for (size_t i = 0; i < step.in.size() && block_of[v] < 0; ++i) {
        if (!step.in[i].defined()) continue;
        const int32_t in = root[step.in[i].id];
        const int32_t block = block_of[in];
        if (block < 0 || blocks[block].last != s || blocks[block].bytes != bytes || last[in] != s) continue;
        bool legal = step.kernel->in_place(static_cast<int>(o), static_cast<int>(i));
        // The block must not feed another operand that the kernel may not overwrite.
        for (size_t k = 0; k < step.in.size(); ++k)
          if (step.in[k].defined() && block_of[root[step.in[k].id]] == block)
            legal = legal && step.kernel->in_place(static_cast<int>(o), static_cast<int>(k));
        if (!legal) continue;
        blocks[block].last = until;
        block_of[v] = block;
      }
      if (block_of[v] < 0) {
        block_of[v] = static_cast<int32_t>(blocks.size());
        blocks.push_back({bytes, step.once ? 0 : s, until});
      }
    }
    if (const size_t scratch = step.kernel->scratch_bytes(); scratch > 0) {
      scratch_block[s] = static_cast<int32_t>(blocks.size());
      blocks.push_back({scratch, s, s});
    }
    if (const size_t prepared = step.kernel->prepared_bytes(); prepared > 0 && !step.own.defined()) {
      prepared_block[s] = static_cast<int32_t>(blocks.size());
      blocks.push_back({prepared, 0, end});
    }
  }
  arena_bytes_ = runtime::plan_memory(blocks);
  for (int32_t v = 0; v < num_values; ++v)
    if (block_of[v] >= 0) places_[v] = {Place::kArena, blocks[block_of[v]].offset};
  for (int32_t s = 0; s < end; ++s) {
    if (scratch_block[s] >= 0) steps_[s].scratch = blocks[scratch_block[s]].offset;
    if (prepared_block[s] >= 0) steps_[s].prepared = blocks[prepared_block[s]].offset;
  }
  for (const Node& node : graph_.nodes())
    if (is_view(node)) places_[node.output().id] = places_[root[node.output().id]];
}

}  // namespace deepseek::backends::cpu
