"""Studies exchanged with Optuna, which is the independent source: what it made and what it reads back is equal."""

import math
import pickle
import subprocess
import sys
import warnings

import pytest

optuna = pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState, create_trial  # noqa: E402

from deepseek import tune  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)

X = {"x": FloatDistribution(0, 1)}


def study_of(*trials, **settings):
    study = optuna.create_study(**settings)
    study.add_trials(trials)
    return study


def ended(params, distributions, value=0.0, state=TrialState.COMPLETE, **more):
    return create_trial(state=state, params=params, distributions={n: distributions[n] for n in params},
                        value=None if state == TrialState.FAIL else value, **more)


def same(a, b):
    """Two Optuna trials, but for number, id, and the names of constraints, which become positions."""
    for field in ("state", "params", "distributions", "values", "intermediate_values", "datetime_start", "datetime_complete",
                  "user_attrs"):
        assert getattr(a, field) == getattr(b, field), field
    assert list(a.constraints.values()) == list(b.constraints.values())


def flat(trial):
    x = trial.suggest_float("x", -2, 2)
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    drop = trial.suggest_float("drop", 0, 0.5, step=0.05)
    width = trial.suggest_int("width", 8, 1024, log=True)
    layers = trial.suggest_int("layers", 2, 10, step=2)
    kind = trial.suggest_categorical("kind", ["relu", "gelu", None, True, 3, 0.5])
    value = x * x + math.log10(lr) ** 2 + drop + width / 1000 + layers + (kind == "gelu")
    trial.set_user_attr("seen", [trial.number, kind])
    trial.set_constraint("a", x - 1)
    trial.set_constraint("b", drop - 0.4)
    for step in range(3):
        trial.report(value / (step + 1), step * 10)
    if trial.number % 7 == 3:
        raise optuna.TrialPruned
    return float("nan") if trial.number % 7 == 5 else value


@pytest.fixture(scope="module")
def of_flat():
    study = optuna.create_study(study_name="flat", sampler=optuna.samplers.RandomSampler(seed=1), direction="maximize")
    study.optimize(flat, 40)
    return study


def test_import_is_equal(of_flat):
    ours = tune.from_optuna(of_flat, sampler="tpe", seed=3)
    assert ours.name == "flat" and ours.directions == ["maximize"] and len(ours.trials) == 40
    kinds = {"x": "float", "lr": "float", "drop": "float", "width": "int", "layers": "int", "kind": "choice"}
    assert dict(zip(ours.space.names, ours.space._kinds)) == kinds
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    for theirs, mine in zip(of_flat.trials, ours.trials):
        assert mine.state == states[theirs.state] and mine.params == theirs.params and mine.values == (theirs.values or [])
        assert mine.reports == sorted(theirs.intermediate_values.items()) and mine.note == theirs.user_attrs
        assert mine.constraints == list(theirs.constraints.values())
        assert abs(mine.started - theirs.datetime_start.timestamp()) < 1e-5
        assert abs(mine.ended - theirs.datetime_complete.timestamp()) < 1e-5
        assert [type(v) for v in mine.params.values()] == [type(v) for v in theirs.params.values()]
    assert {t.state for t in ours.trials} == {"complete", "pruned", "failed"}
    assert ours.best_params == of_flat.best_params and ours.best_value == of_flat.best_value
    # Numbers are those of the distributions, so the sampler goes on within them.
    for _ in range(5):
        trial = ours.ask()
        assert all(of_flat.trials[0].distributions[n]._contains(of_flat.trials[0].distributions[n].to_internal_repr(v))
                   for n, v in trial.params.items())
        ours.tell(trial, 1.0)


@pytest.mark.parametrize("stored", [False, True])
def test_optuna_to_ours_and_back(of_flat, tmp_path, stored):
    storage = f"sqlite:///{tmp_path}/back.db" if stored else None
    source = of_flat
    if stored:
        source = optuna.create_study(storage=storage, study_name="source", directions=of_flat.directions)
        source.add_trials(of_flat.trials[:6])
        ours = tune.from_optuna(storage, "source")
    else:
        ours = tune.from_optuna(source)
    back = ours.to_optuna(storage, "back")
    assert back.directions == source.directions and len(back.trials) == len(source.trials) and back.study_name == "back"
    for a, b in zip(source.trials, back.trials):
        same(a, b)
    assert back.best_value == source.best_value
    back.optimize(flat, 3)  # and goes on there
    again = tune.from_optuna(back)
    assert len(again.trials) == len(source.trials) + 3 and again.best_value == back.best_value
    if stored:
        with pytest.raises(optuna.exceptions.DuplicatedStudyError):
            ours.to_optuna(storage, "back")
        with pytest.raises(KeyError):
            tune.from_optuna(storage, "nothing")


