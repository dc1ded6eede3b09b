"""Ants, centipedes, swimmers and humanoids: what was changed, and that nothing else was."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from somite.envs.locomotion import FAMILIES, LocomotionTask, LocomotionVectorEnv, Morphology, build, get_split
from somite.envs.locomotion.bodies.model_edits import ASSETS
from somite.envs.locomotion.bodies.spatial import ANT_LEGS, DAMAGES, ant, centipede, swimmer

COUNTS = {"ant": 17, "centipede": 9, "swimmer": 11, "humanoid": 11, "quadruped": 128}


@pytest.mark.parametrize(("family", "count"), COUNTS.items())
def test_families_have_their_members(family, count):
    assert len(FAMILIES[family].members) == count


@pytest.mark.parametrize(
    ("name", "file"), [("ant", "ant.xml"), ("swimmer_3", "swimmer.xml"), ("humanoid", "humanoid.xml")]
)
def test_the_undamaged_member_is_gymnasiums(name, file):
    ours, theirs = build(name), Morphology(file, mujoco.MjModel.from_xml_path(str(ASSETS / file)))
    assert ours.hash == theirs.hash and ours.mass == theirs.mass
    states = []
    for model in (ours.model, theirs.model):
        data, rng = mujoco.MjData(model), np.random.default_rng(0)
        for _ in range(200):
            data.ctrl = rng.uniform(*model.actuator_ctrlrange.T)
            mujoco.mj_step(model, data)
        states.append(np.concatenate([data.qpos, data.qvel]))
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("leg", ANT_LEGS)
def test_an_ants_damages_are_what_they_say(leg):
    intact = build("ant")
    shortened, locked, loosened, removed = (build(f"ant_{leg}_{damage}") for damage in DAMAGES)
    joints = [f"{joint}_{ANT_LEGS[leg][1]}" for joint in ("hip", "ankle")]

    foot, whole = (body.model.body(f"{leg}_foot") for body in (shortened, intact))
    half, full = (
        body.model.geom_size[body.model.body(f"{leg}_foot").geomadr[0], 1] for body in (shortened, intact)
    )
    assert half == pytest.approx(full / 2) and foot.mass < whole.mass
    radius, density = 0.08, 5.0
    volume = np.pi * radius**2 * 2 * half + 4 / 3 * np.pi * radius**3
    assert foot.mass[0] == pytest.approx(density * volume)
    assert (shortened.model.nu, shortened.model.njnt) == (8, 9)

    for body in (locked, removed):
        assert (body.model.nu, body.model.njnt, body.n_limbs) == (6, 7, 7)
        assert not {body.model.joint(j).name for j in range(body.model.njnt)} & set(joints)
    assert locked.mass == pytest.approx(intact.mass)
    assert removed.mass == pytest.approx(
        intact.mass - intact.model.body_subtreemass[intact.model.body(ANT_LEGS[leg][0]).id]
    )

    assert (loosened.model.nu, loosened.model.njnt, loosened.n_limbs) == (6, 9, 9)
    assert loosened.mass == intact.mass
    driven = {loosened.model.joint(i).name for i in loosened.model.actuator_trnid[:, 0]}
    assert len(driven) == 6 and not driven & set(joints)


def test_a_locked_leg_is_where_a_joint_at_its_limit_would_have_it():
    for leg, (_, number) in ANT_LEGS.items():
        locked, intact = build(f"ant_{leg}_locked").model, build("ant").model
        posed, own = mujoco.MjData(intact), mujoco.MjData(locked)
        ankle = intact.joint(f"ankle_{number}")
        posed.qpos[ankle.qposadr] = min(ankle.range, key=abs)
        mujoco.mj_kinematics(intact, posed)
        mujoco.mj_kinematics(locked, own)
        foot = f"{leg}_foot"
        np.testing.assert_allclose(own.body(foot).xpos, posed.body(foot).xpos, atol=1e-12)
        np.testing.assert_allclose(own.body(foot).xmat, posed.body(foot).xmat, atol=1e-12)


def test_mirror_images_are_bodies_of_their_own():
    pairs = [(f"ant_front_left_{damage}", f"ant_front_right_{damage}") for damage in DAMAGES]
    pairs += [
        (f"humanoid_no_left_{p}", f"humanoid_no_right_{p}") for p in ("lower_arm", "arm", "foot", "shin")
    ]
    for left, right in pairs:
        one, other = build(left), build(right)
        assert one.mass == pytest.approx(other.mass) and one.hash != other.hash


def test_splits_hold_out_what_they_say():
    assert get_split("ant", "intact").seen == ("ant",)
    damage = get_split("ant", "damage")
    assert damage.seen == ("ant", "ant_front_left_shortened")
    assert damage.unseen == ("ant_front_right_shortened",)
    every = get_split("ant", "damage_all")
    assert set(every.seen) == {"ant", *(f"ant_front_left_{damage}" for damage in DAMAGES)}
    assert set(every.unseen) == {f"ant_front_right_{damage}" for damage in DAMAGES}
    assert get_split("centipede", "nervenet").seen == ("centipede_6",)
    assert get_split("swimmer", "chain").seen == ("swimmer_5",)
    right = {f"humanoid_no_right_{part}" for part in ("lower_arm", "arm", "foot", "shin")}
    assert set(get_split("humanoid", "limbs").unseen) == right | {
        "humanoid_no_arms",
        "humanoid_no_lower_arms",
    }


@pytest.mark.parametrize("legs", range(4, 21, 2))
def test_centipedes_have_as_many_legs_as_they_are_called(legs):
    body, segments = build(f"centipede_{legs}"), legs // 2
    names = [limb.name for limb in body.limbs]
    assert sum("thigh" in name for name in names) == sum("foot" in name for name in names) == legs
    assert sum("segment" in name for name in names) == segments == body.n_limbs - 2 * legs
    assert body.model.nu == 2 * legs + 2 * (segments - 1)
    assert body.mass == pytest.approx(segments * build("centipede_4").mass / 2)


def test_a_centipedes_left_is_the_mirror_image_of_its_right():
    model = build("centipede_6").model
    for index in (1, 2, 3):
        for part in ("thigh", "foot"):
            left, right = (model.body(f"{side}_{part}_{index}") for side in ("left", "right"))
            np.testing.assert_allclose(left.pos * [1, -1, 1], right.pos)
            np.testing.assert_allclose(left.mass, right.mass)
        for joint, mirrored in (("hip", 1), ("ankle", -1)):
            left, right = (model.joint(f"{side}_{joint}_{index}") for side in ("left", "right"))
            np.testing.assert_allclose(left.axis, mirrored * right.axis)
            np.testing.assert_allclose(left.range, right.range)


@pytest.mark.parametrize("links", [4, 8, 13])
def test_a_swimmers_links_are_gymnasiums_last_one_again(links):
    body = build(f"swimmer_{links}")
    assert [limb.parent for limb in body.limbs] == list(range(-1, links - 1))
    assert body.model.nu == links - 1
    last, third = body.model.body(f"link_{links}"), body.model.body("link_3")
    for field in ("mass", "inertia", "pos", "quat", "ipos", "iquat"):
        np.testing.assert_array_equal(getattr(last, field), getattr(third, field), err_msg=field)
    for table in ("size", "pos", "quat", "contype", "conaffinity", "condim", "friction"):
        values = getattr(body.model, f"geom_{table}")
        np.testing.assert_array_equal(values[last.geomadr[0]], values[third.geomadr[0]], err_msg=table)
    ours, theirs = (body.model.joint(i) for i in (links + 1, 4))
    for field in ("range", "axis", "pos", "armature", "damping"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)
    np.testing.assert_array_equal(body.model.actuator_gear[:, 0], 150)
    assert body.model.opt.density == 4000 and body.model.opt.viscosity == 0.1


def test_the_fluid_is_part_of_what_a_swimmer_is():
    spec = swimmer(3)
    spec.option.viscosity *= 2
    assert Morphology("thick", spec.compile()).hash != build("swimmer_3").hash


def test_no_such_body_can_be_built():
    for call in (
        lambda: centipede(5),
        lambda: centipede(0),
        lambda: swimmer(2),
        lambda: ant("front_left", "bent"),
    ):
        with pytest.raises(ValueError, match="not"):
            call()


MOVED = [
    "ant_front_left_locked",
    "ant_back_right_removed",
    "centipede_6",
    "swimmer_8",
    "humanoid_no_left_shin",
]


def test_nothing_diverges_under_random_actions():
    env = LocomotionVectorEnv(MOVED, 2 * len(MOVED), LocomotionTask(reset_noise=0.01), threads=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(200):
        *_, info = env.step(rng.choice([-1.0, 1.0], env.action_space.shape))
        assert not info["diverged"].any()


@pytest.mark.parametrize("name", ["ant", "ant_back_left_locked", "centipede_4", "centipede_20", "swimmer_13"])
def test_left_alone_a_body_comes_to_rest_upright(name):
    body = build(name)
    data = mujoco.MjData(body.model)
    data.qpos = body.initial_qpos
    for _ in range(400):
        mujoco.mj_step(body.model, data)
    assert np.abs(data.qvel).max() < 0.3
    assert data.xmat[1][8] > 0.95  # the cosine of the root's tilt
