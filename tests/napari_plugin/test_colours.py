"""An organ keeps its colour, whatever the model and the order of its classes."""

from __future__ import annotations

import numpy as np

from napari_medmaskrcnn.layers.colours import class_rgb, instance_rgba


def test_a_name_decides_its_colour():
    assert class_rgb("liver") == class_rgb(" Liver ") == class_rgb("liver")
    assert class_rgb("left_kidney") == class_rgb("left kidney") != class_rgb("right kidney")
    assert class_rgb("some nodule") == class_rgb("some nodule")
    assert len({class_rgb(f"class {i}") for i in range(40)}) > 8


def test_neighbouring_instances_differ_and_stay_in_range():
    colours = [instance_rgba("vertebra", key) for key in range(1, 7)]
    assert len({tuple(c) for c in colours}) >= 5
    assert all(c.shape == (4,) and c[3] == 1 and (np.asarray(c) <= 1).all() for c in colours)
