"""Cleaning of tables beside pandas and Polars (lazy): the same numbers from all, on the same threads, taking turns.

Each side is a process that holds the table as it likes best: Arrow for ours, a frame for the others. A time is a whole call from Python,
from table to table. Ratio is the peer's time over ours, of minima and of medians; MiB is the process's peak. Ends with a line of JSON.

Rows: impute_clip fills missing numbers with the median, then clips to the mean +- 3 standard deviations, of 8 columns of floats with 5 %
missing. duplicates leaves out equal rows of 3 columns, integers and text, about a tenth of them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

ROWS = ("impute_clip", "duplicates")


def make(row, n):
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(0)
    columns = {}
    if row == "impute_clip":
        for c in range(8):
            values = rng.normal(size=n) if c % 2 else rng.lognormal(size=n)
            columns[f"x{c}"] = pa.array(values, mask=rng.random(n) < 0.05)
    else:
        names = np.array([f"customer-{i:05}" for i in range(1000)])
        columns = {"a": pa.array(rng.integers(0, n // 200, n)), "b": pa.array(rng.integers(0, 2, n).astype(np.int32)),
                   "c": pa.array(names[rng.integers(0, 1000, n)])}
    return pa.table(columns)


def ours(row, table):
    import deepseek
    from deepseek.data import Pipeline

    deepseek.set_num_threads(int(os.environ["BENCH_THREADS"]))
    steps = ["duplicates"] if row == "duplicates" else [("impute", {"strategy": "median"}), ("outliers", {"method": "sigma"})]
    return lambda: Pipeline(steps).fit_transform(table)


def pandas(row, table):
    frame = table.to_pandas()
    del table

    def clean():
        filled = frame.fillna(frame.median())
        mean, spread = filled.mean(), 3 * filled.std()
        return filled.clip(mean - spread, mean + spread, axis=1)

    return clean if row == "impute_clip" else lambda: frame.drop_duplicates()


def polars(row, table):
    import polars as pl

    frame = pl.from_arrow(table)
    del table

    def clean():
        filled = frame.lazy().with_columns(pl.all().fill_null(pl.all().median()))
        bounds = [pl.col(name).clip(pl.col(name).mean() - 3 * pl.col(name).std(), pl.col(name).mean() + 3 * pl.col(name).std())
                  for name in frame.columns]
        return filled.with_columns(bounds).collect()

    return clean if row == "impute_clip" else lambda: frame.lazy().unique(keep="first", maintain_order=True).collect()


SIDES = {"ours": ours, "pandas": pandas, "polars": polars}


def as_numbers(result):
    """A few numbers that tell results apart: rows, and of each column the sum, or of text its length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = result if isinstance(result, pa.Table) else result.to_arrow() if hasattr(result, "to_arrow") else pa.Table.from_pandas(result, preserve_index=False)
    numbers = [table.num_rows]
    for column in table.columns:
        plain = column if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) else pc.binary_length(column.cast(pa.string()))
        numbers += [float(pc.sum(plain).as_py()), float(plain[0].as_py()), float(plain[-1].as_py())]
    return numbers


def work(side, row, n):
    """A side: makes its table, then a call for each line that comes in."""
    run = SIDES[side](row, make(row, n))
    result = run()
    print(json.dumps(as_numbers(result)), flush=True)
    for _ in sys.stdin:
        del result
        start = time.perf_counter()
        result = run()
        print(time.perf_counter() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(row, args):
    threads = str(args.threads)
    env = {**os.environ, "BENCH_THREADS": threads, "POLARS_MAX_THREADS": threads, "OMP_NUM_THREADS": threads, "NUMEXPR_NUM_THREADS": threads}
    processes = {}
    for side in SIDES:  # one after another, so that making tables does not fight
        processes[side] = subprocess.Popen([sys.executable, __file__, "--work", side, row, str(args.rows)], env=env, text=True,
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes[side].first = json.loads(processes[side].stdout.readline())
    times = {side: [] for side in SIDES}
    start = time.perf_counter()
    while time.perf_counter() - start < args.seconds or len(times["ours"]) < 3:
        for side, process in processes.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            times[side].append(float(process.stdout.readline()))
    result = {"row": row, "rows": args.rows}
    for side, process in processes.items():
        process.stdin.close()
        result[side] = {"min_s": min(times[side]), "median_s": statistics.median(times[side]), "steps": len(times[side]),
                        "peak_mib": float(process.stdout.readline())}
        process.wait()
        mine = processes["ours"].first
        differences = [abs(a - b) / max(1.0, abs(a)) for a, b in zip(mine, process.first)]
        result[side]["difference"] = max(differences)
        if len(mine) != len(process.first) or max(differences) > 1e-9:
            sys.exit(f"{row}: {side} has another result: {process.first}, ours {mine}")
        if side != "ours":
            for what in ("min", "median"):
                result[side][f"ratio_{what}"] = result[side][f"{what}_s"] / result["ours"][f"{what}_s"]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--seconds", type=float, default=30, help="how long each row is measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work[0], args.work[1], int(args.work[2]))
    import deepseek
    import pandas
    import polars

    print(f"load {os.getloadavg()[0]:.2f}; {args.rows} rows, {args.threads} threads, {deepseek.isa()}; pandas {pandas.__version__}, Polars {polars.__version__}")
    print(f"{'row':14}{'ours, s':>9}{'pandas':>9}{'Polars':>9}   ratio of minima, pandas and Polars   MiB, ours, pandas, Polars")
    results = []
    for row in args.only:
        r = measure(row, args)
        results.append(r)
        print(f"{row:14}{r['ours']['median_s']:9.3f}{r['pandas']['ratio_median']:9.2f}{r['polars']['ratio_median']:9.2f}"
              f"   {r['pandas']['ratio_min']:.2f}, {r['polars']['ratio_min']:.2f}"
              f"   {r['ours']['peak_mib']:.0f}, {r['pandas']['peak_mib']:.0f}, {r['polars']['peak_mib']:.0f}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
