"""The table of an evaluation, and the files beside it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf

from somite.agents import load_policy
from somite.agents.evaluation import evaluate as evaluation
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.evaluation.evaluate import Row
from somite.agents.evaluation.runs import changed_environment, task_of
from somite.envs.errors import UserError
from somite.scripts.cli.arguments import check_names

from ..runs import compose

SEEN = ("cheetah_2_back", "cheetah_3_front")
UNSEEN = ("cheetah_4_front", "cheetah_5_balanced", "cheetah_6_front")


@pytest.fixture(scope="module")
def run_folder(make_agent: Callable) -> Path:
    """A run with a policy that was never trained, which is its best, too."""
    folder = make_agent("limbs", name="mine")
    shutil.copytree(folder / "policy", folder / "best", dirs_exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)


def evaluate(run: object, *overrides: str) -> list[Row]:
    names = ",".join(map(str, run)) if isinstance(run, list) else run
    value = f"run=[{names}]" if isinstance(run, list) else f"run={run}"
    return evaluation.evaluate(compose(value, "episodes=3", "device=cpu", *overrides, name="evaluate"))


def printed_rows(text: str) -> dict[str, list[str]]:
    """The cells of each body's line: in training, return, interval, length, random."""
    lines = [re.sub(r"[│┃]", " ", line).split() for line in text.splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0].startswith("cheetah_")}


