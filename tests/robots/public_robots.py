"""MJCF files with an actuator that other people's packages bring: robots that nobody here has seen before."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROBOTS = {
    "dm_control": (
        "locomotion/soccer/assets/boxhead/boxhead.xml",
        "locomotion/walkers/assets/dog_v2/dog.xml",
        "locomotion/walkers/assets/fruitfly_v2/floor.xml",
        "locomotion/walkers/assets/fruitfly_v2/fruitfly.xml",
        "locomotion/walkers/assets/humanoid_CMU_V2019.xml",
        "locomotion/walkers/assets/humanoid_CMU_V2020.xml",
        "locomotion/walkers/assets/jumping_ball/jumping_ball_with_head.xml",
        "locomotion/walkers/assets/rodent.xml",
        "mjcf/test_assets/robot_arm.xml",
        "mujoco/testing/assets/cartpole.xml",
        "mujoco/testing/assets/cartpole_no_names.xml",
        "mujoco/testing/assets/humanoid.xml",
        "mujoco/testing/assets/model_with_third_order_actuators.xml",
        "suite/acrobot.xml",
        "suite/ball_in_cup.xml",
        "suite/cartpole.xml",
        "suite/cheetah.xml",
        "suite/dog.xml",
        "suite/finger.xml",
        "suite/fish.xml",
        "suite/hopper.xml",
        "suite/humanoid.xml",
        "suite/humanoid_CMU.xml",
        "suite/manipulator.xml",
        "suite/pendulum.xml",
        "suite/point_mass.xml",
        "suite/quadruped.xml",
        "suite/reacher.xml",
        "suite/stacker.xml",
        "suite/walker.xml",
        "third_party/ant/ant.xml",
    ),
    "gymnasium": (
        "envs/mujoco/assets/ant.xml",
        "envs/mujoco/assets/half_cheetah.xml",
        "envs/mujoco/assets/hopper.xml",
        "envs/mujoco/assets/humanoid.xml",
        "envs/mujoco/assets/humanoidstandup.xml",
        "envs/mujoco/assets/inverted_double_pendulum.xml",
        "envs/mujoco/assets/inverted_pendulum.xml",
        "envs/mujoco/assets/point.xml",
        "envs/mujoco/assets/pusher.xml",
        "envs/mujoco/assets/pusher_v5.xml",
        "envs/mujoco/assets/reacher.xml",
        "envs/mujoco/assets/swimmer.xml",
        "envs/mujoco/assets/walker2d.xml",
        "envs/mujoco/assets/walker2d_v5.xml",
    ),
    "gymnasium_robotics": (
        "envs/assets/adroit_hand/adroit_door.xml",
        "envs/assets/adroit_hand/adroit_hammer.xml",
        "envs/assets/adroit_hand/adroit_pen.xml",
        "envs/assets/adroit_hand/adroit_relocate.xml",
        "envs/assets/fetch/pick_and_place.xml",
        "envs/assets/hand/manipulate_block.xml",
        "envs/assets/hand/manipulate_block_touch_sensors.xml",
        "envs/assets/hand/manipulate_egg.xml",
        "envs/assets/hand/manipulate_egg_touch_sensors.xml",
        "envs/assets/hand/manipulate_pen.xml",
        "envs/assets/hand/manipulate_pen_touch_sensors.xml",
        "envs/assets/hand/reach.xml",
        "envs/assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml",
        "envs/assets/point/point.xml",
        "envs/mujoco/assets/ant.xml",
        "envs/mujoco/assets/half_cheetah.xml",
        "envs/mujoco/assets/hopper.xml",
        "envs/mujoco/assets/humanoid.xml",
        "envs/mujoco/assets/humanoidstandup.xml",
        "envs/mujoco/assets/inverted_double_pendulum.xml",
        "envs/mujoco/assets/inverted_pendulum.xml",
        "envs/mujoco/assets/point.xml",
        "envs/mujoco/assets/pusher.xml",
        "envs/mujoco/assets/reacher.xml",
        "envs/mujoco/assets/swimmer.xml",
        "envs/mujoco/assets/walker2d.xml",
        "envs/multiagent_mujoco/assets/coupled_half_cheetah.xml",
    ),
}
"""Package: paths of its files. `test_the_list_is_what_the_packages_hold` keeps it true."""

ALL = [(package, file) for package, files in ROBOTS.items() for file in files]


def package_folder(package: str) -> Path:
    """Where an installed package lies, found without importing it; a test is skipped where it is missing."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed; pip install -e '.[dev]' brings it")
    return Path(found.origin).parent


def robot_file(package: str, file: str) -> Path:
    """The path of a robot of the list."""
    return package_folder(package) / file


def label(robot: tuple[str, str]) -> str:
    """A short name of a test."""
    package, file = robot
    return f"{package}/{file.removesuffix('.xml').rpartition('/')[2]}"
