"""A run of CMA-ES: what it leaves behind, going on, stopping, and whose score is logged."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import load_policy
from somite.agents.algorithms.population import Population, get_parameters, set_parameters
from somite.agents.cma_run import CMARun
from somite.agents.episodes import run_episodes
from somite.agents.run import VALIDATION_SEED
from somite.agents.run_folder import last_checkpoint, list_checkpoints
from somite.envs.errors import UserError

from .runs import compose, read_metrics

TINY = (
    "env=cartpole_swingup",
    "env.max_episode_steps=25",
    "agent=attention_neuron",
    "agent.rows=3",
    "agent.hidden=2",
    "agent.key_size=3",
    "algorithm=cma_es",
    "algorithm.generations=6",
    "algorithm.population=8",
    "algorithm.episodes=3",
    "algorithm.checkpoint_every=2",
    "algorithm.validate_every=2",
    "algorithm.validation_episodes=4",
    "device=cpu",
    "threads=1",
)
LOGGED = {
    "cma/best", "cma/mean", "cma/median", "cma/sigma", "cma/generation", "rollout/ep_rew_mean",
    "rollout/ep_len_mean", "time/fps", "bodies/cartpole_swingup",
}  # fmt: skip
SCORES = ("cma/validation_mean", "cma/validation_best", "validation/mean_reward")


def make_run(folder: Path, *overrides: str) -> CMARun:
    return CMARun(compose(*TINY, *overrides), folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> CMARun:
    """A tiny run that has made all its generations."""
    run = make_run(tmp_path_factory.mktemp("run") / "learnt")
    run.learn()
    return run


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in read_metrics(folder) if row.get(name)]


def test_a_run_leaves_what_runs_leave(learnt: CMARun) -> None:
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


def score_of(folder: Path, run: CMARun) -> float:
    """What a saved policy reaches on the validation's starts."""
    (result,) = run_episodes(load_policy(folder).act, run.bodies, run.bodies.seen, 4, VALIDATION_SEED)
    return float(result.returns.mean())


def test_the_scores_that_are_logged_are_those_of_the_saved_parameters(learnt: CMARun) -> None:
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
        of_mean = np.allclose(get_parameters(policy), run.search.mean, atol=1e-6)
        of_best = np.allclose(get_parameters(policy), run.search.best, atol=1e-6)
        assert of_mean != of_best
        return 5.0 if of_mean is (better == "mean") else 3.0

    monkeypatch.setattr(run, "score", scripted)
    run.learn()
    wanted = run.search.mean if better == "mean" else run.search.best
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
    assert np.array_equal(saved, run.search.mean.astype(np.float32))
    assert not (tmp_path / "best").exists() and SCORES[0] not in read_metrics(tmp_path)[0]


def history(folder: Path) -> list[tuple[str, ...]]:
    """What a run logged of its search, digit for digit."""
    names = ("step", "cma/generation", "cma/best", "cma/mean", "cma/median", "cma/sigma")
    return [tuple(row[name] for name in names) for row in read_metrics(folder)]


@pytest.mark.parametrize("mode", ["", "algorithm.diagonal=true", "algorithm.mirrored=true"])
def test_half_a_run_and_the_other_half_are_a_whole_one(tmp_path: Path, mode: str) -> None:
    more = [mode] if mode else []
    whole = make_run(tmp_path / "whole", *more)
    whole.learn()
    make_run(tmp_path / "halves", *more, "algorithm.generations=3").learn()
    second = make_run(tmp_path / "halves", *more)
    assert second.search.generation == 3 and second.steps > 0
    second.learn()
    assert history(tmp_path / "halves") == history(tmp_path / "whole")
    assert np.array_equal(second.search.mean, whole.search.mean)
    assert second.search.sigma == whole.search.sigma
    assert np.array_equal(get_parameters(second.policy), get_parameters(whole.policy))
    names = [path.name for path in list_checkpoints(tmp_path / "whole")]
    assert last_checkpoint(tmp_path / "halves").name == names[-1]


def test_a_search_that_is_begun_anew_would_be_noticed(tmp_path: Path) -> None:
    """Negative control of the test above: the same generations with other random numbers."""
    make_run(tmp_path / "one").learn()
    make_run(tmp_path / "other", "algorithm.generations=3").learn()
    second = make_run(tmp_path / "other")
    second.search._strategy.opts["randn"].rng = np.random.default_rng(1)
    second.learn()
    assert history(tmp_path / "one")[:3] == history(tmp_path / "other")[:3]
    assert history(tmp_path / "one")[4:] != history(tmp_path / "other")[4:]


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        np.random.seed(seed + len(name))  # of nobody's interest here
        make_run(tmp_path / name, f"seed={seed}", "algorithm.generations=2").learn()
    assert history(tmp_path / "one") == history(tmp_path / "same")
    assert history(tmp_path / "one")[0][2:] != history(tmp_path / "other")[0][2:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_in_mid_generation_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    make_run(tmp_path / "whole").learn()
    run = make_run(tmp_path / "stopped")
    evaluate, calls = run.population.evaluate, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(run.search.ask().copy())
        if len(calls) == 4:
            signal.raise_signal(number)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(run.population, "evaluate", interrupted)
    before = signal.getsignal(number)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as leaving:
        run.learn()
    assert leaving.value.code == 128 + number and signal.getsignal(number) == before
    assert f"stopped by {number.name} at step {run.steps:,}; go on with: somite-train resume=" in caplog.text
    assert len(calls) == 4 and run.search.generation == 3, "the fourth generation is left"
    assert score_of(tmp_path / "stopped" / "policy", run) == pytest.approx(
        column(tmp_path / "stopped", "validation/mean_reward")[-1], abs=1e-9
    )
    second = make_run(tmp_path / "stopped")
    assert np.array_equal(second.search.ask(), calls[3]), "its candidates are kept"
    second.learn()
    # The validation at the stop has a row of its own, in which the search says nothing.
    stopped = [row for row in history(tmp_path / "stopped") if row[1]]
    assert stopped == history(tmp_path / "whole")


def test_a_run_that_is_stopped_before_its_first_generation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "algorithm.generations=2")
    monkeypatch.setattr(run.population, "evaluate", lambda *a, **o: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit):
        run.learn()
    assert last_checkpoint(tmp_path).name == "0"
    again = make_run(tmp_path, "algorithm.generations=2")
    again.learn()
    assert again.search.generation == 2 and load_policy(tmp_path).policy is not None


