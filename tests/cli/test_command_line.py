import subprocess
import sys
import textwrap

import pytest
from omegaconf import OmegaConf

from somite.envs.errors import UserError
from somite.envs.numbers import whole
from somite.scripts import train
from somite.scripts.cli import command_line


def nothing(config):
    """A task that does nothing."""


def run(capsys, *arguments, task=nothing, config_name="train"):
    """The exit code and what was printed."""
    code = 0
    try:
        command_line.run(task, config_name, arguments, resumable=config_name == "train")
    except SystemExit as leaving:
        code = leaving.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("agent=limb_transfomer", "agent has no choice 'limb_transfomer'; did you mean 'limb_transformer'?"),
        ("agent=null", "agent has no choice 'None'"),
        ("agnt=smp", "no key or group 'agnt'; did you mean 'agent'?"),
        ("sed=1", "no key or group 'sed'; did you mean 'seed'?"),
        ("algorithm.totl_steps=5e6", "no key 'algorithm.totl_steps'; did you mean 'algorithm.total_steps'?"),
        ("agent.width.x=1", "no key 'agent.width.x'; agent.width has no keys of its own"),
        ("+sed=1", "no key or group 'sed'"),
        ("hydra.rn.dir=x", "did you mean 'hydra.run'?"),
        ("resume=nothing", "There is no run 'nothing'"),
        ("seed", "Error parsing override 'seed'"),
        ("seed=0,1", "--multirun"),
        ("agent._target_=os.system", "agent._target_: the module 'os' has no class 'system'"),
    ],
)
def test_a_wrong_argument_gives_one_message_and_code_2(capsys, own_folder, argument, message):
    code, out, err = run(capsys, argument)
    assert code == 2 and message in err and "Traceback" not in err and not out
    assert len(err.splitlines()) <= 4


def test_settings_of_a_family_that_the_run_does_not_have_are_refused(capsys):
    given = "env=families", "env.families=[cheetah,hopper]"
    code, _, err = run(capsys, *given, "env.settings.walker.frame_skip=2")
    assert code == 2 and "env.families=['cheetah', 'hopper'] does not have it" in err
    assert run(capsys, *given, "env.settings.hopper.frame_skip=2", task=lambda config: None)[0] == 0


def test_a_wrong_argument_leaves_no_folder(capsys, own_folder):
    run(capsys, "agent=limb_transfomer")
    run(capsys, "-m", "agent=smp,limb_transfomer")
    assert not list(own_folder.iterdir())


def test_every_choice_of_a_multirun_is_looked_up_before_it_starts(capsys):
    code, _, err = run(capsys, "-m", "agent=smp,mpl", "seed=0,1")
    assert code == 2 and "agent has no choice 'mpl'" in err
    code, _, err = run(capsys, "-m", "agent=smp,limb_transformer", "agent.heads=2")
    assert code == 2 and "no key 'agent.heads'" in err, "smp has no heads"


def test_evaluation_has_keys_without_groups(capsys, own_folder):
    seen = []
    given = ("bodies=[a,b]", "run=bundled/ant*", "episodes=5")
    code, _, err = run(capsys, *given, task=seen.append, config_name="evaluate")
    assert code == 0, err
    assert seen[0].bodies == ["a", "b"] and seen[0].episodes == 5
    assert not list(own_folder.iterdir()), "an evaluation leaves no folder of its own"
    code, _, err = run(capsys, "agent=smp", config_name="evaluate")
    assert code == 2 and "no key or group 'agent'" in err, "the groups are those of training"
    code, _, err = run(capsys, "episods=5", config_name="evaluate")
    assert code == 2 and "did you mean 'episodes'?" in err


def test_an_error_of_the_user_in_the_task_has_no_trace(capsys):
    def task(config):
        raise UserError("the reward is no number")

    code, _, err = run(capsys, task=task)
    assert code == 2 and err.strip() == "the reward is no number"


