"""Trains with each body held out once: ``somite-cross-validate env=cheetah seeds=[0,1] output=runs/folds``.

Every training is a ``somite-train`` of its own::

    <output>/cross_validation.json                       which there are
             <arm>/<fold>-<seed>/  <arm>/joint-<seed>/    the runs, and what each printed, <fold>-<seed>.log
             report.md  results.json  results.csv         of those that are finished
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from somite.agents.storage.atomic import replace_file
from somite.agents.storage.paths import command, hydra_quoted
from somite.agents.storage.policy_json import policy_folders
from somite.agents.storage.run_folder import hold, last_checkpoint, list_checkpoints, step_of
from somite.agents.training.signals import StopSignals
from somite.envs.errors import UserError, nearest, one_line
from somite.envs.task_set import task_set_of
from somite.scripts.cli.arguments import (
    check_names,
    configuration,
    key_of,
    parse,
    with_implied,
    with_own_classes,
)
from somite.scripts.cli.arms import (
    FORMAT_VERSION,
    NAME,
    OURS,
    OWN,
    SPLIT,
    SPLIT_KEY,
    Arm,
    plain,
    read_arms,
    read_kept,
    with_arms,
)
from somite.scripts.cli.command_line import program
from somite.scripts.cli.jobs import check_composed
from somite.scripts.cli.multirun import (
    FINISHED,
    IN_USE,
    TO_RUN,
    Job,
    state_of,
    table,
)
from somite.scripts.cli.resume import check_own_classes, check_said_again, next_configuration

FILE = "cross_validation.json"
FILES = "report.md", "results.json", "results.csv", "episodes.jsonl"
"""Of the report, beside the folders of the arms."""

JOINT = "joint"
_POLL = 0.2  # seconds


def cross_validate(config: DictConfig) -> None:
    """Does what ``conf/cross_validate.yaml`` describes, as far as it has not been done.

    Raises:
        UserError: invalid input, or an arm with other settings than before.
        SystemExit: a signal stopped it, with 128 plus its number; or a training failed, or is made by another
            process, with 1.
    """
    GlobalHydra.instance().clear()  # it has composed this, and the trainings are to be composed
    output = Path(config.output)
    plan = _Plan(config, output)
    plan.show()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output} cannot be a folder: {error.strerror}") from error
    with hold(output):
        plan.keep()
        failed, received = _train(plan, config.jobs)
        plan.show()
        again = command("somite-cross-validate", output=output)
        if received is not None:
            print(f"stopped by {received.name}; go on with: {again}", file=sys.stderr)
            raise SystemExit(128 + received)
        plan.report(config)
        for job, said in failed.items():
            print(f"{job.folder} failed: {said}; all that it printed is in {_log_of(job)}", file=sys.stderr)
        if failed:
            print(f"{len(failed)} failed; try these again with: {again}", file=sys.stderr)
        used = [word for word, _ in plan.states(plan.jobs)].count(IN_USE)
        if used:  # such as those of an earlier command that was killed
            print(f"{used} are made by other processes; when they are done: {again}", file=sys.stderr)
        if failed or used:
            raise SystemExit(1)


class _Plan:
    """The trainings of all arms: those of before, and what the command line adds."""

    def __init__(self, config: DictConfig, output: Path) -> None:
        self.output, known = output, HydraConfig.get().overrides
        kept = read_kept(output / FILE) if (output / FILE).is_file() else None
        given = [text for text in known.task if key_of(text) not in OWN]
        own = {key_of(text) for text in known.task if key_of(text) in OWN}
        for text in given:
            if key_of(text) in OURS:
                raise UserError(f"{text}: this command says that itself; give it {OURS[key_of(text)]}")
        if "split" not in config.env:
            choice = HydraConfig.get().runtime.choices.env
            raise UserError(f"env={choice} has no bodies that a split could hold out; env=cheetah has")
        named = read_arms(config.arms)
        if not named and (given or kept is None):
            named = {str(HydraConfig.get().runtime.choices.agent): []}
            arms = {} if kept is None else kept["arms"]
            if arms and not {*named} & {*arms} and "agent" not in map(key_of, given):
                told = f"in {output} the arms are {', '.join(arms)}; of which is {' '.join(given)}?"
                raise UserError(
                    f"{told} Say arms={{<name>: {hydra_quoted(' '.join(given))}}} for another one"
                )
        if kept is not None:
            of_arms = [arm.arguments for arm in kept["arms"].values()]
            self._check_own_classes([kept["arguments"], *of_arms], given)
        nothing = {"arguments": [], "arms": {}, "runs": {}, "folds": None, "joint_split": config.joint_split}
        self.episodes, self._compared_with = (
            config[key] if key in own or not kept else kept.get(key, config[key])
            for key in ("episodes", "reference")
        )
        kept = kept or nothing
        if config.joint_split != kept["joint_split"] and "joint_split" in own:
            told = f"in {output} it is {kept['joint_split']}; choose another output"
            raise UserError(f"joint_split={config.joint_split}: {told}")
        self.joint, self.arms, before = kept["joint_split"], dict(kept["arms"]), kept["arguments"]
        self.common = given or before
        self.folds = list(config.folds) if "folds" in own or not kept["folds"] else kept["folds"]
        # Of the trainings' own Hydra, only where configurations lie.
        self.further = [text for text in known.hydra if key_of(text) == "hydra.searchpath"]
        self.environment, self.unseen = self._bodies()
        if self.arms and self.common != before and _environment(self._compose(before)) != self.environment:
            raise UserError(f"in {output} bodies are tried in another environment; choose another output")
        seeds = {seed: None for arm in self.arms.values() for seed in arm.seeds}
        seeds = tuple(config.seeds) if "seeds" in own or not seeds else tuple(seeds)
        for name, arguments in named.items():
            self._name(name, arguments, seeds)
        if not named and "seeds" in own:
            self.arms = {name: arm.with_seeds(seeds) for name, arm in self.arms.items()}
        self.algorithms = {
            name: self._checked(name, arm, None if name in named else set(given))
            for name, arm in self.arms.items()
        }
        given_runs = plain(config.runs) or {}
        found = self._read_runs(given_runs)
        left = (name for name in kept["runs"] if name not in given_runs)
        self.runs = self._there({name: kept["runs"][name] for name in left}) | found
        names = [*self.arms, *self.runs]
        self.reference = names[0] if self._compared_with is None else self._compared_with
        if self.reference not in names:
            raise UserError(f"no arm is called reference={self.reference}; {nearest(self.reference, names)}")
        self.jobs = self._jobs()

    def _check_own_classes(self, kept: Sequence[Sequence[str]], given: Sequence[str]) -> None:
        """Raises UserError: what was kept would import a module that the user does not name again."""
        texts = {text for arguments in kept for text in arguments} - set(given)
        check_own_classes([text.partition("=")[::2] for text in texts], (), self.output / FILE)

    @property
    def every(self) -> tuple[str, ...]:
        """The bodies that some fold holds out."""
        return tuple(dict.fromkeys(body for bodies in self.unseen.values() for body in bodies))

    def _name(self, name: str, own: Sequence[str], seeds: tuple[int, ...]) -> None:
        """Adds an arm, or further seeds of one that is there. Raises UserError: invalid, or changed."""
        if not NAME.fullmatch(name):
            raise UserError(f"arms: {name!r} is to name a folder; use letters, digits, _, -, + and .")
        if name in (FILE, *FILES):
            raise UserError(f"arms: {name} is a file of the report; give the arm another name")
        keys = [text.partition("=")[2] for text in own if key_of(text) == "split_key"]
        split_key = keys[-1] if keys else SPLIT
        if not SPLIT_KEY.fullmatch(split_key):
            raise UserError(f"arm {name}: split_key={split_key}: say env.settings.<family>.split")
        own = with_implied([text for text in own if key_of(text) != "split_key"], chooses_env=False)
        common = self.common
        if "env" in map(key_of, own):  # another environment has other keys
            common = [text for text in common if key_of(text).partition(".")[0] != "env"]
        threads = [] if "threads" in map(key_of, (*common, *own)) else ["threads=1"]
        arguments = (*common, *own, *threads)
        new = Arm(arguments, (), split_key)
        before = self.arms.get(name, new)
        if (before.arguments, before.split_key) != (arguments, split_key):
            self._check_same(name, before, new)
        elif own and name not in self.arms:
            check_names([*with_own_classes(arguments, "train"), *self.further], "train")
        self.arms[name] = before.with_seeds(seeds)

    def _compose(self, overrides: Sequence[str], split_key: str = SPLIT) -> DictConfig:
        """The configuration of the joint policy's training. Raises UserError."""
        arguments = [*overrides, *self.further, f"{split_key}={self.joint}"]
        arguments = with_own_classes(arguments, "train")
        try:
            with configuration(parse(arguments)):
                return hydra.compose("train", arguments, return_hydra_config=True)
        except (CompactHydraException, HydraException, OmegaConfBaseException) as error:
            raise UserError(one_line(str(error))) from error

    def _bodies(self) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
        """The environment with all bodies, and those that each fold holds out."""
        environment = _environment(self._compose(self.common))
        task = task_set_of(environment)
        unseen = {fold: task_set_of({**environment, "split": fold}).unseen for fold in self.folds}
        for fold, bodies in unseen.items():
            if not bodies:
                others = ",".join(fold for fold, bodies in unseen.items() if bodies)
                hint = f"; folds=[{others}] leaves it out" if others else ""
                raise UserError(f"folds: {fold} holds out no body{hint}")
            if not set(bodies) <= set(task.seen):
                raise UserError(f"joint_split={self.joint} does not train on all that {fold} holds out")
        return environment, unseen

    def _checked(self, name: str, arm: Arm, given: set[str] | None) -> Mapping[str, Any]:
        """The algorithm of an arm; ``given``: what the user says, of one that was kept.

        Raises:
            UserError: it cannot be trained, or trains on what a fold is to hold out; or it was kept, and
                reaches beyond this folder.
        """
        try:
            config = self._compose(arm.arguments, arm.split_key)
            if given is not None:
                again = {key_of(text) for text in given.intersection(arm.arguments)}
                check_said_again(config, again, self.output / FILE)
            check_composed(config, "train", self.output / name)
            self._check_bodies(config, arm.split_key)
        except UserError as error:
            raise UserError(f"arm {name}: {error}") from error
        return config.algorithm

    def _check_bodies(self, config: DictConfig, split_key: str) -> None:
        """Raises UserError: a fold trains on what it is to hold out, or the joint policy not on it."""
        from somite.agents.training.resume import seen_before

        every, trained, before = task_set_of(self.environment), {}, {}
        for split in (self.joint, *self.folds):
            one = config.copy()
            OmegaConf.update(one, split_key, split)
            task = task_set_of(_environment(one))
            trained[split] = set(task.identities().values())
            before[split] = set(seen_before(config, task).values())
        for fold, bodies in self.unseen.items():
            for body in bodies:
                identity = every.morphology(body).identity
                if identity in before[fold]:
                    told = f"which {fold} is to hold out"
                    raise UserError(f"start_from or algorithm.teacher was trained on {body}, {told}")
                if identity in trained[fold]:
                    raise UserError(f"{split_key}={fold} trains on {body}, which is to be held out")
                if identity not in trained[self.joint]:
                    raise UserError(
                        f"{split_key}={self.joint} does not train on {body}; a run that was trained on other "
                        "bodies is compared by runs={<name>: <run>}"
                    )

    def _check_same(self, name: str, before: Arm, now: Arm) -> None:
        """Raises UserError: an arm is to be trained with other settings than before."""
        from somite.agents.training.resume import COMPARED, WITHOUT_INFLUENCE, leaves

        then, new = (
            leaves(OmegaConf.to_container(OmegaConf.masked_copy(config, list(COMPARED))))
            for config in (self._compose(arm.arguments, arm.split_key) for arm in (before, now))
        )
        ignored = {f"algorithm.{key}" for key in WITHOUT_INFLUENCE}
        changed = [key for key in {**then, **new} if then.get(key) != new.get(key) and key not in ignored]
        if changed:
            told = ", ".join(f"{key}={new.get(key)}, was {then.get(key)}" for key in changed)
            raise UserError(
                f"arm {name} in {self.output} was trained otherwise: {told}; give the new one another name, "
                "as in arms={<name>: ...}, or choose another output"
            )

    def _read_runs(self, runs: Mapping[str, Any]) -> dict[str, list[str]]:
        """Policies of further arms, by their paths from the output. Raises UserError: one saw a body."""
        from somite.agents.evaluation.runs import fits_no_other, has_seen, saved_environment
        from somite.agents.storage.policy import load_policy
        from somite.envs.locomotion.body_set import settings_of

        found, task = {}, task_set_of(self.environment)
        if not isinstance(runs, Mapping):
            raise UserError(f"runs must be names with runs: runs={{planar: {runs}}}")
        for name, given in runs.items():
            if name in self.arms:
                raise UserError(f"runs: {name} is an arm already; choose another name")
            folders = policy_folders(given) if given is not None else []
            for folder in folders:
                agent = load_policy(folder)
                if agent.policy.kind != task.kind:
                    raise UserError(f"runs: {name}: {folder} reads {agent.policy.kind}, not {task.kind}")
                families = settings_of(self.environment)
                if agent.policy.aligned_slots and {*settings_of(saved_environment(agent))} != {*families}:
                    raise UserError(f"runs: {name}: {fits_no_other(agent, ', '.join(families))}")
                seen = [body for body in self.every if has_seen(agent, task, body)]
                if seen:
                    raise UserError(f"runs: {name}: {folder} was trained on {', '.join(seen)}: not unseen")
            if folders:
                output = self.output.resolve()
                found[str(name)] = [os.path.relpath(folder.resolve(), output) for folder in folders]
        return found

    def _there(self, runs: dict[str, list[str]]) -> dict[str, list[str]]:
        """Runs of before. Raises UserError: the policy of one is gone."""
        for name, folders in runs.items():
            for folder in folders:
                if not (self.output / folder / "policy.json").is_file():
                    told = f"runs={{{name}: null}} takes it out"
                    raise UserError(f"runs: {name}: {self.output / folder} has no policy any more; {told}")
        return runs

    def _jobs(self) -> list[Job]:
        """All trainings: those of one seed beside each other."""
        splits, jobs = {JOINT: self.joint} | {fold: fold for fold in self.folds}, []
        for seed in dict.fromkeys(seed for arm in self.arms.values() for seed in arm.seeds):
            for name, arm in self.arms.items():
                for what, split in splits.items() if seed in arm.seeds else ():
                    overrides = (*arm.arguments, f"{arm.split_key}={split}", f"seed={seed}")
                    jobs.append(Job(overrides, self.output / name / f"{what}-{seed}"))
        return jobs

    def keep(self) -> None:
        """Write down what there is, to go on with."""
        kept = {"arguments": self.common, "folds": self.folds, "joint_split": self.joint, "runs": self.runs}
        kept |= {"reference": self._compared_with, "episodes": self.episodes}
        kept |= {"format": FORMAT_VERSION, "arms": {name: asdict(arm) for name, arm in self.arms.items()}}
        replace_file(self.output / FILE, json.dumps(kept, indent=2).encode() + b"\n")

    def states(self, jobs: Sequence[Job]) -> list[tuple[str, str]]:
        """How far trainings have come."""
        found = []
        for job in jobs:
            word, detail = state_of(job, self.algorithms[job.folder.parent.name])
            if word == IN_USE and list_checkpoints(job.folder):
                detail += f", saved at step {step_of(last_checkpoint(job.folder)):,}"
            found.append((word, detail))
        return found

    def to_run(self) -> list[Job]:
        """Trainings that are not finished, and that nobody else makes."""
        states = self.states(self.jobs)
        return [job for job, (word, _) in zip(self.jobs, states, strict=True) if word in TO_RUN]

    def show(self) -> None:
        """Print how far all have come."""
        states = self.states(self.jobs)
        print(table([Job((), job.folder) for job in self.jobs], states))
        done = [word for word, _ in states].count(FINISHED)
        print(f"{self.output}: {len(self.jobs)} trainings, {done} finished", flush=True)

    def report(self, config: DictConfig) -> None:
        """Evaluate what is finished, and write the report."""
        from somite.agents.device import resolve_device, set_threads, thread_limit
        from somite.agents.evaluation.cross_validation import Trained, cross_validate

        trained = []
        for job, (word, _) in zip(self.jobs, self.states(self.jobs), strict=True):
            fold, _, seed = job.folder.name.rpartition("-")
            if word == FINISHED:
                held_out = () if fold == JOINT else self.unseen[fold]
                trained.append(Trained(job.folder.parent.name, seed, job.folder / "policy", held_out))
        for name, folders in self.runs.items():
            trained += [Trained(name, own, (self.output / own).resolve(), self.every) for own in folders]
        if not trained:
            print("nothing is finished, so there is nothing to evaluate")
            return
        set_threads(1)
        workers = thread_limit(config.jobs)
        device = resolve_device(config.device)
        options = self.reference, self.episodes, device, workers
        cross_validate(trained, self.environment, self.output, *options)


