"""Suites of conditions: what is otherwise than in training, as ``conf/suite`` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import hydra

from ...envs.errors import UserError, nearest
from ...envs.locomotion import BodyVariation, Damage, World
from ...envs.numbers import FLAG, NULL, POSITIVE, SEED, TEXT, VALUES, listed, real, whole
from ...envs.task_set import with_changes

KINDS = ("limbs", "sensors", "patches")
OTHER_BODIES = "unseen_morphology"  # the suite in which a policy is compared with one that saw all bodies

# Values at which senses and scenery are those of the task itself.
UNDISTURBED: dict[str, Any] = {
    "senses": {
        "shuffle": "never", "duplicates": 0, "noise_channels": 0, "missing": 0.0, "blinking": 0.0, "stuck": 0,
    },
    "scenery": {"background": "grass", "motion": 0.0, "color_shift": 0.0, "bars": False, "blob": False},
}  # fmt: skip
# Nodes of bodies that say nothing when nothing varies, and what they build.
VARIED = {"variation": BodyVariation, "damage": Damage, "world": World}

STARTS = {"from_policy": "from the policy", "from_nothing": "from nothing"}
"""What a body's own training begins with, as a suite's keys and as the names of its conditions."""
EXPLORATION = "exploration"  # key of a start

_SWEEP_VALUES = {
    "values": listed(real() | TEXT, 1),
    "reference_at": real() | NULL,
    "logarithmic": FLAG,
    "as_range": FLAG,
    "disturbs": FLAG,
}


@dataclass(frozen=True)
class Training:
    """What is learnt on each body before its episodes."""

    start: str  # of `STARTS`
    after: int  # steps, as the suite says
    steps: int  # of whole rollouts
    seed: int
    settings: Mapping[str, Any]  # a node of ``conf/algorithm``
    exploration: float | None  # deviation of the actions at the start; None: the policy's, or its default


@dataclass(frozen=True)
class Condition:
    """One way in which the world is otherwise."""

    name: str  # within its suite
    env: Mapping[str, Any] = field(default_factory=dict)  # changes, as in ``env`` of ``conf/evaluate.yaml``
    bodies: Any = "all"  # which, where bodies are concerned: ``all``, ``seen``, ``unseen``, or names
    disturbed_at: int | None = None  # step at which something happens that an agent may recover from
    sweep: str | None = None  # name of the series that it belongs to, if any
    x: float | None = None  # its place in that series
    training: Training | None = None  # on each body, before its episodes


@dataclass(frozen=True)
class Sweep:
    """A series of conditions along one quantity."""

    name: str  # within its suite
    label: str  # of the axis, with its unit
    logarithmic: bool = False  # whether the axis is
    reference_at: float | None = None  # where the suite's first condition stands on this axis; None: nowhere


@dataclass(frozen=True)
class Suite:
    """Conditions that belong together. The first is what the others are compared with."""

    name: str  # of its file in ``conf/suite``
    title: str  # for people
    fits: tuple[str, ...]  # kinds of tokens that it has a meaning for
    needs: tuple[str, ...]  # nodes that the environment's configuration must have
    conditions: tuple[Condition, ...]  # in order, those of the series last
    sweeps: Mapping[str, Sweep]  # the series, by name

    @property
    def trains(self) -> bool:
        """Whether bodies are trained on before they are tried."""
        return any(condition.training for condition in self.conditions)

    def why_not(self, kind: str, environment: Mapping[str, Any]) -> str | None:
        """Why it has no meaning for an agent of that kind of tokens, trained in that environment; or None."""
        if kind not in self.fits:
            return f"it is for agents of {' and '.join(self.fits)}, this one's tokens are {kind}"
        lacking = [name for name in self.needs if name not in environment]
        return f"the agent's environment has no {lacking[0]}" if lacking else None


def undisturbed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved environment's configuration without what disturbs senses, bodies or the world.

    Training may shuffle, drown in noise, vary and break; a suite says itself what happens.
    """
    present = {name: values for name, values in UNDISTURBED.items() if config.get(name) is not None}
    plain = with_changes(config, present)
    for name in VARIED:
        if plain.get(name):
            plain[name] = {key: value for key, value in plain[name].items() if key == "_target_"}
    return plain


