"""Any Gymnasium task as sensors: the episodes are Gymnasium's, whatever does not fit is said at once."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import hydra
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from somite.envs.errors import UserError
from somite.envs.sensors import GymnasiumTask, Senses
from somite.envs.sensors.gymnasium_source import NominalActions
from somite.envs.task_set import task_set_of

REAL = spaces.Box(-1.0, 1.0, (2,), np.float32)
PICTURE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
FLOAT_MAX = np.finfo(np.float32).max
MADE = "SomiteTests/Made-v0"


def bounded(low: list[float], high: list[float]) -> spaces.Box:
    """With bounds that the constructor would refuse."""
    space = spaces.Box(-1.0, 1.0, (len(low),), np.float32)
    space.low, space.high = np.float32(low), np.float32(high)
    return space


class Made(gymnasium.Env):
    """An environment with any spaces, that keeps what it is told; terminates, or cuts, when asked to."""

    made: list[Made] = []

    def __init__(
        self,
        observes: spaces.Space = REAL,
        acts: spaces.Space = REAL,
        ends_at: int = 10**9,
        cuts_at: int = 10**9,
    ) -> None:
        self.observation_space, self.action_space = observes, acts
        self.ends_at, self.cuts_at = ends_at, cuts_at
        self.told: list[Any] = []
        self.steps, self.closed = 0, False
        Made.made.append(self)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.told.append(action)
        self.steps += 1
        return (
            np.full(2, self.steps, np.float32),
            1.0,
            self.steps == self.ends_at,
            self.steps == self.cuts_at,
            {},
        )

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made() -> Iterator[list[Made]]:
    """Registers the environment; the list is of those that have been made."""
    gymnasium.register(MADE, entry_point=Made, max_episode_steps=20)
    Made.made = []
    yield Made.made
    del gymnasium.registry[MADE]


def has_box2d() -> bool:
    try:
        gymnasium.make("LunarLanderContinuous-v3").close()
    except (gymnasium.error.DependencyNotInstalled, ImportError):
        return False
    return True


BOX2D = pytest.mark.skipif(not has_box2d(), reason="box2d is not installed")
CASES = {  # id: arguments, physical action of the nominal one, limit; Pendulum and cars are never terminated
    "CartPole-v1": ({}, int, 15),
    "Acrobot-v1": ({}, int, 20),
    "Pendulum-v1": ({"g": 9.0}, lambda nominal: (2 * nominal).astype(np.float32), None),
    "MountainCarContinuous-v0": ({}, lambda nominal: nominal, 30),
    "LunarLanderContinuous-v3": ({}, lambda nominal: nominal, 100),
    "BipedalWalker-v3": ({}, lambda nominal: nominal, 40),
}
PARAMETERS = [
    pytest.param(name, marks=[BOX2D] * (name in ("LunarLanderContinuous-v3", "BipedalWalker-v3")))
    for name in CASES
]


def nominal(env: gymnasium.vector.VectorEnv, rng: np.random.Generator) -> np.ndarray:
    if env.discrete:
        return rng.integers(env.n_actions, size=env.num_envs)
    return rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)


def play(task: GymnasiumTask, rows: int, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Readings and rewards (B, S + 1) of every step; an action depends on the row and the step alone."""
    env = task.make_vec(num_envs=rows, threads=1)
    env.reset(seed=seed)
    rngs, told = [np.random.default_rng([9, row]) for row in range(rows)], []
    for _ in range(steps):
        if env.discrete:
            actions = np.array([rng.integers(env.n_actions) for rng in rngs])
        else:
            actions = np.array([rng.uniform(-1, 1, env.n_actions) for rng in rngs])
        observation, rewards, *_ = env.step(actions)
        told.append(np.column_stack((observation["privileged"], rewards)))
    env.close()
    return told


