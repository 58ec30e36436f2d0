"""Training: Trainer for the whole job, compile() for a loop of one's own."""

from __future__ import annotations

import json
import os
import typing
import warnings
from collections.abc import Mapping

from . import _core, _told, console
from ._samples import MapStyle
from .data import _inputs, as_dataset
from .optim import Optimizer

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    import numpy as np
    import numpy.typing as npt

    Loss: typing.TypeAlias = "str | Mapping[str, Any] | Callable[..., Any] | None"
    Data: typing.TypeAlias = "_core.Dataset | tuple[Any, Any] | list[Any] | Mapping[str, Any] | MapStyle | Iterable[Any]"
else:
    from ._numpy import np


def _yaml(value: Any, path: str = "") -> str:
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return json.dumps(value)
    except TypeError:
        text = repr(value) if len(repr(value)) < 60 else type(value).__name__
        advice = ""
        if path == "train.metrics":
            advice = "; metrics are names: deepseek.metrics has functions for predictions, to be called in fit(callback=...)"
        raise TypeError(f"{path}: expected numbers, text, or lists of them, got {text}{advice}") from None


def _described(what: str, value: Any, form: str) -> dict[str, Any]:
    """A name or a dict, as what is described by its name."""
    if value is None or isinstance(value, (str, Mapping)):
        return {"name": value} if isinstance(value, str) else dict(value or {})
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    of_torch = f"PyTorch's {kind}" if _told.of_torch(value) else kind
    raise TypeError(f"{what}: expected {form}, got {of_torch}")


def _loss_function(loss: Any) -> Any:
    """What of a loss is called, or None of a name or dict."""
    if loss is None or isinstance(loss, (str, Mapping)):
        return None
    if _told.of_torch(loss):
        name = loss.__name__ if isinstance(loss, type) else type(loss).__name__
        raise TypeError(f"loss: PyTorch's {name} can't be traced; give a name such as \"cross_entropy\", deepseek.nn.{name}(), or a function of deepseek.ops")
    if isinstance(loss, type) and issubclass(loss, _core.Module):
        raise TypeError(f"loss: expected a module or a function, got the class {loss.__name__}; make one: {loss.__name__}()")
    if not callable(loss):
        raise TypeError(f"loss: expected a name, a dict with a name, or a function of outputs and targets, got {type(loss).__name__}")
    return loss


def _optimizer_settings(optimizer: Any) -> dict[str, Any]:
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        optimizer = optimizer()
    if not isinstance(optimizer, Optimizer):
        return _described("optimizer", optimizer, "one of deepseek.optim, such as AdamW(lr=1e-3), a name or a dict with a name")
    rate = optimizer.settings.get("learning_rate")
    if rate is not None and (hasattr(rate, "__len__") or hasattr(rate, "__next__") or isinstance(rate, _core.Module)) and not isinstance(rate, str):
        kind = type(optimizer).__name__
        raise TypeError(f"optimizer: {kind}'s first argument is the learning rate, got {type(rate).__name__}; it takes no parameters: Trainer and compile "
                        f"give it the model's. Write {kind}(lr=1e-3)")
    return optimizer.settings


def _settings(loss: Loss, optimizer: Any, schedule: Any, metrics: Any, train: dict[str, Any]) -> tuple[dict[str, str], Callable[..., Any] | None]:
    """Option paths and values, as a run's config has them, from Python's arguments; and the loss if it is a callable."""
    out = {}
    function = _loss_function(loss)
    if function is None and loss is not None:
        options = _described("loss", loss, "a name, a dict with a name, or a function")
        out.update({f"loss.{key}": _yaml(value) for key, value in options.items()})
    out.update({f"optimizer.{key}": _yaml(value, f"optimizer.{key}") for key, value in _optimizer_settings(optimizer).items()})
    schedule = _described("schedule", schedule, "a name such as \"cosine\", or a dict with a name; for a schedule of one's own write the loop with "
                          "step = deepseek.compile(...) and set step.learning_rate")
    out.update({f"schedule.{key}": _yaml(value, f"schedule.{key}") for key, value in ({"name": "constant"} | schedule).items()})
    if metrics != "auto":
        out["train.metrics"] = _yaml(["none"] if metrics is None else [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics) or ["none"], "train.metrics")
    train = dict(train)
    if (device := train.pop("device", None)) is not None:
        out["device"] = _yaml(device)
    memory = train.pop("memory", None) or {}
    out.update({f"memory.{key}": _yaml(value) for key, value in ({"limit": memory} if isinstance(memory, str) else memory).items()})
    augmentation = train.pop("augmentation", None) or {}
    settings = getattr(augmentation, "settings", augmentation)
    out.update({f"augmentation.{key}": _yaml(value) for key, value in settings.items()})
    out.update({f"optimizer.{key}" if key in ("clip_norm", "clip_value") else f"train.{key}": _yaml(value, key)
                for key, value in train.items() if value is not None})
    return out, function


