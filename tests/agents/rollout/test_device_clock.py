"""Seconds on the CPU, and on a GPU that is made up."""

from __future__ import annotations

import time

import pytest
import torch

from somite.agents.algorithms.on_policy import DeviceClock


def test_parts_are_added_up_until_they_are_read() -> None:
    clock = DeviceClock(torch.device("cpu"))
    begun = time.perf_counter()
    for _ in range(2):
        clock.start()
        time.sleep(0.02)
        clock.stop()
        time.sleep(0.02)
    assert 0.04 <= clock.read() < time.perf_counter() - begun - 0.04
    assert clock.read() == 0


def test_a_gpu_is_waited_for_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waited = [0.0], []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            now[0] += 1
            self.at = now[0] ** 2

        def synchronize(self) -> None:
            waited.append(self.at)

        def elapsed_time(self, other: Event) -> float:
            return 1000 * (other.at - self.at)  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = DeviceClock(torch.device("cuda"))
    for _ in range(2):
        clock.start()
        clock.stop()
    assert not waited
    assert clock.read() == pytest.approx((4 - 1) + (16 - 9)) and waited == [16]
    assert clock.read() == 0