def test_the_files_say_what_the_table_says(run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    rows = evaluate(run_folder)
    text = capsys.readouterr().out
    assert "mine (LimbTransformer, 384 steps)" in text
    written = json.loads((run_folder / "evaluation" / "results.json").read_text())
    with (run_folder / "evaluation" / "results.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    printed = printed_rows(text)
    assert [row["body"] for row in written] == [row.body for row in rows] == [*SEEN, *UNSEEN]
    assert list(printed) == [*SEEN, *UNSEEN]
    for row, values, cells in zip(rows, written, listed, strict=True):
        assert values == vars(row)
        assert cells == {key: str(value) for key, value in values.items()}
        assert row.seen == (row.body in SEEN) and row.episodes == 3 and row.mean_length == 20
        numbers = [f"{x:z.0f}" for x in (row.mean, row.interval, row.mean_length, row.random_mean)]
        assert printed[row.body] == ["seen" if row.seen else "unseen", *numbers]
    for kind, bodies in (("seen", SEEN), ("unseen", UNSEEN)):
        mean = np.mean([row.mean for row in rows if row.body in bodies])
        assert re.search(rf"mean of {len(bodies)}\W+{kind}\W+ {mean:z.0f} ", text)


def test_the_numbers_are_those_of_the_episodes(run_folder: Path) -> None:
    rows = evaluate(run_folder, "bodies=unseen", "seed=4")
    agent = load_policy(run_folder)
    results = run_episodes(agent.act, task_of(agent), UNSEEN, 3, 4)
    for row, result in zip(rows, results, strict=True):
        assert row.mean == pytest.approx(result.returns.mean())
        assert row.deviation == pytest.approx(np.std(result.returns, ddof=1))
        # 4.303 is the two-sided 95 % point of Student's t with two degrees of freedom.
        assert row.interval == pytest.approx(4.303 * row.deviation / np.sqrt(3), rel=1e-3)
        assert row.deviation > 0 and row.random_mean != row.mean


def test_an_evaluation_repeats_itself(run_folder: Path) -> None:
    assert evaluate(run_folder, "output=one") == evaluate(run_folder, "output=two")
    assert evaluate(run_folder, "output=three", "seed=9") != evaluate(run_folder, "output=four")
    assert Path("one/results.json").read_bytes() == Path("two/results.json").read_bytes()


def test_one_episode_has_no_interval_and_random_may_be_left_out(
    run_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ("episodes=1", "random_baseline=false", "output=out", "bodies=cheetah_4_front")
    (row,) = evaluate(run_folder, *options)
    assert row.interval is None and row.random_mean is None
    cells = printed_rows(capsys.readouterr().out)["cheetah_4_front"]
    assert cells[2] == cells[4] == "-"


def test_several_runs_have_a_folder_each(run_folder: Path) -> None:
    best = run_folder / "best"
    rows = evaluate([run_folder, best], "bodies=seen", "output=out")
    assert [row.run for row in rows] == ["mine", "mine", "mine/best", "mine/best"]
    for name, part in (("mine", rows[:2]), ("mine-best", rows[2:])):
        written = json.loads(Path(f"out/{name}/results.json").read_text())
        assert written == [vars(row) for row in part]
    assert "LimbTransformer (2 runs)" in Path("out/summary.md").read_text()


def test_the_best_policy_does_not_overwrite_the_last_ones_results(run_folder: Path) -> None:
    evaluate(run_folder, "bodies=seen")
    evaluate(run_folder / "best", "bodies=seen")
    for name, run in (("evaluation", "mine"), ("evaluation_of_best", "mine/best")):
        written = json.loads((run_folder / name / "results.json").read_text())
        assert {row["run"] for row in written} == {run}


def test_last_is_the_newest_run_of_this_folder(run_folder: Path) -> None:
    Path("runs").symlink_to(run_folder.parent)
    assert {row.run for row in evaluate("last", "bodies=seen")} == {"mine"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("bodies=cheetah_4_frnt",), "has no body 'cheetah_4_frnt'; did you mean 'cheetah_4_front'"),
        (("bodies=unsen",), "did you mean 'unseen'"),
        (("device=gpu",), "there is no device=gpu; did you mean 'cpu'"),
    ],
)
def test_what_cannot_be_meant_is_said(run_folder: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(run_folder, *overrides)


@pytest.mark.parametrize(
    ("run", "message"), [("last", "no run with policy/.*somite-train makes one"), ("mine", "no run 'mine'")]
)
def test_a_missing_run_is_said(run: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(run)


@pytest.mark.parametrize("key", ["keyframe", "files_from", "unseen"])
def test_a_key_of_own_robots_is_refused_for_a_family(run_folder: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"env.{key} is a key of your own robots"):
        task_of(load_policy(run_folder), {key: "home"})


def test_a_policy_trained_on_what_is_held_out_today_is_refused(run_folder: Path) -> None:
    agent = load_policy(run_folder)
    agent.environment["seen"] = ["cheetah_6_front", "cheetah_7_full"]
    with pytest.raises(UserError, match=r"trained on \['cheetah_6_front'\].*holds out today"):
        task_of(agent)


def test_a_policy_is_tried_on_other_families_each_with_its_own_task(run_folder: Path) -> None:
    agent = load_policy(run_folder)
    tried = task_of(agent, {"families": ["hopper", "cheetah"]})
    assert tried.seen == tuple(agent.environment["seen"])
    assert len(tried.unseen) == 3 + 15 - len(tried.seen) and {"hopper_3", "cheetah_7_full"} <= {*tried.unseen}
    trained, hopper = task_of(agent).task, compose("env=hopper").env
    assert tried.set_of("cheetah_7_full").task == trained
    assert tried.set_of("hopper_3").frame_skip == hopper.frame_skip
    assert tried.set_of("hopper_3").task == hydra.utils.instantiate(hopper.task, _convert_="all")
    by_split = task_of(agent, {"families": "hopper", "split": "fold_2"})
    assert (by_split.seen, by_split.unseen) == (("hopper_3", "hopper_4"), ("hopper_5",))
    (row,) = evaluate(run_folder, "env.families=[hopper]", "bodies=hopper_3", "output=elsewhere")
    assert (row.body, row.seen) == ("hopper_3", False)


def test_a_robot_is_tried_in_the_task_of_one_family(run_folder: Path) -> None:
    agent, robot = load_policy(run_folder), "robot.xml"
    with pytest.raises(UserError, match=r"tasks of hopper, ant; in which one is .*env.families=\[hopper\]"):
        changed_environment(agent, {"families": ["hopper", "ant"], "morphology": robot})
    config = changed_environment(agent, {"families": ["ant"], "morphology": robot})
    assert (config["task"]["progress"], config["morphology"]) == ("body", robot)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("limbs", {"families": ["hoper"]}, "unknown family 'hoper'; did you mean 'hopper'"),
        ("limbs", {"split": "fold_9"}, "'cheetah' has no split 'fold_9'"),
        ("limbs", {"split": "fold_1"}, "cheetah_2_back, which env.split=fold_1 holds out.*env.split=all"),
        (
            "padded",
            {"families": ["cheetah", "hopper"]},
            "MLP has slots .* fit families cheetah, hopper",
        ),
        ("ordinary", {"families": ["hopper"]}, "env.families and env.split are for policies of limbs"),
    ],
)
def test_families_that_do_not_fit_are_refused(
    make_agent: Callable, kind: str, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        task_of(load_policy(make_agent(kind)), changes)


@pytest.fixture(scope="module")
def varied(make_agent: Callable) -> Path:
    """A policy whose bodies vary in mass."""
    variation = {"_target_": "somite.envs.locomotion.BodyVariation", "mass": [0.8, 1.25]}
    return make_agent("limbs", name="varied", variation=variation, damage={"probability": 0.0})


def told(varied: Path, *changes: str) -> dict:
    """What the environment that an evaluation makes tells of its episodes."""
    config = compose(f"run={varied}", *changes, name="evaluate")
    bodies = task_of(load_policy(varied), OmegaConf.to_container(config.env))
    return bodies.make_vec(["cheetah_3_front"], 8, threads=1).reset(seed=0)[1]


def test_a_policy_is_evaluated_as_it_was_trained_unless_asked_otherwise(varied: Path) -> None:
    factors = told(varied)["factor_mass"]
    assert factors.min() >= 0.8 and factors.max() <= 1.25 and factors.std() > 0.05
    inside = told(varied, "env.variation.draw=interpolation")["factor_mass"]
    assert inside.min() >= 0.8 and inside.max() <= 1.25 and (inside != factors).all()
    assert told(varied, "env.variation.draw=none") == {}
    changes = ["env.variation.draw=extrapolation", "env.variation.extrapolation.mass=[1.5,2]"]
    assert told(varied, *changes)["factor_mass"].min() >= 1.5
    both = told(varied, "env.world.slope=[5,10]", "env.damage.probability=1")
    assert set(both) == {"factor_mass", "slope", "damage", "damaged_since"}


def test_extrapolation_may_not_overlap_what_was_trained_on(varied: Path) -> None:
    with pytest.raises(UserError, match=r"\[1.2, 2\] overlaps \[0.8, 1.25\], which is trained on"):
        told(varied, "env.variation.extrapolation.mass=[1.2,2]")


def test_returns_differ_in_another_world(varied: Path) -> None:
    command = (f"run={varied}", "episodes=3", "device=cpu", "bodies=[cheetah_3_front]", "output=here")
    usual, uphill = (
        evaluation.evaluate(compose(*command, *more, name="evaluate"))[0].mean
        for more in ((), ("env.world.slope=[40,40]",))
    )
    assert usual != uphill


def test_a_mistyped_change_is_told() -> None:
    with pytest.raises(UserError, match="did you mean 'env.world.slope'"):
        check_names(["env.world.slop=[1,2]"], "evaluate")
