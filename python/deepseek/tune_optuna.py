"""Studies from and for Optuna; public as deepseek.tune.from_optuna and to_optuna."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime
import decimal
import json
import math
import typing
import warnings

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState
except ImportError as error:
    raise ImportError("from_optuna() and to_optuna() of deepseek.tune need Optuna: pip install optuna") from error

from .tune import Parameter, Space, Study, choice

__all__ = ["from_optuna", "to_optuna"]

# In an Optuna study's attributes: the space as JSON. Trials alone don't tell its conditions and orders of choices.
_SPACE = "deepseek_space"
# In a trial's: its note, where that is no dict, which would be the attributes themselves.
_NOTE = "deepseek_note"
# Ints beyond are conditions only by a threshold: where nearly each trial has its own value, sets of them explain anything.
_MOST_VALUES = 20
# Of ranges beyond no list of values is made.
_LONGEST = 10000


def _primitive(value: typing.Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


# --- to Optuna ---


def _distribution(parameter: dict[str, typing.Any], kind: str) -> BaseDistribution:
    """Of a parameter as Space.to_json() has it."""
    if kind == "choice":
        return CategoricalDistribution([c if _primitive(c) else json.dumps(c) for c in parameter["choices"]])
    low, high, step, log = parameter["low"], parameter["high"], parameter.get("step"), parameter["log"]
    if step is not None and not log:  # Optuna wants a whole number of steps, counted in decimals; it has none on a log scale
        exact_low, exact_high, exact_step = (decimal.Decimal(str(v)) for v in (low, high, step))
        high = type(high)(exact_low + (exact_high - exact_low) // exact_step * exact_step)
    if kind == "int":
        return IntDistribution(low, high, log=log, step=1 if log or step is None else step)
    return FloatDistribution(low, high, log=log, step=None if log else step)


def _parameters(space: Space) -> dict[str, dict[str, typing.Any]]:
    return typing.cast(dict[str, dict[str, typing.Any]], json.loads(space._space.to_json()))


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: _distribution(spec, kind) for (name, spec), kind in zip(_parameters(space).items(), space._kinds)}


def _values(space: Space, point: collections.abc.Sequence[float],
            distributions: dict[str, BaseDistribution]) -> dict[str, typing.Any]:
    """A point's parameters as Optuna has them."""
    values: dict[str, typing.Any] = {}
    for name, kind, number in zip(space.names, space._kinds, point):
        if math.isnan(number):
            continue
        distribution = distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            values[name] = distribution.choices[int(number)]
        elif kind == "int":
            values[name] = int(number)
        else:  # low + k * step may be a hair above high
            values[name] = min(number, typing.cast(FloatDistribution, distribution).high)
    return values


def to_optuna(study: Study, storage: typing.Any = None, study_name: str | None = None) -> optuna.Study:
    """A new Optuna study with the trials of `study`.

    storage: as for optuna.create_study(), such as "sqlite:///studies.db"; None: in memory.
    study_name: by default that of `study`.

    Complete, pruned and failed trials are copied with params, distributions, values, intermediate values, constraints, times, and
    notes (a dict becomes the user attributes; an error the system attribute fail_reason). Paused ones become pruned; what waits
    is enqueued; what runs is left out. Numbers count anew. Choices that aren't None, bool, int, float or str become texts. A step
    on a logarithmic scale, which Optuna hasn't, is dropped. The space, with its conditions, is kept in the user attribute
    deepseek_space, where from_optuna() finds it.

    Raises ImportError without Optuna, optuna.exceptions.DuplicatedStudyError where the storage has a study of this name.
    """
    distributions = _distributions(study.space)
    made = optuna.create_study(storage=storage, study_name=study_name or study.name,
                                directions=typing.cast(typing.Any, study.directions))
    made.set_user_attr(_SPACE, study.space._space.to_json())
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "paused": TrialState.PRUNED,
              "failed": TrialState.FAIL}
    fields = study._study.trials()
    for trial, (_, _, point, *_) in zip(study.trials, fields):
        params = _values(study.space, point, distributions)
        attributes = trial.note if isinstance(trial.note, dict) else {} if trial.note is None else {_NOTE: trial.note}
        if trial.state == "waiting":
            made.enqueue_trial(params, user_attrs=attributes or None)
        if trial.state not in states:
            continue
        system: dict[str, typing.Any] = {}
        if trial.constraints:
            system["constraints"] = trial.constraints  # the form that all versions of Optuna read
        if trial.error:
            system["fail_reason"] = trial.error
        values = trial.values if trial.values and trial.state != "failed" else None
        made.add_trial(optuna.trial.FrozenTrial(
            number=-1, trial_id=-1, state=states[trial.state], value=None, values=values, params=params,
            distributions={name: distributions[name] for name in params}, user_attrs=attributes, system_attrs=system,
            intermediate_values=dict(trial.reports), datetime_start=datetime.datetime.fromtimestamp(trial.started),
            datetime_complete=datetime.datetime.fromtimestamp(trial.ended or trial.started)))
    return made


