"""How samples are drawn and augmented, and how long to train."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np

from medmaskrcnn.data.class_kinds import is_lesion
from medmaskrcnn.data.manifest import FOR_TRAINING, Manifest
from medmaskrcnn.structures.laterality import has_side
from medmaskrcnn.training.plan import AugmentSettings, LoopSettings
from medmaskrcnn.training.planner.dataset_fingerprint import DatasetFingerprint
from medmaskrcnn.training.planner.grid import GridPlan
from medmaskrcnn.training.planner.patch import Patch, PatchPlan, grid_size, rounded_patch

Axis = Literal["D", "H", "W"]

_AXES: tuple[Axis, Axis, Axis] = ("D", "H", "W")
_ON_ONE_SIDE = re.compile(
    r"liver|spleen|stomach|pancreas|gall.?bladder|heart|aorta|duodenum|colon|atrium|ventricle|vena cava|adrenal|lobe"
)
_FEW_CASES = 40
_CROWD = 10  # objects per scan from which windows placed anywhere contain some
_SMALL = 0.25  # longest edge of the oversampled class, relative to the largest class
_AROUND_SMALL = 4.0  # side of oversampled windows, relative to the class's objects
_LEAST_SMALL = 64.0  # minimum side of an oversampled window, voxels
_EPOCHS = 12
_WARMUP = 0.03  # of the training
_COVERED = 0.5  # share of an object's voxels; labels that touch overlap less than this


def plan_one_per_scan(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> tuple[str, ...]:
    """Classes with at most one object per scan; the reason is added to ``reasons``."""
    single = []
    if not fingerprint.planar:
        for name in fingerprint.class_names:
            counts = fingerprint.counts(name)  # in the scans where it was annotated
            if len(counts) and counts.max() == 1 and 2 * np.count_nonzero(counts) > len(counts) and not is_lesion(name):
                single.append(name)
    reasons["inference.one_per_scan_classes"] = (
        f"At most one in each of {len(fingerprint.cases)} scans, and in most; findings (tumours, nodules) never count."
        if single
        else "No class is there once in most scans, or they are pictures or findings, of which there may be any number."
    )
    return tuple(single)


def plan_max_containment(manifest: Manifest, reasons: dict[str, str]) -> float | None:
    """Share of an object that higher-scoring ones of its class may cover; the reason is added to ``reasons``."""
    for case in manifest.cases:
        held = {(item.class_name, item.map) for item in case.instances if not item.ignore}
        if case.split in FOR_TRAINING and len(held) > len({name for name, _ in held}):
            reasons["inference.max_containment"] = (
                f"Objects of one class overlap: {case.id} has them in several label maps."
            )
            return None
    reasons["inference.max_containment"] = (
        "No two labels of a class overlap, so what others hold by half is one of them seen twice, or a part of it."
    )
    return _COVERED


def plan_augment(
    fingerprint: DatasetFingerprint, grid: GridPlan, window: PatchPlan, reasons: dict[str, str]
) -> AugmentSettings:
    """Choose how samples are drawn and augmented; the reasons are added to ``reasons``."""
    oversampled_class, small = _oversampled(fingerprint, grid, window, reasons)
    crowd = float(np.median(fingerprint.counts())) >= _CROWD
    reasons["augment.foreground_prob"] = (
        "The window holds most scans whole."
        if window.whole
        else f"{np.median(fingerprint.counts()):.0f} objects a scan (median), on windows smaller than a scan."
    )
    changes = _changes(fingerprint, reasons)
    return AugmentSettings(
        patch=window.patch,
        foreground_prob=0.2 if window.whole else 0.5 if crowd and not oversampled_class else 0.75,
        oversampled_class=oversampled_class,
        oversampled_patch=small,
        flip=_flips(fingerprint, grid, reasons),
        **_movements(fingerprint, reasons),
        **changes,
    )


def _oversampled(
    fingerprint: DatasetFingerprint, grid: GridPlan, window: PatchPlan, reasons: dict[str, str]
) -> tuple[str | None, Patch | None]:
    """A class of small objects among large ones, and a window for them."""
    sizes, (large, most) = fingerprint.class_sizes(), fingerprint.largest
    name = min(sizes, key=lambda n: float(np.prod(sizes[n])))
    seen = f"a median {name} is {sizes[name].max():.3g} long, a {large} {most.max():.3g}"
    reasons["augment.oversampled_patch"] = "As the other windows."
    if window.whole:
        why = "Windows hold whole scans."
    elif grid.dims == 2 or window.batch > 1:
        why = "Several windows make an update and must be of one size."
    elif sizes[name].max() >= _SMALL * most.max():
        why = f"Classes are of like size: {seen}."
    else:
        why = ""
    reasons["augment.oversampled_class"] = f"None. {why}"
    if why:
        return None, None
    reasons["augment.oversampled_class"] = (
        f"Small objects among large ones ({seen}) are shown in half of the windows with one."
    )
    wanted = np.maximum(_AROUND_SMALL * grid_size(grid, fingerprint, name), _LEAST_SMALL)
    small = rounded_patch(list(np.minimum(wanted, window.patch)), grid.strides)
    if small == window.patch:
        return name, None
    reasons["augment.oversampled_patch"] = f"{_AROUND_SMALL:g} times such an object, at least {_LEAST_SMALL:g} voxels."
    return name, small


def _flips(fingerprint: DatasetFingerprint, grid: GridPlan, reasons: dict[str, str]) -> tuple[Axis, ...]:
    names = fingerprint.class_names
    sided = [n for n in names if has_side(n)]
    one_side = [n for n in names if _ON_ONE_SIDE.search(n.lower()) and not is_lesion(n)]
    lesions = all(map(is_lesion, names))
    across = {case.left_right for case in fingerprint.cases}
    mirrored: tuple[Axis, ...]
    if sided:
        mirrored, why = (), f"None: classes have sides ({', '.join(sided[:3])})."
    elif fingerprint.planar:
        mirrored, why = ("H", "W"), "Pictures have no up or side."
    elif one_side:
        mirrored, why = (), f"None: {', '.join(one_side[:3])} lie on one side of the body."
    elif lesions:
        mirrored, why = ("H", "W"), "Findings look alike however they lie."
    elif len(across) == 1 and None not in across and (grid.dims == 3 or across != {0}):
        mirrored = (_AXES[next(iter(axis for axis in across if axis is not None))],)
        why = f"Left and right look alike ({mirrored[0]}); up, down, front and back do not."
    else:
        mirrored, why = (), "None: scans lie differently, so no axis is left-right in all."
    reasons["augment.flip"] = why
    return mirrored


def _movements(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> dict[str, float]:
    few = len(fingerprint.cases) < _FEW_CASES
    reasons["augment.zoom"] = f"{len(fingerprint.cases)} training scans: {'strong' if few else 'moderate'} distortions."
    if fingerprint.planar and not any(map(has_side, fingerprint.class_names)):
        reasons["augment.rotate_degrees"] = "Pictures may lie any way."
        return {"rotate_degrees": 90.0, "zoom": 0.25, "shift": 0.0, "elastic": 0.02}
    lesions = all(map(is_lesion, fingerprint.class_names))
    reasons["augment.rotate_degrees"] = (
        "Findings may lie any way, patients do not." if lesions else "Organs hardly turn."
    )
    return {
        "rotate_degrees": 15.0 if lesions else 12.0,
        "zoom": 0.2 if few else 0.15,
        "shift": 0.06,
        "elastic": 0.035 if few else 0.02,
    }


def _changes(fingerprint: DatasetFingerprint, reasons: dict[str, str]) -> dict[str, Any]:
    keys = ("blur", "shift_intensity", "scale_intensity", "gamma", "bias_field", "noise", "colour")
    few = len(fingerprint.cases) < _FEW_CASES
    if fingerprint.modality == "CT":
        values = (0.5, 0.1, 0.1, 0.1, 0.0, 0.1, 0.0)
        why = "CT: values mean the same everywhere, so they are changed little; no coil shades them."
    elif fingerprint.channel_kind == "colour":
        values = (1.0, 0.15, 0.3, 0.2, 0.0, 0.1, 0.2)
        why = "Pictures: lamps and cameras differ in brightness, colour and sharpness."
    elif fingerprint.modality == "MR":
        values = (0.5, 0.25, 0.4, 0.4, 0.15, 0.15, 0.0) if few else (0.5, 0.15, 0.25, 0.3, 0.1, 0.1, 0.0)
        why = f"MR: values have no unit and coils shade them; {len(fingerprint.cases)} training scans."
    else:
        values = (0.5, 0.15, 0.3, 0.4, 0.0, 0.15, 0.0)
        why = "Values have no unit."
    reasons["augment"] = why
    return dict(zip(keys, values, strict=True))


def plan_loop(fingerprint: DatasetFingerprint, window: PatchPlan, reasons: dict[str, str]) -> LoopSettings:
    """Choose the length and the batch size of the training; the reasons are added to ``reasons``."""
    cases = len(fingerprint.cases)
    steps = 4000 + 500 * np.log2(cases)
    steps = round(steps * (0.75 if window.batch > 1 else 1.0) / 500) * 500
    epoch = round(steps / _EPOCHS / 100) * 100
    drawn = steps * window.batch / cases
    reasons["train"] = "AdamW with warm-up and cosine decay; rates that served the models that ship."
    reasons["train.steps"] = (
        f"{steps:,} steps of {window.batch} window{'s' if window.batch > 1 else ''} on {cases} training scans are "
        f"{drawn:.0f} epochs: each scan is drawn so often. More scans, more steps."
    )
    reasons["train.hours"] = "Steps decide; set hours instead to end by the clock."
    reasons["train.warmup_ratio"] = "A share of the run, so that it fits whatever its length."
    reasons["train.warmup_steps"] = "A number of steps would go before warmup_ratio."
    reasons["train.validate_every"] = f"{_EPOCHS} times in all, after every {epoch * window.batch / cases:.1f} epochs."
    reasons["train.patience"] = "The learning rate falls to the end, which is where scores are best."
    reasons["train.precision"] = "Half of fp32's time and memory where the processor knows it; set fp32 where not."
    reasons["train.freeze"] = "Nothing: weights are random at first."
    reasons["train.seed"] = "Any number; the same again gives the same weights on a CPU."
    return LoopSettings(
        steps=steps,
        batch=window.batch,
        warmup_ratio=_WARMUP,
        validate_every=max(100, epoch),
        precision="bf16",
    )
