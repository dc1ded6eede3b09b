"""Places for contacts and constraints are enough for what bodies really do."""

import mujoco
import numpy as np
import pytest

from somite.envs.locomotion.backends.warp import capacities
from somite.envs.locomotion.bodies import families

BODIES = ("ant", "cheetah_7_full", "walker_7", "hopper_5", "humanoid_2d_9_full", "centipede_6", "quadruped_1")


@pytest.mark.parametrize("name", BODIES)
def test_no_body_needs_more(name):
    body = families.build(name)
    room, model = capacities(body.model), body.model
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    most = np.zeros(2, int)
    for _ in range(40):  # falls from any pose, so that all that can touch the ground does
        mujoco.mj_resetData(model, data)
        data.qpos[:] = body.initial_qpos + rng.uniform(-1, 1, model.nq)
        mujoco.mj_normalizeQuat(model, data.qpos)
        for _ in range(100):
            data.ctrl[:] = rng.uniform(-1, 1, model.nu)
            mujoco.mj_step(model, data)
            most = np.maximum(most, (data.ncon, data.nefc))
    assert most[0] <= room.contacts
    assert most[1] <= room.constraints
    assert room.contacts <= 20 * max(most[0], 4)  # and it is no room for everything


def test_given_numbers_are_taken():
    model = families.build("ant").model
    room = capacities(model, contacts=3)
    assert room.contacts == 3
    assert room.constraints < capacities(model).constraints
    assert capacities(model, constraints=7).constraints == 7


def test_pairs_that_cannot_touch_are_not_counted():
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1])
    for x in (0, 1):
        ball = spec.worldbody.add_body(pos=[x, 0, 1])
        ball.add_freejoint()
        ball.add_geom(name=f"ball{x}", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0])
    assert capacities(spec.compile()).contacts == 3  # two on the ground, one between them
    for geom in spec.geoms[1:]:
        geom.conaffinity = 0
        geom.contype = 1
    assert capacities(spec.compile()).contacts == 2
