"""From the fingerprints of labelled cases to a training plan, with a reason for every decision.

    case fingerprints -> dataset fingerprint (network's axes) -> grid -> intensity -> network -> patch -> learning

Only training cases are used. The rules and their constants are in the modules of this package; they were chosen so
that they closely reproduce the plans of the shipped models, which were found by experiment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict

from medmaskrcnn.data.case_fingerprint import CaseFingerprint
from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.settings import InferenceSettings, ModelCard, PreprocessSettings
from medmaskrcnn.system.version import __version__
from medmaskrcnn.training.plan import Plan
from medmaskrcnn.training.planner.dataset_fingerprint import DatasetFingerprint, dataset_fingerprint
from medmaskrcnn.training.planner.grid import GridPlan, plan_grid
from medmaskrcnn.training.planner.intensity import plan_intensity
from medmaskrcnn.training.planner.learning import plan_augment, plan_loop, plan_max_containment, plan_one_per_scan
from medmaskrcnn.training.planner.memory import GIB, MEMORY_GB, memory_of_machine
from medmaskrcnn.training.planner.network import plan_network, width_reasons
from medmaskrcnn.training.planner.patch import plan_patch


def make_plan(
    manifest: Manifest,
    case_fingerprints: Sequence[CaseFingerprint],
    *,
    memory_gb: float | None = None,
    dims: str | float | None = None,
) -> tuple[Plan, dict[str, str]]:
    """Plan a training.

    Args:
        manifest: The labelled data.
        case_fingerprints: Fingerprints of its cases (:func:`medmaskrcnn.data.check.check_manifest`).
        memory_gb: GiB that a training step may take: those of the machine that is to train, not of the one that plans.
            8 by default, which the GPU of a workstation or laptop has, so that one data set has one plan.
        dims: 2, 2.5 or 3, to override the planner's choice.

    Returns:
        The plan, and the reason for each value by its dotted path. :func:`medmaskrcnn.training.plan.plan_text`
        writes both as YAML.

    Raises:
        ReadError: if no training case holds an object, or the cases do not fit together or ``dims``.
        MedMaskRCNNError: if the memory is not enough for any network.
        ValueError: if ``dims`` is none of these, or ``memory_gb`` is not positive.
    """
    if memory_gb is not None and memory_gb <= 0:
        raise ValueError(f"memory_gb must be positive, got {memory_gb}")
    memory = (MEMORY_GB if memory_gb is None else memory_gb) * GIB
    reasons: dict[str, str] = {}
    fingerprint = dataset_fingerprint(manifest, case_fingerprints)
    grid = plan_grid(fingerprint, None if dims is None else float(dims), reasons)
    intensity = asdict(plan_intensity(fingerprint, reasons))
    networks = plan_network(fingerprint, grid, intensity.pop("image_channels"), reasons)
    window = plan_patch(fingerprint, grid, networks, memory, reasons)
    width_reasons(window.model, reasons)
    if memory > memory_of_machine():
        reasons["train.batch"] += f" This machine has {memory_of_machine() / GIB:.2g} GB for it."
    inference = InferenceSettings(
        tile=window.tile,
        max_containment=plan_max_containment(manifest, reasons),
        one_per_scan_classes=plan_one_per_scan(fingerprint, reasons),
    )
    reasons["inference"] = "Where nothing else is said, what served the models that ship."
    reasons["inference.score"] = "To begin with; choose it anew on the validation cases once the model is trained."
    plan = Plan(
        card=_card(manifest, fingerprint),
        model=window.model,
        preprocess=_preprocess(fingerprint, grid, intensity, manifest.channel_names, reasons),
        inference=inference,
        augment=plan_augment(fingerprint, grid, window, reasons),
        train=plan_loop(fingerprint, window, reasons),
    )
    reasons["card"] = "Shown by `medmaskrcnn models`: please complete it."
    return plan, reasons


def _preprocess(
    fingerprint: DatasetFingerprint,
    grid: GridPlan,
    intensity: dict[str, object],
    names: tuple[str, ...],
    reasons: dict[str, str],
) -> PreprocessSettings:
    reasons["preprocess.antialias"] = "What shrinks is smoothed first."
    reasons["preprocess.channel_names"] = (
        "The sequences as the data set names them, in the order of its channels."
        if names
        else "Names of several sequences, where the data set has them."
    )
    reasons["preprocess.pad_multiple"] = "The strides of P5."
    return PreprocessSettings.model_validate(
        {
            "orientation": fingerprint.orientation,
            "spacing_mm": grid.spacing_mm,
            "resize_min_max": grid.resize_min_max,
            "pad_multiple": grid.strides[-1],
            "channel_names": names if len(names) == fingerprint.channels else (),
            **intensity,
        }
    )


def _card(manifest: Manifest, fingerprint: DatasetFingerprint) -> ModelCard:
    short = re.sub(r"[^a-z0-9.]+", "-", manifest.name.lower()).strip("-") or "model"
    *most, last = fingerprint.class_names
    return ModelCard(
        name=short,
        summary=f"Finds {', '.join(most) + ' and ' if most else ''}{last}.",
        modality=fingerprint.modality,
        data=f"{len(fingerprint.cases)} training cases of {manifest.name}.",
        licence=manifest.licence,
        limits=("Research use only, not a medical device.",),
        made_by=f"medmaskrcnn {__version__}",
    )
