"""The training loop, the same for every algorithm: log, validate, try out, save, stop, go on."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from ...envs.errors import UserError
from ...envs.user_modules import OURS, module_names
from ..agent import Agent
from ..algorithms.base import Algorithm, Setup
from ..composition import build_policy, make_task
from ..device import (
    WARP,
    machine_name,
    out_of_memory,
    processor,
    resolve_device,
    resolve_simulation,
    set_threads,
    thread_limit,
    threads_of_an_operation,
    use_precision,
)
from ..evaluation.episodes import run_episodes
from ..evaluation.runs import identities_of
from ..policies.base import Policy
from ..rollout.compute import compute_of
from ..rollout.episodes import EpisodeLog
from ..storage import run_folder
from ..storage.atomic import replace_file
from ..storage.paths import command, relative_to_run, training_to_share, typed_arguments
from ..storage.policy import load_policy, save_policy
from ..storage.save_errors import CHECKPOINT, OF_THE_DISK, SaveErrors
from ..storage.training_state import FOLDER as STATE_FOLDER
from ..storage.training_state import read_facts, read_training_state, write_training_state
from .dashboard import Dashboard
from .faults import NotFinite, diagnose
from .records import Progress, Records
from .resume import (
    COMPARED,
    Changes,
    find_changes,
    put_random_states,
    seen_before,
    take_over,
    take_random_states,
)
from .signals import StopSignals

log = logging.getLogger(__name__)

VALIDATION_SEED = 7_000_001
"""Starts of the validation on training bodies; no evaluation uses them (its seeds are small)."""


class Interval:
    """Tells when another multiple of ``every`` has been reached, ``done`` made before; 0 for never."""

    def __init__(self, every: int, done: int) -> None:
        self.every, self._last = every, done

    def reached(self, done: int) -> bool:
        """Whether one lies between the last ``done`` that was asked about and this one."""
        before, self._last = self._last, done
        return bool(self.every) and done // self.every > before // self.every


def make_algorithm(config: DictConfig) -> Algorithm:
    """The settings of a run. Raises UserError: they do not go with its precision or its compute."""
    algorithm: Algorithm = hydra.utils.instantiate(config.algorithm, _convert_="all")
    if config.precision not in algorithm.precisions:
        able = " or ".join(algorithm.precisions)
        raise UserError(
            f"precision={config.precision} was asked for, but algorithm={algorithm.name} computes in {able}: "
            f"use precision={algorithm.precisions[0]}"
        )
    compute = compute_of(config)
    if compute.spread and not algorithm.spreads:
        raise UserError(
            f"compute={compute.name} is for algorithms that share candidates out, such as algorithm=cma_es; "
            f"algorithm={algorithm.name} learns on one machine: leave compute=local"
        )
    return algorithm


def make_setup(
    config: DictConfig, algorithm: Algorithm, device: torch.device, steps: int = 0, resumes: bool = False
) -> Setup:
    """What a configuration gives to its learner.

    Args:
        config: as composed from ``conf/train.yaml``; of its ``env`` what the task does not use is left out.
        algorithm: of `make_algorithm`.
        device: of the learner.
        steps: environment steps made before.
        resumes: a run goes on, so that its policy is not another one's.

    Raises:
        UserError: something is invalid, or does not go together.
    """
    # Where a resumed run cannot go on with its streams it draws new ones: those of its start would repeat
    # its episodes.
    seeds = np.random.SeedSequence([int(config.seed), steps]).generate_state(3)
    learner_seed, env_seed, init_seed = (int(seed) for seed in seeds)
    task_set = make_task(config)
    for note in () if resumes else task_set.start_notes():
        log.warning(note)
    compute = compute_of(config)
    elsewhere = f"compute={compute.name} simulates on the processors of its cluster"
    why_on_cpu = elsewhere if compute.spread else None
    simulation = resolve_simulation(config.simulation, task_set, device, why_on_cpu)
    task_set = task_set.simulated_by(simulation, **(config.warp if simulation == WARP else {}))
    start_from = None if resumes else config.get("start_from")

    def make_policy(env: Any) -> Policy:
        with threads_of_an_operation(1):  # how an orthogonal matrix is rounded depends on their number
            policy = build_policy(config.agent, env).to(device)
        if start_from:
            take_over(policy, str(start_from))
        return policy

    torch.manual_seed(init_seed)
    random.seed(init_seed)
    return Setup(
        task_set=task_set,
        agent=config.agent,
        environment=OmegaConf.to_container(config.env, resolve=True),
        device=device,
        precision=str(config.precision),
        threads=thread_limit(config.threads),
        compute=compute,
        seed=int(config.seed),
        learner_seed=learner_seed,
        env_seed=env_seed,
        continued=bool(config.get("start_from")),
        episodes=EpisodeLog(task_set.seen, algorithm.max_diverged, task_set.has_physics),
        make_policy=make_policy,
    )


class Run:
    """A run in its folder, which goes on from the last checkpoint if there is one.

    Args:
        config: as composed from ``conf/train.yaml``.
        folder: of the run.
        device: of the learner.

    Attributes:
        task_set: what is trained on.
        changes: what makes it another than it would have been without a stop.

    Raises:
        UserError: something is invalid, or does not go together.
    """

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        self.config, self.folder, self.device = config, folder, device
        folder.mkdir(parents=True, exist_ok=True)
        self._begun, self.save_seconds = time.monotonic(), 0.0
        self.save_errors = SaveErrors(folder, config.get("on_save_error", "stop"))
        self.algorithm = make_algorithm(config)
        # How long the run is, in the algorithm's units.
        self.budget: int = getattr(self.algorithm, self.algorithm.budget)
        resumes = bool(run_folder.list_checkpoints(folder))
        self.state = read_training_state(run_folder.last_checkpoint(folder)) if resumes else None
        self.start_steps: int = self.state["steps"] if self.state else 0
        self.setup = make_setup(config, self.algorithm, device, self.start_steps, resumes)
        self.task_set = self.setup.task_set
        self.best_score, self._in_turn = -np.inf, True
        self.changes = self._find_changes() if self.state else Changes()
        self.learner = self.algorithm.make_learner(self.setup)
        self._seen_before = seen_before(config, self.task_set, resumes)
        if self.state:
            self._restore(self.state)
        goes_on = self.state and not self.changes.new_episodes
        self._random = self.state["random"] if goes_on else take_random_states(device)
        self.records = Records(folder, self.start_steps, self.save_errors)
        bodies = len(self.task_set.seen)
        self.dashboard = Dashboard(
            self.records.events, config, self.policy, self.algorithm, bodies, self.start_steps
        )
        plain = relative_to_run(OmegaConf.to_container(config), folder)
        replace_file(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)).encode())

    @property
    def policy(self) -> Policy:
        """In the state to be saved."""
        return self.learner.policy

    @property
    def steps(self) -> int:
        """Environment steps made so far."""
        return self.learner.steps

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, what was interrupted included."""
        return (self.state or {}).get("seconds", 0.0) + time.monotonic() - self._begun

    def learn(self, listening: StopSignals | None = None) -> None:
        """Learn until the end of the budget, or until told to stop, perhaps by who was ``listening`` before.

        Raises:
            SystemExit: stopped by a signal, with 128 plus its number; everything has been saved.
            UserError: the run has made all its steps before.
            RunFault: it cannot go on.
        """
        learner, key, budget = self.learner, self.algorithm.budget, self.budget
        units = key.removeprefix("total_")
        # Closed after saving: a cluster that is told to stop, too, takes its time.
        with closing(learner):
            if learner.done >= budget:
                made = f"{learner.done:,} of {budget:,} {units}"
                raise UserError(f"{self.folder} has made {made}; to go on, raise algorithm.{key}")
            seen, unseen = ", ".join(self.task_set.seen), ", ".join(self.task_set.unseen) or "none"
            log.info("training on %s; held out: %s", seen, unseen)
            log.info("run folder: %s", self.folder)
            put_random_states(self._random, self.device)
            total = budget if units == "steps" else 0
            listens = nullcontext(listening) if listening else StopSignals()
            with listens as signals, closing(Progress(total, self.steps)) as progress:
                self._learn_until(signals, progress)
            self.save()
        is_done = learner.done >= budget
        if is_done:
            self.dashboard.finish()
        self.records.close()
        if signals.received is not None and not is_done:
            self.save_errors.check_end()
            name, again = signals.received.name, self._command_to("somite-train", "resume")
            log.info("stopped by %s at step %s; go on with: %s", name, f"{self.steps:,}", again)
            raise SystemExit(128 + signals.received)
        log.info("done; evaluate with: %s", self._command_to("somite-evaluate", "run"))

    def _learn_until(self, signals: StopSignals, progress: Progress) -> None:
        algorithm, learner = self.algorithm, self.learner
        saves = Interval(algorithm.checkpoint_every, learner.done)
        validations = Interval(algorithm.validate_every if algorithm.validates else 0, learner.done)
        suite = self.dashboard.suite
        trials = Interval(algorithm.zero_shot_every if suite else 0, learner.done)
        begun, first, updates, score, total = time.perf_counter(), self.steps, 0, None, None

        def stop() -> bool:
            progress.update(learner.steps, score, total)
            return signals.received is not None

        while learner.done < self.budget and signals.received is None:
            before = learner.steps, learner.done
            scalars = self._update(stop)
            if scalars is None:
                return  # `state` is that of before; the update is made again when the run goes on
            updates, score = updates + 1, learner.episodes.mean_return
            # Updates to come are taken to have as many steps as the last.
            steps, done = learner.steps - before[0], learner.done - before[1]
            total = learner.steps + max(0, self.budget - learner.done) * steps // done
            progress.update(learner.steps, score, total)
            scalars = {**learner.episodes.scalars(), **scalars}
            is_last, due = learner.done >= self.budget, validations.reached(learner.done)
            if due or (is_last and validations.every):
                scalars |= learner.validate(self._validate)
            self._in_turn = due or not (is_last and validations.every)
            if trials.reached(learner.done) or (is_last and trials.every):
                scalars |= self.dashboard.try_out(learner.newest(), self.steps)
            elapsed = time.perf_counter() - begun
            shares = {**learner.seconds, "save": self.save_seconds}
            if suite is not None:
                shares["zero_shot"] = suite.seconds
            scalars |= {f"time/{name}_share": seconds / elapsed for name, seconds in shares.items()}
            scalars |= {"time/fps": (self.steps - first) / elapsed, "time/time_elapsed": elapsed}
            scalars |= {"time/iterations": updates, "time/total_timesteps": self.steps}
            self.records.write(scalars, self.steps)
            self._random = take_random_states(self.device)
            if saves.reached(learner.done) and not is_last:
                self.save()

    def _update(self, stop: Callable[[], bool]) -> dict[str, float] | None:
        learner = self.learner
        try:
            return learner.update(stop)
        except NotFinite as error:
            raise diagnose(error, self.folder, self.policy, learner.learnt_from()) from error
        except Exception:
            if learner.is_whole:  # what has been learnt so far is
                self.save()
            raise

    def save(self) -> None:
        """Write a checkpoint and make its policy the run's.

        Raises:
            SystemExit: it cannot be written, and the configuration says that the run stops then.
        """
        with self._timed_saving(CHECKPOINT):
            with run_folder.new_checkpoint(self.folder, self.steps) as writing:
                training = {
                    "algorithm": OmegaConf.to_container(self.config.algorithm, resolve=True),
                    "precision": self.setup.precision,
                    "simulation": self.task_set.simulation,
                    "command": typed_arguments(self.folder),
                    "seconds": round(self.seconds),
                    "machine": machine_name(),
                }
                self._save_policy(writing / "policy", training_to_share(training, self.folder))
                state = {
                    "learner": self.learner.state(),
                    "random": self._random,
                    "steps": self.steps,
                    "best_score": float(self.best_score),
                    "in_turn": self._in_turn,
                    "seconds": self.seconds,
                    "config": self._compared(),
                }
                facts = {
                    "algorithm": self.algorithm.name,
                    "steps": self.steps,
                    "done": self.learner.done,
                    "of": self.algorithm.budget,
                    "budget": self.budget,
                    **self._where(),
                }
                write_training_state(writing / STATE_FOLDER, state, facts)
            run_folder.publish(run_folder.last_checkpoint(self.folder), self.folder)
            run_folder.keep_newest(self.folder, self.algorithm.keep_checkpoints)

    @contextmanager
    def _timed_saving(self, what: str) -> Iterator[None]:
        begun = time.perf_counter()
        with self.save_errors.attempt(what):
            yield
        self.save_seconds += time.perf_counter() - begun

    def _save_policy(self, folder: Path, training: Mapping[str, Any]) -> None:
        task = self.task_set
        own = task.identities()
        before = {
            f"{name} before" if name in own else name: identity
            for name, identity in self._seen_before.items()
            if identity not in own.values()
        }
        environment = {
            "config": self._compared()["env"],
            "seen": list(task.seen),
            "unseen": list(task.unseen),
            "hashes": task.hashes(),
            "identities": before | own,  # so that what it began with makes nothing unseen that it had seen
        }
        about = {"seed": int(self.config.seed), "steps": self.steps, **training}
        save_policy(folder, self.policy, environment=environment, training=about)

    def _validate(self) -> float:
        """The present policy's score; a better one than ever becomes ``best/``."""
        score = self.score(self.policy, self.algorithm.validation_episodes)
        if score > self.best_score:
            with self._timed_saving("best/"):
                self._save_policy(self.folder / "best", {"validation_return": score})
                self.best_score = score  # not where it could not be kept: the next one better is
        return score

    def score(self, policy: Policy, episodes: int) -> float:
        """Mean return of a policy on the training bodies, deterministic, from starts kept for this."""
        task, threads = self.task_set.simulated_by("cpu").for_evaluation(), self.setup.threads
        results = run_episodes(Agent(policy), task, task.seen, episodes, VALIDATION_SEED, threads=threads)
        return float(np.mean([result.returns.mean() for result in results]))

    def _restore(self, state: Mapping[str, Any]) -> None:
        checkpoint = run_folder.last_checkpoint(self.folder)
        agent = load_policy(checkpoint / "policy")
        self._seen_before, saved = self._seen_before | identities_of(agent), agent.policy
        if saved.architecture() != self.policy.architecture():
            raise UserError(
                f"{checkpoint} holds {type(saved).__name__} {saved.architecture()}, but the configuration "
                f"asks for {self.policy.architecture()}; a run resumes with its own agent"
            )
        self.policy.load_state_dict(saved.state_dict())
        self.best_score = state["best_score"]
        notes = [*self.changes.notes, *self.learner.restore(state["learner"], self.changes.new_episodes)]
        if not state["in_turn"]:
            notes.append(
                f"step {self.steps:,} was the last of its budget and was validated out of turn, which may "
                "have made best/ another; what is learnt is the same"
            )
        self.changes = Changes(tuple(notes), self.changes.new_episodes)
        log.info("going on from step %s of %s", f"{self.steps:,}", self.folder)
        if notes:
            log.warning("not what it would be had it never stopped: %s", "; ".join(notes))

    def _find_changes(self) -> Changes:
        influences = (*self.algorithm.influences, "simulation", "layouts")
        return find_changes(
            {**self.state, "config": relative_to_run(self.state["config"], self.folder)},
            read_facts(run_folder.last_checkpoint(self.folder)),
            self._compared(),
            {name: value for name, value in self._where().items() if name in influences},
            self.algorithm.without_influence(),
        )

    def _compared(self) -> dict[str, Any]:
        plain = relative_to_run(OmegaConf.to_container(self.config, resolve=True), self.folder)
        return {name: plain[name] for name in COMPARED}

    def _where(self) -> dict[str, Any]:
        threads = torch.get_num_threads()
        layouts = self.task_set.device_options.get("layouts")  # by which rows are ordered
        where = {"device": str(self.device), "simulation": self.task_set.simulation, "layouts": layouts}
        return {**where, "processor": processor(), "threads": threads}

    def _command_to(self, program: str, key: str) -> str:
        """A command that takes this run as its ``key``, with the modules that have to be named again."""
        imports = module_names(self.config.env.get("imports"))
        again = [f'"env.imports=[{",".join(imports)}]"'] if imports else []
        for section in ("env", "agent", *(["algorithm"] if key == "resume" else [])):
            target = self.config[section]._target_
            again += [] if target.startswith(OURS) else [f"{section}._target_={target}"]
        return command(program, *again, **{key: self.folder})


def train(config: DictConfig, folder: Path) -> None:
    """Learn what ``config`` describes in ``folder``; go on from its last checkpoint if it has one.

    Raises:
        SystemExit: stopped by a signal, with 128 plus its number; or the end could not be saved.
        UserError: an invalid configuration, or a folder that another process uses or that cannot be written
            into.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())  # from here on a signal ends in a checkpoint
        algorithm = make_algorithm(config)
        device = resolve_device(config.device)
        set_threads(config.threads)
        use_precision(config.precision, device)
        key, value = algorithm.memory_setting()
        stack.enter_context(out_of_memory("this run", device, f"algorithm.{key}", value))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(run_folder.hold(folder))
            run_folder.tidy(folder)
            run = Run(config, folder, device)
        except OSError as error:
            if error.errno not in OF_THE_DISK:
                raise
            where = f" ({error.filename})" if error.filename else ""
            raise UserError(f"the run cannot begin in {folder}: {error.strerror}{where}") from error
        run.learn(signals)
        run.save_errors.check_end()
