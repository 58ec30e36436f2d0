"""Metrics against scikit-learn on random predictions, with ties and missing classes."""
import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from deepseek import metrics


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification(classes):
    random = np.random.default_rng(classes)
    y = random.integers(0, classes, 200)
    logits = np.round(random.standard_normal((200, classes)), 1).astype(np.float32)  # rounding makes ties for auc
    logits[np.arange(200), y] += 0.75
    logits += np.arange(classes) * 1e-3  # no ties within a row
    ours = metrics.compute(["accuracy", "precision", "recall", "f1", "auc", "top2"], logits, y)
    predicted = logits.argmax(1)
    average = {"average": "binary" if classes == 2 else "macro"}
    p = softmax(logits.astype(np.float64), 1)
    theirs = {"accuracy": sk.accuracy_score(y, predicted), "precision": sk.precision_score(y, predicted, **average),
              "recall": sk.recall_score(y, predicted, **average), "f1": sk.f1_score(y, predicted, **average),
              "auc": sk.roc_auc_score(y, p[:, 1]) if classes == 2 else sk.roc_auc_score(y, p, multi_class="ovr"),
              "top2": sk.top_k_accuracy_score(y, logits, k=2) if classes > 2 else 1.0}
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-9), name


def test_a_class_that_is_never_predicted():
    y = np.array([0, 1, 2, 2])
    logits = np.eye(3, dtype=np.float32)[[0, 0, 2, 2]]
    ours = metrics.compute(["precision", "recall", "f1"], logits, y)
    assert ours["precision"] == pytest.approx(sk.precision_score(y, logits.argmax(1), average="macro", zero_division=0))
    assert ours["f1"] == pytest.approx(sk.f1_score(y, logits.argmax(1), average="macro", zero_division=0))


def test_binary_logits():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 100).astype(np.float32)
    logits = (random.standard_normal(100) + y).astype(np.float32)
    ours = metrics.compute(["accuracy", "f1", "auc"], logits, y, task="binary")
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y, logits > 0))
    assert ours["f1"] == pytest.approx(sk.f1_score(y, logits > 0))
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(y, logits))


def test_regression():
    random = np.random.default_rng(0)
    y = (1000 + random.standard_normal(50)).astype(np.float32)  # far from zero: a naive sum of squares would lose r2
    p = (y + 0.3 * random.standard_normal(50)).astype(np.float32)
    ours = metrics.compute(["mae", "rmse", "r2"], p, y)
    y, p = y.astype(np.float64), p.astype(np.float64)
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert ours["rmse"] == pytest.approx(sk.mean_squared_error(y, p) ** 0.5)
    assert ours["r2"] == pytest.approx(sk.r2_score(y, p), rel=1e-9)
