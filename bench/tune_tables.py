"""Tables for tune_problems.py: losses of real models at all combinations of some levels of their hyper-parameters.

sklearn: 6 models on 6 of scikit-learn's real sets, 3-fold cross-validated. The loss is the rate of errors for nearest neighbours, SVM and tree, log loss
for forest, MLP and boosting; of regression the root of the mean squared error over the target's deviation. Losses of models that diverge are cut off.
network: a network of two hidden layers with dropout on scikit-learn's digits (PyTorch): validation loss after 10 epochs, mean of 3 seeds.

A file per table in build/tune, written when it is whole, so that what was interrupted goes on. Levels that come for free are axes as well: trees of a
forest, rounds of boosting and epochs are levels of one fit.
"""

import argparse
import itertools
import json
import os
import time
import warnings
from multiprocessing import get_context

import numpy as np

from tune_problems import TABLES

WORST = 3.0  # losses are cut off here: some models predict probabilities of 0
FOLDS = 3


def integers(levels, log=False):
    return {"kind": "int", "levels": levels, "log": log}


def numbers(low, high, count, log=False):
    levels = np.geomspace(low, high, count) if log else np.linspace(low, high, count)
    return {"kind": "float", "levels": [low, *map(float, levels[1:-1]), high], "log": log}


def choices(*levels, ordered=False):
    return {"kind": "choice", "levels": list(levels), "ordered": ordered}


def scaled(kind):
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return {"standard": StandardScaler, "minmax": MinMaxScaler}[kind]()


def error(task, y, predicted):
    """Of classes the share of errors, or the log loss of probabilities; of numbers the error over the deviation."""
    if task == "regression":
        return np.sqrt(np.mean((y - predicted) ** 2)) / np.std(y)
    if predicted.ndim == 1:
        return np.mean(y != predicted)
    return -np.mean(np.log(np.clip(predicted[np.arange(len(y)), y], 1e-10, 1)))


def outcome(task, model, x):
    return model.predict(x) if task == "regression" else model.predict_proba(x)


def neighbours(task, train, y, test, target, n_neighbors, p, weights, scaling):
    """All numbers of neighbours from one search."""
    from sklearn.neighbors import NearestNeighbors

    if scaling != "none":
        scaler = scaled(scaling).fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
    distance, index = NearestNeighbors(n_neighbors=max(n_neighbors), metric="minkowski", p=p).fit(train).kneighbors(test)
    weight = np.ones_like(distance) if weights == "uniform" else 1 / np.maximum(distance, 1e-12)
    if task == "regression":
        return [error(task, target, (weight[:, :k] * y[index[:, :k]]).sum(1) / weight[:, :k].sum(1)) for k in n_neighbors]
    votes = weight[:, :, None] * (y[index][:, :, None] == np.arange(y.max() + 1))
    return [error(task, target, votes[:, :k].sum(1).argmax(1)) for k in n_neighbors]


def svm(task, train, y, test, target, kernel, C, gamma):
    from sklearn.svm import SVC, SVR

    scaler = scaled("standard").fit(train)
    make = SVR if task == "regression" else SVC
    centre, spread = (y.mean(), y.std()) if task == "regression" else (0, 1)
    model = make(kernel=kernel, C=C, gamma=gamma, max_iter=20_000).fit(scaler.transform(train), (y - centre) / spread if task == "regression" else y)
    predicted = model.predict(scaler.transform(test))
    return error(task, target, predicted * spread + centre if task == "regression" else predicted)


