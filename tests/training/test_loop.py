"""Training from a manifest to a model: it learns, can be killed, can be shared out, and says where it broke."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file

from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import InvalidOptionError, OutputError, ReadError
from medmaskrcnn.hub.model_file import read_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.report.training_tables import read_table
from medmaskrcnn.settings import (
    AnchorSettings,
    BackboneSettings,
    LossSettings,
    ModelCard,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
    RPNSettings,
)
from medmaskrcnn.training.plan import AugmentSettings, LoopSettings, Plan, plan_text
from medmaskrcnn.training.run import train
from medmaskrcnn.training.samples import Sample, Samples
from medmaskrcnn.training.trainer import (
    StepReport,
    Trainer,
    check_depths,
    layout_of,
    make_fabric,
    newest_share,
)
from medmaskrcnn.training.training_run import CHECKPOINT, LAST, TrainingRecord
from medmaskrcnn.training.validate import Validation

SIDE = 64


def make_plan(**loop: object) -> Plan:
    model = ModelSettings(
        class_names=("liver", "tumour"),
        backbone=BackboneSettings(name="light", light_channels=(8, 8, 8, 8), fpn_channels=8),
        anchors=AnchorSettings(sizes=((8, 8), (16, 16), (24, 24), (32, 32), (48, 48))),
        rpn=RPNSettings(pre_nms_top_n=50, post_nms_top_n=20, batch_per_image=32),
        roi=RoISettings(box_size=3, mask_size=4, box_hidden=16, mask_channels=8, mask_convs=1, batch_per_image=16),
    )
    settings = {
        "steps": 6,
        "batch": 2,
        "warmup_steps": 2,
        "precision": "fp32",
        "learning_rate": 5e-3,
        "validate_every": 50,
    }
    return Plan(
        card=ModelCard(name="tiny"),
        model=model,
        preprocess=PreprocessSettings(orientation="as_stored", value_range=(0, 255)),
        augment=AugmentSettings(patch=(1, SIDE, SIDE), flip=("H",), rotate_degrees=10, zoom=0.1, gamma=0.1, noise=0.05),
        train=LoopSettings(**{**settings, **loop}),
    )


def changed(plan: Plan, **loop: object) -> Plan:
    return plan.model_copy(update={"train": plan.train.model_copy(update=loop)})


def of_a_heart(plan: Plan) -> Plan:
    return plan.model_copy(update={"model": plan.model.model_copy(update={"class_names": ("heart",)})})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a bright liver with a dark tumour beside it: four to learn, two to validate; one has no object."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    cases = []
    for number in range(6):
        picture = random.normal(90, 8, (SIDE + 8, SIDE + 4))
        label = np.zeros(picture.shape, np.uint8)
        h, w = random.integers(4, 20, 2)
        if number != 3:
            label[h : h + 24, w : w + 28], label[h + 30 : h + 42, w + 10 : w + 24] = 1, 2
        picture[label == 1] += 90
        picture[label == 2] -= 70
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(label).save(folder / f"{number}_label.png")
        instances = [{"value": 1, "class": "liver"}, {"value": 2, "class": "tumour"}] if number != 3 else []
        case = {
            "id": f"case {number}",
            "patient": f"p{number}",
            "image": f"{number}.png",
            "label": f"{number}_label.png",
        }
        cases.append({**case, "split": "train" if number < 4 else "val", "instances": instances})
    manifest = {"version": 1, "name": "pictures", "class_names": ["liver", "tumour"], "cases": cases}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "manifest.json"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / LAST))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_tiny_model_learns(data: Path, tmp_path: Path, precision: str) -> None:
    events: list[object] = []
    plan = make_plan(steps=40, warmup_steps=3, precision=precision, validate_every=20, ema_decay=0.9)
    record = train(data, plan, tmp_path / "run", workers=0, on_event=events.append)
    steps = [event for event in events if isinstance(event, StepReport)]
    assert [s.step for s in steps] == list(range(1, 41))
    assert sum(s.total for s in steps[-5:]) < 0.7 * sum(s.total for s in steps[:5])
    scores = [event for event in events if isinstance(event, Validation)]
    assert [v.step for v in scores] == [20, 40] and all(picture.exists() for v in scores for picture in v.pictures)
    table = read_table(record.folder / "losses.csv")
    assert [row["step"] for row in table] == list(range(1, 41)) and table[7]["total"] == pytest.approx(
        steps[7].total, 1e-4
    )
    assert (record.folder / "losses.png").stat().st_size > 5000 and not (record.folder / "cache").exists()
    assert list((record.folder / "tensorboard").glob("events*"))
    model, settings = read_model(record.model)
    assert not model.training and settings.training["step"] in (20, 40) and settings.model == plan.model


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_weights_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name) % 1000)  # what went before has no say
        train(data, make_plan(seed=seed), tmp_path / name, workers=0)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


_PROGRAM = """
import sys, torch
from pathlib import Path
from medmaskrcnn.training import run, training_run
from medmaskrcnn.training.plan import read_plan
if __name__ == "__main__":
    torch.set_num_threads(1)
    training_run._SAVE_SECONDS = 0.0
    data, plan, folder, workers = sys.argv[1:]
    run.train(data, read_plan(plan), folder, check=False, workers=int(workers))
