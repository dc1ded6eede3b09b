"""PPO around the learner's update: normaliser, bootstrap at time limits, schedule, failure."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback

from somite.agents.algorithms import PPO, token_ppo
from somite.agents.policies import SMP
from somite.agents.rollout.reward_scaling import RewardScaling
from somite.envs.errors import UserError
from somite.envs.locomotion import LIMB_SPEC, BodySet, LocomotionTask
from tests.observations import SPEC
from tests.policies.helpers import build

from .worlds import Echo, Script, make_learner

STEPS = 16


def buffers(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.normalizer.named_buffers()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(one[name], other[name]) for name in one)


class Recorder(Echo):
    """An `Echo` that keeps every observation it gives, but for those of resets before learning."""

    given: list[dict[str, np.ndarray]]

    def reset(self, **options: Any) -> tuple[dict, dict]:
        observation, info = super().reset(**options)
        self.given = [copy.deepcopy(observation)]
        return observation, info

    def step(self, actions: np.ndarray) -> tuple:
        result = super().step(actions)
        self.given.append(copy.deepcopy(result[0]))
        return result


class CollectionWatch(BaseCallback):
    """Checks that a rollout leaves the normaliser alone, and keeps its buffers of each rollout."""

    def __init__(self, policy: torch.nn.Module) -> None:
        super().__init__()
        self.policy, self.rollouts = policy, []

    def _on_rollout_start(self) -> None:
        self.rollouts.append(buffers(self.policy))

    def _on_step(self) -> bool:
        assert_equal(self.rollouts[-1], buffers(self.policy))
        return True


def test_the_normaliser_follows_valid_tokens_once_after_each_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_ppo, "NORMALIZER_CHUNK", 37)  # divides nothing here
    policy = SMP(SPEC, width=16, message=8)
    env, updates = Recorder(6), []
    learner = make_learner(policy, env, n_steps=STEPS, batch_size=24, n_epochs=2)
    train = stable_baselines3.PPO.train

    def watched(self: Any) -> None:
        before = buffers(policy)
        train(self)
        assert_equal(before, buffers(policy))
        updates.append(before)

    monkeypatch.setattr(stable_baselines3.PPO, "train", watched)
    watch = CollectionWatch(policy)
    learner.learn(3 * 6 * STEPS, callback=watch)
    assert len(updates) == len(watch.rollouts) == 3
    state = SPEC.token_is_state(), SPEC.joint_is_state()
    for done, found in enumerate([*watch.rollouts[1:], buffers(policy)], start=1):
        given = env.given[: done * STEPS]  # the last observation belongs to the next rollout
        for kind, mask, is_state in zip(("token", "joint"), ("mask", "joint_mask"), state, strict=True):
            values = np.concatenate([obs[f"{kind}s"][obs[mask] == 1] for obs in given]).astype(float)
            assert found[f"{kind}_count"] == len(values)
            np.testing.assert_allclose(found[f"{kind}_shift"][is_state], values.mean(0)[is_state], rtol=1e-4)
            deviation = values.std(0)[is_state]
            np.testing.assert_allclose(found[f"{kind}_scale"][is_state], 1 / deviation, rtol=1e-5)
            assert torch.all(found[f"{kind}_scale"][~is_state] == 1)
    assert torch.all(watch.rollouts[0]["token_scale"] == 1), "nothing is known in the first rollout"


def test_raw_observations_are_stored() -> None:
    env = Recorder(6)
    policy = build("smp_both")  # with a normaliser that changes what it is given
    learner = make_learner(policy, env, n_steps=STEPS)
    learner.train = lambda: None
    learner.learn(6 * STEPS)
    for key, stored in learner.rollout_buffer.observations.items():
        given = np.stack([obs[key] for obs in env.given[:STEPS]])
        assert np.array_equal(stored, given) and stored.numpy().dtype == given.dtype, key


class Rates(BaseCallback):
    """The learning rate of each update, read when the next rollout begins."""

    def _on_training_start(self) -> None:
        self.found: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.found.append(self.model.policy.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("further", [0, 1, 50], ids=["whole rollouts", "one step more", "half a rollout"])
def test_the_linear_schedule_ends_at_zero_and_never_below(further: int) -> None:
    rollout = 6 * STEPS
    total = 3 * rollout - further
    learner = make_learner(SMP(SPEC, width=8, message=4), Echo(6), n_steps=STEPS, learning_rate=1e-3)
    rates = Rates()
    learner.resume_learning(total, rates)
    found = [*rates.found[1:], learner.policy.optimizer.param_groups[0]["lr"]]
    assert found == pytest.approx([1e-3 * max(0, 1 - n * rollout / total) for n in (1, 2, 3)], abs=1e-12)
    assert found[-1] == 0


def test_the_constant_schedule_is_constant() -> None:
    settings = {"learning_rate": 1e-3, "learning_rate_schedule": "constant"}
    learner = make_learner(SMP(SPEC, width=8, message=4), Echo(6), n_steps=STEPS, **settings)
    learner.resume_learning(2 * 6 * STEPS, Rates())
    assert learner.policy.optimizer.param_groups[0]["lr"] == 1e-3


def test_a_parameter_that_is_not_finite_stops_the_run() -> None:
    rewards = np.ones((STEPS, 6))
    rewards[3, 2] = np.nan
    policy = SMP(SPEC, width=8, message=4)
    learner = make_learner(policy, Script(rewards), n_steps=STEPS, normalize_returns=False)
    with pytest.raises(FloatingPointError, match=r"^the gradient of \S+ .*is not finite at step 96"):
        learner.learn(6 * STEPS)


class Marked(Script):
    """The first reading of every limb is 2 while an episode runs, 5 at its end, and -3 at a start."""

    def draw(self) -> dict[str, np.ndarray]:
        observation = super().draw()
        observation["tokens"][..., 0] = 2.0 * self.mask
        return observation

    def step(self, actions: np.ndarray) -> tuple:
        observation, rewards, terminated, truncated, info = super().step(actions)
        for row in np.flatnonzero(terminated | truncated):
            info["final_obs"][row]["tokens"][:, 0] = 5.0 * self.mask[row]
            observation["tokens"][row, :, 0] = -3.0 * self.mask[row]
        return observation, rewards, terminated, truncated, info


def test_time_limits_bootstrap_from_the_last_observation_and_terminations_do_not() -> None:
    truncated, terminated = np.zeros((STEPS, 6), bool), np.zeros((STEPS, 6), bool)
    truncated[[3, 7], [0, 4]] = True
    terminated[[5, 9], [1, 4]] = True
    truncated[10, 2] = terminated[10, 2] = True  # both at once: it ended
    env = Marked(np.ones((STEPS, 6)), terminated, truncated)
    policy = SMP(SPEC, width=8, message=4)
    policy.value = lambda features, observation: observation["tokens"][:, 0, 0] + 0.0 * features.sum((1, 2))
    learner = make_learner(policy, env, n_steps=STEPS, gamma=0.9, normalize_returns=False)
    learner.train = lambda: None
    learner.learn(6 * STEPS)
    wanted = np.ones((STEPS, 6))
    wanted[[3, 7], [0, 4]] = 1 + 0.9 * 5
    np.testing.assert_allclose(learner.rollout_buffer.rewards, wanted, rtol=1e-6)


def test_a_real_body_bootstraps_from_where_it_was_stopped() -> None:
    bodies = BodySet("cheetah", task=LocomotionTask(max_episode_steps=6))
    env = bodies.make_vec(("cheetah_3_front", "cheetah_7_full"), 4, threads=1)
    torch.manual_seed(1)
    policy = SMP(LIMB_SPEC, width=16, message=8)
    learner = make_learner(policy, env, n_steps=8, gamma=0.9)
    step, given = env.step, []

    def recorded(actions: np.ndarray) -> Any:
        result = step(actions)
        given.append(copy.deepcopy(result))
        return result

    env.step = recorded
    learner.train = lambda: None
    learner.learn(4 * 8)

    def value(observation: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            tensors = {key: torch.from_numpy(np.array(values)) for key, values in observation.items()}
            return learner.policy.predict_values(tensors).numpy().flatten()

    scaled = RewardScaling(env.body_of_row, 0.9, torch.device("cpu"))
    seen = 0
    for rewards, (observation, raw, terminated, truncated, info) in zip(
        learner.rollout_buffer.rewards, given, strict=True
    ):
        dones = terminated | truncated
        given_rewards = scaled(torch.from_numpy(raw), torch.from_numpy(dones))
        for row in range(4):
            bootstrap = 0.0
            if dones[row]:
                last = {key: values[None] for key, values in info["final_obs"][row].items()}
                bootstrap = 0.9 * value(last)[0]
                assert abs(bootstrap - 0.9 * value(observation)[row]) > 1e-2, "another place than the start"
                seen += 1
            assert rewards[row].item() == pytest.approx(given_rewards[row].item() + bootstrap, abs=1e-5)
    assert seen == 4


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(
        UserError, match="algorithm.learning_rate_schedule must be one of linear, constant, got 'cosine'"
    ):
        PPO(learning_rate_schedule="cosine")
    with pytest.raises(
        UserError, match="algorithm.n_steps must be a whole number from 1 to 1,000,000, got 0"
    ):
        PPO(n_steps=0)
    with pytest.raises(UserError, match="num_envs is 3, but 12 bodies are trained on"):
        PPO(num_envs=3).make_rows(BodySet("cheetah"), aligned=False)
