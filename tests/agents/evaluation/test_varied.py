"""Evaluation of a policy in other conditions than it was trained in."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from somite.agents import load_policy
from somite.agents.evaluation import evaluate as evaluation
from somite.agents.evaluation.runs import task_of
from somite.envs.errors import UserError
from somite.scripts.cli.arguments import check_names

from ..runs import compose, make_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hardly trained policy whose bodies vary in mass."""
    folder = tmp_path_factory.mktemp("runs") / "varied"
    make_run(folder, "env.variation.mass=[0.8,1.25]").learn()
    return folder


def told(run_folder: Path, *changes: str) -> dict:
    """What the environment that an evaluation makes tells of its episodes."""
    config = compose(f"run={run_folder}", *changes, name="evaluate")
    bodies = task_of(load_policy(run_folder), OmegaConf.to_container(config.env))
    return bodies.make_vec(["cheetah_3_front"], 8, threads=1).reset(seed=0)[1]


def test_a_policy_is_evaluated_as_it_was_trained_unless_asked_otherwise(run_folder: Path) -> None:
    factors = told(run_folder)["factor_mass"]
    assert factors.min() >= 0.8 and factors.max() <= 1.25 and factors.std() > 0.05
    inside = told(run_folder, "env.variation.draw=interpolation")["factor_mass"]
    assert inside.min() >= 0.8 and inside.max() <= 1.25 and (inside != factors).all()
    assert told(run_folder, "env.variation.draw=none") == {}
    changes = ["env.variation.draw=extrapolation", "env.variation.extrapolation.mass=[1.5,2]"]
    assert told(run_folder, *changes)["factor_mass"].min() >= 1.5
    both = told(run_folder, "env.world.slope=[5,10]", "env.damage.probability=1")
    assert set(both) == {"factor_mass", "slope", "damage", "damaged_since"}


def test_extrapolation_may_not_overlap_what_was_trained_on(run_folder: Path) -> None:
    with pytest.raises(UserError, match=r"\[1.2, 2\] overlaps \[0.8, 1.25\], which is trained on"):
        told(run_folder, "env.variation.extrapolation.mass=[1.2,2]")


def test_returns_differ_in_another_world(run_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = (f"run={run_folder}", "episodes=3", "device=cpu", "bodies=[cheetah_3_front]", "output=here")
    usual, uphill = (
        evaluation.evaluate(compose(*command, *more, name="evaluate"))[0].mean
        for more in ((), ("env.world.slope=[40,40]",))
    )
    assert usual != uphill


def test_a_mistyped_change_is_told() -> None:
    with pytest.raises(UserError, match="did you mean 'env.world.slope'"):
        check_names(["env.world.slop=[1,2]"], "evaluate")
