"""The zero-shot suite: conditions never trained on, and no trace of it in what is learnt."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from somite.agents.composition import build_policy
from somite.agents.training.loop import VALIDATION_SEED, Run
from somite.agents.training.zero_shot import (
    MEAN,
    REFERENCE,
    ZeroShotSuite,
    is_trained_on,
    read_settings,
)
from somite.envs.errors import UserError
from somite.envs.locomotion import LocomotionEnv
from somite.envs.task_set import task_set_of
from tests.agents.runs import ROLLOUT, compose, read_metrics

from .runs import SUITE, cma_run, limb_run


def parameters(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.policy.state_dict().items()}


def suite_of(*overrides: str) -> ZeroShotSuite:
    config = OmegaConf.to_container(compose(*SUITE, *overrides), resolve=True)
    task = task_set_of(config["env"])
    policy = build_policy(compose(*overrides).agent, task.make_vec(task.seen[:1], 1, threads=1))
    return ZeroShotSuite(read_settings(config["zero_shot"]), config["env"], policy)


SENSORS = ("env=cartpole_swingup", "env.max_episode_steps=15", "agent=sensor_transformer", "agent.width=8")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """As `limbs`, without the suite."""
    run = limb_run(tmp_path_factory.mktemp("without"), "algorithm.zero_shot_every=0")
    run.learn()
    return run


def test_a_run_with_the_suite_learns_the_same_as_one_without(limbs: Run, without: Run) -> None:
    """Bit for bit: parameters, normaliser, what is chosen as the best, and Adam's moments."""
    runs = [limbs, without]
    one, other = map(parameters, runs)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert runs[0].best_score == runs[1].best_score
    moments = [run.learner.optimizer.state_dict()["state"][0]["exp_avg"] for run in runs]
    assert torch.equal(*moments) and moments[0].abs().max() > 0
    rows = [read_metrics(run.folder) for run in runs]
    for name in ("rollout/ep_rew_mean", "train/loss", "validation/mean_reward"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]], name
    assert any(row["zero_shot/mean"] for row in rows[0]) and "zero_shot/mean" not in rows[1][0]


def test_a_suite_that_drew_from_the_runs_streams_would_be_found_out(without: Run, tmp_path: Path) -> None:
    """What the test above sees if the suite is not left alone."""
    one, run = parameters(without), limb_run(tmp_path)
    run.dashboard.try_out = lambda policy, step: {"zero_shot/mean": float(torch.rand(1))}
    run.learn()
    assert not all(torch.equal(value, one[name]) for name, value in parameters(run).items())


def test_the_evolved_policy_is_the_same_with_and_without(evolved: Run, tmp_path: Path) -> None:
    runs = [evolved, cma_run(tmp_path, "algorithm.zero_shot_every=0")]
    runs[1].learn()
    one, other = map(parameters, runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert np.array_equal(runs[0].learner.search.mean, runs[1].learner.search.mean)


def test_no_random_stream_and_no_mode_is_touched(tmp_path: Path) -> None:
    limbs = limb_run(tmp_path, "zero_shot.pictures=true")
    limbs.policy.train()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), parameters(limbs)
    scores = limbs.dashboard.try_out(limbs.policy, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]
    assert all(torch.equal(value, before[3][name]) for name, value in limbs.policy.state_dict().items())
    assert limbs.policy.training
    assert scores == limbs.dashboard.try_out(limbs.policy, 0), "the same policy scores the same"


def test_the_suite_changes_bodies_and_never_simulates_unseen_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = limb_run(tmp_path, "env.bodies=null", "algorithm.num_envs=12", "zero_shot.bodies=4")
    masses: dict[str, set] = {}
    built = LocomotionEnv.reset

    def spy(env: LocomotionEnv, *arguments: object, **options: object) -> dict:
        found = built(env, *arguments, **options)
        for row, number in enumerate(env.body_of_row):
            body = env.bodies[int(number)]
            model = env.simulated(row)[0]
            masses.setdefault(body.name, set()).add(round(float(model.body_mass.sum()), 4))
        return found

    monkeypatch.setattr(LocomotionEnv, "reset", spy)
    scores = run.dashboard.try_out(run.learner.newest(), run.steps)
    assert set(scores) == {f"zero_shot/{n}" for n in (REFERENCE, "other_lengths", "other_masses", MEAN)}
    assert len(masses) == 4 and set(masses) <= set(run.task_set.seen)
    assert all(len(found) > 1 for found in masses.values()), "the bodies are others than those trained on"
    assert set(run.task_set.unseen).isdisjoint(masses)
    changed = [scores["zero_shot/other_lengths"], scores["zero_shot/other_masses"]]
    assert scores["zero_shot/mean"] == pytest.approx(np.mean(changed))


def test_what_training_does_itself_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    every = suite_of(*SENSORS)
    assert list(every.tasks) == [REFERENCE, "shuffled", "shuffled_every_100", "noise_3", "missing_20"]
    assert not caplog.records
    trained = suite_of(*SENSORS, "env.senses.shuffle=50", "env.senses.noise_channels=[0,5]")
    assert list(trained.tasks) == [REFERENCE, "missing_20"]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"zero_shot/{name} is left out: this run trains on it"
        for name in ("shuffled", "shuffled_every_100", "noise_3")
    ]
    reference = trained.tasks[REFERENCE].senses
    assert reference.shuffle == "never" and reference.noise_channels == 0


