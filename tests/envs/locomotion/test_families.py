"""Families, their manifest, and splits that cannot leak."""

from __future__ import annotations

from importlib import resources

import mujoco
import numpy as np
import pytest
from omegaconf import OmegaConf

from somite.envs.errors import UserError
from somite.envs.locomotion import (
    FAMILIES,
    BodySet,
    LocomotionTask,
    LocomotionVectorEnv,
    Morphology,
    build,
    get_split,
)
from somite.envs.locomotion.bodies import families
from somite.envs.locomotion.bodies.families import checked_split, find_member, load_manifest
from somite.envs.locomotion.bodies.model_edits import without

from .helpers import HINGE, LISTED, SAMPLED, SLIDE, add_capsule, add_motor, legged

MANIFEST = load_manifest()
SPLITS = [(family, split) for split, families in MANIFEST["splits"].items() for family in families]
EDITED = ("shortened", "quadruped")
"""In names of bodies of which more is changed than that limbs are missing."""


def lowest_point(body: Morphology, qpos: np.ndarray) -> float:
    """Lowest point of capsules, spheres and boxes."""
    data = mujoco.MjData(body.model)
    data.qpos = qpos
    mujoco.mj_kinematics(body.model, data)
    lows = []
    for geom in np.flatnonzero(body.model.geom_bodyid > 0):
        radius, half, _ = body.model.geom_size[geom]
        if body.model.geom_type[geom] == int(mujoco.mjtGeom.mjGEOM_SPHERE):
            half = 0.0
        reach = abs(data.geom_xmat[geom][8]) * half + radius
        if body.model.geom_type[geom] == int(mujoco.mjtGeom.mjGEOM_BOX):
            reach = np.abs(data.geom_xmat[geom][6:]) @ body.model.geom_size[geom]
        lows.append(data.geom_xpos[geom][2] - reach)
    return min(lows)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_members_are_one_body(family):
    members = FAMILIES[family].members
    assert len({build(name).hash for name in members}) == len(members)


@pytest.mark.parametrize("name", LISTED)
def test_the_manifest_holds_mass_and_hash_of_the_compiled_body(name):
    stored, body = MANIFEST["bodies"][name], build(name)
    assert body.mass == pytest.approx(stored["mass"], abs=1e-6)
    assert body.hash == stored["hash"]


def test_the_manifest_names_no_other_bodies():
    assert list(MANIFEST["bodies"]) == LISTED


@pytest.mark.parametrize("name", LISTED)
def test_every_limb_has_a_name_and_a_slot_in_the_full_body(name):
    body = build(name)
    names = [limb.name for limb in body.limbs]
    assert all(body.model.body(name).name for name in names) and len(set(names)) == len(names)
    assert set(names) <= {limb.name for limb in (body.full_body or body).limbs}
    assert len(set(body.aligned_slots)) == body.n_limbs


@pytest.mark.parametrize(
    "name", [n for n in SAMPLED if build(n).full_body and not any(word in n for word in EDITED)]
)
def test_limbs_weigh_what_they_weigh_in_the_full_body(name):
    # Without fixed inertias, `settotalmass` would share the missing legs' mass among what remains.
    body = build(name)
    for limb in body.limbs:
        here, there = body.model.body(limb.name), body.full_body.model.body(limb.name)
        hangs_elsewhere = name.startswith("hopper") and limb.name in ("torso", "foot")
        placed = () if hangs_elsewhere else ("pos", "quat")
        for field in ("mass", "inertia", "ipos", "iquat", *placed):
            np.testing.assert_array_equal(getattr(here, field), getattr(there, field), err_msg=field)
    assert body.mass == pytest.approx(sum(body.model.body_mass))


@pytest.mark.parametrize("name", SAMPLED)
def test_every_body_starts_as_near_to_the_ground_as_the_full_one(name):
    body = build(name)
    full = body.full_body or body
    start = lowest_point(body, body.initial_qpos)
    assert start == pytest.approx(lowest_point(full, full.initial_qpos), abs=1e-9)
    data = mujoco.MjData(body.model)
    data.qpos = body.initial_qpos
    mujoco.mj_kinematics(body.model, data)
    assert body.standing_height == pytest.approx(data.xpos[1, 2] - start, abs=1e-9)


def test_a_body_drawn_lying_is_raised_along_the_worlds_vertical():
    # Its slide's axis is (0, 1, 0) in the trunk's frame, and points up in the world.
    def body(leg, full=None):
        spec = mujoco.MjSpec()
        trunk = spec.worldbody.add_body(name="trunk", pos=[0, 0, 1], quat=[0.5**0.5, 0.5**0.5, 0, 0])
        for name, axis in (("forward", [1, 0, 0]), ("up", [0, 1, 0])):
            trunk.add_joint(name=name, type=SLIDE, axis=axis)
        add_capsule(trunk, (0, -0.1, 0), (0, 0.1, 0))
        limb = trunk.add_body(name="leg", pos=[0, -0.1, 0])
        limb.add_joint(name="hip", type=HINGE, axis=[0, 0, 1])
        add_capsule(limb, (0, 0, 0), (0, -leg, 0))
        add_motor(spec, "hip")
        return Morphology("lying", spec.compile(), full)

    full = body(0.6)
    short = body(0.2, full)
    np.testing.assert_allclose(short.initial_qpos, [0, -0.4, 0], atol=1e-9)
    assert lowest_point(short, short.initial_qpos) == pytest.approx(lowest_point(full, full.initial_qpos))


