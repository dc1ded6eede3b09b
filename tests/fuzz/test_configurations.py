"""Configurations: any arguments and any saved file compose a run, or are refused; none starts."""

from __future__ import annotations

import random

import pytest
import yaml
from hydra.errors import HydraException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from somite.envs.errors import UserError
from somite.scripts.cli.arguments import check_names
from somite.scripts.cli.resume import read_saved

from ..agents.runs import compose
from .mutations import INTERESTING, from_random, mutated_bytes

WORDS = (
    *"env agent algorithm experiment seed device threads algorithm.total_steps env.task env.bodies".split(),
    *"agent.width agent._target_ hydra.run.dir hydra.mode hydra defaults resume zero_shot a.b.c".split(),
    *"env.variation.mass _target_ env@agent /env env/x env_parts".split(),
    "",
)
VALUES = (
    *(value for value in INTERESTING if "\0" not in value),
    *"null smp cheetah [1,2 {a:1} ' a,b range(1,3) glob(*) choice(a,b) interval(0,1) ${seed} ${now:}".split(),
    *"os.system 0x 1_000 .5e a=b @ ~ \\".split(),
    "[{a: b}]",
    '"',
)
REFUSALS = (UserError, HydraException, OmegaConfBaseException)
"""What a command prints alone, with code 2, while it composes."""


class Refused(Exception):
    """One of these, whose message may have several lines: Hydra lists choices."""


def argument(rng: random.Random) -> str:
    prefix = rng.choice(["", "", "", "+", "++", "~"])
    return f"{prefix}{rng.choice(WORDS)}{rng.choice(['=', '=', '=', '', '=='])}{rng.choice(VALUES)}"


@pytest.mark.parametrize(
    "count", [12, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])]
)
def test_any_arguments_compose_a_run_or_are_refused(watch, count):
    @settings(settings.get_profile("fuzz"), max_examples=count)
    @given(st.lists(from_random(argument), min_size=1, max_size=3))
    def each(arguments):
        def check():
            try:
                check_names(arguments, "train")
            except REFUSALS as error:
                assert str(error)
                raise Refused("refused") from error
            except SystemExit as leaving:
                raise Refused("refused") from leaving

        watch(check, Refused)

    each()
    assert watch.refused


def changed_configuration(rng: random.Random) -> bytes:
    """Sections and values removed, exchanged, put in; or the text itself damaged."""
    if rng.random() < 0.3:
        return mutated_bytes(SAVED.encode(), rng)
    values = yaml.safe_load(SAVED)
    for _ in range(rng.choice([1, 1, 2, 4])):
        node = rng.choice([values, *(part for part in values.values() if isinstance(part, dict))])
        keys = [*node, "hydra", "defaults", "_target_", "_args_", "x"]
        kind, key = rng.randrange(4), rng.choice(keys)
        if kind == 0:
            node.pop(key, None)
        elif kind == 1:
            node[key] = rng.choice(
                [*values.values(), *VALUES, 1, -1, 10**9, True, [], {}, [{"_target_": "x"}]]
            )
        elif kind == 2:
            node[key] = {"_target_": rng.choice(["os.system", "somite.agents.Agent", "somite", 3, None])}
        else:
            node[rng.choice(VALUES)] = rng.choice(VALUES)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()


SAVED = OmegaConf.to_yaml(compose("agent=smp"))


@pytest.mark.parametrize(
    "count", [40, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_any_saved_configuration_is_read_or_refused(watch, count, monkeypatch):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("ran code from a file"))
    folder = watch.folder / "run" / ".hydra"
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text("- agent=smp\n")
    file = folder / "config.yaml"

    @settings(settings.get_profile("fuzz"), max_examples=count)
    @given(from_random(changed_configuration))
    def each(data):
        file.write_bytes(data)
        watch(lambda: read_saved(folder.parent, folder, []), UserError, file)

    each()
    assert 0 < watch.refused < watch.inputs, "some are configurations still"
