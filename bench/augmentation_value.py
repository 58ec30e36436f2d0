"""What CutMix and MixUp are worth where labels are few: Fashion-MNIST with a tenth of its labels, the same seeds with and without.

A row per way of training: test accuracy of each seed, their mean and deviation, the difference from training without, with its standard error over
seeds (paired). The test set is the whole one of 10,000. Ends with a line of JSON.
"""

import argparse
import json
import statistics
import sys

import numpy as np

import deepseek
from deepseek.data import ImageAugmenter

WAYS = {
    "none": None,
    "cutmix + mixup": lambda: ImageAugmenter(["cutmix", "mixup"], [0.5, 0.5], alpha=1.0),
    "flip, crop": lambda: ImageAugmenter(["flip", "crop"], [0.5, 1.0], crop_padding=2),
    "flip, crop, cutmix + mixup": lambda: ImageAugmenter(["flip", "crop", "cutmix", "mixup"], [0.5, 1.0, 0.25, 0.25], alpha=1.0, crop_padding=2),
}


def accuracy(way, seed, data, arguments):
    few = np.random.default_rng(seed).permutation(len(np.asarray(data.train.targets)))[:arguments.samples]
    train = deepseek.data.Dataset(np.asarray(data.train.inputs)[few], np.asarray(data.train.targets)[few], data.train.class_names, data.train.scale,
                                  data.train.mean, data.train.stddev)
    deepseek.manual_seed(seed)
    model = deepseek.models.create("small_resnet", [1, 28, 28], 10, width=arguments.width)
    augmenter = WAYS[way]() if WAYS[way] else None
    trainer = deepseek.Trainer(model, "cross_entropy", deepseek.optim.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4), "one_cycle",
                               epochs=arguments.epochs, batch_size=128, seed=seed, augmentation=augmenter)
    trainer.fit(train, progress=False)
    return 100 * trainer.evaluate(data.test)["accuracy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    data = deepseek.data.load("fashion-mnist", validation_fraction=0)
    print(f"small_resnet of width {arguments.width}, {arguments.samples} labels, {arguments.epochs} epochs, {arguments.seeds} seeds")
    results, base = [], None
    for way in arguments.ways:
        values = []
        for seed in range(arguments.seeds):
            print(f"\r{way}, seed {seed} ...", end="", file=sys.stderr, flush=True)
            values.append(accuracy(way, seed, data, arguments))
        print("\r" + " " * 50, end="\r", file=sys.stderr)
        base = base or values
        differences = [a - b for a, b in zip(values, base)]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(values) > 1 else 0.0
        results.append({"way": way, "accuracy": values, "mean": statistics.mean(values), "difference": statistics.mean(differences), "error": error})
        print(f"{way:28}{statistics.mean(values):7.2f} {'+-'} {statistics.stdev(values) if len(values) > 1 else 0:.2f}   {statistics.mean(differences):+.2f} +- {error:.2f}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
