"""Pieces of an evaluation: episodes of one condition, assigned beforehand, run by whoever is free."""

from __future__ import annotations

import functools
import math
import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...envs.saved import task_set_of
from ..agent import Agent
from ..device import set_threads
from ..storage.policy import load_policy
from .episodes import run_episodes
from .recovery import recovery_steps

ROWS = {"limbs": 256, "sensors": 1000, "patches": 50}
"""Episodes that run side by side at most. A change would change numbers in their last digits."""


@dataclass(frozen=True)
class Chunk:
    """Episodes of one condition.

    Attributes:
        policy: folder; None: random actions.
        environment: the whole configuration, the condition's changes included.
        bodies: names.
        seed: of the starts.
        first: number of the first episode.
        episodes: of each body.
        disturbed_at: as in `Condition`.
        until: step at which the next disturbance comes.
        key: as of `key_of`.
    """

    policy: Path | None
    environment: Mapping[str, Any]
    bodies: tuple[str, ...]
    seed: int
    first: int
    episodes: int
    disturbed_at: int | None
    until: int | None
    key: str


def parts(kind: str, n_bodies: int, episodes: int) -> list[tuple[int, int]]:
    """(first, how many) of each chunk of a condition.

    The size depends on the kind of task and the number of bodies alone, so that neither an interruption
    nor the number of workers can change a number.
    """
    size = max(1, ROWS[kind] // n_bodies)
    return [(first, min(size, episodes - first)) for first in range(0, episodes, size)]


def run_chunk(chunk: Chunk, device: str, threads: int) -> dict[str, Any]:
    """The episodes of a chunk.

    Returns:
        For each body its ``returns``, ``lengths`` and, where something happens, ``recovery``: steps, -1 for
        never, None where it could not be told; plain values.
    """
    task = task_set_of(chunk.environment).for_evaluation()
    act, aligned = None, False
    if chunk.policy is not None:
        agent = _agent(str(chunk.policy), device)
        agent.reset()
        act, aligned = agent.act, agent.policy.aligned_slots
    results = run_episodes(
        act,
        task,
        chunk.bodies,
        chunk.episodes,
        chunk.seed,
        aligned=aligned,
        threads=threads,
        first=chunk.first,
        keep_rewards=chunk.disturbed_at is not None,
    )
    record: dict[str, Any] = {}
    for result in results:
        record[result.body] = {"returns": result.returns.tolist(), "lengths": result.lengths.tolist()}
        if chunk.disturbed_at is not None:
            until = chunk.until or task.max_episode_steps
            steps = recovery_steps(result.rewards, result.lengths, chunk.disturbed_at, until)
            record[result.body]["recovery"] = [None if math.isnan(s) else int(s) for s in steps]
    return record


def run_chunks(
    chunks: Sequence[Chunk], device: torch.device, workers: int, threads: int = 0
) -> Iterator[tuple[Chunk, dict[str, Any]]]:
    """Every chunk with its record, as they are done.

    Args:
        chunks: to run.
        device: of the policies; a GPU has one worker.
        workers: processes, each on one core; 1: this process.
        threads: of a simulation in this process; 0: one for each core.
    """
    if workers == 1 or len(chunks) <= 1:
        try:
            for chunk in chunks:
                yield chunk, run_chunk(chunk, str(device), threads)
        finally:
            _agent.cache_clear()  # a policy may be another one the next time, in the same folder
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _begin) as pool:
        running: dict[Future, Chunk] = {pool.submit(run_chunk, c, str(device), 1): c for c in chunks}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """A worker leaves at once when the terminal is interrupted, and its parent says so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    set_threads(1)


@functools.lru_cache(maxsize=4)
def _agent(folder: str, device: str) -> Agent:
    return load_policy(folder, device)
