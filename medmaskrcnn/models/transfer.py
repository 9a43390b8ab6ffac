"""Begin with weights that were learnt elsewhere: what fits is taken, the rest stays as it is, and both are told.

``transfer`` copies, ``freeze`` keeps parts from being changed afterwards. What a source may be is said in
``transfer_source.py``, how a weight is made to fit in ``transfer_fit.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.transfer_fit import Fit, Inflation, fit
from medmaskrcnn.models.transfer_source import Source, part_of, read_source

FREEZABLE = ("stem", "stage1", "stage2", "stage3", "stage4", "fpn", "rpn")


@dataclass(frozen=True)
class TransferReport:
    """What became of each weight.

    Attributes:
        source: Where from.
        taken: Name of each weight that was taken, and how it was made to fit.
        new: Name of each weight that was not, and why.
        unused: Names in the source for which there is no place.
    """

    source: str
    taken: dict[str, str]
    new: dict[str, str]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people: a line for each part of the network."""
        lines = []
        for part in dict.fromkeys(part_of(name) for name in (*self.taken, *self.new)):
            taken = {how: None for name, how in self.taken.items() if part_of(name) == part and how != "as it is"}
            counts = sum(part_of(name) == part for name in self.taken), sum(part_of(name) == part for name in self.new)
            reasons = dict.fromkeys(why for name, why in self.new.items() if part_of(name) == part)
            text = f"{part}: {counts[0]} of {sum(counts)} weights taken"
            text += f" ({'; '.join(taken)})" if taken else ""
            lines.append(text + (f"; {counts[1]} new: {'; '.join(reasons)}" if reasons else ""))
        return lines


def transfer(
    model: MaskRCNN, source: str | os.PathLike[str] | MaskRCNN, *, inflation: Inflation = "centre"
) -> TransferReport:
    """Copy into ``model`` every weight of ``source`` that fits or can be made to.

    Args:
        model: Is changed.
        source: Another model, the name of a shipped one, a model file, ``torchvision:...``, or a state dict (``.pth``)
            of torchvision's or MedicalNet's ResNets or of torchvision's detectors.
        inflation: How 2D kernels become 3D ones.

    Returns:
        What was taken and what is new. Rows of the output layers are taken class by class, by name.

    Raises:
        ModelFileError: if the source cannot be read or nothing of it fits.
    """
    origin = read_source(source)
    state = model.state_dict()
    fits = {name: fit(name, value, origin, model.settings, inflation) for name, value in state.items()}
    fits = _whole_stages(fits, origin)
    taken = {name: f.how for name, f in fits.items() if f.value is not None}
    if not taken:
        raise ModelFileError(f"nothing of {origin.name} fits this model: {next(iter(fits.values())).how}")
    with torch.no_grad():
        for name, f in fits.items():
            if f.value is not None:
                state[name].copy_(f.value)
    new = {name: f.how for name, f in fits.items() if f.value is None}
    return TransferReport(origin.name, taken, new, tuple(sorted(origin.weights.keys() - state.keys())))


def freeze(model: MaskRCNN, parts: Iterable[str]) -> None:
    """Keep parts of a model as they are: their weights get no gradient.

    Args:
        model: Is changed.
        parts: Among :data:`FREEZABLE`; the stages are those of the backbone.

    Raises:
        ValueError: if a part is unknown or the model has no such part.
    """
    wanted = tuple(parts)
    there = {part_of(name) for name, _ in model.named_parameters()}
    wrong = [part for part in wanted if part not in FREEZABLE or part not in there]
    if wrong:
        can = ", ".join(part for part in FREEZABLE if part in there)
        raise ValueError(f"cannot freeze {', '.join(wrong)}; of this model can be frozen: {can}")
    for name, weight in model.named_parameters():
        if part_of(name) in wanted:
            weight.requires_grad_(False)


def _whole_stages(fits: dict[str, Fit], source: Source) -> dict[str, Fit]:
    """A stage of residual blocks is taken whole or not at all: single kernels of other blocks mean nothing.

    Shortcuts may be missing: MedicalNet's resnet18 and 34 have none that are learnt.
    """
    kernels: dict[str, list[str]] = {}
    for name in source.weights.keys() | fits.keys():
        if part_of(name).startswith("stage") and ".conv" in name:
            kernels.setdefault(part_of(name), []).append(name)
    other = {p for p, names in kernels.items() if any(n not in fits or fits[n].value is None for n in names)}
    return {
        name: Fit(None, "the source's stage has other blocks")
        if part_of(name) in other and name in source.weights
        else f
        for name, f in fits.items()
    }
