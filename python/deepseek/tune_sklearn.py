"""Hyper-parameter search with cross-validation as scikit-learn's own searches do it; public as deepseek.tune.BayesSearchCV."""

from __future__ import annotations

import collections.abc
import dataclasses
import numbers
import re
import typing
import warnings

import numpy as np

try:
    # The base class of GridSearchCV is private, but what searches outside of scikit-learn build on.
    from sklearn.exceptions import FitFailedWarning  # type: ignore[import-untyped,unused-ignore]
    from sklearn.model_selection._search import BaseSearchCV  # type: ignore[import-untyped,unused-ignore]
    from sklearn.utils import check_random_state  # type: ignore[import-untyped,unused-ignore]
except ImportError as error:
    raise ImportError("deepseek.tune.BayesSearchCV needs scikit-learn: pip install scikit-learn") from error

from .tune import Parameter, Space, Study, Trial, _same, choice

__all__ = ["BayesSearchCV"]

Params = dict[str, typing.Any]


@dataclasses.dataclass
class _Candidate:
    params: Params
    lost: bool = False  # all its round's fits failed, and scikit-learn kept nothing of them
    error: str = ""


class _SameFolds:
    """Splits once: with a shuffling splitter every round would else be judged on other folds."""

    def __init__(self, cv: typing.Any) -> None:
        self.cv = cv
        self.folds: list[typing.Any] | None = None

    def split(self, x: typing.Any, y: typing.Any = None, **params: typing.Any) -> list[typing.Any]:
        if self.folds is None:
            self.folds = list(self.cv.split(x, y, **params))
        return self.folds


def _alike(a: Parameter, b: Parameter) -> bool:
    if a.choices is None or b.choices is None:
        return a.choices is b.choices and a.spec == b.spec
    return a.spec == b.spec and all(x is y or _same(x, y) for x, y in zip(a.choices, b.choices))


def _joint_space(spaces: typing.Any) -> tuple[Space, typing.Callable[[Params], Params]]:
    """One space of a dict, or of several: a choice among them, on which their parameters depend. And how its points are read."""
    if isinstance(spaces, (collections.abc.Mapping, Space)):
        return Space(spaces), dict
    if not isinstance(spaces, collections.abc.Sequence) or isinstance(spaces, str) or not spaces:
        raise TypeError(f"search_spaces: expected a dict of parameters or a list of such dicts, got {spaces!r}")
    if len(spaces) == 1:
        return Space(spaces[0]), dict
    parts = [Space(s).parameters if s else {} for s in spaces]  # an empty one is the estimator as it is
    chooser = "space"
    while any(chooser in part for part in parts):
        chooser += "_"
    joint: dict[str, Parameter] = {chooser: choice(range(len(parts)), ordered=False)}
    owners: dict[str, list[int]] = {}
    names: dict[str, str] = {}  # in the estimator
    for i, part in enumerate(parts):
        parents = {parent for p in part.values() for parent in p.spec.get("when") or {}}
        keys: dict[str, str] = {}
        for name, parameter in part.items():
            when = parameter.spec.get("when")
            # What is the same in several spaces is one parameter, so that they learn of each other.
            shared = [key for key in owners if names[key] == name and _alike(joint[key], parameter)]
            if shared and not when and name not in parents:
                keys[name] = shared[0]
                owners[shared[0]].append(i)
                continue
            key = name if name not in joint else f"{name}@{i}"
            while key in joint:
                key += "_"
            keys[name], names[key] = key, name
            if when:
                parameter = Parameter({**parameter.spec, "when": {keys[k]: v for k, v in when.items()}}, parameter.choices)
            elif name not in parents:
                owners[key] = [i]
            else:
                parameter = parameter.when(**{chooser: [i]})
            joint[key] = parameter
    for key, indices in owners.items():
        joint[key] = joint[key].when(**{chooser: indices})
    return Space(joint), lambda params: {names[key]: value for key, value in params.items() if key != chooser}


