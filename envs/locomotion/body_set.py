"""The bodies of an experiment: which are trained on, which are held out, and the task they all do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import UserError, nearest
from . import families
from .morphology import Morphology
from .task import LocomotionTask
from .vector_env import LocomotionVectorEnv


class BodySet:
    """Bodies of a family, split into seen and unseen ones.

    Args:
        family: name of a family, for example ``cheetah``.
        split: name of a split of the literature (``smp``, ``amorpheus``), or ``all``.
        bodies: train on exactly these members instead (one name: a specialist); what else the split
            trains on is then left out, its unseen bodies stay unseen.
        frame_skip: substeps of a step.
        task: reward and termination.

    Raises:
        UserError: unknown family, split or body, or a body that is also held out.
    """

    def __init__(
        self,
        family: str,
        split: str = "smp",
        bodies: str | Sequence[str] | None = None,
        frame_skip: int = 5,
        task: LocomotionTask | None = None,
    ) -> None:
        self.family = families.get_family(family)
        self.frame_skip, self.task = frame_skip, task or LocomotionTask()
        self.split = families.get_split(family, split)
        if bodies is not None:
            names = [bodies] if isinstance(bodies, str) else bodies
            chosen = tuple(self._member(name) for name in names)
            self.split = families.checked_split(f"{split} with bodies", chosen, self.split.unseen)

    @property
    def seen(self) -> tuple[str, ...]:
        """Bodies that are trained on."""
        return self.split.seen

    @property
    def unseen(self) -> tuple[str, ...]:
        """Bodies that are held out."""
        return self.split.unseen

    def choose(self, bodies: str | Sequence[str]) -> tuple[str, ...]:
        """Names for ``all``, ``seen``, ``unseen``, one name or several. Raises UserError."""
        groups = {"all": self.seen + self.unseen, "seen": self.seen, "unseen": self.unseen}
        if isinstance(bodies, str):
            if bodies in groups:
                return groups[bodies]
            bodies = [bodies]
        return tuple(self._member(name, groups) for name in bodies)

    def _member(self, name: str, also: Sequence[str] = ()) -> str:
        canonical = self.family.aliases.get(name, name)
        if canonical not in self.family.members:
            known = [*self.family.members, *self.family.aliases, *also]
            raise UserError(f"family {self.family.name!r} has no body {name!r}; {nearest(name, known)}")
        return canonical

    def make_vec(
        self, bodies: Sequence[str | Morphology], num_envs: int | None = None, **options: Any
    ) -> LocomotionVectorEnv:
        """Vector environment of these bodies; ``options`` are those of `LocomotionVectorEnv`."""
        return LocomotionVectorEnv(bodies, num_envs, self.task, frame_skip=self.frame_skip, **options)