class Block:
    pass


def ours_of(**settings):
    space = {"x": (0.0, 1.0), "n": tune.integer(1, 1000, log=True), "step": tune.uniform(0, 1, step=0.3), "odd": tune.log(1, 64),
             "kind": ["a", "b", [32, 32], Block, 2.5], "deep": tune.integer(1, 9).when(kind=["a", "b"]),
             "deeper": tune.uniform(0, 1).when(deep=[7, 8, 9]), "never": tune.uniform(0, 1).when(deep=1)}
    return tune.Study(space, sampler="random", name="mine", **settings)


def test_ours_to_optuna_and_back():
    ours = ours_of(seed=4)
    for i in range(40):
        trial = ours.ask()
        trial.report(0.5 * i, 1)
        trial.constraints = [i - 20.0]
        if i % 5 == 0:
            ours.tell(trial, state="pruned")
        elif i % 5 == 1:
            ours.tell(trial, state="failed", error="no memory")
        else:
            ours.tell(trial, trial["x"])
        if i % 3 == 0:
            ours._study.set_note(i, '{"of": 3}' if i % 2 else "[1]")
    theirs = ours.to_optuna()
    assert theirs.study_name == "mine" and theirs.best_value == ours.best_value
    assert [t.system_attrs.get("fail_reason") for t in theirs.trials[:2]] == [None, "no memory"]
    back = tune.from_optuna(theirs)
    assert back.space._space.to_json() == ours.space._space.to_json()
    with_objects = tune.from_optuna(theirs, space=ours.space)
    assert [t.params for t in with_objects.trials] == [t.params for t in ours.trials]
    assert with_objects.best_trial.params == ours.best_trial.params
    for a, b in zip(ours.trials, back.trials):
        assert {**a.params, "kind": 0} == {**b.params, "kind": 0}
        assert b.params["kind"] == ("Block" if a.params["kind"] is Block else a.params["kind"])
        for field in ("state", "values", "constraints", "reports", "note", "error"):
            assert getattr(a, field) == getattr(b, field), field
        assert abs(a.started - b.started) < 1e-5 and abs(a.ended - b.ended) < 1e-5
    # Without the space that was kept the conditions are found from the trials.
    theirs.set_user_attr("deepseek_space", None)
    found = tune.from_optuna(theirs).space
    assert len(tune.from_optuna(theirs).trials) == 40
    assert found.parameters["deep"].spec["when"] == {"kind": ["a", "b"]}
    assert list(found.parameters["deeper"].spec["when"]) == ["deep"]


def test_waiting_running_and_paused():
    ours = tune.Study({"x": (0.0, 1.0), "k": ["a", "b"]}, sampler="random")
    ours.tell(ours.ask(), 1.0)
    paused = ours.ask()
    paused.report(2.0, 5)
    ours.tell(paused, state="paused")
    ours.ask()
    ours.enqueue({"x": 0.25, "k": "b"})
    ours.enqueue({"x": 0.5})
    theirs = ours.to_optuna()
    assert [t.state.name for t in theirs.trials] == ["COMPLETE", "PRUNED", "WAITING", "WAITING"]
    assert theirs.trials[1].intermediate_values == {5: 2.0} and theirs.trials[1].params == paused.params
    theirs.ask()
    asked = theirs.ask({"x": FloatDistribution(0, 1), "k": CategoricalDistribution(["a", "b"])})
    assert asked.params["x"] == 0.5
    theirs.enqueue_trial({"x": 0.125})
    back = tune.from_optuna(theirs)  # the two that run are left out
    assert [t.state for t in back.trials] == ["complete", "pruned", "waiting"]
    assert back.ask().params["x"] == 0.125