def tree(task, train, y, test, target, max_depth, min_samples_split, min_samples_leaf, max_features, criterion):
    """Mean of 3 seeds, because max_features chooses by chance."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    regression = task == "regression"
    make = DecisionTreeRegressor if regression else DecisionTreeClassifier
    criterion = {"first": "squared_error", "second": "friedman_mse"}[criterion] if regression else {"first": "gini", "second": "entropy"}[criterion]
    return np.mean([error(task, target, make(max_depth=max_depth, min_samples_split=min_samples_split, min_samples_leaf=min_samples_leaf,
                                             max_features=max_features, criterion=criterion, random_state=seed).fit(train, y).predict(test))
                    for seed in range(3)])


def forest(task, train, y, test, target, n_estimators, max_depth, min_samples_leaf, max_features):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    make = RandomForestRegressor if task == "regression" else RandomForestClassifier
    model = make(n_estimators=max(n_estimators), max_depth=max_depth, min_samples_leaf=min_samples_leaf, max_features=max_features, random_state=0)
    model.fit(train, y)
    means = np.cumsum([outcome(task, one, test) for one in model.estimators_], axis=0)
    return [error(task, target, means[n - 1] / n) for n in n_estimators]


def mlp(task, train, y, test, target, epochs, hidden, alpha, learning_rate, activation):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    scaler = scaled("standard").fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    make = MLPRegressor if task == "regression" else MLPClassifier
    model = make(hidden_layer_sizes=(hidden,), alpha=alpha, learning_rate_init=learning_rate, activation=activation, batch_size=32, random_state=0)
    centre, spread = (y.mean(), y.std()) if task == "regression" else (0, 1)
    classes = {} if task == "regression" else {"classes": np.unique(y)}
    losses = []
    for epoch in range(1, max(epochs) + 1):
        model.partial_fit(train, (y - centre) / spread if task == "regression" else y, **classes)
        classes = {}
        if epoch in epochs:
            losses.append(error(task, target, outcome(task, model, test) * spread + centre if task == "regression" else outcome(task, model, test)))
    return losses


def boosting(task, train, y, test, target, n_estimators, learning_rate, max_depth, subsample):
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    make = GradientBoostingRegressor if task == "regression" else GradientBoostingClassifier
    model = make(n_estimators=max(n_estimators), learning_rate=learning_rate, max_depth=max_depth, subsample=subsample, random_state=0)
    with np.errstate(all="ignore"):
        model.fit(train, y)
        staged = list(model.staged_predict(test) if task == "regression" else model.staged_predict_proba(test))
    return [error(task, target, staged[n - 1]) for n in n_estimators]


# Of each model: how it is fitted, its axes, and the axis that one fit has all levels of, if there is one.
MODELS = {
    "knn": (neighbours, {"n_neighbors": integers([1, 2, 3, 4, 5, 7, 9, 12, 15, 20, 25]), "p": numbers(1.0, 4.0, 7),
                         "weights": choices("uniform", "distance"), "scaling": choices("none", "standard", "minmax")}, "n_neighbors"),
    "svm": (svm, {"kernel": choices("rbf", "sigmoid", "poly"), "C": numbers(1e-2, 1e3, 11, log=True), "gamma": numbers(1e-4, 10.0, 11, log=True)}, None),
    "tree": (tree, {"max_depth": integers([1, 2, 3, 4, 6, 9, 15]), "min_samples_split": numbers(0.01, 0.5, 5), "min_samples_leaf": integers([1, 2, 4, 9, 20]),
                    "max_features": numbers(0.1, 1.0, 5), "criterion": choices("first", "second")}, None),
    "forest": (forest, {"n_estimators": integers([4, 8, 16, 32], log=True), "max_depth": integers([1, 2, 4, 7, 12]),
                        "min_samples_leaf": integers([1, 2, 5, 10, 20]), "max_features": numbers(0.1, 1.0, 5)}, "n_estimators"),
    "mlp": (mlp, {"epochs": integers([4, 8, 16, 32], log=True), "hidden": integers([4, 12, 36, 108], log=True), "alpha": numbers(1e-4, 10.0, 4, log=True),
                  "learning_rate": numbers(1e-4, 1e-1, 7, log=True), "activation": choices("relu", "tanh")}, "epochs"),
    "boosting": (boosting, {"n_estimators": integers([5, 10, 20, 40, 60], log=True), "learning_rate": numbers(0.01, 1.0, 7, log=True),
                            "max_depth": integers([1, 2, 3, 5, 8]), "subsample": numbers(0.4, 1.0, 3)}, "n_estimators"),
}


def sets(name):
    """(task, x, y); digits are 450 of the pictures, and wine_alcohol asks for a wine's alcohol, told by its other columns."""
    from sklearn import datasets

    if name == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        rows = np.random.default_rng(0).choice(len(y), 450, replace=False)
        return "classification", x[rows], y[rows]
    if name == "diabetes":
        return "regression", *datasets.load_diabetes(return_X_y=True)
    if name == "wine_alcohol":
        x, _ = datasets.load_wine(return_X_y=True)
        return "regression", x[:, 1:], x[:, 0]
    return "classification", *getattr(datasets, f"load_{name}")(return_X_y=True)


