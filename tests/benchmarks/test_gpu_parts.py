"""Parts of the benchmark of GPUs: failures are told, checks can fail, kernels are compiled in time or not."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: pip install 'somite[gpu]'")

from somite.envs.errors import UserError
from somite.envs.locomotion import BodySet, LocomotionTask
from somite.scripts.benchmarks import gpu_check, gpu_device
from somite.scripts.benchmarks.gpu_ppo import UntilReturn
from somite.scripts.benchmarks.gpu_report import Report
from somite.scripts.benchmarks.results import Results

CPU = torch.device("cpu")
BODIES = ["cheetah_2_back", "cheetah_7_full"]


class Clock:
    """Tells the time that it is given."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def report(tmp_path):
    console = Console(record=True, width=200, quiet=True)
    return Report(Results(tmp_path / "report.json", {}), console, 10.0, Clock())


def test_parts_share_what_is_left(report):
    clock = report._clock
    report.begin("one", 0.5)
    assert report.left == 5
    clock.now += 9  # longer than it should
    assert report.left < 0
    report.begin("two", 0.5)
    assert report.left == 0.5


def test_what_fails_is_kept_and_the_others_go_on(report):
    report.begin("one", 1.0)

    def fails():
        raise RuntimeError("out of something")

    assert report.measure("first", fails) == []
    assert report.measure("second", lambda: [{"name": "second", "x": 1}]) == [{"name": "second", "x": 1}]
    report._clock.now += 11
    assert report.measure("third", fails) == []
    first, second, third = json.loads(report.results.path.read_text())["rows"]
    assert first["failed"] == "RuntimeError: out of something" and "in fails" in first["traceback"]
    assert second == {"name": "second", "x": 1}
    assert third == {"name": "third", "not_run": "no time left"}
    assert report.failures == ["first"]


def test_a_stop_by_the_user_is_no_failure(report):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report.measure("first", stopped)
    assert report.failures == []


def test_a_graph_that_leaves_something_out_fails_the_check(report, monkeypatch):
    monkeypatch.setattr(gpu_check.PlainLauncher, "_run", lambda self, name, work: None)
    gpu_check.check(report, {"cheetah": BodySet("cheetah", bodies=BODIES)}, CPU)
    assert report.failures == ["check/graph/cheetah/too_large"]
    row = next(row for row in report.results.rows if row["name"] == "check/graph/cheetah")
    assert row["largest_difference"] > 1e-2


def test_another_reward_fails_the_check(report, monkeypatch):
    bodies = BodySet("cheetah", bodies=BODIES)
    other = BodySet("cheetah", bodies=BODIES, task=LocomotionTask(control_cost=0.11))
    monkeypatch.setattr(bodies, "make_vec", other.make_vec)
    gpu_check.check(report, {"cheetah": bodies}, CPU)
    assert report.failures == ["check/rewards/cheetah/too_large"]
    assert "allowed are 0.001" in report.results.rows[-1]["failed"]


def test_what_is_no_number_is_the_largest_difference():
    found = gpu_check._differences(
        {"a": torch.zeros(2), "b": torch.tensor([np.nan, 0.0])}, {"a": torch.ones(2), "b": torch.zeros(2)}
    )
    assert np.isnan(found["largest_difference"]) and not found["largest_difference"] <= 1


def test_steps_fill_the_turn():
    steps = []
    measure = gpu_device.stepping_on_device(lambda: (steps.append(1), time.sleep(0.01)), 7, 0.1, CPU)
    rate = measure()
    counted = len(steps) - 1 - gpu_device.WARM_UP
    assert 4 <= counted <= 11
    assert 0.3 * 7 / 0.01 < rate <= 7 / 0.01


def test_centipedes_go_on_beyond_their_family():
    longest = gpu_device.body_of("centipede_26")
    assert longest.n_limbs == 65 and gpu_device.body_of("centipede_20").n_limbs == 50
    with pytest.raises(UserError, match="unknown body"):
        gpu_device.body_of("centiped_26")


def test_kernels_that_take_too_long_are_not_waited_for():
    found, missing = gpu_device.compile_kernels(BODIES, CPU, 2, 1e-3)
    assert set(found) == {BODIES[0]} and missing == BODIES[1:]


def test_kernels_are_compiled_beside_each_other():
    found, missing = gpu_device.compile_kernels(BODIES, CPU, 2, 120)
    assert set(found) == set(BODIES) and missing == []


def rollout(returns, bodies):
    return SimpleNamespace(returns=np.array(returns, float), bodies=np.array(bodies))


def test_a_return_is_reached_when_the_mean_of_all_bodies_is():
    watch = UntilReturn(10.0, 60.0, 2)
    watch._on_training_start()
    watch.num_timesteps = 0
    for step, (returns, bodies, reached) in enumerate(
        [([50.0], [0], False), ([2.0], [1], True)]  # no body is left out of the mean
    ):
        watch.model = SimpleNamespace(finished=rollout(returns, bodies))
        watch.num_timesteps = step
        watch._on_rollout_end()
        assert (watch.reached is not None) is reached
        assert watch._on_step() is not reached
    assert [entry[1:] for entry in watch.curve] == [(0, None), (1, 26.0)]


def test_time_ends_learning():
    watch = UntilReturn(10.0, 0.0, 1)
    watch._on_training_start()
    assert not watch._on_step() and watch.reached is None
