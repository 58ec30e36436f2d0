// Values that are computed a second time where they are read again, so that they need not be kept until then: from
// activations that stay anyway (a norm or an activation function by one loop) to whole segments (Chen et al., "Training
// Deep Nets with Sublinear Memory Cost", 2016). Greedy: at the step where most is alive, the value whose second
// computation costs least per byte that it frees, until the peak is below the limit or nothing frees more.
// Given:  %2 = exp(%1); ...; %9 = mul(%8,%2)
// Result: %2 = exp(%1); ...; %9 = exp(%1); %10 = mul(%8,%9)
// Test: tests/passes/recompute_test.cc
#pragma once

#include <functional>

#include "graph/graph.h"

namespace deepseek::passes {

struct Recomputed {
  graph::Graph graph;  // the same where nothing was to be done
  int64_t peak = 0;    // bytes, as peak_bytes() counts them
  int64_t values = 0;  // that are computed again
  double cost = 0;     // of that, by the given function
};

// `cost` of running a node once, in any unit. Nodes keep their order, which should be that of the run.
Result<Recomputed> recompute(const graph::Graph& graph, int64_t limit,
                             const std::function<double(const graph::Graph&, const graph::Node&)>& cost);

}  // namespace deepseek::passes
