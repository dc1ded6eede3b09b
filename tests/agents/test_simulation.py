"""Where a task is simulated: what is asked for, what can be, and what is said."""

import importlib.util
import logging
import sys
import types

import pytest
import torch

from somite.agents import device as module
from somite.agents.device import resolve_simulation
from somite.envs.errors import UserError

HERE, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Task:
    """What is asked of a task set."""

    def __init__(self, device_simulation, why_not=None):
        self.device_simulation, self.why_not = device_simulation, why_not
        if device_simulation is None:
            self.why_not = "this task is simulated on the CPU only"

    def why_not_on_device(self):
        return self.why_not


BODIES, SWINGUP, CARS = Task("warp"), Task("torch"), Task(None)
BROKEN = Task("warp", "env.damage is drawn")


@pytest.fixture
def warp(monkeypatch):
    """Warp that sees one GPU."""
    fake = types.SimpleNamespace(
        __version__="1.19.0", get_cuda_device_count=lambda: 1, init=lambda: None, __spec__=object()
    )
    monkeypatch.setitem(sys.modules, "warp", fake)
    return fake


@pytest.fixture
def no_warp(monkeypatch):
    find = importlib.util.find_spec
    found = lambda name: None if name in module.WARP_MODULES else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", found)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == module.__name__]


@pytest.mark.parametrize("task", [BODIES, SWINGUP, CARS, BROKEN])
def test_auto_on_a_cpu_and_cpu_anywhere_are_the_cpu(task, caplog):
    caplog.set_level(logging.INFO)
    assert resolve_simulation("auto", task, HERE) == "cpu"
    assert resolve_simulation("cpu", task, GPU) == "cpu"
    assert not told(caplog)


def test_auto_on_a_gpu_is_what_the_task_has(warp, caplog):
    caplog.set_level(logging.INFO)
    assert resolve_simulation("auto", BODIES, GPU) == "warp"
    assert resolve_simulation("auto", SWINGUP, GPU) == "torch"
    assert told(caplog) == ["simulation: warp on cuda:0", "simulation: torch on cuda:0"]


def test_auto_says_why_it_is_the_cpu(warp, caplog):
    caplog.set_level(logging.INFO)
    assert resolve_simulation("auto", BROKEN, GPU) == "cpu"
    assert resolve_simulation("auto", CARS, GPU) == "cpu"
    assert resolve_simulation("auto", SWINGUP, GPU, "a teacher looks on") == "cpu"
    assert resolve_simulation("auto", BODIES, torch.device("cuda", 1)) == "cpu"
    assert told(caplog) == [
        "simulation: cpu (env.damage is drawn)",
        "simulation: cpu (this task is simulated on the CPU only)",
        "simulation: cpu (a teacher looks on)",
        "simulation: cpu (Warp 1.19.0 sees no cuda:1, perhaps for a driver that is too old for it)",
    ]


def test_auto_without_warp_names_the_command(no_warp, caplog):
    caplog.set_level(logging.INFO)
    assert resolve_simulation("auto", BODIES, GPU) == "cpu"
    assert told(caplog) == ["simulation: cpu (Warp is not installed: pip install 'somite[gpu]')"]
    assert resolve_simulation("auto", SWINGUP, GPU) == "torch", "which does without Warp"


def test_warp_runs_on_a_cpu_and_says_that_it_is_slow(warp, caplog):
    caplog.set_level(logging.INFO)
    warp.get_cuda_device_count = lambda: 0
    assert resolve_simulation("warp", BODIES, HERE) == "warp"
    assert resolve_simulation("torch", SWINGUP, HERE) == "torch"
    assert all("on cpu" in line and "slowly" in line for line in told(caplog))


@pytest.mark.parametrize(
    ("name", "task", "why_not", "message"),
    [
        ("warp", CARS, None, "this task is simulated on the CPU only: use simulation=cpu or simulation=auto"),
        ("torch", BODIES, None, "this task is simulated by warp on a device: use simulation=warp, cpu"),
        ("warp", SWINGUP, None, "this task is simulated by torch on a device: use simulation=torch"),
        ("warp", BROKEN, None, "but env.damage is drawn. Or use simulation=cpu"),
        ("torch", SWINGUP, "a teacher looks on", "but a teacher looks on. Or use simulation=cpu"),
    ],
)
@pytest.mark.parametrize("device", [HERE, GPU], ids=str)
def test_what_is_asked_for_and_cannot_be_is_an_error(name, task, why_not, message, device, warp):
    with pytest.raises(UserError, match=message):
        resolve_simulation(name, task, device, why_not)


def test_warp_that_is_asked_for_and_not_installed_names_the_command(no_warp):
    for device in (HERE, GPU):
        with pytest.raises(UserError, match=r"Warp is not installed: pip install 'somite\[gpu\]'"):
            resolve_simulation("warp", BODIES, device)


def test_warp_that_sees_no_gpu_is_told(warp):
    warp.get_cuda_device_count = lambda: 0
    with pytest.raises(UserError, match="Warp 1.19.0 sees no cuda:0"):
        resolve_simulation("warp", BODIES, GPU)