"""


def program(folder: Path, plan: Plan, data: Path, run: Path, *, workers: int) -> list[str]:
    """What trains in a process of its own: the script and its arguments."""
    script, plan_file = folder / "train_it.py", folder / "plan.yaml"
    script.write_text(_PROGRAM)
    plan_file.write_text(plan_text(plan))
    return [str(script), str(data), str(plan_file), str(run), str(workers)]


def killed_run(folder: Path, plan: Plan, data: Path, run: Path, *, at: int) -> None:
    """A training in a process of its own that is killed when its table of losses shows the step ``at``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *program(folder, plan, data, run, workers=1)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    while process.poll() is None:
        table = run / "losses.csv"
        if table.exists() and (run / CHECKPOINT).exists() and len(table.read_text().splitlines()) > at:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.02)
    assert process.wait(timeout=200) == -signal.SIGKILL


def test_narrow_strided_convolutions_do_not_learn_with_channels_last() -> None:
    narrow = make_plan().model
    wide = narrow.model_copy(
        update={"backbone": narrow.backbone.model_copy(update={"light_channels": (16, 16, 16, 16)})}
    )
    assert layout_of(build_model(narrow)) is torch.contiguous_format
    assert layout_of(build_model(wide)) is torch.channels_last


@pytest.mark.slow
def test_killed_and_resumed_it_ends_where_the_unbroken_run_does(data: Path, tmp_path: Path) -> None:
    """Killed while another process draws samples ahead; what goes on draws them itself."""
    plan = make_plan(steps=16)
    train(data, plan, tmp_path / "unbroken", workers=0)
    step = int(np.random.default_rng().integers(1, 14))
    killed_run(tmp_path, plan, data, tmp_path / "broken", at=step)
    train(data, plan, tmp_path / "broken", check=False, workers=0, resume=True)
    assert equal(weights(tmp_path / "broken"), weights(tmp_path / "unbroken")), f"killed after step {step}"
    tables = [read_table(tmp_path / name / "losses.csv") for name in ("broken", "unbroken")]
    curves = [[(row["step"], row["total"]) for row in table] for table in tables]
    assert curves[0] == curves[1] and len(curves[0]) == 16


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_the_whole_batch(data: Path, tmp_path: Path) -> None:
    plan = make_plan(steps=4)
    train(data, plan, tmp_path / "one", workers=0)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *program(tmp_path, plan, data, tmp_path / "two", workers=0)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250, check=False)
    assert done.returncode == 0
    one, two = (read_table(tmp_path / name / "losses.csv") for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        for term in ("objectness", "rpn_box", "classification", "box", "mask", "total"):
            assert b[term] == pytest.approx(a[term], abs=1e-4)


def test_accumulated_passes_are_resumed_at_the_right_sample(data: Path, tmp_path: Path) -> None:
    plan = make_plan(steps=4, batch=1, accumulate_grad_batches=2)
    train(data, plan, tmp_path / "whole", workers=0)

    def stop(event: object) -> None:
        if isinstance(event, StepReport) and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, plan, tmp_path / "halves", workers=0, on_event=stop)
    train(data, plan, tmp_path / "halves", workers=0, resume=True)
    assert equal(weights(tmp_path / "halves"), weights(tmp_path / "whole"))


def test_told_to_end_it_finishes_its_step_and_saves(data: Path, tmp_path: Path) -> None:
    """SIGTERM, as Slurm sends it."""
    plan = make_plan(steps=4)
    train(data, plan, tmp_path / "whole", workers=0)

    def end(event: object) -> None:
        if isinstance(event, StepReport) and event.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        train(data, plan, tmp_path / "halves", workers=0, on_event=end)
    assert ended.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "halves" / CHECKPOINT).exists()
    train(data, plan, tmp_path / "halves", workers=0, resume=True)
    assert equal(weights(tmp_path / "halves"), weights(tmp_path / "whole"))


def test_a_run_that_ended_before_its_first_checkpoint_is_resumed(data: Path, tmp_path: Path) -> None:
    plan = make_plan(steps=3)
    train(data, plan, tmp_path / "whole", workers=0)

    def die(event: object) -> None:
        if isinstance(event, StepReport):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(data, plan, tmp_path / "early", workers=0, on_event=die)
    assert not (tmp_path / "early" / CHECKPOINT).exists()
    with pytest.raises(ReadError, match="begun with another plan"):
        train(data, make_plan(steps=9), tmp_path / "early", workers=0, resume=True)
    train(data, plan, tmp_path / "early", workers=0, resume=True)
    assert equal(weights(tmp_path / "early"), weights(tmp_path / "whole"))
    assert [row["step"] for row in read_table(tmp_path / "early" / "losses.csv")] == [1, 2, 3]