# --- from Optuna ---


@dataclasses.dataclass
class _Condition:
    """A parameter is active where `parent` is one of `values`; without a parent always, with `never` in no trial of the space."""

    parent: str = ""
    values: collections.abc.Sequence[typing.Any] = ()
    never: bool = False


def _key(value: typing.Any) -> tuple[type, typing.Any]:
    """Tells 1 from True and 1.0."""
    return type(value), value


def _union(name: str, given: list[BaseDistribution]) -> BaseDistribution:
    """The narrowest distribution that has all that those given have."""
    different: list[BaseDistribution] = []
    for d in given:
        if d not in different:
            different.append(d)
    if len(different) == 1:
        return different[0]
    if all(isinstance(d, CategoricalDistribution) for d in different):
        choices: dict[tuple[type, typing.Any], typing.Any] = {}
        for d in typing.cast(list[CategoricalDistribution], different):
            choices.update({_key(c): c for c in d.choices})
        union: BaseDistribution = CategoricalDistribution(list(choices.values()))
    elif any(isinstance(d, CategoricalDistribution) for d in different):
        raise ValueError(f"parameter '{name}': in some trials a choice, in others a number")
    else:
        numeric = typing.cast(list[typing.Union[FloatDistribution, IntDistribution]], different)
        low, high = min(d.low for d in numeric), max(d.high for d in numeric)
        log = all(d.log for d in numeric)
        if all(isinstance(d, IntDistribution) for d in numeric):
            step = 1 if log else math.gcd(*(int(d.step or 1) for d in numeric), *(int(d.low - low) for d in numeric))
            union = IntDistribution(int(low), int(high), log=log, step=step)
        else:
            steps = {d.step for d in numeric}
            step_of = steps.pop() if len(steps) == 1 else None
            if step_of and any(abs((d.low - low) / step_of - round((d.low - low) / step_of)) > 1e-6 for d in numeric):
                step_of = None
            union = FloatDistribution(low, high, log=log, step=step_of)
    warnings.warn(f"parameter '{name}': trials have {len(different)} different distributions; taken is {union}", stacklevel=4)
    return union


def _parameter(distribution: BaseDistribution) -> Parameter:
    if isinstance(distribution, CategoricalDistribution):
        return choice(distribution.choices)
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        raise ValueError(f"unknown distribution {distribution}")
    spec: dict[str, typing.Any] = {"low": distribution.low, "high": distribution.high, "log": distribution.log}
    spec["type"] = "int" if isinstance(distribution, IntDistribution) else "float"
    if distribution.step and not distribution.log:
        spec["step"] = distribution.step
    return Parameter(spec)