def _hint_at_one_hot(data: Any) -> None:
    """Warns where floats that look like weights of classes are about to be fitted by mean squares."""
    targets = data[1] if isinstance(data, (tuple, list)) and len(data) == 2 else None
    if isinstance(targets, np.ndarray) and targets.dtype.kind == "f" and targets.ndim == 2 and 1 < targets.shape[1] and len(targets) and (
            targets.min() >= 0 and np.allclose(targets.sum(axis=1), 1, atol=1e-5)):
        warnings.warn("the targets' rows are shares that sum to one, as one-hot labels are, and floats are fitted by mse_loss by default; for weights of "
                      "classes say loss=\"cross_entropy\" (or give the classes' numbers), else loss=\"mse_loss\"", stacklevel=3)


class Trainer:
    """Trains a module.

        trainer = deepseek.Trainer(model, loss="cross_entropy", optimizer=deepseek.optim.AdamW(lr=1e-3), epochs=5)
        trainer.fit((x, y), validation=(xv, yv))
        trainer.evaluate((xt, yt))["accuracy"]

    model: a deepseek.nn.Module, which is trained in place.
    loss: a name, {"name": ..., parameters}, or a function of deepseek.ops; default cross_entropy for integer targets, mse_loss
        for others, each between a target and the output of its name. A function gets what the model returned and the target,
        or, where the data are a dict, the batch: a dict by name. It returns a scalar, or a dict of terms by name, each a
        scalar or (scalar, weight), whose weighted sum is minimised and which are reported one by one.
    optimizer: one of deepseek.optim, a name, or a dict. schedule: a name or a dict, whose name is constant by default.
    metrics: "auto", a list of names, of one target "<target>/<metric>", or None for no metrics.
    memory: the most that a step may take, such as "8GiB", or a dict of limit and reserve ("20%" of the machine's stays free by
        default); where a step would need more, values are computed again instead of being kept.
    augmentation: a deepseek.data.ImageAugmenter, or a dict of its arguments: training images are changed anew in each epoch while they are
        loaded; where they are mixed, labels become weights of classes.
    device: what runs the model, as `deepseek.devices()` names it; default "cpu".
    options: clip_norm, clip_value, and these, as under `train` in a run's config:
{options}
    With output="folder" the run is kept there: config, log, history, TensorBoard events, checkpoints.
    """

    def __init__(self, model: _core.Module, loss: Loss = None, optimizer: str | Mapping[str, Any] | Optimizer = "sgd",
                 schedule: str | Mapping[str, Any] | None = "constant", metrics: str | Iterable[str] | None = "auto", **options: Any) -> None:
        _told.module(model, "model")
        settings, function = _settings(loss, optimizer, schedule, metrics, options)
        # Of pairs, the label that does not count; of a Dataset it is its own.
        ignored = None if function else loss.get("ignore_index", -100) if isinstance(loss, dict) else -100
        self.__setstate__({"model": model, "loss": function, "settings": settings, "history": [], "ignored": ignored, "classes": {}})

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "loss": self._loss, "settings": self._core.settings, "history": self.history, "ignored": self._ignored,
                "classes": self._classes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.model: _core.Module = state["model"]
        self.history: list[dict[str, Any]] = state["history"]
        self._loss, self._ignored = state["loss"], state["ignored"]
        self._classes: dict[str, list[str]] = state["classes"]  # what targets of text were called
        self._core = _core.Trainer(self.model, self._loss, state["settings"])

    def _input_names(self) -> list[str]:
        names = getattr(self.model, "_input_names", None)
        return [name for name, _ in names()] if names else []

    def _dataset(self, data: Data, learn: bool = False) -> _core.Dataset:
        dataset = as_dataset(data, self._ignored, self._input_names(), {} if learn else self._classes)
        if learn:
            numbered = [str(i) for i in range(max((len(f.get("class_names", ())) for f in dataset.fields.values()), default=0))]
            self._classes = {name: names for name, field in dataset.fields.items()
                             if (names := field.get("class_names")) and names != numbered[:len(names)]}
        return dataset

    def fit(self, train: Data, validation: Data | None = None, *, epochs: int | None = None, resume: bool = False,
            progress: bool = True, callback: Callable[[dict[str, Any]], Any] | None = None) -> list[dict[str, Any]]:
        """Trains on a Dataset, a pair (inputs, targets), a dict of arrays by name, or what else data.as_dataset() takes; returns the history,
        one dict per epoch.

        Of a dict, what the model's forward() takes are the inputs, the rest are targets.

        At the end the model holds the weights of the best epoch by validation. Ctrl-C saves (with output=...) and
        raises KeyboardInterrupt; resume=True then goes on, to the same numbers. callback: called after each epoch with its
        dict of the history; what it raises ends training in the same way.
        """
        if epochs is not None:
            self._core.configure({"train.epochs": _yaml(epochs)})
        if self._loss is None and self._core.settings.get("loss.name", '"auto"') == '"auto"':
            _hint_at_one_hot(train)
        train = self._dataset(train, learn=True)
        validation = None if validation is None else self._dataset(validation)
        if not self.model.training:  # left in eval() by mistake; parts of it may be, on purpose
            self.model.train()
        write = console.write if progress else (lambda text: None)
        self.history = self._core.fit(train, validation, resume, write, progress and console.is_terminal(), callback)
        return self.history

    def evaluate(self, data: Data) -> dict[str, Any]:
        """Loss, its terms and metrics of the model as it is, and the confusion matrix [true, predicted] for classes (of several
        targets a dict by name)."""
        return self._core.evaluate(self._dataset(data))

    def save(self, path: str | os.PathLike[str]) -> None:
        """The trained model as one file, with how raw data become its inputs and what its classes are called.

        InferenceSession(path), `deepseek predict` and infer::Session of C++ use it without the code that made the model. Raises
        ValueError before fit(), and for a model that draws random numbers when it evaluates.
        """
        self._core.save(os.fspath(path))

    def profile(self, data: Data, *, steps: int = 5, warmup: int = 3) -> _core.StepProfile:
        """Where the time of a training step on `data` goes: medians of `steps` steps after `warmup` ones.

        print() shows it, to_dict() has the numbers, save_trace(path) draws one step. The model stays as it is.
        """
        training = self.model.training
        if not training:
            self.model.train()
        try:
            return self._core.profile(self._dataset(data), steps, warmup)
        finally:
            if not training:
                self.model.eval()

    def predict(self, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike] | tuple[npt.ArrayLike, ...]) -> Any:
        """The model's outputs [N, ...] for inputs [N, ...], as the model takes them: an array, or where outputs have names a dict.

        inputs: an array, a tuple of them in the order of forward(), or a dict by name. A model that was neither trained nor given weights
            answers by its random first ones.
        """
        names = self._input_names()
        if isinstance(inputs, tuple):
            inputs = {names[i] if i < len(names) else f"x{i}": values for i, values in enumerate(inputs)}
        elif not isinstance(inputs, Mapping):
            inputs = {"x": inputs}
        arrays = {name: _inputs(values, name if len(inputs) > 1 else "inputs") for name, values in inputs.items()}
        return self._core.predict({name: a.astype(np.float32) if a.dtype == np.uint8 else a for name, a in arrays.items()})


