"""Segment a scan, print what was found and write the files: ``python measure_instances.py [SCAN]``."""

from __future__ import annotations

import sys
from pathlib import Path

import medmaskrcnn
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom


def phantom_study(folder: Path) -> Path:
    """A small phantom CT as a folder of DICOM."""
    settings = PhantomSettings(seed=1, shape=(24, 96, 96), spacing_mm=(8.0, 4.0, 4.0))
    write_dicom_series(make_phantom(settings), folder)
    return folder


def main() -> None:
    """Segment, print, write."""
    scan = Path(sys.argv[1]) if len(sys.argv) > 1 else phantom_study(Path("phantom"))
    volume = medmaskrcnn.read_volume(scan)
    result = medmaskrcnn.segment(volume, model="phantom-ct")
    found = result.instances
    for number, candidate in enumerate(result.kept):
        size = result.measurements[candidate]
        name, score = found.class_names[found.labels[number]], found.scores[number]
        diameter = "" if size.longest_axial_diameter is None else f"{size.longest_axial_diameter:.0f} {size.unit}"
        print(f"{number + 1:3d}  {name:14s}  {score:.2f}  {size.volume_unit3:12,.0f} {size.unit}3  {diameter}")
    files = medmaskrcnn.write_result(result, volume, "result")
    print("written:", ", ".join(sorted(path.name for path in files.values())))


if __name__ == "__main__":
    main()
