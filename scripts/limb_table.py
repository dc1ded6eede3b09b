"""Prints the page of what a limb observes: ``python scripts/limb_table.py > docs/limb_observation.md``."""

from __future__ import annotations

from somite.envs.locomotion import LIMB_SPEC
from somite.envs.tokens import Feature

HEAD = """# What a limb observes

Written by `python scripts/limb_table.py` from `envs/locomotion/features.py`; a test holds it to that file.

An observation is a set of limbs: a Gymnasium `Dict` with N limb slots and J joint slots of a limb. N and J
are the largest of the bodies that are simulated together; no shared parameter depends on them.

| key | shape | meaning |
|---|---|---|
| `tokens` | (N, {token_size}) float32 | features of each limb, below |
| `mask` | (N,) int8 | 1 where the limb exists; 0 is padding, whose values are 0 |
| `parent` | (N,) int32 | index of the limb this one hangs from, -1 for the root |
| `joints` | (N, J, {joint_size}) float32 | features of each joint of each limb, below |
| `joint_mask` | (N, J) int8 | 1 where the joint exists |
| `action_mask` | (N, J) int8 | 1 where an actuator drives the joint |

Actions are (N, J), in [-1, 1], affine to each actuator's control range. The order of limbs, children and
joints carries no information. The joints by which the root moves in the world are not shown: only its
height and its tilt are.

Vectors are in the *yaw frame*: origin at the root, x along the root's heading on the ground, z up. So moving
a body along the ground, or turning it and its goal together, changes nothing. A running normaliser may scale
a *state*; a *descriptor* stands in fixed units. Positions, orientations and velocities of limbs are one
substep of the simulation behind the joints' state, as in Gymnasium.
"""


def table(features: tuple[Feature, ...]) -> str:
    """Markdown table of the columns."""
    lines = ["| columns | feature | kind | unit | meaning |", "|---|---|---|---|---|"]
    start = 0
    for feature in features:
        end = start + feature.size - 1
        columns = f"{start}" if feature.size == 1 else f"{start} to {end}"
        cells = (columns, f"`{feature.name}`", feature.kind, feature.unit, feature.meaning)
        lines.append("| " + " | ".join(cells) + " |")
        start += feature.size
    return "\n".join(lines)


def page() -> str:
    """The whole of ``docs/limb_observation.md``."""
    head = HEAD.format(token_size=LIMB_SPEC.token_size, joint_size=LIMB_SPEC.joint_size)
    limb, joint = table(LIMB_SPEC.token), table(LIMB_SPEC.joint)
    return f"{head}\n## A limb: `tokens`\n\n{limb}\n\n## A joint: `joints`\n\n{joint}\n"


if __name__ == "__main__":
    print(page(), end="")
