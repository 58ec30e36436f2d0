"""Samplers of hyper-parameters side by side: how good a point is after some evaluations, and with --cost, how long a suggestion takes.

Each side runs on each problem of tune_problems.py from some seeds. As in Bayesmark, a loss counts no worse than random search's median first one,
regret is the mean over seeds of best loss less minimum, and a problem's number is regret over that which random search is expected to have after as
many evaluations: below 1 is better than random. That expectation is exact but for a pool of 20,000 random points, by order statistics.
- *mean*, *geo*: mean and geometric mean over a family's problems (a problem counts as 0.001 at the least), with 95 % intervals of a bootstrap over seeds,
  the same seeds of all sides. Regret of smooth functions falls by orders of magnitude, which only the geometric mean tells.
- *speed-up*: evaluations that random search needs in the median (50 or 100) over those of the side to be as good, geometric mean over problems; of a
  side that is not there at its end, those that random search needs for that end over the side's. Intervals as above.
- *ms*: median time of ask and tell in the second half of a run.

Peers get what their interface can express: Optuna conditions as define-by-run and ordered choices as integers; scikit-optimize and the grid get all
parameters, and those that do not exist are ignored. scikit-optimize takes about a second a suggestion, so that it runs only if --sides names it. HEBO is
not here: requirements-bench.txt says why. Last come the targets, met or not, and a line of JSON.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
import traceback
import zlib
from functools import cache, partial
from importlib import metadata, util

import numpy as np

import tune_problems
from tune_problems import Choice, Float, Int, active, problems, sample

REPORT = (16, 32, 50, 100)
SPEED = (50, 100)
POOL = 20_000
FLOOR = 1e-3

# --------------------------------------------------------------------------------------------------------------- sides


class Ours:
    def __init__(self, sampler, space, seed, evaluations=None, **storage):
        import deepseek
        import deepseek.tune as tune

        deepseek.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
        made = {}
        for name, spec in space.items():
            if isinstance(spec, Choice):
                made[name] = tune.choice(list(spec.values), ordered=spec.ordered)
            elif isinstance(spec, Int):
                made[name] = tune.integer(spec.low, spec.high, log=spec.log)
            else:
                made[name] = (tune.log if spec.log else tune.uniform)(spec.low, spec.high)
            if spec.when:
                made[name] = made[name].when(**{spec.when[0]: list(spec.when[1])})
        self.study = tune.Study(made, sampler=sampler, seed=seed, **storage)

    def ask(self):
        self.trial = self.study.ask()
        if self.trial is None:
            raise StopIteration
        return self.trial.params

    def tell(self, params, value):
        self.study.tell(self.trial, value)


class Optuna:
    def __init__(self, sampler, space, seed, evaluations=None, **storage):
        import warnings

        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")  # experimental arguments
        samplers = optuna.samplers
        make = {"random": samplers.RandomSampler,
                # Multivariate, its default since 5.0; group=True is no better on conditions. A liar only matters to trials at the same time.
                "tpe": partial(samplers.TPESampler, constant_liar=False),
                # The noise that it would assume else makes it worse here.
                "gp": partial(samplers.GPSampler, deterministic_objective=True),
                # Margins are for integers, but fail where conditions change the number of parameters.
                "cmaes": partial(samplers.CmaEsSampler, with_margin=not any(spec.when for spec in space.values()))}[sampler]
        self.study = optuna.create_study(sampler=make(seed=seed), **storage)
        self.space = space

    def ask(self):
        self.trial = self.study.ask()
        params = {}
        for name, spec in self.space.items():
            if spec.when and params.get(spec.when[0]) not in spec.when[1]:
                continue
            if isinstance(spec, Float):
                params[name] = self.trial.suggest_float(name, spec.low, spec.high, log=spec.log)
            elif isinstance(spec, Int):
                params[name] = self.trial.suggest_int(name, spec.low, spec.high, log=spec.log)
            elif spec.ordered:
                params[name] = spec.values[self.trial.suggest_int(name, 0, len(spec.values) - 1)]
            else:
                params[name] = self.trial.suggest_categorical(name, spec.values)
        return params

    def tell(self, params, value):
        self.study.tell(self.trial, value)


class Skopt:
    """Its Optimizer as gp_minimize sets it up: GP-Hedge, 10 points at random first."""

    def __init__(self, space, seed, evaluations=None):
        import warnings

        import skopt
        from skopt.space import Categorical, Integer, Real

        warnings.simplefilter("ignore")
        self.space = space
        dimensions = []
        for spec in space.values():
            if isinstance(spec, Choice) and not spec.ordered:
                dimensions.append(Categorical(spec.values))
            elif isinstance(spec, Choice):
                dimensions.append(Integer(0, len(spec.values) - 1))
            else:
                kind = Real if isinstance(spec, Float) else Integer
                dimensions.append(kind(spec.low, spec.high, prior="log-uniform" if spec.log else "uniform"))
        self.optimizer = skopt.Optimizer(skopt.utils.normalize_dimensions(dimensions), "GP", random_state=seed)

    def ask(self):
        self.point = self.optimizer.ask()
        return {name: spec.values[x] if isinstance(spec, Choice) and spec.ordered else x for (name, spec), x in zip(self.space.items(), self.point)}

    def tell(self, params, value):
        self.optimizer.tell(self.point, value)


class Grid:
    """All combinations of as many levels as fit in the evaluations, but at least 2, in random order; of a choice all values."""

    def __init__(self, space, seed, evaluations):
        self.space = space
        levels = next(count for count in range(evaluations, 1, -1) if count == 2 or math.prod(self.sizes(count)) <= evaluations)
        self.axes = [self.values(spec, levels) for spec in space.values()]
        rng, total = np.random.default_rng(seed), math.prod(map(len, self.axes))
        self.order = iter(rng.permutation(total) if total < 1e6 else rng.integers(0, total, evaluations))

    def values(self, spec, levels):
        if isinstance(spec, Choice):
            return spec.values
        if isinstance(spec, Float):
            return (np.geomspace if spec.log else np.linspace)(spec.low, spec.high, levels).clip(spec.low, spec.high).tolist()
        return sorted({round(v) for v in (np.geomspace if spec.log else np.linspace)(spec.low, spec.high, min(levels, spec.high - spec.low + 1))})

    def sizes(self, levels):
        return [len(self.values(spec, levels)) for spec in self.space.values()]

    def ask(self):
        at = next(self.order)
        index = np.unravel_index(int(at), [len(axis) for axis in self.axes])
        return {name: axis[i] for name, axis, i in zip(self.space, self.axes, index)}

    def tell(self, params, value):
        pass


SIDES = {**{f"ours_{name}": ("deepseek", partial(Ours, name)) for name in ("hybrid", "tpe", "gp", "cmaes", "qmc", "random", "grid")},
         **{f"optuna_{name}": ("optuna", partial(Optuna, name)) for name in ("random", "tpe", "gp", "cmaes")},
         "skopt_gp": ("scikit-optimize", Skopt), "grid": ("numpy", Grid)}
DEFAULT = "ours_hybrid,ours_tpe,ours_gp,optuna_random,optuna_tpe,optuna_gp,optuna_cmaes,grid"


@cache
def version(side):
    """The version of a side's package, or None where it is not installed."""
    package = SIDES[side][0]
    if package == "deepseek":
        return "here" if util.find_spec("deepseek") and util.find_spec("deepseek.tune") else None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------------------------------------------------------- runs


