"""The bodies of an experiment: which are trained on, which are held out, and the task they all do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BodySet:
        """Rebuild from the node of ``conf/env`` that a policy was saved with.

        Nothing is looked up by the names in it (a policy may come from a stranger): ``_target_`` must be
        this class and, for the task, `LocomotionTask`.

        Raises:
            UserError: another target, an unknown key, or a value that cannot be meant.
        """
        values = dict(config)
        task = dict(values.pop("task", None) or {})
        for node, wanted in ((values, BodySet), (task, LocomotionTask)):
            target, expected = node.pop("_target_", None), f"somite.envs.locomotion.{wanted.__name__}"
            if target != expected and (target is not None or node is values):
                raise UserError(f"this environment is a {target!r}; expected {expected}")
        try:
            return cls(**values, task=LocomotionTask(**task))
        except TypeError as error:
            raise UserError(f"the saved environment does not fit this version: {error}") from error

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
