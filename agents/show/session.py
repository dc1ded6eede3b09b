"""Playing an agent by hand: one environment, what keys do to it, and what is said about it. No window."""

from __future__ import annotations

import abc
import queue
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partialmethod

import mujoco
import numpy as np

from ...envs.errors import UserError, nearest
from ...envs.locomotion.bodies import families
from ...envs.locomotion.bodies.morphology import Morphology
from ...envs.locomotion.varied.damage import DEAD, LOCKED
from ...envs.sensors.mujoco_source import MujocoSource
from ...envs.task_set import TaskSet
from ..agent import Agent
from ..composition import check_fit
from ..evaluation.runs import fits_no_other
from .inside import attention_of, by_channel, messages_of, shown_by_slots, token_names

PUSH = 1.0  # m/s by which a push alone would change the velocity of the whole body
SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # times real time
MOST_LAG = 0.1  # seconds that are made up for at most, where a step takes longer than it lasts
REST = 1.0  # seconds between an episode's end and the next one
_WAYS = {DEAD: "dead", LOCKED: "locked"}
_SENSES = ("sensors", "patches")


@dataclass(frozen=True)
class Key:
    """A key of ``somite-view``."""

    action: str  # of `Session.press`
    label: str  # on the keyboard
    short: str  # what it does, in a word or two
    what: str  # it does
    kinds: tuple[str, ...] = ("limbs", *_SENSES)  # of tasks in which it does


KEYS = (
    Key("pause", "Space", "pause", "pause, or go on"),
    Key("step", "Right", "one step", "one step, in a pause"),
    Key("slower", "-", "slower", "slower, to a tenth of real time"),
    Key("faster", "=", "faster", "faster, to eight times real time"),
    Key("restart", "Backspace", "again", "the same episode again, with everything whole"),
    Key("next", "N", "next", "the next body; where there is one only, its next episode or track"),
    Key("shuffle", "X", "shuffle", "put the sensors into another order", _SENSES),
    Key("choose", "Down", "next joint", "choose the next joint", ("limbs",)),
    Key("choose_back", "Up", "joint before", "choose the joint before", ("limbs",)),
    Key("lock", "J", "lock joint", "lock the chosen joint at its angle", ("limbs",)),
    Key("kill", "U", "kill actuator", "kill the chosen joint's actuator", ("limbs",)),
    Key("lock_leg", "E", "lock leg", "lock the chosen joint's limb and all that hang from it", ("limbs",)),
    Key("push", "P", "push", "push the body forwards, by 1 m/s", ("limbs",)),
    Key("push_back", "B", "push back", "push it backwards", ("limbs",)),
)
ACTIONS = {key.action: key for key in KEYS}


@dataclass(frozen=True)
class Bars:
    """Numbers with names, to be drawn as bars: ``title`` says what they are."""

    title: str
    names: tuple[str, ...]
    values: np.ndarray


