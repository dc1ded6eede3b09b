"""The scale of scores: specialists and random actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from somite.agents.evaluation import evaluate as evaluation
from somite.agents.evaluation import references
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.evaluation.suites import undisturbed
from somite.agents.storage.policy import load_policy
from somite.envs.errors import UserError
from somite.envs.locomotion.bodies import families
from somite.envs.task_set import task_set_of

from ..runs import compose
from .conftest import CHEETAHS

BODY = "cheetah_3_front"


@pytest.fixture(scope="module")
def specialist(make_agent: Callable) -> Path:
    """A specialist, never trained, of the task of the agents to compare with."""
    return make_agent("padded", name="specialist", bodies=[BODY])


def measure(*runs: Path, more: tuple[str, ...] = ()) -> dict:
    listed = ",".join(map(str, runs))
    config = compose(f"run=[{listed}]", "episodes=3", "output=table.json", *more, name="references")
    return json.loads(references.make_references(config).read_text())


@pytest.fixture(autouse=True)
def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "read_table", dict)


def test_the_table_holds_what_the_episodes_return(specialist: Path) -> None:
    (entry,) = measure(specialist).values()
    agent = load_policy(specialist)
    task = task_set_of(undisturbed(agent.environment["config"]))
    (result,) = run_episodes(agent, task, [BODY], 3, 1000)
    (random,) = run_episodes(None, task, [BODY], 3, 1000)
    found = entry["bodies"][BODY]
    assert found["random"] == pytest.approx(random.returns.mean())
    (own,) = found["specialists"]
    assert own["return"] == pytest.approx(result.returns.mean()) and own["agent"] == "MLP"
    assert own["steps"] == agent.description["training"]["steps"] and own["seed"] == 0


def test_measured_again_a_seed_has_one_entry(specialist: Path) -> None:
    assert measure(specialist) == measure(specialist, specialist)


def test_an_agent_of_several_bodies_is_no_specialist(make_agent: Callable) -> None:
    with pytest.raises(UserError, match="cheetah_2_back, cheetah_3_front: a specialist has one body"):
        measure(make_agent("limbs"))
    assert not Path("table.json").exists()


def test_scores_are_normalised_by_the_same_task_alone(
    specialist: Path, make_agent: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_agent("limbs")
    base = undisturbed(load_policy(folder).environment["config"])
    entry = {"random": -50.0, "specialists": [{"seed": 0, "return": 150.0}, {"seed": 1, "return": 250.0}]}
    names = ("cheetah_2_back", BODY, "cheetah_4_front", "cheetah_5_balanced", "cheetah_6_front")
    table = {signature(base): {"bodies": dict.fromkeys(names, entry)}}
    monkeypatch.setattr(references, "read_table", lambda: table)

    def report(*more: str) -> dict:
        config = compose(
            f"run={folder}", "suite=unseen_morphology", "episodes=2", "workers=1", "device=cpu", *more,
            name="evaluate",
        )  # fmt: skip
        evaluation.evaluate(config)
        return json.loads((folder / "report" / "results.json").read_text())

    for row in report()["bodies"]:
        assert row["specialist"] == 200.0
        expected = (row["mean"] - row["random"]) / (200.0 - row["random"])
        assert row["normalized"] == pytest.approx(expected)
    assert all(row["specialist"] is None for row in report("+env.task.control_cost=0.5")["bodies"])


def test_a_curve_that_still_rises_is_not_flat(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()

    def flat(values: np.ndarray) -> dict:
        lines = [f"{i},{value}" for i, value in enumerate(values)]
        (tmp_path / "curve.csv").write_text("step,rollout/ep_rew_mean\n" + "\n".join(lines) + "\n")
        return references._flatness(policy)

    assert flat(np.minimum(np.arange(100), 50))["flattened"]
    assert not flat(np.arange(100.0))["flattened"]
    assert references._flatness(tmp_path / "nothing" / "policy") == {}


def test_a_task_is_the_same_whatever_of_it_was_written_down() -> None:
    """Policies of earlier versions lack keys that have defaults."""
    base = undisturbed(CHEETAHS)
    spelled_out = {**base, "task": {**base["task"], "goal": "forward", "direction": [1.0, 0.0]}}
    other_bodies = {**base, "bodies": None, "variation": {"mass": [0.8, 1.25]}}
    wanted, several = signature(base), {"_target_": "somite.envs.locomotion.FamilySet"}
    assert signature(spelled_out) == signature(other_bodies) == wanted
    assert signature({**several, "families": ["cheetah"], "settings": {"cheetah": base}}) == wanted
    for change in ({"frame_skip": 4}, {"task": {**base["task"], "alive_bonus": 1.0}}):
        assert signature({**base, **change}) != wanted


def signature(environment: dict) -> str:
    (own,) = task_set_of(environment).sets
    return references.signature(own)


def test_every_kept_specialist_is_of_a_body_that_there_is() -> None:
    table = json.loads((Path(references.__file__).parent / references.TABLE).read_text())
    bodies = [
        (entry["family"], name, body) for entry in table.values() for name, body in entry["bodies"].items()
    ]
    assert len(bodies) >= 15
    for family, name, body in bodies:
        assert families.get_family(family).canonical(name) == name
        assert families.build(name).hash == body["hash"], "the body has changed since: measure it again"
        assert all(one["return"] > body["random"] for one in body["specialists"])
