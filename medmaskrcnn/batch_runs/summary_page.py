"""``summary.html``: all cases of a batch on one page that sorts and filters and loads nothing from a network.

The page holds the cases as JSON, and a short script draws the matching rows, a hundred at a time while scrolling, so
that thousands of cases open at once. Thumbnails are separate files, loaded when they scroll into view.
"""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

NOT_CLINICAL = "Not for clinical use. Research software, not a medical device; no person has checked these results."


def summary_html(document: dict[str, Any]) -> str:
    """The page for the content of ``summary.json``."""
    template = files("medmaskrcnn.batch_runs").joinpath("summary_template.html").read_text(encoding="utf-8")
    statuses = document["statuses"]
    n_cases = len(document["cases"])
    words = ", ".join(f"{count} {status}" for status, count in statuses.items() if count) or "nothing found"
    parts = {
        "TITLE": f"{n_cases} series: {words}",
        "LEAD": f"{document['software']}, model {document['model'] or 'unknown'}",
        "SETTINGS": document["settings"] or "",
        "STAMP": NOT_CLINICAL,
    }
    # A script element ends at "</", so the data must not contain it.
    data = json.dumps(document, ensure_ascii=True).replace("<", "\\u003c")
    page = template
    for name, text in parts.items():
        page = page.replace(f"%{name}%", escape(text))
    return page.replace("%DATA%", data)
