"""``medmaskrcnn train``: from labelled cases to a model file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmaskrcnn.cli.console import echo, print_status
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.labelled_data import (
    ClassNameOption,
    IgnoreOption,
    LabelOption,
    NewNameOption,
    PatientOption,
    RuleOption,
    WithinOption,
    label_options,
    labelled_manifest,
)
from medmaskrcnn.cli.options import TrainDeviceOption
from medmaskrcnn.cli.train_display import TrainDisplay, count_bar
from medmaskrcnn.errors import InvalidOptionError

if TYPE_CHECKING:
    from medmaskrcnn.data.check import ManifestReport
    from medmaskrcnn.data.manifest import Manifest
    from medmaskrcnn.training.plan import Plan
    from medmaskrcnn.training.training_run import TrainingRecord

EXAMPLES = (
    "medmaskrcnn train data/manifest.json -o run",
    "medmaskrcnn train Task04_Hippocampus/ -o run --hours 1.5",
    "medmaskrcnn train data/manifest.json --check",
    "medmaskrcnn train Task03_Liver/ -o run --rule tumour=components --rule liver=whole --within tumour=liver",
    "medmaskrcnn train AbdomenCT/ LungCT/ HeadNeckCT/ -o run --rename esophagus=oesophagus",
    "medmaskrcnn train nodules/ -o run --ignore 255 --class-name nodule --patient '^(lidc_[0-9]+)_'",
    "medmaskrcnn train data/manifest.json --plan-only my.yaml",
    "medmaskrcnn train data/manifest.json -o run --plan my.yaml --start-from abdomen-mr",
    "medmaskrcnn train data/manifest.json -o run --resume",
    "medmaskrcnn train data/manifest.json -o run --folds 5 --hours 10",
    "torchrun --nproc-per-node 2 --no-python medmaskrcnn train data/manifest.json -o run --plan my.yaml --batch 2",
)

_SELDOM = "Less often needed"
_WORKERS_HELP = "Processes of one thread each that prepare cases and draw samples: --workers 4 beside a GPU."
_HOURS_HELP = (
    "Train for this time in place of steps, check, preparation and validation included: --hours 0.25 ends within a "
    "quarter of an hour. With --resume it is what the commands take in all, each up to its last checkpoint."
)


class Dims(StrEnum):
    """Dimensions of a network."""

    TWO = "2"
    TWO_AND_A_HALF = "2.5"
    THREE = "3"


def train_command(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="A manifest.json, or labelled data: MSD, nnU-Net, COCO, folders, DICOM. Of several sets with other "
            "classes one model learns all; a case counts only for the classes of its own set.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run.")] = Path("run"),
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_NAME",
            help="A plan (YAML), or that of a model that ships.",
            show_default="made from the data",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the data, print what was found, and stop.")] = False,
    plan_only: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan with its reasons to FILE, and stop.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where RUN was broken off.")] = False,
    start_from: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="First weights: a model, its file, torchvision's or MedicalNet's weights."),
    ] = None,
    hours: Annotated[float | None, typer.Option(min=0.001, help=_HOURS_HELP)] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps, in place of the plan's: --steps 2000.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples a step, in place of the plan's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, in place of the plan's.")] = None,
    splits: Annotated[str, typer.Option(metavar="A,B", help="Splits to learn from.")] = "train",
    fold: Annotated[
        str | None,
        typer.Option(metavar="N|all", help="Validate on this fold, learn from the others; 'all': each in turn."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Train so many networks, each on all folds but one, into one model that averages them; --hours is for "
            "all together. Folds are the manifest's, else patients are dealt.",
            show_default="none",
        ),
    ] = None,
    device: TrainDeviceOption = "auto",
    rule: RuleOption = None,
    within: WithinOption = None,
    ignore: IgnoreOption = None,
    rename: NewNameOption = None,
    label: LabelOption = None,
    class_name: ClassNameOption = "object",
    patient: PatientOption = "",
    dims: Annotated[
        Dims | None, typer.Option(help="Of the planned network.", show_default="by the data", rich_help_panel=_SELDOM)
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            metavar="GB", help="Memory that a step may take, to plan for.", show_default="8", rich_help_panel=_SELDOM
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help=_WORKERS_HELP, rich_help_panel=_SELDOM)] = 2,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of the network, on the CPU.", show_default="cores without workers", rich_help_panel=_SELDOM
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases that runs share.", rich_help_panel=_SELDOM)
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT",
            help="Show losses and scores in Weights & Biases too: --wandb livers. WANDB_MODE=offline sends nothing.",
            rich_help_panel=_SELDOM,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No tables, no progress.")] = False,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write details here, for bug reports.")] = None,
) -> None:
    """Train a model on labelled scans: check the data, plan, learn, validate, keep the best model.

    RUN then holds plan.yaml, losses and scores (losses.csv, validation.csv, losses.png, TensorBoard's events), pictures
    of the validation cases, a checkpoint, and the models best.safetensors and last.safetensors.
    """
    began = time.monotonic()
    crossed = folds is not None or fold == "all"
    number = None if crossed else _fold(fold)
    leads = os.environ.get("RANK", "0") == "0"  # torchrun starts this once for each process: one of them speaks
    quiet = quiet or not leads
    with logging_to(log), failing_as_one(", ".join(map(str, data))):
        said = label_options(rule, within, ignore, rename, label, class_name, patient)
        manifest = labelled_manifest(data, out, said, shown=not quiet)
        looked_through = resume or (plan is not None and not leads)
        report = None if looked_through else _checked(manifest, table=check or not quiet, shown=not quiet)
        if check:
            return
        given = str(out / "plan.yaml") if resume and plan is None else plan
        changes = {"hours": hours, "steps": steps, "batch": batch, "seed": seed}
        chosen, text = _plan(manifest, report, given, changes, dims=dims, memory=memory)
        if plan_only is not None:
            _write(plan_only, text)
            return
        options: dict[str, Any] = {"device": device, "began": began, "wandb": wandb}
        options |= {"start_from": start_from, "resume": resume, "workers": workers, "cache": cache, "plan_yaml": text}
        if crossed:
            record = _train_folds(manifest, chosen, out, threads, folds=folds, shown=not quiet, **options)
        else:
            options |= {"splits": splits.split(","), "fold": number}
            record = _train(manifest, chosen, out, threads, shown=not quiet, **options)
        if leads:
            if record.best is not None:
                echo(f"best: {record.best[0]:.3f} (mask AP, mean of IoU 0.5 and 0.75) at step {record.best[1]}")
            echo(f"wrote {record.model}")


def _checked(manifest: Manifest, *, table: bool, shown: bool) -> ManifestReport:
    """What the check found, told; bad cases end the command."""
    from medmaskrcnn.cli.check_table import print_report
    from medmaskrcnn.data.check import check_manifest

    with count_bar("check", shown=shown) as progress:
        report = check_manifest(manifest, progress=progress)
    if table:
        print_report(report)
    report.raise_if_bad()
    return report


def _plan(
    manifest: Manifest,
    report: ManifestReport | None,
    given: str | None,
    changes: dict[str, Any],
    *,
    dims: Dims | None,
    memory: float | None,
) -> tuple[Plan, str]:
    """The plan given, or one made from the data, with what the command line changes in it; and as YAML."""
    from medmaskrcnn.training.plan import parse_plan, plan_text, read_plan

    reasons: dict[str, str] = {}
    if given is not None:
        plan = read_plan(given)
    else:
        from medmaskrcnn.training.planner.planner import make_plan

        assert report is not None
        plan, reasons = make_plan(manifest, report.case_fingerprints, memory_gb=memory, dims=dims)
    changed = {key: value for key, value in changes.items() if value is not None}
    reasons |= {f"train.{key}": "from the command line" for key in changed}
    values = plan.model_dump(mode="json")
    loop = plan.train.of_length(steps=changes["steps"], hours=changes["hours"])
    values["train"] = loop.model_dump(mode="json") | changed
    plan = parse_plan(json.dumps(values), "the plan with what the command line changes")
    head = f"Plan for {manifest.name}. Change any value and pass it back with --plan."
    return plan, plan_text(plan, reasons, head=head)


def _write(path: Path, text: str) -> None:
    from medmaskrcnn.system.files import write_bytes

    write_bytes(path, text.encode())
    echo(f"wrote {path}")


def _fold(text: str | None) -> int | None:
    """The number of a fold."""
    if text is None or text.isdigit():
        return None if text is None else int(text)
    raise typer.BadParameter(f"a fold is a number from 0, or 'all', got {text!r}", param_hint="--fold")


def _train_folds(
    manifest: Manifest, plan: Plan, out: Path, threads: int | None, *, folds: int | None, shown: bool, **options: Any
) -> TrainingRecord:
    """Train each fold behind a display of its own, and tell what the joined model costs."""
    from medmaskrcnn.training.folds import train_folds

    with ExitStack() as display, _plan_may_be_wrong(threads, options["workers"]):
        listener: list[TrainDisplay] = []

        def on_fold(done: int, total: int) -> None:
            display.close()
            if shown:
                print_status("note", f"fold {done + 1} of {total}")
            hours = plan.train.hours and plan.train.hours / total
            own = plan.train.model_copy(update={"hours": hours})
            listener[:] = [display.enter_context(TrainDisplay(own, shown=shown))]

        record = train_folds(
            manifest,
            plan,
            out,
            folds=folds,
            on_event=lambda event: listener[0](event),
            on_fold=on_fold,
            **options,
        )
    if shown:
        megabytes = record.model.stat().st_size / 1e6
        echo(f"the model averages the networks of all folds: {megabytes:.1f} MB, and as many times the time of one")
    return record


def _train(
    manifest: Manifest, plan: Plan, out: Path, threads: int | None, *, shown: bool, **options: Any
) -> TrainingRecord:
    from medmaskrcnn.training.run import train

    with _plan_may_be_wrong(threads, options["workers"]), TrainDisplay(plan.train, shown=shown) as display:
        return train(manifest, plan, out, check=False, on_event=display, **options)


@contextmanager
def _plan_may_be_wrong(threads: int | None, workers: int) -> Iterator[None]:
    """Train in so many threads; a device that is not there, or a value of the plan, is wrong use."""
    import torch

    from medmaskrcnn.system.threads import threads_beside

    torch.set_num_threads(threads or min(torch.get_num_threads(), threads_beside(workers)))
    try:
        yield
    except InvalidOptionError as error:
        if error.option == "device":
            raise typer.BadParameter(str(error), param_hint="--device") from error
        how = "To change it: medmaskrcnn train DATA --plan-only my.yaml, edit my.yaml, and train with --plan my.yaml"
        raise typer.BadParameter(f"{error}. {how}", param_hint="--plan") from error
