"""nnU-Net v2 on the training cases of a data set of ours, for a budget of its training clock, then on the test cases.

    SPLIT=benchmarks/splits/abdomen-ct.json
    python benchmarks/beside_nnunet.py prepare DATA/AbdomenCT runs/nnunet/abdomen-ct --split $SPLIT
    python benchmarks/beside_nnunet.py train runs/nnunet/abdomen-ct --hours 3
    python benchmarks/beside_nnunet.py predict runs/nnunet/abdomen-ct

Runs in a virtual environment with ``nnunetv2`` (2.8 was tried) and ``psutil``, which need not hold medmaskrcnn.
``prepare`` reads a data set in the layout of the Medical Segmentation Decathlon, plans and preprocesses. ``train`` runs
``3d_fullres`` on all training cases (``fold_all``) and may be stopped and repeated at any time: it continues from the
last epoch. ``predict`` writes a label map for each test case into ``predictions``; ``medmaskrcnn evaluate`` measures
them.

The clock counts the processor time of training, data loading included, divided by the number of cores: three hours are
three hours of the whole machine, whatever else runs on it. What is nnU-Net's own stays so, save that

- an epoch has 25 steps instead of 250, since a CPU makes few of them and its learning rate falls once an epoch;
- the number of epochs is what the budget holds, measured after the first epoch, so that its schedule ends inside it;
- axes are not mirrored where names of classes have sides (``--mirror`` mirrors them).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

DATASET, MODEL = "Dataset001_ours", "nnUNetTrainer__nnUNetPlans__3d_fullres"
EPOCH_STEPS, EPOCH_VAL_STEPS = 25, 2


def set_folders(work: Path) -> None:
    """nnU-Net takes its folders from the environment, on import."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(work / name)
    os.environ.setdefault("nnUNet_n_proc_DA", "1")
    os.environ["nnUNet_compile"] = "f"  # noqa: SIM112


def prepare(data: Path, work: Path, split: Path, only: Path | None) -> None:
    """Link the cases as nnU-Net names them, plan and preprocess."""
    set_folders(work)
    dataset = json.loads((data / "dataset.json").read_text())
    held_out = json.loads(split.read_text())
    allowed = set(only.read_text().split()) if only else None
    raw = work / "raw" / DATASET
    cases: dict[str, list[str]] = {"training": [], "test": []}
    for entry in dataset["training"]:
        image, label = data / entry["image"], data / entry["label"]
        case = image.name.removesuffix(".nii.gz")
        is_test = case in held_out["test"]
        if allowed is not None and case not in allowed and not is_test:
            continue
        cases["test" if is_test else "training"].append(case)
        for file, folder, name in (
            (image, "imagesTs" if is_test else "imagesTr", f"{case}_0000.nii.gz"),
            (label, "labelsTs" if is_test else "labelsTr", f"{case}.nii.gz"),
        ):
            (raw / folder).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, raw / folder / name)
    description = {
        "channel_names": dataset["modality"],
        "labels": {name: int(value) for value, name in dataset["labels"].items()},
        "numTraining": len(cases["training"]),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description, indent=1))
    (work / "cases.json").write_text(json.dumps(cases, indent=1))

    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    preprocess([1], configurations=("3d_fullres",), num_processes=(1,))


def processor_seconds() -> float:
    """User and system time of this process and of its workers, in seconds."""
    import psutil

    this = psutil.Process()
    return sum(times.user + times.system for times in (p.cpu_times() for p in (this, *this.children(recursive=True))))


def train(work: Path, hours: float, mirror: bool) -> None:
    """Train, or go on, until the schedule ends."""
    set_folders(work)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Trainer(nnUNetTrainer):  # type: ignore[misc]
        """nnU-Net's trainer with a budget."""

        def __init__(self, plans: Any, configuration: Any, fold: Any, dataset_json: Any, device: Any) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = EPOCH_STEPS, EPOCH_VAL_STEPS
            self.save_every = 1
            self.clock_file = work / "clock.json"
            self.clock = json.loads(self.clock_file.read_text()) if self.clock_file.exists() else {"hours": 0.0}
            self.num_epochs = self.clock.get("num_epochs", self.num_epochs)
            self.began = processor_seconds()

        def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
            rotation, dummy_2d, patch_size, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            if not mirror:
                axes = self.inference_allowed_mirroring_axes = None
            return rotation, dummy_2d, patch_size, axes

        def on_epoch_end(self) -> None:
            now = processor_seconds()
            self.clock["hours"] += (now - self.began) / 3600 / (os.cpu_count() or 1)
            self.began = now
            if "num_epochs" not in self.clock:
                self.clock["num_epochs"] = self.num_epochs = max(2, int(hours / self.clock["hours"]))
                self.lr_scheduler.max_steps = self.num_epochs
            self.clock["epochs"] = self.current_epoch + 1
            super().on_epoch_end()  # writes the checkpoint, by which the run goes on
            self.clock_file.write_text(json.dumps(self.clock))
            print(time.strftime("%H:%M"), json.dumps(self.clock), flush=True)

    Trainer.__name__ = nnUNetTrainer.__name__  # what the checkpoint says, and by which prediction finds the network
    preprocessed = work / "preprocessed" / DATASET
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    latest = work / "results" / DATASET / MODEL / "fold_all" / "checkpoint_latest.pth"
    final = latest.with_name("checkpoint_final.pth")
    if final.exists():
        print("trained already")
        return
    plans["continue_training"] = latest.exists()
    description = json.loads((preprocessed / "dataset.json").read_text())
    trainer = Trainer(plans, "3d_fullres", "all", description, torch.device("cpu"))
    if latest.exists():
        trainer.load_checkpoint(str(latest))
    trainer.run_training()


def predict(work: Path) -> None:
    """Segment the test cases."""
    set_folders(work)
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
    model = work / "results" / DATASET / MODEL
    predictor.initialize_from_trained_model_folder(str(model), ("all",), "checkpoint_final.pth")
    predictor.predict_from_files_sequential(
        str(work / "raw" / DATASET / "imagesTs"), str(work / "predictions"), save_probabilities=False
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="link the cases, plan and preprocess")
    command.add_argument("data", type=Path, help="data set in the Decathlon's layout")
    command.add_argument("work", type=Path)
    command.add_argument("--split", type=Path, required=True, help="JSON with the test cases")
    command.add_argument("--only", type=Path, help="text file that names the training cases, where not all are wanted")
    command = commands.add_parser("train", help="train, or continue")
    command.add_argument("work", type=Path)
    command.add_argument("--hours", type=float, default=3.0, help="training clock (default 3)")
    command.add_argument("--mirror", action="store_true", help="mirror axes, as nnU-Net does by itself")
    command = commands.add_parser("predict", help="segment the test cases")
    command.add_argument("work", type=Path)
    options = vars(parser.parse_args())
    work = options.pop("work").resolve()
    match options.pop("command"):
        case "prepare":
            prepare(work=work, **options)
        case "train":
            train(work, **options)
        case _:
            predict(work)


if __name__ == "__main__":
    main()