@cache
def by_name():
    return {problem.name: problem for problem in problems()}


@cache
def fingerprint(name):
    """Of a problem's losses, so that what was kept of another table is not taken for this one's."""
    problem, rng = by_name()[name], np.random.default_rng(1)
    return f"{zlib.crc32(np.float32([problem(sample(problem.space, rng)) for _ in range(50)]).tobytes()):08x}"


@cache
def pool(name):
    """Losses of random points in order."""
    path = tune_problems.TABLES / "random" / f"{name}-{fingerprint(name)}.npy"
    if path.exists():
        return np.load(path)
    problem, rng = by_name()[name], np.random.default_rng(2)
    losses = np.sort([problem(sample(problem.space, rng)) for _ in range(POOL)])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.npy")
    np.save(part, losses)
    os.replace(part, path)
    return losses


def path_of(folder, side, name, seed, evaluations):
    return pathlib.Path(folder) / f"{side}-{version(side)}" / f"{name}-{fingerprint(name)}-{seed}-{evaluations}.json"


def run(task):
    """(task, losses and seconds of all evaluations); a finite space may end earlier."""
    folder, side, name, seed, evaluations = task
    problem = by_name()[name]
    losses, seconds = [], []
    try:
        start = time.perf_counter()
        sampler = SIDES[side][1](problem.space, seed, evaluations)
        asked = time.perf_counter() - start
        for _ in range(evaluations):
            start = time.perf_counter()
            try:
                params = sampler.ask()
            except StopIteration:
                break
            asked += time.perf_counter() - start
            loss = problem(active(problem.space, params))
            start = time.perf_counter()
            sampler.tell(params, loss)
            seconds.append(round(asked + time.perf_counter() - start, 7))
            losses.append(loss)
            asked = 0.0
    except Exception:
        return task, traceback.format_exc()
    result = {"losses": losses, "seconds": seconds}
    if folder and not side.startswith("ours"):
        path = path_of(folder, side, name, seed, evaluations)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(result))
        os.replace(part, path)
    return task, result


