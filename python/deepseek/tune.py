"""Hyper-parameter search: spaces, studies, samplers and pruners. `deepseek tune` is the same from the command line.

    study = tune.Study({"lr": tune.log(1e-5, 1e-2), "layers": (1, 4), "kind": ["relu", "gelu"]}, max_trials=50)
    study.optimize(lambda trial: loss_of(**trial.params))
    print(study.best_params, study.best_value)
"""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib
import itertools
import json
import math
import sys
import threading
import typing
import warnings

from . import _tune, console
from ._tune import hypervolume, pareto_front, pruner_names, sampler_names

if typing.TYPE_CHECKING:
    import optuna

    from .tune_optuna import from_optuna as from_optuna
    from .tune_optuna import to_optuna as to_optuna
    from .tune_sklearn import BayesSearchCV as BayesSearchCV

__all__ = [
    "FailedTrial", "Parameter", "PausedTrial", "PrunedTrial", "Study", "Trial", "StudySummary", "choice", "delete_study", "hypervolume",
    "integer", "list_studies", "log", "pareto_front",
    "pruner_names", "sampler_names", "uniform",
]

# Loaded on first use, with what they need; not in __all__, lest `import *` needs it.
_LAZY = {"BayesSearchCV": "tune_sklearn", "from_optuna": "tune_optuna", "to_optuna": "tune_optuna"}

if not typing.TYPE_CHECKING:  # else mypy takes any name for one of this module's

    def __getattr__(name: str) -> typing.Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{_LAZY[name]}", __package__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


class PrunedTrial(Exception):
    """Raised by an objective that stops because its pruner says so."""


class PausedTrial(Exception):
    """Raised by an objective that has saved its work, where should_prune() says stop: asha and hyperband may give the trial again, with
    its reports, to go on from there. Of other pruners it is a PrunedTrial."""


class FailedTrial(Exception):
    """Raised by an objective whose parameters can't be evaluated; the search goes on and avoids what is like them."""


class Parameter:
    """A range or choices; made by uniform(), log(), integer() and choice()."""

    def __init__(self, spec: dict[str, typing.Any], choices: list[typing.Any] | None = None) -> None:
        self.spec = spec
        self.choices = choices

    def when(self, **conditions: typing.Any) -> Parameter:
        """Active only where the named parameter, a choice or an int before this one, has the value or one of a list's values."""
        if len(conditions) != 1:
            raise ValueError(f"when: expected one parameter, got {len(conditions)}")
        return Parameter({**self.spec, "when": conditions}, self.choices)

    def __repr__(self) -> str:
        return f"Parameter({self.spec})"


def uniform(low: float, high: float, *, step: float | None = None) -> Parameter:
    """A float from low to high, both inside; with `step` only low + k * step."""
    return Parameter({"type": "float", "low": float(low), "high": float(high), "log": False, "step": step})


def log(low: float, high: float) -> Parameter:
    """A float, or an int where both bounds are ints, evenly in the logarithm."""
    if _is_int(low) and _is_int(high):
        return integer(typing.cast(int, low), typing.cast(int, high), log=True)
    return Parameter({"type": "float", "low": float(low), "high": float(high), "log": True})


def integer(low: int, high: int, *, step: int = 1, log: bool = False) -> Parameter:
    """An int from low to high, both inside."""
    return Parameter({"type": "int", "low": low, "high": high, "log": log, "step": step})


def choice(values: collections.abc.Iterable[typing.Any], *, ordered: bool | None = None) -> Parameter:
    """One of the values, which may be any objects. `ordered`: neighbours are alike; by default where they are numbers that rise."""
    values = list(values)
    spec: dict[str, typing.Any] = {"type": "choice", "choices": _stand_ins(values)}
    if ordered is not None:
        spec["ordered"] = ordered
    return Parameter(spec, values)


def list_studies(storage: str) -> list[StudySummary]:
    """The studies of a database, by name."""
    return [StudySummary(*fields) for fields in _tune.list_studies(storage)]


def delete_study(storage: str, name: str) -> None:
    """Deletes a study with all its trials."""
    _tune.delete_study(storage, name)


@dataclasses.dataclass(frozen=True)
class StudySummary:
    """A study of a database: when it was made (seconds since 1970), its trials, and how many of them have ended."""

    name: str
    created: float
    trials: int
    finished: int


def _is_int(value: typing.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) or type(value).__module__ == "numpy" and hasattr(
        value, "dtype") and value.dtype.kind in "iu"


