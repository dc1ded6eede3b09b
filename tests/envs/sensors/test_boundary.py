"""What an environment of somebody else gives is checked against what it declares, and read by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from somite.envs.errors import EnvironmentFault, UserError
from somite.envs.sensors import GymnasiumTask
from somite.envs.sensors.boundary import Sensors

GIVES = "SomiteTests/Gives-v0"
THREE = spaces.Box(-1.0, 1.0, (3,), np.float32)
ZEROS = np.zeros(3, np.float32)
MIXED = spaces.Dict(
    gear=spaces.Discrete(3, start=1),
    hand=spaces.Dict(at=spaces.Box(-1, 1, (2,)), open=spaces.Box(0, 1, ())),
    keys=spaces.MultiBinary(2),
    pair=spaces.Tuple((spaces.MultiDiscrete([2, 2], start=[5, 0]), spaces.Discrete(2))),
)


class Gives(gymnasium.Env):
    """Declares spaces, and gives what it is told to."""

    action_space: spaces.Space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space = THREE, acts: Any = None, reset: Any = None, step: Any = None):
        self.observation_space, self._acts = space, acts
        self.action_space = self.action_space if acts is None else acts
        self._reset = (ZEROS, {}) if reset is None else reset
        self._step = (ZEROS, 1.0, False, False, {}) if step is None else step
        self.done: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        return self._reset

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.done.append(action)
        return self._step


@pytest.fixture(autouse=True)
def gives() -> Iterator[None]:
    gymnasium.register(GIVES, entry_point=Gives, max_episode_steps=9)
    yield
    del gymnasium.registry[GIVES]


def played(**kwargs: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """A step of two rows."""
    env = GymnasiumTask(GIVES, kwargs).make_vec(num_envs=2)
    env.reset(seed=0)
    return env.step(np.zeros(env.action_space.shape, env.action_space.dtype))


def step(
    observation: Any = ZEROS, reward: Any = 1.0, end: Any = False, cut: Any = False, info: Any = None
) -> Any:
    return observation, reward, end, cut, {} if info is None else info


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"reset": ZEROS}, r"reset\(\) gave an array of shape \(3,\).* expected \(observation, info\)"),
        ({"reset": (ZEROS, None)}, r"reset\(\) gave None as info; expected a dictionary"),
        ({"reset": (ZEROS[:1], {})}, r"reset\(\) gave .*\(1,\), float32, as observation; declared is Box.*3"),
        ({"reset": (0.0, {})}, r"gave 0.0 \(float\) as observation"),
        ({"reset": ([[1], [1, 2]], {})}, "as observation"),
        ({"reset": (np.array(["a", "b", "c"]), {})}, "<U1, as observation"),
        ({"reset": (None, {})}, "gave None as observation"),
        ({"reset": ({"a": ZEROS}, {})}, "a dictionary of 'a' as observation"),
        ({"step": (ZEROS, 1.0, False, {})}, "step.. gave a tuple of 4, as Gym did before version 0.26"),
        ({"step": [1]}, "step.. gave .*; expected .observation, reward, terminated, truncated, info"),
        ({"step": step(ZEROS[:1])}, r"step\(\) gave an array of shape \(1,\)"),
        ({"step": (ZEROS, None, False, False, {})}, "gave None as reward; expected one number"),
        ({"step": step(reward="high")}, "gave 'high' .str. as reward"),
        ({"step": step(reward=np.ones(2))}, "as reward; expected one number"),
        ({"step": step(reward=1j)}, "as reward"),
        ({"step": (ZEROS, 1.0, None, False, {})}, "gave None as terminated; expected True or False"),
        ({"step": step(cut="yes")}, "gave 'yes' .str. as truncated"),
        ({"step": step(end=2)}, "as terminated"),
        ({"step": (ZEROS, 1.0, False, {}, False)}, "as info"),
        ({"space": spaces.Discrete(3), "reset": (3, {})}, "gave 3 as observation; declared is Discrete.3"),
        ({"space": spaces.Discrete(3), "reset": (0.5, {})}, "gave 0.5 as observation"),
        ({"space": spaces.MultiBinary(2), "reset": ([0, 2], {})}, r"gave \[0, 2\] as observation"),
        ({"space": MIXED, "reset": ({"gear": 1}, {})}, "gave 'gear' without 'hand', 'keys', 'pair'"),
        ({"space": spaces.Tuple((THREE,)), "reset": (ZEROS, {})}, "declared is a Tuple of 1"),
        ({"space": spaces.Dict(a=THREE), "reset": ({"a": 1}, {})}, "for 'a', 1 .int. as observation"),
        ({"space": None}, "declares None as observation_space"),
        ({"space": spaces.Box(-1, 1, (0,))}, "which is nothing"),
    ],
)  # fmt: skip
def test_what_was_not_declared_is_said_at_once(kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"{GIVES}.*{said}"):
        played(**kwargs)


@pytest.mark.parametrize("reward", [np.array([2.0]), np.array(2), np.float32(2), np.int8(2), 2, [2.0]])
def test_a_reward_that_is_one_number_is_taken(reward: Any) -> None:
    assert played(step=step(reward=reward))[1].tolist() == [2, 2]
    assert played(step=step(reward=np.True_, end=np.True_, cut=np.array([0])))[1:4][1].all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (step(reward=np.nan), "gave NaN as reward in environments [0, 1]"),
        (step(reward=-1e30), "gave -1e+30 as reward"),
        (step(reward=np.longdouble("1e400")), "gave an infinite number as reward"),
        (step(np.array([0, np.nan, 0])), "gave NaN as observation (obs_1)"),
        (step(np.float32([0, -3.4e38, 0])), "gave -3.4e+38 as observation (obs_1)"),
        (step(np.array([0, 0, 1e39])), "gave an infinite number as observation (obs_2)"),
    ],
)
def test_what_is_no_number_is_told_as_what_it_is(given: Any, said: str, caplog: Any) -> None:
    *_, info = played(step=given)
    assert info["diverged"].all() and f"{GIVES} {said}" in caplog.text
    with pytest.raises(UserError, match="10 episodes .* began .*: it gave NaN as observation .obs_2"):
        played(reset=(np.array([0, 0, np.nan]), {}))


def test_numbers_are_read_as_they_come_whatever_type_is_declared() -> None:
    sensors, read = Sensors(GIVES, spaces.Box(-9, 9, (3,), np.int8)), np.zeros(3, np.float32)
    sensors.read(np.array([0.5, np.nan, -1.7]), read)
    np.testing.assert_array_equal(read, np.float32([0.5, np.nan, -1.7]))


def test_every_part_of_an_observation_is_a_sensor_with_a_name() -> None:
    sensors = Sensors("x", MIXED)
    value = {
        "gear": np.int64(3),
        "hand": {"at": [0.5, -0.5], "open": np.float64(0.25)},
        "keys": np.array([1, 0], np.int8),
        "pair": (np.array([6, 0]), 1),
    }
    env = GymnasiumTask(GIVES, {"space": MIXED, "reset": (value, {})}).make_vec(num_envs=1)
    observation, _ = env.reset(seed=0)
    found = dict(zip(env.source.sensor_names, observation["privileged"][0].tolist(), strict=True))
    assert sensors.names == env.source.sensor_names
    assert found == {
        "gear=1": 0, "gear=2": 0, "gear=3": 1,
        "hand.at_0": 0.5, "hand.at_1": -0.5, "hand.open": 0.25,
        "keys_0": 1, "keys_1": 0,
        "pair.0_0=5": 0, "pair.0_0=6": 1, "pair.0_1=0": 1, "pair.0_1=1": 0, "pair.1=0": 0, "pair.1=1": 1,
    }  # fmt: skip
    assert Sensors("x", spaces.Discrete(2)).names == ("obs=0", "obs=1")
    assert Sensors("x", spaces.Box(0, 1, (2, 1))).names == ("obs_0_0", "obs_1_0")
    twins = Sensors("x", spaces.Dict({"a.b": THREE, "a": spaces.Dict(b=THREE)})).names
    assert len(set(twins)) == 6, "names are told apart"


@pytest.mark.parametrize(
    ("space", "nominal", "wanted", "told"),
    [
        (spaces.MultiDiscrete([3, 2], start=[5, -1]), [2, 0], [7, -1], [0, 0, 1, 1, 0]),
        (spaces.MultiDiscrete([[2, 1], [2, 3]]), [1, 0, 0, 2], [[1, 0], [0, 2]], [0, 1, 1, 1, 0, 0, 0, 1]),
        (spaces.MultiBinary(2), [0, 1], [0, 1], [1, 0, 0, 1]),
        (spaces.MultiBinary((2, 1)), [0, 1], [[0], [1]], [1, 0, 0, 1]),
    ],
)
def test_several_decisions_reach_the_environment_and_the_memory(
    space: spaces.Space, nominal: list[int], wanted: Any, told: list[int]
) -> None:
    env = GymnasiumTask(GIVES, {"acts": space}).make_vec(num_envs=2)
    env.reset(seed=0)
    observation, *_ = env.step(np.array([nominal, nominal]))
    (done,) = env.source._envs[1].unwrapped.done
    np.testing.assert_array_equal(done, wanted)
    assert observation["recent_actions"][1, -1].tolist() == told
    assert env.sizes["n_actions"] == len(told) == sum(env.sizes["discrete"])
    snapshot = env.snapshot()
    env.step(np.zeros_like(env.action_space.sample()))
    np.testing.assert_array_equal(env.restore(snapshot)["tokens"], observation["tokens"])
    for wrong in (np.array([nominal]), np.array([nominal, [9] * len(nominal)])):
        with pytest.raises(UserError, match="actions "):
            env.step(wrong)


def test_reset_without_a_seed_and_old_environments_are_told() -> None:
    class Unseeded(Gives):
        def reset(self) -> Any:
            return ZEROS, {}

    gymnasium.registry[GIVES].entry_point = Unseeded
    with pytest.raises(UserError, match=r"reset\(\) takes no seed"):
        GymnasiumTask(GIVES)
    gymnasium.registry[GIVES].entry_point = object
    with pytest.raises(UserError, match="must inherit from the gymnasium.Env"):
        GymnasiumTask(GIVES)


class Raises(Gives):
    """Raises in one of its methods, in a function of a library's that it calls."""

    def __init__(self, at: str, error: BaseException | None = None) -> None:
        super().__init__()
        self._at, self._error = at, error

    def _do(self, method: str) -> None:
        if method == self._at and self._error is not None:
            raise self._error
        if method == self._at:
            json.loads("no JSON")  # the line that is told

    def reset(self, **kwargs: Any) -> Any:
        self._do("reset")
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self._do("step")
        return super().step(action)

    def close(self) -> None:
        self._do("close")


@pytest.mark.parametrize("at", ["reset", "step"])
def test_errors_of_an_environment_are_told_in_one_line_with_the_place_in_its_code(at: str) -> None:
    gymnasium.registry[GIVES].entry_point = Raises
    lines = Path(__file__).read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "the line that is told" in text)
    told = rf"^{GIVES}: {at}\(\) raised JSONDecodeError: [^\n]* \({re.escape(__file__)}, line {line}\)$"
    with pytest.raises(EnvironmentFault, match=told):
        played(at=at)
    with pytest.raises(EnvironmentFault, match="raised SystemExit: bye"):
        played(at=at, error=SystemExit("bye"))
    with pytest.raises(UserError, match="^a robot of ours$"):
        played(at=at, error=UserError("a robot of ours"))
    with pytest.raises(KeyboardInterrupt):
        played(at=at, error=KeyboardInterrupt())


def test_what_close_raises_is_logged_once_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gymnasium.registry[GIVES].entry_point = Raises
    env = GymnasiumTask(GIVES, {"at": "close"}).make_vec(num_envs=2)
    env.reset(seed=0)
    env.close()
    assert caplog.text.count(f"{GIVES}: close() raised JSONDecodeError") == 1
