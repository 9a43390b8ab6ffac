"""``summary.csv``, ``summary.json`` and ``summary.html``: the outcome of every series, safe to share.

They contain pseudonyms, never a name, ID, date or path, and nothing that varies from run to run: the same work gives
the same bytes. Failures come first. The fields are described in ``docs/batch.md``.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.batch_runs.ledger import Entry, Ledger
from medmaskrcnn.batch_runs.reasons import IN_SUMMARY, without_paths
from medmaskrcnn.batch_runs.summary_page import summary_html
from medmaskrcnn.batch_runs.thumbnail import THUMBNAIL
from medmaskrcnn.errors import with_remedy
from medmaskrcnn.report.result_document import to_json
from medmaskrcnn.system.files import write_bytes
from medmaskrcnn.system.tables import TableWriter
from medmaskrcnn.system.version import __version__

SCHEMA_VERSION = 1
_ORDER = ("failed", "refused", "running", "queued", "done", "skipped")
_SHORT = 3  # file names up to this length may also be words in our own sentences, so they are not hidden
_COLUMNS = ("case", "status", "reason", "modality", "slices", "instances", "out_of_domain", "warnings")


def write_summary(out: Path, ledger: Ledger) -> None:
    """Write the three files, each completely or not at all.

    Raises:
        OutputError: if they cannot be written; the ledger does not change.
    """
    document = summary_document(ledger)
    write_bytes(out / "summary.csv", summary_csv(document).encode())
    write_bytes(out / "summary.json", to_json(document).encode())
    write_bytes(out / "summary.html", summary_html(document).encode())


def summary_document(ledger: Ledger) -> dict[str, Any]:
    """The content of ``summary.json``."""
    entries = sorted(ledger.entries(), key=lambda e: (_ORDER.index(e.status), e.folder))
    cases = [_case(entry) for entry in entries]
    totals: Counter[str] = Counter()
    for case in cases:
        totals.update(case["counts"])
    return {
        "schema_version": SCHEMA_VERSION,
        "software": f"medmaskrcnn {__version__}",
        "research_use_only": True,
        "model": ledger.get_meta("model"),
        "settings": ledger.get_meta("said"),
        "statuses": {status: sum(case["status"] == status for case in cases) for status in _ORDER},
        "totals": dict(sorted(totals.items())),
        "cases": cases,
    }


def _case(entry: Entry) -> dict[str, Any]:
    found, outcome = entry.found, entry.outcome
    done = entry.status == "done"
    return {
        "case": entry.folder,
        "status": entry.status,
        "reason": None if entry.reason is None else _reason(entry),
        "modality": found.modality,
        "slices": found.slices or None,
        "instances": outcome.get("instances") if done else None,
        "counts": outcome.get("counts", {}) if done else {},
        "out_of_domain": bool(outcome.get("out_of_domain")) if done else False,
        "warnings": outcome.get("warnings", []) if done else [],
        "thumbnail": f"{entry.folder}/{THUMBNAIL}" if done else None,
    }


def _reason(entry: Entry) -> str:
    return with_remedy(without_paths(entry.reason or "", hidden_paths(entry.found)), entry.remedy, IN_SUMMARY)


def summary_csv(document: dict[str, Any]) -> str:
    """One row per series, with a column for each class that was detected anywhere."""
    classes = list(document["totals"])
    text = io.StringIO()
    writer = TableWriter(text)
    writer.writerow([*_COLUMNS, *(f"n {name}" for name in classes)])
    for case in document["cases"]:
        row = [*(case[name] for name in _COLUMNS[:-2]), int(case["out_of_domain"]), " | ".join(case["warnings"])]
        counts = [case["counts"].get(name, 0) if case["status"] == "done" else None for name in classes]
        writer.writerow([*row, *counts])
    return text.getvalue()


def hidden_paths(found: FoundSeries) -> Sequence[str]:
    """What shared output must not contain: the series' files, their names, every folder above them, whose it is."""
    files = [*found.files, *([found.archive[0]] if found.archive else [])]
    folders = {str(parent) for file in files for parent in Path(file).parents}
    names = {name for file in files if len(name := Path(file).name) > _SHORT and not name.isdigit()}
    identity = (found.patient_id, found.patient_name, found.study_date, found.study_uid, found.series_uid)
    words = {word for word in identity if len(word) > _SHORT}
    return [*files, *(folder for folder in folders if folder != os.sep), *names, *words]
