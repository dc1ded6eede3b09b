"""A training run: what it leaves behind, going on, stopping, repeating."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from somite.agents import load_policy
from somite.agents.algorithms.ppo import NEW_RATE
from somite.agents.evaluation.episodes import Episodes
from somite.agents.storage.run_folder import last_checkpoint, remove_folder
from somite.agents.training import loop as run_parts
from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from somite.envs.locomotion import BodySet, LocomotionEnv
from tests.agents.runs import ROLLOUT, TINY, compose, make_run, read_metrics


def moments(run: Run) -> list[torch.Tensor]:
    """Adam's first and second moments and step counts of every parameter."""
    states = run.learner.optimizer.state_dict()["state"].values()
    return [state[key].clone() for state in states for key in ("exp_avg", "exp_avg_sq", "step")]


def steps_of(folder: Path, tag: str) -> list[int]:
    """Steps of a TensorBoard scalar, in the order in which TensorBoard reads them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def metric_steps(folder: Path, column: str) -> list[int]:
    return [int(row["step"]) for row in read_metrics(folder) if row.get(column)]


def test_a_run_leaves_what_the_readme_says(learnt: Run) -> None:
    folder = learnt.folder
    (events,) = folder.glob("events.*")
    expected = {"config.yaml", "metrics.csv", "checkpoints", "policy", "best", events.name}
    assert {path.name for path in folder.iterdir()} == expected
    assert OmegaConf.load(folder / "config.yaml") == learnt.config
    newest = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert newest == [2 * ROLLOUT, 3 * ROLLOUT], "keep_checkpoints=2"
    for path in (folder / "checkpoints").iterdir():
        assert {p.name for p in path.iterdir()} == {"policy", "training_state"}
    for name in ("policy", "best"):
        assert {p.name for p in (folder / name).iterdir()} == {"policy.safetensors", "policy.json"}


def test_the_published_policy_is_the_learners_last(learnt: Run) -> None:
    agent = load_policy(learnt.folder)
    for key, value in learnt.policy.state_dict().items():
        assert torch.equal(agent.policy.state_dict()[key], value), key
    said = agent.description
    assert said["training"]["steps"] == 3 * ROLLOUT and said["training"]["seed"] == 0
    assert said["environment"]["seen"] == ["cheetah_2_back", "cheetah_3_front"]
    assert said["environment"]["unseen"] == ["cheetah_4_front", "cheetah_5_balanced", "cheetah_6_front"]
    assert said["environment"]["config"]["task"]["max_episode_steps"] == 20


def test_metrics_have_each_update_and_each_body(learnt: Run) -> None:
    folder = learnt.folder
    assert metric_steps(folder, "time/fps") == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    assert metric_steps(folder, "train/loss") == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    assert metric_steps(folder, "validation/mean_reward") == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    for body in ("cheetah_2_back", "cheetah_3_front"):
        assert metric_steps(folder, f"bodies/{body}")
    for tag in ("time/env_share", "time/update_share"):
        assert all(0 <= float(row[tag]) < 1 for row in read_metrics(folder) if row[tag])
    assert steps_of(folder, "rollout/ep_rew_mean")[-1] == 3 * ROLLOUT


def test_a_finished_run_says_what_to_raise(learnt: Run) -> None:
    with pytest.raises(UserError, match=r"has made 384 of 384 steps.*raise algorithm\.total_steps"):
        make_run(learnt.folder).learn()


def test_a_resumed_run_goes_on_where_it_stopped(learnt: Run, tmp_path: Path) -> None:
    first = learnt
    shutil.copytree(first.folder, tmp_path, dirs_exist_ok=True)
    before = read_metrics(tmp_path)
    second = make_run(tmp_path, f"algorithm.total_steps={5 * ROLLOUT}")
    assert second.steps == 3 * ROLLOUT
    assert second.learner.passes == first.learner.passes == 6
    for one, other in zip(moments(first), moments(second), strict=True):
        assert torch.equal(one, other)
    assert moments(second)[0].abs().max() > 0
    for key, value in first.policy.state_dict().items():  # the normaliser's buffers, too
        assert torch.equal(second.policy.state_dict()[key], value), key
    scales = [run.learner.scaling.snapshot()["statistics"] for run in (first, second)]
    assert scales[0] == scales[1]
    assert second.best_score == first.best_score > -np.inf

    rates = []
    update = second.learner._learn
    second.learner._learn = lambda: (update(), rates.append(learning_rate(second)))[0]
    second.learn()
    assert rates == pytest.approx([NEW_RATE * (1 - 4 / 5), 0.0])
    after = read_metrics(tmp_path)
    kept = [{key: row[key] for key in before[0]} for row in after[: len(before)]]
    assert kept == before, "rows of the first part stay as they are"
    new = [int(row["step"]) for row in after[len(before) :]]
    assert new == [4 * ROLLOUT, 5 * ROLLOUT]
    assert steps_of(tmp_path, "time/fps") == [n * ROLLOUT for n in (1, 2, 3, 4, 5)]
    assert last_checkpoint(tmp_path).name == str(5 * ROLLOUT)


def learning_rate(run: Run) -> float:
    return run.learner.optimizer.param_groups[0]["lr"]


def test_what_a_killed_run_logged_after_its_checkpoint_is_not_counted_twice(
    learnt: Run, tmp_path: Path
) -> None:
    shutil.copytree(learnt.folder, tmp_path, dirs_exist_ok=True)
    remove_folder(tmp_path / "checkpoints" / str(3 * ROLLOUT))
    run = make_run(tmp_path)
    assert run.steps == 2 * ROLLOUT
    run.learn()
    assert metric_steps(tmp_path, "time/fps") == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    assert steps_of(tmp_path, "time/fps") == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]


def test_a_resumed_run_keeps_its_agent(learnt: Run) -> None:
    with pytest.raises(UserError, match="holds LimbTransformer .* resumes with its own agent"):
        make_run(learnt.folder, "agent.width=32")


def parameters_after_two_updates(folder: Path, *overrides: str) -> torch.Tensor:
    run = make_run(folder, f"algorithm.total_steps={2 * ROLLOUT}", "algorithm.validate_every=0", *overrides)
    run.learn()
    return torch.cat([parameter.detach().flatten() for parameter in run.policy.parameters()])


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    one = parameters_after_two_updates(tmp_path / "one")
    np.random.rand()  # whatever was drawn before
    torch.rand(7)
    assert torch.equal(one, parameters_after_two_updates(tmp_path / "two"))
    other = parameters_after_two_updates(tmp_path / "other", "seed=1")
    assert (one - other).abs().mean() > 1e-2
    assert not (tmp_path / "one" / "best").exists(), "validate_every=0"


def test_unseen_bodies_are_never_simulated_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated, build = [], LocomotionEnv.__init__

    def spy(self: LocomotionEnv, bodies: list, *arguments: object, **options: object) -> None:
        simulated.append(tuple(body.name for body in bodies))
        build(self, bodies, *arguments, **options)

    monkeypatch.setattr(LocomotionEnv, "__init__", spy)
    run = Run(compose(*TINY, "env.bodies=null", "algorithm.num_envs=12"), tmp_path, torch.device("cpu"))
    run.learn()
    seen, unseen = set(run.task_set.seen), set(run.task_set.unseen)
    assert len(seen) == 12 and len(unseen) == 3 and (tmp_path / "best").is_dir()
    assert len(simulated) == 3, "the training rows and two validations"
    assert {name for bodies in simulated for name in bodies} == seen


def test_best_is_the_best_by_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([5.0, 9.0, 7.0])
    asked = []

    def scripted(act: object, body_set: BodySet, bodies: tuple, episodes: int, seed: int, **options: object):
        score = next(scores)
        asked.append((tuple(bodies), episodes, seed))
        return [Episodes(body, np.full(episodes, score), np.ones(episodes)) for body in bodies]

    monkeypatch.setattr(run_parts, "run_episodes", scripted)
    run = make_run(tmp_path, "algorithm.validation_episodes=2")
    run.learn()
    said = json.loads((tmp_path / "best" / "policy.json").read_text())["training"]
    assert said["validation_return"] == 9 and said["steps"] == 2 * ROLLOUT
    assert asked == [(("cheetah_2_back", "cheetah_3_front"), 2, run_parts.VALIDATION_SEED)] * 3
    assert [float(row["validation/mean_reward"]) for row in read_metrics(tmp_path)] == [5, 9, 7]


def test_validation_changes_nothing_of_learning(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    run._validate()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_a_policy_says_how_it_was_made(tmp_path: Path) -> None:
    """What a stranger who gets the folder wants to know; time goes on over a resumption."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- env=cheetah\n- seed=0\n")
    make_run(tmp_path, f"algorithm.total_steps={ROLLOUT}").learn()
    first = load_policy(tmp_path).description["training"]
    assert first["command"] == ["env=cheetah", "seed=0"]
    assert "core" in first["machine"] and first["seconds"] >= 0
    resumed = make_run(tmp_path, f"algorithm.total_steps={2 * ROLLOUT}")
    resumed.state["seconds"] = 1000.0
    resumed.learn()
    assert 1000 <= load_policy(tmp_path).description["training"]["seconds"] < 1600
