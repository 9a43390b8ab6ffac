"""Outcomes of a search: a JSON file from which it resumes, a table (CSV) and a plot of AP over speed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medmaskrcnn.compression.search.variant import Variant, VariantResult, best_trade_offs
from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.system.files import make_folder, replacing, write_bytes
from medmaskrcnn.system.tables import TableWriter

MEASURED, TABLE, PLOT = "measured.json", "variants.csv", "pareto.png"


class Measured:
    """Outcomes of a search, on disk after each.

    Args:
        folder: The search's folder.
        conditions: What the figures depend on; a search under other conditions needs its own folder.

    Raises:
        OutputError: if the folder holds the measurements of another search.
        ReadError: if its content cannot be read.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        self.folder, self.conditions = make_folder(folder), dict(conditions)
        self.outcomes: list[VariantResult] = []
        file = folder / MEASURED
        if not file.exists():
            return
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            self.outcomes = [
                VariantResult(**{**row, "variant": Variant(**row["variant"])}) for row in document["outcomes"]
            ]
            begun_with = document["conditions"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReadError(f"cannot read {file}: {error}; remove the folder to begin anew") from error
        changed = [
            key for key in self.conditions if begun_with.get(key) != json.loads(json.dumps(self.conditions[key]))
        ]
        if changed:
            raise OutputError(
                f"{folder} holds the measurements of another search ({', '.join(changed)} differ): "
                "write to another file, or remove that folder"
            )

    def of(self, variant: Variant) -> VariantResult | None:
        """The stored outcome of a variant, unless it failed."""
        return next((o for o in self.outcomes if o.variant == variant and not o.error), None)

    def add(self, outcome: VariantResult) -> None:
        """Store an outcome, replacing an earlier one of the same variant."""
        self.outcomes = [o for o in self.outcomes if o.variant != outcome.variant] + [outcome]
        document = {"conditions": self.conditions, "outcomes": [asdict(o) for o in self.outcomes]}
        write_bytes(self.folder / MEASURED, (json.dumps(document, indent=1) + "\n").encode())


def write_table(outcomes: Sequence[VariantResult], path: Path) -> None:
    """Write one row per variant, in the order of trying."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        writer.writerow(["variant", "pruned", "engine", "precision", "proposals", "seconds", "times", "ap", "error"])
        for o in outcomes:
            v = o.variant
            figures = ["" if x is None else f"{x:.5g}" for x in (o.seconds, o.times, o.ap)]
            writer.writerow([v.name, v.pruned, v.engine, v.precision, v.proposals or "", *figures, o.error])


def draw_trade_offs(outcomes: Sequence[VariantResult], most: float, chosen: VariantResult, path: Path) -> None:
    """Plot AP over speed of each variant, the Pareto front and the allowed AP loss as PNG.

    Args:
        outcomes: Outcomes, the original first.
        most: Largest allowed loss of AP.
        chosen: The chosen variant, which is marked.
        path: The file.
    """
    done = [o for o in outcomes if o.ap is not None and o.times is not None]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    front = best_trade_offs(done)
    axis.plot([o.times or 0 for o in front], [o.ap or 0 for o in front], "-", color="tab:blue", alpha=0.4)
    for pruned, marker in ((False, "o"), (True, "^")):
        some = [o for o in done if bool(o.variant.pruned) is pruned]
        label = "pruned" if pruned else "whole network"
        axis.plot([o.times or 0 for o in some], [o.ap or 0 for o in some], marker, color="tab:blue", label=label)
    axis.plot([chosen.times or 0], [chosen.ap or 0], "o", ms=14, mfc="none", color="tab:red", label="chosen")
    axis.axhline((done[0].ap or 0) - most, ls="--", lw=1, color="tab:gray", label=f"loses {most:g}")
    for number, o in enumerate(done, start=1):  # names would overlap
        axis.annotate(str(number), (o.times or 0, o.ap or 0), xytext=(4, 5), textcoords="offset points", fontsize=8)
    names = "\n".join(f"{number}  {o.variant.name}" for number, o in enumerate(done, start=1))
    axis.text(1.02, 1.0, names, transform=axis.transAxes, va="top", fontsize=8, linespacing=1.5)
    axis.set(xlabel="times as fast as the original (torch fp32)", ylabel="AP on the validation cases")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
