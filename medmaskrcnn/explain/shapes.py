"""Shape, time and memory of every step, and how the shapes differ from those in articles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from medmaskrcnn.explain.focus import levels_of_boxes
from medmaskrcnn.explain.record import Walk
from medmaskrcnn.settings import ModelSettings


@dataclass(frozen=True)
class Stage:
    """One step of the forward pass.

    Attributes:
        name: Anchor of its section on the page.
        title: Its title.
        shape: Shape of its output.
        seconds: Wall time, ``None`` where it is part of another step.
        made_bytes: Memory of its output, ``None`` likewise.
        memory_bytes: See :attr:`medmaskrcnn.explain.record.Step.memory_bytes`.
    """

    name: str
    title: str
    shape: str
    seconds: float | None = None
    made_bytes: int | None = None
    memory_bytes: int | None = None

    @property
    def cost(self) -> tuple[str, str]:
        """Time and output memory as text; empty where they are part of another step."""
        return (
            "" if self.seconds is None else time_text(self.seconds),
            "" if not self.made_bytes else size_text(self.made_bytes),
        )


@dataclass(frozen=True)
class Difference:
    """One point in which a feature pyramid's Mask R-CNN differs from the form with a single map.

    Attributes:
        what: The point.
        articles: What articles say, for an image of 800 x 800.
        here: What this network did with this image.
        why: The reason.
    """

    what: str
    articles: str
    here: str
    why: str


def shape_text(shape: Sequence[int]) -> str:
    """``(256, 50, 50)`` as ``50 x 50 x 256``: space first, channels last, as articles write it."""
    return " x ".join(f"{n:,}" for n in (*shape[1:], shape[0]))


def size_text(size: int) -> str:
    """Bytes in a suitable unit."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def time_text(seconds: float) -> str:
    """Seconds, or milliseconds under one."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def stages(walk: Walk, settings: ModelSettings) -> tuple[Stage, ...]:
    """Every step of the forward pass, in order."""
    steps = {step.name: (step.seconds, step.made_bytes, step.memory_bytes) for step in walk.steps}
    cells = sum(len(level) for level in walk.anchors)
    classes, found = len(settings.class_names), len(walk.detections.boxes)
    side = 2 * settings.roi.mask_size
    mask = "no mask head" if walk.mask_logits is None else f"{found} x {classes} x {_power(side, walk.dims)}"
    return (
        Stage("input", "Input", shape_text(walk.image.shape)),
        Stage("backbone", "Backbone C2 to C5", _levels(walk.backbone), *steps["backbone"]),
        Stage("pyramid", "Pyramid P2 to P6", _levels(walk.pyramid), *steps["pyramid"]),
        Stage(
            "rpn",
            "Region proposal network",
            f"{cells:,} anchors: objectness and {2 * walk.dims} deltas each",
            *steps["rpn"],
        ),
        Stage("levels", "Proposals", f"{len(walk.proposals):,} boxes", *steps["proposals"]),
        Stage("align", "RoIAlign for the box head", _regions(walk), *steps["regions"]),
        Stage("classes", "Box head", f"{len(walk.logits):,} x {classes + 1} scores, as many boxes", *steps["scores"]),
        Stage("removed", "Threshold and suppression", f"{found} detections", *steps["found"]),
        Stage("masks", "RoIAlign and mask head", mask, *steps["masks"]),
    )


def differences(walk: Walk, settings: ModelSettings) -> tuple[Difference, ...]:
    """The shapes given in articles for 800 x 800, those of this network, and the reason for each difference."""
    roi, rpn, channels = settings.roi, settings.rpn, settings.backbone.fpn_channels
    cells = [len(level) for level in walk.anchors]
    added = " + ".join(f"{n:,}" for n in cells)
    per_cell = len(settings.anchors.ratios)
    third = "" if walk.dims == 2 else " The third axis has a stride of its own, since slices are thick."
    return (
        Difference(
            "Feature map",
            "one map at 1/16: 50 x 50 x 1,024",
            f"five maps, P2 to P6: {_levels(walk.pyramid)}. At 1/16 lie C4 of the backbone, "
            f"{shape_text(walk.backbone[2].shape)}, and P4, {shape_text(walk.pyramid[2].shape)}",
            "The feature pyramid keeps fine maps for small objects and coarse ones for large objects, all with the "
            f"same {channels} channels, so that one head serves them all.{third}",
        ),
        Difference(
            "Anchors",
            "9 a cell (3 sizes, 3 shapes): 22,500",
            f"{per_cell} a cell (1 size a level, {per_cell} shapes): {added} = {sum(cells):,}",
            "The sizes are spread over the levels: each level has one, so a cell needs the shapes only.",
        ),
        Difference(
            "Proposals",
            "1,000",
            f"{len(walk.proposals):,} (at most {rpn.post_nms_top_n:,})",
            f"The best {rpn.pre_nms_top_n:,} of each level are suppressed level by level, then the best "
            f"{rpn.post_nms_top_n:,} of all levels stay. Small images have fewer that differ enough.",
        ),
        Difference(
            "Which map a region is read from",
            "the only one there is",
            f"P{_level_counts(walk, settings)}",
            "By the size of the box (FPN, equation 1). Whatever the level, the region comes out in the same shape.",
        ),
        Difference(
            "Region for class and box",
            "7 x 7 x 1,024, then a fifth stage of the ResNet",
            f"{_power(roi.box_size, walk.dims)} x {channels}, then two layers of {roi.box_hidden:,}",
            "The fifth stage already lies in the backbone, under P5; two fully connected layers are enough of a head.",
        ),
        Difference(
            "Region for the mask",
            "14 x 14 x 256",
            f"{_power(roi.mask_size, walk.dims)} x {channels}" if settings.with_masks else "none: no mask head",
            "Twice as fine as for the box, and read at the refined box of each detection, not at its proposal.",
        ),
        Difference(
            "Mask",
            "28 x 28 a class",
            f"{_power(2 * roi.mask_size, walk.dims)} for each of {len(settings.class_names)} classes"
            if settings.with_masks
            else "none: the box is the result",
            "One transposed convolution doubles each axis. Classes do not compete: the box head's class picks the "
            "mask.",
        ),
    )


def _level_counts(walk: Walk, settings: ModelSettings) -> str:
    levels = levels_of_boxes(walk, walk.proposals, settings.roi)
    counts = levels.bincount(minlength=len(walk.pyramid) - 1).tolist()
    return ", P".join(f"{number}: {count:,}" for number, count in enumerate(counts, 2))


def _levels(maps: Sequence[Tensor]) -> str:
    shapes = [tuple(m.shape) for m in maps]
    if len({s[0] for s in shapes}) == 1:
        return ", ".join(" x ".join(f"{n:,}" for n in s[1:]) for s in shapes) + f"; {shapes[0][0]} channels"
    return ", ".join(shape_text(s) for s in shapes)


def _regions(walk: Walk) -> str:
    return f"{len(walk.regions):,} regions of {shape_text(walk.regions.shape[1:])}"


def _power(side: int, dims: int) -> str:
    return " x ".join([str(side)] * dims)
