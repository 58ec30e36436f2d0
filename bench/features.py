"""Feature synthesis beside Featuretools: the same matrix of both, taking turns on the same machine.

Each side is a process that holds the tables as it likes best. A time is from tables to the matrix: description, keys, features. The ratio is the
peer's time over ours, of medians and of minima; `dfs alone` leaves out what Featuretools needs to build its EntitySet, while ours stays whole.
Featuretools uses one thread (its Dask cluster is slower on two cores). MiB is the process's peak. Ends with a line of JSON.

Rows: defaults, Featuretools' default primitives over customers and their orders, depth 2. cutoffs, a hundredth of the orders and for each of a
thousand customers a cut-off time of its own.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROWS = ("defaults", "cutoffs")
PEER = pathlib.Path(__file__).parents[1] / ".venv-featuretools" / "bin" / "python"
START, DAY = 1577836800 * 10**6, 86400 * 10**6


def make(row, n):
    """Columns of both tables, and cut-off times or None."""
    import numpy as np

    rng = np.random.default_rng(0)
    if row == "cutoffs":
        n //= 100
    customers = max(n // 100, 10)
    orders = {"id": np.arange(n), "customer_id": rng.integers(0, customers, n), "time": np.sort(rng.integers(0, 365 * DAY, n)) + START,
              "amount": rng.lognormal(size=n), "units": rng.integers(1, 10, n), "product": rng.integers(0, 50, n), "refunded": rng.random(n) < 0.1}
    people = {"customer_id": np.arange(customers), "joined": START + rng.integers(0, 365 * DAY, customers), "region": rng.integers(0, 8, customers)}
    cutoffs = START + 100 * DAY + rng.integers(0, 265 * DAY, min(customers, 1000)) if row == "cutoffs" else None
    return people, orders, cutoffs


def ours(row, n):
    import deepseek
    import numpy as np
    import pyarrow as pa
    from deepseek.data import FeatureSynthesis

    deepseek.set_num_threads(int(os.environ["BENCH_THREADS"]))
    people, orders, cutoffs = make(row, n)
    names = {"product": [f"p{i:02}" for i in range(50)], "region": [f"r{i}" for i in range(8)]}

    def table(columns):
        arrays = {}
        for name, values in columns.items():
            if name in names:
                arrays[name] = pa.DictionaryArray.from_arrays(values.astype(np.int32), names[name])
            else:
                arrays[name] = pa.array(values, pa.timestamp("us")) if name in ("time", "joined") else pa.array(values)
        return pa.table(arrays)

    tables = {"customers": table(people), "orders": table(orders)}
    arguments = {} if cutoffs is None else {"instances": np.arange(len(cutoffs)), "cutoff_time": pa.array(cutoffs, pa.timestamp("us"))}

    def run():
        synthesis = FeatureSynthesis("customers", {"customers": {"index": "customer_id"}, "orders": {"index": "id", "time_index": "time"}},
                                     ["orders.customer_id -> customers"])
        matrix = synthesis.fit_transform(tables, **arguments)
        return matrix, 0.0

    return run


def featuretools(row, n):
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    import featuretools as ft
    import numpy as np
    import pandas as pd

    logging.disable(logging.WARNING)
    people, orders, cutoffs = make(row, n)
    names = {"product": [f"p{i:02}" for i in range(50)], "region": [f"r{i}" for i in range(8)]}

    def frame(columns):
        made = {}
        for name, values in columns.items():
            if name in names:
                made[name] = pd.Categorical.from_codes(values, names[name])
            else:
                made[name] = pd.to_datetime(values, unit="us") if name in ("time", "joined") else values
        return pd.DataFrame(made)

    customers, transactions = frame(people), frame(orders)
    arguments = {}
    if cutoffs is not None:
        arguments["cutoff_time"] = pd.DataFrame({"instance_id": np.arange(len(cutoffs)), "time": pd.to_datetime(cutoffs, unit="us")})

    def run():
        start = time.perf_counter()
        es = ft.EntitySet("shop")
        es.add_dataframe(dataframe_name="customers", dataframe=customers.copy(deep=False), index="customer_id")
        es.add_dataframe(dataframe_name="orders", dataframe=transactions.copy(deep=False), index="id", time_index="time")
        es.add_relationship("customers", "customer_id", "orders", "customer_id")
        set_up = time.perf_counter() - start
        matrix, _ = ft.dfs(entityset=es, target_dataframe_name="customers", max_depth=2, **arguments)
        return matrix, set_up

    return run


SIDES = {"ours": ours, "featuretools": featuretools}


def digest(matrix):
    """Of each feature the sum, or for text the number of each word, and how many are missing."""
    import numpy as np

    frame = matrix if hasattr(matrix, "iloc") else matrix.to_pandas().set_index("customer_id")
    result = {}
    for name in frame.columns:
        column = frame[name]
        missing = int(column.isna().sum())
        if str(column.dtype) in ("category", "object", "string", "str") and isinstance(column.dropna().iloc[0], str):
            result[name] = [missing, *(int(n) for _, n in sorted(column.astype(str).value_counts().items()) if n)]
        else:
            values = np.array([np.nan if missing and v != v else float(v) for v in column.astype(object).fillna(np.nan)])
            result[name] = [missing, float(np.nansum(values)), float(np.nansum(values * (np.arange(len(values)) % 7)))]
    return result


def work(side, row, n):
    run = SIDES[side](row, n)
    for line in sys.stdin:
        start = time.perf_counter()
        matrix, set_up = run()
        took = time.perf_counter() - start
        print(json.dumps([took, took - set_up, digest(matrix) if line.strip() == "digest" else None]), flush=True)
        del matrix
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(row, args):
    environment = {**os.environ, "BENCH_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}
    pythons = {"ours": sys.executable, "featuretools": str(PEER)}
    processes, first = {}, {}
    for side in SIDES:
        clean = {k: v for k, v in environment.items() if side == "ours" or k != "PYTHONPATH"}
        processes[side] = subprocess.Popen([pythons[side], __file__, "--work", side, row, str(args.rows)], env=clean, text=True, stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE)

    def call(side, word):
        processes[side].stdin.write(word + "\n")
        processes[side].stdin.flush()
        return json.loads(processes[side].stdout.readline())

    for side in SIDES:
        first[side] = call(side, "digest")[2]
    names = set(first["ours"]), set(first["featuretools"])
    if names[0] != names[1]:
        sys.exit(f"{row}: other features: {names[0] ^ names[1]}")
    for name, values in first["ours"].items():
        for a, b in zip(values, first["featuretools"][name], strict=True):
            if abs(a - b) > 1e-9 * max(1.0, abs(a)):
                sys.exit(f"{row}: {name} is {first['featuretools'][name]}, ours {values}")
    times = {side: [] for side in SIDES}
    for _ in range(args.turns):
        for side in SIDES:
            for _ in range(3 if side == "ours" else 1):  # ours is over so soon that more of them are taken
                times[side].append(call(side, "go")[:2])
    result = {"row": row, "orders": args.rows if row == "defaults" else args.rows // 100, "features": len(first["ours"])}
    for side, process in processes.items():
        process.stdin.close()
        whole, alone = [t[0] for t in times[side]], [t[1] for t in times[side]]
        result[side] = {"min_s": min(whole), "median_s": statistics.median(whole), "dfs_min_s": min(alone), "dfs_median_s": statistics.median(alone),
                        "peak_mib": float(process.stdout.readline())}
        process.wait()
    for what in ("min", "median"):
        result[f"ratio_{what}"] = result["featuretools"][f"{what}_s"] / result["ours"][f"{what}_s"]
        result[f"dfs_ratio_{what}"] = result["featuretools"][f"dfs_{what}_s"] / result["ours"][f"{what}_s"]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work[0], args.work[1], int(args.work[2]))
    if not PEER.exists():
        sys.exit("Featuretools has an environment of its own; `make setup-test` makes it")
    import deepseek

    print(f"load {os.getloadavg()[0]:.2f}; {args.rows} orders, {args.threads} threads, {deepseek.isa()}; Featuretools 1.31.0")
    print(f"{'row':10}{'features':>9}{'ours, s':>9}{'theirs, s':>10}{'ratio':>7}{'minima':>8}   dfs alone   MiB, ours and theirs")
    results = []
    for row in args.only:
        r = measure(row, args)
        results.append(r)
        print(f"{row:10}{r['features']:9}{r['ours']['median_s']:9.3f}{r['featuretools']['median_s']:10.2f}{r['ratio_median']:7.1f}{r['ratio_min']:8.1f}"
              f"   {r['dfs_ratio_median']:.1f}, {r['dfs_ratio_min']:.1f}   {r['ours']['peak_mib']:.0f}, {r['featuretools']['peak_mib']:.0f}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
