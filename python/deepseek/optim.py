"""Update rules for Trainer and compile. Keywords are those of a run's config under `optimizer`, and `lr` for short."""

from __future__ import annotations

import operator
import typing


class Optimizer:
    """An update rule by name with its settings; unknown settings are refused when it is used.

    What is not given is the rule's own default, the same as under `optimizer` in a run's config.
    """

    name: str = ""

    def __init__(self, learning_rate: float | None = None, **settings: typing.Any) -> None:
        if "lr" in settings:
            if learning_rate is not None:
                raise TypeError(f"{type(self).__name__}: the first argument is the learning rate, got {type(learning_rate).__name__} and lr={settings['lr']!r}; "
                                "parameters are not given here: Trainer and compile give it the model's")
            learning_rate = settings.pop("lr")
        self.settings = settings
        if learning_rate is not None:
            self.settings["learning_rate"] = learning_rate
        self.settings["name"] = self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items() if k != 'name')})"


class SGD(Optimizer):
    """Stochastic gradient descent: learning_rate=0.05, momentum=0, nesterov=False, weight_decay=0 (L2)."""

    name = "sgd"


class Adam(Optimizer):
    """Kingma and Ba, 2014: learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0 (L2)."""

    name = "adam"


class AdamW(Optimizer):
    """Loshchilov and Hutter, 2017: Adam with decoupled weight_decay=0.01."""

    name = "adamw"


class LAMB(Optimizer):
    """You et al., 2019: Adam's direction scaled by the trust ratio; learning_rate=0.001, weight_decay=0 (decoupled)."""

    name = "lamb"


class RMSprop(Optimizer):
    """Tieleman and Hinton, 2012: learning_rate=0.01, alpha=0.99, momentum=0, epsilon=1e-8, weight_decay=0 (L2)."""

    name = "rmsprop"


class Adagrad(Optimizer):
    """Duchi et al., 2011: learning_rate=0.01, epsilon=1e-10, weight_decay=0 (L2)."""

    name = "adagrad"


class Lion(Optimizer):
    """Chen et al., 2023: learning_rate=0.0001, beta1=0.9, beta2=0.99, weight_decay=0 (decoupled)."""

    name = "lion"


__all__ = ["SGD", "Adam", "AdamW", "Adagrad", "BayesianOptimizer", "LAMB", "Lion", "Optimizer", "RMSprop", "choice", "integer", "log",
           "uniform"]


def __getattr__(name: str) -> typing.Any:
    """uniform(), log(), integer() and choice() of deepseek.tune, for spaces."""
    if name in ("choice", "integer", "log", "uniform"):
        from . import tune

        return getattr(tune, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class BayesianOptimizer:
    """Search for the parameters that make an objective least (or most), by few evaluations.

    param_space: dict of name to (low, high), a list of choices, or what `deepseek.tune` has: uniform(), log(), integer(),
      choice(). Two ints are an int, else floats; logarithmic where low > 0 and high >= 100 low. See deepseek.tune.Study.
    max_evals: evaluations at most; all of a finite space at most once.
    sampler: hybrid (Gaussian process and grid, the default), gp, tpe, cmaes, qmc, random or grid.
    constraints: functions of params that are true where they may be tried.
    objectives: number of values that the objective returns; with several, minimize() returns the Pareto front's parameters.
    seed: the same seed gives the same evaluations.
    max_seconds, patience: stop after that time since the first evaluation of this process, or after so many evaluations without a better one.
    storage, name: keep the evaluations in a database and go on with those that are there.
    progress: a line on stderr for each evaluation that is the best so far, or on the Pareto front.

    After minimize(): best_params_, best_value_, study (deepseek.tune.Study with all trials). An objective that isn't finite, or
    raises deepseek.tune.FailedTrial, has failed, and parameters like those are avoided. Interrupted, the evaluations so far stay
    in `study`, and another call of minimize() goes on.
    """

    def __init__(self, param_space: typing.Mapping[str, typing.Any], max_evals: int = 50, *, sampler: str = "hybrid",
                 constraints: typing.Any = (), objectives: int = 1, seed: int = 0, max_seconds: float | None = None,
                 patience: int | None = None, storage: str | None = None, name: str = "study", progress: bool = False) -> None:
        if operator.index(max_evals) < 1:
            raise ValueError(f"max_evals: expected at least 1, got {max_evals}")
        if objectives < 1:
            raise ValueError(f"objectives: expected at least 1, got {objectives}")
        self._settings = dict(space=param_space, sampler=sampler, constraints=constraints, seed=seed, max_trials=max_evals,
                              max_seconds=max_seconds, patience=patience, name=name)
        self._storage = storage
        self._objectives = objectives
        self._progress = progress
        self.study: typing.Any = None
        self._direction = ""
        # Mistakes in the space are told here; which way a database's study goes is known only to minimize() or maximize().
        if storage is None:
            self._make("minimize")
        else:
            self._new("minimize", None)

    def minimize(self, objective: typing.Callable[[dict[str, typing.Any]], typing.Any]) -> typing.Any:
        """Evaluates objective(params) until the search is over and returns the best parameters.

        The objective returns a number, a sequence of them, or a dict {"value" or "values", "constraints"}; constraints are
        fulfilled where <= 0.
        """
        return self._run(objective, "minimize")

    def maximize(self, objective: typing.Callable[[dict[str, typing.Any]], typing.Any]) -> typing.Any:
        """As minimize(), for the largest value."""
        return self._run(objective, "maximize")

    def _make(self, direction: str) -> None:
        if self._direction != direction:
            self.study = self._new(direction, self._storage)
            self._direction = direction

    def _new(self, direction: str, storage: str | None) -> typing.Any:
        from . import tune  # not loaded by who only wants an update rule

        return tune.Study(direction=[direction] * self._objectives, storage=storage, **self._settings)

    def _run(self, objective: typing.Callable[[dict[str, typing.Any]], typing.Any], direction: str) -> typing.Any:
        self._make(direction)
        self.study.optimize(lambda trial: objective(trial.params), progress=self._progress)
        return self.best_params_

    @property
    def best_params_(self) -> typing.Any:
        """The best parameters; of several objectives a list, the Pareto front's."""
        return self.study.best_params if self._objectives == 1 else [trial.params for trial in self.study.best_trials]

    @property
    def best_value_(self) -> float:
        """The least (or largest) value of the one objective."""
        return self.study.best_value
