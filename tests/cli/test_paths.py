"""Paths on the command line, in what is saved, and in the commands that are printed."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from somite.agents.storage.paths import (
    command,
    found_from_run,
    hydra_quoted,
    keep_where,
    make_absolute,
    named_run,
    relative_to_run,
    run_of,
    training_to_share,
)
from somite.envs.errors import UserError
from somite.envs.locomotion.bodies.mjcf_files import check_files
from somite.scripts.benchmark import for_hydra
from somite.scripts.cli import command_line
from somite.scripts.cli.arguments import with_implied

NAMES = [
    "a b",
    "a[1]",
    "a'b",
    'a"b',
    "a\\b",
    "a\\",
    "a=b",
    "a,b",
    "a{b}",
    "ü",
    "a$b",
    "a${b}",
    "a#b",
    "-x",
    "a:b",
]
NAMES += ["~a", "*x", "a?", "a%b", " a ", "a;b|c&d", "a\nb", "007", "1e5", "null", "last", "\udcff"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def composed(config_name, *arguments):
    with hydra.initialize_config_module("somite.conf", version_base="1.3"):
        return hydra.compose(config_name, list(arguments))


def test_what_a_list_of_paths_looks_up_is_a_path_as_well(here):
    for name in ("one", "two"):
        (here / name).mkdir()
    config = OmegaConf.create({"run": ["one", "${output}"], "output": "two"})
    make_absolute(config, here)
    assert list(config.run) == [str(here / "one"), str(here / "two")]


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_command_can_be_pasted(here, name):
    folder = here / name
    folder.mkdir()
    said = command("somite-evaluate", run=folder), command("somite-train", resume=folder)
    (_, given), (_, resume) = map(shlex.split, said)
    assert composed("evaluate", *with_implied([given])).run == str(folder)
    assert named_run(resume.removeprefix("resume="), here) == str(folder)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "last"])
def test_the_bare_name_of_what_is_there_is_meant(here, name):
    (here / name).mkdir()
    (here / "runs" / f"{name}.").mkdir(parents=True)
    arguments = with_implied([f"run={name}", f"output={name}", f"env.files_from={name}"], chooses_env=False)
    config = composed("evaluate", *arguments)
    assert config.run == config.output == config.env.files_from == str(here / name)
    assert composed("evaluate", *with_implied([f"run={name}."])).run == str(here / "runs" / f"{name}.")


@pytest.mark.parametrize(
    ("config_name", "argument", "key", "found"),
    [
        ("evaluate", "run=[runs/one,two]", "run", ["runs/one", "runs/two"]),
        ("evaluate", "run=bundled/ant*", "run", "bundled/ant*"),
        ("evaluate", "run=nowhere", "run", "nowhere"),
        ("evaluate", "run='runs/[ot]*'", "run", "runs/[ot]*"),
        ("evaluate", "run=runs/[ot]*", "run", "runs/[ot]*"),
        ("evaluate", "run=it's (not) there", "run", "it's (not) there"),
        ("evaluate", "run=runs/one/../two", "run", "runs/two"),
        ("evaluate", "output=it's new", "output", "it's new"),
        ("evaluate", "output=new/place", "output", "new/place"),
        ("train", "start_from=two", "start_from", "runs/two"),
        ("train", "+algorithm.teacher=runs/one", "algorithm.teacher", "runs/one"),
        ("train", "+env.scenery={background: grass}", "env.scenery.background", "grass"),
        ("describe", "env.morphology=menagerie:go2", "env.morphology", "menagerie:go2"),
        ("results", "table=t.yaml", "table", "t.yaml"),
    ],
)
def test_paths_are_absolute_and_names_stay(here, config_name, argument, key, found):
    for name in ("one", "two"):
        (here / "runs" / name).mkdir(parents=True)
    env = ["env=locomotion"] if "morphology" in argument else []
    value = OmegaConf.select(composed(config_name, *env, *with_implied([argument], False)), key)
    names = ("nowhere", "it's (not) there", "grass", "menagerie:go2", "bundled/ant*")
    paths = [found] if isinstance(found, str) else found
    assert ([value] if isinstance(found, str) else value) == [
        path if path in names else str(here / path) for path in paths
    ]


def test_the_values_of_a_sweep_and_of_a_benchmarks_training_runs_are_absolute(here):
    for name in ("a", "it's"):
        (here / f"{name}.xml").touch()
    (_, argument) = with_implied(["env.morphology=a.xml,'it\\'s.xml'"])
    assert argument == f"env.morphology='{here}/a.xml','{here}/it\\'s.xml'"
    given = for_hydra(["population", "env.morphology=it's.xml"])
    trained = composed("benchmark", *given).population.train
    assert composed("train", "env=locomotion", *trained).env.morphology == str(here / "it's.xml")


def run(*arguments, config_name="train"):
    seen = []
    command_line.run(seen.append, config_name, arguments, resumable=config_name == "train")
    return seen[0]


def test_a_run_that_changes_its_folder_finds_what_was_named_before(here):
    for name in ("first", "other"):
        (here / "runs" / name / "policy").mkdir(parents=True)
        (here / "runs" / name / "policy" / "policy.json").touch()
    (here / "mine" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nalgorithm: {teacher: runs/other}\n"
    (here / "mine" / "experiment" / "own.yaml").write_text(text)
    given = (
        "--config-dir=mine",
        "algorithm=clone",
        "experiment=own",
        "start_from=first",
        "hydra.job.chdir=true",
    )
    config = run(*given)
    assert config.start_from == str(here / "runs" / "first")
    assert config.algorithm.teacher == str(here / "runs" / "other"), "paths of files are the user's, too"
    (record,) = here.glob("runs/*/.hydra/config.yaml")
    saved = OmegaConf.load(record)
    assert (saved.start_from, saved.algorithm.teacher) == ("../first", "../other")
    assert str(here) not in record.read_text()


def test_what_a_run_saved_is_found_again(tmp_path):
    home, run = tmp_path / "home", tmp_path / "home" / "runs" / "one"
    (run / ".hydra").mkdir(parents=True)
    (home / "robots").mkdir()
    config = {"env": {"morphology": str(home / "robots"), "scenery": {"background": ["grass", "clouds"]}}}
    saved = relative_to_run(config, run)
    assert (
        saved["env"]["morphology"] == "../../robots" and saved["env"]["scenery"] == config["env"]["scenery"]
    )
    keep_where(config, run)
    assert found_from_run(saved, run) == config
    shutil.copytree(home, tmp_path / "copy")
    moved = found_from_run(saved, tmp_path / "copy" / "runs" / "one")
    assert moved["env"]["morphology"] == str(tmp_path / "copy" / "robots"), "both were moved"
    alone = tmp_path / "deep" / "down" / "archive" / "one"
    shutil.copytree(run, alone)
    assert found_from_run(saved, alone) == config, "the run was moved, the robot was not"
    shutil.rmtree(alone / ".hydra")
    gone = found_from_run(saved, alone)["env"]["morphology"]
    assert gone == str(alone.parents[1] / "robots"), "a message names a folder, not one of where we stand"
    assert found_from_run(config, alone) == config, "an earlier version saved it absolute"


def test_what_is_told_of_training_names_no_folder_of_the_machine(tmp_path):
    run = tmp_path / "runs" / "it's"
    training = {
        "algorithm": {"teacher": str(tmp_path / "runs" / "teacher")},
        "command": [f"algorithm.teacher={hydra_quoted(tmp_path / 'runs' / 'teacher')}", "seed=1", "env=ant"],
    }
    told = training_to_share(training, run)
    assert told == {
        "algorithm": {"teacher": "../teacher"},
        "command": ["algorithm.teacher='../teacher'", "seed=1", "env=ant"],
    }
    assert str(tmp_path) not in json.dumps(told)


@pytest.mark.parametrize("policy", ["policy", "best", "checkpoints/500/policy"])
def test_the_run_of_a_policy(policy):
    assert run_of(Path("/runs/one") / policy) == Path("/runs/one")


@pytest.mark.parametrize("name", ["${x}", "gone"])
def test_a_folder_in_which_hydra_cannot_stand_is_told(here, monkeypatch, capsys, name):
    (here / name).mkdir()
    monkeypatch.chdir(name)
    if name == "gone":
        (here / name).rmdir()
    for arguments in ([], ["--help"]):
        with pytest.raises(SystemExit) as leaving:
            run(*arguments, config_name="results")
        assert leaving.value.code == 2 and "the folder" in capsys.readouterr().err


def test_a_run_in_a_folder_that_hydra_would_look_up_is_refused(here, capsys):
    with pytest.raises(SystemExit):
        run("hydra.run.dir='runs/\\${x}'")
    assert "has ${ in its name" in capsys.readouterr().err and not (here / "runs").exists()


@pytest.mark.parametrize("name", ["my\\robot.xml", "my\\folder/robot.xml"])
def test_a_robot_that_mujoco_would_look_for_elsewhere_is_told(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("<mujoco/>", encoding="utf-8")
    with pytest.raises(UserError, match="has a backslash, which MuJoCo reads as a slash: rename it"):
        check_files(tmp_path / name)