SETS = ("iris", "wine", "breast_cancer", "digits", "diabetes", "wine_alcohol")


def measure_sklearn(model, name):
    from sklearn.model_selection import KFold, StratifiedKFold

    fit, axes, staged = MODELS[model]
    task, x, y = sets(name)
    splitter = (KFold if task == "regression" else StratifiedKFold)(FOLDS, shuffle=True, random_state=0)
    folds = [(task, x[a], y[a], x[b], y[b]) for a, b in splitter.split(x, y)]
    ways = [[axis["levels"]] if key == staged else axis["levels"] for key, axis in axes.items()]  # a staged axis comes first
    losses = []
    for values in itertools.product(*ways):
        losses.append(np.mean([fit(*fold, **dict(zip(axes, values))) for fold in folds], axis=0))
    shape = [len(axis["levels"]) for key, axis in axes.items() if key != staged]
    losses = np.array(losses).reshape(*shape, *([-1] if staged else []))
    return axes, np.moveaxis(losses, -1, 0) if staged else losses


def measure_network():
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    axes = {"learning_rate": numbers(1e-5, 1e-2, 13, log=True), "batch_size": choices(32, 64, 128, ordered=True), "dropout": numbers(0.1, 0.5, 5)}
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = torch.tensor(x[order] / 16, dtype=torch.float32), torch.tensor(y[order])
    train = 1200

    def loss(learning_rate, batch_size, dropout, seed):
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(128, 64), torch.nn.ReLU(),
                  torch.nn.Dropout(dropout), torch.nn.Linear(64, 10)]
        network = torch.nn.Sequential(*layers)
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
        for _ in range(10):
            for rows in torch.randperm(train).split(batch_size):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
                optimizer.step()
        network.eval()
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(network(x[train:]), y[train:]).item()

    ways = [axis["levels"] for axis in axes.values()]
    losses = [np.mean([loss(*values, seed) for seed in range(3)]) for values in itertools.product(*ways)]
    return axes, np.array(losses).reshape([len(levels) for levels in ways])


def make(name):
    """Measures a table and writes its file."""
    warnings.filterwarnings("ignore")  # of models that did not converge: such points belong to a space
    start = time.perf_counter()
    family, problem = name.split("-")
    axes, losses = measure_network() if family == "network" else measure_sklearn(*problem.split("_", 1))
    losses = np.minimum(np.where(np.isfinite(losses), losses, WORST), WORST)
    path = TABLES / f"{name}.npz"
    with open(path.with_suffix(".part"), "wb") as file:
        np.savez_compressed(file, axes=json.dumps([{"name": key, **axis} for key, axis in axes.items()]), losses=losses)
    os.replace(path.with_suffix(".part"), path)
    return name, losses, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="a part of the tables' names")
    args = parser.parse_args()
    TABLES.mkdir(parents=True, exist_ok=True)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # the processes are the threads
    names = ["network-digits", *(f"sklearn-{model}_{name}" for model in reversed(MODELS) for name in SETS)]
    missing = [name for name in names if args.only in name and not (TABLES / f"{name}.npz").exists()]
    with get_context("spawn").Pool(args.jobs) as pool:
        for name, losses, seconds in pool.imap_unordered(make, missing):
            print(f"{name:32}{losses.size:6} losses from {losses.min():7.4f} to {losses.max():7.4f}, {seconds:5.0f} s", flush=True)


if __name__ == "__main__":
    main()
