"""Import time and installed size beside PyTorch's. Process starts are interleaved, so that both meet the same load.

import: seconds inside a fresh process. torch imports numpy at once, deepseek with the first array, so it is also
measured with numpy. Installed: the package and what its metadata requires, without numpy. Ends with a line of JSON:
rows of name, ours, peer, ratio = ours / peer.
"""

import argparse
import compileall
import importlib.metadata
import json
import pathlib
import re
import statistics
import subprocess
import sys

import deepseek

TIMED = "import time; start = time.perf_counter(); import {0}; print(time.perf_counter() - start)"


def seconds(modules):
    done = subprocess.run([sys.executable, "-c", TIMED.format(modules)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def distributions(name, seen):
    """A distribution and those it requires here, without extras and numpy."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen or name == "numpy":
        return
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # required on other systems
    seen[name] = found
    for requirement in found.requires or []:
        if "extra ==" not in requirement:
            distributions(re.match(r"[\w.-]+", requirement)[0], seen)


def disk(files):
    """Bytes on disk as du counts them; a file of several names counts once."""
    blocks = {}
    for path in files:
        if path.is_file():
            status = path.stat()
            blocks[status.st_dev, status.st_ino] = 512 * status.st_blocks
    return sum(blocks.values())


def installed(name):
    seen = {}
    distributions(name, seen)
    return disk(pathlib.Path(d.locate_file(f)) for d in seen.values() for f in d.files or [])


def ours():
    """Bytes of the package that is imported here: installed, or in a build folder beside its library."""
    try:
        importlib.metadata.distribution("deepseek")
        return installed("deepseek")
    except importlib.metadata.PackageNotFoundError:
        package = pathlib.Path(deepseek.__file__).parent
        build = package.parent.parent
        files = [*package.rglob("*"), build / "libdeepseek_infer.so", build / "libdeepseek.so", build / "deepseek"]
        return disk(files) + installed("onednn-cpu-gomp")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=15, help="process starts of each")
    starts = parser.parse_args().starts
    compileall.compile_dir(pathlib.Path(deepseek.__file__).parent, quiet=1)  # as pip does for installed packages
    times = {"deepseek": [], "numpy, deepseek": [], "torch": []}
    for i in range(starts + 1):
        for module, kept in times.items():
            value = seconds(module)
            if i > 0:  # the first warms the disk's cache
                kept.append(value)
    rows = []
    for label, modules in (("import", "deepseek"), ("import with numpy", "numpy, deepseek")):
        for kind, summary in (("minimum", min), ("median", statistics.median)):
            a, b = summary(times[modules]), summary(times["torch"])
            rows.append({"name": f"{label}, {kind} (ms)", "ours": 1e3 * a, "peer": 1e3 * b, "ratio": a / b})
    a, b = ours() / 2 ** 20, installed("torch") / 2 ** 20
    rows.append({"name": "installed (MiB)", "ours": a, "peer": b, "ratio": a / b})
    print(f"{starts} starts each, interleaved\n")
    print(f"| {'':<31} | {'deepseek':>10} | {'torch':>10} | {'ratio':>6} |\n|{'-' * 33}|{'-' * 11}:|{'-' * 11}:|{'-' * 7}:|")
    for r in rows:
        print(f"| {r['name']:<31} | {r['ours']:>10.1f} | {r['peer']:>10.1f} | {r['ratio']:>6.3f} |")
    print()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
