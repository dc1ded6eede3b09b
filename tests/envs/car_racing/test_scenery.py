"""What lies in place of the grass, and what else changes in the world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("Box2D")

import cv2

from somite.envs.car_racing import CarRacing, Scenery
from somite.envs.car_racing.cars import Car
from somite.envs.car_racing.drawing import Painter
from somite.envs.car_racing.scenery import GENERATORS, background_maker
from somite.envs.car_racing.simulation import read_cars
from somite.envs.errors import UserError


def shown(scenery: Scenery, look_seed: int = 0, steps: int = 60, **rules) -> tuple[np.ndarray, np.ndarray]:
    """Picture and frame of one episode after some steps."""
    car, painter = Car(CarRacing(scenery=scenery, grey=False, **rules).rules), Painter(1)
    car.start(7, look_seed)
    painter.start(0, car.env)
    for _ in range(steps):
        car.step(np.array([0.0, 0.2, 0.0]))
    picture, frame = np.empty((2, 96, 96, 3), np.uint8)
    painter.draw([0], [car.env], read_cars([car.env]), picture[None])
    car.finish(picture, frame)
    return picture, frame


@pytest.fixture(scope="module")
def original() -> np.ndarray:
    return shown(Scenery())[0]


def grass_of(original: np.ndarray) -> np.ndarray:
    world = original[:84].astype(int)
    colors = [np.array((100, 202, 100)), np.array((100, 228, 100))]
    return np.any([(world == color).all(-1) for color in colors], 0)


@pytest.mark.parametrize("name", [*GENERATORS, "plain:10,20,30"])
def test_a_background_replaces_the_grass_and_nothing_else(name: str, original: np.ndarray) -> None:
    picture, _ = shown(Scenery(background=name))
    grass = grass_of(original)
    assert grass.mean() > 0.3
    np.testing.assert_array_equal(picture[:84][~grass], original[:84][~grass])
    np.testing.assert_array_equal(picture[84:], original[84:])
    wanted = background_maker(name)(np.random.default_rng(0))
    if name.startswith("plain:"):
        assert (picture[:84][grass] == (10, 20, 30)).all()
    else:
        assert np.abs(picture[:84][grass].astype(int) - original[:84][grass]).mean() > 10
        assert wanted.shape == (96, 96, 3) and wanted.dtype == np.uint8
        assert (picture != shown(Scenery(background=name), look_seed=1)[0]).any(), "drawn for each episode"
    np.testing.assert_array_equal(picture, shown(Scenery(background=name))[0])  # of its seed


def test_a_picture_from_a_file(tmp_path: Path, original: np.ndarray) -> None:
    file = tmp_path / "red and blue.png"
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, :150] = (0, 0, 255)  # OpenCV's order: red on the left
    pixels[:, 150:] = (255, 0, 0)
    cv2.imwrite(str(file), pixels)
    picture, _ = shown(Scenery(background=str(file)))
    grass = grass_of(original)
    rows, columns = np.nonzero(grass)
    for row, column in list(zip(rows, columns, strict=True))[::50]:
        if abs(column - 48) > 2:
            assert tuple(picture[row, column]) == ((255, 0, 0) if column < 48 else (0, 0, 255))


def test_a_list_gives_each_episode_one_of_them(original: np.ndarray) -> None:
    names = ["plain:1,2,3", "plain:4,5,6", "grass"]
    grass = grass_of(original)
    scenery = Scenery(background=names)
    found = [shown(scenery, look_seed=seed)[0][:84][grass][0].tolist() for seed in range(20)]
    assert {tuple(color) for color in found} >= {(1, 2, 3), (4, 5, 6)} and len(set(map(tuple, found))) >= 3


def test_a_moving_background_moves(original: np.ndarray) -> None:
    scenery = Scenery(background="noise", motion=1.5)
    still = Scenery(background="noise")
    assert (shown(scenery, steps=61)[0] != shown(still, steps=61)[0]).any()
    grass = grass_of(original)
    moved, base = shown(scenery)[0], background_maker("noise")(_rng_after_choice())
    (row, column), *_ = np.argwhere(grass)
    places = np.argwhere((base == moved[row, column]).all(-1))  # where what is seen there may come from
    shifts = (np.roll(base, (row - down, column - across), (0, 1)) for down, across in places)
    assert any((shift[:84][grass] == moved[:84][grass]).all() for shift in shifts), "rolled, not redrawn"


def _rng_after_choice() -> np.random.Generator:
    rng = np.random.default_rng(0)
    rng.integers(1)  # which of the list
    return rng


def test_colors_bars_and_blob(original: np.ndarray) -> None:
    bars, frame = shown(Scenery(bars=True))
    assert (bars[:84, :7] == 0).all() and (bars[:84, -7:] == 0).all()
    np.testing.assert_array_equal(bars[:84, 7:-7], original[:84, 7:-7])
    assert (frame[84:] == 0).all() and (bars[84:] == original[84:]).all()
    blob, _ = shown(Scenery(blob=True))
    assert tuple(blob[30, 24]) == (255, 0, 0) and 100 < (blob != original).any(-1).sum() < 200
    shifted, _ = shown(Scenery(color_shift=0.3))
    factors = shifted[:84].reshape(-1, 3).mean(0) / original[:84].reshape(-1, 3).mean(0)
    assert np.all(np.abs(factors - 1) < 0.31) and np.abs(factors - 1).max() > 0.02
    np.testing.assert_array_equal(shifted[84:], original[84:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"background": "nois"}, "env.scenery.background='nois': no such background; did you mean 'noise'"),
        ({"background": "no/such.png"}, "env.scenery.background='no/such.png': the picture cannot be read"),
        ({"background": []}, r"must be a name or a list of names, got \[\]"),
        ({"background": 3}, "must be a name or a list of names, got 3"),
        ({"background": "plain:1,2,300"}, "a colour is three numbers from 0 to 255"),
        ({"motion": -1}, "scenery.motion must be a number from 0 to 1,000,000, got -1"),
        ({"color_shift": 2}, "scenery.color_shift must be a number from 0 to 1, got 2"),
        ({"bars": 1}, "scenery.bars must be true or false, got 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Scenery(**values)


@pytest.mark.parametrize(("content", "message"), [(b"", "the file is empty"), (b"GIF? no", "no picture")])
def test_files_that_hold_no_picture_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        Scenery(background=str(file))
