"""``medmaskrcnn tune``: many short trainings in search of a better plan."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmaskrcnn.cli.console import echo, print_status
from medmaskrcnn.cli.failures import EXIT_FAILED, failing_as_one, logging_to
from medmaskrcnn.cli.labelled_data import labelled_manifest
from medmaskrcnn.cli.options import TrainDeviceOption
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.cli.train_display import TrainDisplay, count_bar

if TYPE_CHECKING:
    from medmaskrcnn.data.manifest import Manifest
    from medmaskrcnn.training.plan import Plan
    from medmaskrcnn.training.tune.search import SearchResult
    from medmaskrcnn.training.tune.table import Trial

EXAMPLES = (
    "medmaskrcnn tune data/manifest.json --plan my.yaml --space space.yaml --trials 30 --steps 500 -o search",
    "medmaskrcnn tune data/manifest.json --plan my.yaml --space space.yaml --method grid -o search",
    "medmaskrcnn train data/manifest.json --plan search/best.yaml -o run",
)


class SearchMethod(StrEnum):
    """How values are chosen."""

    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"


def tune_command(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A manifest.json, or labelled data: MSD, nnU-Net, COCO, folders, DICOM."),
    ],
    plan: Annotated[str, typer.Option(metavar="FILE_OR_NAME", help="Where the search starts from: a plan (YAML).")],
    space: Annotated[
        Path, typer.Option(metavar="FILE", help="What may change (YAML): dotted paths with choices or ranges.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder of the search.")] = Path("search"),
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all, those of earlier calls included.")] = 20,
    method: Annotated[SearchMethod, typer.Option(help="Every combination, at random, or where it was good.")] = (
        SearchMethod.TPE
    ),
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each training.", show_default="the plan's")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    splits: Annotated[str, typer.Option(metavar="A,B", help="Splits to learn from.")] = "train",
    fold: Annotated[int | None, typer.Option(min=0, help="Validate on this fold, learn from the others.")] = None,
    device: TrainDeviceOption = "auto",
    start_from: Annotated[str | None, typer.Option(metavar="MODEL", help="First weights of each training.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw samples.")] = 2,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the network, on the CPU.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No tables, no progress.")] = False,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write details here, for bug reports.")] = None,
) -> None:
    """Train many times with other values of a plan, and keep those that score best on the validation cases.

    The file given to --space has a line for each value that may change, by its dotted path in the plan:
    "train.learning_rate: {low: 0.0003, high: 0.003, log: true}", or "model.roi.batch_per_image: [32, 64, 128]".

    OUT then holds trials.csv, trials.png, best.yaml and each training. The same command goes on where a search was
    broken off. A training that fails is told and does not end the search.
    """
    with logging_to(log), failing_as_one(str(data)):
        if threads is not None:
            _use_threads(threads)
        manifest = _manifest(data, out, shown=not quiet)
        options = {"splits": splits.split(","), "fold": fold, "device": device, "start_from": start_from}
        result = _search(
            manifest, plan, space, out, steps=steps, workers=workers, shown=not quiet,
            options=options, trials=trials, method=method.value, seed=seed,
        )  # fmt: skip
        if not quiet:
            print_trials(result)
        if result.best is None:
            print_status("error", f"no trial of {len(result.trials)} gave a score; see {out / 'trials.csv'}")
            raise typer.Exit(EXIT_FAILED)
        echo(f"best: {result.best.score:.4f} (trial {result.best.number})")
        echo(f"wrote {out / 'best.yaml'}")


def print_trials(result: SearchResult) -> None:
    """The trials, best first; those that failed last, with their reasons."""
    from medmaskrcnn.training.tune.table import value_text

    paths: Sequence[str] = tuple(result.trials[0].values) if result.trials else ()
    ranked = sorted(result.trials, key=lambda one: (one.score is None, -(one.score or 0.0), one.number))
    rows = [
        [
            str(one.number),
            "failed" if one.score is None else f"{one.score:.4f}",
            *(value_text(one.values[path]) for path in paths),
            f"{one.seconds:.0f}",
            one.error,
        ]
        for one in ranked
    ]
    numbers = ("trial", "score", "seconds")
    print_table(f"{len(rows)} trials", ["trial", "score", *paths, "seconds", "error"], rows, numbers=numbers)


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _manifest(data: Path, out: Path, *, shown: bool) -> Manifest:
    from medmaskrcnn.data.check import check_manifest

    manifest = labelled_manifest([data], out, shown=shown)
    with count_bar("check", shown=shown) as progress:
        check_manifest(manifest, progress=progress).raise_if_bad()
    return manifest


def _search(
    manifest: Manifest,
    plan: str,
    space: Path,
    out: Path,
    *,
    steps: int | None,
    workers: int,
    shown: bool,
    options: dict[str, Any],
    **how: Any,
) -> SearchResult:
    from medmaskrcnn.training.plan import read_plan
    from medmaskrcnn.training.tune.search import search
    from medmaskrcnn.training.tune.space import read_space
    from medmaskrcnn.training.tune.trial import training_objective

    first = read_plan(plan)
    searched = read_space(space, first)
    with TrainDisplay(first.train.of_length(steps=steps or first.train.steps), shown=shown) as display:
        objective = training_objective(
            manifest, first, searched, out, steps=steps, workers=workers, on_event=display, **options
        )

        def starting(number: int, candidate: Plan) -> None:
            display.losses.clear()  # of the training before
            print_status("note", f"trial {number} begins")

        def ended(trial: Trial) -> None:
            if trial.error:
                print_status("warning", f"trial {trial.number} failed: {trial.error}")
            else:
                print_status("note", f"trial {trial.number}: {trial.score:.4f}")

        return search(
            first,
            searched,
            objective,
            out,
            conditions={
                "data": manifest.name,
                "steps": str(steps),
                **{k: str(options[k]) for k in ("splits", "fold", "start_from")},
            },
            starting=starting if shown else lambda number, candidate: None,
            on_event=ended if shown else lambda trial: None,
            **how,
        )
