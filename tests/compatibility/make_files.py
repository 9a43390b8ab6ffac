"""How the files in ``made_by_0_1_0`` were made: by the code of version 0.1.0 at commit 1ade54b, and by no other.

Kept as a record. It uses names that later versions do not have, so it runs with that code alone::

    git worktree add /tmp/old 1ade54b
    export PYTHONPATH=/tmp/old:/tmp/old/kernels:/tmp/old/datasets:/tmp/old/napari_plugin OMP_NUM_THREADS=1
    cd /tmp && python .../tests/compatibility/make_files.py NEW_FOLDER

No patient is in any of it: pictures and scans are drawn here, CT series are phantoms. As many settings as can be
(``make_settings.py``) have a value that is not the default, and each number occurs once where it can: a setting that is
lost on the way into a newer version is then missed.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from make_settings import AUGMENT, BATCH_OPTIONS, LOOP, PLANE, RULES, SEARCHED, SIDE, SLICES, VOLUME
from medmaskrcnn.batch.api import batch
from medmaskrcnn.batch.ledger import Ledger
from medmaskrcnn.config import ModelFileSettings
from medmaskrcnn.models.model_file import read_model, save_model
from medmaskrcnn.training.loop import StepReport
from PIL import Image
from pydicom import dcmread

import medmaskrcnn
import medmaskrcnn_kernels
from medmaskrcnn.models.build import build_model
from medmaskrcnn.structures.case_result import CaseResult, Measurement, Review
from medmaskrcnn.training.plan import Plan, plan_text
from medmaskrcnn.training.run import train
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

VERSION = "0.1.0"
FILE_TIME_NS = 1_700_000_000_000_000_000  # of every DICOM file: the ledger tells by it whether a file has changed

# ------------------------------------------------------------------------------------------------------------- pictures


def write_pictures(folder: Path) -> None:
    """Six pictures of a bright liver with a dark tumour beside it: four to learn, two to validate; one is empty."""
    folder.mkdir()
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
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png", optimize=True)
        Image.fromarray(label).save(folder / f"{number}_label.png", optimize=True)
        instances = [{"value": 1, "class": "liver"}, {"value": 2, "class": "tumour"}] if number != 3 else []
        case = {"id": f"case {number}", "patient": f"p{number}", "image": f"{number}.png"}
        case |= {"label": f"{number}_label.png", "split": "train" if number < 4 else "val"}
        cases.append({**case, "instances": instances})
    manifest = {"version": 1, "name": "pictures", "class_names": ["liver", "tumour"], "cases": cases}
    write_json(folder / "manifest.json", manifest)


def write_manifest_of_every_field(folder: Path) -> None:
    """A manifest beside the pictures with every field: two channels, two label maps, folds, parts, an empty case."""
    extra = np.zeros((SIDE + 8, SIDE + 4), np.uint8)
    extra[20:30, 20:32] = 3
    Image.fromarray(extra).save(folder / "0_extra.png", optimize=True)
    first = [
        {"value": 1, "class": "liver", "part_of": None, "map": 0},
        {"value": 2, "class": "tumour", "part_of": 1, "map": 0},
        {"value": 3, "class": "tumour", "part_of": None, "map": 1},
    ]
    known = {"pathology": "benign", "age": 61, "dose": 1.5, "contrast": True, "grade": None}
    cases = [
        {
            **{"id": "two maps", "patient": "a", "image": ["0.png", "1.png"]},
            **{"label": ["0_label.png", "0_extra.png"], "split": "train", "fold": 0},
            **{"case_labels": known, "instances": first},
        },
        {
            **{"id": "one map", "patient": "b", "image": ["1.png", "2.png"], "label": "1_label.png"},
            **{"split": "val", "fold": 1, "instances": [{"value": 2, "class": "tumour"}]},
        },
        {"id": "open", "patient": "c", "image": ["3.png", "4.png"], "label": None, "split": None, "fold": None},
    ]
    about = {"version": 1, "name": "every field", "modality": "MR", "licence": "CC0-1.0"}
    write_json(
        folder / "manifest_of_every_field.json", {**about, "class_names": ["liver", "tumour", "cyst"], "cases": cases}
    )


# --------------------------------------------------------------------------------------------------------------- models


def write_scan(folder: Path) -> Path:
    """Blocks in a noisy scan of 16 x 44 x 36 voxels with its labels, as NIfTI, and a manifest of it."""
    folder.mkdir()
    labels = np.zeros((16, 44, 36), np.int16)
    labels[3:13, 10:32, 6:26] = 1
    labels[6:11, 14:22, 11:19] = 2
    image = np.random.default_rng(1).normal(100, 6, labels.shape)
    image[labels == 1] += 100
    image[labels == 2] += 60
    affine = np.diag([-1.5, -1.4, 3.0, 1])  # i to the left, j to the back, k up
    for name, array in (("scan", image.astype(np.int16)), ("labels", labels)):
        nib.save(nib.Nifti1Image(array.T, affine), folder / f"{name}.nii.gz")
    parts = [{"value": 1, "class": "liver"}, {"value": 2, "class": "tumour", "part_of": 1}]
    case = {"id": "c1", "patient": "p1", "image": "scan.nii.gz", "label": "labels.nii.gz", "split": "train"}
    manifest = {"version": 1, "name": "blocks", "modality": "CT", "class_names": ["liver", "tumour"]}
    write_json(folder / "manifest.json", {**manifest, "cases": [{**case, "instances": parts}]})
    return folder / "manifest.json"


def train_model(name: str, manifest: Path, settings: dict[str, Any], patch: tuple[int, int, int], steps: int) -> Path:
    """Learn for long enough that scores lie apart, and give the file of the model."""
    loop = {"steps": steps, "warmup": 20, "learning_rate": 4e-3, "precision": "fp32", "validate_every": 10**6}
    plan = Plan.model_validate({**settings, "augment": {"patch": patch, "foreground": 0.7}, "train": loop})
    return train(manifest, plan, Path(f"run-{name}"), workers=0, device="cpu", check=False).folder / "last.safetensors"


def write_models(out: Path, pictures: Path, scans: Path) -> None:
    """Three models with what each finds in a scan, and one that reports whatever it sees."""
    out.mkdir()
    learnt = {
        "plane": train_model("plane", pictures / "manifest.json", PLANE, (1, SIDE, SIDE), 250),
        "slices": train_model("slices", scans / "manifest.json", SLICES, (1, 48, 48), 700),
        "volume": train_model("volume", scans / "manifest.json", VOLUME, (10, 40, 40), 400),
    }
    scan = {"plane": pictures / "4.png", "slices": scans / "scan.nii.gz", "volume": scans / "scan.nii.gz"}
    for name, path in learnt.items():
        network, settings = read_model(path)
        training = {"data": "drawn", "step": 250, "learning_rate": 4e-3}
        save_model(network, settings.model_copy(update={"training": training}), out / f"{name}.safetensors")
        result = medmaskrcnn.segment(scan[name], out / f"{name}.safetensors", device="cpu", precision="fp32")
        medmaskrcnn.save_case(result, out / f"{name}_finds.npz")
        print(name, [round(float(s), 3) for s in result.candidates.scores], result.candidates.labels, result.kept)
    network, settings = read_model(out / "slices.safetensors")
    sees_all = {"detection": {"candidate_score": 0.0, "per_image": 2, "mask_threshold": 0.02}}
    changed = settings.model_dump(mode="json")
    changed["model"] |= sees_all
    changed["card"]["name"] = "sees all"
    of_everything = ModelFileSettings.model_validate(changed)
    again = build_model(of_everything.model)
    again.load_state_dict(network.state_dict())
    save_model(again, of_everything, out / "sees_all.safetensors")


# ------------------------------------------------------------------------------------------------------------- training


def write_plans(out: Path) -> None:
    """A plan in which every key has a value, and what a search may change of it."""
    every = {**PLANE, "augment": AUGMENT, "train": {**LOOP, "hours": 0.375}}
    out.write_text(plan_text(Plan.model_validate(every), {"train.clip": "A reason."}, head="Every key."))
    out.with_name("space.yaml").write_text(yaml.safe_dump(SEARCHED, sort_keys=False, default_flow_style=None))


def write_run(out: Path, pictures: Path) -> None:
    """A training that was broken off after 6 of 12 steps, and the weights that the unbroken one ends with."""
    plan = Plan.model_validate({**PLANE, "augment": AUGMENT, "train": LOOP})

    def stop(event: object) -> None:
        if isinstance(event, StepReport) and event.step == 6:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        train(pictures / "manifest.json", plan, out, workers=0, device="cpu", check=False, tell=stop)
    for name in ("tensorboard", "pictures", "cache"):  # names of this machine, pictures, what is made again
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "losses.png").unlink()
    unbroken = train(pictures / "manifest.json", plan, Path("unbroken"), workers=0, device="cpu", check=False)
    shutil.copy(unbroken.folder / "last.safetensors", out.with_name("unbroken.safetensors"))
    machine = {"torch": torch.__version__, "machine": platform.machine(), "processor": processor()}
    write_json(out.with_name("unbroken_machine.json"), machine)
    with (unbroken.folder / "losses.csv").open() as file:
        write_json(out.with_name("unbroken_losses.json"), [float(row["total"]) for row in csv.DictReader(file)])


def processor() -> dict[str, Any]:
    """What decides how sums are taken: the processor's features, not how many cores it has."""
    known = dict(torch.cpu.get_capabilities())
    return {name: known[name] for name in sorted(known) if not name.startswith("num_")}


