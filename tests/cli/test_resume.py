import shutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from somite.agents.storage import run_folder
from somite.envs.errors import UserError
from somite.scripts.cli import command_line
from somite.scripts.cli.resume import rewrite_for_resume


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run that was started by the command line, left a checkpoint, and was stopped."""
    folders = []

    def task(config):
        folders.append(command_line.program_folder())
        with run_folder.new_checkpoint(folders[0], 100) as folder:
            (folder / "training_state").mkdir()

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("first"))
        command_line.run(task, "train", ["agent=smp", "seed=3", "algorithm.total_steps=1000"])
    return folders[0]


@pytest.fixture
def started(first, tmp_path, monkeypatch):
    """A copy of that run, for one test, in the folder where it is the only one."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(first, tmp_path / "runs" / first.name)


def resumed(*arguments):
    """The configurations and folders of a resumed run."""
    seen = []
    command_line.run(lambda c: seen.append((c, command_line.program_folder())), "train", arguments)
    return seen[0]


def test_other_arguments_are_left_alone():
    assert rewrite_for_resume(["seed=1", "-m"]) == ["seed=1", "-m"]


def test_the_arguments_that_hydra_gets(started):
    assert rewrite_for_resume(["resume=last", "algorithm.total_steps=2000"]) == [
        "--config-name",
        "resumed",
        f"hydra.run.dir='{started}'",
        "hydra.output_subdir=.hydra.1",
        "hydra.job.name=train",
        "algorithm.total_steps=2000",
    ]


@pytest.mark.parametrize("how", ["last", "name", "path"])
def test_a_run_goes_on_in_its_folder_with_its_configuration(started, how):
    run = {"last": "last", "name": started.name, "path": f"runs/{started.name}"}[how]
    config, folder = resumed(f"resume={run}", "algorithm.total_steps=2000")
    assert folder == started and config.seed == 3 and config.agent._target_.endswith("SMP")
    assert config.algorithm.total_steps == 2000
    assert [file.name for file in started.glob("*.log")] == ["train.log"]
    assert OmegaConf.load(started / ".hydra" / "config.yaml").algorithm.total_steps == 1000


def test_the_newest_configuration_is_gone_on_from(started):
    resumed("resume=last", "algorithm.total_steps=2000")
    config, _ = resumed("resume=last", "threads=2")
    assert config.algorithm.total_steps == 2000 and config.threads == 2
    assert (started / ".hydra.2" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("it's (mine), at 100%", "it's (mine), at 100%"),
        ("a\\b [1] {x}=$y #\\", "runs/a\\b [1] {x}=$y #\\"),
        ("~me", "'~me'"),
    ],
)
def test_a_folder_with_odd_characters_can_be_resumed(started, name, given):
    odd = started.with_name(name)
    started.rename(odd)
    config, folder = resumed(f"resume={given}")
    assert folder == odd and config.seed == 3 and len(list(odd.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "argument",
    [
        "resume",
        "resume=",
        "resume=''",
        "resume=null",
        "+resume=last",
        "++resume=last",
        "~resume",
        "'resume'=last",
    ]
    + [
        "resume =last",
        "Resume=last",
        "RESUME=last",
        "--resume",
        "--resume=last",
        "resume:last",
        "-resume=last",
    ],
)
def test_what_mentions_resume_and_resumes_nothing_is_refused(started, argument):
    with pytest.raises(UserError, match="resume=<run>|names no run"):
        rewrite_for_resume([argument, "seed=1"])


@pytest.mark.parametrize(
    "argument", ["hydra.run.dir=other", "++hydra.run.dir=other", "hydra.mode=MULTIRUN", "--multir"]
)
def test_a_resumed_run_goes_on_in_no_other_folder(started, argument):
    with pytest.raises(UserError, match="goes on in the run's own folder|does not go together"):
        rewrite_for_resume(["resume=last", argument])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resume=last", "agent=mlp"), "keeps its agent; single keys may change"),
        (("resume=last", "experiment=demo"), "keeps its experiment"),
        (("resume=last", "-m", "seed=0,1"), "does not go together with -m"),
        (("resume=last", "--config-name=x"), "run's own configuration"),
        (("resume=last", "resume=other"), "one run is resumed at a time"),
        (("resume=lst",), "no run 'lst'.*did you mean 'last'"),
    ],
)
def test_what_a_resumed_run_cannot_do(started, arguments, message):
    with pytest.raises(UserError, match=message):
        rewrite_for_resume(arguments)


def test_a_mistyped_key_of_a_resumed_run_is_found(started, capsys):
    with pytest.raises(SystemExit) as leaving:
        resumed("resume=last", "algorithm.totl_steps=3")
    assert leaving.value.code == 2
    assert "did you mean 'algorithm.total_steps'" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_cannot_be_resumed(started):
    run_folder.remove_folder(started / "checkpoints" / "100")
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        rewrite_for_resume([f"resume={started}"])


def test_a_run_without_its_configuration_cannot_be_resumed(started):
    (started / ".hydra" / "config.yaml").unlink()
    with pytest.raises(UserError, match="config.yaml, is missing"):
        rewrite_for_resume(["resume=last"])


def test_a_run_may_go_on_elsewhere(started, monkeypatch, capsys):
    ray = ModuleType("ray")  # whether it is installed or not
    ray.__spec__ = ModuleSpec("ray", None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    config, _ = resumed("resume=last", "compute=ray", "compute.workers=3")
    assert (
        config.compute._target_ == "somite.agents.rollout.ray_population.Ray" and config.compute.workers == 3
    )
    assert config.algorithm.total_steps == 1000 and config.seed == 3
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit):
        resumed("resume=last", "compute=ray")
    assert "compute=ray needs Ray, which is not installed" in capsys.readouterr().err
    with pytest.raises(UserError, match="compute has no choice 'rey'.*ray"):
        rewrite_for_resume(["resume=last", "compute=rey"])
