"""A checkpoint belongs to one plan, whatever version of the software wrote the plan down."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.training.checkpoint import TrainingProgress, load_checkpoint, save_checkpoint
from medmaskrcnn.training.plan import plan_text, read_plan


def test_settings_that_an_older_version_did_not_have_change_nothing(tmp_path: Path) -> None:
    plan = plan_text(read_plan("phantom-ct"))
    older = re.sub(r"^  link_gap: 1\n", "", plan, flags=re.MULTILINE)
    assert older != plan
    save_checkpoint(tmp_path / "checkpoint.pt", TrainingProgress(step=7), older, network={})
    progress, states = load_checkpoint(tmp_path / "checkpoint.pt", plan)
    assert progress.step == 7 and states == {"network": {}}


@pytest.mark.parametrize("was, now", [("link_gap: 1", "link_gap: 2"), ("link_gap: 1", "no_longer_known: 1")])
def test_another_plan_is_refused(tmp_path: Path, was: str, now: str) -> None:
    plan = plan_text(read_plan("phantom-ct"))
    assert was in plan
    save_checkpoint(tmp_path / "checkpoint.pt", TrainingProgress(), plan.replace(was, now), network={})
    with pytest.raises(ReadError, match="begun with another plan"):
        load_checkpoint(tmp_path / "checkpoint.pt", plan)