def test_several_objectives():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 5), trial.suggest_int("y", 0, 3)
        return x * x + y, (x - 2) ** 2

    theirs = optuna.create_study(directions=["minimize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=0))
    theirs.optimize(objective, 30)
    ours = tune.from_optuna(theirs)
    assert ours.directions == ["minimize", "maximize"]
    assert sorted(t.number for t in ours.best_trials) == sorted(t.number for t in theirs.best_trials)
    assert sorted(t.values for t in ours.to_optuna().best_trials) == sorted(t.values for t in theirs.best_trials)
    assert ours.ask() is not None


def conditional(trial):
    kind = trial.suggest_categorical("kind", ["svm", "tree", "knn"])
    n = trial.suggest_int("n", 1, 4)
    value = float(n)
    if kind == "svm":
        value += abs(math.log(trial.suggest_float("C", 1e-3, 1e3, log=True)))
        if trial.suggest_categorical("kernel", ["rbf", "poly", "lin"]) == "poly":
            value += trial.suggest_int("degree", 2, 5)
    elif kind == "tree":
        value += trial.suggest_int("depth", 1, 20)
    for i in range(n):
        value += trial.suggest_float(f"u{i}", 0, 1)
    if trial.number % 10 == 9:
        raise ValueError("after all parameters")
    return value


def test_conditions_are_found():
    theirs = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    theirs.optimize(conditional, 60, catch=ValueError)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = tune.from_optuna(theirs, seed=1)
    when = {name: p.spec.get("when") for name, p in ours.space.parameters.items()}
    assert when == {"kind": None, "n": None, "u0": None, "C": {"kind": ["svm"]}, "kernel": {"kind": ["svm"]},
                    "degree": {"kernel": ["poly"]}, "depth": {"kind": ["tree"]}, "u1": {"n": [2, 3, 4]}, "u2": {"n": [3, 4]},
                    "u3": {"n": [4]}}
    assert [t.params for t in ours.trials] == [t.params for t in theirs.trials]
    asked = [ours.ask() for _ in range(10)]
    for trial in asked:
        fixed = optuna.trial.FixedTrial(trial.params, number=0)
        conditional(fixed)
        assert set(fixed.params) == set(trial.params)  # all that the objective asks for, and no more


def test_conditions_of_many_parameters():
    theirs = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial):
        kind, many = trial.suggest_categorical("kind", list("abcd")), trial.suggest_int("many", 2, 60, step=2)
        trial.suggest_int("n", 1, 2000)  # that each trial has another value of explains anything, so it must not
        for i in range(2):
            trial.suggest_float(f"{kind}{i}", 0, 1)
        for i in range(0, many, 5):
            trial.suggest_int(f"w{i}", 1, 300)
        if many <= 10:
            trial.suggest_int("few", 1, 3)
        return many

    theirs.optimize(objective, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = tune.from_optuna(theirs)
    assert [t.params for t in ours.trials] == [t.params for t in theirs.trials]
    for name, parameter in ours.space.parameters.items():
        when = parameter.spec.get("when")
        if name in ("kind", "many", "n", "w0"):
            assert when is None
        elif name[0] == "w":
            assert when == {"many": [v for v in range(2, 61, 2) if v > int(name[1:])]}
        elif name == "few":
            assert when == {"many": [2, 4, 6, 8, 10]}
        else:
            assert when == {"kind": [name[0]]}


def test_failed_before_all_was_asked():
    both = {**X, "y": IntDistribution(1, 9)}
    trials = [ended({"x": i / 10, "y": 1 + i % 3}, both) for i in range(10)]
    early = [ended({"x": 0.5}, both, state=TrialState.FAIL), ended({"x": 0.6}, both, state=TrialState.PRUNED), ended({}, both)]
    with pytest.warns(UserWarning, match=r"2 of 12 trials are left out; without 'y': 2 \(numbers 10, 11\)"):
        ours = tune.from_optuna(study_of(*trials, *early[:2]))
    assert len(ours.trials) == 10 and "when" not in ours.space.parameters["y"].spec
    with pytest.warns(UserWarning, match=r"1 of 11 trials are left out; without 'x': 1 \(numbers 10\)"):
        assert len(tune.from_optuna(study_of(*trials, early[2])).trials) == 10


def test_unexplained_parameters():
    both = {**X, "y": FloatDistribution(0, 1)}
    trials = [ended({"x": i / 10} if i in (2, 5) else {"x": i / 10, "y": 0.5}, both) for i in range(10)]
    with pytest.warns(UserWarning, match=r"without 'y': 2 \(numbers 2, 5\)"):
        ours = tune.from_optuna(study_of(*trials))
    assert [t.params["x"] for t in ours.trials] == [i / 10 for i in range(10) if i not in (2, 5)]
    trials = [ended({"x": i / 10, "y": 0.5} if i in (2, 5) else {"x": i / 10}, both) for i in range(10)]
    with pytest.warns(UserWarning, match=r"unknown parameter \['y'\].*: 2 \(numbers 2, 5\)"):
        ours = tune.from_optuna(study_of(*trials))
    assert ours.space.names == ["x"] and len(ours.trials) == 8
    # Who knows the space can tell it.
    space = {"kind": ["a", "b"], "y": tune.uniform(0, 1).when(kind="b")}
    kind = {"kind": CategoricalDistribution(["a", "b"]), "y": FloatDistribution(0, 1)}
    given = study_of(ended({"kind": "a"}, kind), ended({"kind": "b", "y": 1.0}, kind))
    assert len(tune.from_optuna(given, space=space).trials) == 2


def test_ranges_that_change():
    trials = [ended({"x": 0.5, "n": 4}, {"x": FloatDistribution(0.1, 1), "n": IntDistribution(4, 12, step=4)}),
              ended({"x": 5.0, "n": 10}, {"x": FloatDistribution(2, 8), "n": IntDistribution(4, 16, step=6)})]
    with pytest.warns(UserWarning, match="different distributions") as warned:
        ours = tune.from_optuna(study_of(*trials))
    assert len(warned) == 2 and [t.params for t in ours.trials] == [t.params for t in trials]
    assert {k: ours.space.parameters["x"].spec[k] for k in ("low", "high", "log")} == {"low": 0.1, "high": 8, "log": False}
    assert {k: ours.space.parameters["n"].spec[k] for k in ("low", "high", "step")} == {"low": 4, "high": 16, "step": 2}


def test_odd_values():
    kinds = {"k": CategoricalDistribution([1, 1.5, "1", None, float("nan"), False])}
    trials = [ended({"k": k}, kinds, value) for k, value in zip(kinds["k"].choices, [1.0, math.inf, -1.0, 3.0, 2.0, 0.0])]
    ours = tune.from_optuna(study_of(*trials))
    assert [t.state for t in ours.trials] == ["complete", "failed"] + ["complete"] * 4 and ours.best_params == {"k": "1"}
    assert all(type(a.params["k"]) is type(b.params["k"]) for a, b in zip(trials, ours.trials))
    theirs = study_of(ended({"x": 0.5}, X, system_attrs={"constraints": [1.0, -1.0]}),
                      ended({"x": 0.25}, X, constraints={"b": 2.0, "a": 1.0}))
    assert [t.constraints for t in tune.from_optuna(theirs).trials] == [[1.0, -1.0], [1.0, 2.0]]


def test_into_storage(of_flat, tmp_path):
    ours = tune.from_optuna(of_flat, storage=f"{tmp_path}/ours.db", name="kept")
    with pytest.raises(ValueError, match="has trials"):
        tune.from_optuna(of_flat, storage=f"{tmp_path}/ours.db", name="kept")
    other = tune.Study.load(f"{tmp_path}/ours.db", "kept")
    for a, b in zip(ours.trials, other.trials, strict=True):
        assert (a.params, a.values, a.reports, a.note, a.started) == (b.params, b.values, b.reports, b.note, b.started)


def test_pickled_study_exports_the_same():
    ours = ours_of(seed=2)
    ours.optimize(lambda trial: trial["x"], 5)
    copy = pickle.loads(pickle.dumps(ours))
    for a, b in zip(ours.to_optuna().trials, tune.to_optuna(copy, study_name="copy").trials, strict=True):
        same(a, b)


def test_errors(of_flat):
    with pytest.raises(ValueError, match="the study is 'flat'"):
        tune.from_optuna(of_flat, "other")
    with pytest.raises(ValueError, match="a space must be given"):
        tune.from_optuna(optuna.create_study())
    with pytest.raises(AttributeError, match="from_optun"):
        tune.from_optun


def test_lazy():
    code = """
import sys
from deepseek import tune
assert not {"optuna", "sklearn"} & set(sys.modules)
sys.modules["optuna"] = None
try:
    tune.from_optuna(1)
except ImportError as error:
    assert "pip install optuna" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
