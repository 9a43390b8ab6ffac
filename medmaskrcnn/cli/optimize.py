"""``medmaskrcnn optimize``: of one model the fastest version that is about as good."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmaskrcnn.cli.console import echo, print_status
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.options import DOMAIN, LogOption, model_file, with_segment_options
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.cli.train_display import TrainDisplay, count_bar
from medmaskrcnn.settings import SegmentOptions

if TYPE_CHECKING:
    from medmaskrcnn.compression.search.run import Optimised
    from medmaskrcnn.compression.search.variant import VariantResult
    from medmaskrcnn.training.plan import Plan

EXAMPLES = (
    "medmaskrcnn optimize my.safetensors --for cpu --max-ap-loss 0.01 --data data/manifest.json -o fast.safetensors",
    "medmaskrcnn optimize my.safetensors --for cpu --data data/manifest.json --fine-tune 0 --threads 2",
    "medmaskrcnn optimize my.safetensors --for gpu --data data/manifest.json --plan my.yaml --fine-tune 3000",
)


class Target(StrEnum):
    """Where a model is to be fast."""

    CPU = "cpu"
    GPU = "gpu"


@with_segment_options(*DOMAIN)
def optimize_command(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model that ships (medmaskrcnn models), or a .safetensors file.")
    ],
    target: Annotated[Target, typer.Option("--for", help="Where it is to be fast: this machine's CPU or GPU.")],
    data: Annotated[Path, typer.Option(metavar="MANIFEST", help="Labelled scans, with the splits train and val.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The model file to write.", show_default="MODEL-fast"),
    ] = None,
    max_ap_loss: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="AP that may be lost against the original in fp32.")
    ] = 0.01,
    split: Annotated[str, typer.Option(metavar="val|test|...", help="Scans to measure speed and AP on.")] = "val",
    prune: Annotated[
        str, typer.Option(metavar="A,B", help="Shares of the channels to take away, each tried on its own.")
    ] = "0.25,0.5",
    fine_tune: Annotated[
        int, typer.Option(min=0, metavar="STEPS", help="Training after pruning; 0 leaves pruning out.")
    ] = 500,
    plan: Annotated[
        str | None,
        typer.Option(metavar="FILE_OR_NAME", help="How to train after pruning.", show_default="the planner's"),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Slices or tiles to take ranges from, for 8 bits.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw training samples.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the network, on the CPU.")] = None,
    options: SegmentOptions,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no table.")] = False,
    log: LogOption = None,
) -> None:
    """Try engines, precisions, 8 bits, fewer proposals and fewer channels; write the fastest that is good enough.

    Speed is the median over pairs of runs, the original and the variant in turn, of scans in memory. AP is COCO's, on
    the same split. FILE carries the choice: "segment --model FILE" runs it as it was measured here.

    Beside FILE the folder FILE-search holds variants.csv, pareto.png and the files of the variants. The same command
    goes on where it was broken off. Look at the test split with "evaluate" before you rely on what was chosen.
    """
    with logging_to(log, hidden=[data]), failing_as_one(str(data)):
        file = model_file(model)
        target_file = out or Path(f"{file.stem}-fast.safetensors")
        try:
            shares = tuple(float(part) for part in prune.split(",") if part.strip())
        except ValueError as error:
            raise typer.BadParameter(f"numbers with commas, got {prune!r}", param_hint="--prune") from error
        found = _optimise(
            file, data, target_file, target=target.value, max_ap_loss=max_ap_loss, split=split, shares=shares,
            fine_tune=fine_tune, plan=plan, images=images, workers=workers, threads=threads,
            options=options, shown=not quiet,
        )  # fmt: skip
        if not quiet:
            print_variants(found)
        echo(f"chosen: {found.chosen.variant.name}, {found.chosen.times:.2f} times as fast")
        echo(f"wrote {found.file}")


def print_variants(found: Optimised) -> None:
    """A row for each variant, the fastest first; those that failed last, with their reasons."""
    original = found.outcomes[0]
    rows = [
        [
            "chosen" if o is found.chosen else "",
            o.variant.name,
            _number(o.seconds, ".3f"),
            _number(o.times, ".2f"),
            _number(o.ap, ".4f"),
            _number(o.loss(original), "+.4f"),
            o.error,
        ]
        for o in sorted(found.outcomes, key=lambda o: -(o.times or 0.0))
    ]
    header = ["", "variant", "s a case", "times as fast", "AP", "AP lost", "error"]
    print_table(f"{len(rows)} variants", header, rows, numbers=header[2:6])
    for note in found.notes:
        echo(f"not tried: {note}")
    echo(f"tables and plot in {found.folder}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _optimise(
    file: Path, data: Path, out: Path, *, plan: str | None, threads: int | None, shown: bool, **settings: Any
) -> Optimised:
    import torch

    from medmaskrcnn.compression.search.bench import Listener
    from medmaskrcnn.compression.search.run import optimize
    from medmaskrcnn.data.manifest import read_manifest
    from medmaskrcnn.training.plan import LoopSettings, read_plan

    if threads is not None:
        torch.set_num_threads(threads)
    used: Plan | None = None if plan is None else read_plan(plan)
    manifest = read_manifest(data)
    # One bar at a time can be drawn: fine-tuning tells lines only, between two evaluations.
    display = TrainDisplay(LoopSettings(steps=max(1, settings["fine_tune"])), shown=shown)
    display.drawn = False
    with count_bar("evaluate", shown=shown) as progress:
        on_event = Listener(
            trying=(lambda variant: print_status("note", f"trying {variant.name}")) if shown else lambda variant: None,
            ended=_tell_outcome if shown else lambda outcome: None,
            cases=progress,
            training=display,
        )
        try:
            return optimize(file, manifest, out, plan=used, on_event=on_event, **settings)
        except ValueError as error:  # a split or device that is not there
            raise typer.BadParameter(str(error)) from error


def _tell_outcome(outcome: VariantResult) -> None:
    if outcome.error:
        print_status("warning", f"{outcome.variant.name} failed: {outcome.error}")
    else:
        print_status("note", f"{outcome.variant.name}: {outcome.times:.2f} times as fast, AP {outcome.ap:.4f}")
