"""Problems that samplers of hyper-parameters are compared on, and a neutral description of their spaces. Run it to check them.

bbob: 10 of COCO's noiseless functions (Hansen, Finck, Ros and Auger, 2009, INRIA RR-6829) in 2, 5, 10 and 20 dimensions.
mixed: categories, integers, conditions and a finite space: functions from the literature, each named where it is defined.
sklearn: losses of scikit-learn's models on its real sets, in the manner of Bayesmark (Turner et al., 2021): tables of tune_tables.py, interpolated.
network: learning rate, batch size and dropout of a small network, a table as well.

The families of tables are empty until tune_tables.py made them, in build/tune or where TUNE_TABLES says.
"""

import argparse
import itertools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

TABLES = pathlib.Path(os.environ.get("TUNE_TABLES", pathlib.Path(__file__).resolve().parents[1] / "build" / "tune"))
FAMILIES = ("bbob", "mixed", "sklearn", "network")


@dataclass(frozen=True)
class Float:
    low: float
    high: float
    log: bool = False
    when: tuple | None = None  # (a parameter's name, the values of it that this one exists with)


@dataclass(frozen=True)
class Int:
    low: int
    high: int
    log: bool = False
    when: tuple | None = None


@dataclass(frozen=True)
class Choice:
    values: tuple
    ordered: bool = False
    when: tuple | None = None


@dataclass(frozen=True)
class Problem:
    """problem(params) is a loss; params may leave out what is inactive, and what it has of that is ignored."""

    name: str
    family: str
    space: dict
    function: Callable
    minimum: float

    def __call__(self, params):
        return float(self.function(params))


def active(space, params):
    """Those of params that exist, given the others; a parameter stands behind the one that it depends on."""
    kept = {}
    for name, spec in space.items():
        if spec.when is None or kept.get(spec.when[0]) in spec.when[1] and spec.when[0] in kept:
            kept[name] = params[name]
    return kept


def sample(space, rng):
    """One point, uniform in each parameter (in its logarithm if it says so)."""
    params = {}
    for name, spec in space.items():
        if isinstance(spec, Choice):
            params[name] = spec.values[rng.integers(len(spec.values))]
        elif isinstance(spec, Int):
            if spec.log:
                x = math.exp(rng.uniform(math.log(spec.low - 0.5), math.log(spec.high + 0.5)))
                params[name] = min(spec.high, max(spec.low, round(x)))
            else:
                params[name] = int(rng.integers(spec.low, spec.high + 1))
        else:
            params[name] = math.exp(rng.uniform(math.log(spec.low), math.log(spec.high))) if spec.log else rng.uniform(spec.low, spec.high)
    return active(space, params)


# ---------------------------------------------------------------------------------------------------------------- bbob


def oscillate(x):
    """T_osz of the report: ripples of a smooth function, without moving 0 or signs."""
    size = np.log(np.abs(np.where(x == 0, 1, x)))
    c1, c2 = np.where(x > 0, 10, 5.5), np.where(x > 0, 7.9, 3.1)
    return np.sign(x) * np.exp(size + 0.049 * (np.sin(c1 * size) + np.sin(c2 * size)))


def rotation(rng, d):
    q, r = np.linalg.qr(rng.normal(size=(d, d)))
    return q * np.sign(np.diag(r))


