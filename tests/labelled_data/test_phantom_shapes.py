"""Solids, smooth fields and painting, each against what one can work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn_datasets import painting
from medmaskrcnn_datasets.anatomy import AIR_HU, Structure
from medmaskrcnn_datasets.shapes import Diaphragm, Ribs, Superellipsoid, Tube, Union, Within
from medmaskrcnn_datasets.smooth_fields import SmoothField

FLOAT32 = 1e-4
"""Coordinates of some 100 mm in float32 carry about 1e-5 mm."""


def field_at(shape, *points):
    """The shape's field at points R, A, S."""
    x, y, z = (np.array(column, np.float32) for column in zip(*points, strict=True))
    return shape(x, y, z)


class TestShapes:
    def test_sphere_is_signed_distance(self):
        sphere = Superellipsoid((10, 20, 30), (5, 5, 5))
        assert field_at(sphere, (10, 20, 30), (15, 20, 30), (10, 20, 37)) == pytest.approx([-5, 0, 2], abs=FLOAT32)

    def test_large_exponent_is_nearly_a_box(self):
        box = Superellipsoid((0, 0, 0), (5, 5, 5), exponent=20)
        ball = Superellipsoid((0, 0, 0), (5, 5, 5))
        corner = (4.5, 4.5, 4.5)
        assert field_at(box, corner)[0] < 0 < field_at(ball, corner)[0]

    def test_rotation_turns_the_long_axis(self):
        quarter_turn = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))  # R to A
        turned = Superellipsoid((0, 0, 0), (20, 5, 5), rotation=quarter_turn)
        assert field_at(turned, (0, 19, 0))[0] < 0 < field_at(turned, (19, 0, 0))[0]
        assert turned.bounds[1] == pytest.approx([5, 20, 5])

    def test_tube_has_no_end_and_swings(self):
        tube = Tube((0.0, 0.0), (4.0, 4.0))
        assert field_at(tube, (0, 0, -1e4), (6, 0, 50)) == pytest.approx([-4, 2], abs=FLOAT32)
        swinging = Tube((0.0, 0.0), (4.0, 4.0), swing=(10.0, 0.0, 0.0))
        assert field_at(swinging, (10, 0, 75))[0] == pytest.approx(-4, abs=FLOAT32)  # a quarter of 300 mm

    def test_union_within_and_blend(self):
        left, right = Superellipsoid((-4, 0, 0), (5, 5, 5)), Superellipsoid((4, 0, 0), (5, 5, 5))
        gap = (0.0, 3.2, 0.0)
        assert field_at(Union((left, right)), gap)[0] > 0 > field_at(Union((left, right), blend_mm=6.0), gap)[0]
        lens = Within(left, inside=(right,))
        assert (field_at(lens, (0, 0, 0), (-6, 0, 0)) < 0).tolist() == [True, False]
        moon = Within(left, outside=(right,))
        assert (field_at(moon, (0, 0, 0), (-6, 0, 0)) < 0).tolist() == [False, True]

    def test_diaphragm_takes_the_higher_dome(self):
        domes = Diaphragm(((70, 0, 50), (-70, 0, 30)), fall_per_mm=0.01)
        assert field_at(domes, (70, 0, 50), (-70, 0, 40), (70, 10, 50)) == pytest.approx([0, 10, 1], abs=1e-3)

    def test_ribs_repeat_and_fall_to_the_front(self):
        wall = Tube((0.0, 0.0), (100.0, 100.0))
        ribs = Ribs(wall, Diaphragm(((0, 0, -500),), 0.0), 30.0, 0.0, (4.0, 6.0), fall=0.5)
        side, front, back = (100, 0, 30), (0, 100, -50), (0, -100, 50)  # S = n * 30 - 0.5 * A
        assert (field_at(ribs, side, front, back) < 0).all()
        assert field_at(ribs, (100, 0, 45))[0] > 0
        assert field_at(ribs, (100, 0, -510))[0] > 0