class BayesSearchCV(BaseSearchCV):  # type: ignore[misc,unused-ignore]
    """Searches an estimator's parameters by cross-validation, each round where the sampler expects most of those before.

    estimator: as for GridSearchCV; so are scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score.
      With several metrics the search is for the one that `refit` names; where it names none (False or a function) it is for
      all of them, and study_ has the Pareto front.
    search_spaces: dict of the estimator's parameters, such as "svc__C", to what deepseek.tune.Study takes: (low, high), a list of
      choices, or uniform(), log(), integer(), choice() of deepseek.tune. Or a list of such dicts: candidates are of one of them.
      (1, 10) are ints, (1.0, 10) floats.
    n_iter: candidates, each fitted once per fold; fewer where a finite space is used up.
    random_state: None, an int or a RandomState.
    sampler: hybrid, gp, tpe, cmaes, qmc, random or grid, see deepseek.tune.Study.
    n_points: candidates that are evaluated together, in parallel where n_jobs allows it. More of them know less of each other.
    timeout: seconds after which no round begins. patience: stop after so many candidates without a better one (one metric).

    All candidates are evaluated on the same folds, whether or not `cv` shuffles anew. A candidate whose fits all fail is a
    failed trial, of which the sampler learns; its scores are error_score. fit() raises ValueError where none could be fitted.

    Attributes: those of GridSearchCV (cv_results_, best_estimator_, best_params_, best_score_, best_index_, scorer_, n_splits_,
    refit_time_, multimetric_, ...), and study_, the deepseek.tune.Study; trial i is row i of cv_results_. With a list of spaces
    its trials have one more parameter, "space", and "name@i" is `name` of space i where it isn't the same in all.
    """

    def __init__(self, estimator: typing.Any, search_spaces: typing.Any, *, n_iter: int = 50, scoring: typing.Any = None,
                 n_jobs: int | None = None, refit: typing.Any = True, cv: typing.Any = None, verbose: int = 0,
                 pre_dispatch: int | str = "2*n_jobs", random_state: typing.Any = None, error_score: float | str = np.nan,
                 return_train_score: bool = False, sampler: str = "hybrid", n_points: int = 1, timeout: float | None = None,
                 patience: int | None = None) -> None:
        self.search_spaces = search_spaces
        self.n_iter = n_iter
        self.random_state = random_state
        self.sampler = sampler
        self.n_points = n_points
        self.timeout = timeout
        self.patience = patience
        super().__init__(estimator=estimator, scoring=scoring, n_jobs=n_jobs, refit=refit, cv=cv, verbose=verbose,
                         pre_dispatch=pre_dispatch, error_score=error_score, return_train_score=return_train_score)

    def _metrics(self, results: Params) -> list[str]:
        """Names of what is maximized; of a scoring function's only its results tell."""
        if callable(self.scoring):
            names = [key.removeprefix("mean_test_") for key in results if key.startswith("mean_test_")] or ["score"]
        else:
            several = self.scoring is not None and not isinstance(self.scoring, str)
            names = list(self.scoring) if several else ["score"]
        return [self.refit] if isinstance(self.refit, str) and self.refit in names else names

    def _ask(self, study: Study) -> collections.abc.Iterator[Trial]:
        for _ in range(self.n_points):
            trial = study.ask()
            if trial is None:
                return
            yield trial

    def _run_search(self, evaluate_candidates: typing.Callable[..., Params]) -> None:
        for name in ("n_iter", "n_points"):
            number = getattr(self, name)
            if not isinstance(number, numbers.Integral) or isinstance(number, bool) or int(number) < 1:
                raise ValueError(f"{name}: expected an int of at least 1, got {number!r}")
        space, read = _joint_space(self.search_spaces)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))

        def make(metrics: list[str]) -> Study:
            return Study(space, direction=["maximize"] * len(metrics), sampler=self.sampler, seed=seed,
                         max_trials=int(self.n_iter), max_seconds=self.timeout, patience=self.patience)

        results: Params = {}
        metrics = self._metrics(results)
        study = make(metrics)
        folds = _SameFolds(self._checked_cv_orig)
        self._candidates: list[_Candidate] = []
        failure: ValueError | None = None
        try:
            while trials := list(self._ask(study)):
                first = len(self._candidates)
                asked = [_Candidate(read(trial.params)) for trial in trials]
                self._candidates += asked
                try:
                    results = evaluate_candidates([c.params for c in asked], cv=folds)
                    failure = None
                except BaseException as error:
                    for trial, candidate in zip(trials, asked):
                        candidate.lost, candidate.error = True, (str(error).strip() or type(error).__name__).splitlines()[-1]
                        study.tell(trial, state="failed", error=candidate.error)
                    # scikit-learn gives up where no fit of a round succeeds; others may.
                    if not (isinstance(error, ValueError) and re.match(r"\s*All the \d+ fits failed", str(error))):
                        raise
                    failure = error
                    warnings.warn(str(error), FitFailedWarning, stacklevel=2)
                    continue
                # Of how many metrics a function is shows here; the study is made anew, with the same trials.
                if callable(self.scoring) and len(self._metrics(results)) != len(metrics):
                    metrics, old = self._metrics(results), study.trials
                    study = make(metrics)
                    for lost in old[:first]:
                        study.add_trial(lost.params, [], state="failed")
                    for trial in trials:
                        study.enqueue(trial.params)
                        study.ask()
                metrics = self._metrics(results)
                for i, (trial, candidate) in enumerate(zip(trials, asked)):
                    values = [results[f"mean_test_{metric}"][first + i] for metric in metrics]
                    study.tell(trial.number, values, state="failed" if candidate.error else "complete", error=candidate.error)
            if not results and failure is not None:
                raise failure
            if failure is not None:  # what evaluate_candidates() returned lacks the last rounds
                results.update(self._format_results(*self._formatted))
            bad = sum(not all(np.isfinite(results[f"mean_test_{m}"][i]) for m in metrics) for i in range(len(self._candidates)))
            if bad:
                warnings.warn(f"the scores of {bad} of {len(self._candidates)} candidates aren't finite", stacklevel=2)
        finally:
            # Not before: workers get a copy of this object with each fit.
            self.study_ = study
            del self._candidates
            self.__dict__.pop("_formatted", None)

    def _format_results(self, candidate_params: list[Params], n_splits: int, out: list[Params],
                        more_results: typing.Any = None) -> Params:
        """cv_results_ with rows for the candidates that scikit-learn dropped."""
        self._formatted = candidate_params, n_splits, out, more_results
        rows: list[Params] = []
        done = 0

        def missing(scores: typing.Any) -> typing.Any:
            return {name: self.error_score for name in scores} if isinstance(scores, dict) else self.error_score

        for candidate in self._candidates:
            if candidate.lost:
                row = {**out[0], "fit_time": np.nan, "score_time": np.nan}
                row.update({key: missing(out[0][key]) for key in ("test_scores", "train_scores") if key in row})
                rows += [row] * n_splits
                continue
            folds = out[done:done + n_splits]
            done += n_splits
            rows += folds
            errors = [fold.get("fit_error") for fold in folds]
            if all(errors):
                candidate.error = str(errors[0]).strip().splitlines()[-1]
        with warnings.catch_warnings():  # said once, at the end
            warnings.filterwarnings("ignore", message="One or more of the", category=UserWarning)
            params = [candidate.params for candidate in self._candidates]
            return typing.cast(Params, super()._format_results(params, n_splits, rows, more_results))
