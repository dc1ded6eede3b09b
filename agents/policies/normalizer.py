"""Running normalisation of token sets: one scale and shift per feature, for all tokens or for each slot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.tokens import TokenSpec

KEYS = {
    "token": ("tokens", "mask"),
    "joint": ("joints", "joint_mask"),
    "trace": ("traces", "mask"),
    "privileged": ("privileged", None),
}
"""Of an observation: what is normalised, and what says where it exists; None: everywhere."""

TURNED = "angle", "phase", "speed", "axis_now", "activation", "axis", "range", "rest", "control_range"
"""Features of a joint that have the opposite sign about the opposite axis."""

SIDE = (0.31, 0.82, 0.48)
"""To which axes point, x, y, z of the limb's frame: foremost along y, about which planar bodies turn, and at
a right angle to no axis that a body is likely to have."""

TRACES_AT_ONCE = 2**16
"""Slots of whose traces an update takes account."""


class TokenNormalizer(nn.Module):
    """Bring the state columns of ``tokens`` and ``joints`` to zero mean and unit deviation.

    All tokens share one scale and shift per column, and so do all joint rows; hence normalising
    commutes with any permutation and fits any body. Descriptor columns are left alone (scale 1, shift 0,
    unclipped): they stand in fixed units, and in training on one body their deviation would be zero. Before
    the first `update` the state columns are left alone, too, but for the clipping.

    `update` alone writes buffers. Statistics are kept in float64 and merged by the parallel formula of
    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979,
    so that the size of the chunks does not matter.

    Args:
        spec: What the columns mean, F of a token and G of a joint row.
        n_privileged: S, readings that the critic sees, each with a scale and shift of its own.
        fixed: Leave tokens and joints alone, as published agents that have no normaliser do; traces of
            patches are normalised all the same.
        floor: Smallest standard deviation divided by, in the feature's unit; a column that happens
            to be constant in training (the sideways motion of a planar body) is not blown up.
        limit: Normalised states are clipped to [-limit, limit].
        slots: N of an ordinary network, whose slots have fixed meanings: each has its own scale and shift
            of the columns of tokens; 0: shared by all.
        one_way: Read each joint as if its axis pointed to one side, see `turned`. A joint about an axis and
            one about the opposite axis are the same joint with angles, speeds and actions of opposite sign;
            so they look the same, and a policy whose actions are turned back treats them alike.
    """

    def __init__(
        self,
        spec: TokenSpec,
        n_privileged: int = 0,
        fixed: bool = False,
        floor: float = 1e-2,
        limit: float = 10.0,
        slots: int = 0,
        one_way: bool = False,
    ) -> None:
        super().__init__()
        self.slots, self.floor, self.limit, self.one_way = slots, floor, limit, one_way
        if one_way:
            sign = torch.ones(spec.joint_size)
            for name in (feature.name for feature in spec.joint if feature.name in TURNED):
                sign[spec.joint_slice(name)] = -1
            self.axis = spec.joint_slice("axis")
            self.columns = [(f.name, spec.joint_slice(f.name)) for f in spec.joint]
            for name, values in (("sign", sign), ("side", torch.tensor(SIDE))):
                self.register_buffer(f"turned_{name}", values, persistent=False)
        kinds = {"token": spec.token_is_state() & (not fixed), "joint": spec.joint_is_state() & (not fixed)}
        if spec.trace_size:
            kinds["trace"] = np.ones(spec.trace_size, bool)
        if n_privileged:
            kinds["privileged"] = np.ones(n_privileged, bool)
        self.kinds = tuple(kinds)
        for kind, columns in kinds.items():
            is_state, per_slot = torch.from_numpy(columns), (slots,) if slots and kind == "token" else ()
            size = (*per_slot, len(columns))
            # Known from the spec, hence not part of what is saved.
            self.register_buffer(f"{kind}_is_state", is_state, persistent=False)
            limits = torch.where(is_state, limit, torch.inf)
            self.register_buffer(f"{kind}_limit", limits, persistent=False)
            count = torch.zeros((*per_slot, 1) if per_slot else (), dtype=torch.float64)
            self.register_buffer(f"{kind}_count", count)
            self.register_buffer(f"{kind}_mean", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{kind}_squares", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{kind}_shift", torch.zeros(size))
            self.register_buffer(f"{kind}_scale", torch.ones(size))

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Normalised tokens (..., N, F), and joints (..., N, J, G) or None if there are no joints."""
        return self.tokens(observation), self.joints(observation) if "joints" in observation else None

    def tokens(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Normalised tokens (..., N, F), zero at padding."""
        return self._normalize("token", observation)

    def joints(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Normalised joint rows (..., N, J, G), zero at padding."""
        return self._normalize("joint", observation)

    def traces(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Normalised traces (..., N, Q), zero where there is no patch."""
        return self._normalize("trace", observation)

    def privileged(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Normalised readings (..., S) for a critic."""
        return self._normalize("privileged", observation)

    @torch.no_grad()
    def update(self, observation: Mapping[str, Tensor]) -> None:
        """Merge the valid tokens and joint rows of a batch, with any leading dimensions, into the statistics.

        Raises:
            ValueError: A state feature of a valid token or joint row is not finite.
        """
        for kind in self.kinds:
            if KEYS[kind][0] in observation and getattr(self, f"{kind}_is_state").any():
                values, exists = self._part(kind, observation)
                if kind == "trace":  # slots are many: a part of the samples tells as much
                    stride = -(-exists.numel() // TRACES_AT_ONCE)
                    values, exists = values.flatten(0, -3)[::stride], exists.flatten(0, -2)[::stride]
                self._merge(kind, values, exists)

    def turned(self, joints: Tensor) -> Tensor:
        """Where joints (..., J, G), as observed, have an axis that points away from `SIDE`, (..., J) bool."""
        return (joints[..., self.axis] * self.turned_side).sum(-1) < 0

    def _part(self, kind: str, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Values of a kind, and where they exist."""
        key, mask = KEYS[kind]
        values = observation[key]
        exists = values.new_ones(values.shape[:-1]) if mask is None else observation[mask]
        if self.one_way and kind == "joint":
            # In pieces, which is several times as fast as by the numbers of the columns.
            pieces = [(name, values[..., columns]) for name, columns in self.columns]
            # Of a range, which goes from low to high, the ends change places.
            pieces = [piece.flip(-1) if name.endswith("range") else piece for name, piece in pieces]
            turned = torch.cat(pieces, -1) * self.turned_sign
            values = torch.where(self.turned(values).unsqueeze(-1), turned, values)
        return values, exists != 0

    def _normalize(self, kind: str, observation: Mapping[str, Tensor]) -> Tensor:
        values, exists = self._part(kind, observation)
        shift, scale, limit = (getattr(self, f"{kind}_{name}") for name in ("shift", "scale", "limit"))
        values = ((values.to(shift.dtype) - shift) * scale).clamp(-limit, limit)
        # Selecting, not multiplying: nothing that stands at padding gets through, not even NaN.
        return torch.where(exists.unsqueeze(-1), values, 0.0)

    def _merge(self, kind: str, values: Tensor, exists: Tensor) -> None:
        is_state = getattr(self, f"{kind}_is_state")
        if self.slots and kind == "token":  # all rows (R, N, F), and which exist, (R, N, 1)
            rows, exists = values.flatten(0, -3), exists.flatten(0, -2).unsqueeze(-1)
        else:  # those that exist, (R, F)
            rows = values[exists]
            exists = torch.ones_like(rows[:, :1], dtype=torch.bool)
        rows = torch.where(is_state & exists, rows.to(torch.float64), 0.0)
        if not torch.isfinite(rows).all():
            columns = (~torch.isfinite(rows)).flatten(0, -2).any(0).nonzero().flatten().tolist()
            raise ValueError(f"NaN or infinite numbers in {kind} columns {columns}")
        count, mean, squares = (getattr(self, f"{kind}_{name}") for name in ("count", "mean", "squares"))
        new = exists.sum(0).to(torch.float64).reshape(count.shape)  # new: () or, of each slot, (N, 1)
        row_mean = rows.sum(0) / new.clamp(min=1)
        row_squares = ((rows - row_mean) * exists).square().sum(0)
        total = (count + new).clamp(min=1)
        difference = row_mean - mean
        squares += row_squares + difference.square() * (count * new / total)
        mean += difference * (new / total)
        count += new
        deviation = (squares / total).sqrt().clamp(min=self.floor)
        getattr(self, f"{kind}_shift").copy_(mean)  # descriptors: mean 0
        getattr(self, f"{kind}_scale").copy_(torch.where(is_state & (count > 0), 1 / deviation, 1.0))
