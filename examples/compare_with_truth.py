"""A phantom whose objects are known, segmented: what was found, what was missed."""

from __future__ import annotations

import medmaskrcnn
from medmaskrcnn.evaluation.metrics.matching import match_case
from medmaskrcnn.structures.label_maps import instances_of_label_map
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

FOUND_IOU = 0.5


def main() -> None:
    """Make, segment, compare."""
    phantom = make_phantom(PhantomSettings(seed=2, shape=(24, 96, 96), spacing_mm=(8.0, 4.0, 4.0)))
    result = medmaskrcnn.segment(phantom.volume, model="phantom-ct")
    truth = instances_of_label_map(
        phantom.labels,
        phantom.volume.grid,
        {i.value: i.class_name for i in phantom.instances},
        part_of={i.value: i.part_of for i in phantom.instances if i.part_of is not None},
    )
    summary = match_case(result.instances, truth, iou_threshold=FOUND_IOU)
    hits = {match.reference: match for match in summary.matches}
    for number, instance in enumerate(phantom.instances):
        said = f"found, IoU {hits[number].iou:.2f}" if number in hits else "missed"
        print(f"{instance.class_name:14s} {instance.volume_mm3 / 1000:8.1f} mL  {said}")
    print(f"found {len(hits)} of {summary.n_reference}; {len(summary.false_positives)} reported that are not there")


if __name__ == "__main__":
    main()