def test_validation_changes_nothing_of_the_search(tmp_path: Path) -> None:
    often, never = (
        make_run(tmp_path / str(every), f"algorithm.validate_every={every}", "algorithm.generations=3")
        for every in (1, 0)
    )
    for run in (often, never):
        run.learn()
    assert np.array_equal(often.search.mean, never.search.mean)


def test_a_candidate_without_a_finite_score_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    evaluate = run.population.evaluate

    def diverging(*arguments: object, **options: object) -> object:
        scores = evaluate(*arguments, **options)
        scores.returns[5, 0, 1] = np.nan
        return scores

    monkeypatch.setattr(run.population, "evaluate", diverging)
    with pytest.raises(FloatingPointError, match="candidate 5 of generation 0 has the fitness nan"):
        run.learn()


def test_where_the_search_begins(tmp_path: Path) -> None:
    zero = make_run(tmp_path / "zero")
    assert not zero.search.mean.any() and not get_parameters(zero.policy).any()
    initial = make_run(tmp_path / "initial", "algorithm.start=initial")
    assert np.array_equal(initial.search.mean, get_parameters(initial.policy))
    assert np.abs(initial.search.mean).max() > 0.1
    narrow = initial.search.ask() - initial.search.mean
    assert narrow.std() == pytest.approx(0.1, rel=0.1), "offsets from the initial parameters"


def test_a_search_keeps_its_initial_parameters_when_it_goes_on(tmp_path: Path) -> None:
    """A resumed process draws other ones; the value's network, which nobody searches, is the first's."""
    more = ("algorithm.start=initial", "algorithm.generations=2")
    first = make_run(tmp_path, *more)
    untouched = {
        name: value.clone()
        for name, value in first.policy.state_dict().items()
        if name not in first.policy.acting_parameters()
    }
    first.learn()
    second = make_run(tmp_path, *more, "algorithm.generations=3")
    assert np.array_equal(second.search.mean, first.search.mean)
    assert all(torch.equal(second.policy.state_dict()[name], value) for name, value in untouched.items())


def test_every_generation_has_new_starts_that_only_seed_and_number_decide(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "one"), make_run(tmp_path / "other", "seed=1")
    starts = []
    for _ in range(3):
        starts += run._starts()
        assert len(run._starts()) == 3
        run.search.tell(np.arange(8.0))
    starts += other._starts()
    drawn = {tuple(np.random.default_rng(key).random(2)) for key in starts}
    drawn |= {tuple(np.random.default_rng([VALIDATION_SEED, i]).random(2)) for i in range(4)}
    assert len(drawn) == 3 * 3 + 3 + 4, "no two alike"


@pytest.mark.parametrize(
    "override",
    ["population=10", "sigma0=0.2", "start=initial", "diagonal=true", "mirrored=true"],
)
def test_a_search_keeps_what_it_was_started_with(learnt: CMARun, override: str) -> None:
    name = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"algorithm\.{name} is .* was started with .* search keeps"):
        make_run(learnt.folder, "algorithm.generations=9", f"algorithm.{override}")


def test_other_settings_may_change_on_the_way(learnt: CMARun) -> None:
    run = make_run(learnt.folder, "algorithm.generations=9", "algorithm.episodes=5")
    assert run.search.generation == 6 and len(run._starts()) == 5
    with pytest.raises(UserError, match=r"has made 6 of 6 generations.*raise algorithm\.generations"):
        make_run(learnt.folder).learn()


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
    run = CMARun(config, tmp_path, torch.device("cpu"))
    run.learn()
    row = read_metrics(tmp_path)[-1]
    bodies = run.bodies.seen
    means = [float(row[f"bodies/{body}"]) for body in bodies]
    assert float(row["rollout/ep_rew_mean"]) == pytest.approx(np.mean(means))
    assert load_policy(tmp_path).policy.kind == "limbs"
    scores = run.search.best
    set_parameters(run.policy, scores)
    assert np.isfinite(run.score(run.policy, 1))


def test_carts_learn_to_stay_on_the_track(tmp_path: Path) -> None:
    """With 913 parameters and a few generations; doing nothing loses nearly every cart."""
    run = CMARun(
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
