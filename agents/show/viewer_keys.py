"""The keys of ``somite-view``: what each of them does, and in which tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """What can be pressed.

    Args:
        action: of `Session.press`.
        label: on the keyboard.
        short: what it does, in a word or two.
        what: it does.
        kinds: of tasks in which it does.
    """

    action: str
    label: str
    short: str
    what: str
    kinds: tuple[str, ...] = ("limbs", "sensors", "patches")


KEYS = (
    Key("pause", "Space", "pause", "pause, or go on"),
    Key("step", "Right", "one step", "one step, in a pause"),
    Key("slower", "-", "slower", "slower, to a tenth of real time"),
    Key("faster", "=", "faster", "faster, to eight times real time"),
    Key("restart", "Backspace", "again", "the same episode again, with everything whole"),
    Key("next", "N", "next", "the next body; where there is one only, its next episode or track"),
    Key("shuffle", "X", "shuffle", "put the sensors into another order", ("sensors", "patches")),
    Key("choose", "Down", "next joint", "choose the next joint", ("limbs",)),
    Key("choose_back", "Up", "joint before", "choose the joint before", ("limbs",)),
    Key("lock", "J", "lock joint", "lock the chosen joint at its angle", ("limbs",)),
    Key("kill", "U", "kill actuator", "kill the chosen joint's actuator", ("limbs",)),
    Key("lock_leg", "E", "lock leg", "lock the chosen joint's limb and all that hang from it", ("limbs",)),
    Key("push", "P", "push", "push the body forwards, by 1 m/s", ("limbs",)),
    Key("push_back", "B", "push back", "push it backwards", ("limbs",)),
)
ACTIONS = {key.action: key for key in KEYS}
"""By action."""
