"""The trace of a training: means by epoch as one can compute them with a pencil, and a page that is whole."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app
from medmaskrcnn.errors import ReadError
from medmaskrcnn.explain.chart import line_chart, moving_mean
from medmaskrcnn.explain.training import MEANINGS, is_training, trace_training
from medmaskrcnn.settings import LossSettings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four steps, validated after the second and the fourth."""
    folder = tmp_path / "run"
    folder.mkdir()
    rows = ["step,objectness,mask,total,learning_rate,seconds"]
    rows += [f"{step},{8 - step},{step},{8},0.001,30" for step in (1, 2, 3, 4)]
    (folder / "losses.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "validation.csv").write_text("step,mask_ap50,ap50 <b>\n2,0.25,\n4,0.75,0.5\n", encoding="utf-8")
    return folder


def test_epochs_are_means_since_the_one_before(run):
    first, second = trace_training(run).epochs
    assert (first.step, second.step) == (2, 4)
    assert first.losses == {"objectness": 6.5, "mask": 1.5, "total": 8.0}
    assert second.losses == {"objectness": 4.5, "mask": 3.5, "total": 8.0}
    assert first.scores == {"mask_ap50": 0.25}
    assert second.scores == {"mask_ap50": 0.75, "ap50 <b>": 0.5}


def test_page_tells_and_escapes(run, tmp_path):
    html = trace_training(run).save(tmp_path / "t.html").read_text(encoding="utf-8")
    assert "4 steps, 2 validations, 2 minutes of learning" in html
    assert escape(MEANINGS["objectness"]) in html and escape(MEANINGS["mask_ap50"]) in html
    assert "ap50 &lt;b&gt;" in html and "<b>" not in re.sub(r"<b>[\d.]+</b>", "", html)
    assert "best 0.75 at step 4" in html
    assert not re.search(r"(src|href)=\"(?!#)", html)
    assert "<strong>mask</strong>: 1 at first, 2.5 at last" in html  # of four steps the first one
    assert "at an IoU of 0.5, of &lt;b&gt; alone" in html


def test_one_validation_is_a_line_too(run):
    (run / "validation.csv").write_text("step,mask_ap50\n4,0.5\n", encoding="utf-8")
    html = trace_training(run).html
    assert "4 steps, 1 validation, " in html
    assert 'points="0.0,90.0 600.0,90.0"' in html


def test_without_validation_it_is_told_in_parts(run):
    (run / "validation.csv").unlink()
    epochs = trace_training(run).epochs
    assert [epoch.step for epoch in epochs] == [1, 2, 3, 4]
    assert all(epoch.scores == {} for epoch in epochs)


def test_every_term_of_the_loss_has_a_meaning():
    assert set(LossSettings.model_fields) - {"focal"} <= set(MEANINGS)


@pytest.mark.parametrize(
    ("text", "told"), [("step,total\n", "no row yet"), ("step,total\n1,x\n", "no table of numbers")]
)
def test_bad_tables_are_told(run, text, told):
    (run / "losses.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ReadError, match=told):
        trace_training(run)


def test_chart_by_hand():
    chart = line_chart([10, 20, 30], [0.0, 5.0, 20.0], label="x", top=10.0)
    assert 'points="0.0,180.0 300.0,90.0 600.0,0.0"' in chart  # cut at the top
    assert moving_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_command_knows_a_training_from_a_scan(run, tmp_path):
    assert is_training(run) and not is_training(tmp_path)
    done = CliRunner().invoke(app, ["trace", str(run), "-o", str(tmp_path / "t.html")], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "6.500" in done.output and "0.750" in done.output
    without_model = CliRunner().invoke(app, ["trace", str(tmp_path), "-o", str(tmp_path / "t.html")])
    assert without_model.exit_code == 2 and "--model" in without_model.output
