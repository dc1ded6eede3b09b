"""Agents that were never trained: what is tested is how they are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from somite.agents.composition import sizes_for
from somite.agents.policies import MLP, LimbTransformer, SensorMLP, SensorTransformer
from somite.agents.storage.policy import save_policy
from somite.envs.task_set import task_set_of, with_changes

SWINGUP = {
    "_target_": "somite.envs.sensors.CartPoleSwingUp",
    "max_episode_steps": 40,
    "starts": "random",
    "senses": {
        "_target_": "somite.envs.sensors.Senses",
        "history": 3,
        "shuffle": "episode",
        "noise_channels": [0, 2],
    },
}
CHEETAHS = {
    "_target_": "somite.envs.locomotion.BodySet",
    "family": "cheetah",
    "split": "smp",
    "bodies": ["cheetah_2_back", "cheetah_3_front"],
    "frame_skip": 5,
    "task": {"_target_": "somite.envs.locomotion.LocomotionTask", "max_episode_steps": 20},
    "damage": {"_target_": "somite.envs.locomotion.Damage", "probability": 0.5},
}
POLICIES = {
    "transformer": SensorTransformer,
    "ordinary": SensorMLP,
    "limbs": LimbTransformer,
    "padded": MLP,
}
STEPS = 384
"""What their training is said to have taken."""


@pytest.fixture(scope="session")
def make_agent(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save an untrained agent; returns its run's folder."""
    root = tmp_path_factory.mktemp("agents")

    def make(kind: str, seed: int = 0, name: str | None = None, **changes: object) -> Path:
        folder = root / (name or f"{kind}-{seed}")
        if folder.is_dir():
            return folder
        cls = POLICIES[kind]
        if kind == "ordinary":
            changes["senses"] = {"noise_channels": 0, "shuffle": "never"}
        config = with_changes(CHEETAHS if cls.kind == "limbs" else SWINGUP, changes)
        task = task_set_of(config)
        torch.manual_seed(seed)
        with closing(task.make_env(aligned=cls.aligned_slots, threads=1)) as env:
            sizes = sizes_for(cls, env)
            policy = cls(spec=env.spec_of_tokens, **{k: v for k, v in sizes.items() if k != "n_privileged"})
        with torch.no_grad():  # actions of some size, so that what is done to the senses shows
            for parameter in policy.acting_parameters().values():
                parameter.add_(0.3 * torch.randn_like(parameter))
        names = {"seen": list(task.seen), "unseen": list(task.unseen), "hashes": task.hashes()}
        training = {"seed": seed, "steps": STEPS}
        save_policy(folder / "policy", policy, environment={"config": config, **names}, training=training)
        return folder

    return make


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)