def _candidates(parent: str, distribution: BaseDistribution, params: list[dict[str, typing.Any]], name: str
                ) -> collections.abc.Iterator[tuple[int, int, _Condition]]:
    """Conditions on `parent` that may tell where `name` is active, how many trials contradict and how many values were tried."""
    with_it: collections.Counter[typing.Any] = collections.Counter()
    without: collections.Counter[typing.Any] = collections.Counter()
    orphans = 0  # no condition on this parent allows for these
    for p in params:
        if parent in p:
            (with_it if name in p else without)[_key(p[parent])] += 1
        else:
            orphans += name in p
    tried = {**with_it, **without}
    exact = lambda values: tuple(v for v in values if with_it[_key(v)] > without[_key(v)])  # noqa: E731
    options: list[collections.abc.Sequence[typing.Any]] = []
    if isinstance(distribution, CategoricalDistribution):
        options.append(exact(distribution.choices))
    elif isinstance(distribution, IntDistribution):
        grid = range(distribution.low, distribution.high + 1, distribution.step)
        if len(grid) > _LONGEST:
            return
        numbers = sorted(value for _, value in tried)
        total, below = with_it.total(), collections.Counter(without=0, with_it=0)
        for number, following in zip(numbers, numbers[1:]):  # what was not tried is as the nearest that was
            below["with_it"] += with_it[_key(number)]
            below["without"] += without[_key(number)]
            cut = -((distribution.low - 1 - (number + following) // 2) // distribution.step)
            yield orphans + below["with_it"] + without.total() - below["without"], len(tried), _Condition(parent, grid[cut:])
            yield orphans + total - below["with_it"] + below["without"], len(tried), _Condition(parent, grid[:cut])
        options.append(grid)
        if len(grid) <= _MOST_VALUES:
            options.append(exact(grid))
    for values in options:
        if len(values):
            keys = {_key(v) for v in values}
            wrong = sum(count for key, count in without.items() if key in keys)
            wrong += sum(count for key, count in with_it.items() if key not in keys)
            yield orphans + wrong, len(tried), _Condition(parent, values)


def _conditions(trials: list[optuna.trial.FrozenTrial], distributions: dict[str, BaseDistribution]) -> dict[str, _Condition]:
    """Of each parameter the condition that fewest trials contradict; parents come before what depends on them.

    Trials that may have ended before all was asked don't count: failed ones, and pruned ones that reported nothing. Of equals
    the simpler is taken: none, then that of the parent which depends on fewest others and of which fewest values were tried.
    """
    told = [t.params for t in trials if t.state == TrialState.COMPLETE or t.state == TrialState.PRUNED and t.intermediate_values]
    found: dict[str, _Condition] = {}
    depth: dict[str, int] = {}
    best: dict[str, tuple[tuple[int, int, int], _Condition]] = {}
    evidence: dict[str, list[dict[str, typing.Any]]] = {}
    for name in distributions:
        evidence[name] = told if any(name in params for params in told) else [t.params for t in trials]
        present = sum(name in params for params in evidence[name])
        best[name] = (len(evidence[name]) - present, 0, 0), _Condition()
        if present < best[name][0][0]:
            best[name] = (present, 0, 0), _Condition(never=True)
    while best:
        # Whom the trials bear out best goes first, so that others find their parents.
        name = min(best, key=lambda n: best[n][0])
        (_, depth[name], _), found[name] = best.pop(name)
        if found[name].never:
            continue
        for other in best:
            for wrong, tried, condition in _candidates(name, distributions[name], evidence[other], other):
                score = wrong, depth[name] + 1, tried
                if score < best[other][0]:
                    best[other] = score, condition
    return found


def _space_of(trials: list[optuna.trial.FrozenTrial]) -> Space:
    given: dict[str, list[BaseDistribution]] = {}
    for t in trials:
        for name, d in t.distributions.items():
            given.setdefault(name, []).append(d)
    if not given:
        raise ValueError("no trial of the Optuna study has parameters: a space must be given")
    distributions = {name: _union(name, ds) for name, ds in given.items()}
    parameters: dict[str, Parameter] = {}
    for name, condition in _conditions(trials, distributions).items():
        if condition.never:
            continue
        parameter = _parameter(distributions[name])
        parameters[name] = parameter.when(**{condition.parent: list(condition.values)}) if condition.parent else parameter
    return Space(parameters)


def _kept_space(study: optuna.Study, trials: list[optuna.trial.FrozenTrial]) -> Space | None:
    """The space that to_optuna() has kept, if what was evaluated is of it."""
    text = study.user_attrs.get(_SPACE)
    if not isinstance(text, str):
        return None
    space = Space._from_json(text)
    try:
        for t in trials:
            if t.state == TrialState.COMPLETE:
                space.point(_read(space, t.params))
    except ValueError:
        return None
    return space


def _read(space: Space, params: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Params with the space's own objects for the texts that stand for them in Optuna, and its own NaN, which equals no other."""
    read = dict(params)
    for name, parameter in space.parameters.items():
        text = params.get(name)
        if "choices" not in parameter.spec or not isinstance(text, str) and text == text:
            continue
        stand_ins = [c if _primitive(c) else json.dumps(c) for c in parameter.spec["choices"]]
        if str(text) in stand_ins:
            at = stand_ins.index(str(text))
            read[name] = (parameter.choices or parameter.spec["choices"])[at]
    return read


def _seconds(time: datetime.datetime | None) -> float:
    return time.timestamp() if time is not None else 0


def from_optuna(study: typing.Any, study_name: str | None = None, *, space: typing.Any = None, storage: str | None = None,
                name: str | None = None, **settings: typing.Any) -> Study:
    """A deepseek.tune.Study with the trials of an Optuna study, from which its sampler goes on.

    study: an optuna.Study, or a storage or its URL, where study_name says which (not needed where there is but one).
    space: as for Study; by default what to_optuna() has kept, else the trials' distributions. For a parameter that only some
      trials have, the choice or int is sought that tells best where it is active (choices that weren't tried: nowhere; ints: as
      the nearest tried). Trials that contradict are left out, with a warning of their numbers and why. A parameter that most
      trials lack without such a reason is left out with its trials. Where distributions differ the widest is taken, with a
      warning.
    storage, name, settings (sampler, pruner, seed, max_trials, ...): as for Study. name: by default the Optuna study's.

    Complete, pruned and failed trials are copied with values, intermediate values, constraints (in order of their names),
    errors (fail_reason) and times; user attributes become the note. Waiting ones are enqueued, running ones left out. Complete
    trials with an infinite value count as failed. Numbers count anew, and max_trials counts these trials too.

    Raises ImportError without Optuna, KeyError where the storage has no such study, ValueError where no trial has parameters or
      where the study `name` of `storage` has trials.
    """
    if not isinstance(study, optuna.Study):
        study = optuna.load_study(study_name=study_name, storage=study)
    elif study_name is not None and study_name != study.study_name:
        raise ValueError(f"study_name: the study is '{study.study_name}', not '{study_name}'")
    all_trials = study.get_trials(deepcopy=False)
    finished = [t for t in all_trials if t.state.is_finished()]
    waiting = [t for t in all_trials if t.state == TrialState.WAITING]
    if space is None:
        space = _kept_space(study, finished) or _space_of(finished)
    made = Study(space, direction=[d.name.lower() for d in study.directions], storage=storage, name=name or study.study_name,
                 **settings)
    if made._study.trials():
        raise ValueError(f"storage: the study '{made.name}' has trials; give another name")
    _add(made, finished, waiting)
    return made


def _add(made: Study, finished: list[optuna.trial.FrozenTrial], waiting: list[optuna.trial.FrozenTrial]) -> None:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    names = sorted({key for t in finished for key in _constraints(t)}, key=lambda key: (not key.isdigit(), key.zfill(9), key))
    left_out: dict[str, list[int]] = {}
    for t in finished:
        try:
            point = made.space.point(_read(made.space, t.params))
        except ValueError as error:
            why = str(error)
            missing = [n for n in made.space.names if n not in t.params and why.startswith(f"parameter '{n}': expected a value")]
            left_out.setdefault(f"without '{missing[0]}'" if missing else _rule(why), []).append(t.number)
            continue
        state, values = states[t.state], list(t.values or [])
        error_text = str(t.system_attrs.get("fail_reason", ""))
        if state == "complete" and not all(math.isfinite(v) for v in values):
            state, values, error_text = "failed", [], f"the objective was {t.values}"
        constraints = _constraints(t)
        note = t.user_attrs[_NOTE] if list(t.user_attrs) == [_NOTE] else t.user_attrs
        made._study.add(state, point, values, [constraints[key] for key in names if key in constraints],
                        sorted(t.intermediate_values.items()), error_text, "", json.dumps(note, default=repr) if t.user_attrs else "",
                        _seconds(t.datetime_start or t.datetime_complete), _seconds(t.datetime_complete))
    for t in waiting:  # what enqueue_trial() was given; its values get distributions only when they are asked for
        fixed = t.system_attrs.get("fixed_params") or t.params
        try:
            made.enqueue(_read(made.space, fixed))
        except ValueError as error:
            left_out.setdefault(_rule(str(error)), []).append(t.number)
    if left_out:
        reasons = []
        for why, numbers in left_out.items():
            listed = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
            reasons.append(f"{why}: {len(numbers)} (numbers {listed})")
        lost = sum(map(len, left_out.values()))
        warnings.warn(f"{lost} of {len(finished) + len(waiting)} trials are left out; " + "; ".join(reasons), stacklevel=3)


def _rule(error: str) -> str:
    """Without the value at fault, so that trials can be counted by it."""
    return error.split(", got ")[0].split(", but ")[0]


def _constraints(trial: optuna.trial.FrozenTrial) -> dict[str, float]:
    """By name, as Optuna 5 has them; by position, as it was before."""
    attributes = trial.system_attrs
    by_name = {key.removeprefix("constraints:"): value for key, value in attributes.items() if key.startswith("constraints:")}
    return {**{str(i): value for i, value in enumerate(attributes.get("constraints") or [])}, **by_name}