@pytest.mark.parametrize("env_id", PARAMETERS)
def test_episodes_are_those_of_plain_gymnasium(env_id: str) -> None:
    kwargs, physical, limit = CASES[env_id]
    env = GymnasiumTask(env_id, kwargs, max_episode_steps=limit).make_vec(num_envs=2)
    observation, _ = env.reset(seed=5)
    make = functools.partial(gymnasium.make, env_id, max_episode_steps=limit, **kwargs)
    plain = [make() for _ in range(2)]
    rngs = [np.random.default_rng([5, row]) for row in range(2)]
    expected = [p.reset(seed=int(rng.integers(2**31)))[0] for p, rng in zip(plain, rngs, strict=True)]
    np.testing.assert_array_equal(observation["privileged"], np.asarray(expected, np.float32))
    choices, ends, cuts = np.random.default_rng(0), 0, 0
    for _ in range(450):
        actions = nominal(env, choices)
        observation, rewards, terminated, truncated, info = env.step(actions)
        for row in range(2):
            reading, reward, end, cut, _ = plain[row].step(physical(actions[row]))
            assert (terminated[row], truncated[row]) == (end, cut)
            assert rewards[row] == reward
            if end or cut:
                last = info["final_obs"][row]["privileged"]
                np.testing.assert_array_equal(last, np.float32(reading))
                plain[row] = make()  # what a BipedalWalker's world keeps of earlier episodes is left out
                reading, _ = plain[row].reset(seed=env.source._episodes.of(row)[0][0])
                ends, cuts = ends + end, cuts + cut
            np.testing.assert_array_equal(observation["privileged"][row], np.float32(reading))
    assert cuts, "no time limit has been compared"
    assert ends or env_id not in ("CartPole-v1", "LunarLanderContinuous-v3"), "no end has been compared"


def test_an_episode_depends_on_its_seed_and_row_alone() -> None:
    task = GymnasiumTask("CartPole-v1")
    few, many, other = play(task, 2, 8), play(task, 4, 8), play(task, 2, 8, seed=1)  # none ends so soon
    for a, b, c in zip(few, many, other, strict=True):
        np.testing.assert_array_equal(a, b[:2])
        assert (a[:, :4] != c[:, :4]).any()
        assert (a[0, :4] != a[1, :4]).any()


def test_rows_that_have_ended_are_not_stepped(made: list[Made]) -> None:
    env = GymnasiumTask(MADE, {"ends_at": 3}).make_vec(num_envs=2, once=True)
    rows = made[1:]  # the first was only looked at
    rows[1].ends_at = 5
    env.reset(seed=0)
    for _ in range(8):
        observation, rewards, *_ = env.step(np.zeros((2, 2)))
    assert [len(row.told) for row in rows] == [3, 5]
    np.testing.assert_array_equal(observation["privileged"], [[3, 3], [5, 5]])
    assert not rewards.any()
    env.close()
    assert all(one.closed for one in made)


def test_a_task_that_cuts_its_own_episodes_is_heard(made: list[Made]) -> None:
    env = GymnasiumTask(MADE, {"cuts_at": 3}).make_vec(num_envs=1)
    env.reset(seed=0)
    flags = [env.step(np.zeros((1, 2)))[2:4] for _ in range(6)]
    assert [bool(cut[0]) for _, cut in flags] == [False, False, True] * 2
    assert not any(end[0] for end, _ in flags)


@pytest.mark.parametrize(("asked", "limit"), [(None, 20), (30, 30), (7, 7)])
def test_the_limit_is_the_tasks_own_unless_another_is_asked_for(
    made: list[Made], asked: int | None, limit: int
) -> None:
    task = GymnasiumTask(MADE, max_episode_steps=asked)
    env = task.make_vec(num_envs=1)
    env.reset(seed=0)
    assert task.max_episode_steps == limit
    cut = [bool(env.step(np.zeros((1, 2)))[3][0]) for _ in range(40)]
    assert cut.index(True) == limit - 1


def test_whole_numbers_are_counted_from_the_first_action_of_the_task(made: list[Made]) -> None:
    env = GymnasiumTask(MADE, {"acts": spaces.Discrete(3, start=-1)}).make_vec(num_envs=1)
    assert env.single_action_space == spaces.Discrete(3)
    env.reset(seed=0)
    for action in range(3):
        env.step(np.array([action]))
    assert made[1].told == [-1, 0, 1]


bounds = st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32)).filter(
    lambda pair: pair[0] < pair[1]
)


@settings(max_examples=100, deadline=None)
@given(limits=st.lists(bounds, min_size=1, max_size=4), part=st.floats(0, 1))
@example(limits=[(-0.4, 0.4)], part=0.5)
def test_nominal_actions_are_affine_to_the_bounds(limits: list[tuple[float, float]], part: float) -> None:
    low, high = np.array(limits, np.float32).T
    made = Made(acts=spaces.Box(low, high, dtype=np.float32))
    physical = NominalActions(made)
    nominals = np.tile(np.array([[-1.0], [1.0], [2 * part - 1]]), len(limits))
    low, high = low.astype(float), high.astype(float)
    wanted = np.array([low, high, low + part * (high - low)])
    told = physical(torch.from_numpy(nominals)).numpy()
    least = np.finfo(np.float32).tiny  # below it float32 has fewer digits
    np.testing.assert_allclose(told, wanted, rtol=1e-6, atol=max(least, 1e-6 * np.abs(wanted).max()))
    assert all(made.action_space.contains(row) for row in told)


