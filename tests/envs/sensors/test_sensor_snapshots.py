"""What an environment of sensors goes on from: restored into another one, both have the same future."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv, as_arrays
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses, SensorTask
from somite.envs.sensors.mujoco_source import MujocoSource
from somite.envs.snapshots import Misfit
from tests.envs.futures import equal, go_on, read_back
from tests.envs.sensors.worlds import sensor_vec

from .test_sensor_vector_env import DISTURBED as UNTRACED

DISTURBED = replace(UNTRACED, traces=(10,))
ANT = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}
MEMORY = "SomiteTests/Memory-v0"

senses = st.builds(
    Senses,
    history=st.integers(1, 3),
    traces=st.sampled_from([(), (5.0, 40.0)]),
    shuffle=st.sampled_from(["never", "episode", 1, 5]),
    duplicates=st.integers(0, 1),
    noise_channels=st.sampled_from([0, 2, (1, 3)]),
    missing=st.sampled_from([0.0, 0.4]),
    blinking=st.sampled_from([0.0, 0.3]),
    stuck=st.integers(0, 2),
)


class Memory(gymnasium.Env):
    """Remembers what was drawn and done; with ``forgets``, it draws from a stream that no seed reaches."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, forgets: bool = False) -> None:
        self._forgets, self._own = forgets, np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._sum = self.np_random.normal()
        return self._reading(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        rng = self._own if self._forgets else self.np_random
        self._sum = 0.9 * self._sum + action * rng.normal()
        return self._reading(), self._sum, abs(self._sum) > 12 and not self._forgets, False, {}

    def _reading(self) -> np.ndarray:
        return np.array([self._sum, self._sum**2], np.float32)


@pytest.fixture(autouse=True, scope="module")
def memory() -> Iterator[None]:
    gymnasium.register(MEMORY, entry_point=Memory, max_episode_steps=15)
    yield
    del gymnasium.registry[MEMORY]


def carts(
    senses: Senses = DISTURBED, rows: int = 5, starts: str = "random", **options: Any
) -> TokenVectorEnv:
    return CartPoleSwingUp(senses, 30, starts).make_vec(num_envs=rows, **options)


def of_gymnasium(env_id: str, kwargs: dict | None = None, rows: int = 3, **values: Any) -> TokenVectorEnv:
    task = GymnasiumTask(env_id, kwargs, values.pop("senses", DISTURBED), None, values.pop("limit", None))
    return task.make_vec(num_envs=rows, threads=1, **values)


def by_hand(task: SensorTask) -> TokenVectorEnv:
    return sensor_vec(task.make_source(4), DISTURBED, autoreset_mode="Disabled")


CASES = {
    "fixed starts": lambda: carts(starts="fixed"),
    "staggered": lambda: carts(stagger=True),
    "once": lambda: carts(once=True),
    "reset by hand": lambda: by_hand(CartPoleSwingUp(max_episode_steps=30)),
    "watched": lambda: carts(beside=Senses(history=2, duplicates=1)),
    "ant": lambda: of_gymnasium("Ant-v5", ANT, limit=20),
    "humanoid": lambda: of_gymnasium(
        "Humanoid-v5",
        ANT | {f"include_{name}_in_observation": False for name in ("cinert", "cvel", "qfrc_actuator")},
        limit=20,
    ),
    "hopper once": lambda: of_gymnasium("Hopper-v5", once=True, limit=30),
    "replayed": lambda: of_gymnasium("Pendulum-v1", limit=50),
    "replayed choices": lambda: of_gymnasium(MEMORY),
    "replayed once": lambda: of_gymnasium(MEMORY, once=True),
    "replayed by hand": lambda: by_hand(GymnasiumTask(MEMORY)),
}


def restored(make: Any, before: int, seed: int) -> tuple[TokenVectorEnv, TokenVectorEnv]:
    """An environment after so many steps, and another that has been brought there."""
    env, other = make(), make()
    bring(other, env, before, seed)
    return env, other


def bring(other: TokenVectorEnv, env: TokenVectorEnv, before: int, seed: int) -> None:
    """Bring another environment to where this one is after so many steps."""
    env.reset(seed=seed)
    go_on(env, before, seed)
    other.reset(seed=1000)
    go_on(other, 7, 3)
    other.restore(read_back(env.snapshot()))
    assert not other.begun_anew.any()


@settings(max_examples=30, deadline=None)
@given(senses=senses, before=st.integers(0, 40), seed=st.integers(0, 99))
def test_whatever_the_senses_a_restored_environment_has_the_same_future(senses, before, seed) -> None:
    env, other = restored(lambda: carts(senses, stagger=bool(seed % 2)), before, seed)
    assert equal(go_on(env, 35, seed + 1), go_on(other, 35, seed + 1)), "over the end of an episode"


@pytest.mark.parametrize("case", CASES)
def test_and_whatever_the_task(case: str) -> None:
    env, other = CASES[case](), CASES[case]()
    for before, seed in ((1, 0), (26, 1), (75, 2)):
        bring(other, env, before, seed)
        assert equal(go_on(env, 40, seed + 1), go_on(other, 40, seed + 1))
    other.reset(seed=4), env.reset(seed=4)
    assert equal(go_on(env, 5, 0), go_on(other, 5, 0)), "fixed starts begin with the first again"


def test_worlds_of_box2d_keep_nothing_of_earlier_episodes() -> None:
    """A BipedalWalker that has walked before walks otherwise than a fresh one, unless its world is new."""
    pytest.importorskip("Box2D")
    env, other = restored(lambda: of_gymnasium("BipedalWalker-v3"), 150, 0)
    assert env._steps.min() < 150 and equal(go_on(env, 60, 1), go_on(other, 60, 1))
    env.source._made_anew = other.source._made_anew = False
    go_on(env, 150, 2), other.reset(seed=0)
    other.restore(env.snapshot())
    assert other.begun_anew.any(), "the negative control"


def test_the_future_is_the_same_in_another_process(tmp_path: Path) -> None:
    """With what the batch of a fresh process holds beside the states."""
    code = """
import torch, numpy as np
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses
senses = Senses(history=3, shuffle=4, noise_channels=2, missing=0.25, blinking=0.2, stuck=1, traces=(10,))
kwargs = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}
carts, ants = CartPoleSwingUp(senses, 30), GymnasiumTask("Ant-v5", kwargs, senses, None, 30)
pendulums = GymnasiumTask("Pendulum-v1", None, senses, None, 50)
envs = [task.make_vec(num_envs=4, threads=1) for task in (carts, ants, pendulums)]
def go_on(env, steps, seed):
    rng, found = np.random.default_rng(seed), []
    for _ in range(steps):
        found.append(env.step(rng.uniform(-1, 1, env.action_space.shape))[:2])
    return [array for seen, rewards in found for array in (seen["tokens"], rewards, seen["mask"])]
for seed, env in enumerate(envs):
    env.reset(seed=seed if which == "first" else 100)
if which == "first":
    for env in envs:
        go_on(env, 40, 0)
    torch.save([env.snapshot() for env in envs], path)
else:
    for env, taken in zip(envs, torch.load(path, weights_only=True)):
        env.restore(taken)
np.savez(path + which, *[array for env in envs for array in go_on(env, 60, 1)])
"""
    path, found = str(tmp_path / "taken"), []
    exec(code, {"which": "first", "path": path})
    there = f"which, path = 'second', {path!r}\n{code}"
    subprocess.run([sys.executable, "-c", there], check=True, timeout=120)
    for which in ("first", "second"):
        with np.load(f"{path}{which}.npz") as arrays:
            found.append([arrays[name] for name in arrays.files])
    assert equal(*found) and len(found[0]) == 3 * 3 * 60


@pytest.mark.parametrize("case", ["staggered", "once", "ant", "replayed choices"])
def test_taking_a_snapshot_changes_nothing_and_shares_nothing(case: str) -> None:
    env, undisturbed = CASES[case](), CASES[case]()
    env.reset(seed=0), undisturbed.reset(seed=0)
    go_on(env, 10, 0), go_on(undisturbed, 10, 0)
    taken = env.snapshot()
    kept, seen = read_back(taken), as_arrays(env.env._observation())
    future = go_on(env, 40, 1)
    assert equal(future, go_on(undisturbed, 40, 1))
    found = env.restore(taken)  # back in time, by what would have changed if it shared memory
    assert equal(found, seen)
    other = CASES[case]()
    other.reset(seed=5)
    other.restore(kept)
    assert equal(go_on(env, 40, 1), future) and equal(go_on(other, 40, 1), future)


@pytest.mark.parametrize(
    "part",
    [
        *("_draws", "_steps", "_start_age", "_recent", "_readings"),
        *("channels", "slots", "source", "_beside", "_running"),
    ],
)
def test_every_part_is_needed(part: str) -> None:
    """The negative control: what is restored without one of its parts has another future."""

    def make() -> TokenVectorEnv:
        if part in ("_running", "_readings"):
            return carts(once=True)
        return carts(stagger=True, beside=Senses(history=2))

    env, other = make(), make()
    env.reset(seed=0), other.reset(seed=9)
    # Of those that run once, all have ended here and none there.
    go_on(env, 31 if part in ("_running", "_readings") else 6, 0), go_on(other, 5, 1)
    taken = env.snapshot()
    other.restore({**taken, part: other.snapshot()[part]})
    assert not equal(go_on(env, 80, 2), go_on(other, 80, 2))


def test_fixed_starts_go_on_where_they_were() -> None:
    env, other = restored(lambda: carts(Senses(), starts="fixed"), 70, 0)
    assert env.source._next_start.min() >= 10, "at least two episodes each have begun"
    other.restore(
        {**env.snapshot(), "source": {**env.source.snapshot(), "_next_start": torch.zeros(5).long()}}
    )
    assert not equal(go_on(env, 80, 1), go_on(other, 80, 1))


def test_what_cannot_be_replayed_begins_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """And only that: the rows that it concerns."""

    def make() -> TokenVectorEnv:
        return of_gymnasium(MEMORY, {"forgets": True}, rows=4)

    env, other = make(), make()
    env.reset(seed=0), other.reset(seed=1)
    env.step(np.zeros(4))
    env.reset(options={"reset_mask": np.array([False, True, False, False])})  # a start can be replayed
    assert env._steps.tolist() == [1, 0, 1, 1]
    other.restore(read_back(env.snapshot()))
    assert other.begun_anew.tolist() == [True, False, True, True]
    assert caplog.text.count("cannot be replayed") == 1
    said = f"episodes of {MEMORY} cannot be replayed; 3 of 4 environments begin anew, so the run is no"
    assert said in caplog.text and other._steps.tolist() == [0, 0, 0, 0]
    for row in (0, 2, 3):
        assert (other.source._shown[row] - env.source._shown[row]).abs().max() > 1e-3
    told, wanted = (as_arrays(one.env._observation()) for one in (other, env))
    assert all(np.array_equal(told[key][1], wanted[key][1]) for key in told)
    assert all(np.isfinite(step[1]).all() for step in go_on(other, 40, 0)[1:])


def test_an_episode_that_ends_too_soon_has_not_been_replayed(caplog: pytest.LogCaptureFixture) -> None:
    env, other = (of_gymnasium(MEMORY, rows=1) for _ in range(2))
    env.reset(seed=0), other.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros(1))
    taken = env.snapshot()
    other.source._envs[0].unwrapped.step = lambda action: (np.zeros(2, np.float32), 0.0, True, False, {})
    other.source._shown[:] = env.source._shown
    other.restore(taken)
    assert other.begun_anew.all() and "cannot be replayed" in caplog.text


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: carts(rows=6), "num_envs 5, here 6"),
        (lambda: carts(replace(DISTURBED, blinking=0.1)), "senses"),
        (lambda: carts(once=True), "once"),
        (lambda: carts(beside=Senses()), "beside None, here Senses"),
        (lambda: of_gymnasium("Pendulum-v1", rows=5), "task cartpole_swingup, here Pendulum-v1"),
    ],
)
def test_another_environment_is_refused_before_anything_is_changed(other: Any, said: str) -> None:
    env, other, same = carts(), other(), other()
    env.reset(seed=0), other.reset(seed=1), same.reset(seed=1)
    with pytest.raises(Misfit, match=f"the snapshot is of another environment: {said}"):
        other.restore(env.snapshot())
    assert equal(go_on(other, 10, 0), go_on(same, 10, 0))


