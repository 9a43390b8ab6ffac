"""The summary: the three files agree, nothing in them acts, and they are there whole or not at all."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.batch_runs.summary import summary_csv, summary_document, write_summary

SCHEMA = json.loads((Path(__file__).parents[2] / "medmaskrcnn" / "batch_runs" / "summary.schema.json").read_text())
SERIES = FoundSeries(
    identity="1", verdict="queued", reason=None, files=("/data/Miller/a.dcm",), fingerprint="f", patient="p",
    study="s", name="ct", modality="CT", slices=30, patient_name="Miller^Anna",
)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path)
    made.set_meta("model", "m</script>")
    for number, (status, reason, outcome) in enumerate(
        [
            ("done", None, {"counts": {"liver": 2, "=SUM(A1)": 1}, "instances": 3, "warnings": ["=1+1"]}),
            ("done", None, {"counts": {}, "instances": 0}),
            ("failed", "=cmd|' /C calc'!A0", {}),
            ("refused", "cannot read /data/Miller/a.dcm: </script><script>alert(1)</script>", {}),
        ],
        start=1,
    ):
        made.add(replace(SERIES, identity=str(number)), f"patient-{number}/study-{number}/series-{number}")
        made.finishes(number, status, reason, 1.0, outcome)
    yield made
    made.close()


def test_the_worst_comes_first_and_the_schema_holds(ledger: Ledger):
    document = summary_document(ledger)
    jsonschema.validate(document, SCHEMA)
    assert [case["status"] for case in document["cases"]] == ["failed", "refused", "done", "done"]
    assert document["totals"] == {"liver": 2, "=SUM(A1)": 1}
    assert "Miller" not in json.dumps(document)


def test_no_cell_is_a_formula(ledger: Ledger):
    rows = list(csv.reader(summary_csv(summary_document(ledger)).splitlines()))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]


def test_the_page_holds_the_same_and_nothing_in_it_acts(ledger: Ledger, tmp_path: Path):
    write_summary(tmp_path, ledger)
    page = (tmp_path / "summary.html").read_text()
    assert page.count("</script>") == 2  # the data's and the program's own
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data) == json.loads((tmp_path / "summary.json").read_text())
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", page)


def test_the_same_ledger_gives_the_same_bytes(ledger: Ledger, tmp_path: Path):
    write_summary(tmp_path, ledger)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("summary.*")}
    write_summary(tmp_path, ledger)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("summary.*")} == before
    assert len(before) == 3
    assert not list(tmp_path.glob("*.partial"))
