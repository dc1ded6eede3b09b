"""Drawn planar bodies: the same for a number everywhere, about the literature's and none of them."""

from __future__ import annotations

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from somite.envs.locomotion import BodySet, Morphology, build, get_split
from somite.envs.locomotion.bodies import planar
from somite.envs.locomotion.bodies.families import load_manifest
from somite.envs.locomotion.bodies.near_twins import (
    ABSENT,
    HELD_OUT,
    NEAR,
    distance,
    distances,
    is_near_literature,
)
from somite.envs.locomotion.bodies.planar import CLEARANCE, RANGES, drawn_shape, first_far, full_shape
from somite.envs.locomotion.bodies.planar_shape import Capsule, Hinge, Segment, Shape, planar_body
from somite.envs.locomotion.bodies.recipes import CHEETAHS

FAMILIES = list(RANGES)
SURROUNDED = {"planar": ("cheetah",), "planar_upright": ("walker", "hopper", "humanoid")}
"""Words with which names of the literature's bodies begin that lie inside what a family draws."""


def bodies(family: str, numbers: range = range(64)) -> list[Morphology]:
    return [build(f"{family}_{number}") for number in numbers]


def cheetah(legs: tuple[int, int] = (3, 3)) -> Shape:
    """The cheetah with so many segments of the back and of the front leg, as a shape."""
    density, friction = 661.6, 0.4
    trunk = Capsule((-0.5, 0.0), (0.5, 0.0), 0.046, friction)
    head = Capsule((0.4854, 0.0033), (0.7146, 0.1967), 0.046, friction)
    shape = [Segment("torso", "", (0.0, 0.0, 0.0), (trunk, head), density)]
    steps = {
        "leg_1": [(-0.5, 0.0), (0.16, -0.25), (-0.28, -0.14), (0.0556, -0.1797)],
        "leg_4": [(0.5, 0.0), (-0.14, -0.24), (0.13, -0.18), (0.0757, -0.1178)],
    }
    for (name, (place, *ends)), count in zip(steps.items(), legs, strict=True):
        above = "torso"
        for index, end in enumerate(ends[:count]):
            hinge = Hinge((-0.5, 0.5), 60.0, 120.0, 3.0, 0.1)
            capsule = Capsule((0.0, 0.0), end, 0.046, friction)
            x, z = place
            own = Segment(f"{name}_{index + 1}", above, (x, 0.0, z), (capsule,), density, hinge)
            shape.append(own)
            above, place = own.name, (x + end[0], z + end[1])
    return tuple(shape)


