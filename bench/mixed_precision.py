"""Accuracy and time of mixed precision beside float32: Fashion-MNIST, the same seeds for all.

One row per precision: test accuracy of each seed, their mean and standard deviation, the difference of the means with its standard
error, updates skipped for an overflow, and the time of an epoch. A difference within two standard errors is noise. Ends with a line
of JSON. The time is only comparable where nothing else runs: oneDNN's bf16 weight gradients spin at barriers between threads, which
costs dearly where other programs hold the cores (then --threads 1). --samples 60000 --epochs 4 --width 16 is the example's run.
"""

import argparse
import json
import statistics
import sys

import numpy as np

import deepseek


def subset(data, size):
    """The first `size` samples: the file is shuffled already."""
    return deepseek.data.Dataset(np.asarray(data.inputs)[:size], np.asarray(data.targets)[:size], data.class_names, data.scale, data.mean,
                                 data.stddev)


def train(precision, seed, splits, arguments):
    deepseek.manual_seed(seed)
    model = deepseek.models.create("small_resnet", [1, 28, 28], 10, width=arguments.width)
    trainer = deepseek.Trainer(model, "cross_entropy", deepseek.optim.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
                               "one_cycle", epochs=arguments.epochs, batch_size=arguments.batch, seed=seed, precision=precision,
                               loss_scale_interval=arguments.interval)
    history = trainer.fit(splits[0], progress=False)
    return {"accuracy": 100 * trainer.evaluate(splits[1])["accuracy"], "skipped": sum(e["training"].get("skipped_updates", 0) for e in history),
            "seconds": min(e["seconds"] for e in history)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--samples", type=int, default=20000, help="of the 60,000 for training")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--interval", type=int, default=100, help="updates after which the loss scale doubles; few, so that some overflow")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16", "float16"])
    arguments = parser.parse_args()
    deepseek.set_num_threads(arguments.threads)
    full = deepseek.data.load("fashion-mnist")
    splits = subset(full.train, arguments.samples), full.test
    print(f"small_resnet of width {arguments.width}, {arguments.samples} samples, {arguments.epochs} epochs, {deepseek.isa()}, {arguments.threads} threads")
    rows, base = [], None
    for precision in arguments.precisions:
        runs = []
        for seed in range(arguments.seeds):
            print(f"\r{precision}, seed {seed} ...", end="", file=sys.stderr, flush=True)
            runs.append(train(precision, seed, splits, arguments))
        print("\r" + " " * 30, end="\r", file=sys.stderr)
        values = [r["accuracy"] for r in runs]
        row = {"name": precision, "accuracy": values, "mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
               "skipped": sum(r["skipped"] for r in runs), "seconds": min(r["seconds"] for r in runs)}
        base = base or row
        row["difference"] = row["mean"] - base["mean"]
        row["error"] = ((row["deviation"] ** 2 + base["deviation"] ** 2) / len(values)) ** 0.5
        rows.append(row)
        print(f"{precision:9} {' '.join(f'{v:6.2f}' for v in values)}   mean {row['mean']:.2f} +- {row['deviation']:.2f} %   "
              f"difference {row['difference']:+.2f} +- {row['error']:.2f}   skipped {row['skipped']:.0f}   {row['seconds']:.1f} s an epoch", flush=True)
    print(json.dumps({"rows": rows}))
    return max(abs(r["difference"]) > 2 * r["error"] + 0.3 for r in rows)


if __name__ == "__main__":
    sys.exit(main())
