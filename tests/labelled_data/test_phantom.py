"""Phantoms: the same bytes for the same seed, truth that is true, anatomy the right way round."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from medmaskrcnn.structures.volume import PHANTOM_GENERATOR
from medmaskrcnn_datasets import painting
from medmaskrcnn_datasets.phantom import CLASS_NAMES, PhantomSettings, make_phantom, random_settings

SMALL = PhantomSettings(seed=3, shape=(30, 64, 64), spacing_mm=(11.0, 5.8, 5.8), tumours=4)
ORGANS = CLASS_NAMES[:6]


def digest(phantom) -> str:
    return hashlib.sha256(phantom.volume.array.tobytes() + phantom.labels.tobytes()).hexdigest()


def mask_of(phantom, instance):
    """An instance's voxels, its tumours included."""
    parts = [i.value for i in phantom.instances if i.part_of == instance.value]
    return np.isin(phantom.labels, [instance.value, *parts])


def centroids_ras(phantom):
    """Centroid R, A, S in mm of each organ by name."""
    return {
        i.class_name: phantom.volume.grid.index_to_ras(np.argwhere(mask_of(phantom, i)).mean(axis=0))
        for i in phantom.instances
        if i.class_name in ORGANS
    }


class TestDeterminism:
    def test_same_settings_same_bytes_in_another_process(self):
        code = (
            "import hashlib; from medmaskrcnn_datasets import PhantomSettings, make_phantom;"
            f"p = make_phantom({SMALL!r});"
            "print(hashlib.sha256(p.volume.array.tobytes() + p.labels.tobytes()).hexdigest())"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == digest(make_phantom(SMALL))

    def test_another_seed_is_another_person(self):
        first, second = make_phantom(SMALL), make_phantom(replace(SMALL, seed=4))
        assert (first.labels != second.labels).mean() > 0.02

    def test_slab_size_does_not_matter(self, monkeypatch):
        whole = make_phantom(SMALL)
        monkeypatch.setattr(painting, "SLAB_VOXELS", 64 * 64 * 7)
        parts = make_phantom(SMALL)
        assert np.array_equal(whole.labels, parts.labels)
        # Sums of products in another order may round a HU the other way.
        assert np.abs(whole.volume.array.astype(int) - parts.volume.array).max() <= 1


class TestTruth:
    def test_table_and_label_map_name_the_same_values(self, phantom):
        values = [i.value for i in phantom.instances]
        assert values == list(range(1, len(values) + 1))
        assert set(np.unique(phantom.labels)) == {0, *values}
        assert phantom.labels.dtype == np.uint16 and phantom.labels.shape == phantom.volume.grid.shape

    def test_every_class_is_there(self, phantom):
        names = [i.class_name for i in phantom.instances]
        assert set(names) == set(CLASS_NAMES)
        assert all(names.count(organ) == 1 for organ in ORGANS)
        assert names.count("tumour") == 8 and names.count("vertebra") >= 6

    def test_scan_says_what_it_is(self, phantom):
        volume = phantom.volume
        assert volume.array.dtype == np.int16 and volume.array.shape == (1, *phantom.labels.shape)
        assert volume.modality == "CT" and volume.provenance.generator == PHANTOM_GENERATOR

    def test_volumes_agree_with_the_label_map(self, phantom):
        voxel = phantom.volume.grid.voxel_volume_unit3
        for instance in phantom.instances:
            counted = mask_of(phantom, instance).sum() * voxel
            if counted > 200 * voxel:  # below that the grid's own error is larger
                assert counted == pytest.approx(instance.volume_mm3, rel=0.05), instance

    def test_organs_are_one_piece(self, phantom):
        for instance in phantom.instances:
            if instance.class_name in ORGANS:
                pieces, _ = ndimage.label(mask_of(phantom, instance))
                sizes = np.bincount(pieces.ravel())[1:]
                assert sizes.max() / sizes.sum() > 0.97, instance


class TestTumours:
    def test_they_lie_within_their_organ(self, phantom):
        """The same person without tumours shows the organ wherever a tumour was."""
        healthy = make_phantom(replace(phantom.settings, tumours=0, touching=False))
        for tumour in (i for i in phantom.instances if i.class_name == "tumour"):
            organ = next(i for i in phantom.instances if i.value == tumour.part_of)
            assert organ.class_name in ("liver", "right lung", "left lung", "right kidney", "left kidney")
            covered = np.unique(healthy.labels[phantom.labels == tumour.value])
            names = {i.class_name for i in healthy.instances if i.value in covered}
            assert 0 not in covered and names == {organ.class_name}

    def test_diameter_is_that_of_the_voxels(self, phantom):
        grid = phantom.volume.grid
        for tumour in (i for i in phantom.instances if i.class_name == "tumour"):
            points = grid.index_to_ras(np.argwhere(phantom.labels == tumour.value))
            widest = max(np.linalg.norm(points - p, axis=1).max() for p in points[:: max(1, len(points) // 50)])
            assert 8 <= tumour.diameter_mm <= 45.001
            assert widest == pytest.approx(tumour.diameter_mm, abs=1.5 * max(grid.voxel_size)), tumour

    def test_two_touch_and_the_others_do_not(self, phantom):
        tumours = [i for i in phantom.instances if i.class_name == "tumour"]
        first, second = tumours[:2]
        assert first.part_of == second.part_of
        near = ndimage.binary_dilation(phantom.labels == first.value, np.ones((3, 3, 3)))
        assert (phantom.labels[near] == second.value).any()
        apart = ndimage.binary_dilation(np.isin(phantom.labels, [first.value, second.value]))
        assert not np.isin(phantom.labels[apart], [t.value for t in tumours[2:]]).any()

    def test_they_stand_out_from_their_organ(self, phantom):
        hu = phantom.volume.array[0].astype(float)
        for tumour in (i for i in phantom.instances if i.class_name == "tumour" and i.volume_mm3 > 2000):
            mask = phantom.labels == tumour.value
            core = ndimage.binary_erosion(mask)
            around = ndimage.binary_dilation(mask, iterations=3) & (phantom.labels == tumour.part_of)
            around &= ~ndimage.binary_dilation(mask)
            assert abs(hu[core].mean() - hu[around].mean()) > 30, tumour

    @pytest.mark.parametrize("count", [0, 1, 8])
    def test_as_many_as_asked(self, count):
        made = make_phantom(replace(SMALL, tumours=count, spacing_mm=(10.0, 5.5, 5.5)))
        assert sum(i.class_name == "tumour" for i in made.instances) == count

    def test_none_where_the_scan_shows_no_organ(self):
        above = make_phantom(replace(SMALL, offset_mm=(0.0, 0.0, 700.0)))
        assert not any(i.class_name == "tumour" for i in above.instances)


class TestAnatomy:
    @pytest.mark.parametrize("orientation", ["SPL", "SAR", "IPL", "LAS", "ARI"])
    def test_right_is_right(self, orientation):
        shape = tuple({"S": 30, "I": 30}.get(c, 64) for c in orientation)
        spacing = tuple({"S": 11.0, "I": 11.0}.get(c, 5.8) for c in orientation)
        made = make_phantom(replace(SMALL, orientation=orientation, shape=shape, spacing_mm=spacing))
        where = centroids_ras(made)
        assert where["liver"][0] > 20 and where["spleen"][0] < -40
        assert where["right kidney"][0] > 30 and where["left kidney"][0] < -30
        assert where["right lung"][0] > 30 and where["left lung"][0] < -30
        assert where["right lung"][2] > where["liver"][2] > where["right kidney"][2]
        spine = np.argwhere(np.isin(made.labels, [i.value for i in made.instances if i.class_name == "vertebra"]))
        assert made.volume.grid.index_to_ras(spine.mean(axis=0))[1] < where["liver"][1] - 30

    @pytest.mark.parametrize("seed", range(4))
    def test_tissues_absorb_as_they_should(self, seed):
        made = make_phantom(replace(SMALL, seed=seed, tumours=0, shape=(40, 96, 96), spacing_mm=(8.0, 3.9, 3.9)))
        hu = made.volume.array[0]
        expected = {
            "liver": (85, 130), "spleen": (105, 140), "right kidney": (125, 180), "left kidney": (125, 180),
            "right lung": (-890, -780), "left lung": (-890, -780), "vertebra": (180, 650),
        }  # fmt: skip
        for instance in made.instances:
            core = ndimage.binary_erosion(made.labels == instance.value)
            if core.sum() > 20:
                low, high = expected[instance.class_name]
                assert low < hu[core].mean() < high, instance
        corner = hu[:, :3, :3]
        assert corner.mean() < -980

    def test_people_differ(self):
        volumes = [
            next(
                i.volume_mm3
                for i in make_phantom(replace(SMALL, seed=s, tumours=0)).instances
                if i.class_name == "liver"
            )
            for s in range(5)
        ]
        assert np.std(volumes) > 5e4
        assert min(volumes) > 6e5 and max(volumes) < 2.6e6


class TestSettings:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"seed": -1}, "seed"),
            ({"shape": (1, 64, 64)}, "shape"),
            ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
            ({"spacing_mm": (1.0, float("nan"), 1.0)}, "spacing_mm"),
            ({"orientation": "SPS"}, "orientation"),
            ({"orientation": "XYZ"}, "orientation"),
            ({"tumours": 9}, "tumours"),
            ({"tumours": 1, "touching": True}, "touching"),
            ({"body_width_mm": 90.0}, "body_width_mm"),
            ({"noise_hu": -1.0}, "noise_hu"),
            ({"gantry_tilt_degrees": 60.0}, "gantry_tilt_degrees"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, change, said):
        with pytest.raises(ValueError, match=said):
            replace(SMALL, **change)

    def test_tilt_is_a_shear(self):
        grid = replace(SMALL, gantry_tilt_degrees=20.0).grid
        columns = grid.affine_vox_to_ras[:3, :3]
        assert grid.voxel_volume_unit3 == pytest.approx(11 * 5.8 * 5.8)
        lean = columns[:, 0] @ columns[:, 1] / np.linalg.norm(columns[:, 1])
        assert lean == pytest.approx(11 * np.tan(np.radians(20)))

    def test_rotation_keeps_lengths_and_angles(self):
        columns = replace(SMALL, rotation_degrees=(5.0, -8.0, 10.0)).grid.affine_vox_to_ras[:3, :3]
        assert columns.T @ columns == pytest.approx(np.diag([11.0, 5.8, 5.8]) ** 2, abs=1e-9)

    def test_random_settings_stay_in_their_ranges(self):
        drawn = [random_settings(seed, max_shape=(100, 256, 240)) for seed in range(60)]
        assert drawn[7] == random_settings(7, max_shape=(100, 256, 240))
        for settings in drawn:
            up = next(i for i, c in enumerate(settings.orientation) if c in "SI")
            across = [i for i in range(3) if i != up]
            assert settings.shape[up] <= 100 and {settings.shape[i] for i in across} == {256, 240}
            assert 1 <= settings.spacing_mm[up] <= 4
            assert all(1.2 < settings.spacing_mm[i] < 1.7 for i in across)
            assert 230 <= settings.shape[up] * settings.spacing_mm[up] <= 341
        assert {s.tumours for s in drawn} == set(range(9))
        assert len({s.orientation for s in drawn}) >= 6
        assert 0.2 < np.mean([any(s.rotation_degrees) for s in drawn]) < 0.6
