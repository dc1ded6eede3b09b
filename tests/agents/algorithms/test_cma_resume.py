"""A run of CMA-ES that is stopped, killed, extended or changed goes on as if nothing had been."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import load_policy
from somite.agents.rollout.stacked import get_parameters
from somite.agents.storage.run_folder import last_checkpoint, list_checkpoints
from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from tests.agents.cma_runs import TINY, column, history, make_run, policy_bytes, score_of
from tests.agents.runs import compose, read_metrics


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run that has made all its generations."""
    run = make_run(tmp_path_factory.mktemp("run") / "learnt")
    run.learn()
    return run


@pytest.mark.parametrize("mode", ["", "algorithm.diagonal=true", "algorithm.mirrored=true"])
def test_half_a_run_and_the_other_half_are_a_whole_one(learnt: Run, tmp_path: Path, mode: str) -> None:
    more, whole = [mode] if mode else [], learnt
    if mode:
        whole = make_run(tmp_path / "whole", *more)
        whole.learn()
    make_run(tmp_path / "halves", *more, "algorithm.generations=4").learn()
    second = make_run(tmp_path / "halves", *more)
    assert second.learner.search.generation == 4 and second.steps > 0
    second.learn()
    assert history(tmp_path / "halves") == history(whole.folder)
    assert np.array_equal(second.learner.search.mean, whole.learner.search.mean)
    assert second.learner.search.sigma == whole.learner.search.sigma
    for name in ("policy", "best"):
        assert policy_bytes(tmp_path / "halves", name) == policy_bytes(whole.folder, name)
    names = [path.name for path in list_checkpoints(whole.folder)]
    assert last_checkpoint(tmp_path / "halves").name == names[-1]


def test_a_search_that_is_begun_anew_would_be_noticed(learnt: Run, tmp_path: Path) -> None:
    """Negative control of the test above: the same generations with other random numbers."""
    make_run(tmp_path, "algorithm.generations=3").learn()
    second = make_run(tmp_path)
    second.learner.search._strategy.opts["randn"].rng = np.random.default_rng(1)
    second.learn()
    one, other = ([row["cma/best"] for row in history(folder)] for folder in (learnt.folder, tmp_path))
    assert one[:3] == other[:3] and one[4:] != other[4:]


def test_a_run_that_is_stopped_in_mid_generation_loses_nothing(
    learnt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, number = make_run(tmp_path / "stopped"), signal.SIGINT
    evaluate, calls = run.learner.population.evaluate, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(run.learner.search.ask().copy())
        if len(calls) == 4:
            signal.raise_signal(number)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(run.learner.population, "evaluate", interrupted)
    before = signal.getsignal(number)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as leaving:
        run.learn()
    assert leaving.value.code == 128 + number and signal.getsignal(number) == before
    assert f"stopped by {number.name} at step {run.steps:,}; go on with: somite-train resume=" in caplog.text
    assert len(calls) == 4 and run.learner.search.generation == 3, "the fourth generation is left"
    assert score_of(tmp_path / "stopped" / "policy", run) == pytest.approx(
        column(tmp_path / "stopped", "validation/mean_reward")[-1], abs=1e-9
    )
    assert "not what it would be" not in caplog.text
    second = make_run(tmp_path / "stopped")
    assert np.array_equal(second.learner.search.ask(), calls[3]), "its candidates are kept"
    second.learn()
    assert history(tmp_path / "stopped") == history(learnt.folder)
    for name in ("policy", "best"):
        assert policy_bytes(tmp_path / "stopped", name) == policy_bytes(learnt.folder, name)


def test_a_stop_does_not_wait_for_a_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, "algorithm.checkpoint_every=100", "algorithm.validate_every=100")
    evaluate, calls = run.learner.population.evaluate, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(1)
        return evaluate(*arguments, **options) if len(calls) < 3 else signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(run.learner.population, "evaluate", interrupted)
    monkeypatch.setattr(run, "score", lambda *_: pytest.fail("it is validated"))
    with pytest.raises(SystemExit):
        run.learn()
    saved = get_parameters(load_policy(tmp_path).policy)
    assert np.array_equal(saved, run.learner.search.mean.astype(np.float32)), (
        "nothing was validated: the mean"
    )


def test_a_run_that_is_stopped_before_its_first_generation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "algorithm.generations=2")
    monkeypatch.setattr(
        run.learner.population, "evaluate", lambda *a, **o: signal.raise_signal(signal.SIGINT)
    )
    with pytest.raises(SystemExit):
        run.learn()
    assert last_checkpoint(tmp_path).name == "0"
    again = make_run(tmp_path, "algorithm.generations=2")
    again.learn()
    assert again.learner.search.generation == 2 and load_policy(tmp_path).policy is not None


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
    assert np.array_equal(second.learner.search.mean, first.learner.search.mean)
    assert all(torch.equal(second.policy.state_dict()[name], value) for name, value in untouched.items())


@pytest.mark.parametrize(
    "override",
    ["population=10", "sigma0=0.2", "start=initial", "diagonal=true", "mirrored=true"],
)
def test_a_search_keeps_what_it_was_started_with(learnt: Run, override: str) -> None:
    name = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"algorithm\.{name} is .* was started with .* search keeps"):
        make_run(learnt.folder, "algorithm.generations=9", f"algorithm.{override}")


