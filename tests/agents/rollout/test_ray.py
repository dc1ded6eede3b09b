"""Populations on Ray: the same numbers as here, whatever dies, and nothing that hangs."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from somite.agents.rollout.ray_population import Ray
from somite.agents.storage.run_folder import last_checkpoint
from somite.envs.errors import UserError
from somite.scripts import train
from tests.agents.runs import read_metrics

from .small import Small, make

ray = pytest.importorskip("ray", reason="needs ray: pip install '.[ray]'")
pytestmark = pytest.mark.slow  # nodes and workers take seconds to start

LONG = ("env.max_episode_steps=1000", "algorithm.population=16", "algorithm.episodes=16")
"""Shards of some tenths of a second, so that something can happen meanwhile."""


@pytest.fixture(scope="module", autouse=True)
def on_this_machine_alone() -> Iterator[None]:
    """No token in the home folder, short paths of sockets, nodes that are noticed to be gone soon."""
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No test finds the cluster of one that failed."""
    yield
    ray.shutdown()


class Nodes:
    """A cluster of nodes of this machine: a head that computes nothing, and others with one CPU each."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        checks = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "_system_config": checks, "object_store_memory": 80 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add() for _ in range(count)]

    def add(self) -> object:
        return self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)

    def kill(self, index: int) -> None:
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)

    def settings(self, **more: object) -> Ray:
        return Ray(address=self.cluster.address, **more)

    def close(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture
def nodes() -> Iterator[Callable[[int], Nodes]]:
    made: list[Nodes] = []

    def make_nodes(count: int) -> Nodes:
        made.append(Nodes(count))
        return made[-1]

    yield make_nodes
    for one in made:
        one.close()


def after(seconds: float, do: Callable[[], None]) -> Callable[[], bool]:
    """Never stops a generation, but does something so long after it was first asked."""
    asked: list[float] = []
    done: list[int] = []

    def stop() -> bool:
        asked.append(time.monotonic())
        if not done and asked[-1] - asked[0] > seconds:
            done.append(1)
            do()
        return False

    return stop


def warm(small: Small, evaluator: object) -> None:
    """A generation, after which every worker has its simulator."""
    scores = small.generation(evaluator)
    small.search.tell(scores.returns.mean((1, 2)))


def equal(found: object, small: Small) -> bool:
    wanted = small.local()
    return np.array_equal(found.returns, wanted.returns) and np.array_equal(found.lengths, wanted.lengths)


@pytest.mark.parametrize("task", ["sensors", "limbs"])
def test_a_cluster_of_our_own_gives_what_this_machine_gives(task: str) -> None:
    small = make(task)
    evaluator = small.evaluator(Ray(workers=2))
    for _ in range(3):
        scores = small.generation(evaluator)
        assert equal(scores, small)
        assert len(evaluator.told) == 6 and len({told["process"] for told in evaluator.told}) == 2
        small.search.tell(scores.returns.mean((1, 2)))
    evaluator.close()
    assert not ray.is_initialized()


def test_a_node_that_is_lost_costs_its_shard_and_nothing_else(
    nodes: Callable[[int], Nodes], caplog: pytest.LogCaptureFixture
) -> None:
    cluster, small = nodes(3), make("sensors", *LONG)
    evaluator = small.evaluator(cluster.settings())
    warm(small, evaluator)
    with caplog.at_level(logging.WARNING):
        scores = small.generation(evaluator, after(0.4, lambda: cluster.kill(0)))
    assert 1 <= evaluator.lost <= 2, "what was computed there, and what was on its way"
    assert "are computed again" in caplog.text
    assert equal(scores, small)


def test_nodes_may_come_and_go_in_one_generation(nodes: Callable[[int], Nodes]) -> None:
    """At last none of those is left that it was begun with."""
    cluster, small = nodes(2), make("sensors", *LONG)
    evaluator = small.evaluator(cluster.settings())
    warm(small, evaluator)
    before = {told["process"] for told in evaluator.told}

    def replace() -> None:
        cluster.kill(0)
        cluster.kill(0)
        cluster.add()

    scores = small.generation(evaluator, after(0.3, replace))
    assert evaluator.lost >= 2
    assert {told["process"] for told in evaluator.told} - before, "who joined has computed"
    assert equal(scores, small)


def test_a_cluster_without_workers_is_waited_for(
    nodes: Callable[[int], Nodes], caplog: pytest.LogCaptureFixture
) -> None:
    cluster, small = nodes(0), make()
    evaluator = small.evaluator(cluster.settings(patience=0.5))
    with caplog.at_level(logging.WARNING):
        scores = small.generation(evaluator, after(2, cluster.add))
    assert "no node with 1 CPUs; waiting for one to join" in caplog.text
    assert equal(scores, small)


def test_a_worker_that_is_killed_is_named_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    small = make("sensors", *LONG)
    evaluator = small.evaluator(Ray(workers=2))
    warm(small, evaluator)
    process = evaluator.told[0]["process"]
    with caplog.at_level(logging.WARNING):
        scores = small.generation(evaluator, after(0.2, lambda: os.kill(process, signal.SIGKILL)))
    assert evaluator.lost == 1 and "computed again: WorkerCrashedError" in caplog.text
    assert equal(scores, small)
    evaluator.close()


def test_shards_that_are_lost_too_often_end_the_run() -> None:
    small = make("sensors", *LONG)
    evaluator = small.evaluator(Ray(workers=1, retries=0))
    warm(small, evaluator)
    process = evaluator.told[0]["process"]
    with pytest.raises(UserError, match="lost 1 times, the last time by WorkerCrashedError.*compute.retries"):
        small.generation(evaluator, after(0.2, lambda: os.kill(process, signal.SIGKILL)))
    evaluator.close()


def test_an_error_in_a_worker_is_raised_with_its_traceback() -> None:
    small = make()
    evaluator = small.evaluator(Ray(workers=1))
    with pytest.raises(Exception, match="(?s)in evaluate_shard.*in split_parameters.*sum exactly to 3"):
        evaluator.evaluate(np.zeros((12, 3)), small.starts())
    assert equal(small.generation(evaluator), small), "the worker goes on"
    evaluator.close()


def test_a_body_that_differs_in_a_worker_is_told_in_one_sentence() -> None:
    small = make("limbs")
    small.environment["bodies"] = ["cheetah_7_full"]  # not what was hashed here
    evaluator = small.evaluator(Ray(workers=1))
    with pytest.raises(UserError, match="^the body cheetah_2_back is another one on"):
        small.generation(evaluator)
    evaluator.close()


def test_a_generation_is_stopped_promptly_and_can_be_asked_again() -> None:
    small = make("sensors", *LONG)
    evaluator = small.evaluator(Ray(workers=2))
    warm(small, evaluator)
    begun = time.monotonic()
    assert small.generation(evaluator, lambda: time.monotonic() > begun + 0.3) is None
    assert time.monotonic() - begun < 1.5
    assert equal(small.generation(evaluator), small)
    evaluator.close()


def test_an_address_where_no_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_GCS_RPC_TIMEOUT_S", "1")
    with pytest.raises(UserError, match="compute.address=auto is no Ray cluster.*ray start --head"):
        make().evaluator(Ray(address="auto"))


RUN = (
    "env=cartpole_swingup", "env.max_episode_steps=60", "agent=attention_neuron", "algorithm=cma_es",
    "algorithm.population=8", "algorithm.episodes=3", "algorithm.shard_size=2", "algorithm.diagonal=true",
    "algorithm.generations=4", "algorithm.validate_every=2", "algorithm.validation_episodes=4", "device=cpu",
)  # fmt: skip


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, train.__file__, *RUN, f"hydra.run.dir={folder}", *more]


def rows(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]


def test_a_run_on_ray_is_the_run_of_this_machine_to_the_last_bit(tmp_path: Path) -> None:
    for name, more in (("here", ["threads=2"]), ("ray", ["compute=ray", "compute.workers=2"])):
        done = subprocess.run(command(tmp_path / name, *more), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    here, there = (tmp_path / name / "policy" / "policy.safetensors" for name in ("here", "ray"))
    assert here.read_bytes() == there.read_bytes()
    assert rows(tmp_path / "here") == rows(tmp_path / "ray") and len(rows(tmp_path / "ray")) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_on_ray_that_is_told_to_stop_saves_leaves_and_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    """To the whole group, as a terminal sends it: Ray's own processes get the signal, too."""
    more = ["compute=ray", "compute.workers=2", "algorithm.generations=400", "env.max_episode_steps=300"]
    log = tmp_path / "stderr"  # a pipe would stay open as long as any process of the cluster
    with log.open("w") as file:
        run = subprocess.Popen(command(tmp_path / "run", *more), stderr=file, start_new_session=True)
    metrics = tmp_path / "run" / "metrics.csv"
    while run.poll() is None and (not metrics.exists() or len(read_metrics(tmp_path / "run")) < 3):
        time.sleep(0.1)
    told, now = time.monotonic(), time.time()
    os.killpg(run.pid, number)
    assert run.wait(120) == 128 + number, log.read_text()
    assert last_checkpoint(tmp_path / "run").stat().st_mtime - now < 3, "it is saved at once"
    assert time.monotonic() - told < 60, "and left when the cluster is gone"
    made = len(read_metrics(tmp_path / "run"))
    resumed = [sys.executable, train.__file__, f"resume={tmp_path / 'run'}"]
    assert made < 300
    goal = [f"algorithm.generations={made + 2}"]
    done = subprocess.run([*resumed, *goal], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = command(tmp_path / "here", *more[2:], "threads=1")[:-1]
    there = [argument for argument in there if not argument.startswith("algorithm.generations")]
    done = subprocess.run([*there, *goal], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "run")[: made + 1] == rows(tmp_path / "here")[: made + 1]
    here, there = (tmp_path / name / "policy" / "policy.safetensors" for name in ("here", "run"))
    assert here.read_bytes() == there.read_bytes()