class Bbob:
    """A function of an instance: x_opt, f_opt and the rotations R and Q are drawn by the seed. The penalty f_pen is 0 within the domain."""

    def __init__(self, name, d, seed):
        rng = np.random.default_rng((d, seed))
        self.at = getattr(self, name)
        self.f_opt = float(np.clip(np.round(100 * rng.standard_cauchy(), 2), -1000, 1000))
        self.x_opt = rng.uniform(-3, 3, d) if name == "rosenbrock" else rng.uniform(-4, 4, d)
        self.R, self.Q = rotation(rng, d), rotation(rng, d)
        self.d = d
        self.steps = np.arange(d) / (d - 1)
        self.sqrt_10 = 10 ** (self.steps / 2)  # the diagonal of Lambda^10
        self.stretched = self.Q @ np.diag(self.sqrt_10) @ self.R
        self.stretch = max(1, math.sqrt(d) / 8)
        self.names = [f"x{i}" for i in range(d)]

    def __call__(self, params):
        x = np.array([params[name] for name in self.names], float)
        return self.at(x) + self.f_opt

    def asymmetric(self, x, beta):
        """T_asy of the report: the positive half grows faster, the later the coordinate the more."""
        return np.where(x > 0, np.abs(x) ** (1 + beta * self.steps * np.sqrt(np.abs(x))), x)

    def sphere(self, x):  # f1
        return np.sum((x - self.x_opt) ** 2)

    def rastrigin(self, x):  # f3, separable
        z = self.sqrt_10 * self.asymmetric(oscillate(x - self.x_opt), 0.2)
        return 10 * (self.d - np.sum(np.cos(2 * np.pi * z))) + np.sum(z * z)

    def attractive_sector(self, x):  # f6
        z = self.stretched @ (x - self.x_opt)
        total = np.sum((np.where(z * self.x_opt > 0, 100, 1) * z) ** 2)
        return float(oscillate(total)) ** 0.9

    def step_ellipsoid(self, x):  # f7
        near = self.sqrt_10 * (self.R @ (x - self.x_opt))
        z = self.Q @ np.where(np.abs(near) > 0.5, np.floor(0.5 + near), np.floor(0.5 + 10 * near) / 10)
        return 0.1 * max(abs(near[0]) / 1e4, np.sum(100**self.steps * z * z))

    def rosenbrock(self, x):  # f8
        z = self.stretch * (x - self.x_opt) + 1
        return np.sum(100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2)

    def ellipsoid(self, x):  # f10, rotated
        z = oscillate(self.R @ (x - self.x_opt))
        return np.sum(1e6**self.steps * z * z)

    def sharp_ridge(self, x):  # f13
        z = self.stretched @ (x - self.x_opt)
        return z[0] ** 2 + 100 * math.sqrt(np.sum(z[1:] ** 2))

    def different_powers(self, x):  # f14
        z = np.abs(self.R @ (x - self.x_opt))
        return math.sqrt(np.sum(z ** (2 + 4 * self.steps)))

    def schaffers(self, x):  # f17, F7 of Schaffer
        z = self.sqrt_10 * (self.Q @ self.asymmetric(self.R @ (x - self.x_opt), 0.5))
        s = np.sqrt(z[:-1] ** 2 + z[1:] ** 2)
        return np.mean(np.sqrt(s) * (1 + np.sin(50 * s**0.2) ** 2)) ** 2

    def griewank_rosenbrock(self, x):  # f19, but shifted to x_opt: as published it is least next to the middle, where some samplers start
        z = self.stretch * (self.R @ (x - self.x_opt)) + 1
        s = 100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2
        return 10 * np.mean(s / 4000 - np.cos(s)) + 10


BBOB = ("sphere", "rastrigin", "attractive_sector", "step_ellipsoid", "rosenbrock", "ellipsoid", "sharp_ridge", "different_powers", "schaffers",
        "griewank_rosenbrock")


def bbob():
    for d in (2, 5, 10, 20):
        for seed, name in enumerate(BBOB):
            function = Bbob(name, d, seed)
            yield Problem(f"{name}_{d}", "bbob", {x: Float(-5.0, 5.0) for x in function.names}, function, function.f_opt)


# --------------------------------------------------------------------------------------------------------------- mixed


def rosenbrock(x, y):
    return 100 * (y - x * x) ** 2 + (x - 1) ** 2


CAMEL = -1.0316284534898774


def camel(x, y):
    return (4 - 2.1 * x * x + x**4 / 3) * x * x + x * y + (4 * y * y - 4) * y * y


def beale(x, y):
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y * y) ** 2 + (2.625 - x + x * y**3) ** 2


BRANIN = 0.39788735772973816