def _as_json(value: typing.Any) -> typing.Any:
    """What stands for a value in a store: itself where JSON has it, else how it prints."""
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    try:
        json.dumps(value, allow_nan=False)
        return value
    except (TypeError, ValueError):
        return getattr(value, "__qualname__", None) or repr(value)


def _stand_ins(values: list[typing.Any]) -> list[typing.Any]:
    """_as_json() of each; objects that print alike, such as lambdas, are numbered."""
    listed: list[typing.Any] = []
    for value in values:
        text = _as_json(value)
        if type(text) is str and not isinstance(value, str) and text in listed:
            text = next(t for k in itertools.count(2) if (t := f"{text} #{k}") not in listed)
        listed.append(text)
    return listed


def _parameter(name: str, spec: typing.Any) -> Parameter:
    if isinstance(spec, Parameter):
        return spec
    if isinstance(spec, tuple):
        if len(spec) == 2 and all(isinstance(v, (int, float)) or hasattr(v, "dtype") for v in spec):
            low, high = (int(v) if _is_int(v) else float(v) for v in spec)
            return Parameter({"low": low, "high": high})
        raise ValueError(f"parameter '{name}': expected a tuple (low, high) of numbers, got {spec!r}; a list is a choice")
    if isinstance(spec, (list, range)) or type(spec).__module__ == "numpy" and getattr(spec, "ndim", 0) == 1:
        return choice(spec)
    if isinstance(spec, dict):
        if "choices" in spec:
            spec = {**spec, "choices": list(spec["choices"])}
            return Parameter({**spec, "choices": _stand_ins(spec["choices"])}, spec["choices"])
        return Parameter(spec)
    if isinstance(spec, (str, int, float, bool)) or spec is None:
        return choice([spec])
    raise ValueError(f"parameter '{name}': expected (low, high), a list of choices, or uniform(), log(), integer(), choice() "
                     f"of deepseek.tune, got {spec!r}")


class Space:
    """Named parameters; values of points are Python's own objects."""

    def __init__(self, parameters: collections.abc.Mapping[str, typing.Any] | Space) -> None:
        if isinstance(parameters, Space):
            self.parameters: dict[str, Parameter] = parameters.parameters
        elif isinstance(parameters, collections.abc.Mapping):
            self.parameters = {str(name): _parameter(name, spec) for name, spec in parameters.items()}
        else:
            raise TypeError(f"space: expected a dict of parameters, got {type(parameters).__name__}")
        text = json.dumps({name: {k: v for k, v in p.spec.items() if v is not None} for name, p in self.parameters.items()},
                          default=_as_json)
        self._space = _tune.Space.parse(text)
        self.names = self._space.names()
        self._kinds = self._space.kinds()

    @classmethod
    def _from_json(cls, text: str) -> Space:
        return cls(json.loads(text))

    def params(self, point: collections.abc.Sequence[float]) -> dict[str, typing.Any]:
        """A point's active parameters."""
        values: dict[str, typing.Any] = {}
        for name, kind, value in zip(self.names, self._kinds, point):
            if math.isnan(value):
                continue
            if kind == "choice":
                parameter = self.parameters[name]
                choices = parameter.choices if parameter.choices is not None else parameter.spec["choices"]
                values[name] = choices[int(value)]
            else:
                values[name] = int(value) if kind == "int" else float(value)
        return values

    def point(self, params: collections.abc.Mapping[str, typing.Any], *, partial: bool = False) -> list[float]:
        """Numbers of parameters; with `partial` those that are missing are NaN."""
        unknown = set(params) - set(self.names)
        if unknown:
            raise ValueError(f"unknown parameter {sorted(unknown)}; the space has {self.names}")
        point = [math.nan] * len(self.names)
        for i, (name, kind) in enumerate(zip(self.names, self._kinds)):
            if name not in params:
                continue
            if kind == "choice":
                parameter = self.parameters[name]
                choices = parameter.choices if parameter.choices is not None else parameter.spec["choices"]
                found = [k for k, c in enumerate(choices) if c is params[name] or _same(c, params[name])]
                if not found:
                    raise ValueError(f"parameter '{name}': {params[name]!r} is none of {choices}")
                point[i] = found[0]
            else:
                point[i] = float(params[name])
        if not partial:
            self._space.check(point)
        return point

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return Space, (self.parameters,)

    @property
    def cardinality(self) -> float:
        """Number of different points; infinite where a float has no step."""
        return self._space.cardinality()


