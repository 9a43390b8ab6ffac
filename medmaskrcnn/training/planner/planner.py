"""From the facts of labelled data to a plan of training: every decision, each with its reason.

    facts -> survey (turned to the network's axes) -> grid -> intensities -> network -> window -> augmentation, loop

Only training cases are looked at. The rules and their constants stand in the files named ``planner_*``; they were
set so that the plans of the models that ship, which were found by trial, come out much alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict

import medmaskrcnn
from medmaskrcnn.data.fingerprint import CaseFacts
from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.settings import InferenceSettings, ModelCard, PreprocessSettings
from medmaskrcnn.training.plan import Plan
from medmaskrcnn.training.planner.grid import GridPlan, plan_grid
from medmaskrcnn.training.planner.intensity import plan_intensity
from medmaskrcnn.training.planner.learning import plan_augment, plan_loop, plan_max_containment, plan_one_per_scan
from medmaskrcnn.training.planner.memory import GIB, memory_of_machine
from medmaskrcnn.training.planner.network import plan_network, width_reasons
from medmaskrcnn.training.planner.patch import plan_patch
from medmaskrcnn.training.planner.survey import Survey, make_survey


def make_plan(
    manifest: Manifest,
    facts: Sequence[CaseFacts],
    *,
    memory_gb: float | None = None,
    dims: str | float | None = None,
    name: str | None = None,
) -> tuple[Plan, dict[str, str]]:
    """Plan a training.

    Args:
        manifest: The labelled data.
        facts: Of its cases (:func:`medmaskrcnn.data.check.check_manifest`).
        memory_gb: GiB that a training step may take; by default 80 % of the GPU's, without one half of the machine's.
        dims: 2, 2.5 or 3, where the user knows better.
        name: Of the model; the manifest's by default.

    Returns:
        The plan, and why each value is what it is, by its dotted path. :func:`medmaskrcnn.training.plan.plan_text`
        writes both as YAML.

    Raises:
        ReadError: if no training case holds an object, or the cases do not go together, or with ``dims``.
        MedMaskRCNNError: if the memory is too little for any network.
        ValueError: if ``dims`` is none of these, or ``memory_gb`` is not positive.
    """
    if memory_gb is not None and memory_gb <= 0:
        raise ValueError(f"memory_gb must be positive, got {memory_gb}")
    memory = memory_of_machine() if memory_gb is None else memory_gb * GIB
    reasons: dict[str, str] = {}
    survey = make_survey(manifest, facts)
    grid = plan_grid(survey, None if dims is None else float(dims), reasons)
    intensity = asdict(plan_intensity(survey, reasons))
    networks = plan_network(survey, grid, intensity.pop("image_channels"), reasons)
    window = plan_patch(survey, grid, networks, memory, reasons)
    width_reasons(window.model, reasons)
    inference = InferenceSettings(
        tile=window.tile,
        max_containment=plan_max_containment(manifest, reasons),
        one_per_scan_classes=plan_one_per_scan(survey, reasons),
    )
    reasons["inference"] = "Where nothing else is said, what served the models that ship."
    reasons["inference.score"] = "To begin with; choose it anew on the validation cases once the model is trained."
    plan = Plan(
        card=_card(manifest, survey, name),
        model=window.model,
        preprocess=_preprocess(survey, grid, intensity, reasons),
        inference=inference,
        augment=plan_augment(survey, grid, window, reasons),
        train=plan_loop(survey, window, reasons),
    )
    reasons["card"] = "Shown by `medmaskrcnn models`: please complete it."
    return plan, reasons


def _preprocess(
    survey: Survey, grid: GridPlan, intensity: dict[str, object], reasons: dict[str, str]
) -> PreprocessSettings:
    reasons["preprocess.antialias"] = "What shrinks is smoothed first."
    reasons["preprocess.pad_multiple"] = "The strides of P5."
    return PreprocessSettings.model_validate(
        {
            "orientation": survey.orientation,
            "spacing_mm": grid.spacing_mm,
            "resize_min_max": grid.resize_min_max,
            "pad_multiple": grid.strides[-1],
            **intensity,
        }
    )


def _card(manifest: Manifest, survey: Survey, name: str | None) -> ModelCard:
    short = name or re.sub(r"[^a-z0-9.]+", "-", manifest.name.lower()).strip("-") or "model"
    *most, last = survey.class_names
    return ModelCard(
        name=short,
        summary=f"Finds {', '.join(most) + ' and ' if most else ''}{last}.",
        modality=survey.modality,
        data=f"{len(survey.cases)} training cases of {manifest.name}.",
        licence=manifest.licence,
        limits=("Research use only, not a medical device.",),
        made_by=f"medmaskrcnn {medmaskrcnn.__version__}",
    )
