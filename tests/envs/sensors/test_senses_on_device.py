"""What is done to the senses on a device: the rules of the host, and its distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from somite.envs.errors import UserError
from somite.envs.sensors import Senses
from somite.envs.sensors.env import SensorEnv

from .worlds import NoWaiting, act, go_on, tensors, waves

DISTURBED = Senses(
    history=3,
    traces=(6.0,),
    shuffle=4,
    duplicates=1,
    noise_channels=(1, 3),
    missing=0.25,
    blinking=0.2,
    stuck=1,
)
B, LONG = 400, 50


@pytest.mark.parametrize(
    "given", [Senses(shuffle=4, history=2), DISTURBED, Senses(noise_channels=1, stuck=2)]
)
def test_no_step_waits_for_the_device_and_nothing_moves(given: Senses) -> None:
    """What a CUDA graph asks for: it knows memory, and neither values nor Python's names."""
    env = waves(given, ends=[0, 5, 7])
    env.reset(0)
    places = {name: tensor.data_ptr() for name, tensor in tensors(env).items()}
    with NoWaiting():
        go_on(env, 12)
    env.reset(1), env.reset()
    env.restore(env.snapshot())
    assert places == {name: tensor.data_ptr() for name, tensor in tensors(env).items()}
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        env.check()


def orders(env: SensorEnv, steps: int) -> Tensor:
    """(steps + 1, B, N) after a reset and so many steps."""
    env.reset(0)
    found = [env.slots.order.clone()]
    for _ in range(steps):
        env.step(torch.zeros(env.num_envs, 2))
        found.append(env.slots.order.clone())
    return torch.stack(found)


def are_uniform(orders: Tensor) -> None:
    """Permutations of (rows, N), every channel in every slot as often as any other."""
    rows, n = orders.shape
    assert torch.equal(orders.sort(1)[0], torch.arange(n).expand(rows, n))
    shares = torch.nn.functional.one_hot(orders).float().mean(0)
    assert (shares - 1 / n).abs().max() < 4.5 * (1 / n * (1 - 1 / n) / rows) ** 0.5


def test_an_order_is_drawn_for_every_episode_or_never() -> None:
    never, episode = (orders(waves(Senses(shuffle=s), num_envs=B), 30) for s in ("never", "episode"))
    assert torch.equal(never, torch.arange(5).expand_as(never))
    changed = (episode[1:] != episode[:-1]).any(2)  # changed: (steps, B)
    assert not changed[[i for i in range(30) if i % 9 != 8]].any(), "episodes have 9 steps"
    assert 0.97 < changed[8::9].float().mean() <= 1
    for drawn in episode[::9]:
        are_uniform(drawn)


@pytest.mark.parametrize("stagger", [False, True])
def test_an_order_is_drawn_every_so_many_steps_of_an_episode(stagger: bool) -> None:
    env = waves(Senses(shuffle=4), num_envs=B, length=LONG, stagger=stagger)
    found = orders(env, 12)
    changed = (found[1:] != found[:-1]).any(2)
    ended = (env._steps < 12) & stagger  # began anew in between, with an order of its own
    for step in range(12):
        share = changed[step, ~ended].float().mean()
        assert share > 0.95 if step % 4 == 3 else share == 0
    are_uniform(found[4])
    assert bool(ended.any()) is stagger


def test_a_permutation_takes_channels_to_slots() -> None:
    env = waves(Senses(shuffle=2, duplicates=1), num_envs=B, length=LONG)
    observation = env.reset(0)
    for _ in range(6):
        readings = observation["privileged"].gather(1, observation["sensor"].long())
        assert torch.equal(observation["tokens"][..., 0], readings)
        observation = env.step(torch.zeros(B, 2)).observation
    assert (observation["sensor"] != torch.arange(5).repeat(2)).any()


def channels(env: SensorEnv, steps: int) -> tuple[Tensor, Tensor]:
    """Newest readings and masks, (steps + 1, B, C), of an environment that shuffles nothing."""
    found = [env.reset(0)["tokens"][..., 0].clone()], [env.slots.mask.clone()]
    for _ in range(steps):
        observation = env.step(torch.zeros(env.num_envs, 2)).observation
        for kept, seen in zip(found, (observation["tokens"][..., 0], observation["mask"]), strict=True):
            kept.append(seen.clone())
    return torch.stack(found[0]), torch.stack(found[1])