def _same(a: typing.Any, b: typing.Any) -> bool:
    try:
        return type(a) is type(b) and bool(a == b) or (isinstance(a, (int, float)) and isinstance(b, (int, float)) and a == b
                                                       and isinstance(a, bool) == isinstance(b, bool))
    except (TypeError, ValueError):
        return False


@dataclasses.dataclass(frozen=True)
class FrozenTrial:
    """A trial as it was when it was asked for: params; state running, complete, pruned, failed, paused or waiting; values, one
    per objective; constraints (fulfilled where <= 0); reports, pairs of step and value; seconds since 1970."""

    number: int
    state: str
    params: dict[str, typing.Any]
    values: list[float]
    constraints: list[float]
    reports: list[tuple[int, float]]
    error: str
    worker: str
    note: typing.Any
    started: float
    ended: float

    @property
    def value(self) -> float | None:
        return self.values[0] if self.values else None


class Trial:
    """A running trial: what an objective gets."""

    def __init__(self, study: Study, number: int, params: dict[str, typing.Any],
                 reports: list[tuple[int, float]] | None = None) -> None:
        self.study = study
        self.number = number
        self.params = params
        self.reports = reports or []  # of a worker before this one, or before a pause
        self._stops = False
        self.constraints: list[float] = []

    def __getitem__(self, name: str) -> typing.Any:
        return self.params[name]

    def report(self, value: float, step: int) -> None:
        """Tells an intermediate value of the objective, for pruners."""
        self._stops = self.study._study.report(self.number, int(step), float(value))

    def should_prune(self) -> bool:
        """Whether the study's pruner would stop here; the objective then raises PrunedTrial, or PausedTrial if it can go on later."""
        return self._stops

    def __repr__(self) -> str:
        return f"Trial({self.number}, {self.params})"


