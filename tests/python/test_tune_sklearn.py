"""BayesSearchCV: scikit-learn's own checks, and GridSearchCV beside it, the independent source of what a result looks like."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn import set_config
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_regressor
from sklearn.datasets import make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, ShuffleSplit, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from deepseek import tune
from deepseek.tune import BayesSearchCV

X, Y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)

# --- scikit-learn's checks ---

CHECKED = [BayesSearchCV(LogisticRegression(), {"C": (1e-2, 1e2)}, n_iter=2, cv=2, random_state=0),
           BayesSearchCV(Ridge(), {"alpha": (1e-2, 1e2)}, n_iter=3, cv=2, random_state=0)]


def excluded(search):
    """What GridSearchCV fails too; test_grid_search_fails_what_is_excluded shows that it does."""
    return {"check_supervised_y_2d": "regressors give no DataConversionWarning"} if is_regressor(search) else {}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(CHECKED, expected_failed_checks=excluded)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_grid_search_fails_what_is_excluded():
    for search in CHECKED:
        if excluded(search):
            grid = GridSearchCV(search.estimator, {name: [0.1, 1.0] for name in search.search_spaces}, cv=2)
            for name in excluded(search):
                with pytest.raises(AssertionError, match="expected 1 DataConversionWarning"):
                    getattr(estimator_checks, name)("GridSearchCV", grid)


# --- results ---


def test_as_grid_search_finds():
    grid = {"C": [0.01, 0.1, 1.0, 10.0], "kernel": ["rbf", "linear"]}
    theirs = GridSearchCV(SVC(), grid, cv=3, return_train_score=True).fit(X, Y)
    ours = BayesSearchCV(SVC(), grid, cv=3, return_train_score=True, sampler="grid", n_iter=100).fit(X, Y)
    assert set(ours.cv_results_) == set(theirs.cv_results_) and vars(ours).keys() >= vars(theirs).keys() - {"param_grid"}
    order = [ours.cv_results_["params"].index(p) for p in theirs.cv_results_["params"]]
    assert sorted(order) == list(range(8))
    for key, values in theirs.cv_results_.items():
        if key != "params" and "time" not in key:
            mine = ours.cv_results_[key]
            assert type(mine) is type(values) and mine.dtype == values.dtype and (mine[order] == values).all(), key
    assert ours.best_score_ == theirs.best_score_ and (ours.predict(X) == theirs.predict(X)).all()
    assert ours.score(X, Y) == theirs.score(X, Y) and (ours.classes_ == theirs.classes_).all() and ours.n_splits_ == 3
    assert ours.best_score_ == ours.study_.best_value and ours.cv_results_["params"][ours.best_index_] == ours.best_params_


def test_search_is_close_to_the_best_of_many():
    x, y = make_regression(80, 30, n_informative=5, noise=20, random_state=0)
    alphas = np.geomspace(1e-4, 1e4, 60)
    best = max(cross_val_score(Ridge(alpha=a), x, y, cv=3).mean() for a in alphas)
    search = BayesSearchCV(Ridge(), {"alpha": tune.log(1e-4, 1e4)}, n_iter=15, cv=3, random_state=0).fit(x, y)
    assert search.best_score_ > best - 1e-3 and len(search.study_.trials) == 15


@pytest.mark.parametrize("n_points", [1, 4])
def test_trials_are_rows(n_points):
    search = BayesSearchCV(SVC(), {"C": (1e-2, 1e2), "kernel": ["rbf", "poly"], "degree": tune.integer(2, 4).when(kernel="poly")},
                           n_iter=10, cv=3, random_state=1, n_points=n_points).fit(X, Y)
    trials = search.study_.trials
    assert len(trials) == 10 and [t.params for t in trials] == search.cv_results_["params"]
    assert [t.value for t in trials] == list(search.cv_results_["mean_test_score"])
    degree = search.cv_results_["param_degree"]
    assert all(degree.mask[i] == (p["kernel"] == "rbf") for i, p in enumerate(search.cv_results_["params"]))
    again = clone(search).fit(X, Y)
    assert again.cv_results_["params"] == search.cv_results_["params"]
    assert clone(search).set_params(random_state=2).fit(X, Y).cv_results_["params"] != search.cv_results_["params"]


def test_random_state():
    def params(state):
        search = BayesSearchCV(Ridge(), {"alpha": (1e-2, 1e2)}, n_iter=3, cv=2, sampler="random", random_state=state)
        return search.fit(X, Y).cv_results_["params"]

    assert params(np.random.RandomState(5)) == params(np.random.RandomState(5)) != params(None)
    state = np.random.RandomState(5)
    assert params(state) != params(state)


def test_same_folds_for_all():
    class Constant(ClassifierMixin, BaseEstimator):
        def __init__(self, a=0):
            self.a = a

        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def predict(self, x):
            return np.full(len(x), self.classes_[0])

    search = BayesSearchCV(Constant(), {"a": (0.0, 1.0)}, n_iter=4, cv=ShuffleSplit(3, test_size=0.3), random_state=0).fit(X, Y)
    for i in range(3):
        assert len(set(search.cv_results_[f"split{i}_test_score"])) == 1


def test_groups_and_pipelines():
    groups = np.arange(len(X)) % 4
    inner = Pipeline([("scale", StandardScaler()), ("svc", SVC())])
    pipe = Pipeline([("pca", PCA()), ("inner", inner)])
    space = {"pca__n_components": (2, 5), "inner__svc__C": tune.log(0.01, 100.0),
             "inner__scale": [StandardScaler(), "passthrough"]}
    search = BayesSearchCV(pipe, space, n_iter=6, cv=GroupKFold(4), random_state=0, n_jobs=2, n_points=2).fit(X, Y, groups=groups)
    fitted = search.best_estimator_
    assert fitted.named_steps["pca"].n_components == search.best_params_["pca__n_components"] and search.n_splits_ == 4
    assert fitted.named_steps["inner"].named_steps["svc"].C == search.best_params_["inner__svc__C"]
    assert space["inner__scale"][0] is not fitted.named_steps["inner"].named_steps["scale"]  # a clone was fitted
    outer = cross_val_score(BayesSearchCV(Ridge(), {"alpha": (0.1, 10.0)}, n_iter=2, cv=2, random_state=0), X, Y, cv=2)
    assert outer.shape == (2,)
    with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
        BayesSearchCV(SVC(), {"nothing": (0.0, 1.0)}, n_iter=2).fit(X, Y)


# --- several spaces ---


def test_list_of_spaces():
    pipe = Pipeline([("model", SVC())])
    spaces = [{"model": [SVC()], "model__C": (0.01, 100.0), "model__kernel": ["rbf", "poly"],
               "model__degree": tune.integer(2, 3).when(model__kernel="poly")},
              {"model": [LogisticRegression()], "model__C": (0.1, 10.0)},
              {"model": [KNeighborsClassifier()], "model__n_neighbors": (1, 20)}, {}]
    search = BayesSearchCV(pipe, spaces, n_iter=24, cv=2, random_state=0).fit(X, Y)
    seen = set()
    for trial, params in zip(search.study_.trials, search.cv_results_["params"]):
        i = trial.params["space"]
        seen.add(i)
        allowed = set(spaces[i])
        assert set(params) == (allowed - {"model__degree"} if params.get("model__kernel") == "rbf" else allowed)
        if params:
            assert type(params["model"]) is type(spaces[i]["model"][0])
        if i < 2:
            low, high = spaces[i]["model__C"]
            assert low <= params["model__C"] <= high
    assert seen == {0, 1, 2, 3}
    spaces = [{"C": (0.01, 100.0), "kernel": ["rbf"]}, {"C": (0.01, 100.0), "kernel": ["poly"], "degree": (2, 3)}]
    shared = BayesSearchCV(SVC(), spaces, n_iter=4, cv=2).fit(X, Y)
    assert shared.study_.space.names == ["space", "C", "kernel", "kernel@1", "degree"]
    one = BayesSearchCV(SVC(), [{"C": (0.01, 100.0)}], n_iter=2, cv=2).fit(X, Y)
    assert one.study_.space.names == ["C"]


def test_finite_space_ends():
    search = BayesSearchCV(SVC(), {"C": [0.1, 1.0, 10.0]}, n_iter=50, cv=2, random_state=0).fit(X, Y)
    assert sorted(p["C"] for p in search.cv_results_["params"]) == [0.1, 1.0, 10.0] and "tried" in search.study_.over


def test_budgets():
    search = BayesSearchCV(Ridge(), {"alpha": (0.1, 10.0)}, n_iter=500, cv=2, timeout=0.3, sampler="random").fit(X, Y)
    assert 1 <= len(search.study_.trials) < 500 and "seconds" in search.study_.over
    search = BayesSearchCV(KNeighborsClassifier(), {"leaf_size": (1, 1000)}, n_iter=50, cv=2, patience=4).fit(X, Y)
    assert len(search.study_.trials) == 5


# --- metrics ---


def test_several_metrics():
    scoring = {"accuracy": "accuracy", "f1": "f1_macro"}
    search = BayesSearchCV(SVC(), {"C": (1e-2, 1e2)}, n_iter=5, cv=3, scoring=scoring, refit="f1", random_state=0).fit(X, Y)
    assert [t.value for t in search.study_.trials] == list(search.cv_results_["mean_test_f1"]) and search.multimetric_
    assert search.best_score_ == search.cv_results_["mean_test_f1"].max() == search.study_.best_value
    assert set(search.scorer_) == set(scoring)

    scoring = ["accuracy", "f1_macro"]
    search = BayesSearchCV(SVC(), {"C": (1e-2, 1e2)}, n_iter=5, cv=3, scoring=scoring, refit=False, random_state=0).fit(X, Y)
    assert search.study_.directions == ["maximize"] * 2 and not hasattr(search, "best_estimator_")
    columns = [search.cv_results_[f"mean_test_{metric}"] for metric in scoring]
    assert [t.values for t in search.study_.trials] == [list(row) for row in zip(*columns)]
    with pytest.raises(AttributeError):
        search.predict(X)
    with pytest.raises(ValueError, match="For multi-metric scoring"):
        BayesSearchCV(SVC(), {"C": (1e-2, 1e2)}, n_iter=5, scoring=["accuracy", "f1_macro"]).fit(X, Y)


def test_refit_by_a_function():
    def smallest_c(results):
        good = np.flatnonzero(results["mean_test_score"] > results["mean_test_score"].max() - 0.1)
        return good[np.argmin(results["param_C"][good].astype(float))]

    search = BayesSearchCV(SVC(), {"C": (1e-2, 1e2)}, n_iter=6, cv=3, refit=smallest_c, random_state=0).fit(X, Y)
    assert search.best_index_ == smallest_c(search.cv_results_) and search.best_estimator_.C == search.best_params_["C"]
    assert not hasattr(search, "best_score_")
    search.set_params(scoring=["accuracy", "f1_macro"], refit=lambda results: 2).fit(X, Y)
    assert search.best_index_ == 2 and len(search.study_.directions) == 2


def test_scoring_functions():
    def both(estimator, x, y):
        predicted = estimator.predict(x)
        return {"a": accuracy_score(y, predicted), "f": f1_score(y, predicted, average="macro")}

    for refit, directions in (("f", 1), (False, 2)):
        search = BayesSearchCV(SVC(), {"C": (1e-2, 1e2)}, n_iter=5, cv=2, scoring=both, refit=refit, n_points=2).fit(X, Y)
        expected = zip(*(search.cv_results_[f"mean_test_{m}"] for m in ("a", "f")[-directions:]))
        assert [t.values for t in search.study_.trials] == [list(v) for v in expected] and search.multimetric_
        assert [t.params for t in search.study_.trials] == search.cv_results_["params"]
    search = BayesSearchCV(SVC(), {"C": (1e-2, 1e2)}, n_iter=3, cv=2, scoring=make_scorer(accuracy_score)).fit(X, Y)
    assert search.study_.best_value == search.best_score_


# --- failures ---


class Fragile(ClassifierMixin, BaseEstimator):
    """A tree whose fit fails for the depths in `bad`, and for those in `half` where its first row is the data's."""

    def __init__(self, max_depth=1, bad=(), half=()):
        self.max_depth = max_depth
        self.bad = bad
        self.half = half

    def fit(self, x, y):
        if self.max_depth in self.bad or self.max_depth in self.half and x[0, 0] == X[0, 0]:
            raise ValueError(f"depth {self.max_depth} fails")
        self.tree_ = DecisionTreeClassifier(max_depth=self.max_depth, random_state=0).fit(x, y)
        self.classes_ = self.tree_.classes_
        return self

    def predict(self, x):
        return self.tree_.predict(x)


