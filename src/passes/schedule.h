// An order of the same nodes with a lower peak of memory: what only updates of state need, weight gradients and the
// optimiser's arithmetic for instance, runs as soon as it can, and so does what makes little of much, such as the sums
// of a gradient's norm; so a gradient dies where it is made. But an update waits for the other readers of the state
// that it overwrites.
// Given:  %g1 = ...; %g2 = ...; %w1 = sub(%0, %g1); %w2 = sub(%1, %g2); update "w1" %w1; update "w2" %w2
// Result: %g1 = ...; %w1 = sub(%0, %g1); %g2 = ...; %w2 = sub(%1, %g2); update "w1" %w1; update "w2" %w2
// Test: tests/passes/schedule_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

// Bytes of intermediates that are alive at once, at most, if the nodes run in their order; views and constants are
// free.
int64_t peak_bytes(const graph::Graph& graph);

// The same graph if its own order is better.
Result<graph::Graph> schedule(const graph::Graph& graph, const PassContext& context = {});

}  // namespace deepseek::passes