def write_search(out: Path, pictures: Path, space: Path) -> None:
    """A search of two trainings of which one has ended."""
    plan = Path("search-plan.yaml")
    plan.write_text(plan_text(Plan.model_validate({**PLANE, "augment": AUGMENT, "train": LOOP})))
    shutil.copy(plan, space.with_name("search_plan.yaml"))
    words = ["--plan", str(plan), "--space", str(space), "--method", "random", "--steps", "2", "--workers", "0"]
    run_cli("tune", str(pictures / "manifest.json"), *words, "--device", "cpu", "--trials", "1", "-o", str(out))
    for name in ("trials", "cache", "trials.png"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------- batch


def write_archive(out: Path) -> None:
    """Four small phantoms as folders of DICOM."""
    for seed in range(4):
        settings = PhantomSettings(seed=seed, shape=(4, 24, 24), spacing_mm=(40.0, 15.0, 15.0), tumours=0)
        for file in write_dicom_series(make_phantom(settings), out / f"patient{seed}" / "ct"):
            dataset = dcmread(file)
            dataset.ConvolutionKernel = "B30f"
            dataset.save_as(file, enforce_file_format=True)
            os.utime(file, ns=(FILE_TIME_NS, FILE_TIME_NS))


def write_batch(out: Path, archive: Path, model: Path) -> None:
    """A batch: of four series one is done, one was in hand when the program was killed, one is queued, one unknown."""
    whole = Path("whole-batch")
    key = Path("key")
    key.write_text("0123456789abcdef" * 4)
    words = [str(archive), "--model", str(model), *BATCH_OPTIONS, "--key-file", str(key)]
    run_cli("batch", *words, "-o", str(whole))
    shutil.copytree(whole, out)
    (out / ".lock.sqlite").unlink(missing_ok=True)
    ledger = Ledger(out)
    _, killed, queued, unknown = ledger.entries()
    for entry in (killed, queued, unknown):
        shutil.rmtree(out / entry.folder.split("/")[0])
        ledger._do(
            "UPDATE series SET status = 'queued', attempts = 0, seconds = NULL, outcome = '{}' WHERE id = ?", entry.id
        )
    ledger.starts(killed.id)
    ledger._do("DELETE FROM series WHERE id = ?", unknown.id)
    ledger.close()
    (out / ".lock.sqlite").unlink(missing_ok=True)
    for name in ("summary.csv", "summary.html", "summary.json"):
        (out / name).unlink()
    found = out.with_name("batch_finds")
    for entry in (killed, queued, unknown):
        target = found / entry.folder
        target.mkdir(parents=True)
        for name in ("instances.npz", "instances.csv"):
            shutil.copy(whole / entry.folder / name, target / name)


# -------------------------------------------------------------------------------------------------------------- results


def write_reviewed(out: Path) -> None:
    """A result by hand: overlaps, candidates below the threshold, an empty mask, and what a person decided."""
    from medmaskrcnn.structures.grid import Grid
    from medmaskrcnn.structures.instances import Instances

    blocks: list[tuple[str, float, tuple[int, int, int], tuple[int, int, int]]] = [
        ("liver", 0.97, (1, 3, 4), (6, 14, 12)),
        ("tumour", 0.91, (2, 5, 6), (3, 4, 5)),  # lies in the liver
        ("tumour", 0.83, (3, 7, 9), (3, 5, 4)),  # overlaps both
        ("tumour", 0.62, (0, 0, 0), (0, 0, 0)),  # without a voxel
        ("tumour", 0.44, (5, 18, 3), (2, 3, 3)),  # below the threshold, but a person took it in
        ("liver", 0.39, (0, 15, 14), (2, 4, 4)),  # above its class's own threshold
        ("tumour", 0.12, (6, 1, 1), (1, 2, 2)),  # dropped
    ]
    affine = np.array([[0, 0.2, -1.25, 11.0], [0, -1.5, -0.1, 22.0], [2.5, 0, 0, -33.0], [0, 0, 0, 1]])
    masks = [np.ones(extent, bool) for *_, extent in blocks]
    masks[0][0, 0, :5] = masks[0][-1, -1, 3:] = False
    found = Instances(
        grid=Grid((8, 22, 20), affine),
        class_names=("liver", "tumour"),
        labels=np.array([("liver", "tumour").index(name) for name, *_ in blocks]),
        scores=np.array([score for _, score, *_ in blocks], np.float32),
        boxes=np.array([[*s, *np.add(s, e)] for *_, s, e in blocks], np.float32) + np.float32(0.25),
        mask_starts=np.array([start for *_, start, _ in blocks]),
        masks=tuple(masks),
    )
    sizes = tuple(
        Measurement("mm", 10.5 + i, 5.25 + i, 4.125 + i, (1.5 + i, -2.5, 3.5), 40.5 + i, -3.0, 99.0)
        if mask.size
        else Measurement("mm", 0.0, None, None, None, None, None, None)
        for i, mask in enumerate(masks)
    )
    record = medmaskrcnn.load_case(out.with_name("models") / "volume_finds.npz").record
    review = Review(accepted=(4,), rejected=(2,), changed=(1, 4), class_thresholds={"liver": 0.35})
    result = CaseResult(found, 0.5, sizes, replace(record, warnings=("A warning.",), out_of_domain=True), review=review)
    medmaskrcnn.save_case(result, out)
    assert result.kept == [0, 5, 1, 4], result.kept
    for suffix in (".csv", ".nii.gz"):
        run_cli("convert", str(out), str(out.with_name(f"reviewed{suffix}")))


def write_result(out: Path, scan: Path, model: Path) -> None:
    """``result.json`` and the schemas it and a batch's ``summary.json`` keep to."""
    run_cli("segment", str(scan), "--model", str(model), *("--device", "cpu", "--precision", "fp32"), "-o", "result")
    shutil.copy(Path("result") / "result.json", out / "result.json")
    for schema in ("export/result.schema.json", "batch/summary.schema.json"):
        shutil.copy(str(files("medmaskrcnn") / schema), out)


# ---------------------------------------------------------------------------------------------------------------- names


def write_names(out: Path) -> None:
    """Public names, the parameters of public functions, commands with their options, models and plans that ship."""
    public = [name for name in medmaskrcnn.__all__ if name != "__version__"]
    functions: dict[str, Callable[..., Any]] = {name: getattr(medmaskrcnn, name) for name in public}
    functions["batch"] = batch  # the package of that name, imported above, hides the function
    taken = {
        name: list(signature(one).parameters)
        for name, one in functions.items()
        if not (isinstance(one, type) and issubclass(one, Exception))
    }
    commands = {name: options_of(run_cli(name, "--help")) for name in commands_of(run_cli("--help")) if name != "pacs"}
    commands |= {
        f"pacs {name}": options_of(run_cli("pacs", name, "--help")) for name in commands_of(run_cli("pacs", "--help"))
    }
    from medmaskrcnn.training.plan import shipped_plans

    names = {
        "medmaskrcnn": list(medmaskrcnn.__all__),
        "medmaskrcnn_kernels": list(medmaskrcnn_kernels.__all__),
        "parameters": taken,
        "commands": commands,
        "models": sorted(medmaskrcnn.shipped_models()),
        "plans": sorted(shipped_plans()),
    }
    write_json(out, names)


def commands_of(text: str) -> list[str]:
    """Commands that a help lists."""
    lines = text.split("Commands:")[1].split("Examples:")[0].splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("   ")]


