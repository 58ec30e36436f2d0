"""Tables: files to Arrow and back, and pipelines that clean them. Offered by deepseek.data, which imports this when it is first asked,
since it loads Arrow."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import typing
import zipfile
import zlib

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError('tables need pyarrow; pip install "deepseek[data]"') from error

from . import _tables

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any


def read(path: str | os.PathLike[str], *, format: str = "", types: Mapping[str, str] | None = None, columns: Sequence[str] | None = None,
         delimiter: str = ",", header: bool = True, encoding: str = "utf-8", null_values: Sequence[str] | None = None) -> pa.Table:
    """The table in a file: CSV, TSV, JSON lines, Parquet, Arrow IPC (Feather), or NumPy's .npy and .npz, by the file's suffix or by `format`.

    NumPy: of .npy the columns of an array [rows, columns], f0, f1, ..., or the fields of a structured one; of .npz its arrays [rows] by name.

    types: for text, types of columns where the inferred ones are not wanted, {"id": "string"}: bool, int8 to uint64, float, double,
      string, date, timestamp, category.
    columns: only these, in this order. Default: all.
    delimiter, header: of CSV; without a header columns are f0, f1, ...
    encoding: of text, any that iconv knows: latin1, cp1252, utf-16, ...
    null_values: what else than an empty field is missing in CSV. Default: NA, N/A, NaN, nan, NULL, null, None, ?.
    Raises FileNotFoundError, OSError, or ValueError that names the file, the row, what was expected and what stands there.
    """
    if (format or pathlib.Path(path).suffix.lower()) in (".npy", ".npz", "npy", "npz"):
        return _read_numpy(path, columns)
    return open(path, format=format, types=types, columns=columns, delimiter=delimiter, header=header, encoding=encoding, null_values=null_values,
                _whole=True).read_all()


def _read_numpy(path: str | os.PathLike[str], columns: Sequence[str] | None) -> pa.Table:
    import numpy as np

    path = pathlib.Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"'{path}': expected a file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:  # a few bytes may claim, and become, any number
                size = sum(part.file_size for part in parts.infolist())
            if size > _tables.machine_memory():
                raise ValueError(f"'{path}': unpacks to {size} bytes, more than the memory there is")
        stored = np.load(path, mmap_mode=None, allow_pickle=False)
        if not isinstance(stored, np.ndarray):
            with stored:
                stored = dict(stored)
    except (EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"'{path}': {error or 'the file is damaged'}") from error
    if isinstance(stored, np.ndarray):
        if stored.dtype.names:
            arrays = {name: stored[name] for name in stored.dtype.names}
        elif stored.ndim == 2:
            arrays = {f"f{i}": np.ascontiguousarray(stored[:, i]) for i in range(stored.shape[1])}
        else:
            raise ValueError(f"'{path}': expected an array [rows, columns] or of fields, got {stored.dtype} {list(stored.shape)}")
    else:
        arrays = stored
        wrong = [f"{name} {list(a.shape)}" for name, a in arrays.items() if a.ndim != 1 or len(a) != len(next(iter(arrays.values())))]
        if wrong:
            raise ValueError(f"'{path}': expected arrays [rows] of one length, got {', '.join(wrong)}")
    for name in columns or []:
        if name not in arrays:
            raise ValueError(f"'{path}': columns: there is no '{name}', there are {', '.join(arrays)}")
    return pa.table({name: pa.array(arrays[name]) for name in columns or arrays})


def open(path: str | os.PathLike[str], *, format: str = "", types: Mapping[str, str] | None = None, columns: Sequence[str] | None = None,
         delimiter: str = ",", header: bool = True, encoding: str = "utf-8", null_values: Sequence[str] | None = None, _whole: bool = False) -> pa.RecordBatchReader:
    """As read(), but batch by batch, for files larger than memory. CSV's types are those of the first megabyte, unless `types` says more."""
    stream = _tables.open(os.fspath(path), format, dict(types or {}), list(columns or []), delimiter, header, encoding,
                          _tables.null_values() if null_values is None else list(null_values), _whole)
    return pa.RecordBatchReader._import_from_c_capsule(stream)


def write(table: Any, path: str | os.PathLike[str], *, format: str = "", delimiter: str = ",", header: bool = True) -> None:
    """Writes a table, of any kind that Pipeline takes, as CSV, TSV, Parquet or Arrow IPC. The file is replaced whole or not at all."""
    _tables.write(_as_arrow(table).__arrow_c_stream__(), os.fspath(path), format, delimiter, header)


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and type(value).__name__ == "DataFrame"


