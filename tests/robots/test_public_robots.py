"""Robots that other packages bring are read, simulated, drawn and trained as they are."""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.locomotion import LIMB_SPEC, BodySet, Morphology
from somite.envs.locomotion.backends import frame_skip_of
from somite.envs.locomotion.bodies.mjcf_files import check_files
from somite.envs.locomotion.pictures.describe import describe
from somite.envs.locomotion.pictures.rendering import BodyRenderer, find_backend, portrait
from somite.envs.task_set import task_set_of

from ..agents.runs import compose
from .public_robots import ALL, ROBOTS, label, package_folder, robot_file

KINDS = {
    "freely rolling ball with an actuated neck": (
        "dm_control",
        "locomotion/soccer/assets/boxhead/boxhead.xml",
    ),
    "spatial tendons and equality constraints": ("dm_control", "mjcf/test_assets/robot_arm.xml"),
    "no name at all": ("dm_control", "mujoco/testing/assets/cartpole_no_names.xml"),
    "actuators of the third order": (
        "dm_control",
        "mujoco/testing/assets/model_with_third_order_actuators.xml",
    ),
    "a ball on a string that is thrown": ("dm_control", "suite/ball_in_cup.xml"),
    "swims in a fluid": ("dm_control", "suite/fish.xml"),
    "gripper with objects": ("dm_control", "suite/manipulator.xml"),
    "position servos through tendons": ("dm_control", "suite/quadruped.xml"),
    "stays in the plane": ("dm_control", "suite/point_mass.xml"),
    "humanoid without a floor": ("dm_control", "locomotion/walkers/assets/humanoid_CMU_V2020.xml"),
    "lies on the ground": ("gymnasium", "envs/mujoco/assets/humanoidstandup.xml"),
    "pushes an object": ("gymnasium", "envs/mujoco/assets/pusher_v5.xml"),
    "hand on a table with tendons": ("gymnasium_robotics", "envs/assets/hand/reach.xml"),
    "held by a mocap body": ("gymnasium_robotics", "envs/assets/fetch/pick_and_place.xml"),
    "two that are coupled": ("gymnasium_robotics", "envs/multiagent_mujoco/assets/coupled_half_cheetah.xml"),
}

EXPECTED_FAILURES: dict[tuple[str, str], str] = {}
"""Robots that cannot be trained on, and the true reason of each."""

STEPS, ROWS = 3072, 16
SMALL = (
    "env=locomotion",
    "agent=smp",
    "agent.width=16",
    "agent.message=8",
    "env.task.max_episode_steps=40",
    f"algorithm.num_envs={ROWS}",
    "algorithm.n_steps=32",
    "algorithm.batch_size=256",
    "algorithm.n_epochs=2",
    "algorithm.validate_every=0",
    f"algorithm.total_steps={STEPS}",
    f"algorithm.checkpoint_every={STEPS}",
    "device=cpu",
    "threads=1",
)


def robot_arguments(path: Path) -> list[str]:
    """How a user names a file of the list: some read meshes and parts that lie beside their folder."""
    (package,) = [package_folder(package) for package in ROBOTS if package_folder(package) in path.parents]
    return ["env=locomotion", f"env.morphology='{path}'", f"env.files_from='{package}'"]


def read(path: Path) -> BodySet:
    """What `somite-train env.morphology=<path>` trains on."""
    config = compose(*robot_arguments(path)).env
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of actuators without a range
        return task_set_of(config)


