"""What happens once in so many environment steps."""

from __future__ import annotations


class Interval:
    """Tells when the next multiple of a number of steps has been reached.

    Args:
        every: steps; 0 for never.
        done: steps made before.
    """

    def __init__(self, every: int, done: int) -> None:
        self.every = every
        self._next = self._after(done)

    def reached(self, done: int) -> bool:
        """Whether ``done`` steps are past the next multiple; the one after it is waited for then."""
        if not self.every or done < self._next:
            return False
        self._next = self._after(done)
        return True

    def _after(self, done: int) -> int:
        return (done // self.every + 1) * self.every if self.every else 0
