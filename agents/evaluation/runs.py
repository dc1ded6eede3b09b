"""The runs that an evaluation is of: their names, and the tasks and bodies they were trained with."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...envs.errors import UserError, shown
from ...envs.locomotion.body_set import OF_ROBOTS, settings_of, with_families, with_morphology
from ...envs.task_set import TaskSet, task_set_of, with_changes
from ...envs.user_modules import module_names
from ..agent import Agent
from ..bundled import is_bundled
from ..composition import family_settings
from ..policies.sensor_policy import fitting_critic
from ..storage.untrusted import check_inside, check_links

log = logging.getLogger(__name__)

_OF_THE_TASK = ("n_privileged", "n_sensors", "grid", "discrete")


def run_name(folder: Path) -> str:
    """``<run>``, ``<run>/best``, ``<run>/<step of a checkpoint>``, or the name of a folder of its own."""
    folder = folder.resolve()
    if folder.name == "best":
        return f"{folder.parent.name}/best"
    if folder.parent.parent.name == "checkpoints":
        return f"{folder.parents[2].name}/{folder.parent.name}"
    return folder.parent.name if folder.name == "policy" else folder.name


def beside(folder: Path, name: str) -> Path:
    """Where the ``evaluation`` or ``report`` of a policy's folder is put; of a bundled agent, here.

    Raises:
        UserError: it is, or holds, a link that leads elsewhere.
    """
    if is_bundled(folder):
        return Path(name) / folder.name
    found = folder.parent / (f"{name}_of_best" if folder.name == "best" else name)
    check_inside(found, folder.parent)
    check_links(found)
    return found


def agent_name(agent: Agent) -> str:
    """``SMP``, or ``SMP messages=up`` where the architecture is not the default one."""
    policy = agent.policy
    defaults = {name: p.default for name, p in inspect.signature(type(policy)).parameters.items()}
    if defaults.get("critic") == "auto":
        defaults["critic"] = fitting_critic(policy.n_privileged)
    other = [
        f"{name}={value}"
        for name, value in policy.architecture().items()
        if defaults[name] not in (inspect.Parameter.empty, value) and name not in _OF_THE_TASK
    ]
    return " ".join([type(policy).__name__, *other])


def saved_environment(agent: Agent) -> dict[str, Any]:
    """The configuration of the environment that a policy was trained in. Raises UserError: it has none."""
    if not agent.environment.get("config"):
        raise UserError(
            "this policy.json does not say in which environment it was trained (environment.config)"
        )
    return agent.environment["config"]


def changed_environment(
    agent: Agent, changes: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The environment of a policy's training, or ``config``, with changes as of ``conf/evaluate.yaml``.

    Raises:
        UserError: another robot, and the policy has slots for the limbs of its own; or keys that do not
            belong to the task, or modules that the user has not named.
    """
    config, changes = config or saved_environment(agent), dict(changes or {})
    _check_imports(agent, changes)
    robot, families, split = (changes.pop(key, None) for key in ("morphology", "families", "split"))
    if families is not None or split is not None:
        names = [families] if isinstance(families, str) else families
        config = _in_families(agent, config, names, split)
    if robot is not None:
        if agent.policy.aligned_slots:
            raise UserError(fits_no_other(agent, robot))
        config = with_morphology(config, robot)
    own = sorted(key for key in OF_ROBOTS if changes.get(key) is not None)
    if own and "morphology" not in config:
        raise UserError(
            f"env.{own[0]} is a key of your own robots, not of what this policy was trained on; leave it "
            "out, or add env.morphology=<your robot>"
        )
    return with_changes(config, changes)


def _in_families(
    agent: Agent, config: Mapping[str, Any], families: Sequence[str] | None, split: str | None
) -> dict[str, Any]:
    """An environment of these families (None: of its own), each with its own task; the rest as saved.

    Without a split, or with ``all``, what was not trained on is unseen.

    Raises:
        UserError: an unknown family; or the policy is for sensors, or has slots for the limbs of its family.
    """
    own = settings_of(config)
    if agent.policy.kind != "limbs":
        raise UserError("env.families and env.split are for policies of limbs; leave them out")
    if not (families or own):
        raise UserError(f"env.split={split} is of families; say env.families=[<names>], too, or leave it out")
    families = families or [*own]
    if agent.policy.aligned_slots and {*families} != {*own}:
        raise UserError(fits_no_other(agent, f"families {', '.join(families)}"))
    settings = {name: own.get(name) or family_settings(name) for name in families}
    found = with_families(config, settings, split or "all")
    if split in (None, "all"):
        task = task_set_of(found)
        trained = trained_on(agent, task)
        found["unseen"] = [name for name in task.seen if name not in trained]
    return found


