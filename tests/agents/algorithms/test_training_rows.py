"""Rows on a device and rows of the host: the same run, and on a device nothing waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from somite.agents.algorithms.ppo import PPO, TokenPPO
from somite.agents.algorithms.sb3_policy import SB3TokenPolicy
from somite.agents.composition import sizes_for
from somite.agents.policies import DeepSet, LimbTransformer, SensorTransformer
from somite.agents.rollout.cut_episodes import UnknownCuts
from somite.agents.rollout.training_rows import DeviceRows, HostRows, RowsStep
from somite.envs.errors import UserError
from somite.envs.token_env import Step
from somite.envs.tokens import limb_action_space, limb_observation_space
from tests.observations import SPEC as LIMB_SPEC
from tests.observations import random_observation

from .drift import LIMIT, SPEC, DriftTensorEnv, DriftVectorEnv
from .no_waiting import Calls, Operations, Waits
from .worlds import make_learner

B, STEPS, UPDATES = 6, 16, 3
ENV = DriftTensorEnv(B)
POLICIES = {
    "with memory": lambda: DeepSet(SPEC, **sizes_for(DeepSet, ENV), width=8, critic="shared"),
    "without": lambda: SensorTransformer(SPEC, **sizes_for(SensorTransformer, ENV), width=8, heads=1),
}


class Collected(BaseCallback):
    """What each rollout tells of its episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[np.ndarray] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        found = self.model.finished
        self.episodes.append(np.stack((found.returns, found.lengths, found.bodies)))


def learner_of(env: Any, policy: str, **settings: Any) -> TokenPPO:
    torch.manual_seed(0)
    made = POLICIES[policy]()
    defaults = {"n_steps": STEPS, "sequence_length": 4, "batch_size": 32, "n_epochs": 2, "gamma": 0.9}
    return make_learner(made, env, **{**defaults, "learning_rate": 3e-3, **settings})