DEPTHS = {"max_depth": [1, 2, 3, 4]}
HALVES = [(np.arange(0, 60), np.arange(60, 120)), (np.arange(60, 120), np.arange(0, 60))]


def depths(**settings):
    return BayesSearchCV(Fragile(), DEPTHS, sampler="grid", random_state=0, cv=HALVES, **settings)


ORDER = [p["max_depth"] for p in depths().fit(X, Y).cv_results_["params"]]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:the scores of", "ignore:One or more of the")
@pytest.mark.parametrize("n_points", [1, 2])
@pytest.mark.parametrize("bad", [ORDER[:2], ORDER[2:], ORDER[1:3]])
@pytest.mark.parametrize("error_score", [np.nan, -1.0])
@pytest.mark.parametrize("scoring", [None, ["accuracy", "f1_macro"], lambda e, x, y: {"accuracy": e.score(x, y), "f": 1.0}])
def test_failed_fits(bad, n_points, scoring, error_score):
    settings = dict(scoring=scoring, refit="accuracy" if scoring else True, return_train_score=True, error_score=error_score)
    theirs = GridSearchCV(Fragile(bad=bad), [{"max_depth": [d]} for d in ORDER], cv=HALVES, **settings).fit(X, Y)
    ours = depths(n_points=n_points, **settings).set_params(estimator__bad=bad).fit(X, Y)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"] and ours.best_params_ == theirs.best_params_
    assert set(ours.cv_results_) == set(theirs.cv_results_)
    for key, values in theirs.cv_results_.items():
        if key != "params" and "time" not in key:
            np.testing.assert_array_equal(np.asarray(ours.cv_results_[key], float), np.asarray(values, float), key)
    trials = ours.study_.trials
    assert [t.params["max_depth"] for t in trials if t.state == "failed"] == bad
    if n_points == 1 and not callable(scoring):
        assert all(t.error == f"ValueError: depth {t.params['max_depth']} fails" for t in trials if t.state == "failed")