def fits_no_other(agent: Agent, body: str) -> str:
    """What is said where a policy with slots is to move a body that it was not trained on."""
    return (
        f"{type(agent.policy).__name__} has slots for the limbs it was trained on and does not fit {body}; "
        "modular policies do: smp, limb_transformer"
    )


def _check_imports(agent: Agent, changes: Mapping[str, Any]) -> None:
    """Raises UserError: the environment is of modules that neither the user names nor anybody imported."""
    config = agent.description.get("environment", {}).get("config", {})
    if changes.get("imports") and "id" not in config:
        task = str(config.get("_target_")).rpartition(".")[2]
        raise UserError(
            f"env.imports is of env=gymnasium; this policy was trained in {shown(task)}: leave it out"
        )
    needed = module_names(config.get("imports"))
    if not changes.get("imports") and any(name not in sys.modules for name in needed):
        raise UserError(
            f"this policy was trained in {shown(config.get('id'))!r}, which the module {', '.join(needed)} "
            f"registers; it is imported at your word only, as it may be a stranger's: add "
            f"env.imports=[{','.join(needed)}]"
        )


def task_of(
    agent: Agent, changes: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
) -> TaskSet:
    """The bodies and the task that a policy was trained with; arguments as of `changed_environment`.

    Raises:
        UserError: as there; or bodies have since changed sides of the split that was trained on.
    """
    task = task_set_of(changed_environment(agent, changes, config))
    moved = set(task.unseen) & set(agent.environment.get("seen", ()))
    if moved and (changes or {}).get("split"):
        raise UserError(
            f"the policy was trained on {', '.join(sorted(moved))}, which env.split={changes['split']} holds "
            "out; leave env.split out, or say env.split=all"
        )
    if moved and not (changes or {}).get("morphology"):
        raise UserError(
            f"the policy was trained on {sorted(moved)}, which split {task.split.name!r} holds out today; it "
            "was saved by another version"
        )
    return task


def identities_of(agent: Agent) -> dict[str, str]:
    """Identities, by name, of the bodies that a policy has seen, and those before it that it began with."""
    saved = agent.environment.get("identities", {})
    if saved or "family" not in agent.environment.get("config", {}):
        return dict(saved)
    task = task_set_of(saved_environment(agent))  # saved before identities were
    return {name: task.morphology(name).identity for name in agent.environment.get("seen", ())}


def own_identities(agent: Agent) -> dict[str, str]:
    """The same of the bodies alone that a policy itself was trained on."""
    known = identities_of(agent)
    return {name: known[name] for name in agent.environment.get("seen", ()) if name in known}


def has_seen(agent: Agent, task: TaskSet, name: str) -> bool:
    """Whether a policy was trained on a body, by what it is; by its name where that was not saved."""
    identities = agent.environment.get("identities")
    if not identities:
        return name in agent.environment.get("seen", ())
    return task.morphology(name).identity in identities.values()


def trained_on(agent: Agent, task: TaskSet) -> frozenset[str]:
    """Names of the bodies that the policy was trained on and that are still what they were.

    A robot's file may have changed since: its hash tells, and it then counts as unseen, with a warning.
    """
    hashes = agent.environment.get("hashes")
    if not hashes:  # a task without bodies; or saved before hashes were
        return frozenset(set(task.seen) & set(agent.environment.get("seen", ())))
    same = {name for name, found in task.hashes().items() if found in hashes.values()}
    # Of the robot alone: it may stand in another scene. Policies of earlier versions have the former only.
    known = agent.environment.get("identities", {}).values()
    same |= {name for name, found in task.identities().items() if found in known}
    for name in set(task.seen) & set(hashes) - same:
        log.warning("%s is not the body of that name that was trained on: it counts as unseen", name)
    return frozenset(same)