def learnt(learner: TokenPPO, updates: int = UPDATES) -> tuple[Tensor, np.ndarray]:
    """Parameters after some updates, and the episodes."""
    collected = Collected()
    learner.learn(updates * B * STEPS, callback=collected)
    parameters = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
    return parameters, np.concatenate(collected.episodes, 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_both_kinds_of_rows_make_the_same_run(policy: str) -> None:
    host = learner_of(DriftVectorEnv(B), policy)
    parameters, episodes = learnt(host)
    device = learner_of(DriftTensorEnv(B), policy)
    others, told = learnt(device)
    torch.testing.assert_close(others, parameters, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(told, episodes, rtol=1e-5)
    logged = [[told["r"] for told in learner.ep_info_buffer] for learner in (host, device)]
    assert logged[1] == pytest.approx(logged[0], rel=1e-5)
    np.testing.assert_allclose(logged[0], episodes[0][-100:], rtol=1e-6)
    diverged = host.env.records.diverged
    assert np.array_equal(device.env.records.diverged, diverged) and diverged.min() > 0
    assert device.env.env.checks == UPDATES, "once a rollout"


@pytest.mark.parametrize("policy", POLICIES)
def test_without_the_values_of_cut_episodes_it_is_another_run(policy: str) -> None:
    right, again = (learnt(learner_of(DriftTensorEnv(B), policy))[0] for _ in range(2))
    wrong = learner_of(DriftTensorEnv(B), policy)
    wrong.cuts.bootstrap = lambda *_: None
    assert torch.equal(right, again) and (learnt(wrong)[0] - right).abs().max() > 1e-3


def test_episodes_are_whole_in_order_and_raw() -> None:
    """Against the plain sums of what the environment gave; the first of staggered rows are not told."""
    env, steps = DriftTensorEnv(B), []
    advance = env.step

    def recorded(actions: Tensor) -> Step:
        assert actions.abs().max() <= 1
        found = advance(actions)
        steps.append([t.clone() for t in (found.rewards, found.ended)])
        return found

    env.step = recorded
    _, told = learnt(learner_of(env, "without"))
    totals, ages, first, wanted = np.zeros(B), np.zeros(B), np.arange(B) % LIMIT > 0, []
    for rewards, ended in steps:
        totals, ages = totals + rewards.numpy(), ages + 1
        for row in np.flatnonzero(ended.numpy()):
            if not first[row]:
                wanted.append((totals[row], ages[row], env.body_of_row[row]))
            totals[row], ages[row], first[row] = 0, 0, False
    np.testing.assert_allclose(told.T, wanted, rtol=1e-6)


def guarded(learner: TokenPPO) -> TokenPPO:
    """It may not wait for the device between the beginning of a rollout and its last step."""
    step = learner._step

    def watched(time_of_step: int) -> None:
        with Operations(), Calls():
            step(time_of_step)

    learner._step = watched
    return learner


@pytest.mark.parametrize("policy", POLICIES)
def test_a_rollout_on_a_device_reads_nothing_until_its_end(policy: str) -> None:
    reads = []
    for n_steps in (STEPS, 4 * STEPS):
        learner = guarded(learner_of(DriftTensorEnv(B), policy, n_steps=n_steps))
        finish, calls = learner._finish, Calls(refuses=False)

        def counted(finish: Callable[[], None] = finish, calls: Calls = calls) -> None:
            with calls:
                finish()

        learner._finish = counted
        learner.learn(B * n_steps)
        reads.append(calls.count)
    assert reads[0] == reads[1] <= 4, "so often, however long the rollout"


READERS = {
    "a number": lambda step: step.rewards.sum().item(),
    "a condition": lambda step: bool(step.ended.any()),
    "a copy": lambda step: step.rewards.cpu(),
    "rows": lambda step: step.ended.nonzero(),
    "rows by a mask": lambda step: step.rewards[step.ended],
    "numbers of the host": lambda step: torch.tensor([1.0, 2.0]),
}


@pytest.mark.parametrize("reader", READERS)
def test_the_test_notices_what_waits(reader: str) -> None:
    env = DriftTensorEnv(B)
    advance = env.step

    def reading(actions: Tensor) -> Step:
        found = advance(actions)
        READERS[reader](found)
        return found

    env.step = reading
    with pytest.raises(Waits):
        guarded(learner_of(env, "without")).learn(B * STEPS)


@pytest.mark.parametrize("tree", [False, True])
def test_limbs_are_acted_on_without_waiting(tree: bool) -> None:
    observation = random_observation(1)
    sizes = observation["action_mask"].shape[1:]
    spaces = limb_observation_space(LIMB_SPEC, *sizes), limb_action_space(*sizes)
    policy = LimbTransformer(LIMB_SPEC, tree_encoding=tree)
    adapted = SB3TokenPolicy(*spaces, lambda _: 1e-3, policy=policy)
    with torch.no_grad(), Operations(), Calls():
        adapted(observation)


@pytest.mark.parametrize("make", [DriftVectorEnv, DriftTensorEnv])
def test_rows_go_on_where_others_were(make: type) -> None:
    rows_of = DeviceRows if make is DriftTensorEnv else HostRows
    one, other = rows_of(make(B)), rows_of(make(B))
    actions = torch.linspace(-1, 1, B)[:, None]
    one.reset()
    for _ in range(7):
        one.step(actions)
    one.records.read()
    other.reset()
    observation = other.restore(one.snapshot())
    assert observation["tokens"].std() > 0.1
    for _ in range(7):
        steps = [rows.step(actions) for rows in (one, other)]
        assert all(torch.equal(steps[0].observation[key], v) for key, v in steps[1].observation.items())
    found = [rows.records.read() for rows in (one, other)]
    assert np.array_equal(found[0].returns, found[1].returns) and len(found[0].returns) > 3
    assert np.array_equal(one.records.diverged, other.records.diverged) and one.records.diverged.any()


def test_a_row_that_is_cut_more_often_than_it_can_be_is_noticed() -> None:
    cuts = UnknownCuts(2, slots=1)
    cuts.clear()
    final, ended = {"tokens": torch.ones(2, 1)}, torch.tensor([True, False])
    for time_of_step in range(2):
        cuts.add(time_of_step, RowsStep(final, torch.ones(2), ended, ended, final), {})
    with pytest.raises(RuntimeError, match="a row was cut 2 times in 4 steps, not 1"):
        cuts.bootstrap(torch.zeros(4, 2), 0.9, lambda observation, memory: observation["tokens"])


def test_rows_that_reset_in_the_next_step_are_refused() -> None:
    def cart() -> gymnasium.Env:
        return gymnasium.make("CartPole-v1")

    with pytest.raises(UserError, match="SAME_STEP"):
        HostRows(gymnasium.vector.SyncVectorEnv([cart], autoreset_mode="NextStep"))


def test_rows_of_another_device_are_refused() -> None:
    rows = HostRows(DriftVectorEnv(B), torch.device("meta"))
    with pytest.raises(UserError, match="the learner is on cpu, but the rows were made for one on meta"):
        PPO(num_envs=B).make_learner(POLICIES["without"](), rows, torch.device("cpu"), 0, 0)


class BegunDriftEnv(DriftVectorEnv):
    """Offers to begin a step and to finish it later, and writes down what is done in between."""

    def step_begin(self, actions: np.ndarray) -> None:
        self.done.append("begin")
        self._begun = actions.copy()

    def step_finish(self) -> Any:
        self.done.append("finish")
        return self.step(self._begun)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_met_is_kept_while_other_processes_simulate(policy: str, monkeypatch) -> None:
    """Of a learner elsewhere; made believe here, where tensors are sent by copies."""
    here = learner_of(DriftVectorEnv(B), policy)
    here.learn(STEPS * B * UPDATES)
    monkeypatch.setattr(HostRows, "_is_away", property(lambda rows: True))
    monkeypatch.setattr(HostRows, "_sent", lambda rows, key, value: value.clone())
    env = BegunDriftEnv(B)
    env.done = []
    away = learner_of(env, policy)
    assert away.env.overlaps and not here.env.overlaps
    add = away.rollout_buffer.add
    monkeypatch.setattr(away.rollout_buffer, "add", lambda *met: (env.done.append("add"), add(*met)))
    away.learn(STEPS * B * UPDATES)
    assert env.done == ["begin", "add", "finish"] * (STEPS * UPDATES)
    learnt = [learner.policy.token_policy.parameters() for learner in (here, away)]
    for one, other in zip(*learnt, strict=True):
        assert torch.equal(one, other)
