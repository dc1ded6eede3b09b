"""The bodies of an experiment: which are trained on, which are held out, and the task they all do."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch

from ..errors import UserError, nearest
from ..numbers import NAMES, NULL, TEXT, VALUES, checked, listed, one_of, part, whole
from ..task_set import TaskSet, built_part
from .bodies import families
from .bodies.families import Split, checked_split, distinct, get_family, get_split
from .bodies.morphology import Morphology
from .bodies.user_bodies import SECONDS, UserBodies, absolute_source, read_user_bodies
from .env import LocomotionEnv
from .layout import grouped
from .task import LocomotionTask
from .varied.conditions import Varied
from .varied.damage import Damage
from .varied.variation import BodyVariation
from .varied.world import World

_PACKAGE = "somite.envs.locomotion"
_SUBSTEPS = whole(1, 1000) | NULL

FEW_STEPS, MOST_TRIED, SHORT_STEP = 25, 20, 0.004
"""Steps in which no robot should fall though nothing is done, robots of a folder that are tried, and seconds
in which hardly anything moves."""


@checked("env")
class BodySet(TaskSet):
    """Bodies of a family, split into seen and unseen ones.

    Args:
        family: name of a family, for example ``cheetah``.
        split: name of one of the family's splits (such as ``smp``), or ``all``.
        bodies: train on exactly these bodies instead (one name: a specialist); what else the split
            trains on is then left out, its unseen bodies stay unseen.
        frame_skip: substeps of a step; None: as many as take about 0.02 s.
        task: reward and termination.
        variation, damage, world: what varies between and within episodes.

    Raises:
        UserError: unknown family, split or body, or a body that is also held out.
    """

    parts = {"task": LocomotionTask, "variation": BodyVariation, "damage": Damage, "world": World}
    kind = "limbs"
    device_simulation = "warp"
    seen, unseen, max_episode_steps = (), (), 0
    spread_over = "bodies"

    def __init__(
        self,
        family: Annotated[str, TEXT],
        split: Annotated[str, TEXT] = "smp",
        bodies: Annotated[str | Sequence[str] | None, NAMES | NULL] = None,
        frame_skip: Annotated[int | None, _SUBSTEPS] = 5,
        task: Annotated[LocomotionTask | None, part(LocomotionTask)] = None,
        variation: Annotated[BodyVariation | None, part(BodyVariation)] = None,
        damage: Annotated[Damage | None, part(Damage)] = None,
        world: Annotated[World | None, part(World)] = None,
    ) -> None:
        varied = {"variation": variation, "damage": damage, "world": world}
        self._hold(get_family(family), get_split(family, split), bodies, task, varied)
        self.frame_skip = frame_skip

    def _hold(
        self,
        source: families.Family | UserBodies,
        split: Split,
        bodies: str | Sequence[str] | None,
        task: LocomotionTask | None,
        varied: dict[str, Any],
    ) -> None:
        self.source, self.split, self.task, self.varied = source, split, task or LocomotionTask(), varied
        if bodies is not None:
            names = [bodies] if isinstance(bodies, str) else bodies
            chosen, twins = distinct([source.canonical(name) for name in names], source.build)
            for twin, name in twins.items():
                warnings.warn(f"left out: {twin} is the same robot as {name}", stacklevel=4)
            self.split = checked_split(f"{split.name} with bodies", chosen, split.unseen, source.build)
        self.seen, self.unseen = (self._in_order(side) for side in (self.split.seen, self.split.unseen))
        self.max_episode_steps = self.task.max_episode_steps

    @property
    def sets(self) -> tuple[BodySet, ...]:
        """One for each family, which has a task of its own."""
        return (self,)

    def set_of(self, body: str | Morphology) -> BodySet:
        """That of `sets` whose task and ``frame_skip`` a body has. Raises UserError: none of them."""
        return self

    def canonical(self, name: str, also: Iterable[str] = ()) -> str:
        """The name for a name or alias. Raises UserError, with the nearest name or word in ``also``."""
        return self.source.canonical(name, also)

    def cut_short(self, steps: int) -> BodySet:  # noqa: D102
        limit = min(steps, self.task.max_episode_steps)
        task = dataclasses.replace(self.task, max_episode_steps=limit)
        return self.changed(task=task, max_episode_steps=limit)

    def _in_order(self, names: Sequence[str]) -> tuple[str, ...]:
        """A side of the split; of a grouped family, bodies of one layout lie beside each other."""
        if not getattr(self.source, "grouped", False):
            return tuple(names)
        return tuple(body.name for body in grouped([self.source.build(name) for name in names]))

    def hashes(self) -> dict[str, str]:
        """Of the bodies that are trained on, by name."""
        return {name: self.morphology(name).hash for name in self.seen}

    def identities(self) -> dict[str, str]:
        """Of the bodies that are trained on, whatever scene they stand in, by name."""
        return {name: self.morphology(name).identity for name in self.seen}

    def choose(self, bodies: str | Sequence[str]) -> tuple[str, ...]:
        """Names for ``all``, ``seen``, ``unseen``, one name or several. Raises UserError."""
        groups = {"all": self.seen + self.unseen, "seen": self.seen, "unseen": self.unseen}
        if isinstance(bodies, str):
            if bodies in groups:
                return groups[bodies]
            bodies = [bodies]
        return tuple(self.canonical(name, groups) for name in bodies)

    def morphology(self, name: str) -> Morphology:
        """The body of that name. Raises UserError for an unknown one."""
        return self.source.build(self.source.canonical(name))

    def why_not_on_device(self) -> str | None:  # noqa: D102
        varied = Varied.read(**self.varied)
        return varied and varied.why_not_on_device()

    def make_env(
        self,
        names: Sequence[str | Morphology] | None = None,
        num_envs: int | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> LocomotionEnv:
        """See `TaskSet.make_env`; ``options`` are those of `LocomotionEnv`."""
        bodies = self.seen if names is None else names
        built = [self.morphology(body) if isinstance(body, str) else body for body in bodies]
        own = [self.set_of(body) for body in bodies]
        options = {"frame_skip": [one.frame_skip for one in own], **self.varied, **options}
        if self.spread_over == "families" and names is None:
            options["weights"] = [1 / len(one.seen) for one in own]
        if self.simulation != "cpu":
            options |= {"device": device, "simulation": self.simulation, **self.device_options}
        return LocomotionEnv(built, num_envs, [one.task for one in own], **options)


@checked("env")
class FamilySet(BodySet):
    """Bodies of several families, each with the task of its family.

    Args:
        families: their names, for example ``[cheetah, walker]``.
        split: name of a split that each of them has, or ``all``; None: that of each one's ``settings``.
        unseen: bodies that are held out beside those of the split.
        bodies: train on exactly these instead, of any of the families.
        settings: of each family: its task, ``frame_skip``, split and bodies.
        spread_over: in training, environments are spread evenly over ``bodies`` or over ``families``.
        variation, damage, world: of all, as of `BodySet`.

    Raises:
        UserError: as by `BodySet`; or a family without settings, or with something of its own that varies.
    """

    parts = {"variation": BodyVariation, "damage": Damage, "world": World}

    def __init__(
        self,
        families: Annotated[str | Sequence[str], NAMES],
        split: Annotated[str | None, TEXT | NULL] = None,
        unseen: Annotated[str | Sequence[str], TEXT | listed(TEXT)] = (),
        bodies: Annotated[str | Sequence[str] | None, NAMES | NULL] = None,
        settings: Annotated[Mapping[str, BodySet] | None, VALUES | NULL] = None,
        spread_over: Annotated[str, one_of("bodies", "families")] = "bodies",
        variation: Annotated[BodyVariation | None, part(BodyVariation)] = None,
        damage: Annotated[Damage | None, part(Damage)] = None,
        world: Annotated[World | None, part(World)] = None,
    ) -> None:
        self.spread_over = spread_over
        self.varied = {"variation": variation, "damage": damage, "world": world}
        self._of: dict[str, BodySet] = {}
        for name in [families] if isinstance(families, str) else families:
            own = (settings or {}).get(get_family(name).name)
            if own is None or own.source is not get_family(name):
                raise UserError(f"env.settings.{name} is missing, or of another family: the task of {name}")
            if Varied.read(**own.varied):
                raise UserError(
                    f"env.settings.{name} has a variation, damage or world of its own; they are of all "
                    "families: env.variation, env.damage, env.world"
                )
            self._of[name] = own
            if split is not None:
                self._of[name] = self._resplit(own, get_split(name, split))
        if unseen:
            given = [unseen] if isinstance(unseen, str) else unseen
            held_out = list(dict.fromkeys(map(self.canonical, given)))
            for name, own in self._of.items():
                seen = tuple(body for body in own.seen if body not in held_out)
                # A drawn body may be on neither side of the split.
                more = tuple(b for b in held_out if own.source.recipe(b) is not None and b not in own.unseen)
                self._of[name] = self._resplit(own, Split(own.split.name, seen, own.unseen + more))
        if bodies is not None:
            chosen = [self.canonical(name) for name in ([bodies] if isinstance(bodies, str) else bodies)]
            for name, own in self._of.items():
                named = [body for body in chosen if own.source.recipe(body) is not None]
                self._of[name] = self._resplit(own, own.split, named)
        names = ", ".join(dict.fromkeys(own.split.name for own in self.sets))
        seen, unseen = (
            [name for own in self.sets for name in getattr(own, side)] for side in ("seen", "unseen")
        )
        # Across families, too: a body may be equal to one of another family.
        self.split = checked_split(names, seen, unseen, self.morphology)
        self.seen, self.unseen = self.split.seen, self.split.unseen
        self.max_episode_steps = max(own.max_episode_steps for own in self.sets)

    @staticmethod
    def _resplit(own: BodySet, split: Split, bodies: Sequence[str] | None = None) -> BodySet:
        other = own.changed()
        other._hold(own.source, split, bodies, own.task, own.varied)
        return other

    @classmethod
    def used(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of its families alone."""
        families = config.get("families")
        names = [families] if isinstance(families, str) else families or []
        given = config.get("settings") or {}
        empty = {"bodies": None, "variation": None, "damage": None, "world": None}
        settings = {
            name: {key: value for key, value in given[name].items() if empty.get(key, 0) is not value}
            for name in names
            if isinstance(given.get(name), Mapping)
        }
        return {**config, "settings": settings}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FamilySet:  # noqa: D102
        config = cls.used(config)
        settings = {
            name: built_part(f"settings.{name}", node, BodySet) for name, node in config["settings"].items()
        }
        return super().from_config({**config, "settings": settings})

    @property
    def sets(self) -> tuple[BodySet, ...]:  # noqa: D102
        return tuple(self._of.values())

    def set_of(self, body: str | Morphology) -> BodySet:  # noqa: D102
        name = body if isinstance(body, str) else body.name
        for own in self.sets:
            if own.source.recipe(name) is not None:
                return own
        if len(self.sets) == 1:
            return self.sets[0]
        raise UserError(
            f"which task is {name!r} to do? It is of none of the families {', '.join(self._of)}: "
            "say env.families=[<the family whose task it does>]"
        )

    def canonical(self, name: str, also: Iterable[str] = ()) -> str:  # noqa: D102
        for own in self.sets:
            if own.source.recipe(name) is not None:
                return own.source.canonical(name)
        known = [known for own in self.sets for known in own.source.known()]
        raise UserError(f"{', '.join(self._of)} have no body {name!r}; {nearest(name, [*known, *also])}")

    def morphology(self, name: str) -> Morphology:  # noqa: D102
        return families.build(self.canonical(name))

    def cut_short(self, steps: int) -> FamilySet:  # noqa: D102
        of = {name: own.cut_short(steps) for name, own in self._of.items()}
        return self.changed(_of=of, max_episode_steps=max(own.max_episode_steps for own in of.values()))