def options_of(text: str) -> list[str]:
    """Options that a command's help lists."""
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text.split("Options:")[1].split("Examples:")[0])))


def write_napari(out: Path) -> None:
    """The ids of the plugin's contributions, and the settings that a click on "Got it" leaves."""
    manifest = yaml.safe_load((files("napari_medmaskrcnn") / "napari.yaml").read_text())["contributions"]
    ids = {
        "commands": sorted(one["id"] for one in manifest["commands"]),
        "sample_data": sorted(one["key"] for one in manifest["sample_data"]),
        "writers": sorted([one["command"], *one["filename_extensions"]] for one in manifest["writers"]),
        "widgets": sorted([one["command"], one["display_name"]] for one in manifest["widgets"]),
        "readers": sorted([one["command"], *one["filename_patterns"]] for one in manifest["readers"]),
    }
    write_json(out / "napari.json", ids)
    program = """
from qtpy.QtWidgets import QApplication, QPushButton
app = QApplication([])
from napari.components import ViewerModel
from napari_medmaskrcnn.panel import MedMaskPanel
panel = MedMaskPanel(ViewerModel())
next(one for one in panel.findChildren(QPushButton) if one.text() == "Got it").click()
panel.close()
"""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "XDG_CONFIG_HOME": str(Path("config").resolve())}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    shutil.copy(Path("config") / "medmaskrcnn" / "napari.ini", out / "napari.ini")


