"""Suites as configurations write them."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from somite.agents.evaluation.suites import KINDS, read_suite, undisturbed
from somite.envs.errors import UserError
from somite.envs.task_set import task_set_of, with_changes

from .conftest import CHEETAHS, SWINGUP

SUITES = sorted(path.stem for path in (Path(__file__).parents[3] / "conf" / "suite").glob("*.yaml"))
RACING = {"_target_": "somite.envs.car_racing.CarRacing", "scenery": {}, "senses": {}, "view": "patches"}
ENVIRONMENTS = {"limbs": CHEETAHS, "sensors": SWINGUP, "patches": RACING}


def compose(suite: str) -> dict:
    with hydra.initialize_config_module("somite.conf", version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("evaluate", [f"suite={suite}"]))


@pytest.mark.parametrize("name", [name for name in SUITES if name != "all"])
def test_every_condition_of_every_suite_makes_an_environment(name: str) -> None:
    suite = read_suite(name, compose(name)["suite"][name])
    assert suite.fits and set(suite.fits) <= set(KINDS)
    assert len({condition.name for condition in suite.conditions}) == len(suite.conditions) > 1
    for kind in suite.fits:
        base = undisturbed(ENVIRONMENTS[kind])
        assert suite.why_not(kind, base) is None
        made = {}
        for condition in suite.conditions:
            environment = with_changes(base, condition.env)
            task_set_of(environment)  # raises for a key or a value that is none
            made[condition.name] = repr(environment), str(condition.bodies), str(condition.training)
        assert len(set(made.values())) == len(made), "no two conditions are the same"


def test_all_has_every_suite_that_does_not_train_and_skips_what_does_not_fit() -> None:
    config = compose("all")
    assert set(config["suite"]) == set(SUITES) - {"all", "few_shot"} and config["unfit"] == "skip"
    assert compose("[loss]")["unfit"] == "fail"


def test_what_training_disturbed_is_undone() -> None:
    plain = undisturbed(SWINGUP)
    assert plain["senses"]["shuffle"] == "never" and plain["senses"]["noise_channels"] == 0
    assert plain["senses"]["history"] == 3, "what the policy needs stays"
    assert "damage" in CHEETAHS and "probability" not in undisturbed(CHEETAHS)["damage"]
    assert SWINGUP["senses"]["shuffle"] == "episode", "the saved configuration is left alone"


def test_a_sweep_is_a_condition_for_each_value() -> None:
    node = {
        "conditions": {"plain": None},
        "sweeps": {"heavier": {"key": "variation.mass", "values": [1.5, 2], "as_range": True}},
    }
    suite = read_suite("mine", node)
    assert [c.name for c in suite.conditions] == ["plain", "heavier 1.5", "heavier 2"]
    assert suite.conditions[2].env == {"variation": {"mass": [2, 2]}} and suite.conditions[2].x == 2
    assert suite.title == "mine"


def test_a_disturbing_sweep_says_when() -> None:
    sweep = {"key": "senses.shuffle", "values": [100, 50], "disturbs": True}
    suite = read_suite("mine", {"conditions": {"plain": None}, "sweeps": {"every": sweep}})
    assert [c.disturbed_at for c in suite.conditions] == [None, 100, 50]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"condition": {}}, "no key 'condition'; did you mean 'conditions'"),
        ({"conditions": {}}, "suite.mine has no conditions"),
        ({"conditions": {"a": {"envs": {}}}}, "mine.conditions.a has no key 'envs'; did you mean 'env'"),
        ({"conditions": {"a": 3}}, "must be keys and values, got 3"),
        ({"conditions": {"a": {"disturbed_at": 0}}}, "disturbed_at must be a whole number of 1 or more"),
        ({"conditions": {"a": None}, "fits": ["limb"]}, "no kind 'limb'; did you mean 'limbs'"),
        ({"conditions": {"a": None}, "sweeps": {"s": {"values": [1]}}}, "mine.sweeps.s lacks key"),
    ],
)
def test_a_suite_that_cannot_be_meant_is_refused(node: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_suite("mine", node)
