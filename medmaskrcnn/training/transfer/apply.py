"""Initialise a network with pretrained weights: what fits is copied, the rest is unchanged, and both are reported.

``transfer`` copies weights, ``freeze`` excludes parts from training. ``source.py`` describes the possible sources,
``fit.py`` how a weight is made to fit.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.system.tables import TableWriter
from medmaskrcnn.training.transfer.fit import Fit, Inflation, fit
from medmaskrcnn.training.transfer.source import RESNET, Source, part_of, read_source

FREEZABLE = ("stem", "stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "fpn", "rpn")


@dataclass(frozen=True)
class TransferReport:
    """Which weights were transferred.

    Attributes:
        source: Name of the source.
        taken: Name of each weight that was copied, and how it was made to fit.
        new: Name of each weight that was not copied, and why.
        unused: Names of the source's weights that have no counterpart here.
        origins: Name of each weight in a file of another project.
    """

    source: str
    taken: dict[str, str]
    new: dict[str, str]
    unused: tuple[str, ...]
    origins: Mapping[str, str] = field(default_factory=dict)

    def table(self) -> list[tuple[str, str, str]]:
        """Which tensor went where: its name in the source, its name here, and how it was made to fit.

        Tensors of the source that went nowhere have no name here, and tensors of the network that are new none in the
        source.
        """
        taken = [(self.origins.get(name, name), name, how) for name, how in self.taken.items()]
        unused = [(self.origins.get(name, name), "", "not used") for name in self.unused]
        return [*taken, *(("", name, f"new: {why}") for name, why in self.new.items()), *unused]

    def csv(self) -> str:
        """The table as CSV, with a header."""
        stream = io.StringIO()
        writer = TableWriter(stream)
        writer.writerow(("in the source", "in the network", "how"))
        writer.writerows(self.table())
        return stream.getvalue()

    def lines(self) -> list[str]:
        """A readable summary: one line for each part of the network."""
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
        model: The model; changed in place.
        source: Another model, the name of a shipped one, a model file, ``torchvision:...``, or a state dict (``.pth``)
            of another project (:mod:`medmaskrcnn.training.transfer.foreign`).
        inflation: How 2D kernels become 3D ones.

    Returns:
        What was copied and what was not. Rows of the output layers are matched by class name, whatever its spelling,
        or by an alias of the source's card.

    Raises:
        ModelFileError: if the source cannot be read or none of it fits.
    """
    origin = read_source(source)
    state = model.state_dict()
    fits = {name: fit(name, value, origin, model.settings, inflation) for name, value in state.items()}
    fits = _whole_stages(fits, origin, model)
    taken = {name: f.how for name, f in fits.items() if f.value is not None}
    if not taken:
        raise ModelFileError(f"nothing of {origin.name} fits this model: {next(iter(fits.values())).how}")
    with torch.no_grad():
        for name, f in fits.items():
            if f.value is not None:
                state[name].copy_(f.value)
    new = {name: f.how for name, f in fits.items() if f.value is None}
    return TransferReport(origin.name, taken, new, tuple(sorted(origin.weights.keys() - state.keys())), origin.origins)


def freeze(model: MaskRCNN, parts: Iterable[str]) -> None:
    """Freeze parts of a model: their weights get no gradient.

    Args:
        model: The model; changed in place.
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


def _whole_stages(fits: dict[str, Fit], source: Source, model: MaskRCNN) -> dict[str, Fit]:
    """A stage of residual blocks is copied whole or not at all: single kernels of other blocks are meaningless.

    Blocks after the source's last one start as the identity, with zeros in their last normalisation (Goyal et al.
    2017, section 5.1), so a deeper network starts where a shallower one ended (Net2Net, Chen et al. 2016). Not if
    normalisations are frozen: the zeros would remain. Shortcuts may be missing: MedicalNet's resnet18 and 34 have no
    learnt ones.
    """
    ends = {part_of(name): _block(name) for name in sorted(source.weights, key=_block) if _block(name) >= 0}
    grows = model.settings.backbone.norm == "group"
    further = {name for name in fits if grows and _block(name) > ends.get(part_of(name), math.inf)}
    kernels = {name for name in source.weights.keys() | fits.keys() if _block(name) >= 0 and ".conv" in name}
    other = {part_of(n) for n in kernels - further if n not in fits or fits[n].value is None}
    whole = dict(fits)
    for name in fits:
        if part_of(name) in other:
            if name in source.weights:
                whole[name] = Fit(None, "the source's stage has other blocks")
        elif name in further and _is_last_norm(name, fits):
            whole[name] = Fit(torch.zeros_like(model.get_parameter(name)), "further blocks begin as the identity")
    return whole


def _block(name: str) -> int:
    """Number of the residual block, within its stage, that a weight belongs to; -1 for other weights."""
    found = re.match(re.escape(RESNET) + r"layer\d\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _is_last_norm(name: str, names: Collection[str]) -> bool:
    block = name.rpartition(".bn")[0]
    return name.startswith(f"{block}.bn{3 if block + '.bn3.weight' in names else 2}.")