def random_steps(env: TokenVectorEnv, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (steps, B) and largest absolute feature under random actions; nothing may be infinite."""
    rng, rewards, largest = np.random.default_rng(0), [], 0.0
    env.reset(seed=0)
    for _ in range(steps):
        action = rng.uniform(-1, 1, env.action_space.shape)
        observation, reward, _, _, _ = env.step(action)
        for key in ("tokens", "joints"):
            assert np.isfinite(observation[key]).all(), key
            largest = max(largest, float(np.abs(observation[key]).max()))
        assert np.isfinite(reward).all()
        rewards.append(reward)
    return np.array(rewards), largest


@pytest.mark.parametrize("robot", KINDS.values(), ids=list(KINDS))
def test_a_public_robot_is_read_and_moves_under_random_actions(robot):
    bodies = read(robot_file(*robot))
    (name,) = bodies.seen
    env = bodies.make_vec([name], 4, threads=1)
    model = env.bodies[0].model
    actuated = int(env.reset(seed=0)[0]["action_mask"][0].sum())
    assert actuated == model.nu, "every actuator is a joint row"
    rewards, _ = random_steps(env, 25)
    assert rewards.std(0).min() > 0 and np.ptp(rewards[-1]) > 0
    env.close()


def test_the_kinds_are_of_the_list():
    assert set(KINDS.values()) <= set(ALL) and len(ALL) - len(EXPECTED_FAILURES) >= 60


READ_BESIDE = {
    ("dm_control", "locomotion/walkers/assets/dog_v2/dog.xml"),
    ("gymnasium_robotics", "envs/assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"),
    *(robot for robot in ALL if re.search(r"envs/assets/(fetch|hand)/", robot[1])),
}
"""Robots that read files beside their own folder, which ``env.files_from`` allows."""


def test_only_these_need_another_folder_than_their_own():
    refused = set()
    for robot in ALL:
        try:
            check_files(robot_file(*robot))
        except UserError as error:
            assert "lies outside" in str(error)
            refused.add(robot)
    assert refused == READ_BESIDE


def test_no_robot_of_the_list_is_known_by_name_to_the_product():
    """What reads any robot must not know these. Names of bodies that we build ourselves are told apart."""
    ours = "ant cheetah half_cheetah hopper humanoid quadruped swimmer walker walker2d walker2d_v5"
    ordinary = "floor point finger fish dog reach acrobot pendulum cartpole reacher"
    stems = {Path(file).stem for _, file in ALL} - {*ours.split(), *ordinary.split()}
    words = [*stems, *ROBOTS, "fruitfly", "adroit", "fetch/"]
    words = [word for word in words if word != "gymnasium"]
    assert len(words) > 25
    for folder in ("agents", "conf", "envs", "scripts"):
        for path in (Path(__file__).parents[2] / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".json"):
                text = path.read_text()
                for word in (word for word in words if word in text):
                    assert not re.search(rf"(?<![a-z0-9]){re.escape(word)}", text), f"{path} says {word!r}"


@pytest.mark.slow
@pytest.mark.parametrize("package", ROBOTS)
def test_the_list_is_what_the_packages_hold(package):
    folder, found = package_folder(package), set()
    for path in folder.rglob("*.xml"):
        try:
            model = mujoco.MjModel.from_xml_path(str(path))
        except ValueError:
            continue  # a part of a model
        if model.nu:
            found.add(str(path.relative_to(folder)))
    assert found == set(ROBOTS[package])


@pytest.fixture(scope="module")
def backend() -> bool:
    """Whether this machine can draw."""
    try:
        find_backend()
    except UserError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("robot", ALL, ids=label)
def test_a_public_robot_is_described_drawn_and_trained(robot, backend, tmp_path, request):
    if robot in EXPECTED_FAILURES:
        request.applymarker(pytest.mark.xfail(reason=EXPECTED_FAILURES[robot], strict=True))
    path = robot_file(*robot)
    bodies = read(path)
    body = bodies.morphology(bodies.seen[0])
    assert_described(body)
    if backend:
        assert_drawn(bodies, body)
    assert_learns(path, tmp_path)


def assert_described(body: Morphology) -> None:
    told = describe(body, frame_skip_of(body.model))
    model = body.model
    drives = [row.actuator for limb in told.limbs for row in limb.joints if row.actuator]
    assert told.n_actuators == model.nu == len(drives)
    assert told.mass == pytest.approx(body.mass) and told.mass > 0
    assert all(np.isfinite(drive.strength) and drive.control[0] <= drive.control[1] for drive in drives)
    assert body.limb_descriptors.shape == (body.n_limbs, LIMB_SPEC.token_size - 22)
    assert np.isfinite(body.limb_descriptors).all()
    assert np.isfinite(np.concatenate([np.ravel(rows) for rows in body.joint_descriptors])).all()
    own = [
        joint for limb in body.limbs for joint in range(model.njnt) if model.jnt_bodyid[joint] in limb.bodies
    ]
    rows = {slot.joint for limb in body.limbs for slot in limb.slots} - {-1}
    assert rows <= set(own)


def assert_drawn(bodies: BodySet, body: Morphology) -> None:
    assert np.ptp(portrait(body, 64, 48)) > 20, "nothing is seen"
    env = bodies.make_vec([body], 1, threads=1)
    env.reset(seed=0)
    renderer = BodyRenderer(env, 64, 48)
    assert np.ptp(renderer.picture(0)) > 20
    renderer.close()
    env.close()


def assert_learns(path: Path, folder: Path) -> None:
    """Train a little: finite losses, moving parameters, varying returns."""
    config = compose(*SMALL, *robot_arguments(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Run(config, folder / "run", torch.device("cpu"))
        trunk = {k: v.clone() for k, v in run.policy.named_parameters() if k.startswith("trunk")}
        assert trunk
        run.learn()
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [[float(row[key]) for row in rows if row[key]] for key in rows[0] if key.startswith("train/")]
    assert losses and all(len(values) == STEPS // (32 * ROWS) for values in losses)
    assert np.isfinite(losses).all()
    returns = [float(row["rollout/ep_rew_mean"]) for row in rows if row["rollout/ep_rew_mean"]]
    assert np.isfinite(returns).all() and len(set(returns)) > 1
    now = dict(run.policy.named_parameters())
    assert all(torch.isfinite(value).all() for value in now.values())
    still = [name for name, value in trunk.items() if torch.equal(value, now[name])]
    # Where there is one limb, nobody reads a message.
    alone = run.learner.env.n_limbs == 1 or all(limb.parent < 0 for limb in run.learner.env.bodies[0].limbs)
    assert all(alone and ("message" in name or "from_" in name) for name in still), still
