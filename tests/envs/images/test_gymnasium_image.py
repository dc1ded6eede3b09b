"""Patches of any Gymnasium environment that shows pictures."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cv2")

from somite.agents.policies import PatchTransformer
from somite.envs.errors import UserError
from somite.envs.images import GymnasiumImage
from somite.envs.images.patches import cut, join
from somite.envs.sensors import Senses
from somite.envs.task_set import task_set_of
from tests.envs.futures import equal, go_on, read_back

PAINTED = "SomitePainted-v0"


class Painted(gymnasium.Env):
    """Shows a picture whose pixels tell row, column and step; the third choice ends the episode."""

    action_space = spaces.Discrete(3)

    def __init__(self, height: int = 12, width: int = 18, colors: int = 3) -> None:
        shape = (height, width, colors) if colors else (height, width)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def _picture(self) -> np.ndarray:
        rows, columns = np.mgrid[: self.observation_space.shape[0], : self.observation_space.shape[1]]
        parts = [10 * rows, 10 * columns, np.full_like(rows, self.steps)]
        picture = np.stack(parts, -1) if len(self.observation_space.shape) == 3 else parts[0] + self.steps
        return picture.astype(np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return self._picture(), float(action), action == 2, False, {}


STORED = {
    "channels first": (lambda p: np.moveaxis(p, -1, 0), 255, np.uint8),
    "alpha": (lambda p: np.concatenate((p, np.full_like(p[..., :1], 77)), -1), 255, np.uint8),
    "alpha, first": (lambda p: np.moveaxis(STORED["alpha"][0](p), -1, 0), 255, np.uint8),
    "16 bits": (lambda p: 257 * p.astype(np.uint16), 65535, np.uint16),
    "shares": (lambda p: (p / 255).astype(np.float32), 1.0, np.float32),
    "levels": (lambda p: p.astype(np.float64), 255.0, np.float64),
    "whole numbers": (lambda p: p.astype(np.int64), 255, np.int64),
    "two channels": (lambda p: p[..., :2], 255, np.uint8),
    "no bounds": (lambda p: p.astype(np.float32), np.inf, np.float32),
    "other bounds": (lambda p: p.astype(np.float32), 1.0, np.float32),
}
"""How a picture may be stored, what its numbers are declared to reach, and their type."""


class Stored(gymnasium.ObservationWrapper):
    """The same pictures, stored otherwise; from the third step on with a NaN, if so asked."""

    def __init__(self, stored: str, breaks: bool = False) -> None:
        super().__init__(Painted())
        self.change, high, kind = STORED[stored]
        shape = self.change(self.env.observation_space.sample()).shape
        self.observation_space, self.breaks = spaces.Box(0, high, shape, kind), breaks

    def observation(self, observation: np.ndarray) -> np.ndarray:
        changed = self.change(observation)
        if self.breaks and self.env.steps == 3:
            changed[0, 0, 0] = np.nan
        return changed


@pytest.fixture(autouse=True)
def painted() -> Iterator[None]:
    gymnasium.register(PAINTED, entry_point=Painted, max_episode_steps=9)
    gymnasium.register("SomiteStored-v0", entry_point=Stored, max_episode_steps=9)
    yield
    del gymnasium.registry[PAINTED], gymnasium.registry["SomiteStored-v0"]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5), columns=st.integers(1, 5), size=st.integers(1, 4), colors=st.sampled_from([1, 3])
)
def test_joining_is_the_inverse_of_cutting(rows: int, columns: int, size: int, colors: int) -> None:
    shape = (2, rows * size, columns * size, colors)
    frames = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    patches = cut(frames, size)
    assert patches.shape == (2, rows * columns, size * size * colors)
    np.testing.assert_array_equal(join(patches, (rows, columns), size), frames)
    last = frames[1, -size:, -size:].ravel()
    np.testing.assert_array_equal(patches[1, -1], last)


def test_a_picture_becomes_patches_in_colours() -> None:
    task = GymnasiumImage(PAINTED, senses=Senses(history=2), grey=False)
    env = task.make_vec(num_envs=2)
    observation, _ = env.reset(seed=0)
    assert env.kind == task.kind == "patches" and observation["tokens"].shape == (2, 6, 2 * 108)
    assert "privileged" not in observation and env.observation_space.contains(observation)
    observation, rewards, *_ = env.step(np.array([1, 0]))
    newest = join(observation["tokens"][:, :, :108], (2, 3), 6)[0]
    np.testing.assert_array_equal(newest[:, :, 0], np.repeat(10 * np.arange(12), 18).reshape(12, 18))
    assert (newest[:, :, 2] == 1).all() and rewards.tolist() == [1, 0]
    older = join(observation["tokens"][:, :, 108:], (2, 3), 6)[0]
    assert (older[:, :, 2] == 0).all()
    assert env.source.pictures.shape == (2, 12, 18, 3)
    _, _, terminated, truncated, info = env.step(np.array([2, 0]))
    assert terminated.tolist() == [True, False] and info["final_obs"][0]["tokens"].shape == (6, 216)
    for _ in range(8):
        truncated = env.step(np.array([0, 0]))[3] | truncated
    assert truncated[1], "the registered limit of steps"


@pytest.mark.parametrize("colors", [0, 3])
def test_grey_and_shrunk(colors: int) -> None:
    task = GymnasiumImage(PAINTED, {"colors": colors}, Senses(), size=[6, 9], patch_size=3)
    observation, _ = task.make_vec(num_envs=1).reset(seed=0)
    assert observation["tokens"].shape == (1, 6, 9) and observation["tokens"].dtype == np.uint8
    frame = join(observation["tokens"], (2, 3), 3)[0, ..., 0].astype(int)
    assert (np.diff(frame, axis=0) > 0).all(), "brighter from row to row"


@pytest.mark.parametrize(
    "stored", [name for name in STORED if "channels" not in name and "bounds" not in name]
)
@pytest.mark.parametrize("grey", [True, False])
def test_however_a_picture_is_stored_its_patches_are_the_same(stored: str, grey: bool) -> None:
    plain = GymnasiumImage(PAINTED, grey=grey).make_vec(num_envs=1)
    other = GymnasiumImage("SomiteStored-v0", {"stored": stored}, grey=grey).make_vec(num_envs=1)
    for seed in (0, None):
        (wanted, _), (found, _) = (
            env.reset(seed=0) if seed == 0 else (env.step([1])[0], 0) for env in (plain, other)
        )
        np.testing.assert_array_equal(found["tokens"], wanted["tokens"])
    np.testing.assert_array_equal(other.source.pictures, plain.source.pictures)


def test_pictures_of_other_numbers_than_declared_are_refused_and_nan_ends_an_episode() -> None:
    env = GymnasiumImage("SomiteStored-v0", {"stored": "other bounds"}).make_vec(num_envs=1)
    with pytest.raises(UserError, match="declares pictures of 0 to 1, and shows numbers from 0 to 170"):
        env.reset(seed=0)
    env = GymnasiumImage("SomiteStored-v0", {"stored": "shares", "breaks": True}).make_vec(num_envs=1)
    env.reset(seed=0)
    ended = [env.step([0])[4]["diverged"][0] for _ in range(4)]
    assert ended == [False, False, True, False]


def test_training_is_told_which_patch_stands_where_and_a_critic_that_fits_is_chosen() -> None:
    env = GymnasiumImage(PAINTED, senses=Senses(shuffle="episode", noise_channels=1)).make_vec(num_envs=2)
    observation, _ = env.reset(seed=3)
    np.testing.assert_array_equal(observation["sensor"], env.slots.order)
    assert env.observation_space.contains(observation) and "privileged" not in observation
    sizes = {name: env.sizes[name] for name in ("n_actions", "n_recent", "discrete", "n_privileged")}
    policy = PatchTransformer(env.spec_of_tokens, **sizes, width=8, latents=2, size=4, head=4, feedforward=8)
    assert policy.critic == "shared" and policy.architecture()["critic"] == "shared"


def test_a_saved_task_is_built_again_and_strangers_are_refused() -> None:
    config = {"_target_": "somite.envs.images.GymnasiumImage", "id": PAINTED, "patch_size": 3}
    task = task_set_of(config)
    assert isinstance(task, GymnasiumImage) and task.patch_size == 3 and task.max_episode_steps == 9
    with pytest.raises(UserError, match="a 'somite.envs.images.importlib'; expected a task"):
        task_set_of({**config, "_target_": "somite.envs.images.importlib"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id": "CartPole-v1"}, "CartPole-v1 observes Box.*which is no picture; .*env=gymnasium"),
        ({"id": PAINTED, "patch_size": 5}, "patches of 5 x 5 pixels do not divide a picture of 12 x 18"),
        (
            {"id": PAINTED, "patch_size": 5},
            r"picture of 12 x 18; env.patch_size can be 1, 2, 3, 6; or say env.size=\[10,15\]$",
        ),
        ({"id": PAINTED, "size": [7, 12], "patch_size": 5}, r"7 x 12; .* env.size=\[5,10\] or \[10,15\]$"),
        ({"id": PAINTED, "patch_size": 24}, r"env.patch_size can be 1, 2, 3, 6$"),
        ({"id": PAINTED, "size": 12}, r"env.size must be height and width .*, got 12"),
        ({"id": PAINTED, "size": [0, 12]}, r"env.size must be height and width .*, got .0, 12"),
        ({"id": PAINTED, "size": [12, 24]}, r"env.size=\[12,24\] is larger than the picture, .* 12 x 18"),
        ({"id": PAINTED, "size": "[6,6]"}, "env.size must be height and width"),
        ({"id": PAINTED, "grey": "no"}, "env.grey must be true or false, got 'no'"),
        ({"id": PAINTED, "kwargs": "colors"}, "env.kwargs must be names and values.*got 'colors'"),
        (
            {"id": "SomiteStored-v0", "kwargs": {"stored": "two channels"}},
            r"Box.*12, 18, 2.* no picture; .* 1, 3 or 4",
        ),
        (
            {"id": "SomiteStored-v0", "kwargs": {"stored": "no bounds"}},
            "between 0 and inf: pictures need bounds",
        ),
        ({"id": "SomitePaintd-v0"}, "did you mean 'SomitePainted-v0'"),
        ({"id": None}, "env.id is None"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GymnasiumImage(**values)


def test_gymnasiums_own_car_through_patches_is_ours() -> None:
    pytest.importorskip("Box2D")
    from somite.envs.car_racing import CarRacing

    theirs = GymnasiumImage("CarRacing-v3", senses=Senses(history=1)).make_vec(num_envs=1)
    ours = CarRacing(Senses(history=1), indicators=True).make_vec(num_envs=1)
    wanted, _ = theirs.reset(seed=2)
    found, _ = ours.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(5):
        difference = np.abs(found["tokens"].astype(int) - wanted["tokens"])
        assert difference.mean() < 2 and found["tokens"].std() > 20
        actions = rng.uniform(-1, 1, (1, 3))
        wanted, reward, *_ = theirs.step(actions)
        found, own, *_ = ours.step(actions)
        assert own[0] == pytest.approx(reward[0], abs=1e-9)


def test_pictures_are_restored_by_a_replay(caplog: pytest.LogCaptureFixture) -> None:
    senses = Senses(
        history=2, shuffle=4, noise_channels=2, missing=0.2, blinking=0.1, traces=(5,), neighbors=5
    )
    task = GymnasiumImage(PAINTED, senses=senses, size=(8, 12), patch_size=4, grey=False)
    env, other = (task.make_vec(num_envs=3, stagger=True) for _ in range(2))
    env.reset(seed=0), other.reset(seed=1)
    go_on(env, 25, 0), go_on(other, 4, 1)
    other.restore(read_back(env.snapshot()))
    assert not other.begun_anew.any() and np.array_equal(env.source.pictures, other.source.pictures)
    assert equal(go_on(env, 30, 1), go_on(other, 30, 1))
    taken = env.snapshot()
    taken["source"]["_shown"][1] += 1  # another picture than the replay comes to
    other.restore(taken)
    assert other.begun_anew.tolist() == [False, True, False] and "cannot be replayed" in caplog.text
