"""A layer and a loss of one's own, written out of ops, inspected as a graph and trained by Trainer.

A gated layer learns to tell clothes apart on Fashion-MNIST; some seconds on 2 cores.
Run: PYTHONPATH=build/python .venv/bin/python examples/own_layer.py [--epochs 3] [--samples 60000]
"""

import argparse

import numpy as np

import deepseek
from deepseek import nn, ops


class GatedLinear(nn.Module):
    """y = (x V) * sigmoid(x W): a gated linear unit (Dauphin et al., 2016)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.value = nn.Linear(inputs, outputs)
        self.gate = nn.Parameter(np.zeros((inputs, outputs), np.float32))  # sigmoid(0) lets half through

    def forward(self, x):
        return self.value(x) * ops.sigmoid(x @ self.gate)


class Classifier(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.hidden = GatedLinear(28 * 28, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.hidden(x.reshape(x.shape[0], -1)))


def confident_cross_entropy(prediction, target):
    """Cross-entropy with a small price on extreme scores."""
    return ops.cross_entropy(prediction, target) + 1e-4 * ops.mean(prediction * prediction)


def images(part, count):
    """Arrays of a data set's first samples; Trainer takes them as they are."""
    return part.inputs[:count].astype(np.float32) / 255, part.targets[:count]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=60000, help="of each part, at most")
    arguments = parser.parse_args()

    deepseek.manual_seed(0)
    model = Classifier()
    # What the layer means to the engine, as text; the arrays only give types.
    print(model.hidden.graph(np.zeros((2, 784), np.float32)))

    data = deepseek.data.load("fashion-mnist")
    trainer = deepseek.Trainer(model, loss=confident_cross_entropy, optimizer=deepseek.optim.AdamW(lr=1e-3), schedule="cosine",
                               metrics=["accuracy", "top3"], batch_size=128, epochs=arguments.epochs)
    trainer.fit(images(data.train, arguments.samples), validation=images(data.validation, arguments.samples))
    test = trainer.evaluate(images(data.test, arguments.samples))
    print(f"test accuracy {test['accuracy']:.3f}, top 3 {test['top3']:.3f}")


if __name__ == "__main__":
    main()