def test_readings_reach_tokens_shuffled_with_their_history() -> None:
    senses = Senses(history=3, shuffle="episode", difference_scale=2.0)
    env = GymnasiumTask("Pendulum-v1", senses=senses).make_vec(num_envs=3)
    observation, _ = env.reset(seed=0)
    readings, rng, orders = [observation["privileged"]] * 3, np.random.default_rng(0), set()
    for _ in range(20):
        observation, *_ = env.step(nominal(env, rng))
        readings = [observation["privileged"], *readings[:2]]
        shown = np.stack((readings[0], 2 * (readings[0] - readings[1]), 2 * (readings[1] - readings[2])), -1)
        for row in range(3):
            order = [
                int(np.flatnonzero(np.isclose(shown[row, :, 0], token[0], rtol=0))[0])
                for token in observation["tokens"][row]
            ]
            assert sorted(order) == [0, 1, 2]
            np.testing.assert_allclose(observation["tokens"][row], shown[row, order], atol=1e-5)
            orders.add((row, *order))
    assert len(orders) == 3, "one order for each row's episode"
    assert {order[1:] for order in orders} != {(0, 1, 2)}, "nothing was shuffled"


def test_scales_multiply_the_readings_and_are_told() -> None:
    plain, scaled = GymnasiumTask("Pendulum-v1"), GymnasiumTask("Pendulum-v1", sensor_scales=[1, 2, 0.5])
    for raw, told in zip(play(plain, 2, 5), play(scaled, 2, 5), strict=True):
        np.testing.assert_allclose(told, raw * [1, 2, 0.5, 1], rtol=1e-6)
    assert not plain.notes() and "[1.0, 2.0, 0.5]" in scaled.notes()[0]


