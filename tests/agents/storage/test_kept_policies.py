"""The trained agents kept here load, fit unseen bodies, and do not mind the order of limbs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import load_policy
from somite.agents.bundled import bundled_folder
from somite.agents.evaluation.runs import task_of
from tests.observations import permute_limbs

RESULTS = Path(__file__).parents[3] / "docs" / "results"
CHEETAHS = RESULTS / "cheetah_smp_split"
KEPT = [*sorted(CHEETAHS.glob("*/policy")), bundled_folder("cheetah-mlp")]
PATCHES = [bundled_folder(f"car_racing-{name}") for name in ("patch_jigsaw", "patch_transformer")]
KINDS = ("swingup", "ant_sensors", "car_racing")
SENSORS = [path for kind in KINDS for path in sorted(RESULTS.glob(f"{kind}/*/policy"))] + PATCHES
ORDINARY = ("SensorMLP",)
OF_SLOTS = ("tokens", "mask", "traces")


def name(folder):
    """Of its run, such as swingup/clone-0, or of a bundled one."""
    run = folder.parent if folder.name == "policy" else folder
    return f"{run.parent.name}/{run.name}"


def observations_of(agent, body):
    """Some raw observations of a body that moves at random, as torch tensors (8, N, ...)."""
    bodies = task_of(agent)
    env = bodies.make_vec([body], 8, aligned=agent.policy.aligned_slots, threads=1)
    observation, _ = env.reset(seed=3)
    rng = np.random.default_rng(3)
    for _ in range(20):
        observation, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
    return {key: torch.from_numpy(value) for key, value in observation.items()}


def act(agent, observation):
    return agent.act({key: value.numpy() for key, value in observation.items()})


def test_there_are_three_seeds_of_both_agents_and_one_of_each_way_of_messages():
    seeds = [f"{agent}-{seed}" for agent in ("limb_transformer", "smp") for seed in range(3)]
    ways = ["smp_down-0", "smp_none-0", "smp_up-0"]
    assert sorted(path.parent.name for path in CHEETAHS.glob("*/policy")) == sorted(seeds + ways)


@pytest.mark.parametrize("folder", KEPT, ids=name)
def test_relabelled_limbs_of_an_unseen_body_give_relabelled_actions(folder):
    agent = load_policy(folder)
    assert agent.description["training"]["steps"] >= 3e6
    body = agent.environment["unseen"][-1]
    assert body not in agent.environment["seen"]
    observation = observations_of(agent, body)
    actions = act(agent, observation)
    assert np.abs(actions).max() > 0.1 and actions.std(0).max() > 0.1  # it does something
    order = np.random.default_rng(0).permutation(actions.shape[1])
    difference = np.abs(act(agent, permute_limbs(observation, order)) - actions[:, order]).max()
    if agent.policy.aligned_slots:
        assert difference > 0.3  # the padded network cannot know
    else:
        assert difference < 1e-4


@pytest.mark.parametrize("folder", SENSORS, ids=name)
def test_shuffled_sensors_give_the_same_actions(folder):
    if "car_racing" in str(folder):
        pytest.importorskip("Box2D", reason="CarRacing needs its extra")
    agent = load_policy(folder)
    task = task_of(agent, {"senses": {"shuffle": "never", "noise_channels": 0}})
    env = task.make_vec(num_envs=8, threads=1)
    observation, _ = env.reset(seed=3)
    rng = np.random.default_rng(3)
    for _ in range(10):
        observation, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
    actions = agent.act(observation)
    assert np.abs(actions).max() > 0.1
    order = rng.permutation(observation["tokens"].shape[1])
    shuffled = {**observation, **{key: observation[key][:, order] for key in OF_SLOTS if key in observation}}
    if "neighbors" in observation:
        shuffled["neighbors"] = order.argsort()[observation["neighbors"][:, order]]
    agent.reset()
    difference = np.abs(agent.act(shuffled) - actions).max()
    if type(agent.policy).__name__ in ORDINARY:
        assert difference > 0.3  # it cannot know
    else:
        assert difference < 1e-4
