"""Families: members, the manifest, splits that cannot leak, and what was changed of Gymnasium's bodies."""

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
    Morphology,
    build,
    get_split,
    make_vec,
)
from somite.envs.locomotion.bodies import families
from somite.envs.locomotion.bodies.families import checked_split, find_member, load_manifest
from somite.envs.locomotion.bodies.model_edits import ASSETS, without
from somite.envs.locomotion.bodies.recipes import ANT_LEGS, DAMAGES, ant, centipede, swimmer

from ..helpers import DRAWN, HINGE, LISTED, SAMPLED, SLIDE, add_capsule, add_motor, legged, renamed

MANIFEST = load_manifest()
SPLITS = [(family, split) for split, families in MANIFEST["splits"].items() for family in families]
EDITED = ("shortened", "quadruped", "planar_")
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


COUNTS = {
    "cheetah": 15,
    "walker": 6,
    "hopper": 3,
    "humanoid_2d": 8,
    "ant": 17,
    "centipede": 9,
    "swimmer": 11,
    "humanoid": 11,
    "quadruped": 128,
    "planar": 64,
    "planar_upright": 64,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_members_are_those_of_the_manifest_and_no_two_are_one_body(family):
    members = FAMILIES[family].members
    assert len(members) == COUNTS[family] == len({build(name).hash for name in members})
    for name in members:
        stored, body = MANIFEST["bodies"][name], build(name)
        assert body.mass == pytest.approx(stored["mass"], abs=1e-6), name
        assert body.hash == stored["hash"], name


def test_the_manifest_is_what_would_be_written_now():
    stored = resources.files(families.__package__).joinpath(families.MANIFEST).read_text(encoding="utf-8")
    assert families.manifest_text() == stored and list(MANIFEST["bodies"]) == LISTED


@pytest.mark.parametrize("family", FAMILIES)
def test_every_limb_has_a_name_and_a_slot_in_the_full_body(family):
    for name in FAMILIES[family].members:
        body = build(name)
        names = [limb.name for limb in body.limbs]
        assert all(body.model.body(n).name for n in names) and len(set(names)) == len(names), name
        assert set(names) <= {limb.name for limb in (body.full_body or body).limbs}, name
        assert len(set(body.aligned_slots)) == body.n_limbs, name


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
    assert Morphology("second", renamed(legged(("right", "left"))).compile()).hash == first.hash


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


NOTHING_HELD_OUT = {("hopper", "fold_1"), ("hopper", "fold_4")}


@pytest.mark.parametrize(("family", "split"), SPLITS)
def test_no_body_stands_on_both_sides_of_a_split(family, split):
    chosen = get_split(family, split)
    members = set(FAMILIES[family].members)
    assert set(chosen.seen) | set(chosen.unseen) <= members or FAMILIES[family].draw
    assert "seen" in MANIFEST["splits"][split][family] or len(chosen.seen) + len(chosen.unseen) == len(
        members
    )
    seen, unseen = ({build(name).hash for name in side} for side in (chosen.seen, chosen.unseen))
    assert not seen & unseen and seen
    # There are fewer hoppers than folds.
    assert bool(unseen) == (split != "intact" and (family, split) not in NOTHING_HELD_OUT)


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


@pytest.mark.parametrize("family", FAMILIES)
def test_no_body_starts_outside_what_its_familys_task_calls_healthy(family):
    # Absolute heights, tuned for the full body, end other bodies' episodes on their first step.
    settings = OmegaConf.load(resources.files("somite.conf") / "env" / f"{family}.yaml")
    values = OmegaConf.to_container(settings.task)
    values.pop("_target_")
    names = [name for name in SAMPLED if find_member(name)[0].name == family]
    env = make_vec(names, 5 * len(names), LocomotionTask(**values), frame_skip=settings.frame_skip, threads=1)
    env.reset(seed=0)
    for _ in range(3):
        assert not env.step(np.zeros(env.action_space.shape))[2].any()


def test_cheetahs_have_gymnasiums_torso_of_6_25_kg():
    original = mujoco.MjModel.from_xml_path(str(ASSETS / "half_cheetah.xml"))
    torso = original.body("torso").mass[0]
    assert torso == pytest.approx(6.25, abs=0.01)
    for name in FAMILIES["cheetah"].members:
        assert build(name).model.body("torso").mass[0] == torso
    legless = mujoco.MjSpec.from_file(str(ASSETS / "half_cheetah.xml"))
    legless.delete(legless.body("bthigh"))
    with pytest.warns(UserWarning, match="settotalmass"):
        assert legless.compile().body("torso").mass[0] > 8.9  # what would happen


@pytest.mark.parametrize("name", ["hopper_3", "hopper_5"])
def test_hoppers_are_one_chain_that_ends_in_gymnasiums_foot(name):
    body, gymnasiums = build(name), build("hopper_4")
    assert [limb.parent for limb in body.limbs] == list(range(-1, body.n_limbs - 1))
    foot, reference = body.model.body("foot"), gymnasiums.model.body("foot")
    assert foot.mass == reference.mass and np.array_equal(foot.inertia, reference.inertia)
    ours, theirs = (b.model.joint("foot_joint") for b in (body, gymnasiums))
    for field in ("range", "axis", "pos", "armature", "damping"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), err_msg=field)
    geom, reference = body.model.geom("foot_geom"), gymnasiums.model.geom("foot_geom")
    for field in ("size", "friction", "solref", "solimp", "margin", "contype", "conaffinity"):
        np.testing.assert_allclose(getattr(geom, field), getattr(reference, field), err_msg=field)
    np.testing.assert_allclose(body.model.actuator_gear[:, 0], 200)


