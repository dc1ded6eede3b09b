"""Evaluation by suites, from the command's configuration to the files of the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from somite.agents.evaluation import evaluate as evaluation
from somite.agents.evaluation import plan
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.evaluation.suites import undisturbed
from somite.agents.storage.policy import load_policy
from somite.envs.errors import UserError
from somite.envs.task_set import task_set_of, with_changes

from ..runs import compose


def evaluate(*runs: Path, output: Path | str = "report", more: tuple[str, ...] = ()) -> dict:
    """Evaluate and give back ``results.json``."""
    listed = ",".join(map(str, runs))
    config = compose(
        f"run=[{listed}]", f"output={output}", "device=cpu", "workers=1", "episodes=4", *more, name="evaluate"
    )
    assert evaluation.evaluate(config) == []
    return json.loads((Path(output) / "results.json").read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def senses(make_agent: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an invariant agent and an ordinary one of sensors, on two suites."""
    output = tmp_path_factory.mktemp("senses")
    runs = make_agent("transformer"), make_agent("ordinary")
    evaluate(*runs, output=output, more=("suite=[permutation,redundancy]", "seed=7"))
    return output


def results(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


def row(report: dict, table: str, **wanted: object) -> dict:
    (found,) = [r for r in report[table] if all(r[name] == value for name, value in wanted.items())]
    return found


def returns(output: Path | str) -> list[tuple[str, list[float]]]:
    lines = [json.loads(line) for line in (Path(output) / "episodes.jsonl").read_text().splitlines()]
    found = [(line["key"], [v for b in line["bodies"].values() for v in b["returns"]]) for line in lines]
    return sorted(found)


def test_order_is_nothing_to_an_invariant_agent_and_all_to_an_ordinary_one(senses: Path) -> None:
    report = results(senses)
    changes = {
        run: row(report, "bodies", run=run, suite="permutation", condition="shuffled")["change"]
        for run in ("transformer-0", "ordinary-0")
    }
    assert changes["transformer-0"] == pytest.approx(0, abs=1e-2)  # poles enlarge what is rounded otherwise
    assert abs(changes["ordinary-0"]) > 0.1
    in_order = row(report, "agents", agent="SensorMLP", condition="in_order")
    assert in_order["change"] is None and in_order["over"] == "episodes" and in_order["episodes"] == 4
    assert all(body["worst_tenth"] <= body["mean"] for body in report["bodies"]), "the tail is judged as well"


def test_numbers_are_those_of_the_episodes(senses: Path, make_agent: Callable) -> None:
    agent = load_policy(make_agent("transformer"))
    plain = undisturbed(agent.environment["config"])
    task = task_set_of(with_changes(plain, {"senses": {"noise_channels": 5, "noise_std": 0.1}}))
    (result,) = run_episodes(agent, task, task.seen, 4, 7)
    (random,) = run_episodes(None, task_set_of(plain), task.seen, 4, 7)
    found = row(results(senses), "bodies", run="transformer-0", condition="noise 5")
    assert found["mean"] == pytest.approx(result.returns.mean(), abs=1e-9)
    assert found["deviation"] == pytest.approx(result.returns.std(ddof=1), abs=1e-9)
    assert found["random"] == pytest.approx(random.returns.mean(), abs=1e-9)
    first = row(results(senses), "bodies", run="transformer-0", condition="undisturbed")
    assert found["change"] == pytest.approx(found["mean"] - first["mean"], abs=1e-9)


def test_the_page_needs_no_other_file(senses: Path) -> None:
    page = (senses / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<table>" in page and "http" not in re.sub(r'"data:[^"]*"', "", page)
    text = (senses / "report.md").read_text()
    for link in re.findall(r"\]\(([^)]*)\)", text):
        assert (senses / link).is_file()
    table = pd.read_csv(senses / "results.csv")
    own = set(table[table["suite"] == "permutation"]["condition"])
    assert own == {"in_order", "shuffled", "every 25"}, "an episode has 40 steps"


def test_conditions_that_an_agent_cannot_take_are_left_out_and_named(senses: Path) -> None:
    report = results(senses)
    own = [r for r in report["bodies"] if r["run"] == "ordinary-0" and r["suite"] == "redundancy"]
    assert {r["condition"] for r in own} == {"undisturbed"}
    left = [entry for entry in report["left_out"] if entry["suite"] == "redundancy"]
    assert len(left) == 5 and {entry["run"] for entry in left} == {"ordinary-0"}
    assert "its slots have fixed meanings" in (senses / "report.md").read_text()


def test_nothing_runs_twice_and_another_policy_or_seed_anew(
    senses: Path, make_agent: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, suites = (make_agent("transformer"), make_agent("ordinary")), "suite=[permutation,redundancy]"
    before, done = results(senses), len(returns(senses))
    # The condition that two suites have is run once, for each agent and for random actions.
    assert done == len({key for key, _ in returns(senses)}) == 1 + (3 + 5) + 3
    run, ran = plan.run_chunk, []
    monkeypatch.setattr(plan, "run_chunk", lambda *given: ran.append(given[0]) or run(*given))
    assert evaluate(*runs, output=senses, more=(suites, "seed=7")) == before and not ran
    evaluate(runs[0], output=senses, more=("suite=redundancy", "seed=5"))
    assert len(ran) == 1 + 6
    evaluate(make_agent("transformer", 1), output=senses, more=("suite=redundancy", "seed=7"))
    assert len(ran) == 7 + 6, "random actions are the same"


def test_an_interrupted_evaluation_goes_on_and_says_the_same(
    make_agent: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.ROWS, "sensors", 2)  # two parts of each condition
    folder, suite = make_agent("transformer"), ("suite=redundancy", "episodes=3")
    whole = evaluate(folder, output="whole", more=suite)
    run, done = plan.run_chunk, []

    def interrupted(*args: object) -> dict:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(args)
        return run(*args)

    monkeypatch.setattr(plan, "run_chunk", interrupted)
    with pytest.raises(SystemExit, match="130"):
        evaluate(folder, output="parts", more=suite)
    assert len(returns("parts")) == 5 and not Path("parts/report.md").exists()
    path = Path("parts/episodes.jsonl")
    path.write_bytes(path.read_bytes()[:-30])  # and killed while it wrote
    monkeypatch.setattr(plan, "run_chunk", run)
    # Two workers say the same as one.
    assert evaluate(folder, output="parts", more=(*suite, "workers=2")) == whole
    assert returns("parts") == returns("whole")


def test_bodies_seen_and_unseen(make_agent: Callable) -> None:
    runs = make_agent("limbs"), make_agent("limbs", 1)
    bodies = ["cheetah_2_back", "cheetah_3_front", "cheetah_4_front", "cheetah_5_balanced", "cheetah_6_front"]
    joint = make_agent("limbs", 2, "saw_all", split="all", bodies=bodies)
    more = "suite=[unseen_morphology,damage]", "episodes=2", f"joint={joint}"
    report = evaluate(*runs, more=more)
    assert {r["body"] for r in report["bodies"] if r["seen"]} == {"cheetah_2_back", "cheetah_3_front"}
    unseen = row(report, "agents", suite="unseen_morphology", condition="unseen")
    assert unseen["runs"] == 2 and unseen["bodies"] == 3 and unseen["over"] == "runs"
    assert unseen["change"] is None, "other bodies are no pairs"
    (gap,) = report["gaps"]
    assert gap["gap"] == pytest.approx(gap["seen"] - gap["unseen"])
    ratio = row(report, "ratios", side="unseen", of="joint")  # there are no specialists of 20 steps
    own = [r for r in report["bodies"] if r["suite"] == "unseen_morphology" and not r["seen"]]
    total, others = (sum(r[name] for r in own) for name in ("mean", "joint"))
    assert ratio["bodies"] == 3 and len({r["joint"] for r in own}) == 3
    assert ratio["ratio"] == (pytest.approx(total / others) if others > 0 else None)
    assert "*Joint*" in Path("report/report.md").read_text()
    dead = row(report, "agents", suite="damage", condition="dead_from_start")
    assert dead["change"] is not None
    assert {entry["condition"] for entry in report["left_out"]} == {
        "dead_at_300", "locked_at_300", "two_dead_at_300",
    }  # fmt: skip
    assert (Path("report/plots/bodies.png")).is_file()


def test_all_suites_that_fit_are_run_beside_the_policy(make_agent: Callable, tmp_path: Path) -> None:
    folder = make_agent("transformer")
    config = compose(f"run={folder}", "suite=all", "episodes=1", "workers=1", "device=cpu", name="evaluate")
    evaluation.evaluate(config)
    report = results(folder / "report")
    assert [suite["name"] for suite in report["suites"]] == ["permutation", "redundancy", "loss"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("suite=loss", "joint=x"), "joint=x is compared with in suite=unseen_morphology alone"),
        (("suite=damage",), r"suite=damage does not fit transformer-0: it is for agents of limbs"),
        (("suite=loss", "workers=9", "threads=2"), "workers=9 are more than threads=2"),
        (("suite=loss", "suite.loss.sweeps.missing.values=[2]"), "senses.missing must be .* below 1, got 2"),
        (("suite=loss", "+suite.loss.conditions.x.env.sense.stuck=1"), "sense"),
    ],
)
def test_what_is_invalid_is_said_before_anything_runs(
    make_agent: Callable, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(make_agent("transformer"), more=more)
    assert not Path("report").exists()


def test_two_runs_of_one_name_are_refused(make_agent: Callable) -> None:
    with pytest.raises(UserError, match="2 runs are called transformer-0: rename a folder"):
        evaluate(make_agent("transformer"), make_agent("transformer"), more=("suite=loss",))
