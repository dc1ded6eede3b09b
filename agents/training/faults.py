"""What ends a run that cannot go on, though nothing is wrong with what the user asked for."""

from __future__ import annotations


class RunFault(RuntimeError):
    """Training cannot go on; the message says what happened, what was kept and how to go on."""