def all_runs(sides, names, args):
    """Of each (side, problem, seed) the losses and seconds. Seeds come first, so that what is interrupted has some of all problems."""
    tasks = [(args.reuse, side, name, seed, evaluations) for seed in range(args.seeds) for side, evaluations in sides.items() for name in names]
    results, missing = {}, []
    for task in tasks:
        path = path_of(*task) if args.reuse and not task[1].startswith("ours") else None
        if path and path.exists():
            results[task[1:4]] = json.loads(path.read_text())
        elif not args.only_read or task[1].startswith("ours"):
            missing.append(task)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    with multiprocessing.get_context("spawn").Pool(args.jobs) as processes:
        processes.map(pool, names)
        start = last = time.perf_counter()
        for done, (task, result) in enumerate(processes.imap_unordered(run, missing), 1):
            if isinstance(result, str):
                print(f"{task[1:]} failed:\n{result}", file=sys.stderr, flush=True)
            else:
                results[task[1:4]] = result
            if time.perf_counter() - last > 60:
                last = time.perf_counter()
                print(f"{done} of {len(missing)} runs, {last - start:.0f} s", file=sys.stderr, flush=True)
    return results


# ------------------------------------------------------------------------------------------------------------- metrics


def expected(losses, n):
    """The expectation of the least of n of these losses in order, drawn at random: unbiased for the least of n new ones."""
    size = len(losses)
    left = np.cumprod(np.concatenate([[1.0], 1 - n / np.arange(size, n, -1)]))  # the share of draws without the first i
    return float(np.sum(-np.diff(np.append(left, 0.0)) * losses[: len(left)]))


def random_needs(losses, value):
    """Evaluations after which random search is as good as that in the median."""
    share = np.searchsorted(losses, value, side="right") / len(losses)
    return 1.0 if share > 0.5 else math.log(0.5) / math.log1p(-max(share, 0.5 / len(losses)))


def medians(values, weights):
    """Medians [draws, columns] of values [rows, columns], each row taken as many times as weights [draws, rows] say; of no row NaN."""
    order = np.argsort(values, axis=0)
    total = weights.sum(axis=1)
    out = np.empty((len(weights), values.shape[1]))
    for column in range(values.shape[1]):
        inside = np.cumsum(weights[:, order[:, column]], axis=1)
        listed = values[order[:, column], column]
        lower, upper = ((inside >= (total / 2)[:, None]).argmax(axis=1), (inside > (total / 2)[:, None]).argmax(axis=1))
        out[:, column] = np.where(total > 0, (listed[lower] + listed[upper]) / 2, np.nan)
    return out


def speeds(losses, curves, slack):
    """Speed-up of each curve [draws, evaluations], a median of best losses, where random search's losses are those."""
    n = curves.shape[1]
    there = curves <= losses[int(len(losses) * (1 - 0.5 ** (1 / n)))] + slack
    needs = np.array([min(n, random_needs(losses, end)) / n for end in curves[:, -1]])
    return np.where(there.any(axis=1), n / (there.argmax(axis=1) + 1), needs)


def problem_numbers(name, curves, weights):
    """Of each number of evaluations the regret of each run over random's, and of each of SPEED the speed-up of each draw of runs."""
    losses, minimum = pool(name), by_name()[name].minimum
    clip = np.median(losses)
    clipped = np.minimum(losses, clip)
    slack = 1e-12 * (clip - minimum)
    best = np.minimum.accumulate(curves, axis=1)
    ratios, speed = {}, {}
    for n in REPORT:
        if n <= curves.shape[1]:
            ratios[n] = (np.minimum(best[:, n - 1], clip) - minimum) / max(expected(clipped, n) - minimum, slack)
    median = medians(best, weights)
    for n in SPEED:
        if n <= curves.shape[1]:
            speed[n] = speeds(losses, median[:, :n], slack)
    return ratios, speed


