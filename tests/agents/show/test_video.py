"""Videos of Gymnasium's environments: drawn by themselves, refused in one sentence before the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
from gymnasium import spaces

from somite.agents.agent import Agent
from somite.agents.composition import sizes_for
from somite.agents.policies import DeepSet, PatchTransformer
from somite.agents.show.video import film_episode, to_film
from somite.agents.training.dashboard import FRAMES, Pictures
from somite.envs.errors import UserError
from somite.envs.images import GymnasiumImage
from somite.envs.locomotion.pictures.rendering import find_backend
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses, SensorTask

DRAWN = "SomiteDrawn-v0"


class Drawn(gymnasium.Env):
    """Its pictures have odd sides and tell the step, but for what it is asked to give in their place."""

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 12}
    action_space = spaces.Discrete(2)

    def __init__(
        self, observes: str = "numbers", gives: str = "picture", render_mode: str | None = None
    ) -> None:
        shape, high, kind = ((2,), 1, np.float32) if observes == "numbers" else ((12, 18, 3), 255, np.uint8)
        self.observation_space = spaces.Box(0, high, shape, kind)
        self.gives, self.render_mode = gives, render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.low, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return self.observation_space.low, 1.0, False, False, {}

    def render(self) -> object:
        if self.gives == "error":
            raise OSError("no libGL")
        return None if self.gives == "nothing" else np.full((33, 47, 3), 20 * self.steps, np.uint8)


class Undrawn(Drawn):
    metadata = {"render_modes": ["human"]}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register(DRAWN, entry_point=Drawn, max_episode_steps=9)
    gymnasium.register("SomiteUndrawn-v0", entry_point=Undrawn, max_episode_steps=9)
    yield
    del gymnasium.registry[DRAWN], gymnasium.registry["SomiteUndrawn-v0"]


def agent_for(task: SensorTask) -> Agent:
    cls, sizes = (DeepSet, {}) if task.kind == "sensors" else (PatchTransformer, {"latents": 2})
    with closing(task.make_vec(num_envs=1, threads=1)) as env:
        return Agent(cls(env.spec_of_tokens, **sizes_for(cls, env), width=8, **sizes))


def test_an_environment_is_filmed_as_it_draws_itself(tmp_path: Path) -> None:
    task = GymnasiumTask(DRAWN)
    assert film_episode(agent_for(task), to_film(task), DRAWN, tmp_path / "a.mp4", seed=1)
    frames = imageio.imread(tmp_path / "a.mp4")
    assert frames.shape == (9, 32, 46, 3) and imageio.immeta(tmp_path / "a.mp4")["fps"] == 12
    np.testing.assert_allclose(frames.mean((1, 2, 3)), 20 * np.arange(9), atol=4)
    drawn = Pictures(task, DRAWN).draw(agent_for(task))
    assert drawn[f"video/{DRAWN}"].encoded_image_string[:4] == b"GIF8" and FRAMES > 1


@pytest.mark.parametrize(("env_id", "wide"), [(DRAWN, 68 + 3 * 72), ("SomiteUndrawn-v0", 3 * 72)])
def test_patches_stand_beside_what_the_environment_draws(env_id: str, wide: int, tmp_path: Path) -> None:
    task = GymnasiumImage(env_id, {"observes": "pictures"}, Senses(history=2))
    assert film_episode(agent_for(task), to_film(task), env_id, tmp_path / "a.mp4", seed=1)
    assert imageio.imread(tmp_path / "a.mp4").shape == (9, 48, wide, 3)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (lambda: GymnasiumTask("SomiteUndrawn-v0"), "offers only human, and not rgb_array"),
        (
            lambda: GymnasiumTask(DRAWN, {"gives": "error"}),
            f"{DRAWN} cannot be drawn here: OSError: no libGL",
        ),
        (lambda: GymnasiumTask(DRAWN, {"gives": "nothing"}), r"its render\(\) gives object of shape \(\)"),
        (CartPoleSwingUp, "there are no pictures of cartpole_swingup"),
    ],
)
def test_what_cannot_be_filmed_is_told_in_one_sentence(
    task: object, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = task()
    with pytest.raises(UserError, match=message):
        task.for_filming()
    assert to_film(task) is None
    assert [r.getMessage().startswith("no video: ") for r in caplog.records] == [True]


def test_a_batched_task_is_filmed_in_the_same_episodes() -> None:
    try:
        find_backend()
    except UserError:
        pytest.skip("nothing draws on this machine: neither EGL nor OSMesa")
    task = GymnasiumTask("Hopper-v5")
    filmed = task.for_filming()
    envs = [one.make_vec(num_envs=1, threads=1) for one in (task, filmed)]
    assert task.batched and not filmed.batched and filmed.frames_per_second == 125
    for env in envs:
        env.reset(seed=[[3, 0]])
    seen = [[env.step(np.full((1, 3), 0.3))[0]["tokens"] for _ in range(3)] for env in envs]
    np.testing.assert_allclose(*seen, atol=1e-6)
    assert np.ptp(envs[1].source.render(0)) > 100, "not blank"
    for env in envs:
        env.close()