def test_the_hash_depends_neither_on_names_nor_on_the_order_of_children_and_motors():
    first = Morphology("first", legged(("left", "right")).compile())
    spec = legged(("right", "left"))
    renamed = {part.name: f"part{index}" for index, part in enumerate(spec.joints)}
    for actuator in spec.actuators:
        actuator.target = renamed[actuator.target]
    for part in spec.joints:
        part.name = renamed[part.name]
    for index, part in enumerate(spec.bodies[1:]):
        part.name = f"body{index}"
    assert Morphology("second", spec.compile()).hash == first.hash


@pytest.mark.parametrize(
    "change", [{"density": 1001.0}, {"length": 0.401}, {"gear": 30.1}, {"limit": 1.001}], ids=str
)
def test_the_hash_tells_bodies_apart_by_mass_length_gear_and_range(change):
    assert Morphology("x", legged(**change).compile()).hash != Morphology("y", legged().compile()).hash


def test_the_hash_tells_where_a_child_hangs():
    left = legged()
    moved = legged()
    moved.body("left_shin").pos = [0.001, 0, -0.35]
    assert Morphology("x", left.compile()).hash != Morphology("y", moved.compile()).hash


@pytest.mark.parametrize(("family", "split"), SPLITS)
def test_no_body_stands_on_both_sides_of_a_split(family, split):
    chosen = get_split(family, split)
    members = set(FAMILIES[family].members)
    assert set(chosen.seen) | set(chosen.unseen) <= members
    assert "seen" in MANIFEST["splits"][split][family] or len(chosen.seen) + len(chosen.unseen) == len(
        members
    )
    seen, unseen = ({build(name).hash for name in side} for side in (chosen.seen, chosen.unseen))
    assert not seen & unseen and seen
    assert bool(unseen) == (split != "intact")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_split_all_holds_out_nothing(family):
    chosen = get_split(family, "all")
    assert set(chosen.seen) == set(FAMILIES[family].members) and not chosen.unseen


def test_a_split_that_leaks_under_another_name_is_refused_with_both_names():
    # The published split holds out walker_5_main and trains on its twin walker_5_flipped.
    with pytest.raises(UserError) as error:
        checked_split("published", ["walker_7", "walker_5_flipped"], ["walker_5_main"], build)
    assert "'walker_5_main'" in str(error.value) and "'walker_5_flipped'" in str(error.value)
    assert checked_split("fine", ["walker_7"], ["walker_5_main"], build).unseen == ("walker_5_main",)


def test_a_leak_in_the_manifest_is_refused(monkeypatch):
    leaky = FAMILIES["walker"]
    # The mirror image of walker_6.
    monkeypatch.setitem(
        leaky.members, "walker_6_mirrored", lambda: without(leaky.members["walker_7"](), "foot")
    )
    families.build.cache_clear()
    with pytest.raises(UserError, match="'walker_6' is the seen body 'walker_6_mirrored'"):
        get_split("walker", "smp")


def test_unknown_names_are_told_the_nearest_one():
    for call, hint in (
        (lambda: build("cheeta_4_front"), "did you mean 'cheetah_4_front'"),
        (lambda: build("zebra"), "the families are cheetah, walker"),
        (lambda: get_split("wlker", "smp"), "did you mean 'walker'"),
        (lambda: get_split("walker", "amorphus"), "did you mean 'amorpheus'"),
        (lambda: BodySet("walker", bodies=["walker_7_man"]), "did you mean 'walker_7_main'"),
        (lambda: BodySet("walker").choose("unsen"), "did you mean 'unseen'"),
    ):
        with pytest.raises(UserError, match=hint):
            call()


def test_a_body_set_of_one_body_keeps_the_splits_unseen_bodies():
    specialist = BodySet("cheetah", "smp", bodies="cheetah_7_full")
    assert specialist.seen == ("cheetah_7_full",)
    assert specialist.unseen == get_split("cheetah", "smp").unseen
    with pytest.raises(UserError, match="leaks"):
        BodySet("cheetah", "smp", bodies=["cheetah_4_front"])


def test_bodies_are_chosen_by_group_name_or_alias():
    bodies = BodySet("walker", "smp")
    assert bodies.choose("unseen") == ("walker_5", "walker_6")
    assert bodies.choose("all") == bodies.seen + bodies.unseen
    assert bodies.choose("walker_5_main") == ("walker_5",)
    assert bodies.choose(["walker_2", "walker_7_flipped"]) == ("walker_2", "walker_7")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": (1, 2), "relative_height": (1, 2)}, "not both"),
        ({"height": (2, 1)}, "height must be"),
        ({"relative_height": (1,)}, "relative_height must be"),
        ({"max_tilt": 4.0}, "max_tilt"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"speed_noise": "gaussian"}, "speed_noise"),
        ({"progress": "torso"}, "progress"),
        ({"direction": (0, 0)}, "direction"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        LocomotionTask(**values)


@pytest.mark.parametrize("name", SAMPLED)
def test_no_body_starts_outside_what_its_familys_task_calls_healthy(name):
    # Absolute heights, tuned for the full body, end other bodies' episodes on their first step.
    settings = OmegaConf.load(resources.files("somite.conf") / "env" / f"{find_member(name)[0].name}.yaml")
    values = OmegaConf.to_container(settings.task)
    values.pop("_target_")
    env = LocomotionVectorEnv([name], 20, LocomotionTask(**values), frame_skip=settings.frame_skip, threads=1)
    env.reset(seed=0)
    for _ in range(3):
        assert not env.step(np.zeros(env.action_space.shape))[2].any()