def segments(shape: Shape, limb: str) -> list[list[Segment]]:
    """Of all legs or arms."""
    limbs: dict[str, list[Segment]] = {}
    for own in shape:
        if own.name.startswith(limb):
            limbs.setdefault(own.name[: len(limb) + 2], []).append(own)
    return list(limbs.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_numbers_are_one_body(family):
    assert len({body.hash for body in bodies(family)}) == 64
    again = planar_body(family, drawn_shape(family, 10**12)).compile()
    assert Morphology("x", again).hash == build(f"{family}_{10**12}").hash


def test_every_number_of_legs_segments_and_parts_of_the_trunk_occurs():
    shapes = [drawn_shape("planar", number) for number in range(64)]
    legs = [segments(shape, "leg_") for shape in shapes]
    assert {len(own) for own in legs} == {1, 2, 3, 4}
    assert {len(leg) for own in legs for leg in own} == {1, 2, 3, 4}
    assert {sum(own.name.startswith("torso") for own in shape) for shape in shapes} == {1, 2, 3}
    shapes = [drawn_shape("planar_upright", number) for number in range(64)]
    assert {len(segments(shape, "leg_")) for shape in shapes} == {1, 2, 3}
    assert {len(segments(shape, "arm_")) for shape in shapes} == {0, 1, 2}
    assert {own.hinge.axis for shape in shapes for own in shape if own.hinge} == {1, -1}


def test_many_legs_end_in_a_segment_that_is_nearly_gone():
    last = [leg[-1] for number in range(64) for leg in segments(drawn_shape("planar", number), "leg_")]
    lengths = np.array([np.hypot(*own.capsules[0].end) for own in last])
    assert 0.05 < (lengths < 0.05).mean() < 0.3 and lengths.min() < 0.03
    thin = min(last, key=lambda own: own.capsules[0].radius)
    assert thin.hinge.strength < 10 and thin.hinge.armature > RANGES["planar"]["armature"][0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_literatures_bodies_lie_inside_what_is_drawn(family):
    def columns(own: list[Morphology]) -> list[np.ndarray]:
        rows = [body.limb_descriptors for body in own]
        joints = [row for body in own for limb in body.joint_descriptors for row in limb]
        return [np.array([r[0] for r in rows]), np.concatenate([r[1:] for r in rows]), np.array(joints)]

    held_out = [build(name) for name in HELD_OUT if name.startswith(SURROUNDED[family])]
    for drawn, theirs in zip(columns(bodies(family, range(96))), columns(held_out), strict=True):
        outside = (theirs < drawn.min(0) - 1e-6) | (theirs > drawn.max(0) + 1e-6)
        assert not outside.any(), np.flatnonzero(outside.any(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_drawn_body_is_close_to_one_of_the_literature(family):
    for body in bodies(family) + [build(f"{family}_{number}") for number in range(1000, 1032)]:
        assert min(distances(body.model).values()) >= NEAR, body.name


@pytest.mark.parametrize(("name", "legs"), [("7_full", (3, 3)), ("5_balanced", (2, 2)), ("2_front", (0, 1))])
def test_a_shape_that_is_a_cheetah_is_drawn_again(name, legs, monkeypatch):
    twin, other = cheetah(legs), full_shape("planar")
    model = planar_body("planar", twin).compile()
    assert distance(model, CHEETAHS[f"cheetah_{name}"]().compile()) < 0.06
    monkeypatch.setattr(planar, "draw", lambda *_: next(drawn))
    drawn = iter((twin, other))
    assert first_far("planar", lambda: 0.5) is other
    drawn = iter((twin, other))
    monkeypatch.setattr(planar, "is_near_literature", lambda model: False)
    assert first_far("planar", lambda: 0.5) is twin  # it is the distance alone that refuses it


def test_distance_is_the_largest_difference_of_matching_limbs():
    def model(*shape: Segment) -> mujoco.MjModel:
        return planar_body("planar", shape).compile()

    full = cheetah()
    own = model(*full)
    assert distance(own, own) == 0
    trunk, back, front = full[:1], full[1:4], full[4:]
    assert distance(own, model(*trunk, *front, *back)) == 0  # the order of legs does not count
    heavy = [replace(s, density=s.density * 1.5) if s.name == "leg_1_2" else s for s in full]
    assert distance(own, model(*heavy)) == pytest.approx(1 / 3) == distance(model(*heavy), own)
    moved = [replace(s, place=(s.place[0] + 0.2, *s.place[1:])) if s in front else s for s in full]
    assert distance(own, model(*moved)) == pytest.approx(0.2 / 1.092)
    assert distance(own, model(*full[:-1])) == math.inf
    # A segment that is nearly gone makes no other body; one that is there does.
    for length, expected in ((ABSENT / 2, 0), (ABSENT * 2, math.inf)):
        last = full[-1]
        end = Capsule((0.0, 0.0), (0.0, -length + 0.02), 0.01, 0.4)
        stump = Segment("leg_4_4", last.name, last.place, (end,), 661.6, last.hinge)
        assert distance(own, model(*full, stump)) == expected


def test_arms_and_walkers_are_told_apart():
    assert is_near_literature(build("walker_3").model)
    assert distance(build("walker_7").model, build("humanoid_2d_7_lower_arms").model) == math.inf
    # Left and right are one in the plane.
    assert distance(build("humanoid_2d_8_left_knee").model, build("humanoid_2d_8_right_knee").model) == 0


@pytest.mark.parametrize(("family", "theirs"), [("planar", "cheetah_7_full"), ("planar_upright", "walker_7")])
def test_a_body_is_simulated_as_the_literatures(family, theirs):
    ours, theirs = build(f"{family}_4").model, build(theirs).model
    for field in ("timestep", "integrator", "gravity", "solver", "cone", "iterations", "density", "impratio"):
        np.testing.assert_array_equal(getattr(ours.opt, field), getattr(theirs.opt, field), err_msg=field)
    for field in ("condim", "contype", "conaffinity", "solimp", "solref", "margin", "solmix", "priority"):
        mine, other = (getattr(model, f"geom_{field}") for model in (ours, theirs))
        np.testing.assert_array_equal(mine[0], other[0], err_msg=field)  # the floor
        np.testing.assert_array_equal(mine[1:], np.broadcast_to(other[1], mine[1:].shape), err_msg=field)
    assert ours.geom_friction[0, 0] <= ours.geom_friction[1:, 0].min()  # so that those of limbs count
    for field in ("solimp", "solref", "margin", "type", "limited"):
        mine, other = (getattr(model, f"jnt_{field}") for model in (ours, theirs))
        np.testing.assert_array_equal(mine[3], other[3], err_msg=field)  # behind those of the root
    np.testing.assert_array_equal(ours.actuator_ctrlrange, [[-1, 1]] * ours.nu)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_body_starts_upright_as_near_to_the_ground_as_the_literatures(family):
    for body in bodies(family):
        assert body.lowest_point(body.initial_qpos) == pytest.approx(CLEARANCE[family], abs=1e-9)
        # Nothing but the root's height differs from the model's own pose, in which no frame is turned.
        assert np.count_nonzero(body.initial_qpos) <= 1 and np.all(body.model.body_quat[:, 0] == 1)
    data = build(f"{family}_full").placed(build(f"{family}_0").full_body.initial_qpos)
    assert data.qpos.any() == 0


@pytest.mark.parametrize(("family", "frame_skip"), [("planar", 5), ("planar_upright", 4)])
def test_nothing_diverges_and_bodies_of_one_layout_are_simulated_together(family, frame_skip):
    task = BodySet(family, "drawn", frame_skip=frame_skip)
    assert set(task.seen) == set(get_split(family, "drawn").seen)
    env = task.make_env(num_envs=64, threads=1)
    assert len(env._blocks) == len({build(name).structure for name in task.seen}) < 60
    env.reset(seed=0)
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        actions = torch.rand(64, env.n_limbs, env.n_joints, generator=random) * 2 - 1
        assert not env.step(actions.sign()).diverged.any()
    env.close()


def test_bodies_whose_slots_differ_share_a_batch_unless_slots_are_aligned():
    groups: dict[tuple, list[Morphology]] = {}
    for body in bodies("planar"):
        groups.setdefault(body.structure, []).append(body)
    one, other = next(
        (a, b)
        for own in groups.values()
        for a, b in [own[:2]] * (len(own) > 1)
        if a.aligned_slots != b.aligned_slots
    )
    task = BodySet("planar", "drawn_16")

    def tokens(*chosen: Morphology) -> torch.Tensor:
        env = task.make_env(chosen, threads=1)
        env.reset(seed=[[0, 0]] * len(chosen))
        for _ in range(5):
            told = env.step(torch.full((len(chosen), env.n_limbs, env.n_joints), 0.5))
        env.close()
        return told.observation["tokens"]

    blocks = {}
    for aligned in (False, True):
        env = task.make_env([one, other], threads=1, aligned=aligned)
        blocks[aligned] = len(env._blocks)
        env.close()
    assert blocks == {False: 1, True: 2}
    together = tokens(one, other)
    for row, body in enumerate((one, other)):
        assert torch.equal(together[row], tokens(body)[0])


def test_splits_are_ranges_of_numbers():
    for split, count in (("drawn_16", 16), ("drawn", 64)):
        chosen = get_split("planar", split)
        assert chosen.seen == tuple(f"planar_{number}" for number in range(count))
        assert chosen.unseen == tuple(f"planar_{number}" for number in range(1000, 1032))
    slim = get_split("planar", "slim_64").seen
    last = int(slim[-1].split("_")[-1])
    assert len(slim) == 64 and max(build(name).n_limbs for name in slim) == 8
    assert {f"planar_{n}" for n in range(last)} - set(slim) == {
        f"planar_{n}" for n in range(last) if build(f"planar_{n}").n_limbs > 8
    }
    assert load_manifest()["splits"]["drawn_256"]["planar"]["seen"] == {"first": 0, "count": 256}


def test_bodies_of_two_legs_are_all_that_have_them():
    few, many = (get_split("planar", f"two_legs_{count}").seen for count in (64, 256))
    assert many[:64] == few and len(many) == 256
    most = load_manifest()["numbers"]["two_legs"].split()
    assert len(most) == 1024 and [f"planar_{number}" for number in most[:256]] == list(many)
    assert not set(map(int, most)) & set(range(1000, 1032))

    def roots(number: int) -> list[str]:  # of the parts of the trunk and of the legs
        names = [own.name for own in planar.drawn_shape("planar", number)]
        return [name for name in names if name.startswith("torso") or name.endswith("_1")]

    last = int(few[-1].split("_")[-1])
    fitting = [n for n in range(last + 1) if len(r := roots(n)) == 3 and not r[1].startswith("torso")]
    assert [f"planar_{number}" for number in fitting] == list(few)
