"""Pictures of bodies: sizes as said, nothing clipped, one cell for each body."""

from __future__ import annotations

import dataclasses

import imageio.v3 as imageio
import numpy as np
import pytest

from somite.envs.locomotion import build
from somite.envs.locomotion.pictures.body_pictures import TITLE_HEIGHT, body_picture, sheet, tidy_tree
from somite.envs.locomotion.pictures.describe import describe


def read(path):
    """(height, width, 3) uint8."""
    return imageio.imread(path)[..., :3]


def random_tree(rng, size):
    return [-1, *(int(rng.integers(-1 if rng.random() < 0.05 else 0, child)) for child in range(1, size))]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_a_tree_do_not_overlap_and_stand_below_their_parents(seed):
    rng = np.random.default_rng(seed)
    parents, sizes = random_tree(rng, 67), rng.uniform(10, 90, (67, 2))
    places, (width, height) = tidy_tree(parents, sizes, (5, 8))
    left, right = places[:, 0] - sizes[:, 0] / 2, places[:, 0] + sizes[:, 0] / 2
    top, bottom = places[:, 1], places[:, 1] + sizes[:, 1]
    assert left.min() == pytest.approx(0) and right.max() == pytest.approx(width)
    assert top.min() == 0 and bottom.max() <= height + 1e-9
    apart_x = (left[:, None] >= right + 5 - 1e-6) | (left >= right[:, None] + 5 - 1e-6)
    apart_y = (top[:, None] >= bottom + 8 - 1e-6) | (top >= bottom[:, None] + 8 - 1e-6)
    assert (apart_x | apart_y | np.eye(67, dtype=bool)).all()
    for child, parent in enumerate(parents):
        if parent >= 0:
            assert top[child] >= bottom[parent] + 8 - 1e-6
            children = [c for c, p in enumerate(parents) if p == parent]
            assert places[parent, 0] == pytest.approx((places[children[0], 0] + places[children[-1], 0]) / 2)


def test_a_single_box():
    places, size = tidy_tree([-1], np.array([[40.0, 20.0]]), (5, 8))
    assert places.tolist() == [[20.0, 0.0]] and size == (40.0, 20.0)


@pytest.mark.parametrize("drawn", [True, False])
def test_a_picture_holds_the_rendering_and_the_graph(tmp_path, drawn):
    rendering = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8) if drawn else None
    path = tmp_path / "new" / "ant.png"
    width, height = body_picture(describe(build("ant"), 5), rendering, path, "no way to draw")
    picture = read(path)
    assert picture.shape == (height, width, 3)
    border = [picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]]
    assert all((edge == 255).all() for edge in border), "nothing is clipped"
    graph = picture[:, 160 + 40 :] if drawn else picture
    assert (graph.std() > 10) and (graph != 255).any(-1).mean() > 0.03
    if drawn:  # pixel by pixel
        (y, x), *_ = np.argwhere((picture[50:, :150] != 255).any(-1)) + (50, 0)
        assert (picture[y : y + 120, x : x + 160] == rendering).all()


def test_names_as_long_and_odd_as_they_come_are_not_clipped(tmp_path):
    made = describe(build("ant"), 5)
    odd = "a $\\frac{x}$ <b>name</b> [red]that[/] goes on " * 9
    joints = tuple(dataclasses.replace(made.limbs[1].joints[0], name=odd) for _ in range(30))
    limbs = tuple(dataclasses.replace(limb, name=odd, joints=joints) for limb in made.limbs)
    size = body_picture(dataclasses.replace(made, name=odd, limbs=limbs), None, tmp_path / "odd.png", odd)
    picture = read(tmp_path / "odd.png")
    assert picture.shape[1::-1] == size and max(size) < 4000
    assert (picture[:, -4:] == 255).all() and (picture[-4:] == 255).all()


@pytest.mark.parametrize(("bodies", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (15, 4, 4)])
def test_a_sheet_has_one_cell_for_each_body(tmp_path, bodies, columns, rows):
    colours = np.random.default_rng(0).integers(0, 200, (bodies, 3), np.uint8)
    renderings = [np.broadcast_to(colour, (40, 60, 3)) for colour in colours]
    size = sheet([f"body_{i}" for i in range(bodies)], renderings, tmp_path / "sheet.png")
    width, height = 60 + 8, 40 + TITLE_HEIGHT + 4
    assert size == (columns * width, rows * height)
    picture = read(tmp_path / "sheet.png")
    assert picture.shape == (*size[::-1], 3)
    for cell in range(columns * rows):
        row, column = divmod(cell, columns)
        part = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        if cell < bodies:
            assert (part[4:44, 4:64] == colours[cell]).all()
            assert (part[46:] < 128).any(), "its name stands below"
        else:
            assert (part == 255).all()
