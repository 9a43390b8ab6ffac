"""A backbone of one's own, which the command line trains and runs by its name.

In a package it needs two lines in ``pyproject.toml``, and ``pip install`` makes it known:

    [project.entry-points."medmaskrcnn.backbones"]
    patches = "own_backbone:Patches"
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from medmaskrcnn.models.backbone import Backbone
from medmaskrcnn.settings import BackboneSettings
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset


class Patches(Backbone):
    """Four strided convolutions without overlap, in 2D and 3D."""

    def __init__(self, settings: BackboneSettings, spatial_dims: int, in_channels: int) -> None:
        super().__init__((16, 32, 64, 64))  # channels of C2..C5
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        widths = (in_channels, *self.out_channels)
        steps = [
            tuple(b // a for a, b in zip(fine, coarse, strict=True))
            for fine, coarse in pairwise(((1,) * spatial_dims, *settings.strides))
        ]
        self.stages = nn.ModuleList(
            conv(a, b, kernel_size=step, stride=step) for (a, b), step in zip(pairwise(widths), steps, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images to the maps C2..C5."""
        maps = []
        for stage in self.stages:
            x = stage(x).relu()
            maps.append(x)
        return maps


PLAN = """
card: {name: with-patches}
model:
  class_names: [liver, spleen, left kidney, right kidney, tumour]
  backbone: {name: patches, fpn_channels: 32}
  anchors: {sizes: [[6, 6], [12, 12], [20, 20], [32, 32], [48, 48]]}
preprocess: {windows: [[-160, 240]]}
augment: {patch: [1, 64, 64]}
train: {steps: 3, batch: 2}
"""


def pretend_to_install(site: Path) -> None:
    """What ``pip install`` of a package with these lines leaves behind: the module, and its entry points."""
    facts = site / "own_backbone-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "own_backbone.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-backbone\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[medmaskrcnn.backbones]\npatches = own_backbone:Patches\n")


def main() -> None:
    """Train on phantoms and segment one, by commands alone."""
    pretend_to_install(Path("site"))
    manifest = phantom_dataset("phantoms", seeds=[0], max_shape=(16, 64, 64), workers=1)
    Path("plan.yaml").write_text(PLAN)
    scan = next(Path("phantoms").rglob("*.nii.gz"))
    path = os.pathsep.join(filter(None, [str(Path("site").absolute()), os.environ.get("PYTHONPATH")]))
    for command in (
        ["train", manifest, "--plan", "plan.yaml", "-o", "run", "--workers", "0", "-q"],
        ["segment", scan, "-o", "result", "--model", "run/last.safetensors", "--score", "0.05"],
    ):
        program = [sys.executable, "-c", "from medmaskrcnn.cli.main import main; main()", *map(str, command)]
        print("medmaskrcnn", *command, flush=True)
        subprocess.run(program, check=True, env={**os.environ, "PYTHONPATH": path})
    print("written:", *sorted(file.name for file in Path("result").iterdir()))


if __name__ == "__main__":
    main()
