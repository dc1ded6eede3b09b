"""Runs in processes of their own, tiny, and what happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMBS = (
    "env.bodies=[cheetah_2_back,cheetah_3_front]",
    "env.task.max_episode_steps=20",
    "agent.width=16",
    "device=cpu",
    "threads=1",
)
LEARNING = ("algorithm.num_envs=8", "algorithm.n_steps=16", "algorithm.batch_size=64")
ROLLOUT = 8 * 16
PPO = (*LIMBS, *LEARNING, "algorithm.n_epochs=2", f"algorithm.checkpoint_every={ROLLOUT}")
PPO = (*PPO, f"algorithm.validate_every={ROLLOUT}")
SENSORS = ("env=cartpole_swingup", "env.max_episode_steps=20", "device=cpu", "threads=1")
CMA = (
    *(*SENSORS, "agent=attention_neuron", "algorithm=cma_es", "algorithm.population=4"),
    *("algorithm.episodes=2", "algorithm.validation_episodes=2", "algorithm.checkpoint_every=2"),
    "algorithm.validate_every=2",
)
CLONE = (
    *(
        *SENSORS,
        "agent=sensor_transformer",
        "algorithm=clone",
        "algorithm.teacher=bundled/cartpole_swingup-sensor_mlp",
    ),
    *(*LEARNING, "algorithm.n_epochs=1", f"algorithm.checkpoint_every={ROLLOUT}"),
    *(f"algorithm.validate_every={ROLLOUT}", "algorithm.validation_episodes=2"),
)
LONG = {
    "ppo": "algorithm.total_steps=1e9",
    "cma_es": "algorithm.generations=1e6",
    "clone": "algorithm.total_steps=1e9",
}
TINY = {"ppo": PPO, "cma_es": CMA, "clone": CLONE}
"""By algorithm."""


class Nursery:
    """Starts runs by forking a process that has imported everything."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("nursery_main.py"))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._started: dict[int, int | None] = {}
        self._read()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        assert line, "the process that starts runs has ended"
        return json.loads(line)

    def start(self, folder: Path, *arguments: str, mishaps: Any = (), ignored: Any = ()) -> Started:
        """``somite-train`` in a folder; ``mishaps`` are those of mishaps.py, ``ignored`` signals."""
        folder.mkdir(parents=True, exist_ok=True)
        output = folder.parent / f"{folder.name}.{len(self._started)}.out"
        order = {"arguments": list(arguments), "folder": str(folder), "output": str(output)}
        order |= {"mishaps": list(mishaps), "ignored": list(ignored)}
        pid = self._ask({"start": order})["pid"]
        self._started[pid] = None
        return Started(self, pid, output)

    def code(self, pid: int) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._started[pid] is None:
            self._started[pid] = self._ask({"poll": pid})["code"]
        return self._started[pid]

    def close(self) -> None:
        for pid in self._started:
            if self.code(pid) is None:
                os.kill(pid, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait(30)


class Started:
    """A run in a process of its own."""

    def __init__(self, nursery: Nursery, pid: int, output: Path) -> None:
        self.nursery, self.pid, self.output = nursery, pid, output

    @property
    def runs(self) -> bool:
        return self.nursery.code(self.pid) is None

    @property
    def printed(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.runs:
            self.send(signal.SIGKILL)
        self.wait()

    def until(self, reached: Callable[[], Any], seconds: float = 120.0) -> Any:
        """Wait until something is so; fails if the run ends before."""
        deadline = time.monotonic() + seconds
        while not (found := reached()):
            assert self.runs, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.002)
        return found

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code, negative for a signal."""
        deadline = time.monotonic() + seconds
        while self.runs:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                raise AssertionError(f"still running after {seconds} s: {self.printed}")
            time.sleep(0.01)
        return self.nursery.code(self.pid)


def only_run(folder: Path) -> Path:
    """The run in ``runs/`` of a folder."""
    (run,) = (folder / "runs").iterdir()
    return run


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with size and time of its last change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.stat()
        found[str(path.relative_to(folder))] = (about.st_size, about.st_mtime_ns)
    return found
