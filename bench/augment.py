"""Augmentation of batches of 64 pictures of 224 x 224 beside PyTorch code in torchvision's manner and albumentations, taking turns.

The peers change one picture after another in two threads, as a loader's workers do, and mix whole batches; albumentations (where it is
installed) has no mixing of batches. Pictures are uint8, [H, W, C] for albumentations and [C, H, W] for the others. What chance draws
differs, so shapes, types and which values occur are compared, and tests/python/test_augment.py holds ours to the papers. Ratio is the
peer's time over ours. Ends with a line of JSON.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import time

import numpy as np
import torch

import deepseek
from deepseek.data import ImageAugmenter

N, SIZE = 64, 224
METHODS = {"flip_crop": (["flip", "crop"], [0.5, 1.0]), "rotate": (["rotate"], [1.0]), "cutmix_mixup": (["cutmix", "mixup"], [0.5, 0.5])}


def ours(row, pictures, labels, pool):
    augmenter = ImageAugmenter(*METHODS[row])
    epochs = iter(range(1 << 30))
    return lambda: augmenter.transform((pictures, labels), epoch=next(epochs))[0]


def torch_single(row, picture):
    if row == "flip_crop":
        if torch.rand(1) < 0.5:
            picture = picture.flip(-1)
        y, x = torch.randint(0, 9, (2,)).tolist()
        return torch.nn.functional.pad(picture, (4, 4, 4, 4))[:, y:y + SIZE, x:x + SIZE]
    angle = torch.deg2rad((2 * torch.rand(1) - 1) * 15)  # torchvision's affine grid, bilinear
    matrix = torch.tensor([[[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]]])
    grid = torch.nn.functional.affine_grid(matrix, (1, *picture.shape), align_corners=False)
    turned = torch.nn.functional.grid_sample(picture[None].float(), grid, align_corners=False)[0]
    return turned.round_().clamp_(0, 255).to(torch.uint8)


def torch_mix(batch, labels):
    weight = float(torch.distributions.Beta(1.0, 1.0).sample())
    other = batch.roll(1, 0)
    if torch.rand(1) < 0.5:
        mixed = batch.float().mul_(weight).add_(other.float(), alpha=1 - weight).round_().to(torch.uint8)
    else:
        half = int(SIZE * (1 - weight) ** 0.5 / 2)
        x, y = torch.randint(SIZE, (2,)).tolist()
        top, bottom, left, right = max(y - half, 0), min(y + half, SIZE), max(x - half, 0), min(x + half, SIZE)
        mixed = batch.clone()
        mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        weight = 1 - (bottom - top) * (right - left) / SIZE**2
    return mixed, labels * weight + labels.roll(1, 0) * (1 - weight)


def with_torch(row, pictures, labels, pool):
    batch, soft = torch.from_numpy(pictures), torch.nn.functional.one_hot(torch.from_numpy(labels)).float()
    if row == "cutmix_mixup":
        return lambda: torch_mix(batch, soft)[0].numpy()
    return lambda: torch.stack(list(pool.map(lambda picture: torch_single(row, picture), batch))).numpy()


def albumentations(row, pictures, labels, pool):
    if row == "cutmix_mixup":
        return None
    try:
        import albumentations as A
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)  # the threads are ours
    steps = {"flip_crop": [A.HorizontalFlip(p=0.5), A.Pad(4), A.RandomCrop(SIZE, SIZE)],
             "rotate": [A.Rotate(15, interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, p=1)]}
    change = A.Compose(steps[row])
    last = np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))
    return lambda: np.stack(list(pool.map(lambda picture: change(image=picture)["image"], last)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=10, help="how long each row is measured")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (N, 3, SIZE, SIZE), np.uint8), np.arange(N) % 10
    print(f"load {os.getloadavg()[0]:.2f}; {N} pictures of {SIZE} x {SIZE}, {args.threads} threads, {deepseek.isa()}; PyTorch {torch.__version__}")
    print(f"{'row':14}{'ours, ms':>9}{'PyTorch':>9}{'albumentations':>16}   ratio of minima")
    results = []
    for row in args.only:
        # Threads that change one picture after another need no further ones; whole batches get all. What PyTorch sets for this thread
        # may be ours too, so ours comes after it.
        torch.set_num_threads(args.threads if row == "cutmix_mixup" else 1)
        deepseek.set_num_threads(args.threads)
        pool = concurrent.futures.ThreadPoolExecutor(args.threads)
        sides = {"ours": ours, "torch": with_torch, "albumentations": albumentations}
        sides = {name: run for name, side in sides.items() if (run := side(row, pictures, labels, pool)) is not None}
        for name, run in sides.items():
            out = run()
            if out.dtype != np.uint8 or sorted(out.shape) != sorted(pictures.shape) or abs(float(out.mean()) - pictures.mean()) > 20:
                raise SystemExit(f"{row}: {name} gave {out.dtype} {out.shape} of mean {out.mean():.1f}")
        times, start = {name: [] for name in sides}, time.perf_counter()
        while time.perf_counter() - start < args.seconds:
            for name, run in sides.items():
                begin = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begin)
        result = {"row": row}
        for name, taken in times.items():
            result[name] = {"min_ms": 1e3 * min(taken), "median_ms": 1e3 * statistics.median(taken), "steps": len(taken)}
            if name != "ours":
                for what in ("min", "median"):
                    result[name][f"ratio_{what}"] = result[name][f"{what}_ms"] / result["ours"][f"{what}_ms"]
        results.append(result)
        ratio = [f"{result[name]['ratio_median']:.2f}" if name in result else "" for name in ("torch", "albumentations")]
        least = ", ".join(f"{result[name]['ratio_min']:.2f}" for name in ("torch", "albumentations") if name in result)
        print(f"{row:14}{result['ours']['median_ms']:9.2f}{ratio[0]:>9}{ratio[1]:>16}   {least}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
