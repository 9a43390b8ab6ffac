"""``python -m medmaskrcnn.training RECIPE MANIFEST -o MODEL``: makes the models that ship."""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from medmaskrcnn.config import ModelFileSettings
from medmaskrcnn.models.model_file import read_model, resolve_model
from medmaskrcnn.training.cases import LabelledCase, load_case_for_training
from medmaskrcnn.training.loop import train
from medmaskrcnn.training.manifest import Manifest, ManifestCase, read_manifest
from medmaskrcnn.training.recipes import RECIPES


def _load(case: ManifestCase, *, manifest: Manifest, settings: ModelFileSettings) -> LabelledCase:
    torch.set_num_threads(1)
    return load_case_for_training(manifest, case, settings.preprocess, class_names=settings.model.class_names)


def main(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(RECIPES)}.")],
    manifest_path: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest.json of labelled cases.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Model file to write.")],
    runs: Annotated[Path, typer.Option(help="Folder of checkpoints and logs; training resumes there.")] = Path("runs"),
    splits: Annotated[str, typer.Option(help="Splits of the manifest to train on, by commas.")] = "train",
    steps: Annotated[int | None, typer.Option(help="Instead of the recipe's number of steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's peak.")] = None,
    start_from: Annotated[str | None, typer.Option(help="Model whose weights are the first ones.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the network.")] = 2,
    workers: Annotated[int, typer.Option(help="Processes that read and draw samples.")] = 1,
) -> None:
    """Train the model of a recipe on the cases of a manifest.

    Example: python -m medmaskrcnn.training phantom-ct phantoms/manifest.json -o phantom-ct.safetensors
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if recipe not in RECIPES:
        raise typer.BadParameter(f"unknown recipe {recipe!r}; there are: {', '.join(RECIPES)}")
    settings, augment, loop = RECIPES[recipe]()
    if steps is not None:
        loop = loop.model_copy(update={"steps": steps})
    if learning_rate is not None:
        loop = loop.model_copy(update={"learning_rate": learning_rate})
    manifest = read_manifest(manifest_path)
    wanted = [case for case in manifest.cases if (case.split or "train") in splits.split(",")]
    missing = sorted(set(settings.model.class_names) - set(manifest.class_names))
    if missing:
        raise typer.BadParameter(f"{manifest_path} has no class {', '.join(missing)}, which {recipe} learns")
    if not wanted:
        raise typer.BadParameter(f"{manifest_path} has no case in the splits {splits!r}")
    read = partial(_load, manifest=manifest, settings=settings)
    with ProcessPoolExecutor(max(1, workers)) as pool:
        cases = list(pool.map(read, wanted))
    torch.set_num_threads(threads)
    first = read_model(resolve_model(start_from))[0] if start_from else None
    folder = runs / out.stem
    train(cases, settings, augment, loop, out, checkpoint_folder=folder, workers=workers, start_from=first)
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
