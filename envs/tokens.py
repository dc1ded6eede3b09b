"""The contract between environments and policies: observations are sets of tokens.

An environment gives, for every simulation, a Gymnasium ``Dict`` with these keys
(N tokens, F features of a token, J joint slots of a limb, G features of a joint, Q of a slot's traces):

==================  ==================  =======================================================
key                 shape, dtype        meaning
==================  ==================  =======================================================
``tokens``          (N, F) float32      features of each sensor or limb; of patches of a picture, uint8
``traces``          (N, Q) float32      of patches whose slots keep traces: what these tell; those of
                                        numbers are features of their tokens
``neighbors``       (N, 4) int32        of patches whose neighbours are looked for: the slots that seem to
                                        lie to the right, to the left, below and above; itself for none
``mask``            (N,) int8           1 where the token exists, 0 padding (its values are 0)
``parent``          (N,) int32          limb tasks: the limb this one hangs from, -1 for a root
``joints``          (N, J, G) float32   limb tasks: state and descriptors of each joint
``joint_mask``      (N, J) int8         limb tasks: 1 where the joint slot exists
``action_mask``     (N, J) int8         limb tasks: 1 where the joint slot is actuated
``recent_actions``  (K, A) float32      sensor tasks: the last K actions as applied, newest last, 0 before
                                        the first; nominal, or one-hot where actions are discrete
``privileged``      (S,) float32        sensor tasks: the task's own readings in their own order, or the
                                        state behind a picture, for a critic; the acting policy never sees it
``sensor``          (N,) int32          sensor tasks: which of the task's sensors stands in each slot, S for
                                        noise; for losses in training; the acting policy never sees it
==================  ==================  =======================================================

Three rules hold everywhere: neither N nor J appears in the shape of a shared parameter; order
carries no information; padding is without influence. What the columns of ``tokens`` and ``joints``
mean is said once, by a :class:`TokenSpec`, which is saved beside every policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

CONTRACT_VERSION = 2
"""Raised when the meaning of a key changes, so that an old policy is refused, not misread."""

SENSOR_KEYS = ("tokens", "mask", "recent_actions", "privileged", "sensor", "traces", "neighbors")
LIMB_KEYS = ("tokens", "mask", "parent", "joints", "joint_mask", "action_mask")


@dataclass(frozen=True)
class Feature:
    """One named group of columns of a token.

    ``kind`` is ``state`` for what changes with time, which a running normaliser may scale, and
    ``descriptor`` for what describes the part itself. Descriptors are in fixed units and are never
    touched by running statistics: a specialist sees one value only, whose deviation is zero.
    """

    name: str
    size: int
    kind: Literal["state", "descriptor"]
    unit: str
    meaning: str


@dataclass(frozen=True)
class TokenSpec:
    """What the columns of ``tokens`` (F), of ``joints`` (G) and of ``traces`` (Q) mean.

    Slices of a named feature's columns raise KeyError for an unknown name.
    """

    token: tuple[Feature, ...]
    joint: tuple[Feature, ...] = ()
    trace: tuple[Feature, ...] = ()

    @property
    def token_size(self) -> int:
        """F, the number of columns of ``tokens``."""
        return sum(feature.size for feature in self.token)

    @property
    def joint_size(self) -> int:
        """G, the number of columns of ``joints``; 0 where tokens have no joints."""
        return sum(feature.size for feature in self.joint)

    @property
    def trace_size(self) -> int:
        """Q, the number of columns of ``traces``; 0 where there are none."""
        return sum(feature.size for feature in self.trace)

    @property
    def has_neighbors(self) -> bool:
        """Whether ``neighbors`` are told, and in ``traces`` how well they match."""
        return any(feature.name == "match" for feature in self.trace)

    def token_slice(self, name: str) -> slice:
        """Columns of a feature of ``tokens``."""
        return _slice(self.token, name)

    def joint_slice(self, name: str) -> slice:
        """Columns of a feature of ``joints``."""
        return _slice(self.joint, name)

    def trace_slice(self, name: str) -> slice:
        """Columns of a feature of ``traces``."""
        return _slice(self.trace, name)

    def token_is_state(self) -> np.ndarray:
        """(F,) bool: the columns that a running normaliser may scale."""
        return _is_state(self.token)

    def joint_is_state(self) -> np.ndarray:
        """(G,) bool: the columns that a running normaliser may scale."""
        return _is_state(self.joint)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        parts = ("token", "joint", "trace") if self.trace else ("token", "joint")
        return {part: [vars(feature) for feature in getattr(self, part)] for part in parts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenSpec:
        """Inverse of :meth:`to_dict`."""
        parts = (values["token"], values["joint"], values.get("trace", ()))
        return cls(*(tuple(Feature(**feature) for feature in part) for part in parts))


def _slice(features: tuple[Feature, ...], name: str) -> slice:
    start = 0
    for feature in features:
        if feature.name == name:
            return slice(start, start + feature.size)
        start += feature.size
    raise KeyError(f"no feature {name!r}; there are {[f.name for f in features]}")


def _is_state(features: tuple[Feature, ...]) -> np.ndarray:
    return np.array([feature.kind == "state" for feature in features for _ in range(feature.size)], bool)


def limb_observation_space(spec: TokenSpec, n_limbs: int, n_joints: int) -> spaces.Dict:
    """Space of one body's observation: ``n_limbs`` (N) token and ``n_joints`` (J) joint slots."""
    return spaces.Dict(
        {
            "tokens": _real(n_limbs, spec.token_size),
            "mask": _flags(n_limbs),
            "parent": spaces.Box(-1, n_limbs - 1, (n_limbs,), np.int32),
            "joints": _real(n_limbs, n_joints, spec.joint_size),
            "joint_mask": _flags(n_limbs, n_joints),
            "action_mask": _flags(n_limbs, n_joints),
        }
    )


def limb_action_space(n_limbs: int, n_joints: int) -> spaces.Box:
    """Nominal actions, (N, J) in [-1, 1]; slots without an actuator are ignored."""
    return spaces.Box(-1.0, 1.0, (n_limbs, n_joints), np.float32)


def sensor_observation_space(
    spec: TokenSpec,
    n_tokens: int,
    recent_actions: tuple[int, int],
    n_privileged: int,
    n_sensors: int = 0,
    are_pictures: bool = False,
) -> spaces.Dict:
    """Space of a sensor task's observation.

    Args:
        spec: of its tokens.
        n_tokens: N.
        recent_actions: (K, A).
        n_privileged: privileged readings; 0: they are not told.
        n_sensors: S, of the task, to tell which sensor stands in each slot; 0: that is not told.
        are_pictures: whether tokens are grey levels.
    """
    shape = (n_tokens, spec.token_size)
    boxes = {
        "tokens": spaces.Box(0, 255, shape, np.uint8) if are_pictures else _real(*shape),
        "recent_actions": _real(*recent_actions),
        "mask": _flags(n_tokens),
    }
    if n_privileged:
        boxes["privileged"] = _real(n_privileged)
    if spec.trace_size:
        boxes["traces"] = _real(n_tokens, spec.trace_size)
    if n_sensors:
        boxes["sensor"] = spaces.Box(0, n_sensors, (n_tokens,), np.int32)
    if spec.has_neighbors:
        boxes["neighbors"] = spaces.Box(0, n_tokens - 1, (n_tokens, 4), np.int32)
    return spaces.Dict(boxes)


def _real(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _flags(*shape: int) -> spaces.Box:
    return spaces.Box(0, 1, shape, np.int8)
