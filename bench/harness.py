"""Libraries side by side: each in a process of its own, told over a pipe to run one step at a time.

Not in one process, because each library brings an OpenMP runtime, whose idle threads spin for a while before they sleep: with
two pools on the same cores one may disturb the other (on a quiet machine with 2 cores neither was slower for it, 25.5 against 25.3 ms;
with more threads than cores free they are). Here the library that is not on turn sleeps, each has its own peak of memory,
and a crash of one is told. The steps alternate, so that a slow minute of the machine meets both.
"""

import multiprocessing
import os
import pathlib
import statistics
import time
import traceback

import numpy as np

# An idle pool sleeps after a few milliseconds; each step waits that long before it starts.
PAUSE = 0.01
# Steps that are shorter than this come in rows that take about as long, of which the first, which wakes the pool, is not
# counted: a training loop runs one after the other, too.
TURN = 0.02
MOST_IN_A_ROW = 40


def _serve(connection, make, args):
    try:
        side = make(*args)
        connection.send(("done", None))
        while (request := connection.recv()) is not None:
            method, arguments = request
            if method == "steps":  # several in a row
                connection.send(("done", [side.step() for _ in range(*arguments)]))
            else:
                connection.send(("done", getattr(side, method)(*arguments)))
    except EOFError:
        pass
    except ModuleNotFoundError as error:
        connection.send(("missing", error.name))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


class Missing(Exception):
    """A package that a side needs is not installed."""


class Side:
    """make(*args) in a process of its own, with `threads` OpenMP threads; calls go to that object's methods."""

    def __init__(self, name, threads, make, *args):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.connection, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, make, args), daemon=True)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # the child reads it when it loads the library
        self.process.start()
        end.close()
        self._answer()

    def _answer(self):
        try:
            outcome, value = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"{self.name}: its process ended with code {self.process.exitcode}") from None
        if outcome == "missing":
            raise Missing(f"{value} is not installed")
        if outcome == "failed":
            raise RuntimeError(f"{self.name} failed:\n{value}")
        return value

    def call(self, method, *arguments):
        self.connection.send((method, arguments))
        return self._answer()

    def close(self):
        try:
            self.connection.send(None)
        except OSError:
            pass  # it has ended already
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def reset_peak():
    """Forgets the peak so far, for instance of loading."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_mib():
    """The most memory that this process has held since reset_peak(). (getrusage's figure holds the parent's as well.)"""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def timed(function):
    """(seconds, result) of one call."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def disagreement(ours, theirs):
    """The largest difference relative to the largest element of `theirs`; infinite where a value is not finite."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def interleave(sides, *, warmup=2, seconds=20.0, least=3, most=50):
    """Step times of each side, by side: in turn, forwards and backwards, until `seconds` are over; between `least` and `most` rounds."""
    times = {side: [] for side in sides}
    order = list(sides)
    row = 1
    start = time.perf_counter()
    for i in range(warmup + most):
        if i >= warmup + least and time.perf_counter() - start > seconds:
            break
        longest = 0
        for side in order:
            time.sleep(PAUSE)
            elapsed = side.call("steps", row)
            longest = max(longest, min(elapsed))
            if i >= warmup:
                times[side] += elapsed[1:] or elapsed
        if row == 1 and TURN > 2 * longest > 0:
            row = min(int(TURN / longest), MOST_IN_A_ROW)
        order.reverse()
    return times


def milliseconds(times):
    return {"min_ms": 1e3 * min(times), "median_ms": 1e3 * statistics.median(times), "steps": len(times)}


def ratios(ours, theirs):
    """The peer's time over ours, above 1 where we are faster."""
    return {"ratio_min": min(theirs) / min(ours), "ratio_median": statistics.median(theirs) / statistics.median(ours)}


def machine():
    """What figures depend on."""
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}


def host_isa():
    """The widest vectors that the processor has, for libraries that do not tell what they use."""
    flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    return next((name for flag, name in (("avx512f", "AVX512"), ("avx2", "AVX2")) if flag in flags), "SSE2")


def print_table(header, rows):
    """Rows of text, the first column to the left, the others to the right."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * w for w in widths], *rows]:
        cells = [str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
