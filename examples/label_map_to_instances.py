"""A label map, as a U-Net gives it, as instances: ``python label_map_to_instances.py [SCAN LABELS]``.

Every connected part of a class becomes an instance of its own. Where objects of one class touch they stay one: that is
what a label map cannot say.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import medmaskrcnn
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.structures.grid import Grid


def two_lesions(folder: Path) -> tuple[Path, Path]:
    """A drawn scan and its label map: two separate boxes of class 1."""
    labels = np.zeros((20, 40, 40), dtype=np.uint8)
    labels[4:8, 5:15, 5:15] = 1
    labels[12:16, 20:35, 20:30] = 1
    grid = Grid((20, 40, 40), np.diag([2.0, 1.0, 1.0, 1.0]))
    scan = write_nifti(100 * labels.astype(np.int16), grid, folder / "scan.nii.gz")
    return scan, write_nifti(labels, grid, folder / "labels.nii.gz")


def main() -> None:
    """Read, count, measure."""
    scan, labels = (Path(a) for a in sys.argv[1:3]) if len(sys.argv) > 2 else two_lesions(Path())
    volume = medmaskrcnn.read_volume(scan)
    instances = read_labels(labels, volume, names={1: "lesion"}, kind="semantic")
    for number, size in enumerate(measure_instances(volume, instances)):
        name = instances.class_names[instances.labels[number]]
        print(f"{number + 1} {name}: {size.volume_unit3:.0f} {size.unit}3")


if __name__ == "__main__":
    main()
