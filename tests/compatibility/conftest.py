"""Files that version 0.1.0 made, and ways to use them as a user does: the command line and public names alone."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import medmaskrcnn

MADE_BY_0_1_0 = Path(__file__).parent / "made_by_0_1_0"

SCORE_APART, BOX_APART_VOX, VOXELS_APART = 2e-3, 0.05, 0.02  # float32 on another kind of processor
LINKED_LOWER = 0.1  # in 0.1.0 a linked object had the score of its best slice


@pytest.fixture(scope="session")
def made() -> Path:
    """The folder of files that 0.1.0 made. Only to be read."""
    return MADE_BY_0_1_0


@pytest.fixture(scope="session")
def command_line() -> Callable[..., Result]:
    """``command_line("segment", path, code=0)``: the program, in the test's process; it must end with that code."""
    (script,) = entry_points(group="console_scripts", name="medmaskrcnn")
    app = importlib.import_module(script.module).app

    def run(*words: object, code: int = 0) -> Result:
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == code, f"{words}: {done.output}{done.exception}"
        return done

    return run


@pytest.fixture(scope="session")
def leaves() -> Callable[[Any], Counter[str]]:
    """``leaves(document)``: its values without their names, counted, as far as they say something."""
    return _leaves


@pytest.fixture(scope="session")
def assert_same_candidates() -> Callable[[Path, Path], None]:
    """``assert_same_candidates(found, expected)``: two ``instances.npz`` hold the same, up to rounding."""
    return _assert_same_candidates


def _leaves(document: Any) -> Counter[str]:
    """Names may change, values may not: numbers as they are written, texts, truths; ``None`` and empty say nothing."""
    if isinstance(document, dict):
        return sum((_leaves(value) for value in document.values()), Counter())
    if isinstance(document, list | tuple):
        return sum((_leaves(value) for value in document), Counter())
    if document is None:
        return Counter()
    is_number = isinstance(document, int | float) and not isinstance(document, bool)
    return Counter([f"{float(document):.10g}" if is_number else str(document)])


def _assert_same_candidates(found: Path, expected: Path) -> None:
    """Release 0.1.0 did not write what suppression and ``one_per_scan`` removed."""
    result = medmaskrcnn.load_case(found)
    rest = np.flatnonzero(result.candidates.removed == 0)
    kept = replace(
        result, candidates=result.candidates.select(rest), measurements=tuple(result.measurements[i] for i in rest)
    )
    remaining = found.with_name("remaining.npz")
    medmaskrcnn.save_case(kept, remaining)
    with np.load(remaining, allow_pickle=False) as new, np.load(expected, allow_pickle=False) as old:
        assert len(old["scores"]) > 0, "else the test proves nothing"
        for name in ("grid_shape", "affine"):
            np.testing.assert_array_equal(new[name], old[name])
        assert len(new["scores"]) == len(old["scores"])
        left = list(range(len(new["scores"])))
        for label, score, box in zip(old["labels"], old["scores"], old["boxes"], strict=True):
            apart = [float(np.abs(new["boxes"][i] - box).max()) for i in left]
            nearest = left.pop(int(np.argmin(apart)))
            assert min(apart) < BOX_APART_VOX, f"no box near {box}: {new['boxes']}"
            assert new["labels"][nearest] == label
            assert -LINKED_LOWER < new["scores"][nearest] - score < SCORE_APART
        voxels = [np.unpackbits(arrays["mask_bits"]).sum(dtype=int) for arrays in (new, old)]
        assert abs(voxels[0] - voxels[1]) <= VOXELS_APART * voxels[1]
