"""How episodes end on a device, what is no finite number, and what an environment goes on from."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses
from somite.envs.snapshots import Misfit
from tests.envs.futures import read_back

from .test_senses_on_device import DISTURBED
from .worlds import act, equal, go_on, on_device, waves

SENSES = Senses(history=2, shuffle=2, noise_channels=1, traces=(10,))
CASES = {
    "disturbed": lambda: waves(DISTURBED, ends=[0, 5, 7]),
    "choices": lambda: waves(SENSES, choices=3),
    "once": lambda: waves(SENSES, once=True, ends=[0, 5, 7]),
    "carts": lambda: on_device(CartPoleSwingUp(DISTURBED, 30), 5, stagger=True),
    "fixed carts": lambda: on_device(CartPoleSwingUp(None, 10, "fixed"), 5),
}


@pytest.mark.parametrize("breaks", ["reading", "reward", "state"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_ends_its_episode(breaks: str, value: float) -> None:
    env, sound = (waves(SENSES, breaks=b, value=value) for b in (breaks, ""))
    observation = env.reset(0)["privileged"].clone()
    assert equal([sound.reset(0)], [env.reset(0)])
    rng = np.random.default_rng(0)
    for step in range(1, 9):
        actions = act(env, rng)
        found, wanted = env.step(actions), sound.step(actions)
        for result in (found.observation, found.final):
            assert all(tensor.isfinite().all() for tensor in result.values())
        assert found.diverged.tolist() == [False, step == 4, False]
        assert torch.equal(found.rewards[[0, 2]], wanted.rewards[[0, 2]]), "others go on"
        if step == 4:
            assert found.rewards[1] == 0 and found.terminated[1] and not found.truncated[1]
            assert found.whole[1], "its episode had begun with its clock at 0"
            if breaks != "state":
                assert torch.equal(found.final["privileged"][1], observation[1]), "its last reading again"
            assert not torch.equal(found.observation["privileged"][1], found.final["privileged"][1])
        observation = found.observation["privileged"].clone()
        assert found.rewards[1] == (0 if step == 4 else 1 + (step if step < 4 else step - 4))


def test_an_action_that_is_no_number_ends_its_episode_and_an_infinite_one_is_clipped() -> None:
    env = waves(SENSES)
    env.reset(0)
    actions = torch.tensor([[0.1, 0.2], [np.nan, 0.3], [np.inf, -np.inf]])
    found = env.step(actions)
    assert found.diverged.tolist() == found.terminated.tolist() == [False, True, False]
    assert found.rewards.tolist() == [2, 0, 2]
    assert found.final["recent_actions"][:, -1].tolist() == [pytest.approx([0.1, 0.2]), [0, 0], [1, -1]]


def test_divergence_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    env = waves(breaks="reading")
    env.reset(0)
    with caplog.at_level(logging.WARNING):
        go_on(env, 3)
        env.check()
        assert not caplog.records
        go_on(env, 3)
        env.check(), env.check()
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "waves: environments [1] diverged"
    ]


def test_episodes_that_begin_with_no_number_are_refused() -> None:
    env = waves(breaks="reading", at=0)
    with pytest.raises(UserError, match="episodes of waves in a row began with readings that are not finite"):
        env.reset(0)


def test_staggered_episodes_are_shorter_and_not_whole() -> None:
    env = waves(num_envs=300, length=20, stagger=True)
    env.reset(0)
    ages = env._start_age.clone()
    assert ages.min() >= 0 and ages.max() < 20 and abs(ages.double().mean() - 9.5) < 1.5
    for step in range(1, 41):
        found = env.step(torch.zeros(300, 2))
        first = step <= 20 - ages  # the row's first episode
        assert torch.equal(found.truncated, torch.where(first, step == 20 - ages, (step + ages) % 20 == 0))
        assert torch.equal(found.whole, found.truncated & (~first | (ages == 0)))
    env.reset()
    assert not torch.equal(env._start_age, ages) and env._start_age.max() < 20


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("before", [0, 11])
def test_a_restored_environment_has_the_same_future(name: str, before: int) -> None:
    env, other = CASES[name](), CASES[name]()
    env.reset(3), other.reset(1000)
    go_on(env, before), go_on(other, 7, 3)
    taken = read_back(env.snapshot())
    restored, future = other.restore(taken), go_on(env, 40, 5)
    assert set(restored) == set(env.single_observation_space.spaces)
    assert equal(future, go_on(other, 40, 5))
    assert equal(future, go_on_from(env, taken)), "the same one, once more"
    other.reset(1000)
    if name != "fixed carts" or before:
        assert not equal(future, go_on(other, 40, 5))


def go_on_from(env: Any, taken: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    env.restore(taken)
    return go_on(env, 40, 5)


@pytest.mark.parametrize(
    "other",
    [
        lambda: waves(DISTURBED, num_envs=4),
        lambda: waves(DISTURBED, once=True),
        lambda: waves(Senses()),
        lambda: waves(DISTURBED, n_sensors=6),
        lambda: on_device(CartPoleSwingUp(DISTURBED), 3),
    ],
)
def test_snapshots_of_others_do_not_fit_and_change_nothing(other: Any) -> None:
    env, other = waves(DISTURBED), other()
    env.reset(0), other.reset(1)
    before = env.snapshot()
    with pytest.raises(Misfit):
        env.restore(other.snapshot())
    assert equal(go_on(env, 40, 5), go_on_from(env, before))


def test_wrong_calls_are_refused() -> None:
    env = waves()
    for call in (lambda: env.step(torch.zeros(3, 2)), env.snapshot, lambda: env.restore({})):
        with pytest.raises(UserError, match=r"before reset\(\)"):
            call()
    with pytest.raises(UserError, match="2 seeds for 3 environments"):
        env.reset([1, 2])
    env.reset()
    with pytest.raises(UserError, match=r"actions have shape \(3, 1\); expected \(3, 2\)"):
        env.step(torch.zeros(3, 1))
