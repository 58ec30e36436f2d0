// fork() in a process that computes: OpenMP's threads are not copied into the child, whose next parallel loop would
// wait for them for ever. Test: tests/base/fork_test.cc
#pragma once

namespace deepseek {

// From now on the thread that forks gives up its OpenMP threads before, so that parent and child start anew ones.
// Called when the first parallel loop runs, and by the Python module; more calls do nothing.
void survive_forks();

}  // namespace deepseek
