"""Drawn bodies: the same for a number everywhere, within their ranges, and standing."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import BodySet, Morphology, build, get_split
from somite.envs.locomotion.bodies.families import load_manifest
from somite.envs.locomotion.bodies.quadruped import PLACES, RANGES, drawn_shape, full_shape, quadruped

from ..helpers import LISTED

NUMBERS = range(0, 128, 8)
FIRST = {
    "half_length": 0.1958,
    "legs": ["left_front", "left_middle", "left_back", "right_back", "right_front"],
}


def test_a_number_is_one_body_and_another_number_another():
    for number in (0, 5, 10**12):
        first, again = (Morphology("x", quadruped(drawn_shape(number)).compile()) for _ in range(2))
        assert first.hash == again.hash == build(f"quadruped_{number}").hash
    assert len({build(f"quadruped_{number}").hash for number in range(200, 230)}) == 30


def test_the_stream_is_still_the_one_of_the_manifest():
    # Other numbers here mean that all kept results are about other bodies.
    shape = drawn_shape(0)
    assert shape.values["half_length"] == FIRST["half_length"] and list(shape.legs) == FIRST["legs"]


def test_everything_drawn_is_in_its_range_and_the_legs_surround_the_body():
    for number in range(128):
        shape = drawn_shape(number)
        legs = zip(*shape.legs.values(), strict=True)
        drawn = {name: [value] for name, value in shape.values.items()} | dict(
            zip(("angle", "size"), legs, strict=True)
        )
        assert set(drawn) == set(RANGES)
        for name, values in drawn.items():
            assert all(RANGES[name][0] <= value <= RANGES[name][1] for value in values), name
        angles = sorted(60 * PLACES.index(place) + 30 + angle for place, (angle, _) in shape.legs.items())
        assert 3 <= len(angles) <= 6
        assert max(np.diff([*angles, angles[0] + 360])) < 180


def test_every_number_of_legs_occurs():
    assert {len(drawn_shape(number).legs) for number in range(128)} == {3, 4, 5, 6}


@pytest.mark.parametrize("name", [*(f"quadruped_{number}" for number in NUMBERS), "quadruped_full"])
def test_a_body_starts_with_all_its_feet_on_the_ground(name):
    body = build(name)
    data = mujoco.MjData(body.model)
    data.qpos = body.initial_qpos
    mujoco.mj_kinematics(body.model, data)
    shins = [i for i in range(body.model.ngeom) if "shin" in body.model.geom(i).name]
    ends = [
        data.geom_xpos[i] - data.geom_xmat[i].reshape(3, 3)[:, 2] * body.model.geom_size[i, 1] * sign
        for i in shins
        for sign in (1, -1)
    ]
    lows = np.array(ends)[:, 2].reshape(-1, 2).min(1) - body.model.geom_size[shins, 0]
    np.testing.assert_allclose(lows, 0, atol=1e-9)
    box = body.model.geom("torso_geom")
    assert data.geom("torso_geom").xpos[2] - box.size[2] > 0.05


def test_left_alone_a_body_stays_upright_and_comes_to_rest():
    for number in range(0, 128, 16):
        body = build(f"quadruped_{number}")
        data = mujoco.MjData(body.model)
        data.qpos = body.initial_qpos
        for _ in range(400):
            mujoco.mj_step(body.model, data)
        assert np.abs(data.qvel).max() < 0.2, body.name
        assert data.xmat[1][8] > 0.95 and data.qpos[2] > 0.35 * body.standing_height, body.name


def test_the_full_body_has_all_legs_and_is_no_member():
    body = build("quadruped_full")
    assert body.full_body is None and list(full_shape().legs) == list(PLACES) and body.n_limbs == 13
    assert "quadruped_full" not in LISTED and "quadruped_full" not in load_manifest()["bodies"]
    assert "quadruped_full" not in get_split("quadruped", "all").seen


def test_the_split_is_by_number():
    chosen = get_split("quadruped", "drawn")
    assert chosen.seen == tuple(f"quadruped_{number}" for number in range(64))
    assert chosen.unseen == tuple(f"quadruped_{number}" for number in range(64, 128))


def test_a_body_that_is_not_listed_can_be_trained_on_and_chosen():
    bodies = BodySet("quadruped", "drawn", bodies=["quadruped_1000"])
    assert bodies.seen == ("quadruped_1000",) and len(bodies.unseen) == 64
    assert bodies.choose("quadruped_12345") == ("quadruped_12345",)


@pytest.mark.parametrize(
    "name", ["quadruped_x", "quadruped_-1", "quadruped_07", "quadruped_1.0", "quadruped_"]
)
def test_what_is_no_number_is_told_how_bodies_are_called(name):
    with pytest.raises(UserError, match=f"{name}'; choices: quadruped_0, quadruped_1 and so on without end"):
        build(name)
    with pytest.raises(UserError, match="choices: quadruped_0, .*, quadruped_full, all, seen, unseen"):
        BodySet("quadruped", "drawn").choose(name)