def test_what_the_policy_cannot_take_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    suite = suite_of("env=cartpole_swingup", "agent=mlp", "agent.width=8")
    assert "noise_3" not in suite.tasks and "shuffled" in suite.tasks and "missing_20" in suite.tasks
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["zero_shot/noise_3 is left out"]
    caplog.clear()
    pictures = ("env=car_racing", "env.patch_size=24", "agent=cnn", "agent.width=8")
    assert "noise_3" not in suite_of(*pictures).tasks
    assert "PatchCNN" in caplog.text
    caplog.clear()
    two = ("env=gymnasium", "env.id=MountainCar-v0", "agent=sensor_mlp", "agent.width=8")
    assert "shuffled" in suite_of(*two).tasks
    assert "zero_shot/missing_20 is left out: env.senses.missing=0.2 is less than half" in caplog.text


@pytest.mark.parametrize(
    ("tried", "trained", "expected"),
    [
        ({"senses": {"shuffle": "episode"}}, {"senses": {"shuffle": "never"}}, False),
        ({"senses": {"shuffle": "episode"}}, {"senses": {"shuffle": 200}}, True),
        ({"senses": {"shuffle": 100}}, {"senses": {"shuffle": "episode"}}, False),
        ({"senses": {"shuffle": 100}}, {"senses": {"shuffle": 200}}, False),
        ({"senses": {"shuffle": 100}}, {"senses": {"shuffle": 50}}, True),
        ({"senses": {"shuffle": "never"}}, {"senses": {"shuffle": 50}}, True),
        ({"senses": {"shuffle": 100}}, {"senses": {"shuffle": "episode"}}, False),
        ({"senses": {"noise_channels": 3}}, {"senses": {"noise_channels": [4, 5]}}, False),
        ({"senses": {"missing": 0.2}}, {"senses": {"missing": 0.3}}, True),
        ({"senses": {"missing": 0.2, "stuck": 1}}, {"senses": {"missing": 0.3, "stuck": 0}}, False),
        ({"variation": {"mass": [[0.5, 0.8]], "seed": 3}}, {"variation": {"mass": [0.8, 1.25]}}, False),
        ({"variation": {"mass": [[0.5, 0.8]], "seed": 3}}, {"variation": {"mass": [0.7, 1.25]}}, True),
        ({"variation": {"mass": [[0.5, 0.8]]}}, {"variation": None}, False),
        ({"scenery": {"background": "noise"}}, {"scenery": {"background": ["grass", "noise"]}}, True),
        ({"starts": "fixed"}, {"starts": "random"}, False),
    ],
)
def test_what_counts_as_trained_on(tried: dict, trained: dict, expected: bool) -> None:
    assert is_trained_on(tried, trained) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("zero_shot.rows=0", "zero_shot.rows"),
        ("zero_shot.steps.limbs=no", "zero_shot.steps.limbs"),
        ("+zero_shot.conditions.limb={}", "has no 'limb'; did you mean 'limbs'"),
        ("+zero_shot.conditions.limbs.heavy=2", "must be keys of env and their values"),
        ("+zero_shot.conditions.limbs.mean={task:{goal:auto}}", "that name is taken"),
        ("+zero_shot.conditions.limbs.heavy={variation:{mas:[1,2]}}", "mas"),
        ("+zero_shot.conditions.limbs.heavy={variation:{mass:[2,1]}}", "variation.mass"),
        ("+zero_shot.every=3", "has no key 'every'"),
    ],
)
def test_a_suite_that_cannot_be_meant_fails_before_the_run(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        limb_run(tmp_path, override)


def test_an_invalid_condition_is_told_whatever_training_does() -> None:
    swingup = ("env=cartpole_swingup", "agent=deep_set", "env.senses.shuffle=50")
    with pytest.raises(UserError, match="shuffle.*often"):
        suite_of(*swingup, "+zero_shot.conditions.sensors.wrong={senses:{shuffle:often}}")


def test_seeds_are_of_the_suite_alone() -> None:
    from somite.agents.algorithms.evolution import STARTS_SEED
    from somite.agents.training.zero_shot import ZERO_SHOT_SEED

    seeds = [VALIDATION_SEED, STARTS_SEED, ZERO_SHOT_SEED]
    assert len(set(seeds)) == 3 and min(seeds) > 1_000_000, "evaluations count from 0"


def test_a_run_begun_before_there_was_a_suite_goes_on_without(tmp_path: Path) -> None:
    config = compose(*TINY_WITHOUT)
    del config.zero_shot
    run = Run(config, tmp_path, torch.device("cpu"))
    assert run.dashboard.suite is None
    run.learn()
    assert "zero_shot/mean" not in read_metrics(tmp_path)[-1]


TINY_WITHOUT = (
    "env.bodies=[cheetah_2_back]", "env.task.max_episode_steps=20", "agent.width=16", "algorithm.num_envs=8",
    "algorithm.n_steps=16", "algorithm.n_epochs=1", f"algorithm.total_steps={ROLLOUT}",
    "algorithm.zero_shot_every=1", "algorithm.validate_every=0", "device=cpu", "threads=1",
)  # fmt: skip
