import json

import pytest
from rich.console import Console

from somite.envs.errors import UserError
from somite.envs.locomotion import BodySet
from somite.scripts.benchmarks.learning import Learning
from somite.scripts.benchmarks.results import Results

TINY = (
    "algorithm.num_envs=12",
    "algorithm.n_steps=4",
    "algorithm.batch_size=24",
    "algorithm.n_epochs=1",
    "env.task.max_episode_steps=5",
    "threads=1",
)


def learn(path, **options):
    results = Results(path, {"cores": 2})
    console = Console(record=True, width=120)
    Learning(steps=48, episodes=1, train=TINY, **options).run(results, console)
    return console.export_text(), json.loads(path.read_text())["rows"]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    path = tmp_path_factory.mktemp("learning") / "learning.json"
    return path, *learn(path, agents=["naive", "mlp"], seeds=[0])


def test_a_row_holds_the_return_of_every_seen_and_unseen_body(first):
    _, text, rows = first
    bodies = BodySet("cheetah", "smp")
    assert [row["name"] for row in rows] == ["learning/naive/seed0", "learning/mlp/seed0"]
    for row in rows:
        assert tuple(row["seen"]) == bodies.seen and tuple(row["unseen"]) == bodies.unseen
        assert row["unseen_mean"] == pytest.approx(sum(row["unseen"].values()) / len(row["unseen"]))
        assert row["steps_per_second"] > 0 and row["steps"] == 48
    assert "naive" in text and "Returns after 48 steps" in text


def test_seeds_that_are_in_the_file_are_not_trained_again(first):
    path, _, rows = first
    text, more = learn(path, agents="naive", seeds=[0, 1])
    assert more[:2] == rows and [row["name"] for row in more[2:]] == ["learning/naive/seed1"]
    assert "naive, seed 0: in" in text
    assert "mlp" not in text, "what this command did not ask for is kept, not shown"


def test_equal_seeds_give_equal_returns(first, tmp_path):
    _, rows = learn(tmp_path / "again.json", agents=["naive"], seeds=[0])
    assert rows[0]["seen"] == first[2][0]["seen"]


def test_other_settings_are_other_runs(first, tmp_path):
    path = tmp_path / "learning.json"
    path.write_bytes(first[0].read_bytes())
    before = len(json.loads(path.read_text())["rows"])
    results = Results(path, {})
    Learning(agents="mlp", seeds=0, steps=96, episodes=1, train=TINY).run(results, Console(quiet=True))
    assert len(results.rows) == before + 1 and results.rows[-1]["settings"]["steps"] == 96


def test_a_file_that_is_no_report_is_left_alone(tmp_path):
    path = tmp_path / "notes.json"
    path.write_text("my notes")
    with pytest.raises(UserError, match="is no report of a benchmark"):
        learn(path, agents="naive", seeds=0)
    assert path.read_text() == "my notes"