def test_other_settings_may_change_on_the_way_and_it_is_said(
    learnt: Run, caplog: pytest.LogCaptureFixture
) -> None:
    changes = ("algorithm.episodes=5", "algorithm.shard_size=3", "env.max_episode_steps=30")
    run = make_run(learnt.folder, "algorithm.generations=9", *changes)
    assert run.learner.search.generation == 6 and len(run.learner._starts()) == 5
    (said,) = [r.message for r in caplog.records if "not what it would be had it never stopped" in r.message]
    for note in (
        "algorithm.episodes is 5, was 3",
        "env.max_episode_steps is 30, was 25",
        "a shard has 3 candidates, had 8",
    ):
        assert note in said
    with pytest.raises(UserError, match=r"has made 6 of 6 generations.*raise algorithm\.generations"):
        make_run(learnt.folder).learn()


def test_nothing_is_said_where_nothing_differs(learnt: Run, caplog: pytest.LogCaptureFixture) -> None:
    make_run(learnt.folder, "algorithm.generations=9", "algorithm.keep_checkpoints=3", "threads=2")
    assert "not what it would be" not in caplog.text


def test_a_budget_that_ended_out_of_turn_is_said_when_it_is_extended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(tmp_path / "whole", "algorithm.generations=4").learn()
    make_run(tmp_path / "run", "algorithm.generations=3").learn()
    second = make_run(tmp_path / "run", "algorithm.generations=4")
    assert "was the last of its budget and was validated out of turn" in caplog.text
    second.learn()
    for name in ("cma/best", "cma/sigma", "cma/mean"):
        assert column(tmp_path / "run", name) == column(tmp_path / "whole", name), "the search is the same"


OTHER_TASKS = {
    "limbs": (
        "env=cheetah", "agent=limb_transformer", "agent.width=8", "env.task.max_episode_steps=8",
        "env.bodies=[cheetah_2_back,cheetah_3_front]", "algorithm.start=initial",
    ),
    "varied limbs": (
        "env=hopper", "agent=smp", "agent.width=8", "env.task.max_episode_steps=10",
        "env.variation.mass=[0.8,1.25]", "algorithm.mirrored=true",
    ),
    "sensors": (
        "env=gymnasium", "env.id=CartPole-v1", "env.max_episode_steps=20", "agent=deep_set",
        "env.senses.shuffle=7", "env.senses.noise_channels=[0,2]", "env.senses.blinking=0.2",
    ),
    "pictures": (
        "env=car_racing", "env.max_episode_steps=6", "agent=patch_attention_neuron",
        "env.senses.shuffle=episode", "algorithm.mirrored=true",
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", OTHER_TASKS)
def test_runs_of_other_tasks_go_on_to_the_last_bit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Stopped in mid-generation, resumed on another number of threads."""
    given = [argument for argument in TINY if not argument.startswith(("env", "agent", "threads"))]
    overrides = [
        *given, *OTHER_TASKS[task], "algorithm.generations=3", "algorithm.diagonal=true",
        "algorithm.population=4", "algorithm.episodes=2", "algorithm.validation_episodes=1",
        "algorithm.shard_size=1",
    ]  # fmt: skip

    def run_of(name: str, threads: int) -> Run:
        config = compose(*overrides, f"threads={threads}")
        return Run(config, tmp_path / name, torch.device("cpu"))

    run_of("whole", 1).learn()
    stopped = run_of("stopped", 2)
    evaluate, calls = stopped.learner.population.evaluate, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(stopped.learner.population, "evaluate", interrupted)
    with pytest.raises(SystemExit):
        stopped.learn()
    run_of("stopped", 3).learn()
    assert history(tmp_path / "stopped") == history(tmp_path / "whole")
    for name in ("policy", "best"):
        assert policy_bytes(tmp_path / "stopped", name) == policy_bytes(tmp_path / "whole", name)


PROCESSES = """
import sys, torch
from pathlib import Path
from tests.agents.cma_runs import make_run
torch.set_num_threads(1)
make_run(Path(sys.argv[1]), *sys.argv[2:]).learn()
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["diagonal=true", "mirrored=true", "diagonal=false"])
def test_a_run_that_is_killed_again_and_again_goes_on_to_the_last_bit(tmp_path: Path, mode: str) -> None:
    """Processes of their own, the first ones killed at any moment."""
    more = [f"algorithm.{mode}", "algorithm.generations=12", "algorithm.keep_checkpoints=3"]
    make_run(tmp_path / "whole", *more).learn()
    command = [sys.executable, "-c", PROCESSES, str(tmp_path / "killed"), *more]
    metrics, delays = tmp_path / "killed" / "metrics.csv", np.random.default_rng(0).uniform(0, 0.3, 4)
    for attempt, delay in enumerate(delays):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, text=True)
        while process.poll() is None and (
            not metrics.exists() or len(read_metrics(tmp_path / "killed")) < 2 * attempt + 1
        ):
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.communicate()
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0 or "has made 12 of 12" in done.stderr, done.stderr
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    for name in ("policy", "best"):
        assert policy_bytes(tmp_path / "killed", name) == policy_bytes(tmp_path / "whole", name)


def test_a_search_that_stalls_says_so_and_begins_anew_however_it_was_interrupted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stalls = "algorithm.validate_every=0", "algorithm.stalled_after=1", "algorithm.restarts=1"
    make_run(tmp_path / "whole", *stalls).learn()
    told = [record.message for record in caplog.records if "has stopped moving" in record.message]
    assert "sigma" in told[0] and told[0].endswith("it begins anew from here")
    assert len(told) > 1 and not any("begins anew" in message for message in told[1:])
    for generations in (1, 2, 4, 6):
        make_run(tmp_path / "parts", *stalls, f"algorithm.generations={generations}").learn()
    assert history(tmp_path / "whole") == history(tmp_path / "parts")
    assert policy_bytes(tmp_path / "whole") == policy_bytes(tmp_path / "parts")