def test_failures_are_told():
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="scores of 2 of 4 candidates aren't finite"):
        depths().set_params(estimator__bad=ORDER[2:]).fit(X, Y)
    # One fold of two: not a number as a whole, unless error_score is one.
    for error_score, state in ((np.nan, "failed"), (0.0, "complete")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search = depths(error_score=error_score).set_params(estimator__half=ORDER[1:2]).fit(X, Y)
        assert [t.state for t in search.study_.trials] == ["complete", state, "complete", "complete"]
    search = depths(error_score="raise").set_params(estimator__bad=ORDER[1:2])
    with pytest.raises(ValueError, match=f"depth {ORDER[1]} fails"):
        search.fit(X, Y)
    assert [t.state for t in search.study_.trials] == ["complete", "failed"]
    with pytest.raises(ValueError, match="All the 2 fits failed"), pytest.warns(FitFailedWarning):
        depths().set_params(estimator__bad=ORDER).fit(X, Y)


def test_interrupted():
    def interrupt(estimator, x, y):
        if estimator.max_depth == ORDER[2]:
            raise KeyboardInterrupt
        return 1.0

    search = depths(scoring=interrupt)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, Y)
    assert [t.state for t in search.study_.trials] == ["complete", "complete", "failed"]
    assert not hasattr(search, "best_estimator_") and not hasattr(search, "cv_results_")


