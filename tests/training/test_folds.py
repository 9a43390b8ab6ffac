"""Folds: patients are dealt, each network trains on the others' cases, one file holds them all, and a run goes on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app
from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import Manifest, ManifestCase, read_manifest
from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.hub.model_file import read_members
from medmaskrcnn.training.folds import train_folds, with_folds
from medmaskrcnn.training.plan import Plan, plan_text
from medmaskrcnn.training.planner.planner import make_plan


def manifest(patients: int, folds: list[int | None] | None = None) -> Manifest:
    """Two cases of each patient, and one for testing."""
    cases = [
        ManifestCase(id=f"c{k}", patient=f"p{k // 2}", image="x.png", fold=None if folds is None else folds[k])
        for k in range(2 * patients)
    ]
    test = ManifestCase(id="held", patient="other", image="x.png", split="test")
    return Manifest(name="some", class_names=("liver",), cases=(*cases, test))


def test_patients_are_dealt_evenly_and_never_apart() -> None:
    dealt = with_folds(manifest(11), 5)
    of_fold: dict[int | None, set[str]] = defaultdict(set)
    for case in dealt.cases:
        of_fold[case.fold].add(case.patient)
    assert of_fold.pop(None) == {"other"}, "cases for testing are in no fold"
    assert sorted(map(len, of_fold.values())) == [2, 2, 2, 2, 3] and sum(map(len, of_fold.values())) == 11
    assert with_folds(manifest(11), 5) == dealt, "no chance"


def test_the_manifests_own_folds_come_first() -> None:
    own = manifest(3, [0, 0, 1, 1, 2, 2])
    assert with_folds(own) is own and with_folds(own, 3) is own
    with pytest.raises(ReadError, match="3 folds of its own, not 5"):
        with_folds(own, 5)
    with pytest.raises(ReadError, match="some cases only"):
        with_folds(manifest(3, [0, 0, 1, 1, None, 2]))
    with pytest.raises(ReadError, match="3 patients cannot be dealt into 5"):
        with_folds(manifest(3), 5)


@pytest.fixture
def data(labelled: Callable[..., Path]) -> tuple[Manifest, Plan]:
    path = labelled()
    one = json.loads(path.read_text())["cases"][0]
    cases = [{**one, "id": f"c{k}", "patient": f"p{k}", "split": None} for k in range(3)]
    read = read_manifest(labelled(cases=cases))
    plan, _ = make_plan(read, check_manifest(read, workers=0).case_fingerprints, memory_gb=4, dims=2.5)
    short = plan.train.model_copy(update={"steps": 2, "batch": 1, "validate_every": 2})
    return read, plan.model_copy(update={"train": short})


@pytest.mark.slow
def test_one_file_holds_the_folds_and_a_run_goes_on(data: tuple[Manifest, Plan], tmp_path: Path) -> None:
    """Broken off before the second fold, it trains the others alone."""
    read, plan = data
    seen: list[tuple[int, int]] = []

    def broken_off(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_folds(read, plan, tmp_path / "run", folds=3, device="cpu", workers=0, on_fold=broken_off)
    assert seen == [(0, 3), (1, 3)] and not (tmp_path / "run" / "best.safetensors").exists()
    first = (tmp_path / "run" / "fold0" / "last.safetensors").read_bytes()
    with pytest.raises(OutputError, match="holds a run already"):
        train_folds(read, plan, tmp_path / "run", folds=3, device="cpu", workers=0)
    record = train_folds(read, plan, tmp_path / "run", folds=3, device="cpu", workers=0, resume=True)
    assert (tmp_path / "run" / "fold0" / "last.safetensors").read_bytes() == first
    assert record.model == tmp_path / "run" / "best.safetensors" and record.steps == 6
    networks, settings = read_members(record.model)
    assert len(networks) == settings.members == settings.training["folds"] == 3
    assert not (tmp_path / "run" / "cache").exists()
    weights = [network.state_dict()["box_head.classes.weight"] for network in networks]
    assert not weights[0].equal(weights[1])


@pytest.mark.slow
def test_the_command(data: tuple[Manifest, Plan], tmp_path: Path) -> None:
    read, plan = data
    dealt = with_folds(read, 3).model_dump_json(by_alias=True)
    (Path(read.folder) / "dealt.json").write_text(dealt)
    (tmp_path / "plan.yaml").write_text(plan_text(plan))
    words = ["train", f"{read.folder}/dealt.json", "--plan", f"{tmp_path}/plan.yaml", "-o", f"{tmp_path}/run"]
    done = CliRunner().invoke(app, [*words, "--fold", "all", "--workers", "0", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "fold 3 of 3" in done.output and "averages the networks of all folds" in done.output
    card = CliRunner().invoke(app, ["info", f"{tmp_path}/run/best.safetensors"])
    assert card.exit_code == 0 and "3 folds" in card.output, card.output


def test_what_is_no_fold(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(tmp_path), "--fold", "first"])
    assert done.exit_code == 2 and "'all'" in done.output


def test_nothing_to_go_on_with(data: tuple[Manifest, Plan], tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no folds to go on with"):
        train_folds(*data, tmp_path / "none", folds=3, resume=True)
