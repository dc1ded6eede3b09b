"""Pictures without a display, where the machine can draw; otherwise a message that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import Morphology, make_vec
from somite.envs.locomotion.gym import BodyEnv
from somite.envs.locomotion.pictures import rendering
from somite.envs.locomotion.pictures.rendering import BodyRenderer, body_bounds, find_backend, portrait

from ..helpers import BALL, FREE, HINGE, add_capsule, add_motor, random_state

BOX = mujoco.mjtGeom.mjGEOM_BOX


@pytest.fixture(scope="module")
def backend():
    try:
        return find_backend()
    except UserError as error:
        pytest.skip(str(error))


def differs(picture, other):
    """(height, width) bool: pixels that differ visibly."""
    return np.abs(picture.astype(int) - other.astype(int)).max(-1) > 30


def green(picture):
    """(pixels,) rows and columns where the bodies of `robot` are seen."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return np.nonzero((green > 1.8 * red) & (green > 1.8 * blue) & (green > 40))


def robot(size, planar=False, group=0, offset=0.0):
    """A green trunk with a leg on each side, about ``size`` m long, on a floor; it starts on the ground."""
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[100, 100, 1], rgba=[0.6, 0.6, 0.6, 1])
    trunk = spec.worldbody.add_body(name="trunk", pos=[offset, 0, 0.35 * size])
    if planar:
        trunk.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0])
        trunk.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1])
    else:
        trunk.add_joint(type=FREE)
    add_capsule(trunk, (-0.4 * size, 0, 0), (0.4 * size, 0, 0), 0.1 * size)
    for side in (-1, 1):
        leg = trunk.add_body(name=f"leg{side}", pos=[0, 0.2 * side * size * (not planar), 0])
        leg.add_joint(name=f"hip{side}", type=HINGE, axis=[0, 1, 0])
        add_capsule(leg, (0, 0, 0), (0.1 * side * size, 0, -0.3 * size), 0.05 * size)
        add_motor(spec, f"hip{side}")
    for geom in spec.geoms[1:]:
        geom.rgba, geom.group = [0, 0.8, 0, 1], group
        geom.density = 1 / size**5  # MuJoCo refuses inertias below 1e-15
    return Morphology(f"robot of {size} m", spec.compile())


def is_framed(picture, least=0.35):
    """Whether the green body takes at least that part of one side of the picture, and touches no edge."""
    rows, columns = green(picture)
    height, width = picture.shape[:2]
    inside = rows.min() > 0 and rows.max() < height - 1 and columns.min() > 0 and columns.max() < width - 1
    return inside and max(np.ptp(rows) / height, np.ptp(columns) / width) > least


