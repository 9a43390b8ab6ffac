"""Whatever the labelled data, the planner gives a plan that training takes and the memory holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmaskrcnn.data.case_fingerprint import PERCENTILES, CaseFingerprint, Intensities, ObjectFacts
from medmaskrcnn.data.manifest import Manifest
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.training.plan import parse_plan, plan_text
from medmaskrcnn.training.planner.memory import GIB, count_parameters, step_memory
from medmaskrcnn.training.planner.network import LARGEST_FILE, file_bytes
from medmaskrcnn.training.planner.patch import rounded_patch, sound_depth
from medmaskrcnn.training.planner.planner import make_plan

NAMES = ("liver", "left kidney", "tumour", "never seen")


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[CaseFingerprint, ...]:
    """Some cases of one kind: pictures or volumes, with or without spacing, of any modality and channels."""
    planar, known = draw(st.booleans()), draw(st.booleans())
    channels = draw(st.integers(1, 4))
    modality = draw(st.sampled_from(["CT", "MR", "PT", None]))
    kind = "colour" if planar and channels == 3 else "scalar" if channels == 1 else "unknown"
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    thickness, width = draw(st.floats(0.2, 12)), draw(st.floats(0.05, 4))
    sides = (draw(st.integers(2, 600)), draw(st.integers(8, 1024)), draw(st.integers(8, 1024)))
    most = draw(st.sampled_from([1, 3, 300]))
    return tuple(
        _case(number, random, planar, known, channels, modality, kind, (thickness, width, width), sides, most)
        for number in range(draw(st.integers(1, 6)))
    )


def _case(number, random, planar, known, channels, modality, kind, spacing, sides, most):  # type: ignore[no-untyped-def]
    shape = [max(2, round(n * random.uniform(0.7, 1.3))) for n in sides]
    shape[0] = 1 if planar else shape[0]
    order = random.permutation(3)
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(spacing) * random.choice([-1, 1], 3))[order]
    objects = []
    for _ in range(random.integers(0 if number else 1, most + 1)):
        extent = tuple(int(random.integers(1, max(2, n))) for n in shape)
        mm = tuple(float(e * s) for e, s in zip(extent, spacing, strict=True)) if known else None
        objects.append(ObjectFacts(str(random.choice(NAMES[:3])), extent, mm, int(np.prod(extent))))
    values = [Intensities(tuple(np.sort(random.normal(0, 500, len(PERCENTILES)))), 0.0, 1.0) for _ in range(channels)]
    return CaseFingerprint(
        id=str(number), patient=str(number), split="train", fold=None, grid=Grid(tuple(shape), affine, known),
        channels=channels, channel_kind=kind, modality=modality, intensities=tuple(values),
        foreground=tuple(values) if objects else (), not_finite=0, objects=tuple(objects), absent=(), unnamed=(),
        content_hash=str(number),
    )  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(facts=data_sets(), memory_gb=st.sampled_from([2.5, 8.0, 80.0]))
@pytest.mark.slow
def test_any_data_gives_a_plan_that_fits(facts: tuple[CaseFingerprint, ...], memory_gb: float) -> None:
    manifest = Manifest(name="any", class_names=NAMES, cases=())
    plan, reasons = make_plan(manifest, facts, memory_gb=memory_gb)
    assert parse_plan(plan_text(plan, reasons)) == plan
    assert plan == make_plan(manifest, facts, memory_gb=memory_gb)[0], "no chance in it"
    model, patch = plan.model, plan.augment.patch
    objects = max(1, round(float(np.percentile([len(fact.objects) for fact in facts], 90))))
    needed = step_memory(model, patch, batch=plan.train.batch, objects=objects, parameters=count_parameters(model))
    assert needed <= memory_gb * GIB
    assert file_bytes(model) <= LARGEST_FILE
    assert model.image_channels % facts[0].channels == 0
    for window in (patch, plan.augment.oversampled_patch or patch):
        assert all(a <= b for a, b in zip(window, patch, strict=True))
        if model.spatial_dims == 3:
            assert sound_depth(window[0], [stride[0] for stride in model.backbone.strides])
    assert np.min(model.anchors.sizes) >= 2
    assert np.isfinite(plan.preprocess.mean).all() and min(plan.preprocess.std) > 0
    if any(fact.is_planar for fact in facts):
        assert model.spatial_dims == 2 and not plan.inference.one_per_scan_classes
    assert "W" not in plan.augment.flip or plan.preprocess.orientation == "as_stored"


@given(
    size=st.tuples(*(st.floats(1, 300),) * 3), strides=st.sampled_from([(1, 2, 4, 8), (2, 4, 8, 16), (4, 8, 16, 32)])
)
def test_windows_hold_what_they_are_rounded_from(size: tuple[float, float, float], strides: tuple[int, ...]) -> None:
    window = rounded_patch(size, [(stride, 4, 4) for stride in strides])
    assert all(n >= wanted for n, wanted in zip(window, size, strict=True))
    assert window[0] % 8 == 0 and window[1] % 16 == 0 and window[2] % 16 == 0
    assert all(-(-window[0] // stride) != 2 for stride in strides)


@pytest.mark.parametrize(("depth", "sound"), [(64, False), (72, True), (16, True), (33, False), (32, True)])
def test_depths_by_hand(depth: int, sound: bool) -> None:
    """64 slices at a stride of 32 are two, 72 are three; 16 are 2 at a stride of 8, which is not among these."""
    assert sound_depth(depth, (4, 32)) == sound