def run_cli(*words: str) -> str:
    """Run the command line; what it printed."""
    command = [sys.executable, "-c", "from medmaskrcnn.cli.main import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}, check=False)
    if done.returncode:
        print(done.stdout, done.stderr)
        done.check_returncode()
    return done.stdout


def write_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Make all files in a new folder."""
    out = Path(sys.argv[1]).resolve()
    assert medmaskrcnn.__version__ == VERSION
    assert set(ModelFileSettings.model_fields) >= {"card", "model", "preprocess", "inference"}
    work = out.with_name(f"{out.name}-work")
    work.mkdir()
    out.mkdir()
    os.chdir(work)
    write_pictures(out / "pictures")
    write_manifest_of_every_field(out / "pictures")
    write_scan(out / "scan")
    write_models(out / "models", out / "pictures", out / "scan")
    write_plans(out / "plan.yaml")
    write_run(out / "run", out / "pictures")
    write_search(out / "search", out / "pictures", out / "space.yaml")
    (out / "rules.yaml").write_text(RULES)
    write_archive(out / "archive")
    write_batch(out / "batch", out / "archive", out / "models" / "sees_all.safetensors")
    write_reviewed(out / "reviewed.npz")
    write_result(out, out / "scan" / "scan.nii.gz", out / "models" / "volume.safetensors")
    write_names(out / "names.json")
    write_napari(out)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
