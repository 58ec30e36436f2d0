"""Update rules for Trainer and compile. Keywords are those of a run's config under `optimizer`, and `lr` for short."""

from __future__ import annotations

import typing


class Optimizer:
    """An update rule by name with its settings; unknown settings are refused when it is used."""

    name: str = ""
    _defaults: dict[str, typing.Any] = {}

    def __init__(self, learning_rate: float | None = None, **settings: typing.Any) -> None:
        if "lr" in settings:
            learning_rate = settings.pop("lr")
        self.settings = {**self._defaults, **settings}
        if learning_rate is not None:
            self.settings["learning_rate"] = learning_rate
        self.settings["name"] = self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items() if k != 'name')})"


class SGD(Optimizer):
    """Stochastic gradient descent: momentum=0, nesterov=False, weight_decay=0 (L2)."""

    name = "sgd"


class Adam(Optimizer):
    """Kingma and Ba, 2014: beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0 (L2)."""

    name = "adam"
    _defaults = {"learning_rate": 1e-3}


class AdamW(Optimizer):
    """Loshchilov and Hutter, 2017: Adam with decoupled weight_decay=0.01."""

    name = "adamw"
    _defaults = {"learning_rate": 1e-3, "weight_decay": 0.01}


class LAMB(Optimizer):
    """You et al., 2019: Adam's direction scaled by the trust ratio; weight_decay=0 (decoupled)."""

    name = "lamb"
    _defaults = {"learning_rate": 1e-3}


class RMSprop(Optimizer):
    """Tieleman and Hinton, 2012: alpha=0.99, momentum=0, epsilon=1e-8."""

    name = "rmsprop"
    _defaults = {"learning_rate": 1e-2}


class Adagrad(Optimizer):
    """Duchi et al., 2011: epsilon=1e-10."""

    name = "adagrad"
    _defaults = {"learning_rate": 1e-2, "epsilon": 1e-10}


class Lion(Optimizer):
    """Chen et al., 2023: beta1=0.9, beta2=0.99, weight_decay=0 (decoupled)."""

    name = "lion"
    _defaults = {"learning_rate": 1e-4, "beta2": 0.99}


__all__ = ["SGD", "Adam", "AdamW", "Adagrad", "LAMB", "Lion", "Optimizer", "RMSprop"]
