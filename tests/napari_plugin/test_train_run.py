"""What is read of a training that is still running."""

from __future__ import annotations

from pathlib import Path

from napari_medmaskrcnn.core.train_run import losses_of, model_of
from napari_medmaskrcnn.panels.loss_plot import smoothed


def test_rows_that_are_whole_are_read(tmp_path: Path):
    assert losses_of(tmp_path) == []
    (tmp_path / "losses.csv").write_text("step,mask,total,seconds\n1,0.5,1.25,3\n2,0.4,1.0,3\n3,0.")
    assert losses_of(tmp_path) == [(1, 1.25), (2, 1.0)]


def test_the_best_model_comes_before_the_last(tmp_path: Path):
    assert model_of(tmp_path) is None
    (tmp_path / "last.safetensors").touch()
    assert model_of(tmp_path) == tmp_path / "last.safetensors"
    (tmp_path / "best.safetensors").touch()
    assert model_of(tmp_path) == tmp_path / "best.safetensors"


def test_moving_mean_by_pencil():
    assert smoothed([(1, 4.0), (2, 2.0), (5, 3.0)]) == [(1, 4.0), (2, 3.0), (5, 3.0)]
    assert smoothed([(float(i), float(i)) for i in range(1, 41)])[-1] == (40.0, 30.5)
