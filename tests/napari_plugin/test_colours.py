"""A class has the library's colour; its instances differ in lightness."""

from __future__ import annotations

import numpy as np

from medmaskrcnn.report.colours import class_colours
from napari_medmaskrcnn.layers.colours import class_rgb, class_rgba, instance_rgba

NAMES = ("edema", "enhancing tumor", "kidney_left")


def test_a_class_has_the_colour_of_previews_and_dicom_objects():
    assert tuple(class_rgb(NAMES, name) for name in NAMES) == class_colours(NAMES)
    assert class_rgb(NAMES, "a new one") == class_colours((*NAMES, "a new one"))[-1]
    assert np.allclose(class_rgba(NAMES, "edema")[:3] * 255, class_colours(NAMES)[0])


def test_neighbouring_instances_differ_and_stay_in_range():
    colours = [instance_rgba(("vertebra",), "vertebra", key) for key in range(1, 7)]
    assert len({tuple(c) for c in colours}) >= 5
    assert all(c.shape == (4,) and c[3] == 1 and (np.asarray(c) <= 1).all() for c in colours)