def _as_arrow(value: Any) -> pa.Table:
    if isinstance(value, pa.Table):
        return value
    if _is_pandas(value):
        return pa.Table.from_pandas(value, preserve_index=False)
    if isinstance(value, dict):
        return pa.table({name: pa.array(column) for name, column in value.items()})
    if hasattr(value, "__arrow_c_stream__"):
        return pa.table(value)
    dtype = getattr(value, "dtype", None)
    if dtype is not None and getattr(value, "ndim", 0) == 2:
        return pa.table({f"f{i}": pa.array(value[:, i]) for i in range(value.shape[1])})
    raise TypeError("expected a table (pandas, Polars, Arrow, a dict of columns, a NumPy array [rows, columns]), "
                    f"got {type(value).__name__}")


def _like(table: pa.Table, value: Any) -> Any:
    """The table as what came in."""
    if _is_pandas(value):
        frame = table.to_pandas()
        if len(frame) == len(value):
            frame.index = value.index
        return frame
    if isinstance(value, dict):
        return {name: column.to_numpy() for name, column in zip(table.column_names, table.columns)}
    if type(value).__module__.partition(".")[0] == "polars":
        import polars

        return polars.from_arrow(table)
    if getattr(value, "ndim", 0) == 2 and not hasattr(value, "__arrow_c_stream__"):
        import numpy as np

        return np.stack([column.to_numpy() for column in table.columns], axis=1)
    return table


def _rows(value: Any, rows: list[int]) -> Any:
    if _is_pandas(value):
        return value.iloc[rows]
    if isinstance(value, dict):
        return {name: column[rows] for name, column in value.items()}
    if isinstance(value, pa.Table):
        return value.take(pa.array(rows, pa.int64()))
    return value[rows]  # Polars, NumPy


def split(table: Any, fractions: Sequence[float] = (0.7, 0.15, 0.15), *, stratify: str | None = None, group: str | None = None,
          time: str | None = None, seed: int = 0) -> list[Any]:
    """The rows shared out, by default 70:15:15 for training, validation and test; parts are tables of the same kind.

    At most one of these names a column. stratify: each of its values is shared out by the fractions. group: rows of the same value stay
    together. time: the earliest rows first, without shuffling; rows of the same time stay together.
    Rows keep their order in each part (by time: the order of time). The same seed gives the same parts.
    Raises ValueError where a part would be empty, or a column is missing.
    """
    parts = _tables.split(_as_arrow(table).__arrow_c_stream__(), list(fractions), stratify or "", group or "", time or "", seed)
    return [_rows(table, rows) for rows in parts]


class Leak(typing.NamedTuple):
    part: int
    """The later part, counted from 0."""
    other: int
    """The earlier one that has such rows."""
    rows: int
    """How many rows of the later part."""
    near: int = 0
    """How many more of them differ from one of the earlier part in a single column."""


def leaks(*parts: Any, columns: Sequence[str] | None = None, near: bool = False) -> list[Leak]:
    """Rows of later parts that equal one of an earlier part, in all columns or in these: empty if parts share nothing.

    near: also counts rows that differ from one in a single column, of three at least.
    """
    return [Leak(*leak) for leak in _tables.leaks([_as_arrow(part).__arrow_c_stream__() for part in parts], list(columns or []), near)]


class Report(typing.NamedTuple):
    html: str
    """A page that needs nothing else."""
    warnings: list[str]


def report(table: Any, path: str | os.PathLike[str] | None = None, *, target: str | None = None, title: str = "Table") -> Report:
    """What is in a table: types, missing values, distributions, correlations, outliers, and what each column tells of the target.

    path: where the page is written to as HTML. Notebooks show it by IPython.display.HTML(report(table).html).
    """
    made = Report(*_tables.report(_as_arrow(table).__arrow_c_stream__(), title, target or ""))
    if path is not None:
        pathlib.Path(path).write_text(made.html, "utf-8")
    return made


