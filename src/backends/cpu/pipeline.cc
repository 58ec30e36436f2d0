#include "backends/cpu/pipeline.h"

#include <algorithm>

#include "base/strings.h"
#include "passes/block_channels.h"
#include "passes/cse.h"
#include "passes/decompose.h"
#include "passes/fold_constants.h"
#include "passes/fuse_elementwise.h"
#include "passes/fuse_epilogues.h"
#include "passes/fuse_horizontal.h"
#include "passes/rematerialize_norms.h"
#include "passes/schedule.h"
#include "passes/simplify.h"

namespace deepseek::backends::cpu {

namespace {

constexpr std::string_view kDecompose = "decompose_composites";

constexpr passes::Pass kPasses[] = {
    {kDecompose, "composites that no kernel takes whole are taken apart", passes::decompose_composites},
    // Before others, which then meet no copies that are about to go.
    {"simplify", "work that changes nothing is left out", passes::simplify},
    {"fold_constants", "what constants alone decide is computed", passes::fold_constants},
    // Before fusion, which then works on the blocked tensors.
    {"block_channels", "convolutions' activations lie in blocks of channels", passes::block_channels},
    // After blocking, which makes copies. Fusion computes again what is cheaper than memory.
    {"cse", "what is computed twice is computed once", passes::cse},
    {"decompose_norms", "norms of given statistics become loops", passes::decompose_norms},
    // On loops that are still nodes, and before they become kernels.
    {"rematerialize_norms", "a norm's result is computed again for its gradient", passes::rematerialize_norms},
    {"fuse_elementwise", "element-wise nodes become loops", passes::fuse_elementwise},
    // After it: what joins is a whole loop.
    {"fuse_epilogues", "loops join the heavy op before or after them", passes::fuse_epilogues},
    // The passes before it may use an order of their own; the one after it keeps it.
    {"schedule", "updates run early, so that gradients die where they are made", passes::schedule},
    // What joins are loops that nothing else takes in.
    {"fuse_horizontal", "small loops that do not depend on each other become one", passes::fuse_horizontal},
};

}  // namespace

std::span<const passes::Pass> pipeline() { return kPasses; }

Status check_passes(const runtime::CompileOptions& options) {
  std::vector<std::string> known;
  for (const passes::Pass& pass : kPasses)
    if (pass.name != kDecompose) known.emplace_back(pass.name);
  for (std::string_view name : {kPrecompute, kRecompute, kFuseRecomputed}) known.emplace_back(name);
  for (const std::string& name : options.disabled_passes) {
    if (name == kDecompose || name == kBindInputs)
      return invalid("disabled_passes: '{}' cannot be disabled: programs need it", name);
    if (std::find(known.begin(), known.end(), name) == known.end())
      return invalid("disabled_passes: there is no pass '{}'; there are: {}", name, join(known, ", "));
  }
  return {};
}

}  // namespace deepseek::backends::cpu
