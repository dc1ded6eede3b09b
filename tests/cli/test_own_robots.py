"""A user's own robot on the command line: trained in one folder, evaluated and gone on with from another."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from omegaconf import OmegaConf

from somite.agents.storage.run_folder import list_checkpoints
from somite.scripts import evaluate, train

from ..agents.runs import ROLLOUT, TINY

ROBOT = """
<mujoco>
  <compiler meshdir="parts"/>
  <asset><mesh name="shell" file="shell.obj"/></asset>
  <worldbody>
    <body name="trunk" pos="0 0 0.5">
      <freejoint/>
      <geom type="box" size="0.2 0.1 0.05"/>
      <geom type="mesh" mesh="shell" contype="0" conaffinity="0"/>
      <body name="leg" pos="{place} 0 -0.05">
        <joint name="hip" axis="0 1 0" range="-60 60"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.03"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="hip" gear="5" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
SHELL = "v 0 0 0\nv .2 0 0\nv 0 .2 0\nv 0 0 .2\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
SMALL = [argument for argument in TINY if not argument.startswith("env.bodies")]


def put_robots(home):
    """Two robots in a folder of their own, with a mesh."""
    (home / "robots" / "parts").mkdir(parents=True)
    (home / "robots" / "parts" / "shell.obj").write_text(SHELL)
    for name, place in (("one", 0.0), ("two", 0.1)):
        (home / "robots" / f"{name}.xml").write_text(ROBOT.format(place=place))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Where the robots are, in which we stand, and another folder."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    put_robots(home)
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    return home, elsewhere


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A folder with the robots and a run on one of them."""
    home = tmp_path_factory.mktemp("robots")
    put_robots(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        train.main(["env.morphology=robots/two.xml", "agent=smp", *SMALL])
    return home


@pytest.fixture
def trained(learnt, tmp_path, monkeypatch):
    """A copy of it, in which we stand."""
    monkeypatch.chdir(shutil.copytree(learnt, tmp_path / "home"))
    return tmp_path / "home"


def run_of(home):
    (run,) = (home / "runs").iterdir()
    return run


def test_a_run_on_ones_own_robots_is_evaluated_and_gone_on_with_from_another_folder(folders, monkeypatch):
    home, elsewhere = folders
    own = ["env=locomotion", "env.morphology=robots", "env.unseen=[two]", "agent=smp", *SMALL]
    train.main(own)
    run = run_of(home)
    for path in (run / "config.yaml", run / ".hydra" / "config.yaml"):
        assert OmegaConf.load(path).env.morphology == "../../robots"
    for path in ("policy", f"checkpoints/{list_checkpoints(run)[-1].name}/policy"):
        text = (run / path / "policy.json").read_text()
        said = json.loads(text)["environment"]
        assert said["config"]["morphology"] == "../../robots" and str(home) not in text
    assert (said["seen"], said["unseen"]) == (["one"], ["two"])

    monkeypatch.chdir(elsewhere)
    evaluate.main([f"run={run}", "episodes=2"])
    with (run / "evaluation" / "results.csv").open(newline="") as file:
        assert {row["body"] for row in csv.DictReader(file)} >= {"one", "two"}

    train.main([f"resume={run}", f"algorithm.total_steps={4 * ROLLOUT}"])
    assert [int(path.name) for path in list_checkpoints(run)][-1] == 4 * ROLLOUT


def results_of(run, *arguments):
    """What an evaluation says of each body."""
    given = [f"run={run}", "episodes=2", "random_baseline=false", *arguments]
    evaluate.main(given)
    with (run / "evaluation" / "results.csv").open(newline="") as file:
        return {row["body"]: row for row in csv.DictReader(file)}


def test_a_policy_is_tried_on_other_robots(trained):
    run = run_of(trained)
    (own,) = results_of(run).values()
    assert own["seen"] == "True"
    found = results_of(run, "env.morphology=robots")
    assert {name: row["seen"] for name, row in found.items()} == {"one": "False", "two": "True"}
    assert float(found["two"]["mean"]) == pytest.approx(float(own["mean"]), rel=1e-6), "body, task and starts"


def test_a_robot_that_was_edited_since_counts_as_unseen(trained, capsys):
    run = run_of(trained)
    path = trained / "robots" / "two.xml"
    path.write_text(path.read_text().replace("0.2 0.1 0.05", "0.25 0.1 0.05"))
    assert results_of(run)["two"]["seen"] == "False"
    assert "two is not the body of that name that was trained on" in capsys.readouterr().out


def test_the_padded_network_is_not_tried_on_other_robots(folders, capsys):
    home, _ = folders
    train.main(["env.morphology=robots/two.xml", "agent=mlp", *SMALL])
    with pytest.raises(SystemExit) as leaving:
        results_of(run_of(home), "env.morphology=robots/one.xml")
    err = capsys.readouterr().err
    assert leaving.value.code == 2 and "modular policies do: smp, limb_transformer" in err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("robots/on.xml", "did you mean 'one.xml'?"),
        ("robot", "did you mean 'robots'?"),
        ("robots/parts", "holds no .xml file"),
        ("nowhere/one.xml", "nowhere is no folder"),
        ("null", "which robot? say env.morphology="),
    ],
)
def test_a_wrong_path_gives_one_message_and_code_2(folders, capsys, argument, message):
    with pytest.raises(SystemExit) as leaving:
        train.main(["env=locomotion", f"env.morphology={argument}", "agent=smp", *SMALL])
    err = capsys.readouterr().err
    assert leaving.value.code == 2 and message in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("env", ["cheetah", "cartpole_swingup"])
def test_a_robot_and_another_environment_is_told_to_drop_that(folders, capsys, env):
    for key in ("env.morphology=robots/one.xml", "env.keyframe=home"):
        with pytest.raises(SystemExit) as leaving:
            train.main([f"env={env}", key])
        err = capsys.readouterr().err
        assert leaving.value.code == 2 and len(err.strip().splitlines()) == 1
        assert f"is a key of your own robots, not of env={env}; drop env={env}" in err
    assert err.strip().endswith("and say env.morphology=<your robot>")
    with pytest.raises(SystemExit):
        results_of("bundled/cheetah-smp", f"env={env}", "env.morphology=robots/one.xml")
    assert (
        f"env={env}: the environment is that which the policy was trained in; drop" in capsys.readouterr().err
    )


def test_a_robot_alone_says_which_environment_is_meant(trained):
    run = run_of(trained)
    assert OmegaConf.load(run / "config.yaml").env.morphology == "../../robots/two.xml"
    assert "-locomotion-" in run.name
