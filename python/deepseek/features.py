"""Feature synthesis over related tables. Offered by deepseek.data, as tables.py is."""

from __future__ import annotations

import json
import os
import pathlib
import typing

from . import _tables
from .tables import _as_arrow, _is_pandas, _like, load_text, pa, saved_text

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Primitive(typing.NamedTuple):
    name: str
    kind: str
    """aggregation or transform"""
    doc: str
    parameters: dict[str, float | str]
    """with their defaults"""


class Estimate(typing.NamedTuple):
    features: int
    rows: int
    result_bytes: int
    working_bytes: int
    """while computing, the result included"""
    seconds: float
    """by rows that were tried"""
    text: str


def _column(values: Any, name: str) -> Any:
    """A table of one column as a stream, of an array, a list, a series or one value."""
    if values is None:
        return None
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        values = [values]
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        array = values
    elif hasattr(values, "__arrow_c_stream__"):  # a Polars series
        array = pa.chunked_array(values)
    else:
        array = pa.array(values)
    if name == "cutoff_time" and pa.types.is_string(array.type):
        array = array.cast(pa.timestamp("us"))
    return pa.table({name: array}).__arrow_c_stream__()


class FeatureSynthesis:
    """Features of a table and of those related to it: deep feature synthesis (Kanter and Veeramachaneni, 2015), as Featuretools' dfs.

        synthesis = FeatureSynthesis("customers", {
            "customers": {"index": "customer_id", "time_index": "join_date"},
            "sessions": {"index": "session_id", "time_index": "session_start"},
        }, ["sessions.customer_id -> customers"], aggregations=["count", "mean", "max"])
        train = synthesis.fit_transform({"customers": customers, "sessions": sessions}, cutoff_time="2014-01-01")
        synthesis.save("features.json")  # FeatureSynthesis.load() where the model is served

    target: the table that features are made for.
    tables: by name, with `index` (a column of unique values; needed where others refer to the table), `time_index` (when a row became known)
      and `types` of columns where they are not what they look like: number, category, ordinal, boolean, datetime, date_of_birth, text,
      ignore. Text of three words and more is natural language, other text categories.
    relationships: "child.column -> parent".
    aggregations, transforms, group_transforms, where_aggregations: names, with arguments in brackets: "trend(unit=days)";
      FeatureSynthesis.primitives() tells which there are. Defaults are Featuretools'.
    where: values by "table.column" that rows are chosen by, or how many of the most frequent ones: {"sessions.device": 3}.
    depth: how many steps are stacked.
    max_features: the first ones, shallow ones before deep ones. 0: all.
    training_window: how far back from the cut-off rows are taken, "30 days"; of integer time indices a number.
    include_cutoff: whether rows of the very time of the cut-off are known.
    max_memory, max_seconds: a budget, "4 GiB"; an estimate beyond it is an error before the work begins.
    ignore_tables, ignore_columns ({table: [columns]}): what nothing is made of.
    all_types: also features that are dates and text.
    Raises ValueError that names the table and column, what was expected and what is there.
    """

    def __init__(self, target: str, tables: Mapping[str, Mapping[str, Any] | None], relationships: Sequence[str] = (), *,
                 aggregations: Sequence[str] | None = None, transforms: Sequence[str] | None = None, group_transforms: Sequence[str] = (),
                 where: Mapping[str, Sequence[Any] | int] | None = None, where_aggregations: Sequence[str] = ("count",), depth: int = 2,
                 max_features: int = 0, training_window: str | int = "", include_cutoff: bool = True, max_memory: str = "",
                 max_seconds: float = 0, ignore_tables: Sequence[str] = (), ignore_columns: Mapping[str, Sequence[str]] | None = None,
                 all_types: bool = False) -> None:
        spec: dict[str, Any] = {
            "target": target, "tables": {name: dict(options or {}) for name, options in tables.items()}, "relationships": list(relationships),
            "group_transforms": list(group_transforms), "where_aggregations": list(where_aggregations), "depth": depth,
            "max_features": max_features, "training_window": str(training_window), "include_cutoff": include_cutoff, "max_memory": max_memory,
            "max_seconds": max_seconds, "ignore_tables": list(ignore_tables), "all_types": all_types,
            "where": {key: value if isinstance(value, int) else [str(v) for v in value] for key, value in (where or {}).items()},
            "ignore_columns": {table: list(columns) for table, columns in (ignore_columns or {}).items()}}
        if aggregations is not None:
            spec["aggregations"] = list(aggregations)
        if transforms is not None:
            spec["transforms"] = list(transforms)
        self._parse(json.dumps(spec), "synthesis")

    def _parse(self, yaml: str, where: str) -> None:
        self._described = yaml, where
        self._synthesis = _tables.Synthesis.parse(yaml, where)

    def __getstate__(self) -> dict[str, Any]:
        return saved_text(self.save) if self.fitted else {"described": self._described}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "described" in state:
            self._parse(*state["described"])
        else:
            self._synthesis = load_text(_tables.Synthesis.load, state)

    @classmethod
    def _of(cls, synthesis: _tables.Synthesis) -> FeatureSynthesis:
        made = cls.__new__(cls)
        made._synthesis = synthesis
        return made

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> FeatureSynthesis:
        """Of a file with these options as keys; mistakes are all named, each with its line."""
        made = cls.__new__(cls)
        made._parse(pathlib.Path(path).read_text("utf-8"), os.fspath(path))
        return made

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureSynthesis:
        """A fitted one that save() wrote."""
        return cls._of(_tables.Synthesis.load(os.fspath(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """The definitions of the features as JSON."""
        self._synthesis.save(os.fspath(path))

    @staticmethod
    def primitives() -> list[Primitive]:
        """What features are built of."""
        return [Primitive(*primitive) for primitive in _tables.primitives()]

    @property
    def fitted(self) -> bool:
        return self._synthesis.fitted

    @property
    def features(self) -> list[str]:
        """Their names, after fit()."""
        return self._synthesis.features

    @property
    def target(self) -> str:
        """The table that features are made for."""
        return self._synthesis.target

    @staticmethod
    def _streams(tables: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _as_arrow(table).__arrow_c_stream__() for name, table in tables.items()}

    def fit(self, tables: Mapping[str, Any]) -> FeatureSynthesis:
        """Learns which features there are, of training tables by name."""
        self._synthesis.fit(self._streams(tables))
        return self

    def estimate(self, tables: Mapping[str, Any], *, instances: Any = None, cutoff_time: Any = None) -> Estimate:
        """What transform() will take, by trying some rows."""
        return Estimate(*self._synthesis.estimate(self._streams(tables), _column(instances, "instances"), _column(cutoff_time, "cutoff_time")))

    def transform(self, tables: Mapping[str, Any], *, instances: Any = None, cutoff_time: Any = None,
                  progress: Callable[[float], object] | None = None) -> Any:
        """The index of the target, then a column for each feature; a table of the same kind as the target's.

        instances: values of the index, in the order wanted. Default: all rows, in the order of the table.
        cutoff_time: one time, or one for each instance: only what was known then is taken, in every table with a time index.
          Default: everything is known.
        progress: called now and then with the share that is done.
        """
        stream = self._synthesis.transform(self._streams(tables), _column(instances, "instances"), _column(cutoff_time, "cutoff_time"), progress)
        table = pa.RecordBatchReader._import_from_c_capsule(stream).read_all()
        like = tables[self._synthesis.target]
        # Chosen instances are in an order of their own, so that the frame's index is not theirs.
        return table.to_pandas() if _is_pandas(like) and instances is not None else _like(table, like)

    def fit_transform(self, tables: Mapping[str, Any], *, instances: Any = None, cutoff_time: Any = None,
                      progress: Callable[[float], object] | None = None) -> Any:
        """fit(), then transform()."""
        return self.fit(tables).transform(tables, instances=instances, cutoff_time=cutoff_time, progress=progress)


__all__ = ["Estimate", "FeatureSynthesis", "Primitive"]
