"""The group ``compute``: what it builds, what it refuses, and that nobody imports Ray unasked."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from somite.agents.rollout.compute import Local, compute_of
from somite.agents.rollout.ray_population import Ray
from somite.agents.training.loop import make_algorithm, train
from somite.envs.errors import UserError
from tests.agents.runs import TINY, compose

has_ray = importlib.util.find_spec("ray") is not None


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find("os" if name == "ray" else name))


def test_a_run_is_local_unless_it_says_otherwise_or_is_of_an_earlier_version() -> None:
    config = compose(*TINY)
    assert compute_of(config) == Local()
    OmegaConf.set_struct(config, False)
    del config["compute"]
    assert compute_of(config) == Local()


def test_the_keys_of_ray_are_those_of_its_file(with_ray: None) -> None:
    config = compose("compute=ray", "compute.workers=3", "algorithm=cma_es")
    assert compute_of(config) == Ray(workers=3)
    assert set(config.compute) - {"_target_"} == set(Ray.__dataclass_fields__)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"workers": 0}, "compute.workers must be auto or a whole number from 1"),
        ({"retries": -1}, "compute.retries must be a whole number"),
        ({"cpus": 0}, "compute.cpus must be a number above 0"),
        ({"patience": "long"}, "compute.patience must be a number above 0"),
        ({"address": 6379}, "compute.address must be auto, host:port or null"),
    ],
)
def test_values_that_cannot_be_meant_are_told(with_ray: None, keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ray(**keys)


def test_without_ray_the_command_that_installs_it_is_told(without_ray: None) -> None:
    with pytest.raises(InstantiationException) as error:
        compute_of(compose("compute=ray", "algorithm=cma_es"))
    # The command line prints this cause alone.
    assert isinstance(error.value.__cause__, UserError)
    wanted = "compute=ray needs Ray, which is not installed: pip install -e '.[ray]'"
    assert str(error.value.__cause__) == wanted


def test_algorithms_of_one_machine_say_so_before_training(with_ray: None, tmp_path: Path) -> None:
    assert make_algorithm(compose("compute=ray", "algorithm=cma_es")).spreads
    with pytest.raises(UserError, match="compute=ray .*algorithm=cma_es; algorithm=ppo learns on one"):
        train(compose(*TINY, "compute=ray"), tmp_path / "run")


@pytest.mark.skipif(not has_ray, reason="needs ray: pip install '.[ray]'")
def test_ray_is_imported_by_nothing_that_does_not_use_it() -> None:
    modules = "somite.agents.training.loop, somite.agents.rollout.ray_population"
    code = f"import sys, {modules}; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
