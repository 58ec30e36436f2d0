"""Classifier and Regressor in scikit-learn's manners; public as deepseek.Classifier and deepseek.Regressor."""

from __future__ import annotations

import typing

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # type: ignore[import-untyped,unused-ignore]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped,unused-ignore]
    from sklearn.utils import check_random_state  # type: ignore[import-untyped,unused-ignore]
    from sklearn.utils.multiclass import check_classification_targets  # type: ignore[import-untyped,unused-ignore]
    from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data  # type: ignore[import-untyped,unused-ignore]
except ImportError as error:
    raise ImportError("deepseek.Classifier and deepseek.Regressor need scikit-learn 1.6 or newer: pip install -U scikit-learn") from error

from . import _core, models
from .data import Dataset
from .optim import Optimizer
from .trainer import Trainer

if typing.TYPE_CHECKING:
    import os
    from typing import Any, Self

__all__ = ["Classifier", "Regressor"]

_ROWS = 256  # that are predicted together


class _Estimator(BaseEstimator):  # type: ignore[misc,unused-ignore]
    _loss = ""

    def __init__(self, model: Any = "mlp", *, model_params: Any = None, optimizer: Any = "adam", learning_rate: float | None = None,
                 epochs: int = 100, batch_size: int = 64, loss: Any = None, schedule: Any = "constant", early_stopping: bool = False,
                 validation_fraction: float = 0.1, patience: int = 10, random_state: Any = None, verbose: bool = False, device: str = "cpu",
                 trainer_params: Any = None) -> None:
        self.model = model
        self.model_params = model_params
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.loss = loss
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.trainer_params = trainer_params

    def _make_model(self, features: int, outputs: int) -> _core.Module:
        if callable(self.model) and not isinstance(self.model, _core.Module):
            made = self.model(features, outputs, **(self.model_params or {}))
            if not isinstance(made, _core.Module):
                raise TypeError(f"model: expected a function (n_features, n_outputs) that returns a deepseek.nn.Module, it returned {type(made).__name__}")
            return made
        if not isinstance(self.model, str):
            raise TypeError(f"model: expected a name of deepseek.models.names() or a function (n_features, n_outputs) -> deepseek.nn.Module, "
                            f"got {type(self.model).__name__}; what is fitted is made anew by each fit()")
        return models.create(self.model, [features], outputs, **(self.model_params or {}))

    def _make_optimizer(self) -> Any:
        optimizer = self.optimizer
        if self.learning_rate is None:
            return optimizer
        settings = optimizer.settings if isinstance(optimizer, Optimizer) else {"name": optimizer} if isinstance(optimizer, str) else dict(optimizer)
        return {**settings, "learning_rate": self.learning_rate}

    def _make_dataset(self, x: np.ndarray, y: np.ndarray) -> Dataset:
        return Dataset(x, y)

    def _fit(self, x: np.ndarray, y: np.ndarray, outputs: int, strata: np.ndarray | None, metrics: Any) -> Self:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        validation = None
        if self.early_stopping:
            try:
                rows = train_test_split(np.arange(len(x)), test_size=self.validation_fraction, random_state=seed, stratify=strata)
            except ValueError as error:
                raise ValueError(f"early_stopping: {len(x)} samples can't be split by validation_fraction={self.validation_fraction}: {error}") from error
            validation = self._make_dataset(x[rows[1]], y[rows[1]])
            x, y = x[rows[0]], y[rows[0]]
        _core.manual_seed(seed)
        options = {"epochs": self.epochs, "batch_size": self.batch_size, "seed": seed, "device": self.device, "metrics": metrics,
                   **({"monitor": "loss", "patience": self.patience} if self.early_stopping else {}), **(self.trainer_params or {})}
        self.trainer_ = Trainer(self._make_model(x.shape[1], outputs), self.loss or self._loss, self._make_optimizer(), self.schedule, **options)
        self.model_ = self.trainer_.model
        self.history_ = self.trainer_.fit(self._make_dataset(x, y), validation, progress=bool(self.verbose))
        self.n_iter_ = len(self.history_)
        return self

    def _outputs(self, x: Any) -> np.ndarray:
        """What the model says of each row, f64. In batches of one size, the last one filled up: what is said of a row
        doesn't depend on those beside it, and one program serves all."""
        check_is_fitted(self)
        x = validate_data(self, x, dtype=np.float32, reset=False)
        parts = []
        for begin in range(0, len(x), _ROWS):
            part = x[begin:begin + _ROWS]
            if len(part) < _ROWS:
                part = np.concatenate([part, np.zeros((_ROWS - len(part), x.shape[1]), np.float32)])
            parts.append(np.asarray(self.trainer_.predict(part)))
        return typing.cast(np.ndarray, np.concatenate(parts)[:len(x)].astype(np.float64))

    def save(self, path: str | os.PathLike[str]) -> None:
        """The fitted model as one file for deepseek.InferenceSession and `deepseek predict`; see Trainer.save.

        Of an estimator that fit() has run on: one that was unpickled no longer knows its training data, and raises ValueError.
        """
        check_is_fitted(self)
        self.trainer_.save(path)


class Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc,unused-ignore]
    """A network that classifies, as scikit-learn's estimators do: in pipelines, GridSearchCV, deepseek.tune.BayesSearchCV.

        classifier = make_pipeline(StandardScaler(), deepseek.Classifier(epochs=50))
        classifier.fit(x, y).predict_proba(x_new)

    Inputs [N, features] are not scaled inside, as in scikit-learn: put a StandardScaler before. Labels are of any type. Weights of
    samples aren't supported.

    model: a name of the zoo (deepseek.models.names(), for vectors "mlp"), or a function (n_features, n_outputs) that returns a
        deepseek.nn.Module whose outputs are [N, n_outputs]: the classes' scores before the softmax. model_params: dict of further
        arguments, such as {"width": 64}.
    optimizer: as for deepseek.Trainer; learning_rate: default (None) the optimizer's own. schedule, device: as for Trainer.
    epochs, batch_size: passes over the data, samples per update.
    loss: as for Trainer; default cross_entropy. predict_proba() is the softmax of the model's outputs whatever the loss.
    early_stopping: hold out validation_fraction of the samples, stop after `patience` epochs without a smaller loss on them, and keep
        the best epoch's weights.
    random_state: None, an int or a numpy RandomState; the same int gives the same model. Every fit sets deepseek.manual_seed.
    verbose: show progress. trainer_params: dict of further arguments of Trainer, such as {"precision": "bfloat16"}.

    Attributes after fit(): classes_, n_features_in_, feature_names_in_ (of data with names), n_iter_ (epochs), history_ (a dict per
    epoch), model_ and trainer_ (deepseek's own). Raises ValueError and TypeError as scikit-learn does.
    """

    _loss = "cross_entropy"

    def _make_dataset(self, x: np.ndarray, y: np.ndarray) -> Dataset:
        return Dataset(x, y, class_names=[str(c) for c in self.classes_])

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803  scikit-learn's name
        """Trains a new model on inputs [N, features] and labels [N]; returns self."""
        X, y = validate_data(self, X, y, dtype=np.float32)  # noqa: N806
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return self._fit(X, codes.astype(np.int64), len(self.classes_), codes, "accuracy")

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities [N, classes], in the order of classes_."""
        scores = self._outputs(X)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return typing.cast(np.ndarray, weights / weights.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Labels [N]: the most probable of classes_."""
        best = self._outputs(X).argmax(axis=1)
        return typing.cast(np.ndarray, self.classes_[best])


class Regressor(RegressorMixin, _Estimator):  # type: ignore[misc,unused-ignore]
    """A network that predicts numbers, as scikit-learn's estimators do; parameters as for Classifier.

    Targets are [N], or [N, outputs] for several. Neither they nor the inputs are scaled inside: put a StandardScaler before, and
    where targets are far from the range of -1 to 1 wrap it in scikit-learn's TransformedTargetRegressor.
    loss: default mse_loss.
    """

    _loss = "mse_loss"

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Trains a new model on inputs [N, features] and targets [N] or [N, outputs]; returns self."""
        X, y = validate_data(self, X, y, dtype=np.float32, multi_output=True, y_numeric=True)  # noqa: N806
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = check_array(y, dtype=np.float32, ensure_2d=False, input_name="y")
        self._several = y.ndim == 2
        y = y.reshape(len(y), -1)
        return self._fit(X, y, y.shape[1], None, None)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Targets [N], or [N, outputs] where it was fitted to several."""
        values = self._outputs(X)
        return values if self._several else values[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
