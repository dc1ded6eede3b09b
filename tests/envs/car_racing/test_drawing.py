"""The picture is Gymnasium's, part by part, and not on average only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("Box2D")

import cv2
from gymnasium.envs.box2d.car_racing import CarRacing

from somite.envs.car_racing.drawing import CAR_COLUMNS, CAR_ROWS, INDICATOR_ROWS, Painter
from somite.envs.car_racing.simulation import Racing, read_cars

from .driving import Driver

FRAMES, TRACKS, EVERY = 64, 3, 6
ZOOM_FRAMES = 50


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """(192, 96, 96, 3) of ours and of Gymnasium's: the zoom of the first second, bends, kerbs, skidding."""
    ours, theirs = [], []
    for seed in range(TRACKS):
        fast, slow = Racing(), CarRacing()
        fast.reset(seed=seed)
        picture, _ = slow.reset(seed=seed)
        painter, driver = Painter(1), Driver(fast, seed)
        painter.start(0, fast)
        for frame in range(FRAMES * EVERY):
            if frame % EVERY == 0:
                ours.append(np.empty((96, 96, 3), np.uint8))
                painter.draw([0], [fast], read_cars([fast]), ours[-1][None])
                theirs.append(slow.state.copy())
            action = driver.act()
            fast.step(action)
            # Drawing takes nearly all of its time: only what is compared is drawn.
            slow._render = CarRacing._render.__get__(slow) if (frame + 1) % EVERY == 0 else lambda mode: None
            slow.step(action)
    folder = os.environ.get("SOMITE_PICTURES")
    if folder:  # a grid to look at: ours above Gymnasium's
        Path(folder).mkdir(parents=True, exist_ok=True)
        shown = [np.concatenate([ours[i], theirs[i]]) for i in range(0, len(ours), 16)]
        grid = np.concatenate([np.concatenate(shown[i : i + 10], 1) for i in (0, 10)])
        cv2.imwrite(str(Path(folder) / "car_racing.png"), grid[:, :, ::-1].repeat(4, 0).repeat(4, 1))
    return np.array(ours), np.array(theirs)


def distance(pictures: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    ours, theirs = pictures
    return np.abs(ours.astype(int) - theirs.astype(int))


def test_the_mean_difference_is_small(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    assert len(pictures[0]) == 192
    assert distance(pictures).mean() < 1.0  # the goal is 4
    assert distance(pictures).mean((1, 2, 3)).max() < 4.0


def is_color(pictures: np.ndarray, color: tuple[int, int, int], within: int) -> np.ndarray:
    return (np.abs(pictures.astype(int) - color) <= within).all(-1)


def after_zooming(pictures: np.ndarray) -> np.ndarray:
    """Those after an episode's first second, in which the view comes nearer."""
    parts = pictures.reshape(TRACKS, FRAMES, *pictures.shape[1:])
    return parts[:, ZOOM_FRAMES // EVERY + 1 :].reshape(-1, *pictures.shape[1:])


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Intersection over union."""
    return (ours & theirs).sum() / (ours | theirs).sum()


def test_the_road_is_where_it_is(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    road = [is_color(p[:, :84], (102, 102, 102), 12) for p in pictures]
    assert agreement(*road) > 0.95
    for ours, theirs in zip(*(after_zooming(r) for r in road), strict=True):
        assert agreement(ours, theirs) > 0.9 or theirs.sum() < 200


def test_the_shades_of_the_road_are_those_of_its_tiles(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    world = [after_zooming(p[:, :60]) for p in pictures]
    road = is_color(world[0], (102, 102, 102), 6) & is_color(world[1], (102, 102, 102), 6)
    levels = [w[road][:, 0].astype(int) for w in world]
    assert np.abs(levels[0] - levels[1]).mean() < 0.5
    assert np.corrcoef(*levels)[0, 1] > 0.9, "each tile has its own of three shades"
    assert all((found == level).mean() > 0.1 for found in levels for level in (100, 102, 105))


def assert_within_a_pixel(
    pictures: tuple[np.ndarray, np.ndarray], color: tuple[int, int, int], within: int, least: int
) -> None:
    """What clearly has a colour in one picture has it, at least roughly, within a pixel in the other.

    Args:
        pictures: of ours and of Gymnasium's.
        color: of the part.
        within: of each colour, to be clearly of it.
        least: pictures that show the part.
    """
    clearly = [is_color(p, color, within) for p in pictures]
    roughly = [is_color(p, color, min(3 * within, 100)) for p in pictures]
    kernel, found = np.ones((3, 3), np.uint8), 0
    for one, other in ((0, 1), (1, 0)):
        for strict, loose in zip(clearly[one], roughly[other], strict=True):
            near = cv2.dilate(loose.astype(np.uint8), kernel) > 0
            assert not (strict & ~near).any()
            found += strict.any()
    assert found >= 2 * least


def test_kerbs_are_red_and_white_within_a_pixel(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    world = [p[:, :60] for p in pictures]  # above the car
    assert_within_a_pixel(world, (253, 0, 0), 40, least=10)
    assert_within_a_pixel(world, (253, 253, 253), 40, least=10)
    # In the middle of a kerb, away from its blurred rim, the colour is the same.
    red = [is_color(p, (253, 0, 0), 40) for p in world]
    both = red[0] & red[1]
    assert np.abs(world[0].astype(int) - world[1])[both].mean() < 16


def test_grass_squares_are_within_a_pixel(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    squares = [is_color(p[:, :84], (100, 228, 100), 8) for p in pictures]
    settled = [after_zooming(s) for s in squares]
    assert_within_a_pixel([after_zooming(p[:, :84]) for p in pictures], (100, 228, 100), 6, least=120)
    assert agreement(*settled) > 0.95


def test_the_car_is_drawn_with_its_wheels(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    settled = [after_zooming(p[:, CAR_ROWS, CAR_COLUMNS]) for p in pictures]
    assert distance(settled).mean() < 8.0
    assert_within_a_pixel(settled, (202, 0, 0), 30, least=120)
    # The body's middle: the same red everywhere.
    middle = [p[:, 72 - CAR_ROWS.start, 48 - CAR_COLUMNS.start].astype(int) for p in settled]
    assert np.abs(middle[0] - middle[1]).max() <= 16
    front, back = (slice(0, 5), slice(7, 12))
    for rows in (front, back):  # wheels are dark, at all four corners
        dark = [(p[:, rows].max(-1) < 90).any((1, 2)) for p in settled]
        assert (dark[0] == dark[1]).mean() > 0.95 and dark[1].mean() > 0.9


def test_indicators_show_the_same_values(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    bars = [p[:, INDICATOR_ROWS] for p in pictures]
    assert distance(bars).mean() < 1.0
    for color in ((253, 253, 253), (0, 0, 253), (0, 253, 0), (253, 0, 0)):
        right_of_the_digits = [p[:, :, 12:] for p in bars]
        assert_within_a_pixel(right_of_the_digits, color, 40, least=15)
    digits = [p[:, 2:7, :12].mean() for p in bars]
    assert digits[0] == pytest.approx(digits[1], rel=0.1) and digits[1] > 20


def test_a_missing_car_would_be_noticed(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    without = pictures[0].copy()
    without[:, CAR_ROWS, CAR_COLUMNS] = without[:, 60:61, CAR_COLUMNS]
    with pytest.raises(AssertionError):
        test_the_car_is_drawn_with_its_wheels((without, pictures[1]))
    test_the_mean_difference_is_small((without, pictures[1]))  # which a mean would not
