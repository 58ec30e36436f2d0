"""Classifier and Regressor: scikit-learn's own checks, and what they predict beside scikit-learn's networks."""

import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, make_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import deepseek
from deepseek import nn, optim, tune

random = np.random.default_rng(0)


@parametrize_with_checks([deepseek.Classifier(epochs=60), deepseek.Regressor(epochs=60)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def blobs(n=90, names=("red", "green", "blue")):
    """Three clusters around the corners of a triangle, labelled by text."""
    codes = np.arange(n) % 3
    x = np.array([[0, 2], [2, -1], [-2, -1]])[codes] + 0.3 * random.normal(size=(n, 2))
    return x, np.array(names)[codes]


def test_probabilities_are_the_softmax_of_the_model():
    x, y = blobs()
    classifier = deepseek.Classifier(epochs=20, random_state=1).fit(x, y)
    scores = classifier.model_.eval()(x.astype(np.float32)).astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(x), expected, rtol=1e-4, atol=1e-7)
    assert list(classifier.classes_) == ["blue", "green", "red"] and classifier.score(x, y) == 1
    assert classifier.n_iter_ == len(classifier.history_) == 20 and classifier.history_[-1]["training"]["loss"] < 0.5


@pytest.mark.parametrize("labels", [(True, False), (-3, 40), (1.0, 3.0), ("no", "yes"), (np.int8(1), np.int8(2))])
def test_labels_of_any_type(labels):
    x = np.concatenate([random.normal(-2, 0.3, (40, 3)), random.normal(2, 0.3, (40, 3))])
    y = np.array(labels)[np.arange(80) // 40]
    classifier = deepseek.Classifier(epochs=20, random_state=0).fit(x, y)
    assert np.array_equal(classifier.predict(x), y) and classifier.predict(x).dtype == y.dtype


def test_names_of_features_and_pickles():
    pandas = pytest.importorskip("pandas")
    x, y = blobs()
    frame = pandas.DataFrame(x, columns=["width", "height"])
    classifier = deepseek.Classifier(epochs=5, random_state=0).fit(frame, y)
    assert list(classifier.feature_names_in_) == ["width", "height"] and classifier.n_features_in_ == 2
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(frame), classifier.predict_proba(frame))
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame.rename(columns={"width": "wide"}))


def test_the_same_seed_makes_the_same_model():
    x, y = blobs()
    first, second, other = (deepseek.Classifier(epochs=3, random_state=seed).fit(x, y).predict_proba(x) for seed in (7, 7, 8))
    assert np.array_equal(first, second) and not np.allclose(first, other)


def test_a_model_of_ones_own_an_optimizer_and_a_loss():
    def make(features, outputs, width=8):
        return nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, outputs))

    x, y = blobs()
    classifier = deepseek.Classifier(make, model_params={"width": 16}, optimizer=optim.AdamW(lr=0.5, weight_decay=0.0), learning_rate=0.01,
                                     loss={"name": "cross_entropy", "label_smoothing": 0.1}, schedule="cosine", epochs=40, random_state=0)
    assert clone(classifier).get_params()["model"] is make
    assert classifier.fit(x, y).score(x, y) == 1
    assert classifier.model_.state_dict()["0.weight"].shape == (16, 2) and classifier.history_[0]["learning_rate"] <= 0.01
    with pytest.raises(TypeError, match=r"returns a deepseek.nn.Module, it returned int"):
        deepseek.Classifier(lambda features, outputs: 3).fit(x, y)
    with pytest.raises(TypeError, match="model: expected a name .* got Linear"):
        deepseek.Classifier(nn.Linear(2, 3)).fit(x, y)


def test_early_stopping_holds_out_samples():
    x, y = blobs(120)
    y = random.permutation(y)  # nothing to learn: the loss on what is held out soon rises
    classifier = deepseek.Classifier(early_stopping=True, patience=3, epochs=200, validation_fraction=0.25, random_state=0).fit(x, y)
    losses = [epoch["validation"]["loss"] for epoch in classifier.history_]
    assert classifier.n_iter_ < 200 and np.argmin(losses) == classifier.n_iter_ - 4
    with pytest.raises(ValueError, match="early_stopping: 3 samples can't be split by validation_fraction=0.1"):
        deepseek.Classifier(early_stopping=True).fit(x[:3], ["a", "b", "c"])


def test_several_targets_and_scaled_ones():
    x, y = make_regression(300, 5, n_targets=2, noise=1.0, random_state=0)
    regressor = TransformedTargetRegressor(make_pipeline(StandardScaler(), deepseek.Regressor(epochs=60, random_state=0)), transformer=StandardScaler())
    assert regressor.fit(x[:200], y[:200]).score(x[200:], y[200:]) > 0.95 and regressor.predict(x).shape == (300, 2)


def test_as_good_as_scikit_learns_on_breast_cancer():
    x, y = load_breast_cancer(return_X_y=True)
    train, test, labels, truth = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
    areas = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLPClassifier's of iterations
        for model in (deepseek.Classifier(epochs=30, random_state=0), MLPClassifier(max_iter=60, random_state=0), LogisticRegression()):
            areas[type(model).__name__] = roc_auc_score(truth, make_pipeline(StandardScaler(), model).fit(train, labels).predict_proba(test)[:, 1])
    assert areas["Classifier"] > max(areas.values()) - 0.02, areas


def test_beside_a_network_of_scikit_learn_on_diabetes():
    x, y = load_diabetes(return_X_y=True)
    x, y = StandardScaler().fit_transform(x), StandardScaler().fit_transform(y[:, None])[:, 0]
    regressor = deepseek.Regressor(model_params={"width": 32, "layers": 1}, epochs=40, random_state=0).fit(x[:300], y[:300])
    assert regressor.predict(x[300:]).shape == (142,) and regressor.score(x[300:], y[300:]) > 0.4


def test_searches():
    x, y = blobs()
    pipeline = make_pipeline(StandardScaler(), deepseek.Classifier(epochs=5, random_state=0, model_params={"width": 8}))
    grid = GridSearchCV(pipeline, {"classifier__learning_rate": [1e-6, 1e-1]}, cv=2).fit(x, y)
    assert grid.best_params_ == {"classifier__learning_rate": 0.1}
    search = tune.BayesSearchCV(pipeline, {"classifier__learning_rate": (1e-6, 1e-1), "classifier__optimizer": ["sgd", "adam"]}, n_iter=4, cv=2,
                                random_state=0).fit(x, y)
    assert len(search.cv_results_["params"]) == 4 and search.best_score_ > 0.6 and search.predict(x).shape == (90,)


def test_a_file_of_the_model(tmp_path):
    x, y = blobs()
    classifier = deepseek.Classifier(epochs=10, random_state=0).fit(x, y)
    classifier.save(tmp_path / "m.dsk")
    session = deepseek.InferenceSession(tmp_path / "m.dsk")
    scores, = session.run(None, {session.inputs[0].name: x.astype(np.float32)})
    assert [session.class_names[session.outputs[0].name][i] for i in scores.argmax(1)] == list(classifier.predict(x))
    with pytest.raises(ValueError, match="fit"):
        pickle.load(io.BytesIO(pickle.dumps(classifier))).save(tmp_path / "n.dsk")


def test_without_scikit_learn():
    code = "import sys; sys.modules['sklearn'] = None\nimport deepseek\ntry: deepseek.Classifier\nexcept ImportError as e: print(e)"
    assert "pip install -U scikit-learn" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