Trainer.__doc__ = Trainer.__doc__.replace("{options}", "\n".join(
    f"        {path.removeprefix('train.')}: {doc} (default {value}; {expected})"
    for path, value, doc, expected in _core.trainer_options() if path.startswith("train.") and path != "train.metrics"))


@typing.overload
def compile(model: _core.Graph) -> _core.Program: ...
@typing.overload
def compile(model: _core.Module, loss: Loss = None, optimizer: str | Mapping[str, Any] | Optimizer = "sgd", *, clip_norm: float = 0.0,
            clip_value: float = 0.0, ema_decay: float = 0.0, seed: int = 0, precision: str = "float32", loss_scaling: str = "auto",
            loss_scale_interval: int = 2000, kernels: str = "listed", memory: str | Mapping[str, str] | None = None,
            device: str | None = None) -> _core.Step: ...


def compile(model: Any, loss: Loss = None, optimizer: Any = "sgd", *, clip_norm: float = 0.0, clip_value: float = 0.0, ema_decay: float = 0.0,
            seed: int = 0, precision: str = "float32", loss_scaling: str = "auto", loss_scale_interval: int = 2000, kernels: str = "listed",
            memory: str | Mapping[str, str] | None = None, device: str | None = None) -> Any:
    """A module's training step: step(x, y), or step(batch) with a dict of arrays by name, runs forward, loss, backward, clipping and
    update and returns the loss. What a loss is given and may return: see Trainer.

    The step compiles once per shape of its arrays; step.learning_rate may be changed between calls, step.prediction and
    step.graph tell of the last one. precision and what follows it are as for Trainer; step.state() has the loss scale and
    how many updates were skipped, step.memory_bytes and step.notes what the last one takes and what was done for that.
    Given a Graph instead of a module, returns its compiled Program.
    """
    if isinstance(model, _core.Graph):
        return _core.compile(model, device=device) if device else _core.compile(model)
    _told.module(model, "compile")
    settings, function = _settings(loss, optimizer, None, "auto",
                                   {"clip_norm": clip_norm, "clip_value": clip_value, "ema_decay": ema_decay, "seed": seed,
                                    "precision": precision, "loss_scaling": loss_scaling, "loss_scale_interval": loss_scale_interval, "kernels": kernels,
                                    "memory": memory, "device": device})
    return _core.Step(model, function, settings)


def profile(model: _core.Module, data: Data, loss: Loss = None, optimizer: str | Mapping[str, Any] | Optimizer = "sgd", *, steps: int = 5,
            warmup: int = 3, **options: Any) -> _core.StepProfile:
    """Where the time of a training step goes: `print(deepseek.profile(model, (x, y), batch_size=64))`.

    Arguments as for Trainer; see Trainer.profile.
    """
    return Trainer(model, loss, optimizer, **options).profile(data, steps=steps, warmup=warmup)


__all__ = ["Trainer", "compile", "profile"]
