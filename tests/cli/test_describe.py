"""``somite-describe`` from the command line: families, files, folders, mistakes, and no way to draw."""

from __future__ import annotations

import sys

import imageio.v3 as imageio
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion.pictures.rendering import file_name, find_backend
from somite.scripts import describe
from somite.scripts.cli import description
from somite.scripts.cli.arguments import with_implied
from tests.envs.locomotion.pictures.test_describe import ROBOT

SMALL = ("width=64", "height=48")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "robot.xml").write_text(ROBOT)
    folder = tmp_path / "robots"
    folder.mkdir()
    (folder / "one.xml").write_text(ROBOT)
    (folder / "sheet.xml").write_text(ROBOT.replace('mass="2"', 'mass="3"'))
    (folder / "scene.xml").write_text("<mujoco/>")
    return tmp_path


@pytest.fixture
def told(monkeypatch, capsys):
    """Runs the command and gives its exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["somite-describe", *arguments])
        code = 0
        try:
            describe.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def drawing():
    try:
        find_backend()
    except UserError as error:
        pytest.skip(str(error))


def test_a_file_is_told_without_its_group(told, own_folder):
    code, out, err = told("env.morphology=robot.xml", "pictures=false", "tokens=true")
    assert code == 0, err
    for text in ("shoulder", "ball y", "position servo hip_servo", "-0.5 to 1 rad", "with helmet", "9 N m"):
        assert text in out
    assert "[bold]thrust[/]" in out, "a name is no markup"
    assert (
        "note: without an actuator, so scenery and no limb: 'ball'" in out and "4 limbs; 8 joint rows" in out
    )
    assert "center_of_mass" in out and "trunk: tokens in the start pose" in out
    assert not (own_folder / "describe").exists()


def test_features_may_be_left_out(told):
    _, out, _ = told("env=hopper", "bodies=hopper_3", "features=false", "pictures=false")
    assert "center_of_mass" not in out and "hopper_3" in out and "hopper_4" not in out


def test_a_family_and_its_sheet(told, own_folder, drawing):
    code, out, err = told("env=hopper", "bodies=[hopper_3,hopper_4]", "output=pictures", *SMALL)
    assert code == 0, err
    made = {path.name for path in (own_folder / "pictures").iterdir()}
    assert made == {"hopper_3.png", "hopper_4.png", "sheet.png"}
    sheet = imageio.imread(own_folder / "pictures" / "sheet.png")
    assert f"{sheet.shape[1]}×{sheet.shape[0]} pixels" in out and sheet.shape[1] == 2 * (64 + 8)
    assert sheet[..., :3].std() > 10


def test_a_folder_of_robots(told, own_folder, drawing):
    code, out, err = told("env.morphology=robots", "features=false", *SMALL)
    assert code == 0, err
    made = {path.name for path in (own_folder / "describe").iterdir()}
    assert made == {"one.png", "sheet_.png", "sheet.png"}, "a robot called sheet keeps its picture"
    assert "left out:" in out and "scene.xml" in out, "a file that is no robot is told"


def test_where_nothing_draws_tables_and_graphs_are_still_made(told, own_folder, monkeypatch):
    def fails():
        raise UserError("cannot draw; `apt-get install libegl1`")

    monkeypatch.setattr(description, "find_backend", fails)
    code, out, err = told("env=hopper", "bodies=[hopper_3,hopper_4]")
    assert code == 0, err
    assert "apt-get install libegl1" in out and "4 limbs" in out
    made = {path.name for path in (own_folder / "describe").iterdir()}
    assert made == {"hopper_3.png", "hopper_4.png"}
    assert imageio.imread(own_folder / "describe" / "hopper_3.png")[..., :3].std() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("env=cheeta",), "did you mean 'cheetah'?"),
        (("env=hopper", "bodies=hoper_3"), "did you mean 'hopper_3'?"),
        (("env.morphology=robt.xml",), "did you mean 'robot.xml'?"),
        (("env.morphology=robot.xml", "bodies=robt"), "did you mean 'robot'?"),
        (("feature=true",), "did you mean 'features'?"),
        (("width=3", "pictures=false"), "width must be"),
        (("env=hopper", "bodies=hopper_3", "output=robot.xml"), "is a file; give the name of a folder"),
        (("env=cartpole_swingup",), "tells of bodies, and cartpole_swingup has none, only sensors"),
    ],
)
def test_a_mistake_gives_one_message(told, arguments, message):
    code, _, err = told(*arguments)
    assert code == 2 and message in err and "Traceback" not in err


def test_the_group_is_implied_by_the_key():
    assert with_implied(["env.morphology=a.xml"]) == ["env=locomotion", "env.morphology=a.xml"]
    assert with_implied(["env=mine", "env.morphology=a"]) == ["env=mine", "env.morphology=a"]
    assert with_implied(["resume=last", "env.morphology=a"]) == ["resume=last", "env.morphology=a"]
    assert with_implied(["env=ant"]) == ["env=ant"]


def test_a_path_becomes_absolute_and_a_name_stays(tmp_path, monkeypatch):
    (tmp_path / "my robot.xml").write_text("<mujoco/>")
    monkeypatch.chdir(tmp_path)
    found = with_implied(["env=locomotion", "env.morphology='my robot.xml'"])[1]
    assert found == f"env.morphology='{tmp_path.resolve()}/my robot.xml'"
    assert with_implied(["env=locomotion", "env.morphology=menagerie:x"])[1] == "env.morphology=menagerie:x"


def test_names_of_files():
    assert file_name("walkers/long leg") == "walkers_long_leg"
    assert file_name("../x") == "x" and file_name("..") == "body"
