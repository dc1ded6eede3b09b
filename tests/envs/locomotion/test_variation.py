"""Bodies whose parameters vary: ranges, what is simulated, descriptors, streams, layouts."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import (
    BodySet,
    BodyVariation,
    LocomotionTask,
    Morphology,
    build,
    make_vec,
)
from somite.envs.locomotion.bodies.descriptors import joint_descriptors, limb_descriptors
from somite.envs.locomotion.bodies.model_edits import with_fixed_inertias
from somite.envs.locomotion.layout import share_layout
from somite.envs.locomotion.limb_spec import LIMB_SPEC
from somite.envs.locomotion.varied.variants import compile_variants, lengthen
from somite.envs.locomotion.varied.variation import EDITED, QUANTITIES

from .helpers import legged, token

WIDE = {name: [0.6, 1.6] for name in QUANTITIES}
SHORT = LocomotionTask(max_episode_steps=8)
BODIES = ("cheetah_7_full", "walker_5", "hopper_5", "humanoid_2d_9_full", "ant")


def make(body, num_envs=4, variation=None, task=SHORT, **options):
    bodies = body if isinstance(body, list) else [body]
    return make_vec(bodies, num_envs, task, threads=1, variation=variation, **options)


def actions_for(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape))


def run(env, steps=20, seed=3):
    seen = [env.reset(seed=seed)]
    seen += [env.step(action) for action in actions_for(env, steps)]
    return seen


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        for key in first[0]:
            np.testing.assert_array_equal(first[0][key], second[0][key], err_msg=key)


# Factors


@pytest.mark.parametrize("per", ["limb", "body"])
@pytest.mark.parametrize("name", QUANTITIES)
def test_factors_lie_in_their_range_and_are_as_often_above_as_below_its_middle(name, per):
    env = make("cheetah_7_full", 32, BodyVariation(**{name: [0.5, 2.0]}, per=per, variants=32))
    drawn = np.concatenate([env.reset(seed=seed)[1][f"factor_{name}"] for seed in range(8)])
    assert drawn.min() >= 0.5 and drawn.max() <= 2.0 and drawn.min() < 0.6 and drawn.max() > 1.8
    assert 0.35 < (drawn > 1).mean() < 0.65  # log-uniform: half above 1
    assert (np.ptp(drawn, axis=1) == 0).all() == (per == "body")


def test_several_ranges_are_drawn_from_by_their_size():
    ranges = [[0.5, 0.8], [1.25, 2.0]]
    variation = BodyVariation(mass=[0.8, 1.25], extrapolation={"mass": ranges}, draw="extrapolation")
    drawn = make("cheetah_7_full", 64, variation).reset(seed=0)[1]["factor_mass"]
    low, high = (drawn >= 0.5) & (drawn <= 0.8), (drawn >= 1.25) & (drawn <= 2.0)
    assert (low | high).all() and 0.3 < low.mean() < 0.7


def test_every_episode_has_factors_of_its_own_and_tells_them():
    env = make("hopper_4", 3, BodyVariation(mass=[0.5, 2.0]))
    _, first = env.reset(seed=0)
    for action in actions_for(env, 8):
        _, _, _, truncated, info = env.step(action)
    assert truncated.all()
    np.testing.assert_array_equal(info["final_info"]["factor_mass"], first["factor_mass"])
    assert np.abs(info["factor_mass"] - first["factor_mass"]).min() > 1e-4
    assert np.abs(np.diff(first["factor_mass"], axis=0)).min() > 1e-4  # and every row


def test_ranges_of_other_quantities_change_no_draw():
    one = make("hopper_4", 3, BodyVariation(mass=[0.5, 2.0]))
    other = make("hopper_4", 3, BodyVariation(mass=[0.5, 2.0], friction=[0.5, 1], length=[0.9, 1.1]))
    np.testing.assert_array_equal(*(env.reset(seed=0)[1]["factor_mass"] for env in (one, other)))


# What is simulated, and what is said of it


def model_of(env, row):
    return env.simulated(row)[0]


@pytest.mark.parametrize("name", BODIES)
def test_descriptors_are_those_of_the_model_that_is_simulated(name):
    env = make(name, 4, BodyVariation(**WIDE, variants=3))
    for seed in (0, 1):
        observation, _ = env.reset(seed=seed)
        for row in range(4):
            assert_described(observation, row, model_of(env, row), build(name))


def assert_described(observation, row, model, body):
    count = int((~LIMB_SPEC.token_is_state()).sum())
    said = observation["tokens"][row, :, -count:]
    made = limb_descriptors(model, body.limbs, -1)
    np.testing.assert_allclose(said, made, rtol=2e-5, atol=1e-6)
    count = int((~LIMB_SPEC.joint_is_state()).sum())
    for index, limb in enumerate(body.limbs):
        for place, slot in enumerate(limb.slots):
            made = joint_descriptors(model, limb, slot, body.controls, body.reference(slot))
            said = observation["joints"][row, index, place, -count:]
            np.testing.assert_allclose(said, made, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", BODIES)
def test_factors_are_those_of_the_model(name):
    body = build(name)
    edits = {quantity: [0.6, 1.6] for quantity in EDITED}
    env = make(name, 2, BodyVariation(**edits))
    _, info = env.reset(seed=0)
    usual, ground = body.model, body.model.geom_friction[body.model.geom_bodyid == 0].max(0)
    for row in range(2):
        model = model_of(env, row)
        for index, limb in enumerate(body.limbs):
            drawn = {quantity: info[f"factor_{quantity}"][row, index] for quantity in EDITED}
            parts = list(limb.bodies)
            np.testing.assert_allclose(model.body_mass[parts], usual.body_mass[parts] * drawn["mass"], 1e-6)
            np.testing.assert_allclose(
                model.body_inertia[parts], usual.body_inertia[parts] * drawn["mass"], 1e-6
            )
            for slot in limb.slots:
                dof = usual.jnt_dofadr[slot.joint]
                for quantity in ("damping", "armature"):
                    own, given = (getattr(m, f"dof_{quantity}")[dof] for m in (model, usual))
                    np.testing.assert_allclose(own, given * drawn[quantity], 1e-6)
                own, given = (m.actuator_gainprm[slot.actuator, 0] for m in (model, usual))
                np.testing.assert_allclose(own, given * drawn["gear"], 1e-6)
            geoms = np.isin(usual.geom_bodyid, parts)
            expected = np.maximum(usual.geom_friction[geoms], ground) * drawn["friction"]
            np.testing.assert_allclose(model.geom_friction[geoms], expected, 1e-6)
        # What is derived from masses has followed.
        data, copied = mujoco.MjData(model), np.array(model.dof_invweight0)
        mujoco.mj_setConst(model, data)
        np.testing.assert_allclose(model.dof_invweight0, copied, 1e-9)
        assert not np.allclose(copied, usual.dof_invweight0, rtol=1e-3)


def test_an_episode_without_a_factor_is_the_body_itself_again():
    # Edits start from the compiled body and not from what the last episode left.
    env = make("cheetah_5_back", 2, BodyVariation(mass=[0.5, 2.0], damping=[0.5, 2.0], length=[0.8, 1.2]))
    for seed in range(5):
        env.reset(seed=seed)
    first = [np.array(model_of(env, 0).body_mass), np.array(model_of(env, 0).dof_damping)]
    env.reset(seed=11)
    env.reset(seed=4)
    np.testing.assert_array_equal(first[0], model_of(env, 0).body_mass)
    np.testing.assert_array_equal(first[1], model_of(env, 0).dof_damping)


def drop(variation, steps=12, action=0.0):
    task = LocomotionTask(reset_noise=0, reset_speed_noise=0)
    env = make("cheetah_7_full", 1, variation, task)
    env.reset(seed=0)
    for _ in range(steps):
        env.step(np.full(env.action_space.shape, action))
    return env.get_state(0)[0]


def test_each_parameter_changes_the_motion():
    usual = drop(None, action=0.5)
    for name in QUANTITIES:
        changed = drop(BodyVariation(**{name: [1.5, 1.5]}), action=0.5)
        assert np.abs(changed - usual).max() > 1e-3, name
    np.testing.assert_allclose(drop(BodyVariation(mass=[1.0, 1.0]), action=0.5), usual, atol=1e-6)


def test_heavier_bodies_with_equal_motors_run_slower_and_stronger_ones_faster():
    def thigh_speed(**factors):
        env = make("cheetah_7_full", 1, BodyVariation(**factors), LocomotionTask(reset_noise=0))
        env.reset(seed=0)
        qpos, qvel = env.get_state(0)
        env.set_state(0, qpos + [0, 3, 0, 0, 0, 0, 0, 0, 0], 0 * qvel)  # in the air
        action = np.zeros(env.action_space.shape)
        action[0, 1] = 1.0
        env.step(action)
        return abs(env.get_state(0)[1][3])

    assert thigh_speed(mass=[2, 2]) < 0.8 * thigh_speed(mass=[1, 1]) < thigh_speed(gear=[1.5, 1.5])


def test_low_friction_slips():
    def slid(factor):
        task = LocomotionTask(reset_noise=0, reset_speed_noise=0, max_episode_steps=100)
        env = make("cheetah_7_full", 1, BodyVariation(friction=[factor, factor]), task)
        env.reset(seed=0)
        for _ in range(20):
            env.step(np.zeros(env.action_space.shape))
        qpos, qvel = env.get_state(0)
        qvel[0] += 2.0
        env.set_state(0, qpos, qvel)
        for _ in range(20):
            env.step(np.zeros(env.action_space.shape))
        return env.get_state(0)[0][0] - qpos[0]

    assert slid(0.01) > 1.5 > 0.8 > slid(1.0)


# Lengths


@pytest.mark.parametrize("name", [*BODIES, "quadruped_3"])
def test_length_variants_compile_and_stand_on_the_ground_as_the_body_does(name):
    body = build(name)
    for variant in compile_variants(body, BodyVariation(length=[0.6, 1.6], variants=4), None, (1, 0)):
        made = variant.body
        assert share_layout(body, made)
        usual = body.lowest_point(body.initial_qpos)
        assert made.lowest_point(made.initial_qpos) == pytest.approx(usual, abs=1e-9)
        # Where a limb hangs follows the length of the one above it, and its box its own.
        for index, limb in enumerate(body.limbs):
            place = body.model.body_pos[limb.bodies[0]]
            if (
                limb.parent >= 0
                and int(body.model.body_parentid[limb.bodies[0]]) in (body.limbs[limb.parent].bodies[:1])
            ):
                expected = place * variant.lengths[limb.parent]
                np.testing.assert_allclose(made.model.body_pos[limb.bodies[0]], expected, atol=1e-9)
            mass = body.model.body_mass[list(limb.bodies)]
            made_mass = made.model.body_mass[list(limb.bodies)]
            np.testing.assert_allclose(made_mass, mass * variant.lengths[index], rtol=0.25)


def test_a_factor_of_one_leaves_the_body_as_it_is():
    for name in (*BODIES, "quadruped_3"):
        body = build(name)
        variant = compile_variants(body, BodyVariation(length=[1, 1], variants=1), None, (1, 0))[0]
        assert variant.body.hash == body.hash
        np.testing.assert_array_equal(variant.body.initial_qpos, body.initial_qpos)


def test_a_longer_capsule_has_nearly_the_inertia_that_its_geom_would_give():
    spec = legged()
    geom_made, edited = legged(length=0.6), Morphology("own", spec.compile(), spec=legged_with_inertias)
    factors = np.ones(edited.n_limbs)
    shin = [limb.name for limb in edited.limbs].index("left_shin")
    factors[shin] = 1.5
    longer = edited.spec()
    lengthen(longer, edited, factors)
    made, wanted = longer.compile().body("left_shin"), geom_made.compile().body("left_shin")
    np.testing.assert_allclose(made.mass, wanted.mass, rtol=0.1)
    np.testing.assert_allclose(made.inertia[:2], wanted.inertia[:2], rtol=0.25)
    np.testing.assert_allclose(made.ipos, wanted.ipos, atol=1e-9)


def legged_with_inertias():
    return with_fixed_inertias(legged())


def test_falling_is_judged_by_the_height_of_the_body_that_is_simulated():
    task = LocomotionTask(relative_height=(0.7, 2.0), max_episode_steps=30)
    env = make("walker_7", 16, BodyVariation(length=[0.5, 2.0], per="body"), task)
    _, info = env.reset(seed=0)
    for _ in range(2):
        _, _, terminated, _, _ = env.step(np.zeros(env.action_space.shape))
    assert not terminated.any()
    assert np.ptp(info["factor_length"]) > 0.5
    stood = np.ptp([env.get_state(row)[0][1] for row in range(16)])
    assert stood > 0.3


def test_lengths_without_a_source_are_refused():
    bare = Morphology("own", legged().compile())
    with pytest.raises(UserError, match="'own'.*compiled model only"):
        make(bare, 1, BodyVariation(length=[0.9, 1.1]))
    make(bare, 1, BodyVariation(mass=[0.9, 1.1])).reset(seed=0)  # the others need none
    looped = legged()
    looped.add_equality(
        type=mujoco.mjtEq.mjEQ_CONNECT,
        name1="left",
        name2="right",
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        data=[0.0] * 12,
    )
    closed = Morphology("own", looped.compile(), spec=lambda: looped)
    with pytest.raises(UserError, match="closed loops"):
        make(closed, 1, BodyVariation(length=[0.9, 1.1]))


# Streams


def test_without_variation_nothing_changes():
    plain = run(make(["walker_5", "cheetah_3_back"], 4))
    for variation in (BodyVariation(), BodyVariation(mass=[0.5, 2], draw="none")):
        env = make(["walker_5", "cheetah_3_back"], 4, variation)
        assert_same(plain, run(env))
        assert not any(key.startswith("factor_") for key in env.reset(seed=0)[1])


def test_starts_and_their_noise_are_those_without_variation():
    plain, varied = (make("cheetah_7_full", 3, v) for v in (None, BodyVariation(mass=[0.5, 2], gear=[1, 2])))
    for env in (plain, varied):
        env.reset(seed=0)
        env.reset()  # the second start of the same streams
    for row in range(3):
        for one, other in zip(plain.get_state(row), varied.get_state(row), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_seed_decides_every_draw(aligned):
    variation = BodyVariation(**WIDE, variants=4)
    runs = [run(make(["cheetah_7_full", "cheetah_3_front"], 4, variation, aligned=aligned)) for _ in range(2)]
    assert_same(*runs)
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one[-1]["factor_mass"], other[-1]["factor_mass"])
    other = run(make(["cheetah_7_full", "cheetah_3_front"], 4, variation, aligned=aligned), seed=4)
    assert np.abs(other[0][1]["factor_mass"] - runs[0][0][1]["factor_mass"]).max() > 0.01


def test_tests_draw_from_streams_and_variants_of_their_own():
    ranges = {"mass": [0.8, 1.25], "length": [0.8, 1.25]}
    outside = {"mass": [1.25, 2.0], "length": [1.25, 1.5]}
    drawn = {}
    for draw in ("train", "interpolation", "extrapolation"):
        variation = BodyVariation(**ranges, extrapolation=outside, draw=draw)
        drawn[draw] = make("hopper_4", 8, variation).reset(seed=0)[1]
    for name in ranges:
        train, inside, beyond = (drawn[draw][f"factor_{name}"] for draw in drawn)
        assert not set(train.ravel()) & set(inside.ravel())
        assert inside.min() >= 0.8 and inside.max() <= 1.25 and beyond.min() >= 1.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mass": [1.2, 0.8]}, r"variation.mass must be \[low, high\]"),
        ({"mass": 2.0}, r"variation.mass must be"),
        ({"mass": [0.0, 1.0]}, "above 0"),
        ({"per": "leg"}, "one of limb, body"),
        ({"draw": "test"}, "one of train, interpolation, extrapolation, none"),
        ({"variants": 0}, "from 1 to 1,000"),
        ({"extrapolation": {"mas": [2, 3]}}, "did you mean 'mass'"),
        ({"mass": [0.8, 1.5], "extrapolation": {"mass": [1.2, 2]}}, r"\[1.2, 2\] overlaps \[0.8, 1.5\]"),
        ({"extrapolation": {"mass": [0.9, 2]}}, "overlaps"),  # the body itself is trained on
        ({"mass": [1, 2], "draw": "extrapolation"}, "gives no range"),
    ],
)
def test_ranges_that_cannot_be_meant_are_told(options, message):
    with pytest.raises(UserError, match=message):
        BodyVariation(**options)


# Bodies of one layout in one batch


def test_bodies_of_one_layout_share_a_batch_and_behave_as_alone():
    made = compile_variants(build("cheetah_5_back"), BodyVariation(length=[0.7, 1.4]), None, (1, 0))[:3]
    bodies = [variant.body for variant in made]
    together = make_vec([*bodies, "cheetah_3_back"], 8, SHORT, threads=1)
    assert len(together._blocks) == 2
    seen, actions = run(together), actions_for(together, 20)
    for index, body in enumerate(bodies):
        alone = make_vec([body], 2, SHORT, threads=1)
        rows = slice(2 * index, 2 * index + 2)
        observation, _ = alone.reset(seed=[[3, row] for row in range(8)][rows])
        np.testing.assert_array_equal(observation["tokens"], seen[0][0]["tokens"][rows])
        for step in range(20):
            observation, reward, *_ = alone.step(actions[step][rows, :, : alone.n_joints])
            np.testing.assert_array_equal(observation["tokens"], seen[step + 1][0]["tokens"][rows])
            np.testing.assert_array_equal(reward, seen[step + 1][1][rows])


def test_only_bodies_of_one_layout_do():
    body = build("cheetah_5_back")
    assert share_layout(body, dataclasses.replace(body))
    assert not share_layout(body, build("cheetah_5_balanced"))
    assert not share_layout(body, build("cheetah_7_full"))


# Configuration


def test_a_saved_environment_is_rebuilt_and_builds_nothing_else():
    config = {
        "_target_": "somite.envs.locomotion.BodySet",
        "family": "hopper",
        "variation": {"_target_": "somite.envs.locomotion.BodyVariation", "mass": [0.5, 2.0]},
        "damage": {"_target_": "somite.envs.locomotion.Damage", "probability": 0.5},
        "world": {"_target_": "somite.envs.locomotion.World", "slope": [0, 5]},
    }
    _, info = BodySet.from_config(config).make_vec(["hopper_4"], 2, threads=1).reset(seed=0)
    assert {"factor_mass", "damage", "slope"} <= info.keys()
    for target in ("somite.envs.locomotion.Damage", "os.system"):
        changed = config | {"variation": {"_target_": target}}
        with pytest.raises(UserError, match="expected somite.envs.locomotion.BodyVariation"):
            BodySet.from_config(changed)
    with pytest.raises(UserError, match="does not fit this version"):
        BodySet.from_config(config | {"variation": {"mas": [1, 2]}})
    with pytest.raises(UserError, match="expected keys"):
        BodySet.from_config(config | {"world": [1]})
    old = {key: value for key, value in config.items() if key in ("_target_", "family")}
    assert BodySet.from_config(old).make_vec(["hopper_4"], 1, threads=1).reset(seed=0)[1] == {}


def test_the_order_of_limbs_carries_nothing():
    # Legs in two orders, of equal factors: the same numbers in other places.
    observations = []
    for legs in (("left", "right"), ("right", "left")):
        body = Morphology("own", legged(legs).compile(), spec=lambda legs=legs: legged(legs))
        variation = BodyVariation(mass=[2, 2], length=[1.3, 1.3], friction=[0.5, 0.5], variants=1)
        env = make(body, 1, variation, LocomotionTask(reset_noise=0, reset_speed_noise=0))
        observation, _ = env.reset(seed=0)
        observations.append(observation["tokens"][0])
    orders = (("left", "right"), ("right", "left"))
    names = [[limb.name for limb in Morphology("own", legged(x).compile()).limbs] for x in orders]
    order = [names[1].index(name) for name in names[0]]
    np.testing.assert_allclose(observations[0], observations[1][order], atol=1e-5)
    assert token({"tokens": observations[0]}, "mass").min() > 0