@pytest.mark.parametrize("parts", range(2, 8))
def test_the_literatures_two_walkers_of_each_size_are_one(parts):
    for order in ("main", "flipped"):
        family, name = find_member(f"walker_{parts}_{order}")
        assert (family.name, name) == ("walker", f"walker_{parts}")
        assert build(f"walker_{parts}_{order}").hash == build(f"walker_{parts}").hash


def test_number_of_parts_is_what_the_name_says():
    for name in LISTED[: sum(COUNTS[family] for family in ("cheetah", "walker", "hopper", "humanoid_2d"))]:
        digits = [int(part) for part in name.removeprefix("humanoid_2d").split("_") if part.isdigit()]
        assert build(name).n_limbs == digits[0]


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
    pairs += [
        ("humanoid_2d_8_left_knee", "humanoid_2d_8_right_knee"),
        ("humanoid_2d_7_left_arm", "humanoid_2d_7_right_arm"),
    ]
    for left, right in pairs:
        one, other = build(left), build(right)
        assert one.mass == pytest.approx(other.mass) and one.hash != other.hash


def test_splits_hold_out_what_they_say():
    assert get_split("cheetah", "smp").unseen == ("cheetah_4_front", "cheetah_5_balanced", "cheetah_6_front")
    assert get_split("walker", "amorpheus").unseen == ("walker_3", "walker_6")
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


@pytest.mark.parametrize("name", ["ant", "ant_back_left_locked", "centipede_4", "centipede_20", "swimmer_13"])
def test_left_alone_a_body_comes_to_rest_upright(name):
    body = build(name)
    data = mujoco.MjData(body.model)
    data.qpos = body.initial_qpos
    for _ in range(400):
        mujoco.mj_step(body.model, data)
    assert np.abs(data.qvel).max() < 0.3
    assert data.xmat[1][8] > 0.95  # the cosine of the root's tilt


MOVED = [
    "ant_front_left_locked",
    "ant_back_right_removed",
    "centipede_6",
    "swimmer_8",
    "humanoid_no_left_shin",
]


def test_nothing_diverges_under_random_actions():
    names = [*MOVED, *DRAWN]
    env = make_vec(names, 2 * len(names), LocomotionTask(reset_noise=0.01), frame_skip=8, threads=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        *_, info = env.step(rng.choice([-1.0, 1.0], env.action_space.shape))
        assert not info["diverged"].any()