@pytest.mark.parametrize("settings, error", [
    (dict(n_iter=0), "n_iter: expected"), (dict(n_points=1.5), "n_points: expected"), (dict(sampler="hybird"), "did you mean"),
    (dict(search_spaces={}), "at least one"), (dict(search_spaces=[]), "search_spaces: expected"),
    (dict(search_spaces=3), "search_spaces: expected"),
    (dict(search_spaces={"C": (1, "b")}), r"parameter 'C'"), (dict(n_jobs="two"), "n_jobs")])
def test_errors(settings, error):
    search = BayesSearchCV(SVC(), {"C": (0.1, 1.0)}).set_params(**settings)
    with pytest.raises((ValueError, TypeError), match=error):
        search.fit(X, Y)


# --- copies ---


def test_pickle():
    search = BayesSearchCV(SVC(), {"C": (1e-2, 1e2), "gamma": tune.log(1e-3, 1.0)}, n_iter=6, cv=2, random_state=0).fit(X, Y)
    copy = pickle.loads(pickle.dumps(search))
    assert copy.study_.trials == search.study_.trials and copy.study_.best_params == search.best_params_
    assert (copy.predict(X) == search.predict(X)).all()
    assert copy.study_.ask() is None and copy.study_.over == "all 6 trials have been made"


