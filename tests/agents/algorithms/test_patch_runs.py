"""Agents of patches: trained, cloned, evolved, evaluated and filmed, each with a tiny budget."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

pytest.importorskip("Box2D")

from somite.agents import load_policy
from somite.agents.agent import Agent
from somite.agents.evaluation.runs import task_of
from somite.agents.policies import PatchCNN, PatchTransformer
from somite.agents.show.inside import attention_of
from somite.agents.show.video import ENLARGED, film_episode, patch_picture, to_film
from somite.agents.training.loop import Run
from somite.envs.car_racing import CarRacing
from somite.envs.errors import UserError
from somite.envs.sensors import Senses
from tests.agents.evaluation.test_evaluate import evaluate
from tests.agents.runs import compose

RACING = ("env=car_racing", "env.max_episode_steps=24", "env.action_repeat=4", "device=cpu", "threads=1")
SMALL = (
    "algorithm.num_envs=4",
    "algorithm.n_steps=4",
    "algorithm.batch_size=8",
    "algorithm.n_epochs=1",
    "algorithm.total_steps=32",
)
NARROW = ("agent.width=8", "agent.latents=4", "agent.size=4", "agent.feedforward=8", "agent.head=8")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    given = (*RACING, "env.view=state", "env.senses.history=1", "agent=mlp", "algorithm.validate_every=0")
    Run(compose(*given, *SMALL), folder, torch.device("cpu")).learn()
    return folder


JIGSAW = (
    "agent=patch_jigsaw",
    "env.senses.traces=[30]",
    "env.senses.neighbors=40",
    "agent.width=4",
    "agent.place=8",
    "agent.features=8",
    "agent.rounds=2",
)
TRANSFORMER = ("agent=patch_transformer", *NARROW)


@pytest.mark.parametrize("agent", [TRANSFORMER, JIGSAW, ("agent=cnn", "agent.width=8")])
def test_ppo_trains_what_has_a_gradient(agent: tuple[str, ...], tmp_path: Path) -> None:
    config = compose(*RACING, *agent, *SMALL, "algorithm.validate_every=0")
    run = Run(config, tmp_path, torch.device("cpu"))
    assert run.learner.buffer.observations["tokens"].dtype == torch.uint8
    before = {name: value.clone() for name, value in run.policy.named_parameters()}
    run.learn()
    changed = {name for name, value in run.policy.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(before)
    loaded = load_policy(tmp_path)
    env = task_of(loaded, {"senses": {"shuffle": "episode"}}).make_vec(num_envs=2)
    actions = loaded.act(env.reset(seed=0)[0])
    assert actions.shape == (2, 3) and np.isfinite(actions).all()


@pytest.mark.parametrize("agent", [TRANSFORMER, JIGSAW])
def test_a_student_of_patches_clones_a_teacher_of_states(
    agent: tuple[str, ...], teacher: Path, tmp_path: Path
) -> None:
    given = (*RACING, *agent, "algorithm=clone", f"algorithm.teacher={teacher}")
    given = (*given, *SMALL, "algorithm.teacher_steps=16", "env.scenery.background=[noise,plain]")
    run = Run(compose(*given), tmp_path / "student", torch.device("cpu"))
    run.learn()
    config = load_policy(tmp_path / "student").environment["config"]
    assert config["scenery"]["background"] == ["noise", "plain"], "which backgrounds were seen is known"
    more = ("env.scenery.background=clouds", "env.senses.shuffle=2", "episodes=2", "video=true")
    rows = evaluate(tmp_path / "student", *more, f"output={tmp_path / 'found'}")
    assert rows[0].episodes == 2 and rows[0].mean_length == 6
    frames = imageio.imread(tmp_path / "found" / "car_racing.mp4")
    assert frames.shape == (6, 96 * ENLARGED, 3 * 96 * ENLARGED, 3)


def test_the_published_agent_is_evolved_and_by_nothing_else(teacher: Path, tmp_path: Path) -> None:
    agent = ("agent=patch_attention_neuron", "agent.map_size=8")
    small = ("algorithm.generations=2", "algorithm.population=4", "algorithm.episodes=1")
    small += ("algorithm.validation_episodes=2", "algorithm.diagonal=true")
    cma = Run(compose(*RACING, *agent, "algorithm=cma_es", *small), tmp_path, torch.device("cpu"))
    cma.learn()
    assert type(load_policy(tmp_path).policy).__name__ == "PatchAttentionNeuron"
    with pytest.raises(UserError, match="PatchAttentionNeuron picks the patches that it looks at"):
        Run(compose(*RACING, *agent, *SMALL), tmp_path / "ppo", torch.device("cpu"))
    with pytest.raises(UserError, match="a choice has no gradient"):
        given = (*RACING, *agent, "algorithm=clone", f"algorithm.teacher={teacher}", *SMALL)
        Run(compose(*given), tmp_path / "clone", torch.device("cpu"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("agent=mlp",), "tokens are patches; what fits: agent=cnn or patch_jigsaw or patch_transformer"),
        (("agent=sensor_transformer",), "reads sensors, but this environment's tokens are patches"),
        (("agent=cnn", "env.view=state"), "PatchCNN reads patches, but this .* tokens are sensors"),
        (
            ("agent=patch_jigsaw",),
            r"guess where patches are: say env.senses.traces=\[30,250\]",
        ),
        (
            ("agent=cnn", "agent.critic=both"),
            "agent.critic must be one of auto, privileged, shared, got .both.",
        ),
        (("agent=cnn", "env.patch_size=5"), "patches of 5 x 5 pixels do not divide a picture of 96 x 96"),
        (("agent=cnn", "env.scenery.background=cluds"), "did you mean 'clouds'"),
    ],
)
def test_what_does_not_fit_is_said_when_a_run_is_composed(
    given: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=message) as caught:
        Run(compose(*RACING, *given, *SMALL), tmp_path, torch.device("cpu"))
    assert isinstance(caught.value, UserError) or isinstance(caught.value.__cause__, UserError)


def picture_of(agent: Agent, senses: Senses) -> np.ndarray:
    env = CarRacing(senses, action_repeat=4).make_vec(num_envs=1, threads=1)
    observation, _ = env.reset(seed=[[5, 0]])
    for _ in range(3):
        agent.reset()
        observation, *_ = env.step(np.array([[0.1, 0.0, -1.0]]))
    picture = patch_picture(env, observation, attention_of(agent, observation)[0])
    env.close()
    return picture


def test_a_video_shows_the_world_what_is_received_and_where_it_looks() -> None:
    torch.manual_seed(0)
    spec = Senses(history=4).spec((36,))
    agent = Agent(PatchTransformer(spec, n_actions=3, n_recent=4, n_privileged=1, latents=2))
    plain, shuffled = (picture_of(agent, Senses(history=4, shuffle=s)) for s in ("never", "episode"))
    assert plain.shape == (96, 3 * 96, 3)
    world, received, looked = (plain[:, part * 96 : (part + 1) * 96] for part in range(3))
    np.testing.assert_array_equal(world, shuffled[:, :96])
    assert (received != shuffled[:, 96:192]).mean() > 0.2, "patches stand in their slots"
    grey = lambda picture: np.sort(picture[..., 0].ravel())  # noqa: E731
    np.testing.assert_array_equal(grey(received), grey(shuffled[:, 96:192]))
    # Where it looks is put back to where the patches were taken: the order has no influence.
    assert np.abs(looked.astype(int) - shuffled[:, 192:]).max() <= 1
    assert (looked <= world).all() and (looked < world).mean() > 0.5


def test_the_film_of_a_policy_without_attention_has_two_pictures(tmp_path: Path) -> None:
    spec = Senses(history=4).spec((36,))
    cnn = Agent(PatchCNN(spec, (16, 16), 6, n_actions=3, n_recent=4, n_privileged=1))
    task = CarRacing(Senses(history=4), action_repeat=4, max_episode_steps=8)
    film_episode(cnn, to_film(task), "car_racing", tmp_path / "cnn.mp4", seed=1)
    assert imageio.imread(tmp_path / "cnn.mp4").shape == (2, 96 * ENLARGED, 2 * 96 * ENLARGED, 3)
