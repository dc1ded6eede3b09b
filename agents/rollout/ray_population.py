"""A population on a Ray cluster, whose nodes may come and go."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch

from ...envs.errors import UserError
from ...envs.numbers import NULL, TEXT, checked, one_of, real
from ...envs.numbers import whole as count
from ...envs.task_set import task_set_of
from ...envs.user_modules import inherit, modules_to_inherit
from ..device import processor
from ..storage.policy import describe_policy, described_policy
from ..storage.policy_json import installed_version
from ..training.signals import STOPS
from .compute import Compute, Work
from .population import Scores, Simulator, Stop, joined, shards_of, starts_of

log = logging.getLogger(__name__)

PACKAGES = ("somite", "torch", "numpy", "mujoco", "gymnasium")
"""Whose versions numbers depend on."""

LOOK_EVERY = 0.1
"""Seconds between looks at whether the run is to stop."""

GONE = (
    *("WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError"),
    *("ObjectLostError", "OutOfMemoryError", "RaySystemError"),
)
"""Ray's errors that say that whoever computed a shard is gone."""

STORE_BYTES = 256 * 2**20
"""Of the object store of a cluster of our own: parameters of a generation and little else."""


_kept: dict[str, Simulator] = {}
"""Of this process: the simulator of one run, under its key."""


@checked("compute")
@dataclass
class Ray(Compute):
    """A Ray cluster; ``conf/compute/ray.yaml`` says what its keys mean.

    Raises:
        UserError: an invalid value, or Ray is not installed.
    """

    name = "ray"
    spread = True

    address: Annotated[str | None, (TEXT | NULL).told("auto, host:port or null")] = None
    workers: Annotated[int | str, one_of("auto") | count(1, 10**5)] = "auto"
    cpus: Annotated[float, real(0, 10**5, above=True)] = 1
    retries: Annotated[int, count()] = 20
    patience: Annotated[float, real(0, 1e9, above=True)] = 30

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("compute=ray needs Ray, which is not installed: pip install -e '.[ray]'")

    def evaluator(self, work: Work) -> RayPopulation:  # noqa: D102
        return RayPopulation(replace(self, workers=work.threads) if self.workers == "auto" else self, work)


class RayPopulation:
    """Evaluates populations in shards, each a task of a Ray cluster.

    Policy and task go to the cluster's object store once. A shard whose worker or node is lost is computed
    again wherever there is room, by whoever has joined since; nothing else waits for it.

    Attributes:
        lost: shards that were computed again so far.
        told: what workers said of themselves in the last generation, for each shard: ``host``, ``process``
            and ``machine``.

    Raises:
        UserError: no such cluster.
    """

    def __init__(self, settings: Ray, work: Work) -> None:
        self.settings = settings
        self._ray, self._ours = _connect(settings)
        self.shards, self._episodes = shards_of(work.size, work.shard_size), work.episodes
        self._dtype = next(work.policy.parameters()).detach().cpu().numpy().dtype
        self._key = uuid.uuid4().hex
        self._setup = [self._ray.put(setup_of(work))]
        # Ray's own retries would not tell us; ours are counted and logged.
        remote = self._ray.remote(num_cpus=settings.cpus, max_retries=0, scheduling_strategy="SPREAD")
        self._task = remote(evaluate_shard)
        self._machine, self._others = machine(), set()
        self.lost = 0
        self.told: list[dict[str, Any]] = []
        where = f"a Ray cluster of {self._cpus():g} CPUs on {len(self._nodes())} nodes"
        log.info("shards of %s candidates on %s", work.shard_size, where)

    def evaluate(
        self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop = lambda: False
    ) -> Scores | None:
        """As of `Population`.

        Raises:
            UserError: a shard was lost more often than ``compute.retries`` allows.
            RayTaskError: an error in a worker, with its traceback.
        """
        # Rounded to the precision that the policy computes in, as it would do itself.
        parts = [candidates[shard].astype(self._dtype) for shard in self.shards]
        found, tries = [None] * len(parts), [0] * len(parts)
        self.told = []
        pending: dict[Any, int] = {}

        def submit(index: int) -> None:
            tries[index] += 1
            own = list(starts_of(self.shards[index], starts, self._episodes))
            task = self._task.remote(self._key, self._setup, parts[index], own)
            pending[task] = index

        try:
            for index in range(len(parts)):
                submit(index)
            heard = time.monotonic()
            while pending:
                done, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=LOOK_EVERY)
                if stop():
                    return None
                for reference in done:
                    index = pending.pop(reference)
                    result = self._result(reference, index, tries[index])
                    if result is None:
                        submit(index)
                    else:
                        found[index] = result
                heard = time.monotonic() if done else self._say_waiting(heard)
        finally:
            for reference in pending:
                self._ray.cancel(reference)
        return joined(found)

    def _result(self, reference: Any, index: int, tries: int) -> Scores | None:
        """Scores of a shard; None: who computed it is gone."""
        errors = self._ray.exceptions
        gone = tuple(getattr(errors, name) for name in GONE)
        try:
            scores, about = self._ray.get(reference)
        except gone as error:
            self.lost += 1
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            shard = self.shards[index]
            if tries > self.settings.retries:
                raise UserError(
                    f"candidates {shard.start} to {shard.stop - 1} were lost {tries} times, the last time by "
                    f"{reason}; raise compute.retries if nodes come and go that often"
                ) from error
            log.warning("candidates %s to %s are computed again: %s", shard.start, shard.stop - 1, reason)
            return None
        except errors.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from error
            raise
        self._compare(about)
        self.told.append(about)
        return scores

    def _compare(self, about: Mapping[str, Any]) -> None:
        """Say once for each host where its numbers may be rounded otherwise."""
        if about["host"] in self._others or about["machine"] == self._machine:
            return
        self._others.add(about["host"])
        theirs = about["machine"]
        differing = [f"{n} {theirs[n]} (here {own})" for n, own in self._machine.items() if theirs[n] != own]
        warning = "%s has %s: which shard it computes may change the last digits of a run"
        log.warning(warning, about["host"], ", ".join(differing))

    def _say_waiting(self, heard: float) -> float:
        """Tell, now and then, that nobody is there to compute; when somebody was last heard of."""
        if time.monotonic() - heard < self.settings.patience:
            return heard
        if self._cpus() < self.settings.cpus:
            log.warning("the cluster has no node with %g CPUs; waiting for one to join", self.settings.cpus)
        return time.monotonic()

    def _cpus(self) -> float:
        return self._ray.cluster_resources().get("CPU", 0)

    def _nodes(self) -> list[Any]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def close(self) -> None:
        """Leave the cluster; end it if it is our own."""
        if self._ours:
            self._ray.shutdown()


