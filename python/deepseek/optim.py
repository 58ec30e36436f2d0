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


def _rule(class_name: str, name: str, doc: str, **defaults: float) -> type[Optimizer]:
    return type(class_name, (Optimizer,), {"name": name, "_defaults": defaults, "__doc__": doc, "__module__": __name__})


SGD = _rule("SGD", "sgd", "Stochastic gradient descent: momentum=0, nesterov=False, weight_decay=0 (L2).")
Adam = _rule("Adam", "adam", "Kingma and Ba, 2014: beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0 (L2).", learning_rate=1e-3)
AdamW = _rule("AdamW", "adamw", "Loshchilov and Hutter, 2017: Adam with decoupled weight_decay=0.01.", learning_rate=1e-3, weight_decay=0.01)
LAMB = _rule("LAMB", "lamb", "You et al., 2019: Adam's direction scaled by the trust ratio; weight_decay=0 (decoupled).", learning_rate=1e-3)
RMSprop = _rule("RMSprop", "rmsprop", "Tieleman and Hinton, 2012: alpha=0.99, momentum=0, epsilon=1e-8.", learning_rate=1e-2)
Adagrad = _rule("Adagrad", "adagrad", "Duchi et al., 2011: epsilon=1e-10.", learning_rate=1e-2, epsilon=1e-10)
Lion = _rule("Lion", "lion", "Chen et al., 2023: beta1=0.9, beta2=0.99, weight_decay=0 (decoupled).", learning_rate=1e-4, beta2=0.99)

__all__ = ["SGD", "Adam", "AdamW", "Adagrad", "LAMB", "Lion", "Optimizer", "RMSprop"]
