"""The page on a table: well-formed, self-contained, pandas' numbers, and warnings of what was planted."""

import html.parser
import pathlib
import re
import subprocess

import numpy as np
import pandas as pd
import pytest

from deepseek.data import report, write

DEEPSEEK = pathlib.Path(__file__).parents[2] / "build" / "deepseek"


class Page(html.parser.HTMLParser):
    """Checks that tags close in order, and keeps texts and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.facts, self.cell, self.section = [], [], {}, [], ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        if tag != "meta":  # which has no end
            self.open.append(tag)
        self.attributes += attributes

    def handle_startendtag(self, tag, attributes):
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["h3"]:
            self.section = data
        if self.open[-1:] == ["th"]:
            self.cell = data
        if self.open[-1:] == ["td"] and isinstance(self.cell, str):
            self.facts[self.section, self.cell] = data


def planted(n=2000):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"price": rng.lognormal(size=n), "size": rng.normal(size=n), "kind <b>": rng.choice(["a & b", "c"], n, p=[0.9, 0.1]),
                          "one": 1, "none": np.full(n, np.nan), "row": [f"id{i}" for i in range(n)], "flag": pd.array(rng.random(n) < 0.5, dtype="boolean"),
                          "when": pd.date_range("2024-01-01", periods=n, freq="h")})
    frame["double"] = frame["size"] * 2 + 1e-3 * rng.normal(size=n)
    frame.loc[:1499, "flag"] = pd.NA
    frame["y"] = np.where(rng.random(n) < 0.01, "rare", "usual")
    frame["refund"] = np.where(frame["y"] == "rare", 5.0, 0.0) + 1e-3 * rng.random(n)
    frame.loc[n - 1] = frame.loc[n - 2]
    return frame


def test_page():
    frame = planted()
    made = report(frame, target="y", title="Planted <table>")
    page = Page(made.html)
    assert not [value for name, value in page.attributes if name in ("src", "href")]  # nothing is fetched
    assert "<b>" not in made.html and "a &amp; b" in made.html and "Planted &lt;table&gt;" in made.html
    assert float(page.facts["price", "mean"]) == pytest.approx(frame["price"].mean(), rel=1e-4)
    assert float(page.facts["price", "standard deviation"]) == pytest.approx(frame["price"].std(), rel=1e-4)
    quartiles = [float(q) for q in page.facts["price", "quartiles"].split(", ")]
    assert quartiles == pytest.approx(frame["price"].quantile([0.25, 0.5, 0.75]).tolist(), rel=1e-4)
    assert page.facts["flag", "missing"].startswith("1500 (75.0 %)")
    assert page.facts["kind <b>", "a & b"].startswith(str((frame["kind <b>"] == "a & b").sum()))
    assert page.facts["", "equal rows"] == "1"
    chart = re.search(r"<h3>size</h3>.*?</svg>", made.html, re.DOTALL)[0]
    assert chart.count("<rect") == 24 and chart.count("<polyline") == 1
    counts = [float(n) for n in re.findall(r": (\d+)(?:, y|</title>)", chart)]
    assert sum(counts) == len(frame)
    warnings = "\n".join(made.warnings)
    for told in ("one: one value only", "none: no value at all", "flag: 75.0 % missing", "size and double: correlation 1.000", "1 rows (0.1 %) equal an earlier one",
                 "y: its rarest value is", "refund: tells"):
        assert told in warnings, told
    assert "price: tells" not in warnings and "kind" not in warnings


def test_kinds_of_tables_that_are_odd():
    for frame in (pd.DataFrame({"x": []}), pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": [np.inf, 1.0, 2.0]}), pd.DataFrame({"x": ["a"] * 3, "y": [[1], [2], [3]]})):
        Page(report(frame).html)
    missing = report(pd.DataFrame({"x": np.arange(50.0), "y": [np.nan, *range(49)]}), target="y").html
    assert "nan" not in missing and missing.count("<polyline") == 2
    assert any("infinite" in w for w in report(pd.DataFrame({"x": [np.inf, 1.0]})).warnings)
    with pytest.raises(ValueError, match="report: target"):
        report(pd.DataFrame({"x": [1]}), target="z")


def test_command_line(tmp_path):
    write(planted().drop(columns="none"), tmp_path / "houses.csv")
    done = subprocess.run([DEEPSEEK, "data", "report", "houses.csv", "--target", "price"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning: one: one value only" in done.stdout and "written: houses.html" in done.stdout
    Page((tmp_path / "houses.html").read_text())