def _connect(settings: Ray) -> tuple[Any, bool]:
    """Ray, connected, and whether the connection is ours. Raises UserError: no such cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of other shards, when one has failed
    import ray

    if ray.is_initialized():
        return ray, False
    options = {"address": settings.address, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address is None:
        options |= {"address": "local", "num_cpus": settings.workers, "num_gpus": 0}
        options |= {"object_store_memory": STORE_BYTES, "include_dashboard": False}
        options["_node_ip_address"] = "127.0.0.1"  # nobody else is to reach it
    handlers = {number: signal.getsignal(number) for number in STOPS}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(
            f"compute.address={settings.address} is no Ray cluster that can be joined: {error}; start one "
            "with: ray start --head"
        ) from error
    finally:
        # Ray's own for SIGTERM ends the process with a dump of its stack; ours let a run save.
        for number, handler in handlers.items():
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)
    return ray, True


def setup_of(work: Work) -> dict[str, Any]:
    """What a worker makes a simulator of: plain values and arrays, no objects of ours."""
    return {
        **describe_policy(work.policy),
        "tensors": {name: value.detach().cpu().numpy() for name, value in work.policy.state_dict().items()},
        "environment": dict(work.environment),
        "modules": modules_to_inherit(),
        "hashes": work.task_set.hashes(),
        "episodes": work.episodes,
    }


def simulator_of(setup: Mapping[str, Any]) -> Simulator:
    """Inverse of `setup_of`. Raises UserError: a body is another one here than where the run was begun."""
    inherit(setup["modules"])
    task_set = task_set_of(setup["environment"])
    own = task_set.hashes()
    for name, wanted in setup["hashes"].items():
        if (here := own.get(name)) != wanted:
            raise UserError(
                f"the body {name} is another one on {socket.gethostname()} than where the run was begun: its "
                f"file or this package differs (hash {here}, wanted {wanted})"
            )
    policy = described_policy(setup, "the policy that was sent")
    policy.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in setup["tensors"].items()})
    return Simulator(policy, task_set, setup["episodes"])


def kept(key: str, make: Callable[[], Simulator]) -> Simulator:
    """What this process keeps under a key; what it kept under another is let go."""
    if key not in _kept:
        for before in _kept.values():
            before.close()
        _kept.clear()
        _kept[key] = make()
    return _kept[key]


def machine() -> dict[str, str | None]:
    """What numbers depend on."""
    versions = {name: installed_version(name) for name in PACKAGES}
    return {"processor": processor(), "python": platform.python_version(), **versions}


def evaluate_shard(
    key: str, setup: Sequence[Any], candidates: np.ndarray, starts: Sequence[Any]
) -> tuple[Scores, dict[str, Any]]:
    """A Ray task: the scores of a shard's candidates (S, n), and about who computed them.

    ``setup`` is a reference to what `setup_of` gave, in a list, so that a process fetches it once, under the
    ``key`` of the run.
    """
    import ray

    torch.set_num_threads(1)
    simulator = kept(key, lambda: simulator_of(ray.get(setup[0])))
    scores = simulator.run(candidates, starts, lambda: False)
    return scores, {"host": socket.gethostname(), "process": os.getpid(), "machine": machine()}