class TestSmoothField:
    @pytest.fixture
    def field(self):
        return SmoothField((20, 30, 40), (4.0, 2.0, 1.0), scale_mm=10, rng=np.random.default_rng(0))

    def test_windows_are_parts_of_the_whole(self, field):
        whole = field.on((slice(0, 20), slice(0, 30), slice(0, 40)))
        window = (slice(3, 9), slice(10, 12), slice(0, 40))
        assert field.on(window) == pytest.approx(whole[window], abs=1e-5)

    def test_points_agree_with_voxels(self, field):
        whole = field.on((slice(0, 20), slice(0, 30), slice(0, 40)))
        index = np.array([[0, 0, 0], [19, 29, 39], [7, 3, 22]])
        assert field.at(index.astype(float)) == pytest.approx(whole[tuple(index.T)], abs=1e-5)

    def test_points_outside_are_clamped(self, field):
        inside, outside = np.array([[0.0, 29, 5]]), np.array([[-8.0, 50, 5]])
        assert field.at(outside) == pytest.approx(field.at(inside))

    def test_unit_deviation_and_bound(self):
        large = SmoothField((60, 60, 60), (5.0, 5.0, 5.0), scale_mm=10, rng=np.random.default_rng(1))
        values = large.on((slice(0, 60), slice(0, 60), slice(0, 60)))
        assert values.std() == pytest.approx(1, abs=0.05)
        assert np.abs(values).max() <= large.largest()


class TestPainting:
    RADIUS_MM = 20.0

    @staticmethod
    def still_body(grid):
        """No scaling, no deformation."""
        nothing = SmoothField(grid.shape, grid.voxel_size, scale_mm=50, rng=np.random.default_rng(0))
        nothing._coefficients[:] = 0
        return painting.Body(grid, np.ones(3), (nothing, nothing, nothing))

    def paint(self, structures, noise_hu=0.0, spacing=(3.0, 1.5, 1.5)):
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-30, -31, -29]
        grid = Grid(tuple(int(62 / s) for s in spacing), affine)
        rng = np.random.default_rng(0)
        body, textures = self.still_body(grid), painting.random_textures(grid, rng)
        return grid, *painting.paint(body, structures, textures, noise_hu=noise_hu, rng=rng)

    def ball(self, hu, radius=RADIUS_MM, centre=(0, 0, 0), **kwargs):
        return Structure("ball", Superellipsoid(centre, (radius,) * 3), hu, mottle_hu=0.0, **kwargs)

    def test_volume_is_that_of_the_formula(self):
        grid, hu, owner, volumes = self.paint([self.ball(500)])
        exact = 4 / 3 * np.pi * self.RADIUS_MM**3
        assert volumes[0] == pytest.approx(exact, rel=0.01)
        assert (owner == 1).sum() * grid.voxel_volume_unit3 == pytest.approx(exact, rel=0.02)
        mass = (hu.astype(float) - AIR_HU).sum() * grid.voxel_volume_unit3 / (500 - AIR_HU)
        assert mass == pytest.approx(exact, rel=0.01)

    def test_partial_volume_at_the_edge_alone(self):
        grid, hu, owner, _ = self.paint([self.ball(500)])
        index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
        depth = self.RADIUS_MM - np.linalg.norm(grid.index_to_ras(index), axis=-1)
        assert (hu[depth > 3.5] == 500).all()
        assert (hu[depth < -3.5] == AIR_HU).all()
        mixed = (hu > AIR_HU) & (hu < 500)
        assert mixed.sum() > 500
        assert np.array_equal(owner == 1, depth >= 0)
        assert np.array_equal(owner == 1, hu >= (500 + AIR_HU) / 2)  # half full is where the label begins

    def test_front_hides_back(self):
        _, hu, owner, volumes = self.paint([self.ball(100, radius=8), self.ball(-100)])
        centre = tuple(n // 2 for n in hu.shape)
        assert (hu[centre], owner[centre]) == (100, 1)
        assert volumes.sum() == pytest.approx(4 / 3 * np.pi * self.RADIUS_MM**3, rel=0.01)
        assert volumes[0] == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.03)

    def test_rim_fades_inwards(self):
        _, hu, *_ = self.paint([self.ball(200, rim=(700, 5.0))], spacing=(1.0, 1.0, 1.0))
        line = hu[30, 31, 29:]
        assert line[:12] == pytest.approx(200)
        assert 500 < line[12:20].max() <= 700

    def test_noise_has_its_deviation_and_is_correlated_in_the_slice(self):
        _, hu, *_ = self.paint([self.ball(0, radius=400)], noise_hu=18.0, spacing=(1.0, 1.0, 1.0))
        values = hu.astype(float)
        assert values.std() == pytest.approx(18, rel=0.03)

        def correlation(axis):
            first, second = np.delete(values, 0, axis), np.delete(values, -1, axis)
            return np.corrcoef(first.ravel(), second.ravel())[0, 1]

        assert correlation(1) > 0.4 and correlation(2) > 0.4 and abs(correlation(0)) < 0.02

    def test_what_lies_outside_the_scan_is_skipped(self):
        _, hu, owner, volumes = self.paint([self.ball(500, centre=(300, 0, 0))])
        assert volumes[0] == 0 and not owner.any() and (hu == AIR_HU).all()