class Study:
    """A search over a space.

    space: dict of name to (low, high), a list of choices, or uniform(), log(), integer(), choice(). A tuple of ints is an int,
      else a float; logarithmic where low > 0 and high >= 100 low. Choices are ordered where they are numbers that rise.
    direction: minimize or maximize, one or a list (several objectives).
    sampler: hybrid (default), gp, tpe, cmaes, qmc, random, grid.
    pruner: none (default), median, percentile, asha, hyperband, patience, threshold, with parameters: "asha(min_step=1, factor=3)".
    constraints: functions of params that are true where a point is allowed.
    max_trials, max_seconds, patience: budgets; None: no limit. Seconds count from this process's first ask(); patience: complete trials
      that brought nothing better. A search that is over gives no trials any more.
    storage, name: a database that processes share: "study.db", "sqlite:///study.db", "postgresql://host/database". The study of
      this name goes on where there is one, else it is made.
    grace: seconds without a sign of life after which a worker's trial is given to another (storage only).
    """

    def __init__(self, space: collections.abc.Mapping[str, typing.Any] | Space | None = None, *,
                 direction: str | collections.abc.Sequence[str] = "minimize", sampler: str = "hybrid", pruner: str = "none",
                 seed: int = 0, max_trials: int | None = None, max_seconds: float | None = None, patience: int | None = None,
                 constraints: typing.Callable[[dict[str, typing.Any]], bool]
                 | collections.abc.Sequence[typing.Callable[[dict[str, typing.Any]], bool]] = (),
                 storage: str | None = None, name: str = "study", grace: float = 120) -> None:
        directions = [direction] if isinstance(direction, str) else list(direction)
        for d in directions:
            if d not in ("minimize", "maximize"):
                raise ValueError(f"direction: expected minimize or maximize, got {d!r}")
        if space is None:
            raise ValueError("expected a space")
        self.space = Space(space)
        self._checks = [constraints] if callable(constraints) else list(constraints)
        config = {
            "space": json.loads(self.space._space.to_json()), "directions": directions, "sampler": sampler, "pruner": pruner,
            "seed": int(seed), "max_trials": max_trials or 0, "max_seconds": max_seconds or 0, "patience": patience or 0,
            "grace": grace if storage else 0, "max_attempts": 3,
        }
        self.directions = directions
        self._stopped = False
        self.name = name
        self._open(config, storage or "")

    def _open(self, config: dict[str, typing.Any], storage: str) -> None:
        allowed = None
        if self._checks:
            allowed = lambda point: all(c(self.space.params(point)) for c in self._checks)  # noqa: E731
        self._study = _tune.Study.make(json.dumps(config), storage, self.name, allowed)

    def __getstate__(self) -> dict[str, typing.Any]:
        """Settings and trials. What is unpickled is in memory, and its trials that were not finished wait to be run anew."""
        state = {name: value for name, value in self.__dict__.items() if name != "_study"}
        return {**state, "config": self._study.config(), "fields": self._study.trials()}

    def __setstate__(self, state: dict[str, typing.Any]) -> None:
        config, trials = json.loads(state.pop("config")), state.pop("fields")
        self.__dict__.update(state)
        self._open({**config, "grace": 0}, "")
        for number, status, point, values, constraints, reports, error, worker, note, started, ended in trials:
            if status in ("complete", "pruned", "failed"):
                self._study.add(status, point, values, constraints, reports, error, worker, note, started, ended)
            else:
                self._study.enqueue(point)
                if note:
                    self._study.set_note(number, note)

    def to_optuna(self, storage: typing.Any = None, study_name: str | None = None) -> optuna.Study:
        """A copy for Optuna; see deepseek.tune.to_optuna()."""
        from .tune_optuna import to_optuna

        return to_optuna(self, storage, study_name)

    @classmethod
    def load(cls, storage: str, name: str = "study", **settings: typing.Any) -> Study:
        """The study of this name as it was made; choices that JSON doesn't have come back as text.

        settings: arguments of Study that are to be others from now on: constraints (which no database keeps), max_trials,
        max_seconds, patience, sampler, pruner, seed, grace; also the space, where its choices are objects.
        FileNotFoundError tells which studies there are where this isn't one.
        """
        config = json.loads(_tune.study_config(storage, name))
        budgets = {key: config[key] or None for key in ("max_trials", "max_seconds", "patience")}
        kept = {key: config[key] for key in ("space", "sampler", "pruner", "seed", "grace")}
        return cls(**{**kept, **budgets, "direction": config["directions"], **settings}, storage=storage, name=name)

    def ask(self) -> Trial | None:
        """The next trial; None where the search is over."""
        given = self._study.ask()
        if given is None:
            return None
        return Trial(self, given[0], self.space.params(given[2]), given[5])

    def tell(self, trial: Trial | int, values: float | collections.abc.Sequence[float] | None = None, *,
             constraints: collections.abc.Sequence[float] = (), state: str = "complete", error: str = "") -> None:
        """Ends a trial with its value, or values, one per objective. Values that aren't finite make it failed.

        state: complete, pruned or failed; paused, where the pruner may have it go on later, or waiting, to be run anew by who
        asks next. Raises ValueError where it has ended before.
        """
        if not self._end(trial, values, constraints=constraints, state=state, error=error):
            number = trial.number if isinstance(trial, Trial) else trial
            raise ValueError(f"trial {number} has ended before; its first end stays")

    def _end(self, trial: Trial | int, values: float | collections.abc.Sequence[float] | None, *,
             constraints: collections.abc.Sequence[float] = (), state: str = "complete", error: str = "") -> bool:
        number = trial.number if isinstance(trial, Trial) else int(trial)
        if not constraints and isinstance(trial, Trial):
            constraints = trial.constraints
        if values is None:
            listed = []
        elif isinstance(values, collections.abc.Sequence) or getattr(values, "ndim", 0) > 0:
            listed = [float(v) for v in typing.cast(collections.abc.Sequence[float], values)]
        else:
            listed = [float(typing.cast(float, values))]
        return self._study.tell(number, state, listed, [float(c) for c in constraints], error)

    def enqueue(self, params: collections.abc.Mapping[str, typing.Any]) -> None:
        """Tries these parameters next; those that are missing are the sampler's."""
        self._study.enqueue(self.space.point(params, partial=True))

    def add_trial(self, params: collections.abc.Mapping[str, typing.Any], values: float | collections.abc.Sequence[float], *,
                  constraints: collections.abc.Sequence[float] = (), state: str = "complete",
                  reports: collections.abc.Sequence[tuple[int, float]] = (), error: str = "", note: typing.Any = None,
                  started: float = 0, ended: float = 0) -> None:
        """Adds what was evaluated elsewhere. state: "complete", "pruned" or "failed", with an error; started, ended: seconds
        since 1970, by default now."""
        listed = [float(v) for v in values] if isinstance(values, collections.abc.Sequence) else [float(values)]
        self._study.add(state, self.space.point(params), listed, list(constraints), list(reports), error, "",
                        "" if note is None else json.dumps(note), started, ended)

    def optimize(self, objective: typing.Callable[[Trial], typing.Any], trials: int | None = None, *, workers: int = 1,
                 catch: tuple[type[Exception], ...] = (), callback: typing.Callable[[FrozenTrial], None] | None = None,
                 progress: bool = False) -> Study:
        """Asks, evaluates and tells until the search is over, or `trials` more are done.

        objective(trial) returns a number, a sequence of them (several objectives), or a dict {"value" or "values",
        "constraints"}. It may raise PrunedTrial, PausedTrial or FailedTrial; exceptions of `catch` also make a trial failed, others end the search (the
        trial is failed then). workers: threads. callback: called with each trial that has ended. stop() ends it early. progress:
        a line on stderr for each trial that is the best so far, or on the Pareto front.
        """
        budget = threading.Semaphore(trials) if trials is not None else None
        self._stopped = False
        raised: list[BaseException] = []

        def work() -> None:
            while not self._stopped and (budget is None or budget.acquire(blocking=False)):
                trial = self.ask()
                if trial is None:
                    return
                try:
                    self._evaluate(objective, trial, catch)
                    for best in self.best_trials if progress else ():
                        if best.number == trial.number:
                            console.write(f"trial {trial.number}: {', '.join(f'{v:.6g}' for v in best.values)} {trial.params}\n")
                    if callback is not None:
                        callback(self._frozen(self._study.trial(trial.number)))
                except BaseException as error:
                    raised.append(error)
                    self.stop()
                    return

        if workers == 1:
            work()
        else:
            threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except KeyboardInterrupt:
                self.stop()
                raise
        if raised:
            raise raised[0]
        return self

    def stop(self) -> None:
        """Has optimize() begin no further trial; for objectives and callbacks."""
        self._stopped = True

    def _evaluate(self, objective: typing.Callable[[Trial], typing.Any], trial: Trial, catch: tuple[type[Exception], ...]) -> None:
        def end(values: typing.Any = None, **how: typing.Any) -> None:
            if not self._end(trial, values, **how):
                warnings.warn(f"trial {trial.number} was taken over by another worker, which has ended it; its end stays", stacklevel=4)

        try:
            outcome = objective(trial)
            constraints: typing.Any = trial.constraints
            if isinstance(outcome, dict):
                constraints = outcome.get("constraints", constraints)
                outcome = outcome["values"] if "values" in outcome else outcome["value"]
            if outcome is None:
                raise ValueError("the objective returned None; it has to return a number")
            end(outcome, constraints=constraints)
        except PrunedTrial:
            end(state="pruned")
        except PausedTrial:
            end(state="paused" if self._study.pauses() else "pruned")
        except FailedTrial as error:
            end(state="failed", error=str(error))
        except (KeyboardInterrupt, SystemExit):
            end(state="waiting")  # nothing is wrong with it
            raise
        except BaseException as error:
            end(state="failed", error=f"{type(error).__name__}: {error}")
            if not isinstance(error, catch):
                raise

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return [self._frozen(fields) for fields in self._study.trials()]

    def _frozen(self, fields: typing.Any) -> FrozenTrial:
        number, state, point, values, constraints, reports, error, worker, note, started, ended = fields
        return FrozenTrial(number, state, self.space.params(point), values, constraints, reports, error, worker,
                           json.loads(note) if note else None, started, ended)

    @property
    def best_trials(self) -> list[FrozenTrial]:
        """The best complete trial that keeps the constraints; of several objectives the Pareto front."""
        return [self._frozen(fields) for fields in self._study.best()]

    @property
    def best_trial(self) -> FrozenTrial:
        if len(self.directions) > 1:
            raise ValueError("a study of several objectives has no single best trial; see best_trials")
        best = self.best_trials
        if not best:
            raise ValueError("no trial is complete and keeps the constraints")
        return best[0]

    @property
    def best_params(self) -> dict[str, typing.Any]:
        return self.best_trial.params

    @property
    def best_value(self) -> float:
        return self.best_trial.values[0]

    def importances(self) -> dict[str, float]:
        """Each parameter's share of what moves the (first) objective, by fANOVA (Hutter et al., 2014); they sum to 1, largest first.

        Raises ValueError for fewer than four complete trials or where all values are the same.
        """
        return {name: normalised for name, _, normalised in self._study.importances()}

    def write_report(self, path: str, title: str | None = None) -> None:
        """Writes a self-contained HTML page: history, parallel coordinates, slices, importances, contour, Pareto front, all trials."""
        self._study.write_report(str(path), self.name if title is None else title)

    def write_charts(self, folder: str) -> list[str]:
        """Writes the report's charts as PNG and returns the files' paths."""
        return list(self._study.write_charts(str(folder)))

    @property
    def over(self) -> str:
        """Why the last ask() gave nothing; empty while there are trials."""
        return self._study.over()