def saved_text(save: Callable[[str], None]) -> dict[str, Any]:
    """What save(path) writes, for pickling."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "saved")
        save(path)
        return {"saved": pathlib.Path(path).read_text("utf-8")}


def load_text(load: Callable[[str], Any], state: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "saved")
        pathlib.Path(path).write_text(state["saved"], "utf-8")
        return load(path)


class Pipeline:
    """Steps that learn from training data and then change tables the same way everywhere.

        pipeline = Pipeline([("impute", {"strategy": "median"}), "duplicates", ("outliers", {"method": "sigma"})])
        train = pipeline.fit_transform(train)
        test = pipeline.transform(test)
        pipeline.save("pipeline.json")  # Pipeline.load() where the model is served

    steps: names, or pairs of a name and its options; Pipeline.steps() tells which there are, from_yaml() reads them from a file.
    target: the column to be predicted, or several. No step changes them unless its options name them, and they may be missing where a model
      is served. Of several, steps that need one have an option for its name.
    Tables are pandas or Polars frames, Arrow tables, dicts of columns or NumPy arrays [rows, columns]; the result is of the same kind.
    Arrow's memory is not copied; NaN of floats counts as missing.
    Raises ValueError for unknown steps, options and columns, with the nearest name.
    """

    def __init__(self, steps: Iterable[str | tuple[str, Mapping[str, Any]]], *, target: str | Sequence[str] | None = None) -> None:
        listed = [step if isinstance(step, str) else {step[0]: dict(step[1])} for step in steps]
        self._parse(json.dumps({"steps": listed} | ({"target": target if isinstance(target, str) else list(target)} if target else {})), "steps")

    def _parse(self, yaml: str, where: str) -> None:
        self._described = yaml, where
        self._pipeline = _tables.Pipeline.parse(yaml, where)

    @classmethod
    def _of(cls, pipeline: _tables.Pipeline) -> Pipeline:
        made = cls.__new__(cls)
        made._pipeline = pipeline
        return made

    def __getstate__(self) -> dict[str, Any]:
        return saved_text(self.save) if self.fitted else {"described": self._described}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "described" in state:
            self._parse(*state["described"])
        else:
            self._pipeline = load_text(_tables.Pipeline.load, state)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Pipeline:
        """Of a file `steps: [{impute: {strategy: median}}, duplicates]`; mistakes are all named, each with its line."""
        made = cls.__new__(cls)
        made._parse(pathlib.Path(path).read_text("utf-8"), os.fspath(path))
        return made

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pipeline:
        """A fitted one that save() wrote."""
        return cls._of(_tables.Pipeline.load(os.fspath(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """As JSON; every number keeps its bits."""
        self._pipeline.save(os.fspath(path))

    @staticmethod
    def steps() -> dict[str, str]:
        """What each step does, and its options with defaults."""
        return {kind: f"{doc}\n{options}" for kind, doc, options in _tables.steps()}

    @property
    def fitted(self) -> bool:
        return self._pipeline.fitted

    def fit(self, table: Any) -> Pipeline:
        """Learns from training data: a table, or what is larger than memory, as a file's path or as a function that gives a new Arrow stream
        each time it is called (each step goes through it once or twice). Steps that need all rows at once are an error then."""
        if isinstance(table, (str, os.PathLike)):
            path = table
            table = lambda: open(path)  # noqa: E731
        if callable(table):
            self._pipeline.fit_stream(lambda: table().__arrow_c_stream__())
        else:
            self._pipeline.fit_transform(_as_arrow(table).__arrow_c_stream__())
        return self

    def transform_stream(self, stream: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """As transform(), batch by batch: `for batch in pipeline.transform_stream(open("large.csv"))`."""
        def batches(first: pa.Table) -> Any:
            yield from first.to_batches()
            for batch in stream:
                yield from self.transform(pa.table(batch)).to_batches()

        try:
            first = self.transform(pa.table(stream.read_next_batch()))
        except StopIteration:
            first = self.transform(stream.schema.empty_table())
        return pa.RecordBatchReader.from_batches(first.schema, batches(first))

    def fit_transform(self, table: Any) -> Any:
        """Learns from training data and changes it; only here steps leave out rows."""
        return self._run(self._pipeline.fit_transform, table)

    def transform(self, table: Any) -> Any:
        """The same changes for other data, which keeps all its rows. Further columns are left out; one that is missing, or of a type that
        does not convert without loss, is a ValueError that names it."""
        return self._run(self._pipeline.transform, table)

    def to_sql(self, dialect: str = "duckdb", *, table: str) -> str:
        """The fitted transform as a query on a table of a database, for "duckdb" or "spark", so that a cluster's own engine does the work.

        table: its name, quoted as the dialect wants, or a query in brackets. Steps that SQL has no counterpart for are an error.
        """
        return self._pipeline.to_sql(dialect, table)

    def notes(self) -> list[str]:
        """What the steps found in training data: "impute: price: 3 of 10 missing, median 2.5"."""
        return self._pipeline.notes()

    @staticmethod
    def _run(method: Any, table: Any) -> Any:
        stream = method(_as_arrow(table).__arrow_c_stream__())
        return _like(pa.RecordBatchReader._import_from_c_capsule(stream).read_all(), table)

    def __len__(self) -> int:
        return len(self._pipeline)

__all__ = ["Leak", "Pipeline", "Report", "leaks", "open", "read", "report", "split", "write"]