def branin(x, y):
    return (y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


HARTMANN = -3.8627797869493365


def hartmann(*x):
    total = 0.0
    for alpha, a, p in zip((1.0, 1.2, 3.0, 3.2), ((3.0, 10, 30), (0.1, 10, 35), (3.0, 10, 30), (0.1, 10, 35)),
                           ((0.3689, 0.117, 0.2673), (0.4699, 0.4387, 0.747), (0.1091, 0.8732, 0.5547), (0.0381, 0.5743, 0.8828))):
        total -= alpha * math.exp(-sum(ai * (xi - pi) ** 2 for ai, xi, pi in zip(a, x, p)))
    return total


def func_c(params, names):
    """Func-2C and Func-3C (Ru et al., 2020, CoCaBO): each category adds a function of the same two numbers."""
    x, y = 2 * params["x"], 2 * params["y"]
    parts = {"rosenbrock": lambda: rosenbrock(x, y) / 300, "camel": lambda: camel(x, y) / 10, "beale": lambda: beale(x, y) / 50}
    total = 0.0
    for name in names:
        value = params[name]
        if name == "h3":
            part, factor = {"5 camel": ("camel", 5), "2 rosenbrock": ("rosenbrock", 2), "2 beale": ("beale", 2), "3 beale": ("beale", 3)}[value]
        else:
            part, factor = value.rstrip("23"), 1
        total += factor * parts[part]()
    return total


# Where functions whose least value is published to be at 0 have it here, so that a sampler that starts in the middle is no better for that.
ACKLEY = {**{f"b{i}": int(i % 3 == 0) for i in range(10)}, "x0": 0.31, "x1": -0.57, "x2": 0.12}
TREE = {"x4": -0.36, "x5": 0.52, "x6": 0.17, "x7": -0.61}


def ackley_binary(params):
    """Ackley's function of binary and real coordinates, as Ackley-53 (Bliek et al., 2021; Wan et al., 2021), of 10 and 3 instead of 50 and 3."""
    x = [params[name] - at for name, at in ACKLEY.items()]
    squares, cosines = sum(v * v for v in x) / len(x), sum(math.cos(2 * math.pi * v) for v in x) / len(x)
    return 20 + math.e - 20 * math.exp(-0.2 * math.sqrt(squares)) - math.exp(cosines)


class MixedInteger:
    """As bbob-mixint (Tusar, Brockhoff and Hansen, 2019): fifths of the coordinates have 2, 4, 8, 16 and all values; x_opt is among them."""

    ARITIES = (2, 4, 8, 16, None)

    def __init__(self, name, d, seed):
        self.function = Bbob(name, d, seed)
        self.arities = [self.ARITIES[5 * i // d] for i in range(d)]
        self.space = {x: Int(0, arity - 1) if arity else Float(-5.0, 5.0) for x, arity in zip(self.function.names, self.arities)}
        nearest = [round((x + 4) / 8 * (arity - 1)) if arity else x for x, arity in zip(self.function.x_opt, self.arities)]
        self.function.x_opt = self.place(nearest)

    def place(self, values):
        return np.array([8 * x / (arity - 1) - 4 if arity else x for x, arity in zip(values, self.arities)], float)

    def __call__(self, params):
        return self.function.at(self.place([params[x] for x in self.function.names])) + self.function.f_opt


def branches(params):
    """A choice of algorithm with parameters of its own: functions of Branin, Hartmann and the camel, shifted so that Hartmann's is best by little."""
    if params["algorithm"] == "branin":
        return (branin(params["branin_x"], params["branin_y"]) - BRANIN) / 50 + 0.05
    if params["algorithm"] == "camel":
        return (camel(params["camel_x"], params["camel_y"]) - CAMEL) / 10 + 0.02
    return 1 - hartmann(params["hartmann_a"], params["hartmann_b"], params["hartmann_c"]) / HARTMANN


def tree(params):
    """The tree of Jenatton et al. (2017), whose leaves are parabolas; x4 to x7 exist in one leaf each, r8 and r9 in two."""
    if params["x1"] == 0:
        leaf, more = ("x4", 0.1) if params["x2"] == 0 else ("x5", 0.2)
    else:
        leaf, more = ("x6", 0.3) if params["x3"] == 0 else ("x7", 0.4)
    return (params[leaf] - TREE[leaf]) ** 2 + more + params["r8" if params["x1"] == 0 else "r9"]


def layers(params):
    """Parabolas in the manner of a network's training: the best learning rate depends on the optimizer and on all widths; widths exist by depth."""
    depth = params["layers"]
    widths = [math.log2(params[f"width_{i}"]) for i in range(1, depth + 1)]
    adam = params["optimizer"] == "adam"
    best = (-3.0 if adam else -1.5) - 0.1 * (sum(widths) - 12)
    loss = (0.3, 0.05, 0.1)[depth - 1] + 0.04 * sum((w - target) ** 2 for w, target in zip(widths, (7, 5, 6))) / depth
    loss += 0.1 * (math.log10(params["learning_rate"]) - best) ** 2 + 0.2 * (params["dropout"] - 0.1 * depth) ** 2
    return loss if adam else loss + 0.02 + 2 * (params["momentum"] - 0.9) ** 2


class Finite:
    """Choices of no order: an effect for each value and a smaller one for each pair of neighbours in a ring, as in NK landscapes (Kauffman, 1989)."""

    def __init__(self, sizes, seed):
        rng = np.random.default_rng(seed)
        self.names = [f"c{i}" for i in range(len(sizes))]
        self.space = {name: Choice(tuple("abcdefgh"[:size])) for name, size in zip(self.names, sizes)}
        self.single = [rng.random(size) for size in sizes]
        self.pair = [0.7 * rng.random((size, after)) for size, after in zip(sizes, [*sizes[1:], sizes[0]])]

    def __call__(self, params):
        at = ["abcdefgh".index(params[name]) for name in self.names]
        return sum(s[i] + p[i, j] for s, p, i, j in zip(self.single, self.pair, at, [*at[1:], at[0]])) / len(at)

    def minimum(self):
        """Exact, by dynamic programming around the ring from each value of the first."""
        best = math.inf
        for first in range(len(self.single[0])):
            cost = np.full(len(self.single[0]), np.inf)
            cost[first] = 0
            for s, p in zip(self.single, self.pair):
                cost = np.min((cost + s)[:, None] + p, axis=0)
            best = min(best, cost[first])
        return best / len(self.names)


def mixed():
    square = {"x": Float(-1.0, 1.0), "y": Float(-1.0, 1.0)}
    kinds = Choice(("rosenbrock", "camel", "beale"))
    more = Choice(("rosenbrock", "camel", "beale", "beale2", "beale3"))  # as published: the last three are the same function
    yield Problem("func_2c", "mixed", {"h1": kinds, "h2": more, **square}, partial(func_c, names=("h1", "h2")), 0.2 * CAMEL)
    yield Problem("func_3c", "mixed", {"h1": kinds, "h2": more, "h3": Choice(("5 camel", "2 rosenbrock", "2 beale", "3 beale")), **square},
                  partial(func_c, names=("h1", "h2", "h3")), 0.7 * CAMEL)
    yield Problem("ackley_binary", "mixed", {**{f"b{i}": Choice((0, 1)) for i in range(10)}, **{f"x{i}": Float(-1.0, 1.0) for i in range(3)}},
                  ackley_binary, 0.0)
    for name, d in (("ellipsoid", 5), ("rastrigin", 10)):
        function = MixedInteger(name, d, 100)
        yield Problem(f"mixint_{name}", "mixed", function.space, function, function.function.f_opt)
    own = {name: ("algorithm", (name,)) for name in ("branin", "hartmann", "camel")}
    yield Problem("branches", "mixed", {
        "algorithm": Choice(("branin", "hartmann", "camel")),
        "branin_x": Float(-5.0, 10.0, when=own["branin"]), "branin_y": Float(0.0, 15.0, when=own["branin"]),
        **{f"hartmann_{x}": Float(0.0, 1.0, when=own["hartmann"]) for x in "abc"},
        "camel_x": Float(-3.0, 3.0, when=own["camel"]), "camel_y": Float(-2.0, 2.0, when=own["camel"])}, branches, 0.0)
    yield Problem("tree", "mixed", {
        "x1": Choice((0, 1)), "x2": Choice((0, 1), when=("x1", (0,))), "x3": Choice((0, 1), when=("x1", (1,))),
        "x4": Float(-1.0, 1.0, when=("x2", (0,))), "x5": Float(-1.0, 1.0, when=("x2", (1,))),
        "x6": Float(-1.0, 1.0, when=("x3", (0,))), "x7": Float(-1.0, 1.0, when=("x3", (1,))),
        "r8": Float(0.0, 1.0, when=("x1", (0,))), "r9": Float(0.0, 1.0, when=("x1", (1,)))}, tree, 0.1)
    yield Problem("layers", "mixed", {
        "optimizer": Choice(("sgd", "adam")), "learning_rate": Float(1e-5, 1.0, log=True), "dropout": Float(0.0, 0.5),
        "momentum": Float(0.0, 0.99, when=("optimizer", ("sgd",))), "layers": Int(1, 3), "width_1": Int(8, 512, log=True),
        "width_2": Int(8, 512, log=True, when=("layers", (2, 3))), "width_3": Int(8, 512, log=True, when=("layers", (3,)))}, layers, 0.05)
    for name, sizes in (("finite", (4, 5, 6)), ("finite_ring", (4,) * 10)):
        function = Finite(sizes, 7)
        yield Problem(name, "mixed", function.space, function, function.minimum())


# -------------------------------------------------------------------------------------------------------------- tables


class Table:
    """Losses measured at all combinations of some levels, linear between them (in the logarithm of an axis that says so), exact for choices.

    Such a function is least at a level, so that its minimum is known.
    """

    def __init__(self, axes, losses):
        self.axes = [(axis["name"], axis.get("log", False), axis["levels"]) for axis in axes]
        self.losses = losses
        self.index = [{v: i for i, v in enumerate(axis["levels"])} if axis["kind"] == "choice" else None for axis in axes]
        self.at = [[math.log(v) if log else v for v in levels] if index is None else None
                   for (_, log, levels), index in zip(self.axes, self.index)]

    def __call__(self, params):
        block = self.losses
        for (name, log, _), at, index in zip(self.axes, self.at, self.index):
            if index is not None:
                block = block[index[params[name]]]
                continue
            x = math.log(params[name]) if log else params[name]
            i = 0
            while i < len(at) - 2 and x > at[i + 1]:
                i += 1
            weight = (x - at[i]) / (at[i + 1] - at[i])
            block = (1 - weight) * block[i] + weight * block[i + 1] if weight else block[i]
        return block


def specification(axis):
    """An axis of a table's file, as a parameter."""
    levels = axis["levels"]
    if axis["kind"] == "choice":
        return Choice(tuple(levels), ordered=axis["ordered"])
    return (Float if axis["kind"] == "float" else Int)(levels[0], levels[-1], log=axis["log"])


def tables(family):
    for path in sorted(TABLES.glob(f"{family}-*.npz")):
        with np.load(path) as file:
            axes, losses = json.loads(str(file["axes"])), file["losses"]
        space = {axis["name"]: specification(axis) for axis in axes}
        yield Problem(path.stem.split("-", 1)[1], family, space, Table(axes, losses), float(losses.min()))


@cache
def problems(family=None):
    """All problems, or those of a family."""
    if family is None:
        return [problem for name in FAMILIES for problem in problems(name)]
    return list({"bbob": bbob, "mixed": mixed}[family]() if family in ("bbob", "mixed") else tables(family))


def check(problem):
    """Whether the minimum is what it is said to be: attained where it is known to be, and nowhere less."""
    rng = np.random.default_rng(0)
    points = [sample(problem.space, rng) for _ in range(2000)]
    start = time.perf_counter()
    losses = [problem(point) for point in points]
    microseconds = (time.perf_counter() - start) / len(points) * 1e6
    tolerance = 1e-9 * max(1, abs(problem.minimum))
    function = problem.function
    if isinstance(function, Bbob):
        best = function(dict(zip(function.names, function.x_opt)))
    elif isinstance(function, MixedInteger):
        place = [x if arity is None else round((x + 4) / 8 * (arity - 1)) for x, arity in zip(function.function.x_opt, function.arities)]
        best = problem(dict(zip(problem.space, place)))
    elif isinstance(function, Table):
        best = problem({name: levels[i] for (name, _, levels), i in zip(function.axes, np.unravel_index(np.argmin(function.losses), function.losses.shape))})
    elif problem.name == "finite":
        best = min(problem(dict(zip(problem.space, values))) for values in itertools.product(*(spec.values for spec in problem.space.values())))
    elif problem.name == "finite_ring":
        best = problem.minimum  # by dynamic programming, which `finite` shows to be right
    else:
        best = problem({"func_2c": {"h1": "camel", "h2": "camel", "x": 0.0898420131 / 2, "y": -0.7126564030 / 2},
                        "func_3c": {"h1": "camel", "h2": "camel", "h3": "5 camel", "x": 0.0898420131 / 2, "y": -0.7126564030 / 2},
                        "ackley_binary": ACKLEY,
                        "branches": {"algorithm": "hartmann", "hartmann_a": 0.1145889, "hartmann_b": 0.5556489, "hartmann_c": 0.8525469},
                        "tree": {"x1": 0, "x2": 0, "x4": TREE["x4"], "r8": 0.0},
                        "layers": {"optimizer": "adam", "learning_rate": 1e-3, "dropout": 0.2, "layers": 2, "width_1": 128, "width_2": 32}}[problem.name])
    assert abs(best - problem.minimum) <= tolerance, (problem.name, best, problem.minimum)
    assert min(losses) >= problem.minimum - tolerance, (problem.name, min(losses), problem.minimum)
    return np.median(losses), microseconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    args = parser.parse_args()
    print(f"{'family':9}{'problem':26}{'parameters':>11}{'minimum':>13}{'median':>13}{'us':>7}")
    for problem in (problem for family in args.families for problem in problems(family)):
        median, microseconds = check(problem)
        print(f"{problem.family:9}{problem.name:26}{len(problem.space):11}{problem.minimum:13.5g}{median:13.5g}{microseconds:7.0f}")


if __name__ == "__main__":
    main()