def _environment(config: DictConfig) -> dict[str, Any]:
    """What a training's environment is built from."""
    return hydra.utils.get_class(config.env._target_).used(plain(config.env))


def _log_of(job: Job) -> Path:
    return job.folder.with_name(f"{job.folder.name}.log")


def _train(plan: _Plan, jobs: Any) -> tuple[dict[Job, str], Any]:
    """Makes trainings, some beside each other: those that failed, with what they said, and a signal."""
    from somite.agents.device import thread_limit

    waiting, failed = plan.to_run(), {}
    most = thread_limit(jobs)
    with StopSignals() as signals, _children() as running:
        told = False
        while running or (waiting and not signals.received):
            while waiting and len(running) < most and not signals.received:
                job = waiting.pop(0)
                running[job] = _start(job, plan.further)
                print(f"begins: {job.folder}", flush=True)
            time.sleep(_POLL)
            if signals.received and not told:
                told = True
                print(f"{len(running)} trainings save and stop", file=sys.stderr)
                for process in running.values():
                    process.send_signal(signals.received)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                code = running.pop(job).returncode
                if code and not signals.received:
                    lines = _log_of(job).read_text(encoding="utf-8", errors="replace").strip().split("\n")
                    failed[job] = lines[-1] or f"exit code {code}"
                word, detail = plan.states([job])[0]
                print(f"{'failed' if job in failed else word}: {job.folder} {detail}", flush=True)
        return failed, signals.received


def _start(job: Job, further: Sequence[str]) -> subprocess.Popen[bytes]:
    """A training in a process group of its own: Ctrl-C comes from this process, once."""
    arguments = [*job.overrides, *further, f"hydra.run.dir={hydra_quoted(job.folder.absolute())}"]
    if list_checkpoints(job.folder):
        arguments.append(f"hydra.output_subdir={next_configuration(job.folder)}")
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with _log_of(job).open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "somite.scripts.train", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


@contextmanager
def _children() -> Iterator[dict[Job, subprocess.Popen[bytes]]]:
    """Processes that have ended when the block has: whoever leaves early tells them to save and stop."""
    running: dict[Job, subprocess.Popen[bytes]] = {}
    try:
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


main = program("cross_validate", "somite.scripts.cross_validate:cross_validate", prepare=with_arms)

if __name__ == "__main__":
    main()
