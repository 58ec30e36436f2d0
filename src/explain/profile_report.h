// Where a step's time goes: nodes timed over a few warm steps, set against their FLOPs and bytes and the device's peak;
// as text, JSON, a trace for chrome://tracing or Perfetto, and plain hints. Invariant: a group's numbers are sums of
// its nodes', and every node is in one group of each grouping. Test: tests/explain/profile_report_test.cc
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "runtime/backend.h"
#include "runtime/cost.h"

namespace deepseek::explain {

using runtime::Backend;
using runtime::graph_cost;
using runtime::node_cost;
using runtime::NodeReport;
using runtime::Peak;
using runtime::Profile;
using runtime::Program;

struct ProfileOptions {
  int64_t warmup = 3;  // steps before those that count, at least 1
  int64_t steps = 5;   // that count, at least 1
};

// How a step comes about. Both are timed; `run` gets no profile while warming up.
struct StepSource {
  std::function<Status()> next;  // waits for the next batch
  std::function<Status(Profile*)> run;
};

struct ProfiledNode {
  NodeReport report;
  std::string label;   // its op; of a fused node also what it holds beside element-wise ops: "fused[batch_norm]"
  double seconds = 0;  // median of the steps
  graph::Cost cost;
  std::string alone;  // why it did not fuse: only of an element-wise node that runs by itself
};

struct StepProfile {
  std::string subject;  // "small_resnet on fashion-mnist, batch 64"
  Peak peak;
  int64_t steps = 0;
  double seconds = 0;               // of a step, median, without the wait
  double waiting = 0;               // for a batch, median
  std::vector<ProfiledNode> nodes;  // in order; the last stands for copies of states and outputs
  Profile last;                     // of one step alone: when each node ran

  graph::Cost cost() const;  // of a step
};

// Runs the steps, measures the peak. `program` is what the source runs.
Result<StepProfile> profile_steps(const Program& program, const Backend& backend, const StepSource& source,
                                  const ProfileOptions& options);

// Nodes by a key, the slowest group first.
struct ProfileGroup {
  std::string name;
  double forward = 0, backward = 0, update = 0;  // seconds: of the loss, of gradients, of clipping and the optimiser
  int64_t nodes = 0;
  graph::Cost cost;
  double seconds() const { return forward + backward + update; }
};
// By layer path, "encoder/3/attention" at depth 2 being "encoder/3". A gradient counts for its layer; clipping and the
// optimiser are groups of their own. depth >= 1.
std::vector<ProfileGroup> group_by_scope(const StepProfile& profile, int64_t depth);
// By label and implementation, "conv  onednn".
std::vector<ProfileGroup> group_by_op(const StepProfile& profile);

// Whether the device's bandwidth, rather than its FLOPs, limits work of this cost.
bool memory_bound(const graph::Cost& cost, const Peak& peak);
// The least time that the peak allows for it.
double least_seconds(const graph::Cost& cost, const Peak& peak);

// What stands out, in at most eight sentences.
std::vector<std::string> profile_hints(const StepProfile& profile);

// Why an element-wise node of a compiled graph did not fuse; empty for other nodes and for fused ones.
std::string why_alone(const graph::Graph& graph, const graph::Node& node);

// "190 GFLOP/s, 37 GB/s (avx512, 2 threads)"
std::string to_string(const Peak& peak);
// Tables and hints; the `slowest` nodes are shown one by one.
std::string profile_text(const StepProfile& profile, int64_t depth = 2, size_t slowest = 12);
// All of it as JSON, times in milliseconds.
std::string profile_json(const StepProfile& profile, int64_t depth = 2);
// The last step in the trace event format (complete events, microseconds). A node lies inside its step's event.
std::string chrome_trace(const StepProfile& profile);

}  // namespace deepseek::explain
