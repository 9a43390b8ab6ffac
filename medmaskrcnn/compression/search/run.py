"""Finds the fastest variant of a model within an allowed AP loss: try, measure, choose, write.

    model file -> variants (engine, precision, proposals, pruned) -> speed and AP of each -> the chosen model file

The chosen file stores how it is to be run, so that ``segment --model FILE`` needs no further option.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medmaskrcnn.compression.prune import is_prunable
from medmaskrcnn.compression.search.bench import Bench, Listener
from medmaskrcnn.compression.search.candidates import runtimes, search
from medmaskrcnn.compression.search.chosen import processor, write_chosen
from medmaskrcnn.compression.search.forms import Forms
from medmaskrcnn.compression.search.report import PLOT, TABLE, Measured, draw_trade_offs, write_table
from medmaskrcnn.compression.search.variant import VariantResult, allowed
from medmaskrcnn.data.case_labels import read_image
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.evaluation.evaluate import choose_cases
from medmaskrcnn.hub.model_file import model_sha256, read_model, resolve_model
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.training.plan import Plan, plan_text

DEVICES = {"cpu": "cpu", "gpu": "cuda"}
"""Where the model is to run, by the user's name for it."""

PRUNED_SHARES = (0.25, 0.5)
FINE_TUNE_STEPS = 500
_TIMED_CASES = 5


@dataclass(frozen=True)
class Optimised:
    """The outcome of a search.

    Attributes:
        file: The chosen model's file.
        folder: Folder with tables, plot and the files of the variants.
        outcomes: Outcomes of all variants, the original first.
        chosen: The variant that was written.
        notes: What was not tried, and why.
    """

    file: Path
    folder: Path
    outcomes: tuple[VariantResult, ...]
    chosen: VariantResult
    notes: tuple[str, ...]


def optimize(
    model: str | os.PathLike[str],
    manifest: str | os.PathLike[str] | Manifest,
    out: str | os.PathLike[str],
    *,
    target: str = "cpu",
    max_ap_loss: float = 0.01,
    split: str = "val",
    shares: Sequence[float] = PRUNED_SHARES,
    fine_tune: int = FINE_TUNE_STEPS,
    plan: Plan | None = None,
    images: int = 64,
    workers: int = 1,
    options: SegmentOptions = AS_THE_MODEL_SAYS,
    on_event: Listener | None = None,
) -> Optimised:
    """Find the fastest variant of a model that loses at most ``max_ap_loss`` AP, and write it.

    Args:
        model: Name of a shipped model, or a model file.
        manifest: Labelled cases; speed and AP are measured on ``split``, quantisation and fine-tuning use ``train``.
        out: The model file to write. A folder beside it, with the suffix ``-search``, keeps the measurements; the same
            call resumes there after an interruption.
        target: ``cpu`` or ``gpu``; this machine must have it.
        max_ap_loss: AP that may be lost against the original in float32, 0..1.
        split: Split of the manifest to measure on.
        shares: Shares of the channels to prune, each tried on its own; an empty sequence skips pruning.
        fine_tune: Training steps after pruning; 0 skips pruning.
        plan: How to fine-tune; the planner's by default.
        images: Number of slices or tiles to calibrate 8-bit forms on.
        workers: Processes that draw training samples.
        options: How scans are segmented; only whether to run on scans that the model refuses matters here.
        on_event: Callbacks that report progress.

    Raises:
        ReadError: if the manifest cannot be read.
        ModelFileError: if the model cannot be read.
        OutputError: if a file cannot be written, or the folder holds another search.
        MedMaskRCNNError: if the original itself cannot be run on the cases.
        ValueError: if a number is out of range, or there is no such target, device or split.

    Example:
        >>> found = optimize("my.safetensors", "data/manifest.json", "fast.safetensors")  # doctest: +SKIP
        >>> found.chosen.times  # doctest: +SKIP
        3.4
    """
    _check(target, max_ap_loss, shares)
    file, source = Path(out), resolve_model(model)
    labelled = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    volumes = _volumes_to_time(labelled, split)
    folder = file.with_name(f"{file.stem}-search")
    conditions = {
        "model": model_sha256(source),
        "data": [labelled.name, [case.id for case in labelled.cases], split],
        "machine": [target, processor(), torch.get_num_threads()],
        "steps": fine_tune,
        "plan": None if plan is None else plan_text(plan),
        "images": images,
        "out of domain": options.allow_out_of_domain,
    }
    measured = Measured(folder, conditions)
    first, notes = runtimes(target)
    network, settings = read_model(source)
    why_not = is_prunable(network) if shares and fine_tune else "left out as you wish"
    if why_not:
        notes.append(f"pruning: {why_not}")
    events = on_event or Listener()
    forms = Forms(
        source, labelled, folder, fine_tune, plan, images, DEVICES[target], workers=workers, on_event=events.training
    )
    bench = Bench(forms, split, volumes, measured, events, options)
    proposals = settings.inference.post_nms_top_n_test or settings.model.rpn.post_nms_top_n
    search(first, proposals, () if why_not else shares, max_ap_loss, bench.outcome)
    outcomes = list(bench.seen.values())
    chosen = allowed(outcomes, max_ap_loss)[0]
    write_table(outcomes, folder / TABLE)
    draw_trade_offs(outcomes, max_ap_loss, chosen, folder / PLOT)
    write_chosen(chosen, outcomes[0], forms, file, f"{labelled.name}, {split}")
    return Optimised(file, folder, tuple(outcomes), chosen, tuple(notes))


def _check(target: str, max_ap_loss: float, shares: Sequence[float]) -> None:
    if target not in DEVICES:
        raise ValueError(f"target must be cpu or gpu, got {target!r}")
    if not 0 <= max_ap_loss <= 1:
        raise ValueError(f"max_ap_loss must lie in 0..1, got {max_ap_loss}")
    if any(not 0 < share < 1 for share in shares):
        raise ValueError(f"shares of channels must lie between 0 and 1, got {list(shares)}")


def _volumes_to_time(manifest: Manifest, split: str) -> list[Volume]:
    """A few scans of a split, evenly spaced from first to last."""
    cases = choose_cases(manifest, split, None)
    return [read_image(manifest, case) for case in cases[:: max(1, len(cases) // _TIMED_CASES)][:_TIMED_CASES]]
