"""Signals that ask a run to stop."""

from __future__ import annotations

import signal

import pytest

from somite.agents.training import signals as stopping
from somite.agents.training.signals import ONE_REQUEST, StopSignals


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_at_once_are_one_request(number: signal.Signals, clock: list[float]) -> None:
    """As ``timeout`` sends them: the run must still come to save."""
    with StopSignals() as signals:
        assert signals.received is None
        signal.raise_signal(number)
        clock[0] += 0.5 * ONE_REQUEST
        signal.raise_signal(number)
        assert signals.received is number


def test_a_second_request_interrupts(clock: list[float]) -> None:
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        clock[0] += 2 * ONE_REQUEST
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.received is signal.SIGTERM, "the first one says why"


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