def test_noise_is_normal_and_new_in_every_step() -> None:
    values, mask = channels(waves(Senses(noise_channels=2, noise_std=0.3), num_envs=B), 20)
    noise = values[..., 5:].flatten(1)  # noise: (21, B * 2)
    assert mask.all() and abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01
    assert (noise.abs() < 0.3).float().mean() == pytest.approx(0.683, abs=0.015)
    together = torch.corrcoef(torch.cat((noise, noise.view(21, B, 2).flip(2).flatten(1))))
    assert (together - torch.eye(42)).abs().max() < 0.2


def test_how_many_channels_of_noise_there_are_is_drawn_for_every_episode() -> None:
    _, mask = channels(waves(Senses(noise_channels=(1, 3)), num_envs=B), 20)
    counts = mask[..., 5:].sum(-1)  # counts: (21, B)
    assert torch.equal(counts[0], counts[8]) and not torch.equal(counts[8], counts[9])
    for episode in counts[::9]:
        shares = torch.bincount(episode, minlength=4)[1:] / B
        assert (shares - 1 / 3).abs().max() < 0.1 and mask[..., 5].all(), "the first ones are there"


def test_a_share_of_the_sensors_is_lost_for_an_episode() -> None:
    values, mask = channels(waves(Senses(missing=0.4, noise_channels=1), num_envs=B), 20)
    lost = mask[..., :5] == 0
    assert (lost.sum(-1) == 2).all() and mask[..., 5].all() and not values[..., :5][lost].any()
    assert torch.equal(lost[0], lost[8]) and not torch.equal(lost[8], lost[9])
    for episode in lost[::9]:
        assert (episode.float().mean(0) - 0.4).abs().max() < 0.1


def test_channels_blink() -> None:
    _, mask = channels(waves(Senses(blinking=0.3), num_envs=B, length=LONG), 20)
    lost = (mask == 0).float()
    assert abs(lost.mean() - 0.3) < 0.01 and (lost.mean((0, 1)) - 0.3).abs().max() < 0.03
    assert abs((lost[1:] * lost[:-1]).mean() - 0.09) < 0.01, "each step anew"
    assert abs((lost[..., 1:] * lost[..., :-1]).mean() - 0.09) < 0.01, "each channel on its own"


def test_stuck_channels_keep_the_first_reading_of_an_episode() -> None:
    values, _ = channels(waves(Senses(stuck=2), num_envs=B), 26)
    for first in (0, 9, 18):
        still = (values[first : first + 9] == values[first]).all(0)  # still: (B, 5)
        assert (still.sum(1) == 2).all() and (still.float().mean(0) - 0.4).abs().max() < 0.1
    assert not torch.equal(values[0] == values[8], values[9] == values[17])


@pytest.mark.parametrize("choices", [0, 3])
def test_recent_actions_are_as_applied_newest_last(choices: int) -> None:
    env = waves(Senses(history=3), choices=choices, length=4)
    assert not env.reset(0)["recent_actions"].any()
    rng, done = np.random.default_rng(0), []
    for step in range(8):
        actions = act(env, rng)
        done.append(torch.eye(3)[actions] if choices else actions.clamp(-1, 1))
        result = env.step(actions)
        own = done[step - step % 4 :][-3:]  # of this episode
        assert torch.equal(result.final["recent_actions"][:, -len(own) :], torch.stack(own, 1))
        assert not result.final["recent_actions"][:, : -len(own)].any()
        assert bool(result.ended.all()) is (step % 4 == 3)
        if result.ended.all():
            assert not result.observation["recent_actions"].any()


def test_senses_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UserError, match="stuck is 9, but the sensors have 5 channels"):
        waves(Senses(stuck=9))
    with pytest.raises(UserError, match="only patches of pictures have edges"):
        waves(Senses(neighbors=4))


def rewards_of(env: Any, steps: int) -> Tensor:
    env.reset(0)
    return torch.stack([found["rewards"] for found in go_on(env, steps)])


def test_a_row_that_has_ended_stands_still_where_there_is_one_episode() -> None:
    env = waves(Senses(shuffle=1), once=True, ends=[0, 5, 7])
    found = rewards_of(env, 14)  # found: (steps, rows)
    assert (found > 0).sum(0).tolist() == [9, 5, 7]
    before = env.slots.order.clone()
    step = env.step(torch.full((3, 2), torch.nan))
    assert not (step.ended | step.diverged).any() and not step.rewards.any(), "whatever it does"
    assert torch.equal(env.slots.order, before)
    assert (rewards_of(waves(ends=[0, 5, 7]), 14) > 0).all()
