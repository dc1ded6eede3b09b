"""Bodies after training on each of them: what is trained, what is kept, and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from somite.agents.algorithms.ppo import PPOLearner
from somite.agents.evaluation import plan, report, statistics
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.evaluation.few_shot import training_config
from somite.agents.evaluation.plan import Planner
from somite.agents.evaluation.suites import read_suite, undisturbed
from somite.agents.storage.policy import load_policy
from somite.envs.errors import UserError
from somite.envs.task_set import task_set_of

from ..runs import compose
from .test_report import evaluate, returns, row

BODY, ROLLOUT = "cheetah_4_front", 8 * 16  # held out by the split
TRAINING = {"num_envs": 8, "n_steps": 16, "batch_size": 64, "sequence_length": 16, "n_epochs": 1}
TINY = (
    "suite=few_shot",
    f"bodies=[{BODY}]",
    "random_baseline=false",
    *(f"suite.few_shot.training.{key}={value}" for key, value in TRAINING.items()),
)
"""Rollouts of 128 steps."""


class Here(Executor):
    """Does in this process, at once, what others would have processes for."""

    def submit(self, function: Callable, *given: Any) -> Future:
        future: Future = Future()
        torch.set_num_threads(1)  # as they do: how a sum or an orthogonal matrix is rounded depends on it
        try:
            future.set_result(function(*given))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "ProcessPoolExecutor", lambda *given: Here())
        patch.setattr(report, "looks_inside", lambda policy: False)
        yield


def few_shot(policy: Path, output: Path, *more: str) -> dict:
    return evaluate(policy, output=output, more=(*TINY, *more))


def steps(*wanted: int) -> str:
    return f"suite.few_shot.steps=[{','.join(map(str, wanted))}]"


@pytest.fixture(scope="module")
def policy(make_agent: Callable) -> Path:
    return make_agent("limbs")


@pytest.fixture(scope="module")
def whole(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """A report of two rollouts of each training, never interrupted, and its folder."""
    output = tmp_path_factory.mktemp("whole")
    return few_shot(policy, output, steps(0, ROLLOUT, 200)), output


def test_the_policy_is_the_beginning_and_both_learn(whole: tuple[dict, Path], policy: Path) -> None:
    told, output = whole
    rows = {r["after"]: r for r in told["few_shot"]}
    agent = load_policy(policy)
    task = task_set_of(undisturbed(agent.environment["config"])).for_evaluation()
    (result,) = run_episodes(agent, task, [BODY], 4, told["seed"])
    assert rows[0]["from_policy"] == pytest.approx(result.returns.mean(), abs=1e-9)
    assert [rows[n]["steps_from_policy"] for n in (0, ROLLOUT, 200)] == [0, ROLLOUT, 2 * ROLLOUT]
    for start in ("from_policy", "from_nothing"):
        assert len({r[start] for r in rows.values()}) == 3
    for r in rows.values():
        assert r["difference"] == pytest.approx(r["from_policy"] - r["from_nothing"])
        assert (r["body"], r["seen"]) == (BODY, False) and r["from_policy_low"] < r["from_policy"]
    last = row(told, "bodies", condition="from nothing, 200 steps")
    assert last["mean"] == rows[200]["from_nothing"] and last["specialist"] is None  # of another task
    text = (output / "report.md").read_text()
    assert "plots/few_shot.png" in text and "kept.png" not in text and told["improvements"] == []


def test_neither_steps_between_nor_an_interruption_change_a_number(
    whole: tuple[dict, Path], policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, calls = PPOLearner._learn, []

    def interrupted(self: PPOLearner) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return learn(self)

    monkeypatch.setattr(PPOLearner, "_learn", interrupted)
    more = steps(200), f"suite.few_shot.training.checkpoint_every={ROLLOUT}"
    with pytest.raises(SystemExit):
        few_shot(policy, tmp_path, *more)
    assert not (tmp_path / "episodes.jsonl").exists()
    (kept,) = tmp_path.glob("few_shot/*/checkpoints/*")
    assert kept.name == str(ROLLOUT)
    (found,) = few_shot(policy, tmp_path, *more)["few_shot"]
    assert found == row(whole[0], "few_shot", after=200)
    assert len(calls) == 1 + 1 + 1 + 2, "what was learnt before was not learnt again"


def test_nothing_is_trained_twice_and_fewer_steps_anew(
    whole: tuple[dict, Path], policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, output = whole
    learn, calls = PPOLearner._learn, []
    monkeypatch.setattr(PPOLearner, "_learn", lambda self: calls.append(1) or learn(self))
    before = returns(output)
    assert few_shot(policy, output, steps(0, ROLLOUT, 200)) == told and not calls
    (output / "episodes.jsonl").unlink()
    assert few_shot(policy, output, steps(0, ROLLOUT, 200)) == told
    assert len(calls) == 4 and returns(output) == before, "of two trainings two rollouts each"


def test_a_training_has_one_body_and_all_else_of_the_evaluation(make_agent: Callable, tmp_path: Path) -> None:
    policy = make_agent("limbs")
    command = *TINY, "env.variation.mass=[2,2]", "suite.few_shot.from_policy.exploration=0.4"
    config = OmegaConf.to_container(compose(f"run={policy}", *command, name="evaluate"))
    suite = read_suite("few_shot", config["suite"]["few_shot"])
    chunks = [
        c for t in Planner(config, [suite], "cpu", tmp_path).plan(policy / "policy").trials for c in t.chunks
    ]
    assert len(chunks) == len({chunk.key for chunk in chunks}) == 10
    assert len({chunk.run for chunk in chunks}) == 2, "each training goes on in its folder"
    first, last = (training_config(chunk) for chunk in (chunks[1], chunks[-1]))
    assert first.env.bodies == [BODY] and first.env.split == "all" and first.env.variation.mass == [2, 2]
    assert first.start_from == str(policy / "policy") and last.start_from is None
    for start, training in (("from_policy", first), ("from_nothing", last)):
        rate = config["suite"]["few_shot"][start]["learning_rate"]
        assert training.algorithm.learning_rate == rate
    assert math.exp(first.agent.initial_log_std) == pytest.approx(0.4) and last.agent.initial_log_std == -0.5
    assert last.algorithm.total_steps == 300_032 == chunks[-1].training.steps  # whole rollouts


@pytest.mark.parametrize(
    ("returned", "level", "steps"),
    [([0, 10, 30], 10, 100), ([0, 10, 30], 15, 150), ([5, 10, 30], 1, 0), ([0, 10, 5], 20, np.nan),
     ([0, 10, 5], 8, 80), ([0, 10, 5], np.nan, np.nan)],
)  # fmt: skip
def test_steps_to_reach(returned: list[float], level: float, steps: float) -> None:
    assert statistics.steps_to_reach([0, 100, 300], returned, level) == pytest.approx(steps, nan_ok=True)


def test_the_difference_is_paired_by_body() -> None:
    node = {
        "training": compose("suite=few_shot", name="evaluate").suite.few_shot.training,
        "steps": [0, 2000],
    }
    suite = read_suite("few_shot", node)
    common = {"suite": "few_shot", "agent": "SMP", "run": "a", "seen": False, "specialist": 1200.0}
    rows = [
        common | {"condition": c.name, "body": body, "mean": base + gain, "low": base, "high": base + 9}
        for c in suite.conditions
        for body, base in (("x", 100.0), ("y", 1000.0), ("z", 2000.0))
        for gain in [c.training.after / 100 + (50 if c.training.start == "from_policy" else 0)]
    ]
    few = statistics.few_shot(pd.DataFrame(rows), [suite])
    mean = few[few["body"].isna() & (few["after"] == 2000)].iloc[0]
    assert mean["from_policy"] == pytest.approx(3100 / 3 + 70) and mean["specialist"] == 1200
    assert (mean["difference_low"], mean["difference_high"]) == (50, 50) and mean["from_policy_low"] < 0
    found = statistics.reached(few)
    own = found[(found["body"] == "z") & (found["level"] == "specialist")].iloc[0]
    assert own["from_policy"] == own["from_nothing"] == 0
    own = found[(found["body"] == "y") & (found["level"] == "from_nothing")].iloc[0]
    assert own["to"] == 1020 and own["from_nothing"] == 2000 and own["from_policy"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"learning_rate_schedule": "linear"}}, "learning_rate_schedule must be constant"),
        ({"from_policy": {"learning_rates": 1}}, "from_policy has no key 'learning_rates'; did you mean"),
        ({"from_nothing": {"gamma": 2}}, "suite.few_shot.from_nothing.gamma must be a number from 0"),
        ({"from_policy": {"exploration": 0}}, "from_policy.exploration must be a number above 0"),
        ({"steps": []}, "suite.few_shot.steps must be a list of at least 1"),
        ({"training": None}, "suite.few_shot.training must be"),
        ({"step": 3}, "has no key 'step'; did you mean 'steps'"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_trained(changes: dict, message: str) -> None:
    node = dict(compose("suite=few_shot", name="evaluate").suite.few_shot)
    for key, value in changes.items():
        node[key] = {**node[key], **value} if isinstance(value, dict) else value
    with pytest.raises(UserError, match=message):
        read_suite("few_shot", node)


def test_without_bodies_held_out_it_says_so(policy: Path) -> None:
    with pytest.raises(
        UserError, match="suite=few_shot does not fit .*: there are no such bodies; bodies=all"
    ):
        evaluate(policy, more=("suite=few_shot", "bodies=[]"))
