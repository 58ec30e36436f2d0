"""The yardstick: training and inference of common models, DeepSeek beside every peer that does the same.

All get the same initial weights and inputs, and as many threads; each is a process of its own, and their steps alternate. The
first losses or predictions must agree, else the row fails. Ratios are the peer's time over ours, above 1 where we are faster;
the row's ratio is the one to its fastest peer. README.md explains the columns.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import sys
import tempfile
import time

import cases
import harness
import ours
import peers_infer
import peers_jax
import peers_torch

PEERS = {
    "torch": (peers_torch.Torch,),
    "torch.compile": (peers_torch.Torch, True),
    "onnxruntime": (peers_infer.OnnxRuntime,),
    "openvino": (peers_infer.OpenVino,),
    "jax": (peers_jax.Jax,),
}
FROM_ONNX = ("onnxruntime", "openvino")
# Steps at most: enough for a median, and a fast step does not need all the seconds.
MOST_ROUNDS = 400


def chosen_peers(case, args):
    return [p for p in case.peers if p in (args.peers or PEERS) and (p != "torch.compile" or args.compile or case.compiled and not args.no_compile)]


def start(stack, case, args, names, folder):
    """Sides by name, with the weights of PyTorch's; and why others are missing or failed."""
    sides, notes = {}, {}
    weights, onnx = str(folder / "weights.safetensors"), str(folder / "model.onnx")
    reference = stack.enter_context(harness.Side("torch", args.threads, peers_torch.Torch, case, args.threads))
    reference.call("save", weights)
    if any(name in FROM_ONNX for name in names):
        try:
            # In a process that ends: exporting takes memory, which would count as PyTorch's.
            with harness.Side("torch.onnx", args.threads, peers_torch.Torch, case, args.threads) as exporter:
                exporter.call("load", weights)
                exporter.call("export", onnx)
        except (harness.Missing, RuntimeError) as problem:
            notes |= {name: {"missing" if isinstance(problem, harness.Missing) else "error": f"export to ONNX: {problem}"}
                      for name in names if name in FROM_ONNX}
    for name in [n for n in names if n not in notes]:
        kind, *more = PEERS[name]
        try:
            side = reference if name == "torch" else stack.enter_context(harness.Side(name, args.threads, kind, case, args.threads, *more))
            if side is not reference:
                side.call("load", onnx if name in FROM_ONNX else weights)
            sides[name] = side
        except harness.Missing as problem:
            notes[name] = {"missing": str(problem)}
        except RuntimeError as problem:
            notes[name] = {"error": str(problem)}
    if "torch" not in sides:
        reference.close()
    own = stack.enter_context(harness.Side("DeepSeek", args.threads, ours.Ours, case, args.threads))
    own.call("load", weights)
    return own, sides, notes


def compare(case, own, sides, notes):
    """First results; sides whose differ from ours, or that fail, become notes. Returns seconds of first calls and differences."""
    own.call("prepare")
    expected, seconds = own.call("check")
    first, differences = {own: seconds}, {}
    for name, side in list(sides.items()):
        try:
            side.call("prepare")
            result, first[side] = side.call("check")
            side.call("tune")
        except (harness.Missing, RuntimeError) as problem:
            notes[name] = {"missing" if isinstance(problem, harness.Missing) else "error": str(problem)}
            del sides[name]
            continue
        differences[name] = harness.disagreement(expected, result)
        if not differences[name] <= case.tolerance:
            notes[name] = {"difference": differences[name],
                           "error": f"results differ by {differences[name]:.2g} of the largest, at most {case.tolerance:g} is expected"}
            del sides[name]
    return first, differences


def slowest(side, runs, count=3):
    """(FLOPs of a step, its nodes by time) from `runs` profiles, of each node the shortest time."""
    nodes = [{**row[0], "seconds": min(r["seconds"] for r in row)} for row in zip(*[side.call("profile") for _ in range(runs)])]
    return sum(n["flops"] for n in nodes), sorted(nodes, key=lambda n: -n["seconds"])[:count]


def run(case, args):
    """A row of the result: our figures, each peer's, and the fastest peer's name. Whoever has no figures says why."""
    try:
        return measure(case, args)
    except RuntimeError as problem:
        return {"name": case.name, "peers": {}, "error": str(problem)}


def measure(case, args):
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        own, sides, notes = start(stack, case, args, chosen_peers(case, args), folder)
        first, differences = compare(case, own, sides, notes)
        row = {"name": case.name, "tolerance": case.tolerance, "peers": dict(notes)}
        # The checked training steps have warmed everything.
        times = harness.interleave([own, *sides.values()], warmup=0 if case.training else 1, seconds=0 if args.quick else args.seconds,
                                   least=args.rounds, most=MOST_ROUNDS)

        def figures(side):
            found = harness.milliseconds(times[side])
            return found | {"first_call_s": first[side], "compile_s": max(first[side] - found["min_ms"] / 1e3, 0.0)} | side.call("about")

        row["ours"] = figures(own)
        flops, nodes = slowest(own, 1 if row["ours"]["median_ms"] > 1e3 else 3)
        peak = own.call("peak")
        row["ours"] |= {"gflop": flops / 1e9, "peak_gflops": peak / 1e9, "utilisation": flops / (row["ours"]["median_ms"] / 1e3) / peak,
                        "slowest": nodes}
        for name, side in sides.items():
            row["peers"][name] = figures(side) | harness.ratios(times[own], times[side]) | {"difference": differences[name]}
        if sides:
            row["best"] = min(sides, key=lambda name: row["peers"][name]["median_ms"])
        return row