def test_a_folder_belongs_to_one_run_and_a_checkpoint_to_one_plan(data: Path, tmp_path: Path) -> None:
    train(data, make_plan(steps=2), tmp_path / "run", workers=0)
    with pytest.raises(OutputError, match="holds a run already"):
        train(data, make_plan(steps=2), tmp_path / "run", workers=0)
    with pytest.raises(ReadError, match="begun with another plan"):
        train(data, make_plan(steps=9), tmp_path / "run", workers=0, resume=True)
    with pytest.raises(ReadError, match="no checkpoint to resume"):
        train(data, make_plan(), tmp_path / "elsewhere", workers=0, resume=True)


def trainer(plan: Plan) -> Trainer:
    torch.manual_seed(0)
    return Trainer(build_model(plan.model), plan, Fabric(accelerator="cpu", devices=1))


def samples_of(data: Path, plan: Plan, folder: Path, **more: object) -> Samples:
    from medmaskrcnn.data.cases import prepare_cases

    manifest = read_manifest(data)
    return Samples(prepare_cases(manifest, manifest.cases[:4], plan.settings, folder), plan, **more)


def test_cases_are_drawn_by_their_weight(data: Path, tmp_path: Path) -> None:
    plan, drawn = make_plan(), 80
    alike = samples_of(data, plan, tmp_path, weights=[2.0] * 4)
    assert [one.case_id for one in map(alike.__getitem__, range(8))] == [
        one.case_id for one in map(samples_of(data, plan, tmp_path).__getitem__, range(8))
    ]
    weighted = samples_of(data, plan, tmp_path, weights=[6.0, 1.0, 0.5, 0.5])
    counts = Counter(weighted.files[weighted.case_of(index)].name for index in range(drawn))
    assert [counts[file.name] / drawn for file in weighted.files] == pytest.approx(
        [0.75, 0.125, 0.0625, 0.0625], abs=0.03
    )


def test_a_loss_that_is_not_finite_names_its_case(data: Path, tmp_path: Path) -> None:
    plan = make_plan()
    samples = samples_of(data, plan, tmp_path)
    good, bad = samples[0], samples[1]
    bad = Sample(bad.case_id, bad.image * float("nan"), bad.targets, bad.seed)
    assert good.case_id != bad.case_id
    with pytest.raises(FloatingPointError, match=rf"not finite at step 1 .*, in case {bad.case_id}\. "):
        trainer(plan).learn(iter([[good, bad]]))


