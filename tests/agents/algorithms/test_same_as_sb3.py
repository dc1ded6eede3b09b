"""The same learning as Stable-Baselines3's own PPO with its own rollouts in NumPy."""

from __future__ import annotations

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.logger import Logger

from somite.agents.algorithms.sb3_policy import SB3TokenPolicy
from somite.agents.policies import LimbTransformer
from somite.envs.locomotion import LIMB_SPEC, LocomotionTask, LocomotionVectorEnv
from somite.envs.sb3 import SB3VecEnv

from .worlds import make_learner

ROWS, STEPS, UPDATES = 6, 16, 3
SETTINGS = {"n_steps": STEPS, "batch_size": 40, "n_epochs": 2, "learning_rate": 1e-3, "gamma": 0.95}
FALLING = LocomotionTask(alive_bonus=1.0, relative_height=(0.6, 2.0), max_tilt=0.15, max_episode_steps=9)


def hoppers() -> LocomotionVectorEnv:
    return LocomotionVectorEnv(("hopper_3", "hopper_4"), ROWS, FALLING, threads=1, frame_skip=4, stagger=True)


def policy() -> LimbTransformer:
    torch.manual_seed(3)
    return LimbTransformer(LIMB_SPEC, width=16, layers=1)


def ours(**changes: float) -> torch.Tensor:
    made = policy()
    settings = {**SETTINGS, "learning_rate_schedule": "constant", "normalize_returns": False, **changes}
    learner = make_learner(made, hoppers(), **settings)
    learner._update_normalizer = lambda: None  # which SB3 has not
    learner.learn(UPDATES * ROWS * STEPS)
    return torch.cat([parameter.detach().flatten() for parameter in made.parameters()])


def test_parameters_are_those_of_stable_baselines() -> None:
    made, env = policy(), SB3VecEnv(hoppers(), seed=0)
    learner = stable_baselines3.PPO(
        SB3TokenPolicy, env, **SETTINGS, policy_kwargs={"policy": made}, device="cpu"
    )
    learner.set_logger(Logger(None, []))
    step, ends = env.step_wait, []

    def recorded() -> tuple:
        result = step()
        ends.extend(result[3][row]["TimeLimit.truncated"] for row in np.flatnonzero(result[2]))
        return result

    env.step_wait = recorded
    np.random.seed(0)
    torch.manual_seed(0)
    learner.learn(UPDATES * ROWS * STEPS)
    theirs = torch.cat([parameter.detach().flatten() for parameter in made.parameters()])
    assert sum(ends) > 10 and sum(not cut for cut in ends) > 2, "episodes were cut, and others ended"
    assert (theirs - torch.cat([p.detach().flatten() for p in policy().parameters()])).abs().max() > 1e-3
    torch.testing.assert_close(ours(), theirs, rtol=1e-5, atol=1e-5)
    assert (ours(gamma=0.99 * SETTINGS["gamma"]) - theirs).abs().max() > 1e-4, "another discount is noticed"
