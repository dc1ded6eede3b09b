"""Box2D cannot be saved: cars are replayed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("Box2D")

from somite.envs.car_racing import CarRacing, Scenery
from somite.envs.car_racing.cars import Car
from somite.envs.gym import TokenVectorEnv
from somite.envs.sensors import Senses
from tests.envs.futures import equal, go_on, read_back

DISTURBED = Senses(
    history=2, shuffle=3, noise_channels=2, missing=0.2, blinking=0.1, traces=(10,), neighbors=20
)
MOVING = Scenery(background=("clouds", "noise"), motion=1.5, color_shift=0.2)

TASKS = {
    "plain": CarRacing(Senses(history=2), max_episode_steps=30),
    "all of it": CarRacing(
        DISTURBED, MOVING, grey=False, indicators=True, action_repeat=3, max_episode_steps=100, slips=0.1
    ),
    "impatient": CarRacing(Senses(history=2), patience=10, action_repeat=2),
    "state": CarRacing(view="state", slips=0.1, max_episode_steps=300),
}


def restored(one: TokenVectorEnv, other: TokenVectorEnv, steps: int) -> None:
    """Bring the other to where the one is after so many steps."""
    one.reset(seed=0), other.reset(seed=5)
    go_on(one, steps, 0), go_on(other, 3, 1)
    other.restore(read_back(one.snapshot()))
    assert not other.begun_anew.any()


@pytest.mark.parametrize("name", TASKS)
def test_a_restored_environment_has_the_same_future(name: str) -> None:
    one, other = (TASKS[name].make_vec(num_envs=2, threads=1, stagger=True) for _ in range(2))
    restored(one, other, 250 if name == "state" else 17)
    assert equal(one.source.pictures, other.source.pictures)
    assert equal(go_on(one, 40, 1), go_on(other, 40, 1))


def test_gymnasiums_own_drawing_is_restored() -> None:
    one, other = (CarRacing(Senses(history=2), renderer="gymnasium").make_vec(num_envs=1) for _ in range(2))
    restored(one, other, 4)
    assert equal(go_on(one, 3, 1), go_on(other, 3, 1))


def test_an_onlooker_of_the_state_is_restored() -> None:
    one, other = (TASKS["plain"].make_vec(num_envs=2, beside=Senses(history=2), once=True) for _ in range(2))
    restored(one, other, 12)
    assert equal(go_on(one, 25, 1), go_on(other, 25, 1))


def test_an_old_world_and_a_fresh_one_drive_alike() -> None:
    """A replay is of one episode, in a world that may have seen many, or none."""
    old, rng = Car(CarRacing(view="state").rules), np.random.default_rng(0)
    for seed in range(4):
        old.start(seed, 0)
        for action in rng.uniform([-1, 0, 0], [1, 1, 0.2], (120, 3)):
            old.step(action)
    fresh = Car(CarRacing(view="state").rules)
    old.start(9, 0), fresh.start(9, 0)
    for action in rng.uniform([-0.3, 0, 0], [0.3, 1, 0.2], (600, 3)):
        assert old.step(action) == fresh.step(action)
        for one, other in zip(
            (old.env.car.hull, *old.env.car.wheels), (fresh.env.car.hull, *fresh.env.car.wheels), strict=True
        ):
            assert tuple(one.position) == tuple(other.position) and one.angle == other.angle


@pytest.mark.parametrize("part", ["_origins", "_states", "_episodes"])
def test_every_part_is_needed(part: str, caplog: pytest.LogCaptureFixture) -> None:
    """The negative control: without it the replay comes to another place, which is told."""
    one, other = (TASKS["state"].make_vec(num_envs=2) for _ in range(2))
    one.reset(seed=0), other.reset(seed=5)
    forwards = np.array([[0.0, 0.5, -1.0]] * 2)
    for _ in range(120):
        one.step(forwards)
    taken, others = one.snapshot(), other.snapshot()["source"]
    if part == "_origins":  # a tile on the other side of the field, from which this one is not seen
        others = {"_origins": taken["source"]["_origins"] + 100}
    other.restore({**taken, "source": {**taken["source"], part: others[part]}})
    found = other.source._origins if part == "_origins" else other.begun_anew
    assert found.all() if part != "_origins" else not equal(found, one.source._origins)
    assert ("cannot be replayed" in caplog.text) == (part != "_origins")