def odd_sample(kind: str) -> Sample:
    from medmaskrcnn.models.objective import Targets

    boxes = {
        "empty": [],
        "one voxel": [[10, 10, 11, 11]],
        "at the border": [[0, 0, 20, SIDE]],
        "five hundred": [[2 * (i // 25), 2 * (i % 25), 2 * (i // 25) + 2, 2 * (i % 25) + 2] for i in range(500)],
    }[kind]
    masks = torch.zeros((len(boxes), SIDE, SIDE), dtype=torch.uint8)
    for mask, (a, b, c, d) in zip(masks, boxes, strict=True):
        mask[a:c, b:d] = 255
    labels = torch.zeros(len(boxes), dtype=torch.int64)  # the tumour never occurs
    image = torch.randn((1, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    return Sample(kind, image, Targets(torch.tensor(boxes).reshape(-1, 4).float(), labels, masks), 7)


@pytest.mark.parametrize("form", [{}, {"focal": 2.0, "mask_dice": 1.0}])
def test_odd_samples_do_not_stop_it(form: dict[str, float]) -> None:
    plan = make_plan()
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"loss": LossSettings(**form)})})
    pupil = trainer(plan)
    for kind in ("empty", "one voxel", "at the border", "five hundred"):
        report = pupil.learn(iter([[odd_sample(kind), odd_sample("empty")]]))
        assert all(np.isfinite(value) for value in report.terms.values()), kind
    assert all(bool(torch.isfinite(p).all()) for p in pupil.network.parameters())


def test_frozen_parts_stay(data: Path, tmp_path: Path) -> None:
    plan = make_plan(freeze=("stem", "stage1"))
    record = train(data, plan, tmp_path / "run", workers=0)
    torch.manual_seed(plan.train.seed)
    first = build_model(plan.model).state_dict()
    now = weights(record.folder)
    assert torch.equal(
        now["pyramid.backbone.resnet.conv1.weight"], first["pyramid.backbone.resnet.conv1.weight"].half()
    )
    assert not torch.equal(now["box_head.classes.weight"], first["box_head.classes.weight"].half())


def test_a_run_may_begin_with_another_models_weights(data: Path, tmp_path: Path) -> None:
    first = train(data, make_plan(steps=1), tmp_path / "first", workers=0)
    plan = make_plan(steps=1, learning_rate=1e-9, weight_decay=0.0)
    second = train(data, plan, tmp_path / "second", workers=0, start_from=first.model)
    for name, value in weights(first.folder).items():
        torch.testing.assert_close(weights(second.folder)[name], value, atol=1e-3, rtol=1e-3)


def test_hours_decide_in_place_of_steps(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of which every look takes a twentieth of a second, however busy the machine is."""
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(looks) / 20)
    for module in ("run", "schedule", "trainer", "training_run"):
        monkeypatch.setattr(f"medmaskrcnn.training.{module}.time", clock)
    record: TrainingRecord = train(data, make_plan(steps=1, hours=4 / 3600), tmp_path / "run", workers=0)
    assert 3.5 < next(looks) / 20 < 4.5
    rates = [row["learning_rate"] for row in read_table(record.folder / "losses.csv")]
    assert rates[-1] < 0.2 * max(rates) and len(rates) == record.steps > 10


@pytest.mark.needs(extra="wandb")
def test_a_run_is_shown_in_weights_and_biases(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    record = train(data, make_plan(steps=2), tmp_path / "run", workers=0, wandb="pictures")
    (file,) = (record.folder / "wandb").rglob("*.wandb")
    wanted, patience = (b"loss/total", b"learning_rate", b"validation/mask_ap50"), time.monotonic() + 30
    while not all(name in file.read_bytes() for name in wanted):  # its own process writes it
        assert time.monotonic() < patience
        time.sleep(0.1)


def test_folds(data: Path, tmp_path: Path) -> None:
    manifest = read_manifest(data)
    dealt = [case.model_copy(update={"fold": i % 3, "split": None}) for i, case in enumerate(manifest.cases)]
    manifest = manifest.model_copy(update={"cases": tuple(dealt)})
    seen: list[object] = []
    record = train(manifest, make_plan(steps=1), tmp_path / "run", workers=0, fold=1, on_event=seen.append)
    assert record.best is not None and record.best[1] == 1
    with pytest.raises(ReadError, match=r"no case in fold 7; its folds: \[0, 1, 2\]"):
        train(manifest, make_plan(), tmp_path / "other", workers=0, fold=7)


def test_it_stops_early_when_nothing_gets_better(data: Path, tmp_path: Path) -> None:
    plan = make_plan(steps=60, validate_every=1, patience=2, learning_rate=1e-9, weight_decay=0.0)
    assert train(data, plan, tmp_path / "run", workers=0).steps == 3  # the first is the best of all


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: changed(plan, precision="fp16"), "fp16 needs a GPU"),
        (of_a_heart, "no class heart"),
    ],
)
def test_what_cannot_be_done_is_told(data: Path, tmp_path: Path, change: Callable[[Plan], Plan], message: str) -> None:
    with pytest.raises((ValueError, ReadError), match=message):
        train(data, change(make_plan()), tmp_path / "run", workers=0, device="cpu")


def test_a_pass_must_be_shared_out_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="batch 3 cannot be shared out equally among 2"):
        make_fabric(LoopSettings(batch=3), torch.device("cpu"))


def test_a_patch_that_makes_maps_of_two_slices_is_refused() -> None:
    plan = make_plan(precision="bf16")
    deep = plan.model.model_copy(
        update={
            "spatial_dims": 3,
            "backbone": BackboneSettings(strides=((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))),
        }
    )
    plan = plan.model_copy(update={"model": deep, "augment": AugmentSettings(patch=(16, 64, 64))})
    with pytest.raises(InvalidOptionError, match=r"patch of 16 slices makes maps of \[16, 8, 4, 2\] slices") as caught:
        check_depths(plan, torch.device("cpu"))
    check_depths(plan, torch.device("cuda"))
    named = re.search(r"set (augment\.\w+) to \[(\d+), 64, 64\]", str(caught.value))
    assert named is not None and named[1] == caught.value.option == "augment.patch"
    deeper = plan.augment.model_copy(update={"patch": (int(named[2]), 64, 64)})
    check_depths(plan.model_copy(update={"augment": deeper}), torch.device("cpu"))  # it works


def test_the_moving_average_forgets_what_the_network_began_with() -> None:
    settings, left = LoopSettings(ema_decay=0.995), 1.0
    for step in range(20):
        left *= 1 - newest_share(step, settings)
    assert left < 1e-6
    assert newest_share(10_000, settings) == pytest.approx(0.005)
    assert newest_share(0, LoopSettings(ema_decay=0.0)) == 1.0
