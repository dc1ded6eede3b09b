"""Pictures without a display, where the machine can draw; otherwise a message that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import LocomotionEnv, LocomotionVectorEnv
from somite.envs.locomotion.rendering import BodyRenderer, find_backend

from .helpers import random_state


@pytest.fixture(scope="module")
def backend():
    try:
        return find_backend()
    except UserError as error:
        pytest.skip(str(error))


def differs(picture, other):
    """(height, width) bool: pixels that differ visibly."""
    return np.abs(picture.astype(int) - other.astype(int)).max(-1) > 30


def test_the_body_is_in_the_middle_of_the_picture_wherever_it_is(backend):
    env = LocomotionEnv("cheetah_7_full", render_mode="rgb_array", width=240, height=160)
    env.reset(seed=0)
    qpos, qvel = env.vector.bodies[0].initial_qpos.copy(), np.zeros(9)
    for x in (0.0, 25.0):
        qpos[0], qpos[1] = x, 0.0
        env.vector.set_state(0, qpos, qvel)
        with_body = env.render()
        assert with_body.shape == (160, 240, 3) and with_body.dtype == np.uint8
        assert with_body.std() > 10
        qpos[1] = 50.0  # out of the picture; the camera keeps its height
        env.vector.set_state(0, qpos, qvel)
        rows, columns = np.nonzero(differs(with_body, env.render()))
        assert len(rows) > 500
        assert abs(np.median(columns) - 120) < 40 and abs(np.median(rows) - 80) < 40
    env.close()


def test_rows_of_different_bodies_are_drawn_by_one_renderer_larger_than_mujocos_buffer(backend):
    env = LocomotionVectorEnv(["hopper_3", "ant"], 2, threads=1)
    env.reset(seed=0)
    renderer = BodyRenderer(env, width=800, height=500)
    hopper, ant = renderer.picture(0), renderer.picture(1)
    assert hopper.shape == ant.shape == (500, 800, 3)
    assert differs(hopper, ant).sum() > 1000
    assert env.bodies[0].model.vis.global_.offwidth == 640  # the body's own model is not edited
    renderer.close()


def test_drawing_does_not_change_the_simulation(backend):
    pictured, other = (LocomotionEnv("walker_3", mode) for mode in ("rgb_array", None))
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


def test_a_backend_that_does_not_draw_is_told_with_what_to_install():
    code = "from somite.envs.locomotion.rendering import find_backend; find_backend()"
    done = in_a_process(code, "disable")
    message = done.stderr.strip().splitlines()[-1]
    assert done.returncode and message.startswith("somite.envs.errors.UserError: cannot draw")
    assert "MUJOCO_GL=disable" in message and "libosmesa6" in message and "libegl1" in message


def test_a_backend_that_works_is_kept_in_whatever_case_it_is_written(backend):
    code = "from somite.envs.locomotion.rendering import find_backend; print(find_backend())"
    done = in_a_process(code, backend.upper())
    assert done.stdout.strip() == backend, done.stderr


def test_training_needs_no_backend():
    code = "from somite.envs.locomotion import LocomotionVectorEnv as V; print(V(['hopper_3'], 2).n_limbs)"
    assert in_a_process(code, "disable").stdout.strip() == "3"
