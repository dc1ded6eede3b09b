"""Rows on a device and rows of the host: the same run, and on a device nothing waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from somite.agents.algorithms.network import Network
from somite.agents.algorithms.ppo import PPOLearner
from somite.agents.composition import sizes_for
from somite.agents.policies import DeepSet, LimbTransformer, SensorTransformer
from somite.agents.rollout.episodes import Episodes
from somite.agents.rollout.rewards import KnownCuts, UnknownCuts
from somite.envs.token_env import Step, TokenEnv
from tests.agents.algorithms.drift import LIMIT, SPEC, DriftEnv
from tests.agents.algorithms.no_waiting import Calls, Operations, Waits
from tests.agents.algorithms.worlds import learn, make_learner, only_collect
from tests.observations import SPEC as LIMB_SPEC
from tests.observations import random_observation

B, STEPS, UPDATES = 6, 16, 3
ENV = DriftEnv(B)
POLICIES = {
    "with memory": lambda: DeepSet(SPEC, **sizes_for(DeepSet, ENV), width=8, critic="shared"),
    "without": lambda: SensorTransformer(SPEC, **sizes_for(SensorTransformer, ENV), width=8, heads=1),
}


def learner_of(env: TokenEnv, policy: str, **settings: Any) -> PPOLearner:
    torch.manual_seed(0)
    made = POLICIES[policy]()
    defaults = {"n_steps": STEPS, "sequence_length": 4, "batch_size": 32, "n_epochs": 2, "gamma": 0.9}
    return make_learner(made, env, **{**defaults, "learning_rate": 3e-3, **settings})


def learnt(learner: PPOLearner, updates: int = UPDATES) -> tuple[Tensor, np.ndarray]:
    """Parameters after some updates, and the episodes."""
    episodes, add = [], learner.episodes.add

    def kept(found: Episodes, *others: Any) -> None:
        episodes.append(np.stack((found.returns, found.lengths, found.bodies)))
        add(found, *others)

    learner.episodes.add = kept
    learn(learner, updates * B * STEPS)
    parameters = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
    return parameters, np.concatenate(episodes, 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_it_is_the_same_run_whether_the_host_knows_of_ends_or_not(policy: str) -> None:
    known = learner_of(DriftEnv(B, knows_ends=True), policy)
    parameters, episodes = learnt(known)
    unknown = learner_of(DriftEnv(B), policy)
    others, told = learnt(unknown)
    assert isinstance(known.cuts, KnownCuts) and isinstance(unknown.cuts, UnknownCuts)
    torch.testing.assert_close(others, parameters, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(told, episodes, rtol=1e-5)
    scalars = unknown.episodes.scalars()
    assert scalars["rollout/ep_rew_mean"] == pytest.approx(episodes[0][-100:].mean(), rel=1e-5)
    assert np.array_equal(unknown.episodes.diverged, known.episodes.diverged)
    assert unknown.episodes.diverged.min() > 0 and unknown.env.checks == UPDATES, "once a rollout"


@pytest.mark.parametrize("policy", POLICIES)
def test_without_the_values_of_cut_episodes_it_is_another_run(policy: str) -> None:
    right, again = (learnt(learner_of(DriftEnv(B), policy))[0] for _ in range(2))
    wrong = learner_of(DriftEnv(B), policy)
    wrong.cuts.bootstrap = lambda *_: None
    assert torch.equal(right, again) and (learnt(wrong)[0] - right).abs().max() > 1e-3


def test_episodes_are_whole_in_order_and_raw() -> None:
    """Against the plain sums of what the environment gave; the first of staggered rows are not told."""
    env, steps = DriftEnv(B), []
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


def guarded(learner: PPOLearner) -> PPOLearner:
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
        learner = guarded(learner_of(DriftEnv(B), policy, n_steps=n_steps))
        only_collect(learner)
        with Calls(refuses=False) as calls:
            learner._collect(lambda: False)
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
    env = DriftEnv(B)
    advance = env.step

    def reading(actions: Tensor) -> Step:
        found = advance(actions)
        READERS[reader](found)
        return found

    env.step = reading
    with pytest.raises(Waits):
        guarded(learner_of(env, "without")).update(lambda: False)


@pytest.mark.parametrize("tree", [False, True])
def test_limbs_are_acted_on_without_waiting(tree: bool) -> None:
    observation = random_observation(1)
    network = Network(LimbTransformer(LIMB_SPEC, tree_encoding=tree))
    network.device = torch.device("cuda")  # made believe: on a CPU limbs are counted, to leave out padding
    with torch.no_grad(), Operations(), Calls():
        network.act(observation)


def test_an_environment_that_is_cut_more_often_than_it_can_be_is_noticed() -> None:
    cuts = UnknownCuts(2, slots=1)
    cuts.clear()
    final, cut = {"tokens": torch.ones(2, 1)}, torch.tensor([True, False])
    for time_of_step in range(2):
        cuts.add(time_of_step, cut, final, {})
    with pytest.raises(RuntimeError, match="an environment was cut 2 times in 4 steps, not 1"):
        cuts.bootstrap(torch.zeros(4, 2), 0.9, lambda observation, memory: observation["tokens"])


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_met_is_kept_while_other_processes_simulate(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a learner elsewhere; made believe here, where tensors are sent by copies."""
    here = learner_of(DriftEnv(B, knows_ends=True), policy)
    learn(here, STEPS * B * UPDATES)
    monkeypatch.setattr(PPOLearner, "_sent", lambda learner, key, value: value.clone())
    env, done = DriftEnv(B, knows_ends=True), []
    away = learner_of(env, policy)
    assert not here._is_away and not away._is_away
    away._is_away = True
    away.observation = away._moved(away.observation)
    for holder, name in ((env, "begin"), (env, "finish"), (away.buffer, "add")):
        call = getattr(holder, name)
        monkeypatch.setattr(holder, name, lambda *a, c=call, n=name: (done.append(n), c(*a))[1])
    learn(away, STEPS * B * UPDATES)
    assert done == ["begin", "add", "finish"] * (STEPS * UPDATES)
    for one, other in zip(here.policy.parameters(), away.policy.parameters(), strict=True):
        assert torch.equal(one, other)