def read_suite(name: str, node: Mapping[str, Any]) -> Suite:
    """A suite of a node of ``conf/suite``. Raises UserError: an unknown key or an invalid value."""
    trained = ("bodies", "steps", "seed", "training", *STARTS) if "training" in node else ()
    _check_keys(name, node, "title", "fits", "needs", "conditions", "sweeps", *trained)
    fits = tuple(node.get("fits") or KINDS)
    for kind in fits:
        if kind not in KINDS:
            raise UserError(f"suite.{name}.fits: there is no kind {kind!r}; {nearest(str(kind), KINDS)}")
    conditions, sweeps = _read_trainings(name, node) if trained else [], {}
    for key, own in (node.get("conditions") or {}).items():
        place, own = f"{name}.conditions.{key}", own or {}
        _check_keys(place, own, "env", "bodies", "disturbed_at")
        at = (whole(1) | NULL).read(f"suite.{place}.disturbed_at", own.get("disturbed_at"))
        conditions.append(Condition(str(key), own.get("env") or {}, own.get("bodies") or "all", at))
    for key, own in (node.get("sweeps") or {}).items():
        sweeps[str(key)], swept = _read_sweep(f"{name}.sweeps.{key}", str(key), own)
        conditions += swept
    if not conditions:
        raise UserError(f"suite.{name} has no conditions")
    title = str(node.get("title") or name.replace("_", " "))
    return Suite(name, title, fits, tuple(node.get("needs") or ()), tuple(conditions), sweeps)


def _read_trainings(suite: str, node: Mapping[str, Any]) -> list[Condition]:
    """Conditions after each number of steps from each start, the policy as it is first."""
    steps = sorted(set(listed(whole(), 1).read(f"suite.{suite}.steps", node.get("steps"))))
    seed = SEED.read(f"suite.{suite}.seed", node.get("seed", 0))
    common = VALUES.read(f"suite.{suite}.training", node["training"])
    known, conditions = (EXPLORATION, *common), []
    for start, words in STARTS.items():
        own = node.get(start) or {}
        for key in VALUES.read(f"suite.{suite}.{start}", own):
            if key not in known:
                raise UserError(f"suite.{suite}.{start} has no key {key!r}; {nearest(str(key), known)}")
        settings = {**common, **own}
        place = f"suite.{suite}.{start}.{EXPLORATION}"
        exploration = (POSITIVE | NULL).read(place, settings.pop(EXPLORATION, None))
        try:
            algorithm = hydra.utils.instantiate(settings, _convert_="all")
        except hydra.errors.InstantiationException as error:
            said = str(error.__cause__)
            key = said.partition(" ")[0].removeprefix("algorithm.")
            place = f"suite.{suite}.{start if key in own else 'training'}."
            raise UserError(said.replace("algorithm.", place, 1)) from error
        if "total_steps" not in algorithm.without_influence():
            raise UserError(
                f"suite.{suite}.training.learning_rate_schedule must be constant: what is learnt in so many "
                "steps may not depend on how many follow"
            )
        rollout = algorithm.num_envs * algorithm.n_steps
        for after in steps:
            training = Training(start, after, -(-after // rollout) * rollout, seed, settings, exploration)
            name = f"{words}, {after:,} steps"
            conditions.append(Condition(name, bodies=node.get("bodies") or "all", training=training))
    return conditions


def _read_sweep(place: str, name: str, node: Mapping[str, Any]) -> tuple[Sweep, list[Condition]]:
    """A series: the ``key`` takes each of ``values``; ``env`` holds what else is changed."""
    _check_keys(place, node, "label", "key", *_SWEEP_VALUES, "env", "bodies")
    for key in ("key", "values"):
        if not node.get(key):
            raise UserError(f"suite.{place} lacks {key}")
    for key, valid in _SWEEP_VALUES.items():
        if key in node:
            valid.read(f"suite.{place}.{key}", node[key])
    conditions = []
    for value in node["values"]:
        at = whole(1).read(f"suite.{place}.values", value) if node.get("disturbs") else None
        if node.get("logarithmic") and (isinstance(value, str) or not value > 0):
            raise UserError(f"suite.{place} is logarithmic, so its values are above 0, got {value!r}")
        # What is drawn from a range becomes one value: [2, 2].
        change: Any = [value, value] if node.get("as_range") else value
        for part in reversed(str(node["key"]).split(".")):
            change = {part: change}
        env = with_changes(node.get("env") or {}, change)
        shown = f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"
        conditions.append(Condition(shown, env, node.get("bodies") or "all", at, name, value))
    label = str(node.get("label") or name.replace("_", " "))
    return Sweep(name, label, bool(node.get("logarithmic")), node.get("reference_at")), conditions


def _check_keys(place: str, node: Any, *known: str) -> None:
    if not isinstance(node, Mapping):
        raise UserError(f"suite.{place} must be keys and values, got {node!r}")
    for key in node:
        if key not in known:
            raise UserError(f"suite.{place} has no key {key!r}; {nearest(str(key), known)}")