def lengthened(losses, evaluations):
    """A finite space that is exhausted keeps its best."""
    return losses + [min(losses)] * (evaluations - len(losses))


class Numbers:
    """A family's numbers: ratio[side][n] of all problems and seeds, missing ones NaN, and speeds[side][n] of all problems and draws."""

    def __init__(self, results, sides, names, seeds, weights):
        self.names = [name for name in names if any(all((side, name, seed) in results for side in sides) for seed in range(seeds))]
        self.weights = weights
        shape = (len(self.names), seeds)
        self.ratio = {side: {n: np.full(shape, np.nan) for n in REPORT if n <= evaluations} for side, evaluations in sides.items()}
        self.speeds = {side: {n: [] for n in SPEED if n <= evaluations} for side, evaluations in sides.items()}
        self.seconds = {side: [] for side in sides}
        for row, name in enumerate(self.names):
            common = [seed for seed in range(seeds) if all((side, name, seed) in results for side in sides)]
            for side, evaluations in sides.items():
                runs = [results[side, name, seed] for seed in common]
                ratios, speeds = problem_numbers(name, np.array([lengthened(one["losses"], evaluations) for one in runs]), weights[:, common])
                for n, values in ratios.items():
                    self.ratio[side][n][row, common] = values
                for n, value in speeds.items():
                    self.speeds[side][n].append(value)
                self.seconds[side] += [s for one in runs for s in one["seconds"][len(one["seconds"]) // 2:]]
        self.runs = int(np.isfinite(next(iter(next(iter(self.ratio.values())).values()))).sum()) if self.names else 0

    def draws(self, side, n):
        """Ratios of problems for all seeds, then for each draw of seeds: (1 + draws, problems)."""
        values = self.ratio[side][n]
        there = np.isfinite(values)
        counts = self.weights @ there.T
        with np.errstate(invalid="ignore"):
            return np.where(counts > 0, self.weights @ np.where(there, values, 0).T / counts, np.nan)

    def mean(self, side, n):
        return np.nanmean(self.draws(side, n), axis=1)

    def log(self, side, n):
        return np.nanmean(np.log(np.maximum(self.draws(side, n), FLOOR)), axis=1)

    def speed(self, side, n):
        return np.nanmean(np.log(self.speeds[side][n]), axis=0)


def interval(draws, transform=lambda x: x):
    """The number of all seeds, and the bounds of 95 % of the draws."""
    return [float(transform(x)) for x in (draws[0], *np.percentile(draws[1:], (2.5, 97.5)))]


def cell(numbers, width):
    """number [low, high], to two places or digits."""
    if numbers is None:
        return f"{'-':>{width}}"
    text = [f"{x:.0f}" if x >= 10 else f"{x:.2f}" if x >= 0.1 else f"{x:.2g}" for x in numbers]
    return f"{text[0]} [{text[1]}, {text[2]}]".rjust(width)


def report(results, sides, families, args):
    rng = np.random.default_rng(3)
    weights = np.vstack([np.ones(args.seeds), rng.multinomial(args.seeds, np.full(args.seeds, 1 / args.seeds), 1000)])
    made = {family: Numbers(results, sides, names, args.seeds, weights) for family, names in families.items()}
    made = {family: numbers for family, numbers in made.items() if numbers.names}
    shown = [n for n in REPORT if n <= max(sides.values())]
    output = []
    for family, numbers in made.items():
        print(f"\n{family}: {len(numbers.names)} problems, {numbers.runs} runs of each side")
        print(f"{'side':17}" + "".join(f"{f'mean at {n}':>24}" for n in shown) + "".join(f"{f'geo at {n}':>24}" for n in shown)
              + "".join(f"{f'speed-up {n}':>20}" for n in SPEED if n in shown) + f"{'ms':>9}")
        for side in sides:
            row = {"family": family, "side": side, "problems": len(numbers.names), "ms": statistics.median(numbers.seconds[side]) * 1e3}
            row["mean"] = {n: interval(numbers.mean(side, n)) for n in numbers.ratio[side]}
            row["geo"] = {n: interval(numbers.log(side, n), math.exp) for n in numbers.ratio[side]}
            row["speed_up"] = {n: interval(numbers.speed(side, n), math.exp) for n in numbers.speeds[side]}
            row["by_problem"] = {n: dict(zip(numbers.names, numbers.draws(side, n)[0].round(4).tolist())) for n in numbers.ratio[side]}
            output.append(row)
            print(f"{side:17}" + "".join(cell(row[what].get(n), 24) for what in ("mean", "geo") for n in shown)
                  + "".join(cell(row["speed_up"].get(n), 20) for n in SPEED if n in shown) + f"{row['ms']:9.2f}")
        if args.by_problem:
            for n in shown[-2:]:
                print(f"\n{f'at {n}':26}" + "".join(f"{side:>14}" for side in sides))
                for row, name in enumerate(numbers.names):
                    print(f"{name:26}" + "".join(f"{np.nanmean(numbers.ratio[side][n][row]):14.3f}" if n in numbers.ratio[side] else f"{'-':>14}"
                                                 for side in sides))
    if not made:
        return output
    first = next(iter(sides))
    print(f"\nall families ({', '.join(made)}), mean over them; beside: the side's geo over {first}'s, above 1 where {first} is better")
    print(f"{'side':17}" + "".join(f"{f'mean at {n}':>24}" for n in shown) + "".join(f"{f'geo at {n}':>24}" for n in shown)
          + "".join(f"{f'beside at {n}':>24}" for n in shown[-2:]) + "".join(f"{f'speed-up {n}':>20}" for n in SPEED if n in shown))
    for side, evaluations in sides.items():
        row = {"family": "all", "side": side}
        here = [n for n in shown if n <= evaluations]
        row["mean"] = {n: interval(np.mean([numbers.mean(side, n) for numbers in made.values()], axis=0)) for n in here}
        log = {n: np.mean([numbers.log(side, n) for numbers in made.values()], axis=0) for n in here}
        row["geo"] = {n: interval(log[n], math.exp) for n in here}
        row["beside"] = {n: interval(log[n] - np.mean([numbers.log(first, n) for numbers in made.values()], axis=0), math.exp)
                         for n in here if n <= sides[first]}
        row["speed_up"] = {n: interval(np.mean([numbers.speed(side, n) for numbers in made.values()], axis=0), math.exp) for n in SPEED if n in here}
        output.append(row)
        print(f"{side:17}" + "".join(cell(row[what].get(n), 24) for what in ("mean", "geo") for n in shown)
              + "".join(cell(row["beside"].get(n), 24) for n in shown[-2:]) + "".join(cell(row["speed_up"].get(n), 20) for n in SPEED if n in shown))
    return output + judged(output)


def target(what, met, text):
    print(f"target: {what}: {text}: {'met' if met else 'NOT MET'}")
    return {"target": what, "met": bool(met), "measured": text}


def judged(rows):
    """What ours_hybrid has to be, at 50 evaluations."""
    mean = {(row["family"], row["side"]): row["mean"][50][0] for row in rows if 50 in row["mean"]}
    speed = {row["side"]: row["speed_up"][50][0] for row in rows if row["family"] == "all" and 50 in row["speed_up"]}
    ours, peers = "ours_hybrid", [side for side in speed if side.startswith(("optuna", "skopt"))]
    if ours not in speed:
        return []
    print()
    worst = max((value, family) for (family, side), value in mean.items() if side == ours and family != "all")
    out = [target("23 % better than random in every family", worst[0] <= 0.77, f"{worst[0]:.2f} in {worst[1]}, the worst")]
    if peers:
        best = min(peers, key=lambda side: mean["all", side])
        out.append(target("ahead of the best peer on the mean over families", mean["all", ours] < mean["all", best],
                          f"{mean['all', ours]:.3f}, {best} {mean['all', best]:.3f}"))
        first = max(peers, key=lambda side: speed[side])
        out.append(target("fewer evaluations than each peer to be where random search is after 50", speed[ours] > speed[first],
                          f"speed-up {speed[ours]:.2f}, {first} {speed[first]:.2f}"))
    return out


# ---------------------------------------------------------------------------------------------------------------- cost

SPACE = {"learning_rate": Float(1e-5, 1e-1, log=True), "dropout": Float(0.0, 0.5), "width": Int(16, 1024, log=True), "layers": Int(1, 6),
         "batch_size": Choice((16, 32, 64, 128), ordered=True), "optimizer": Choice(("sgd", "adam", "rmsprop"))}


def cost_loss(params):
    """Something to learn, and noise, so that models have to be fitted."""
    loss = (math.log10(params["learning_rate"]) + 3) ** 2 / 4 + params["dropout"] + (params["layers"] - 3) ** 2 / 9 + (params["optimizer"] == "sgd")
    return loss + math.log2(params["width"] / 128) ** 2 / 20 + params["batch_size"] / 256 + zlib.crc32(repr(params).encode()) / 2**32 / 10


def write_ahead(connection, _):
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


class Cost:
    """A side in a process of its own (harness.Side): it fills a study, then takes the time of single suggestions."""

    def __init__(self, name, storage, wal=False):
        if wal:
            import optuna
            import sqlalchemy

            optuna.logging.set_verbosity(optuna.logging.ERROR)
            storage["storage"] = optuna.storages.RDBStorage(storage["storage"])
            storage["storage"].engine.dispose()  # connections made from now on
            sqlalchemy.event.listen(storage["storage"].engine, "connect", write_ahead)
        self.made = SIDES[name][1](SPACE, 0, None, **storage)
        self.count = 0

    def step(self):
        start = time.perf_counter()
        params = self.made.ask()
        seconds = time.perf_counter() - start
        loss = cost_loss(params)
        start = time.perf_counter()
        self.made.tell(params, loss)
        self.count += 1
        return seconds + time.perf_counter() - start

    def memory(self):
        """MiB of this process that are in memory."""
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    def fill(self, trials):
        """Hands over random trials, since to get there by asking would take some sides minutes."""
        rng = np.random.default_rng(self.count)
        points = [sample(SPACE, rng) for _ in range(trials - self.count)]
        self.count = max(self.count, trials)
        if isinstance(self.made, Ours):
            for params in points:
                self.made.study.add_trial(params, cost_loss(params))
            return
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
        from optuna.trial import create_trial

        distributions = {name: IntDistribution(0, len(spec.values) - 1) if isinstance(spec, Choice) and spec.ordered else
                         CategoricalDistribution(spec.values) if isinstance(spec, Choice) else
                         (FloatDistribution if isinstance(spec, Float) else IntDistribution)(spec.low, spec.high, log=spec.log)
                         for name, spec in SPACE.items()}
        stored = [{name: spec.values.index(params[name]) if isinstance(spec, Choice) and spec.ordered else params[name] for name, spec in SPACE.items()}
                  for params in points]
        self.made.study.add_trials([create_trial(params=inner, distributions=distributions, value=cost_loss(params))
                                    for inner, params in zip(stored, points)])


def turns(sides, steps):
    """Seconds of each side's steps, one after another."""
    seconds = {name: [] for name in sides}
    for _ in range(steps):
        for name, side in sides.items():
            seconds[name].append(side.call("step"))
    return seconds


def cost(args):
    import harness

    names = [name for name in args.sides if name not in ("skopt_gp", "grid") and version(name)]
    output = []
    for threads in (1, 2):
        print(f"\nms per suggestion (ask and tell) in a space of {len(SPACE)} parameters after so many trials, median (minimum), {threads} threads"
              + ("; of Optuna only PyTorch's and NumPy's parts can use them" if threads > 1 else ""))
        print(f"{'side':17}" + "".join(f"{n:>22}" for n in (50, 500, 5000)))
        sides = {name: harness.Side(name, threads, Cost, name, {}) for name in names}
        rows = {name: {} for name in names}
        for n in (50, 500, 5000):
            here = {name: side for name, side in sides.items() if n <= 500 or not name.endswith("_gp")}
            for side in here.values():
                side.call("fill", n)
            for name, seconds in turns(here, 24).items():
                rows[name][n] = {"median_ms": statistics.median(seconds) * 1e3, "min_ms": min(seconds) * 1e3, "mib": here[name].call("memory")}
        for side in sides.values():
            side.close()
        for name, row in rows.items():
            texts = [f"{row[n]['median_ms']:.3f} ({row[n]['min_ms']:.3f})" if n in row else "only to 500" for n in (50, 500, 5000)]
            print(f"{name:17}" + "".join(f"{text:>22}" for text in texts) + "    MiB " + ", ".join(f"{row[n]['mib']:.0f}" for n in row), flush=True)
            output.append({"cost": name, "threads": threads, **row})
    with tempfile.TemporaryDirectory() as folder:
        # Ours writes ahead and does not wait for the disk (a power cut may lose the last trials); Optuna's default does wait, so it is here both ways.
        rows = {"ours_random": ("ours_random", {"storage": f"sqlite:///{folder}/ours.db", "name": "x"}),
                "optuna_random": ("optuna_random", {"storage": f"sqlite:///{folder}/optuna.db", "study_name": "x"}),
                "optuna, ahead": ("optuna_random", {"storage": f"sqlite:///{folder}/ahead.db", "study_name": "x"}, True)}
        sides = {row: harness.Side(row, 1, Cost, *make) for row, make in rows.items() if version(make[0])}
        print("\n1,000 trials at random in SQLite: seconds, and ms per trial, median (minimum); ahead: with ours' pragmas, WAL and synchronous = NORMAL")
        for name, seconds in turns(sides, 1000).items():
            print(f"{name:17}{sum(seconds):10.2f}    {statistics.median(seconds) * 1e3:.3f} ({min(seconds) * 1e3:.3f})", flush=True)
            output.append({"storage": name, "seconds": sum(seconds), "median_ms": statistics.median(seconds) * 1e3, "min_ms": min(seconds) * 1e3})
        for side in sides.values():
            side.close()
    return output + judged_cost(output)


def judged_cost(rows):
    """Medians of one thread and of two: the one that is worse for us."""
    print()
    ms = {(row["cost"], row["threads"]): row for row in rows if "cost" in row}
    out = []
    for peer, share in (("optuna_gp", 5), ("optuna_tpe", 1)):
        ratios = [(theirs[n]["median_ms"] / ms["ours_hybrid", threads][n]["median_ms"], n) for (side, threads), theirs in ms.items()
                  if side == peer and ("ours_hybrid", threads) in ms for n in (50, 500, 5000) if n in theirs]
        if ratios:
            out.append(target(f"a suggestion takes {'a fifth of ' if share == 5 else ''}{peer}'s time at most", min(ratios)[0] >= share,
                              f"{peer} takes {min(ratios)[0]:.1f} times ours' after {min(ratios)[1]} trials, where it is least"))
    memory = [[row[n]["mib"] for n in (50, 5000)] for (side, _), row in ms.items() if side == "ours_hybrid"]
    if memory:
        out.append(target("memory is flat", all(last - first < 32 for first, last in memory),
                          "; ".join(f"{first:.0f} MiB after 50 trials, {last:.0f} after 5,000" for first, last in memory)))
    seconds = next(row["seconds"] for row in rows if row.get("storage") == "ours_random")
    return [*out, target("1,000 trials in SQLite under 2 s", seconds < 2, f"{seconds:.2f} s")]


def isa():
    flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "neither AVX2 nor AVX-512"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(tune_problems.FAMILIES))
    parser.add_argument("--problems", default="", help="a part of the problems' names")
    parser.add_argument("--sides", default=DEFAULT, help=f"of {', '.join(SIDES)}; optuna_gp:50 stops that side at 50 evaluations")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--reuse", help="a folder that keeps the runs of peers, for developing; without it everything runs anew")
    parser.add_argument("--only-read", action="store_true", help="leave out peers' runs that are not in --reuse's folder, and all of which a side lacks")
    parser.add_argument("--by-problem", action="store_true", help="a line for each problem as well")
    parser.add_argument("--cost", action="store_true", help="how long suggestions and storage take, instead")
    parser.add_argument("--json", help="a file for the result")
    args = parser.parse_args()
    asked = dict((side.split(":") + [args.evaluations])[:2] for side in args.sides.split(","))
    for side in [side for side in asked if side not in SIDES]:
        parser.error(f"no side {side}")
    print(f"load {os.getloadavg()[0]:.2f}; {isa()}; " + ", ".join(f"{side} {version(side) or 'missing'}" for side in asked), flush=True)
    sides = {side: min(int(evaluations), args.evaluations) for side, evaluations in asked.items() if version(side)}
    if args.cost:
        args.sides = sides
        output = cost(args)
    else:
        families = {family: [p.name for p in problems(family) if args.problems in p.name] for family in args.families.split(",")}
        results = all_runs(sides, list(itertools.chain(*families.values())), args)
        output = report(results, sides, families, args)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(output))
    print(json.dumps(output))


if __name__ == "__main__":
    main()