def test_a_fault_of_ours_keeps_its_trace():
    def task(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command_line.run(task, "train", [])


def test_a_run_has_a_folder_of_its_own(capsys, own_folder):
    folders = []
    code, _, err = run(capsys, "agent=smp", task=lambda config: folders.append(command_line.program_folder()))
    assert code == 0, err
    (folder,) = (own_folder / "runs").iterdir()
    assert folders == [folder] and folder.name.endswith("-cheetah-smp-ppo")
    assert OmegaConf.load(folder / ".hydra" / "config.yaml").seed == 0


def test_every_job_of_a_multirun_has_a_folder_of_its_own(capsys, own_folder):
    folders = []

    def task(config):
        folders.append(command_line.program_folder())
        if config.seed == 0:
            raise UserError("seed 0 is unlucky")

    code, _, err = run(capsys, "-m", "seed=0,1", "agent=smp,mlp", task=task)
    assert len(set(folders)) == 4 and {folder.parent for folder in folders} == {own_folder / "runs"}
    assert code == 2 and err.count("failed: seed 0 is unlucky") == 2, "the other jobs went on"


def test_an_experiment_cannot_add_a_key_that_nothing_reads(capsys, own_folder):
    group = own_folder / "mine" / "experiment"
    group.mkdir(parents=True)
    (group / "good.yaml").write_text("# @package _global_\ndefaults:\n  - override /agent: smp\nseed: 7\n")
    (group / "bad.yaml").write_text("# @package _global_\nalgorithm:\n  totl_steps: 3\n")
    seen = []
    code, _, err = run(capsys, "--config-dir", "mine", "experiment=good", "seed=8", task=seen.append)
    assert code == 0, err
    assert seen[0].seed == 8 and seen[0].agent._target_.endswith("SMP")
    code, _, err = run(capsys, "--config-dir", "mine", "experiment=bad")
    assert code == 2 and "sets algorithm.totl_steps, which does not exist; did you mean" in err
    code, _, err = run(capsys, "--config-dir", "mine", "experiment=goood")
    assert code == 2 and "experiment has no choice 'goood'; did you mean 'good'?" in err


HELPS = {
    "train": (
        "patch_transformer, sensor_mlp, sensor_transformer, smp",
        *("env: ", "algorithm: ", "resume=last", "seed: 0"),
    ),
    "evaluate": ("run=last", "episodes: ", "random_baseline: true"),
    "describe": ("env.morphology=robot.xml", "output: describe", "tokens: false"),
    "view": ("somite-view run=last", "viewer: auto", "shuffle: null"),
    "export": ("output=policy.onnx", "format: onnx", "tolerance: "),
}


def test_help_needs_no_torch_and_lists_everything(own_folder):
    program = textwrap.dedent(f"""
        import importlib, sys
        for script in {list(HELPS)}:
            sys.argv = [f"somite-{{script}}", "--help"]
            try:
                importlib.import_module(f"somite.scripts.{{script}}").main()
            except SystemExit as leaving:
                assert not leaving.code
            assert "torch" not in sys.modules, "help should be fast"
            print("=== END ===")
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for (script, wanted), said in zip(HELPS.items(), done.stdout.split("=== END ===")[:-1], strict=True):
        for text in wanted:
            assert text in said, script


def test_a_script_is_run_as_a_file_too(own_folder):
    command = [sys.executable, train.__file__, "--cfg", "job", "seed=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "seed: 3" in done.stdout, done.stderr


@pytest.mark.parametrize("value", [5e6, 5_000_000, "5e6", "5000000"])
def test_counts_may_be_written_in_powers_of_ten(value):
    count = whole().read("total_steps", value)
    assert count == 5_000_000 and type(count) is int


@pytest.mark.parametrize("value", [1.5, "1.5", "many", None, True, float("nan"), float("inf"), [1], -1])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(UserError, match="total_steps must be"):
        whole().read("total_steps", value)


def test_counts_have_a_least_value():
    with pytest.raises(UserError, match="episodes must be a whole number of 1 or more, got 0"):
        whole(1).read("episodes", 0)


@pytest.mark.parametrize(
    "argument, said",
    [
        ("~agent=18446744073709551616", "~agent leaves out a group"),
        ("~agent=[1]", "~agent leaves out a group"),
        (f"algorithm.{'x' * 9000}=1", "there is no key"),
        (f"+algorithm.{'x' * 9000}=1", "there is no key"),
        (f"agent={'x' * 9000}", "has no choice"),
    ],
)
def test_what_fuzzing_found_is_told_in_few_words(argument, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line.run(lambda config: None, "train", [argument])
    told = capsys.readouterr().err
    assert said in told and len(told) < 2500 and "Traceback" not in told
