"""The page ``concepts/ablations.md``: what each idea of Mask R-CNN is worth, from the files that were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"
TARGET = "concepts/ablations.md"
COLUMNS = ("mask_ap", "mask_ap50", "mask_ap75", "mask_ap_small", "mask_ap_medium", "box_ap", "box_ap75")

HEAD = """# What each idea is worth

The ablations of the paper (He et al. 2017, table 2) on medical images: RoIAlign or RoIPool on maps of stride 16 and 32,
one map or a pyramid, masks by a sigmoid for each class or by a softmax, with or without masks. All else is equal: plan
(`nuclei` and `hippocampus-mr`, with one residual block a stage), data, steps, seed. Small objects have less than 32 x
32 pixels, medium ones less than 96 x 96, as in COCO.

<!-- not run: trains nine networks -->
```bash
python benchmarks ablations DATA runs/ablations --steps 600 --threads 1 --json benchmarks/results/ablations.json
```

As in the paper, RoIAlign in place of RoIPool is worth most, and more the coarser the map; a pyramid beats one map; a
sigmoid beats a softmax. Unlike in the paper, learning masks too does not help the boxes, and weights that balance the
terms of the loss do not help either. One seed and a short training: differences of 0.02 say little.
"""


def text() -> str:
    """The page: a table for each file of results, or that there is none."""
    files = sorted(RESULTS.glob("ablations*.json"))
    if not files:
        return HEAD + "\nNot measured yet.\n"
    return "\n".join([HEAD, *(table(path) for path in files)])


def table(path: Path) -> str:
    """The rows of one file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"## {document['steps']:,} steps, seed {document['seed']}",
        "",
        f"Average precision on the test cases, with its 95 % interval over cases; `benchmarks/results/{path.name}`.",
        "",
        "| network | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for row in document["rows"]:
        lines.append(f"| {row['what']} | " + " | ".join(figure(row, name) for name in COLUMNS) + " |")
    return "\n".join([*lines, ""])


def figure(row: dict[str, Any], name: str) -> str:
    """A figure with its interval; nothing for the masks of a network without any."""
    value, low, high = row.get(name) or (None, None, None)
    if value is None or (name.startswith("mask") and "without masks" in row["what"]):
        return ""
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.2f} to {high:.2f})"