@pytest.mark.parametrize("size", [0.003, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("planar", [False, True])
def test_a_body_of_any_size_fills_the_picture(backend, size, planar):
    body = robot(size, planar, offset=5 * size)
    picture = portrait(body, 200, 150)
    assert picture.shape == (150, 200, 3) and picture.dtype == np.uint8
    assert is_framed(picture, 0.5)
    tall = portrait(body, 100, 200)
    assert tall.shape == (200, 100, 3) and is_framed(tall, 0.5)
    env = make_vec([body], 1, threads=1)
    env.reset(seed=0)
    env.set_state(0, body.initial_qpos, np.zeros(body.model.nv))
    renderer = BodyRenderer(env, 200, 150)
    assert is_framed(renderer.picture(0))
    renderer.close()


def test_a_body_whose_geoms_are_all_in_hidden_groups_is_seen(backend):
    assert is_framed(portrait(robot(1.0, group=3), 120, 90))


def test_what_moves_in_a_level_plane_is_seen_from_above(backend):
    spec = mujoco.MjSpec()
    upper = spec.worldbody.add_body()
    upper.add_joint(name="shoulder", type=HINGE, axis=[0, 0, 1])
    add_capsule(upper, (0, 0, 0), (1, 0, 0))
    lower = upper.add_body(pos=[1, 0, 0])
    lower.add_joint(type=HINGE, axis=[0, 0, 1])
    add_capsule(lower, (0, 0, 0), (0, 1, 0))
    add_motor(spec, "shoulder")
    for geom in spec.geoms:
        geom.rgba = [0, 0.8, 0, 1]
    rows, columns = green(portrait(Morphology("arm", spec.compile()), 120, 90))
    assert np.ptp(rows) > 0.5 * np.ptp(columns), "both links are seen"


def test_bounds_are_those_of_the_start_pose():
    low, high = body_bounds(robot(1.0, offset=2.0))
    np.testing.assert_allclose(low, [1.5, -0.25, 0.0], atol=1e-6)
    np.testing.assert_allclose(high, [2.5, 0.25, 0.45], atol=1e-6)


def test_a_body_without_geoms_can_be_drawn(backend):
    spec = mujoco.MjSpec()
    trunk = spec.worldbody.add_body(mass=1, inertia=[1, 1, 1])
    trunk.add_joint(type=FREE)
    leg = trunk.add_body(mass=1, inertia=[1, 1, 1], pos=[0, 0, -1])
    leg.add_joint(type=BALL)
    foot = leg.add_body(mass=1, inertia=[1, 1, 1], pos=[0, 0, -1])
    foot.add_joint(name="ankle", type=HINGE)
    add_motor(spec, "ankle")
    assert portrait(Morphology("bare", spec.compile()), 40, 30).shape == (30, 40, 3)


def test_cheetahs_are_seen_from_where_they_always_were(backend):
    env = make_vec(["cheetah_7_full", "cheetah_2_back"], 2, threads=1)
    radius = [rendering._usual_radius(body) for body in env.bodies]
    assert radius[0] == radius[1], "members of a family compare"
    assert rendering.DISTANCE * radius[0] == pytest.approx(3.5, abs=0.01)


def test_the_body_is_in_the_middle_of_the_picture_wherever_it_is(backend):
    body = robot(1.0)
    env = BodyEnv(body, render_mode="rgb_array", width=240, height=160)
    env.reset(seed=0)
    qpos, qvel = body.initial_qpos.copy(), np.zeros(body.model.nv)
    for x, z in ((0.0, 0.35), (25.0, 0.35), (25.0, 0.9), (-3.0, 40.0), (0.0, -40.0)):
        qpos[0], qpos[2] = x, z
        env.vector.set_state(0, qpos, qvel)
        picture = env.render()
        assert picture.shape == (160, 240, 3) and picture.dtype == np.uint8
        rows, columns = green(picture)
        if z > 0:  # from below, the floor hides it
            assert len(rows) > 500 and abs(np.median(columns) - 120) < 40
        if 0 < z < 0.5:
            assert abs(np.median(rows) - 80) < 40
        elif z > 0:
            assert np.median(rows) < 80, "a leap is seen"
    env.close()


def test_rows_of_different_bodies_are_drawn_by_one_renderer_larger_than_mujocos_buffer(backend):
    env = make_vec(["hopper_3", "ant"], 2, threads=1)
    env.reset(seed=0)
    renderer = BodyRenderer(env, width=800, height=500)
    hopper, ant = renderer.picture(0), renderer.picture(1)
    assert hopper.shape == ant.shape == (500, 800, 3)
    assert differs(hopper, ant).sum() > 1000
    assert env.bodies[0].model.vis.global_.offwidth == 640  # the body's own model is not edited
    renderer.close()


def test_drawing_does_not_change_the_simulation(backend):
    pictured, other = (BodyEnv("walker_3", mode) for mode in ("rgb_array", None))
    for env in (pictured, other):
        env.reset(seed=0)
        env.vector.set_state(0, *random_state(env.vector.bodies[0], 0, spread=0.1))
    action = np.full(pictured.action_space.shape, 0.3)
    for _ in range(3):
        pictured.render()
        one, two = pictured.step(action), other.step(action)
        for key in one[0]:
            np.testing.assert_array_equal(one[0][key], two[0][key])
    assert other.render() is None
    pictured.close()


def in_a_process(code, backend):
    environment = {**os.environ, "MUJOCO_GL": backend}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_a_backend_that_mujoco_does_not_know_is_told_at_the_first_import():
    # MuJoCo itself refuses to load then, before anything is drawn.
    done = in_a_process("import somite.envs.locomotion", "bad")
    message = done.stderr.strip().splitlines()[-1]
    assert done.returncode and message.startswith("somite.envs.errors.UserError: MuJoCo does not load")
    assert "MUJOCO_GL=bad" in message and "libosmesa6" in message and "libegl1" in message


def test_training_needs_no_backend_and_drawing_tells_what_to_install():
    code = """
from somite.envs.locomotion import make_vec
from somite.envs.locomotion.pictures.rendering import find_backend
print(make_vec(["hopper_3"], 2, threads=1).n_limbs)
find_backend()"""
    done = in_a_process(code, "disable")
    message = done.stderr.strip().splitlines()[-1]
    assert done.stdout.strip() == "3"
    assert done.returncode and message.startswith("somite.envs.errors.UserError: cannot draw")
    assert "MUJOCO_GL=disable" in message and "libosmesa6" in message and "libegl1" in message


def test_a_backend_that_works_is_kept_in_whatever_case_it_is_written(backend):
    code = "from somite.envs.locomotion.pictures.rendering import find_backend; print(find_backend())"
    done = in_a_process(code, backend.upper())
    assert done.stdout.strip() == backend, done.stderr


def test_a_limb_that_is_drawn_in_hidden_groups_only_is_seen_like_the_others(backend):
    def body(group, alpha=1.0, mount=False):
        spec = mujoco.MjSpec()
        trunk = spec.worldbody.add_body(name="trunk", pos=[0, 0, 0.4])
        trunk.add_joint(type=FREE)
        trunk.add_geom(size=[0.25, 0.12, 0.06], type=BOX, group=group, rgba=[1, 0, 0, alpha])
        trunk.add_geom(size=[0.1, 0.05, 0.05], type=BOX, group=3, rgba=[0, 0, 1, 1])
        if mount:  # a small part of the limb is in a group that is shown
            trunk.add_body(name="mount").add_geom(size=[0.01, 0, 0], pos=[0, 0, 0.06])
        leg = trunk.add_body(name="leg")
        leg.add_joint(name="hip", type=HINGE, axis=[0, 1, 0])
        add_capsule(leg, (0, 0, 0), (0, 0, -0.4), 0.03)
        add_motor(spec, "hip")
        return Morphology("body", spec.compile())

    def red(of):
        picture = portrait(of, 96, 64).astype(int)
        return int(((picture[..., 0] > 2 * picture[..., 1]) & (picture[..., 0] > 60)).sum())

    usual = red(body(0))
    assert usual > 300 and red(body(3)) > 0.8 * usual and red(body(5, mount=True)) > 0.8 * usual
    hidden = rendering._shown(body(0))
    assert hidden.tolist() == [True, False, True], "what is drawn needs no collision geoms"
    np.testing.assert_allclose(body_bounds(body(3)), body_bounds(body(0)))
