"""Whole run folders from strangers: resuming them runs nothing, and touches nothing outside."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from somite.agents.storage import run_folder
from somite.agents.storage.paths import typed_arguments
from somite.envs.errors import UserError
from somite.scripts.cli import command_line
from somite.scripts.cli.arguments import check_targets
from somite.scripts.cli.resume import rewrite_for_resume

STARTED = ["agent=smp", "seed=3", "algorithm.total_steps=1000"]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The folder in which a run was started by the command line; it left a checkpoint."""
    here = tmp_path_factory.mktemp("started")

    def task(config):
        with run_folder.new_checkpoint(command_line.program_folder(), 100) as folder:
            (folder / "training_state").mkdir()

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        command_line.run(task, "train", STARTED)
    return here


@pytest.fixture
def run(started, tmp_path, monkeypatch):
    """A copy of that run; what it may not touch lies beside."""
    shutil.copytree(started, tmp_path / "here")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "mine").write_text("mine")
    monkeypatch.chdir(tmp_path / "here")
    (found,) = (tmp_path / "here" / "runs").iterdir()
    return found


def everything(folder):
    """Paths and contents below a folder, links as what they say."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def edit(run, change):
    file = run / ".hydra" / "config.yaml"
    values = yaml.safe_load(file.read_text())
    change(values)
    file.write_text(yaml.safe_dump(values, sort_keys=False))


def resume(run, *arguments):
    """What the command says, its exit code, and the configurations that would have been trained."""
    seen = []
    command_line.run(seen.append, "train", [f"resume={run}", *arguments])
    return seen


def refused(capsys, run, *arguments):
    """The message of a run that is not resumed, before which and after which all files are the same."""
    top = run.parents[2]
    before = everything(top)
    with pytest.raises(SystemExit) as leaving:
        resume(run, *arguments)
    err = capsys.readouterr().err
    assert leaving.value.code == 2 and "Traceback" not in err and len(err.strip().splitlines()) == 1, err
    assert everything(top) == before
    assert not (top / "victim" / "run").exists()
    return err


def touch(marker):
    """A node that makes a file when it is built."""
    return {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(marker)]}}


def hydra_section(**values):
    return lambda marker: lambda config: config.update(hydra=fill(values, marker))


def fill(node, marker):
    if node == "MARKER":
        return touch(marker)
    if isinstance(node, dict):
        return {key: fill(value, marker) for key, value in node.items()}
    if isinstance(node, list):
        return [fill(value, marker) for value in node]
    return str(marker) if node == "PATH" else node


def put(*keys, value):
    """Sets a key, deep in the configuration."""

    def change(marker):
        def apply(config):
            for key in keys[:-1]:
                config = config[key]
            config[keys[-1]] = fill(value, marker)

        return apply

    return change


HOSTILE = {
    "a callback": hydra_section(callbacks={"x": "MARKER"}),
    "a log handler": hydra_section(
        job_logging={
            "version": 1,
            "root": {"handlers": ["h"]},
            "handlers": {"h": {"()": "pathlib.Path.touch", "self": "PATH"}},
        }
    ),
    "a log file elsewhere": hydra_section(
        job_logging={
            "version": 1,
            "root": {"handlers": ["h"]},
            "handlers": {"h": {"class": "logging.FileHandler", "filename": "PATH"}},
        }
    ),
    "a launcher": hydra_section(launcher="MARKER"),
    "a sweeper": hydra_section(sweeper="MARKER", mode="MULTIRUN"),
    "a folder elsewhere": hydra_section(run={"dir": "PATH"}),
    "an environment variable that is set": hydra_section(job={"env_set": {"PATH": "/x"}}),
    "a search path": hydra_section(searchpath=["file:///tmp"]),
    "defaults": put("defaults", value=["_self_", {"override hydra/launcher": "x"}]),
    "a part of another package": put("agent", value={"_target_": "os.system", "command": "true"}),
    "a function of ours": put(
        "agent", value={"_target_": "somite.agents.storage.atomic.remove_folder", "folder": "PATH"}
    ),
    "what a module of ours imports": put(
        "agent", "_target_", value="somite.agents.storage.policy.json.loads"
    ),
    "a part in a list": put("env", "bodies", value=["MARKER"]),
    "a part in a part": put("env", "task", value="MARKER"),
    "a part at the top": put("_target_", value="os.system"),
    "arguments by place": put("agent", "_args_", value=["x"]),
    "a part of a part": put("agent", "_partial_", value=True),
    "an environment variable that is read": put("device", value="${oc.env:HOME}"),
    "a decoder": put("seed", value="${oc.decode:'1'}"),
    "a reference": put("seed", value="${algorithm.total_steps}"),
    "a reference as a key": put("agent", "${oc.env:HOME}", value=1),
    "a cluster elsewhere": put(
        "compute",
        value={"_target_": "somite.agents.rollout.ray_population.Ray", "address": "evil.example:6379"},
    ),
    "files from everywhere": put("env", "files_from", value="/"),
    "files from everywhere, in a condition": put(
        "zero_shot", "conditions", value={"limbs": {"x": {"files_from": "/"}}}
    ),
    "a module": put("env", "imports", value=["os"]),
    "a module, in a condition": put("zero_shot", "conditions", value={"sensors": {"x": {"imports": "os"}}}),
    "a key of nobody": put("agent", "widht", value=3),
    "a section of nobody": put("hydra/launcher", value={"a": 1}),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_configuration_is_not_resumed(run, capsys, hostile):
    marker = run.parents[2] / "victim" / "run"
    edit(run, hostile(marker))
    err = refused(capsys, run)
    assert str(run / ".hydra" / "config.yaml") in err


def test_hydra_itself_would_build_it(run, tmp_path):
    """The negative control: what is refused above does harm where such a file is what Hydra reads."""
    marker = tmp_path / "marker"
    edit(run, HOSTILE["a callback"](marker))
    program = f"""if True:
        import hydra
        hydra.main({str(run / ".hydra")!r}, "config", "1.3")(lambda config: None)()
    """

    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert marker.exists()


TEXTS = {
    "a package of another kind": "# @package hydra\nrun: {dir: /tmp}\n",
    "an object": "seed: !!python/object/apply:os.system ['touch x']\n",
    "a tag": "seed: !env HOME\n",
    "aliases that grow": "a: &a [1, 1]\nb: &b [*a, *a]\nseed: *b\n",
    "depth": "seed: " + "[" * 5000,
    "no YAML": "seed: [\n",
    "a list": "- 1\n",
    "bytes": b"\xff\xfe\x00",
    "many megabytes": "# " + "x" * 2**22,
    "nothing": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml", "overrides.yaml of a run that went on"])
def test_a_hostile_file_of_a_configuration_is_not_read(run, capsys, name, text):
    name, _, went_on = name.partition(" ")
    if went_on:
        shutil.copytree(run / ".hydra", run / ".hydra.1")
    file = run / ".hydra" / name
    if name == "overrides.yaml" and text in (TEXTS["a list"], TEXTS["nothing"]):
        text = "{a: b}"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(capsys, run)


LINKS = [
    "checkpoints",
    "checkpoints/100/training_state",
    "policy",
    "best",
    "config.yaml",
    "metrics.csv",
    "train.log",
    ".lock",
    ".hydra.1",
    ".hydra/hydra.yaml",
    "events.out.tfevents.1.x.0",
]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_out_of_the_folder_is_not_followed(run, capsys, name):
    place, victim = run / name, run.parents[2] / "victim"
    target = victim / ("folder" if "." not in name.strip(".")[1:] or name.startswith(".hydra.1") else "mine")
    if target.name == "folder":
        target.mkdir(exist_ok=True)
        (target / "100").mkdir()
    if place.is_dir():
        os.rename(place, run.parents[2] / "moved")
        if name == "checkpoints":
            (target / "200").mkdir()
    elif place.exists():
        place.unlink()
    place.symlink_to(target)
    err = refused(capsys, run)
    assert name.split("/")[0] in err


def test_a_pipe_in_the_folder_is_not_waited_for(run, capsys):
    (run / "metrics.csv").unlink(missing_ok=True)
    os.mkfifo(run / "metrics.csv")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        rewrite_for_resume([f"resume={run}"])


def test_what_the_user_says_himself_counts(run):
    edit(run, put("device", value="${oc.env:HOME}")(None))
    assert resume(run, "device=cpu")[0].device == "cpu"


def test_what_reaches_beyond_the_folder_is_said_again(run):
    edit(run, put("env", "files_from", value="/")(None))
    with pytest.raises(UserError, match="say it again: env.files_from="):
        rewrite_for_resume([f"resume={run}", "device=cpu"])
    edit(run, put("env", "imports", value=["a", "b"])(None))
    with pytest.raises(UserError, match=r"say it again: env.imports=\[a,b\], or"):
        rewrite_for_resume([f"resume={run}", "env.files_from=null"])


def test_a_run_of_ours_goes_on_with_all_its_values(run):
    """The negative control: nothing is lost on the way through plain values."""
    kept = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    config = resume(run, "threads=1")[0]
    assert json.loads(json.dumps(kept)) | {"threads": 1} == json.loads(
        json.dumps(yaml.safe_load(__import__("omegaconf").OmegaConf.to_yaml(config)))
    )


def test_arguments_that_were_saved_are_told_and_not_looked_up(run, monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    (run / ".hydra" / "overrides.yaml").write_text("- seed=${oc.env:SECRET}\n- '${oc.env:SECRET}'\n")
    assert typed_arguments(run) == ["seed=${oc.env:SECRET}", "${oc.env:SECRET}"]


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_hostile_pickle_as_training_state_runs_nothing(tmp_path):
    marker, file = tmp_path / "marker", tmp_path / "state.pt"
    torch.save({"steps": 1, "x": Bomb(marker)}, file)
    for data in (file.read_bytes(), pickle.dumps(Bomb(marker))):
        file.write_bytes(data)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(file, weights_only=True)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists(), "the negative control: the bomb is one"


def test_only_what_configurations_name_is_built():
    from omegaconf import OmegaConf

    for target in (
        "somite.agents.storage.run_folder.keep_newest",
        "somite.scripts.train.main",
        "somite.agents.policies",
    ):
        with pytest.raises(UserError, match="no configuration builds"):
            check_targets(OmegaConf.create({"agent": {"_target_": target}}))
    check_targets(OmegaConf.create({"agent": {"_target_": "somite.agents.policies.SMP", "width": 8}}))


@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_is_refused_leaves_a_folder_only_if_it_had_begun(tmp_path, monkeypatch, late):
    def task(config):
        if late:
            (command_line.program_folder() / "metrics.csv").write_text("step\n1\n")
        raise UserError("more bodies than environments")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command_line.run(task, "train", STARTED)
    assert ended.value.code == 2 and len(list((tmp_path / "runs").glob("*"))) == late