def print_profile(case, args):
    """Where our step's time goes: by op and implementation, then the slowest nodes."""
    with harness.Side("DeepSeek", args.threads, ours.Ours, case, args.threads) as own:
        own.call("prepare")
        own.call("check")
        _, nodes = slowest(own, args.rounds, None)
    total = sum(n["seconds"] for n in nodes)
    groups = collections.defaultdict(lambda: [0.0, 0])
    for node in nodes:
        group = groups[node["op"], node["implementation"].split(" (")[0]]
        group[0] += node["seconds"]
        group[1] += 1
    print(f"\n{case.name}: {1e3 * total:.1f} ms in {len(nodes)} nodes, the shortest of {args.rounds} runs each")
    rows = [(op, implementation, count, f"{1e3 * s:.2f}", f"{100 * s / total:.1f}")
            for (op, implementation), (s, count) in sorted(groups.items(), key=lambda g: -g[1][0])]
    harness.print_table(("op", "implementation", "nodes", "ms", "%"), rows)
    print()
    harness.print_table(("scope", "op", "implementation", "ms", "types"),
                        [(n["scope"], n["op"], n["implementation"], f"{1e3 * n['seconds']:.2f}", n["types"]) for n in nodes[:args.nodes]])


def errors(row):
    return [f"{row['name']}: {name}: {side['error']}" for name, side in [("DeepSeek", row), *row["peers"].items()] if "error" in side]


def print_rows(rows):
    names = [name for name in PEERS if any(name in r["peers"] for r in rows)]

    def cell(row, name):
        peer = row["peers"].get(name)
        if peer is None:
            return ""
        return f"{peer['ratio_median']:.2f}" if "ratio_median" in peer else "missing" if "missing" in peer else "FAILED"

    def line(row):
        own, best = row["ours"], row["peers"].get(row.get("best"), {})
        ratio = (f"{best['median_ms']:.2f}", f"{best['ratio_min']:.2f}", f"{best['ratio_median']:.2f}") if best else ("", "", "")
        return (row["name"], f"{own['min_ms']:.2f}", f"{own['median_ms']:.2f}", row.get("best", ""), *ratio, *(cell(row, n) for n in names),
                f"{100 * own['utilisation']:.0f}", f"{own['compile_s']:.2f}", f"{best['compile_s']:.2f}" if best else "", f"{own['peak_mib']:.0f}",
                f"{best['peak_mib']:.0f}" if best else "")

    harness.print_table(("row", "ours min", "median ms", "best peer", "median ms", "ratio min", "median", *names, "% of peak", "compile s", "peer's", "MiB",
                         "peer's"), [line(r) for r in rows])
    print()
    sides = {}
    for row in rows:
        for name, side in [("ours", row["ours"]), *row["peers"].items()]:
            if "isa" in side:
                sides.setdefault(f"{name} {side['version']}: {side['isa']}, {side['config']}", []).append(row["name"])
            elif "missing" in side:
                sides.setdefault(f"{name}: {side['missing']} (`make setup-bench` installs the peers)", []).append(row["name"])
    for text, where in sides.items():
        print(text if len(where) == len(rows) else f"{text} ({', '.join(where)})")
    print(f"peak: {max(r['ours']['peak_gflops'] for r in rows):.0f} GFLOP/s of multiply-adds, the most measured beside a row")


def select(parser, args):
    """The cases that --only and --all ask for."""
    every = cases.cases(args.quick)
    names = [c.name for c in every]
    found = [c for c in every if (args.all or not c.extra if not args.only else
                                  any(o == c.name or o in c.name and o not in names for o in args.only))]
    if not found:
        parser.error(f"no row is named {' or '.join(args.only)}; there are: {', '.join(names)}")
    for name in args.peers or []:
        if name not in PEERS:
            parser.error(f"no peer is named {name}; there are: {', '.join(PEERS)}")
    return found


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows of these names, or whose names hold them")
    parser.add_argument("--all", action="store_true", help="also the rows that are left out by default")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help=f"only these of {', '.join(PEERS)}")
    parser.add_argument("--compile", action="store_true", help="torch.compile in every row: takes minutes more")
    parser.add_argument("--no-compile", action="store_true", help="torch.compile in no row")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (default 2)")
    parser.add_argument("--seconds", type=float, default=15, help="to measure each row (default 15)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each library at least (default 3)")
    parser.add_argument("--profile", action="store_true", help="only show where our time goes, node by node")
    parser.add_argument("--nodes", type=int, default=20, help="how many of the slowest nodes --profile shows (default 20)")
    parser.add_argument("--json", metavar="FILE", help="also write the result here")
    return parser


def main(arguments=None):
    parser = make_parser()
    args = parser.parse_args(arguments)
    chosen = select(parser, args)
    if args.profile:
        for case in chosen:
            print_profile(case, args)
        return 0
    machine = harness.machine()
    print(f"{machine['cpu']}, {args.threads} threads of {machine['cores']} cores, load {machine['load']:.1f} at the start", flush=True)
    rows = []
    for case in chosen:
        begin = time.perf_counter()
        row = run(case, args)
        rows.append(row)
        result = {"machine": machine, "threads": args.threads, "quick": args.quick, "rows": rows}
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(result) + "\n")  # so that a run that is interrupted was not for nothing
        told = [f"{n} {p['ratio_median']:.2f}" for n, p in row["peers"].items() if "ratio_median" in p]
        print(*errors(row), f"{case.name}: {', '.join(told)} ({time.perf_counter() - begin:.0f} s)", sep="\n", file=sys.stderr, flush=True)
    if measured := [row for row in rows if "ours" in row]:
        print_rows(measured)
    print(json.dumps(result))
    return 1 if any(errors(row) for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