def test_pickled_study_goes_on():
    space = {"x": (0.0, 1.0), "f": [len, max, SVC], "k": tune.integer(1, 3).when(f=len)}
    study = tune.Study(space, seed=3, direction=["minimize", "maximize"])
    study.enqueue({"x": 0.5})
    for i in range(12):
        trial = study.ask()
        trial.constraints = [0.5 - trial["x"]]
        if i % 4 == 3:
            study.tell(trial, state="failed", error="why")
        else:
            study.tell(trial, [trial["x"], 1.0])
    copy = pickle.loads(pickle.dumps(study))
    assert copy.trials == study.trials and copy.best_trials == study.best_trials
    running = study.ask()
    copy = pickle.loads(pickle.dumps(study))
    assert copy.trials[-1].state == "waiting" and copy.ask().params == running.params
    study.tell(running, [1.0, 2.0])
    copy.tell(running.number, [1.0, 2.0])
    assert copy.ask().params == study.ask().params  # the sampler knows what it knew
    limited = tune.Study({"x": (0.0, 1.0)}, constraints=positive, max_trials=2)
    limited.ask()
    assert pickle.loads(pickle.dumps(limited)).ask()["x"] > 0.5


def positive(params):
    return params["x"] > 0.5


def test_choices_that_print_alike():
    functions = [lambda x: x, lambda x: -x, lambda x: 2 * x]
    study = tune.Study({"f": functions}, sampler="grid")
    assert {study.ask()["f"] for _ in range(3)} == set(functions)


def test_metadata_routing():
    set_config(enable_metadata_routing=True)
    try:
        search = BayesSearchCV(LogisticRegression().set_fit_request(sample_weight=True).set_score_request(sample_weight=False),
                               {"C": (0.1, 10.0)}, n_iter=2, cv=GroupKFold(2), random_state=0)
        weighted = search.fit(X, Y, sample_weight=np.where(Y == 0, 100.0, 1.0), groups=np.arange(len(X)) % 2)
        assert (weighted.predict(X) == 0).mean() > (Y == 0).mean()
    finally:
        set_config(enable_metadata_routing=False)


def test_lazy():
    code = """
import sys
from deepseek import tune
assert "sklearn" not in sys.modules and "BayesSearchCV" in dir(tune)
sys.modules["sklearn"] = None
try:
    tune.BayesSearchCV
except ImportError as error:
    assert "pip install scikit-learn" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