@checked("env")
class RobotSet(BodySet):
    """Robots that a user brings, split into seen and unseen ones.

    Args:
        morphology: an MJCF file; a folder of them; or ``menagerie:<robot>``.
        unseen: name patterns of the bodies that are held out, for example ``"*_long"``.
        bodies: train on exactly these instead.
        frame_skip, task, variation, damage, world: as of `BodySet`.
        files_from: a folder from which their files may include and load others, beside their own.
        compile_seconds: of computation that each file may need to compile.
        keyframe: name or number of the keyframe that they start in; None: that called home.

    Raises:
        UserError: a file that is no robot, a pattern that fits no body, or a body on both sides.
    """

    def __init__(
        self,
        morphology: Annotated[str | None, TEXT | NULL],
        unseen: Annotated[str | Sequence[str], TEXT | listed(TEXT)] = (),
        bodies: Annotated[str | Sequence[str] | None, NAMES | NULL] = None,
        frame_skip: Annotated[int | None, _SUBSTEPS] = None,
        task: Annotated[LocomotionTask | None, part(LocomotionTask)] = None,
        variation: Annotated[BodyVariation | None, part(BodyVariation)] = None,
        damage: Annotated[Damage | None, part(Damage)] = None,
        world: Annotated[World | None, part(World)] = None,
        files_from: Annotated[str | None, TEXT | NULL] = None,
        compile_seconds: Annotated[int, whole(1, 10**5)] = SECONDS,
        keyframe: Annotated[str | int | None, TEXT | whole() | NULL] = None,
    ) -> None:
        if morphology is None:
            raise UserError(
                "which robot? say env.morphology=<an MJCF file, a folder of them, or menagerie:<robot>>"
            )
        options = {"files_from": files_from, "compile_seconds": compile_seconds, "keyframe": keyframe}
        source = read_user_bodies(absolute_source(str(morphology)), **options)
        held_out, _ = distinct(source.match(unseen), source.build)
        seen = tuple(name for name in source.names if name not in held_out)
        if not seen:
            raise UserError(f"env.unseen={unseen!r} holds out every body of {morphology}; train on which?")
        split = checked_split(f"unseen={unseen}", seen, held_out, source.build)
        varied = {"variation": variation, "damage": damage, "world": world}
        self._hold(source, split, bodies, task, varied)
        self.frame_skip = frame_skip

    def start_notes(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """Of robots that hardly move in a step, or whose episodes end at once though nothing is done.

        The first ``MOST_TRIED`` are tried.
        """
        names = (self.seen if names is None else names)[:MOST_TRIED]
        task = dataclasses.replace(self.task, reset_noise=0.0, reset_speed_noise=0.0)
        notes = []
        for name in names:
            body = self.morphology(name)
            env = LocomotionEnv([body], 1, task, frame_skip=self.frame_skip, threads=1, autoreset=False)
            env.reset(seed=0)
            if env.step_duration < SHORT_STEP:
                notes.append(
                    f"{name}: a step lasts {env.step_duration:.2g} s only, as option timestep is "
                    f"{body.model.opt.timestep:g} s; env.frame_skip=<number> makes it longer"
                )
            for step in range(1, FEW_STEPS + 1):
                told = env.step(torch.zeros(1, env.n_limbs, env.n_joints))
                if told.terminated[0]:
                    why = "its simulation diverges" if told.diverged[0] else env.why_ended(0)
                    notes.append(
                        f"{name}: at action 0 an episode ends after {step} steps "
                        f"({step * env.step_duration:.2g} s): {why}"
                    )
                if told.ended[0]:
                    break
            env.close()
        return tuple(notes)


OF_ROBOTS = frozenset({"unseen", "files_from", "compile_seconds", "keyframe"})
"""Keys that `RobotSet` has beside ``morphology``, and `BodySet` has not."""


OF_SETTINGS = ("_target_", "family", "split", "frame_skip", "task")
"""Keys of a family's own in `FamilySet`."""

_OF_ALL = ("variation", "damage", "world")


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a saved environment, the `FamilySet` settings of each family that it has."""
    if "settings" in config:
        return dict(config["settings"])
    own = {key: config[key] for key in OF_SETTINGS if key in config}
    return {own["family"]: own} if "family" in own else {}


def with_families(config: Mapping[str, Any], settings: Mapping[str, Any], split: str) -> dict[str, Any]:
    """A saved environment's configuration with the bodies of other families; what varies stays."""
    kept = {key: config[key] for key in _OF_ALL if key in config}
    target = f"{_PACKAGE}.{FamilySet.__name__}"
    return {"_target_": target, "families": [*settings], "split": split, "settings": dict(settings), **kept}


def with_morphology(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A saved environment's configuration with a user's robots in place of its bodies; the task stays."""
    *others, own = settings_of(config).values() or [config]  # a robot's own, or of each family
    if others:
        names = ", ".join(config["settings"])
        raise UserError(
            f"this policy was trained in the tasks of {names}; in which one is {source} to be tried? "
            f"say env.families=[{next(iter(config['settings']))}], or another one"
        )
    kept = {key: config[key] for key in _OF_ALL if key in config}
    kept |= {"task": own["task"]} if "task" in own else {}
    same_kind = config.get("_target_") == f"{_PACKAGE}.{RobotSet.__name__}"
    # A family's number of substeps belongs to its time step.
    skip = config.get("frame_skip") if same_kind else None
    return {"_target_": f"{_PACKAGE}.{RobotSet.__name__}", "morphology": source, "frame_skip": skip, **kept}
