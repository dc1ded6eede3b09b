"""A run of CMA-ES: what it leaves behind, going on, stopping, and whose score is logged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import load_policy
from somite.agents.rollout.population import Population
from somite.agents.rollout.stacked import get_parameters
from somite.agents.storage.run_folder import list_checkpoints
from somite.agents.training.faults import RunFault
from somite.agents.training.loop import VALIDATION_SEED, Run
from somite.envs.errors import UserError
from tests.agents.cma_runs import TINY, column, history, make_run, score_of
from tests.agents.runs import compose, read_metrics

LOGGED = {
    "cma/best", "cma/mean", "cma/median", "cma/sigma", "cma/generation", "rollout/ep_rew_mean",
    "rollout/ep_len_mean", "time/fps", "bodies/cartpole_swingup",
}  # fmt: skip
SCORES = ("cma/validation_mean", "cma/validation_best", "validation/mean_reward")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run that has made all its generations."""
    run = make_run(tmp_path_factory.mktemp("run") / "learnt")
    run.learn()
    return run


def test_a_run_leaves_what_runs_leave(learnt: Run) -> None:
    folder = learnt.folder
    (events,) = folder.glob("events.*")
    expected = {"config.yaml", "metrics.csv", "checkpoints", "policy", "best", events.name}
    assert {path.name for path in folder.iterdir()} == expected
    rows = read_metrics(folder)
    assert [float(row["cma/generation"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert set(row) >= LOGGED and all(np.isfinite(float(row[name])) for name in LOGGED)
        for name in SCORES:
            assert bool(row[name]) is (float(row["cma/generation"]) % 2 == 0), (name, row)
    steps = [int(row["step"]) for row in rows]
    lengths = [float(row["rollout/ep_len_mean"]) for row in rows]
    assert np.allclose(np.diff([0, *steps]), 8 * 3 * np.array(lengths)), "steps of episodes that count"
    kept = [int(path.name) for path in list_checkpoints(folder)]
    assert kept == [steps[3], steps[5]], "keep_checkpoints=2"
    said = json.loads((folder / "policy" / "policy.json").read_text())["training"]
    assert said["steps"] == steps[-1] and said["algorithm"]["population"] == 8


def test_what_is_logged_of_a_generation_is_what_its_candidates_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, evaluate = [], Population.evaluate

    def watched(population: Population, *arguments: object, **options: object) -> object:
        seen.append(evaluate(population, *arguments, **options))
        return seen[-1]

    monkeypatch.setattr(Population, "evaluate", watched)
    make_run(tmp_path).learn()
    assert len(seen) == 6
    for row, scores in zip(read_metrics(tmp_path), seen, strict=True):
        fitness = scores.returns.mean((1, 2))
        for name, wanted in (
            ("best", max(fitness)),
            ("mean", np.mean(fitness)),
            ("median", np.median(fitness)),
        ):
            assert float(row[f"cma/{name}"]) == pytest.approx(wanted)
        assert float(row["rollout/ep_rew_mean"]) == pytest.approx(scores.returns.mean())


def test_the_scores_that_are_logged_are_those_of_the_saved_parameters(learnt: Run) -> None:
    folder = learnt.folder
    logged = {name: column(folder, name) for name in SCORES}
    better = np.maximum(logged["cma/validation_mean"], logged["cma/validation_best"])
    assert np.array_equal(logged["validation/mean_reward"], better)
    assert score_of(folder / "policy", learnt) == pytest.approx(better[-1], abs=1e-9)
    assert score_of(folder / "best", learnt) == pytest.approx(max(better), abs=1e-9)
    said = json.loads((folder / "best" / "policy.json").read_text())["training"]
    assert said["validation_return"] == pytest.approx(max(better))
    for checkpoint in list_checkpoints(folder):
        index = [row["step"] for row in read_metrics(folder)].index(checkpoint.name)
        wanted = float(read_metrics(folder)[index]["validation/mean_reward"])
        assert score_of(checkpoint / "policy", learnt) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("better", ["mean", "best"])
def test_the_policy_is_the_better_of_mean_and_best_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    run = make_run(tmp_path, "algorithm.generations=2")

    def scripted(policy: torch.nn.Module, episodes: int) -> float:
        of_mean = np.allclose(get_parameters(policy), run.learner.search.mean, atol=1e-6)
        of_best = np.allclose(get_parameters(policy), run.learner.search.best, atol=1e-6)
        assert of_mean != of_best
        return 5.0 if of_mean is (better == "mean") else 3.0

    monkeypatch.setattr(run, "score", scripted)
    run.learn()
    wanted = run.learner.search.mean if better == "mean" else run.learner.search.best
    for folder in ("policy", "best"):
        saved = get_parameters(load_policy(tmp_path / folder).policy)
        assert np.array_equal(saved, wanted.astype(np.float32)), folder
    assert column(tmp_path, "validation/mean_reward") == [5.0]
    assert column(tmp_path, f"cma/validation_{better}") == [5.0]


def test_best_is_kept_when_later_ones_are_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    scores = iter([5.0, 9.0, 7.0, 6.0, 1.0, 2.0])
    scored = []

    def scripted(policy: torch.nn.Module, episodes: int) -> float:
        scored.append(get_parameters(policy))
        return next(scores)

    monkeypatch.setattr(run, "score", scripted)
    run.learn()
    assert np.array_equal(get_parameters(load_policy(tmp_path / "best").policy), scored[1])
    assert np.array_equal(get_parameters(load_policy(tmp_path / "policy").policy), scored[5])


def test_without_validation_the_policy_is_the_mean(tmp_path: Path) -> None:
    run = make_run(tmp_path, "algorithm.validate_every=0", "algorithm.generations=3")
    run.learn()
    saved = get_parameters(load_policy(tmp_path).policy)
    assert np.array_equal(saved, run.learner.search.mean.astype(np.float32))
    assert not (tmp_path / "best").exists() and SCORES[0] not in read_metrics(tmp_path)[0]


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        np.random.seed(seed + len(name))  # of nobody's interest here
        make_run(tmp_path / name, f"seed={seed}", "algorithm.generations=2").learn()
    assert history(tmp_path / "one") == history(tmp_path / "same")
    assert history(tmp_path / "one")[0]["cma/best"] != history(tmp_path / "other")[0]["cma/best"]


def test_validation_changes_nothing_of_the_search(tmp_path: Path) -> None:
    often, never = (
        make_run(tmp_path / str(every), f"algorithm.validate_every={every}", "algorithm.generations=3")
        for every in (1, 0)
    )
    for run in (often, never):
        run.learn()
    assert np.array_equal(often.learner.search.mean, never.learner.search.mean)


def test_a_candidate_without_a_finite_score_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    evaluate = run.learner.population.evaluate

    def diverging(*arguments: object, **options: object) -> object:
        scores = evaluate(*arguments, **options)
        scores.returns[5, 0, 1] = np.nan
        return scores

    monkeypatch.setattr(run.learner.population, "evaluate", diverging)
    with pytest.raises(RunFault, match="candidate 5 of generation 0 has the return nan"):
        run.learn()
    assert make_run(tmp_path).learner.search.generation == 0, "it was saved as it was before"


def test_what_diverged_is_counted_and_too_much_of_it_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "algorithm.generations=2")
    evaluate, episodes = run.learner.population.evaluate, [1, 40]

    def diverging(*arguments: object, **options: object) -> object:
        scores = evaluate(*arguments, **options)
        scores.diverged.flat[: episodes.pop(0)] = True
        scores.lengths[:] = 10
        return scores

    monkeypatch.setattr(run.learner.population, "evaluate", diverging)
    with pytest.raises(RunFault, match=r"diverged in .* of the steps of generation 1, more than"):
        run.learn()
    assert [float(row["rollout/diverged"]) for row in read_metrics(tmp_path)] == [1]
    assert make_run(tmp_path, "algorithm.generations=2").learner.search.generation == 1


def test_where_the_search_begins(tmp_path: Path) -> None:
    zero = make_run(tmp_path / "zero")
    assert not zero.learner.search.mean.any() and not get_parameters(zero.policy).any()
    initial = make_run(tmp_path / "initial", "algorithm.start=initial")
    assert np.array_equal(initial.learner.search.mean, get_parameters(initial.policy))
    assert np.abs(initial.learner.search.mean).max() > 0.1
    narrow = initial.learner.search.ask() - initial.learner.search.mean
    assert narrow.std() == pytest.approx(0.1, rel=0.1), "offsets from the initial parameters"


def test_every_generation_has_new_starts_that_only_seed_and_number_decide(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "one"), make_run(tmp_path / "other", "seed=1")
    starts = []
    for _ in range(3):
        starts += run.learner._starts()
        assert len(run.learner._starts()) == 3
        run.learner.search.tell(np.arange(8.0))
    starts += other.learner._starts()
    drawn = {tuple(np.random.default_rng(key).random(2)) for key in starts}
    drawn |= {tuple(np.random.default_rng([VALIDATION_SEED, i]).random(2)) for i in range(4)}
    assert len(drawn) == 3 * 3 + 3 + 4, "no two alike"


def test_fixed_starts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"on the same starts.*env\.starts=random"):
        make_run(tmp_path, "env.starts=fixed")


@pytest.mark.parametrize(
    "more",
    [
        ("env=hopper", "agent=smp", "agent.width=8", "env.task.max_episode_steps=12"),
        (
            "env=cheetah", "agent=limb_transformer", "agent.width=8", "env.task.max_episode_steps=6",
            "env.bodies=[cheetah_2_back,cheetah_3_front]", "algorithm.start=initial",
        ),
        ("env=walker", "agent=mlp", "agent.width=8", "env.task.max_episode_steps=6"),
    ],
    ids=lambda more: more[0],
)  # fmt: skip
def test_bodies_are_searched_for_as_well(tmp_path: Path, more: tuple[str, ...]) -> None:
    given = [argument for argument in TINY if not argument.startswith(("env", "agent"))]
    config = compose(
        *given, *more, "algorithm.generations=2", "algorithm.diagonal=true", "algorithm.population=4",
        "algorithm.episodes=2", "algorithm.validation_episodes=1", "threads=2",
    )  # fmt: skip
    run = Run(config, tmp_path, torch.device("cpu"))
    run.learn()
    row = read_metrics(tmp_path)[-1]
    bodies = run.task_set.seen
    means = [float(row[f"bodies/{body}"]) for body in bodies]
    assert float(row["rollout/ep_rew_mean"]) == pytest.approx(np.mean(means))
    assert load_policy(tmp_path).policy.kind == "limbs"
    run.policy.set_flat(run.learner.search.best)
    assert np.isfinite(run.score(run.policy, 1))


def test_carts_learn_to_stay_on_the_track(tmp_path: Path) -> None:
    """With 913 parameters and a few generations; doing nothing loses nearly every cart."""
    run = Run(
        compose(
            *(argument for argument in TINY if not argument.startswith("agent.")),
            "env.max_episode_steps=60", "algorithm.generations=25", "algorithm.population=48",
            "algorithm.episodes=6", "algorithm.diagonal=true", "algorithm.validate_every=25",
            "algorithm.validation_episodes=100",
        ),
        tmp_path, torch.device("cpu"),
    )  # fmt: skip
    idle = run.score(run.policy, 100)
    run.learn()
    assert column(tmp_path, "validation/mean_reward")[-1] > 1.6 * idle