class Session:
    """One agent in one environment that somebody looks at.

    An episode is that of `run_episodes` with the same seed and number as long as no key changes it.

    Args:
        agent: acts deterministically.
        task_set: gives the task, with its conditions.
        bodies: to go through: ``all``, ``seen``, ``unseen``, names, also of other families than those of
            the task set; None: all, unseen ones first.
        seed: of the starts.

    Attributes:
        body: name of the present body, or of the task.
        opened: counts the environments made so far: a window then shows another model.
        keys: those that do something here; said: what the last one did.

    Raises:
        UserError: an unknown body, or one that the policy does not fit.
    """

    def __init__(
        self,
        agent: Agent,
        task_set: TaskSet,
        bodies: str | Sequence[str] | None = None,
        seed: int = 1000,
    ) -> None:
        self.agent, self.task_set, self.seed = agent, task_set, seed
        self.kind = task_set.kind
        self.keys = tuple(key for key in KEYS if self.kind in key.kinds)
        self._bodies = _chosen(agent, task_set, bodies)
        self._orders = np.random.default_rng([seed, 1])
        self.paused, self.speed, self.said = False, 1.0, ""
        self._place, self.opened, self._debt, self.env = 0, 0, 0.0, None
        self._open()

    def _open(self) -> None:
        self.close()
        body = self._bodies[self._place]
        of_limbs = self.kind == "limbs"
        options = {"autoreset": False, "editable": True} if of_limbs else {"once": True}
        if isinstance(body, Morphology):
            options["frame_skip"] = None  # a family's number of substeps belongs to its time step
        aligned = self.agent.policy.aligned_slots
        self.env = self.task_set.make_env([body], 1, aligned=aligned, threads=1, **options)
        if not of_limbs:
            check_fit(self.agent.policy, self.env)
        self.body = body.name if isinstance(body, Morphology) else body
        self.parts = self.env.parts(0) if of_limbs else ()
        self.names = token_names(self.env)
        self._choices = [index for index, part in enumerate(self.parts) if part.ways]
        self.chosen = next(iter(self._choices), 0)
        self.opened += 1
        self._begin(0)

    def _begin(self, episode: int) -> None:
        self.agent.reset()
        self.observation = self.env.reset([[self.seed, episode]])
        self.episode, self.steps, self.total, self.reward = episode, 0, 0.0, 0.0
        self.ended, self.shuffles, self._shuffle_due = "", 0, False
        self.broken: dict[int, int] = {}
        self._look()

    def _look(self) -> None:
        """What goes on inside, before the agent acts on what it sees now."""
        attention = attention_of(self.agent, self.observation)
        if attention is not None:
            own = attention[0]
            attention = by_channel(own, shown_by_slots(self.env)) if own.ndim == 1 else own.mean((0, 1))
        self.attention: np.ndarray | None = attention
        self.messages = messages_of(self.agent, self.observation)

    @property
    def step_duration(self) -> float:
        """Seconds that a step lasts at speed 1."""
        if self.kind == "patches":
            return 1 / self.task_set.frames_per_second
        return (self.env if self.kind == "limbs" else self.env.source).step_duration

    def play(self, elapsed: float) -> int:
        """Let ``elapsed`` seconds go by, at the present speed; the number of steps that were made."""
        if self.paused:
            return 0
        self._debt += min(elapsed, MOST_LAG) * self.speed
        made = 0
        while self._debt >= self.step_duration:
            self._debt -= self.step_duration
            self.advance()
            made += 1
            if self.ended:
                self._debt = -REST * self.speed
        return made

    def advance(self) -> None:
        """One step; after the end of an episode, the first moment of the next."""
        if self.ended:
            self._begin(self.episode + 1)
            return
        if self._shuffle_due:
            self.env.reorder(0, self._orders)
            self._shuffle_due = False
        step = self.env.step(self.agent.act(self.observation).to(self.env.device))
        self.observation, self.reward = step.observation, float(step.rewards[0])
        self.total += self.reward
        self.steps += 1
        if step.ended[0]:
            why = "it failed" if step.terminated[0] else "its time was over"
            self.ended = f"episode {self.episode} ended after {self.steps} steps, {why}: {self.total:.1f}"
            self.said = self.ended
        self._look()

    def press(self, action: str) -> None:
        """Do what the key of an action does. What does not fit the task is said, and nothing is done."""
        if action not in ACTIONS:
            raise UserError(f"no key does {action!r}; {nearest(action, ACTIONS)}")
        key = ACTIONS[action]
        if self.kind in key.kinds:
            self.said = getattr(self, f"_press_{action}")()
        else:
            self.said = f"{key.label} is for {' and '.join(key.kinds)}; this is a task of {self.kind}"

    def _press_pause(self) -> str:
        self.paused = not self.paused
        return "paused" if self.paused else "goes on"

    def _press_step(self) -> str:
        if not self.paused:
            return f"{ACTIONS['pause'].label} pauses; then it goes step by step"
        self.said = ""
        self.advance()
        return self.said or "one step"

    def _to_speed(self, change: int) -> str:
        place = SPEEDS.index(self.speed) + change
        self.speed = SPEEDS[min(max(place, 0), len(SPEEDS) - 1)]
        return f"{self.speed:g} times real time"

    _press_slower, _press_faster = partialmethod(_to_speed, -1), partialmethod(_to_speed, 1)

    def _press_restart(self) -> str:
        self._begin(self.episode)
        return f"episode {self.episode} again"

    def _press_next(self) -> str:
        if len(self._bodies) == 1:
            self._begin(self.episode + 1)
            return f"episode {self.episode}"
        self._place = (self._place + 1) % len(self._bodies)
        self._open()
        return f"{self.body}, {self._place + 1} of {len(self._bodies)}"

    def _press_shuffle(self) -> str:
        self.shuffles += 1
        self._shuffle_due = True  # with the next readings: what is seen now came in the old order
        return "sensors come in another order from now on"

    def _choose(self, change: int) -> str:
        place = self._choices.index(self.chosen) + change
        self.chosen = self._choices[place % len(self._choices)]
        return f"{self.parts[self.chosen].name} is chosen"

    _press_choose, _press_choose_back = partialmethod(_choose, 1), partialmethod(_choose, -1)

    def _press_lock(self) -> str:
        return self._damage([self.chosen], LOCKED)

    def _press_kill(self) -> str:
        return self._damage([self.chosen], DEAD)

    def _press_lock_leg(self) -> str:
        leg = {self.parts[self.chosen].limb}
        for index, limb in enumerate(self.env.bodies[0].limbs):  # parents stand before children
            if limb.parent in leg:
                leg.add(index)
        return self._damage([i for i, part in enumerate(self.parts) if part.limb in leg], LOCKED)

    def _damage(self, parts: Sequence[int], kind: int) -> str:
        hit = [part for part in parts if kind in self.parts[part].ways and part not in self.broken]
        if not hit:
            names = ", ".join(self.parts[part].name for part in parts)
            return f"{names}: nothing there that can be {_WAYS[kind]} and is not yet broken"
        for part in hit:
            self.env.damage(0, part, kind)
            self.broken[part] = kind
        return f"{', '.join(self.parts[part].name for part in hit)}: {_WAYS[kind]}"

    def _push(self, speed: float) -> str:
        if not self.env.bodies[0].can_travel:
            return "its root is fixed: a push would not move it"
        direction = self.env.tasks[0].direction
        along = np.array([1.0, 0.0]) if isinstance(direction, str) else np.asarray(direction, float)
        self.env.push(0, speed * along / np.linalg.norm(along))
        return f"pushed by {speed:+g} m/s"

    _press_push, _press_push_back = partialmethod(_push, PUSH), partialmethod(_push, -PUSH)

    def scene(self) -> tuple[mujoco.MjModel, mujoco.MjData, int] | None:
        """The model, a copy of its state with kinematics, and the root body; None: no MuJoCo task."""
        if self.kind == "limbs":
            return self.env.simulated(0)
        source = self.env.source
        return source.simulated(0) if isinstance(source, MujocoSource) else None

    def text(self) -> list[tuple[str, str]]:
        """Names and values of what is said on the screen."""
        limit = self.env.max_episode_steps
        lines = [
            ("agent", type(self.agent.policy).__name__),
            ("body" if self.kind == "limbs" else "task", self.body),
            ("episode", f"{self.episode}, step {self.steps} of {limit}"),
            ("return", f"{self.total:.1f}, of the last step {self.reward:.2f}"),
            ("speed", "paused" if self.paused else f"{self.speed:g} x"),
        ]
        if self.kind == "limbs":
            broken = [f"{self.parts[part].name} {_WAYS[kind]}" for part, kind in self.broken.items()]
            lines.append(("chosen", self.parts[self.chosen].name))
            lines.append(("broken", ", ".join(broken) or "nothing"))
        else:
            lines.append(("shuffled", f"by hand {self.shuffles} x in this episode"))
        return [*lines, ("", self.said)]

    def inside(self) -> list[Bars]:
        """What goes on inside the policy: shares of the attention, or sizes of messages."""
        bars = []
        if self.attention is not None:
            bars.append(Bars("share of the attention", self.names, self.attention))
        limbs = self.env.bodies[0].limbs if self.messages else ()
        edges = [index for index, limb in enumerate(limbs) if limb.parent >= 0]
        for way, told in self.messages.items() if edges else ():
            pairs = [(limbs[edge].name, limbs[limbs[edge].parent].name) for edge in edges]
            ends = tuple(f"{a} > {b}" if way == "up" else f"{b} > {a}" for a, b in pairs)
            bars.append(Bars(f"messages {way} the body", ends, told[0, edges]))
        return bars

    def received(self) -> Bars | None:
        """The newest reading of every slot, named after the sensor that it shows; None but for sensors."""
        if self.kind != "sensors":
            return None
        names = tuple(self.names[channel] for channel in shown_by_slots(self.env))
        return Bars("readings, slot by slot", names, np.asarray(self.observation["tokens"][0, :, 0]))

    def close(self) -> None:
        """Let the simulation go."""
        if self.env is not None:
            self.env.close()
            self.env = None


def _chosen(agent: Agent, task_set: TaskSet, given: str | Sequence[str] | None) -> list[str | Morphology]:
    if given is None:
        return list(task_set.unseen + task_set.seen)
    found: list[str | Morphology] = []
    for name in [given] if isinstance(given, str) else given:
        try:
            found += task_set.choose(name)
        except UserError:
            if task_set.kind != "limbs":
                raise
            body = families.build(name)  # of another family; raises with the nearest name
            if agent.policy.aligned_slots:
                raise UserError(fits_no_other(agent, name)) from None
            found.append(body)
    return found


class Viewer(abc.ABC):
    """A window on a session, whose keys may be pressed in another thread."""

    def __init__(self) -> None:
        self._pressed: queue.SimpleQueue[str] = queue.SimpleQueue()

    def pressed(self) -> list[str]:
        """Actions of the keys that have been pressed since the last call."""
        return [self._pressed.get() for _ in range(self._pressed.qsize())]

    @property
    @abc.abstractmethod
    def is_open(self) -> bool:
        """Whether nobody has closed it."""

    @abc.abstractmethod
    def show(self, session: Session) -> None:
        """Draw the session as it is now."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close it."""
