"""Agents that come with the toolkit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from somite.agents import load_policy
from somite.agents.bundled import bundled_folder, bundled_names
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.evaluation.runs import beside, task_of
from somite.agents.storage.policy_json import policy_folder_of, policy_folders
from somite.envs.errors import UserError

MOST_BYTES = 2_000_000


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_agent_acts_and_says_how_it_was_made(name: str) -> None:
    agent = load_policy(f"bundled/{name}")
    task = task_of(agent).for_evaluation()
    agent.reset()
    env = task.make_vec(task.seen[:1], 1, aligned=agent.policy.aligned_slots)
    observation, _ = env.reset(seed=0)
    action = agent.act(observation)
    assert env.action_space.contains(action.astype(env.action_space.dtype))
    env.close()
    card = json.loads((bundled_folder(name) / "card.json").read_text())
    assert all(command.startswith("somite-train ") for command in card["command"])
    assert card["steps"] == agent.description["training"]["steps"] > 0
    assert card["seed"] == agent.description["training"]["seed"]
    assert card["machine"] and card["wall_clock"] and card["versions"]["torch"]
    assert sum(path.stat().st_size for path in bundled_folder(name).iterdir()) < MOST_BYTES


def test_there_is_one_for_each_kind_of_task() -> None:
    tasks = {name.partition("-")[0] for name in bundled_names()}
    assert {"cartpole_swingup", "ant_sensors", "cheetah", "quadruped", "car_racing"} <= tasks


def test_a_bundled_agent_is_the_trained_one() -> None:
    """A damaged or untrained one would act as well, but not like this."""
    agent = load_policy("bundled/cartpole_swingup-sensor_transformer")
    task = task_of(agent, {"senses": {"shuffle": "episode", "noise_channels": 0}}).for_evaluation()
    agent.reset()
    (result,) = run_episodes(agent.act, task, task.seen, 40, 3)
    (random,) = run_episodes(None, task, task.seen, 40, 3)
    assert result.returns.mean() > 400 > 10 * random.returns.mean()
    assert np.median(result.lengths) == 1000


def test_patterns_choose_among_them() -> None:
    names = [folder.name for folder in policy_folders("bundled/cheetah-*")]
    assert len(names) == 3 and all(name.startswith("cheetah-") for name in names)


@pytest.mark.parametrize("name", ["cheetah_limb_transformer", "../policies", "cheetah-*-none"])
def test_another_name_is_told_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match=r"no bundled agent .* choices: ant-limb_transformer"):
        policy_folders(f"bundled/{name}")


def test_no_card_names_a_machine_s_folder() -> None:
    for name in bundled_names():
        text = "".join((bundled_folder(name) / file).read_text() for file in ("card.json", "policy.json"))
        assert "/tmp" not in text and "/home" not in text and "/work" not in text


def test_a_folder_of_ones_own_comes_first(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "bundled" / "mine"
    own.mkdir(parents=True)
    for path in bundled_folder("cartpole_swingup-attention_neuron").iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    assert policy_folder_of("bundled/mine").resolve() == own.resolve()


def test_nothing_is_written_where_the_package_is() -> None:
    assert beside(bundled_folder("cheetah-smp"), "report") == Path("report") / "cheetah-smp"
    assert beside(Path("runs/mine/policy"), "report") == Path("runs/mine/report")
    assert beside(Path("runs/mine/best"), "evaluation") == Path("runs/mine/evaluation_of_best")
