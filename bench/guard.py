"""Warns, in half a minute, where a ratio to eager PyTorch has fallen: `make bench-guard`, and CI after its tests.

Rows are those of models.py that are small; of each only the ratio counts, because times differ between machines and their loads.
It never fails on a time. FLOORS leave a third or more of what a quiet machine gives (1.5, 4.7, 3.8, 2.1 and 11), since other
programs may run beside.
"""

import argparse
import sys
import time

import cases
import models

FLOORS = {"mlp_train": 1.0, "mlp_train_8": 3.0, "lstm_train_1": 2.2, "resnet18_infer_1": 1.3, "unet3d_small_train": 4.0}
SECONDS = 3.0
ENOUGH = 35.0  # seconds after which no row starts


def check(case, floor, args):
    row = models.run(case, args)
    peer = row["peers"].get("torch", {})
    if "ratio_median" not in peer:
        return f"warning: {case.name} has no ratio: {'; '.join(models.errors(row)) or 'PyTorch is not installed'}"
    # The better of both: a slow minute moves the median, a lucky step the minimum.
    ratio = max(peer["ratio_median"], peer["ratio_min"])
    if ratio < floor:
        return f"warning: {case.name} runs at {ratio:.2f} of PyTorch's speed, below its floor of {floor:g}"
    return f"{case.name}: {ratio:.2f} (floor {floor:g})"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs")
    parser.add_argument("--seconds", default=str(SECONDS), help=f"to measure each row (default {SECONDS:g})")
    args = parser.parse_args(arguments)
    options = ["--peers", "torch", "--no-compile", "--seconds", args.seconds, *(["--quick"] if args.quick else [])]
    by_name = {case.name: case for case in cases.cases(args.quick)}
    begin = time.perf_counter()
    for name, floor in FLOORS.items():
        if time.perf_counter() - begin > ENOUGH:
            print(f"{name}: left out, the machine is busy")
            continue
        print(check(by_name[name], floor, models.make_parser().parse_args(options)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