def test_one_batch_and_gymnasiums_own_simulations_are_not_mixed() -> None:
    ours, theirs = (
        GymnasiumTask("Hopper-v5", simulation=who).make_vec(num_envs=2, threads=1)
        for who in ("batched", "gymnasium")
    )
    ours.reset(seed=0), theirs.reset(seed=0)
    with pytest.raises(Misfit, match="simulation MujocoSource, here GymnasiumSource"):
        theirs.restore(ours.snapshot())
    assert isinstance(ours.source, MujocoSource)


def test_there_is_nothing_to_go_on_from_before_the_first_reset() -> None:
    env, other = carts(), carts()
    with pytest.raises(UserError, match=r"snapshot\(\) before reset\(\): call reset\(\) first"):
        env.snapshot()
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"restore\(\) before reset\(\): call reset\(\) first"):
        other.restore(env.snapshot())


def test_long_episodes_are_kept_whole() -> None:
    """Longer than what there is room for at first, twice."""
    env, other = restored(lambda: of_gymnasium("Pendulum-v1", limit=300, senses=Senses()), 150, 0)
    assert env.source._episodes.of(0)[1].shape == (150, 1)
    assert equal(go_on(env, 180, 1), go_on(other, 180, 1))
    again = env.snapshot()["source"]["_episodes"]["actions"]
    assert again.shape == (3, 30, 1), "no longer than what is needed"