def composed(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_module("somite.conf", version_base="1.3"):
        config = hydra.compose("train", ["env=gymnasium", *overrides])
    return OmegaConf.to_container(config.env, resolve=True)


def test_a_saved_configuration_gives_the_same_task() -> None:
    config = composed("env.id=Pendulum-v1", "env.kwargs={g: 3.0}", "env.max_episode_steps=9")
    written, read = hydra.utils.instantiate(config, _convert_="all"), task_set_of(config)
    assert (read.name, read.seen, read.max_episode_steps) == ("Pendulum-v1", ("Pendulum-v1",), 9)
    assert read.kwargs == {"g": 3.0}
    first = play(written, 2, 20)
    np.testing.assert_array_equal(first, play(read, 2, 20))
    heavier = task_set_of(composed("env.id=Pendulum-v1", "env.max_episode_steps=9"))
    assert (np.array(first) != np.array(play(heavier, 2, 20))).any(), "kwargs have reached nothing"


def test_a_saved_configuration_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strangers_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit):  # what Gymnasium itself does with such an id
        gymnasium.make("strangers_module:CartPole-v1")
    for config in (
        {"id": "strangers_module:CartPole-v1"},
        {"id": "GymV26Environment-v0", "kwargs": {"env_id": "strangers_module:CartPole-v1"}},
        {"id": "GymV21Environment-v0", "kwargs": {"env_id": "strangers_module:CartPole-v1"}},
    ):
        with pytest.raises(UserError, match="import"):
            task_set_of(config | {"_target_": "somite.envs.sensors.GymnasiumTask"})
    assert "strangers_module" not in sys.modules


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("LunarLanderContinous-v3", "did you mean 'LunarLanderContinuous-v3'"),
        ("CartPole", "did you mean 'CartPole-v1'"),  # a version is part of what was trained on
        ("cartpole-v1", "did you mean 'CartPole-v1'"),
        ("%%%%", "nothing is similar"),
        (None, "such as env.id="),
        (7, "env.id must be a text or null, got 7"),
    ],
)
def test_an_unknown_id_names_the_nearest(env_id: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        GymnasiumTask(env_id)
    assert len(str(told.value)) < 300, "not all that is registered"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"observes": spaces.Box(0, 255, (8, 8, 3), np.uint8)}, "is a picture.*env=gymnasium_image"),
        ({"observes": spaces.Dict({"a": REAL, "eye": PICTURE})}, "observes for 'eye' Box.*FilterObservation"),
        ({"observes": spaces.Dict({"a": spaces.Dict({"b": spaces.Text(3)})})}, "for 'a.b' Text.*read from"),
        ({"observes": spaces.Tuple(())}, "is nothing"),
        ({"observes": spaces.Discrete(10**6)}, "1,000,000 numbers.*at most 10,000"),
        ({"acts": spaces.Dict({"a": REAL})}, "Dict.*Box.*or Discrete"),
        ({"acts": spaces.Discrete(10**9)}, "1,000,000,000 choices.*at most 10,000"),
        ({"acts": spaces.MultiDiscrete([9_999, 2])}, "10,001 choices"),
        ({"acts": spaces.Box(1.0, 1.0, (2,))}, "nothing to decide"),
        ({"acts": bounded([np.nan, -1], [1, 1])}, "no bounds"),
        ({"acts": bounded([1, -1], [-1, 1])}, "low bounds above the high ones"),
        ({"acts": bounded([-1, -FLOAT_MAX], [1, FLOAT_MAX])}, "no bounds.*env.imports"),
        ({"acts": bounded([-1, -1], [np.inf, 1])}, "no bounds"),
        ({"acts": spaces.Box(-1.0, 1.0, (2, 2))}, "2, 2.*one dimension"),
        ({"acts": spaces.Box(0, 3, (2,), np.int64)}, "real numbers"),
        ({"acts": spaces.Box(-np.inf, np.inf, (2,))}, "no bounds"),
        ({"acts": spaces.Box(np.float32([-1, -1]), np.float32([1, np.inf]))}, "no bounds"),
        ({"observs": REAL}, "no argument 'observs'; did you mean 'observes'"),
        ({"max_episode_steps": 3}, "env.max_episode_steps"),
    ],
)
def test_what_does_not_fit_is_said(made: list[Made], arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        GymnasiumTask(MADE, arguments)


def test_arguments_handed_on_to_a_parent_are_known() -> None:
    with pytest.raises(UserError, match="no argument 'widht'; did you mean 'width'"):
        GymnasiumTask("HalfCheetah-v5", {"widht": 3})
    with pytest.raises(UserError, match="no argument 'goal'; did you mean 'goal_velocity'"):
        GymnasiumTask("MountainCarContinuous-v0", {"goal": 1})
    with pytest.raises(UserError, match="does not take.*nowhere.xml"):
        GymnasiumTask("HalfCheetah-v5", {"xml_file": "nowhere.xml"})


def test_an_error_of_the_environment_itself_is_told_with_its_line(made: list[Made]) -> None:
    def broken() -> Made:
        raise TypeError("a bug")

    gymnasium.registry[MADE].entry_point = broken
    with pytest.raises(UserError, match=f"Made-v0 cannot be made: TypeError: a bug .{__file__}, line"):
        GymnasiumTask(MADE)


def test_a_missing_package_is_named(made: list[Made], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)  # as if it were not installed
    with pytest.raises(UserError, match=r'pip install "gymnasium\[box2d\]"'):
        GymnasiumTask("LunarLanderContinuous-v3")
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.phys2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(UserError, match=r'pip install "gymnasium\[jax\]"'):
        GymnasiumTask("phys2d/CartPole-v1")
    gymnasium.registry[MADE].entry_point = "no_such_package.envs:Env"
    with pytest.raises(UserError, match="no_such_package"):
        GymnasiumTask(MADE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"simulation": "batch"}, "did you mean 'batched'"),
        ({"simulation": "batched"}, "batched simulation of Ant-v5, .*Walker2d-v5 only, not of Pendulum-v1"),
        ({"sensor_scales": [1.0]}, "must be 3 numbers"),
        ({"max_episode_steps": 0}, "env.max_episode_steps must be a whole number"),
        ({"kwargs": "g=3"}, "env.kwargs must be names and values"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        GymnasiumTask("Pendulum-v1", **arguments)


def test_a_task_without_a_limit_asks_for_one(made: list[Made]) -> None:
    gymnasium.registry[MADE].max_episode_steps = None
    with pytest.raises(UserError, match="say env.max_episode_steps"):
        GymnasiumTask(MADE)
    assert GymnasiumTask(MADE, max_episode_steps=5).max_episode_steps == 5
