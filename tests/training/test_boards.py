"""Figures go to TensorBoard always, and to Weights & Biases if asked: offline, resumed, and not installed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from medmaskrcnn.errors import MissingExtraError
from medmaskrcnn.training.boards import TensorBoard, WeightsAndBiases

OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 0)
    board.add({"loss/total": 1.5}, 1)
    board.close()
    (events,) = (tmp_path / "tensorboard").glob("events*")
    assert b"loss/total" in events.read_bytes()


@pytest.mark.needs(extra="wandb")
def test_offline_everything_stays_in_the_folder_and_a_resumed_run_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    ids = []
    for step in (1, 2):
        board = WeightsAndBiases("livers", tmp_path, {"train": {"steps": 2}})
        board.add({"loss/total": 1.0 / step, "validation/mask_ap50": 0.5}, step)
        board.close()
        ids.append(str(board.run.id))
    assert ids[0] == ids[1] == (tmp_path / "wandb-run-id.txt").read_text()
    patience = time.monotonic() + 30
    while not any(b"loss/total" in file.read_bytes() for file in (tmp_path / "wandb").rglob("*.wandb")):
        assert time.monotonic() < patience, "its own process has not written it"
        time.sleep(0.1)


def test_without_the_package_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"medmaskrcnn\[wandb\]"):
        WeightsAndBiases("livers", tmp_path, {})
