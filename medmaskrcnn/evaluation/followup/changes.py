"""``changes.csv`` and ``changes.json``: each lesion's size at each time point, and how it has changed.

No response category is given: which lesions are targets, and what their change means, is for the reader to judge.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmaskrcnn.evaluation.followup.tracks import TimePoint, Track
from medmaskrcnn.report.result_document import to_json
from medmaskrcnn.system.files import write_bytes
from medmaskrcnn.system.tables import harmless
from medmaskrcnn.system.version import __version__

SCHEMA_VERSION = 1
_COLUMNS = ("lesion", "class", "time_point", "state", "id", "score", "volume_mm3", "longest_axial_diameter_mm",
            "volume_change_mm3", "volume_change_percent", "diameter_change_mm", "diameter_change_percent",
            "volume_since_first_percent", "diameter_since_first_percent")  # fmt: skip


def changes_document(time_points: Sequence[TimePoint], tracks: Sequence[Track]) -> dict[str, Any]:
    """The content of ``changes.json``; every field is described in ``docs/followup.md``.

    Args:
        time_points: In order of time.
        tracks: Result of :func:`medmaskrcnn.evaluation.followup.tracks.follow` for them.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "software": f"medmaskrcnn {__version__}",
        "research_use_only": True,
        "time_points": [
            {
                "label": point.label,
                "model": point.result.record.model_name,
                "alignment": point.alignment.method if t else "reference",
                "matrix_ras": point.alignment.matrix_ras.round(6).tolist(),
                "correlation": None if point.alignment.correlation is None else round(point.alignment.correlation, 4),
                "alignment_is_doubtful": point.alignment.is_poor,
            }
            for t, point in enumerate(time_points)
        ],
        "lesions": [
            {
                "lesion": track.number,
                "class": track.class_name,
                "course": [_at(track, t, time_points[t].label) for t in range(len(time_points))],
            }
            for track in tracks
        ],
    }


def _at(track: Track, t: int, label: str) -> dict[str, Any]:
    seen = [i for i in range(t) if track.sightings[i] is not None]
    here = track.sightings[t]
    row: dict[str, Any] = {"time_point": label, "state": track.state(t), **dict.fromkeys(_COLUMNS[4:])}
    if here is None:
        return row
    volume, diameter = here.measurement.volume_unit3, here.measurement.longest_axial_diameter
    row |= {"id": here.id, "score": round(here.score, 4), "volume_mm3": volume, "longest_axial_diameter_mm": diameter}
    for since, i in (("change", seen[-1] if seen else None), ("since_first", seen[0] if seen else None)):
        before = None if i is None else track.sightings[i]
        if before is None:
            continue
        earlier = before.measurement
        row[f"volume_{since}_percent"] = _percent(volume, earlier.volume_unit3)
        row[f"diameter_{since}_percent"] = _percent(diameter, earlier.longest_axial_diameter)
        if since == "change":
            row["volume_change_mm3"] = volume - earlier.volume_unit3
            if diameter is not None and earlier.longest_axial_diameter is not None:
                row["diameter_change_mm"] = diameter - earlier.longest_axial_diameter
    return row


def _percent(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else round(100 * (now / before - 1), 2)


def changes_csv(document: dict[str, Any]) -> str:
    """One line per lesion and time point."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for lesion in document["lesions"]:
        for row in lesion["course"]:
            cells = {"lesion": lesion["lesion"], "class": lesion["class"], **row}
            writer.writerow({name: harmless(cell) for name, cell in cells.items()})
    return text.getvalue()


def write_changes(document: dict[str, Any], out: Path) -> list[Path]:
    """Write both files, each atomically.

    Raises:
        OutputError: if they cannot be written.
    """
    texts = {"changes.csv": changes_csv(document), "changes.json": to_json(document)}
    return [write_bytes(out / name, text.encode()) for name, text in texts.items()]
