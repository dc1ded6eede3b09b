"""PPO around the learner's update: normaliser, bootstrap at time limits, schedule, failure."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from somite.agents.algorithms import PPO, on_policy
from somite.agents.algorithms.ppo import CONTINUED_RATE, NEW_RATE
from somite.agents.policies import SMP
from somite.agents.rollout.rewards import RewardScaling
from somite.envs.errors import UserError
from somite.envs.locomotion import LIMB_SPEC, BodySet, LocomotionTask
from tests.agents.policies.helpers import build
from tests.observations import SPEC

from .worlds import Echo, Script, learn, make_learner, only_collect

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


def test_the_normaliser_follows_valid_tokens_once_after_each_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_policy, "NORMALIZER_CHUNK", 37)  # divides nothing here
    policy = SMP(SPEC, width=16, message=8)
    env = Recorder(6)
    learner = make_learner(policy, env, n_steps=STEPS, batch_size=24, n_epochs=2)
    update, found = learner._update_normalizer, [buffers(policy)]

    def watched() -> None:
        assert_equal(found[-1], buffers(policy))  # rollout and minibatches have left it alone
        update()
        found.append(buffers(policy))

    learner._update_normalizer = watched
    learn(learner, 3 * 6 * STEPS)
    state = SPEC.token_is_state(), SPEC.joint_is_state()
    for done, now in enumerate(found[1:], start=1):
        given = env.given[: done * STEPS]  # the last observation belongs to the next rollout
        for kind, mask, is_state in zip(("token", "joint"), ("mask", "joint_mask"), state, strict=True):
            values = np.concatenate([obs[f"{kind}s"][obs[mask] == 1] for obs in given]).astype(float)
            assert now[f"{kind}_count"] == len(values)
            np.testing.assert_allclose(now[f"{kind}_shift"][is_state], values.mean(0)[is_state], rtol=1e-4)
            deviation = values.std(0)[is_state]
            np.testing.assert_allclose(now[f"{kind}_scale"][is_state], 1 / deviation, rtol=1e-5)
            assert torch.all(now[f"{kind}_scale"][~is_state] == 1)
    assert len(found) == 4 and torch.all(found[0]["token_scale"] == 1), "nothing is known at first"


def test_raw_observations_are_stored() -> None:
    env = Recorder(6)
    policy = build("smp_both")  # with a normaliser that changes what it is given
    learner = make_learner(policy, env, n_steps=STEPS)
    only_collect(learner)
    learn(learner, 6 * STEPS)
    for key, stored in learner.buffer.observations.items():
        given = np.stack([obs[key] for obs in env.given[:STEPS]])
        assert np.array_equal(stored, given) and stored.numpy().dtype == given.dtype, key


@pytest.mark.parametrize("further", [0, 1, 50], ids=["whole rollouts", "one step more", "half a rollout"])
def test_the_linear_schedule_ends_at_zero_and_never_below(further: int) -> None:
    rollout = 6 * STEPS
    total = 3 * rollout - further
    settings = {"learning_rate": 1e-3, "total_steps": total}
    learner = make_learner(SMP(SPEC, width=8, message=4), Echo(6), n_steps=STEPS, **settings)
    found = [learner.update(lambda: False)["train/learning_rate"] for _ in range(3)]
    assert found == pytest.approx([1e-3 * max(0, 1 - n * rollout / total) for n in (1, 2, 3)], abs=1e-12)
    assert found[-1] == learner.optimizer.param_groups[0]["lr"] == 0


def test_rates_are_constant_or_rise_where_a_policy_is_continued() -> None:
    constant = PPO(learning_rate=1e-3, learning_rate_schedule="constant")
    assert {constant.rate(steps, False) for steps in (0, 10**6, 10**9)} == {1e-3}
    rising = PPO(learning_rate_schedule="constant", num_envs=10, n_steps=10)
    assert rising.rate(10, False) == NEW_RATE
    assert [rising.rate(n, True) / CONTINUED_RATE for n in (100, 500, 1000, 5000)] == [0.1, 0.5, 1, 1]


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    rewards = np.ones((STEPS, 6))
    rewards[3, 2] = np.nan
    policy = SMP(SPEC, width=8, message=4)
    learner = make_learner(policy, Script(rewards), n_steps=STEPS, normalize_returns=False)
    with pytest.raises(FloatingPointError, match=r"^the gradient of \S+ .*is not finite at step 96"):
        learn(learner, 6 * STEPS)
    assert not learner.is_whole


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
    only_collect(learner)
    learn(learner, 6 * STEPS)
    wanted = np.ones((STEPS, 6))
    wanted[[3, 7], [0, 4]] = 1 + 0.9 * 5
    np.testing.assert_allclose(learner.buffer["rewards"], wanted, rtol=1e-6)


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
    only_collect(learner)
    learn(learner, 4 * 8)

    def value(observation: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            tensors = {key: torch.from_numpy(np.array(values)) for key, values in observation.items()}
            return learner.network.value(tensors).numpy()

    scaled = RewardScaling(env.body_of_row, 0.9, torch.device("cpu"))
    seen = 0
    for rewards, (observation, raw, terminated, truncated, info) in zip(
        learner.buffer["rewards"], given, strict=True
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
    with pytest.raises(UserError, match="PPO needs two or more"):
        PPO(num_envs=1, n_steps=1)
