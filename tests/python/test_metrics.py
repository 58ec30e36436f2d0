"""Metrics against scikit-learn on random predictions, with ties and missing classes."""
import numpy as np
import pytest
from scipy.special import logsumexp, softmax
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


@pytest.mark.parametrize("y, p, classes", [([0, 0, 1, 1], [0, 0, 1, 1], 3), ([2, 1, 0, 0], [2, 1, 0, 1], 8), ([3, 3], [3, 5], 6)])
def test_classes_that_occur_nowhere_take_no_part_in_means(y, p, classes):
    ours = metrics.compute(["precision", "recall", "f1"], np.eye(classes, dtype=np.float32)[p], np.array(y))
    theirs = sk.precision_recall_fscore_support(y, p, average="macro", zero_division=0)[:3]
    np.testing.assert_allclose(list(ours.values()), theirs)


@pytest.mark.parametrize("p", [[1, 2, 3], [2, 2, 2]])
def test_r2_of_constant_targets(p):
    assert metrics.compute("r2", np.array(p, np.float32), np.full(3, 2, np.float32))["r2"] == sk.r2_score([2, 2, 2], p)


def test_regression_of_several_outputs():
    random = np.random.default_rng(0)
    y = (random.standard_normal((40, 3)) * [1, 10, 0] + [0, 5, 2]).astype(np.float32)  # of other scales, one of them constant
    p = (y + random.standard_normal((40, 3))).astype(np.float32)
    ours = metrics.compute(["mae", "rmse", "r2"], p, y)
    y, p = y.astype(np.float64), p.astype(np.float64)
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert ours["rmse"] == pytest.approx(sk.root_mean_squared_error(y, p))
    assert ours["r2"] == pytest.approx(sk.r2_score(y, p), rel=1e-9)


def test_r2_of_one_sample_is_undefined():
    assert np.isnan(metrics.compute("r2", np.ones(1, np.float32), np.ones(1, np.float32))["r2"])


def test_auc_ranks_scores_that_softmax_rounds_to_one():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 200)
    scores = np.round(200 + 50 * random.standard_normal(200) + 30 * y)
    binary = metrics.compute("auc", scores.astype(np.float32), y.astype(np.float32), task="binary")["auc"]
    assert binary == pytest.approx(sk.roc_auc_score(y, scores), rel=1e-12)
    two = metrics.compute("auc", np.stack([np.zeros(200), scores], 1).astype(np.float32), y)["auc"]
    assert two == pytest.approx(sk.roc_auc_score(y, scores), rel=1e-12)
    y[:2] = 2
    three = np.stack([np.zeros(200), scores, 400 - scores], 1).astype(np.float32)
    wide = three.astype(np.float64)
    odds = [wide[:, c] - logsumexp(np.delete(wide, c, 1), 1) for c in range(3)]
    assert metrics.compute("auc", three, y)["auc"] == pytest.approx(np.mean([sk.roc_auc_score(y == c, odds[c]) for c in range(3)]), rel=1e-12)


@pytest.mark.parametrize("scores, auc", [([0, np.inf, 1], 1), ([np.inf, -np.inf, 0], 0), ([0, np.nan, 1], np.nan)])
def test_auc_of_scores_that_are_not_finite(scores, auc):
    y = np.array([0, 1, 0], np.float32)
    np.testing.assert_equal(metrics.compute("auc", np.array(scores, np.float32), y, task="binary")["auc"], auc)
    np.testing.assert_equal(metrics.compute("auc", np.stack([np.zeros(3), scores], 1).astype(np.float32), y.astype(int))["auc"], auc)


def test_a_nan_is_no_hit():
    logits = np.array([[np.nan, 1, 2], [0, 3, 1]], np.float32)
    ours = metrics.compute(["accuracy", "top1", "top2"], logits, np.array([2, 1]))
    assert ours == {"accuracy": 0.5, "top1": 0.5, "top2": 1.0}
    assert metrics.compute("top2", np.array([[np.nan, 1, 2]], np.float32), np.array([0]))["top2"] == 0


@pytest.mark.parametrize("ignored", [-100, -1, 1, 255])
def test_ignored_rows_do_not_count(ignored):
    random = np.random.default_rng(0)
    y, logits = random.integers(0, 4, 50), random.standard_normal((50, 4)).astype(np.float32)
    y[::3] = ignored
    used = y != ignored
    ours = metrics.compute(["accuracy", "f1"], logits, y, ignore_index=ignored)
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y[used], logits[used].argmax(1)))
    assert ours["f1"] == pytest.approx(sk.f1_score(y[used], logits[used].argmax(1), average="macro", zero_division=0))
    if not 0 <= ignored < 4:
        with pytest.raises(ValueError, match=f"target {ignored} of row 0 is out of range.*ignore_index"):
            metrics.compute("accuracy", logits, y, ignore_index=None)
