"""Plans, manifests, broken-off trainings and searches of 0.1.0 are read and gone on with."""

from __future__ import annotations

import csv
import json
import platform
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import Result

import medmaskrcnn

CommandLine = Callable[..., Result]
Leaves = Callable[[Any], Counter[str]]

WEIGHTS_APART = 2e-3  # on another kind of processor; a single update moves weights by up to 4.5e-3
LOSS_APART = 1e-3
QUICK = ("--device", "cpu", "--workers", "0", "--quiet")


def test_plan_of_0_1_0_is_read(made: Path, leaves: Leaves) -> None:
    """Every key has a value that is not the default; each is among those of the plan, whatever it is called now."""
    written = leaves(yaml.safe_load((made / "plan.yaml").read_text(encoding="utf-8")))
    read = leaves(medmaskrcnn.read_plan(made / "plan.yaml").model_dump(mode="json"))
    assert sum(written.values()) > 140
    assert written - read == Counter()


def test_plan_of_0_1_0_is_written_as_a_plan_of_today(
    made: Path, tmp_path: Path, command_line: CommandLine, leaves: Leaves
) -> None:
    manifest, new = made / "pictures" / "manifest.json", tmp_path / "new.yaml"
    command_line("train", manifest, "--plan", made / "plan.yaml", "--plan-only", new, "--quiet")
    written, again = (leaves(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in (made / "plan.yaml", new))
    assert written - again == Counter()
    assert medmaskrcnn.read_plan(new) == medmaskrcnn.read_plan(made / "plan.yaml")


def test_plans_that_shipped_with_0_1_0_ship(made: Path) -> None:
    for name in json.loads((made / "names.json").read_text())["plans"]:
        medmaskrcnn.read_plan(name)


def test_manifest_of_0_1_0_is_read(made: Path, command_line: CommandLine) -> None:
    """Two channels, two label maps, parts, folds, facts of a case, an empty case: what the check counts is right."""
    said = command_line("train", made / "pictures" / "manifest_of_every_field.json", "--check").stdout
    assert re.search(r"liver\W+1\W+1\W", said) and re.search(r"tumour\W+3\W+2\W", said), said
    assert re.search(r"cyst\W+0\W+0\W", said), said


@pytest.mark.slow
def test_checkpoint_of_0_1_0_is_resumed(made: Path, tmp_path: Path, command_line: CommandLine) -> None:
    """Broken off after 6 of 12 steps, it ends with the weights that the unbroken training of 0.1.0 ended with.

    To the last bit where torch and the kind of processor are those of then, else up to rounding.
    """
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    before = load_file(run / "last.safetensors")
    command_line("train", made / "pictures" / "manifest.json", "-o", run, "--resume", *QUICK)
    after, unbroken = load_file(run / "last.safetensors"), load_file(made / "unbroken.safetensors")
    assert sum(value.numel() for value in unbroken.values()) == sum(value.numel() for value in after.values())
    assert moved(before, unbroken) > 3 * WEIGHTS_APART, "else the test proves nothing"
    assert moved(after, unbroken) <= (0.0 if machine_is_that_of(made / "unbroken_machine.json") else WEIGHTS_APART)
    with (run / "losses.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == [str(step) for step in range(1, 13)]
    losses = [float(row["total"]) for row in table]
    assert losses == pytest.approx(json.loads((made / "unbroken_losses.json").read_text()), abs=LOSS_APART)


@pytest.mark.slow
def test_training_may_start_from_a_model_of_0_1_0(made: Path, tmp_path: Path, command_line: CommandLine) -> None:
    model = made / "models" / "plane.safetensors"
    command = ("train", made / "pictures" / "manifest.json", "--plan", made / "search_plan.yaml", "--steps", 1)
    command_line(*command, "-o", tmp_path / "run", "--start-from", model, *QUICK)
    first, began = load_file(model), load_file(tmp_path / "run" / "last.safetensors")
    assert moved(began, first) < 0.05  # one step, at a fifth of the rate; random first weights would be far off


@pytest.mark.slow
def test_search_space_of_0_1_0_is_searched(
    made: Path, tmp_path: Path, command_line: CommandLine, leaves: Leaves
) -> None:
    """Dotted paths name what they named: their values are those of the best plan."""
    pytest.importorskip("optuna")
    out = tmp_path / "search"
    words = ("--plan", made / "search_plan.yaml", "--space", made / "space.yaml", "--method", "random")
    command_line("tune", made / "pictures" / "manifest.json", *words, "--steps", 2, "--trials", 1, "-o", out, *QUICK)
    chosen = leaves(yaml.safe_load((out / "best.yaml").read_text(encoding="utf-8")))
    only = [choices[0] for choices in yaml.safe_load((made / "space.yaml").read_text()).values() if len(choices) == 1]
    assert len(only) == 10
    assert leaves(only) - chosen == Counter()
    medmaskrcnn.read_plan(out / "best.yaml")


@pytest.mark.slow
def test_search_of_0_1_0_goes_on(made: Path, tmp_path: Path, command_line: CommandLine) -> None:
    """One of two trainings has been done: the other is, and the first stays as it is."""
    pytest.importorskip("optuna")
    out = Path(shutil.copytree(made / "search", tmp_path / "search"))
    words = ("--plan", made / "search_plan.yaml", "--space", made / "space.yaml", "--method", "random")
    command_line("tune", made / "pictures" / "manifest.json", *words, "--steps", 2, "--trials", 2, "-o", out, *QUICK)
    tables = []
    for folder in (made / "search", out):
        with (folder / "trials.csv").open(newline="") as file:
            tables.append([list(row) for row in csv.reader(file)])
    before, after = tables
    assert (len(before), len(after)) == (2, 3)
    assert after[1] == before[1] and after[2][0] == "1" and after[2][-1] == "", after


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference between the weights of two models; layers may be called otherwise, so each is compared to
    the one of its shape that is nearest to it."""
    weights = [[value.float() for value in model.values() if value.is_floating_point()] for model in (one, other)]
    apart = 0.0
    for mine in weights[0]:
        apart = max(apart, min(float((mine - its).abs().max()) for its in weights[1] if its.shape == mine.shape))
    return apart


def machine_is_that_of(path: Path) -> bool:
    """Whether sums are taken as on the machine that made the file."""
    features = dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}
    here = {name: features[name] for name in sorted(features) if not name.startswith("num_")}
    then = json.loads(path.read_text())
    return then == {"torch": torch.__version__, "machine": platform.machine(), "processor": here}
