import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from somite.scripts import benchmark
from somite.scripts.benchmarks.arguments import for_hydra
from somite.scripts.cli import command_line


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    """The exit code and what was printed to stderr."""
    monkeypatch.setattr(sys, "argv", ["somite-benchmark", *arguments])
    code = 0
    try:
        benchmark.main()
    except SystemExit as leaving:
        code = leaving.code or 0
    return code, capsys.readouterr().err


def test_keys_go_to_the_section_that_the_first_word_names():
    assert for_hydra(["locomotion", "seconds=5", "output=x.json", "~ppo.smp", "hydra.verbose=true"]) == [
        "benchmark=locomotion",
        "locomotion.seconds=5",
        "output=x.json",
        "~locomotion.ppo.smp",
        "hydra.verbose=true",
    ]
    asked = ["learning.steps=5", "--cfg", "job"]
    assert for_hydra(["learning", *asked])[1:] == asked
    assert for_hydra(["locomotion", "+ppo.x=[a]"])[1:] == ["+locomotion.ppo.x=[a]"]
    assert for_hydra(["--help"]) == ["--help"]


def test_arguments_of_training_are_given_as_to_train():
    seen = []
    training = ["env=walker", "algorithm.num_envs=24", "env.task.direction=[0,1]"]
    given = for_hydra(["learning", *training, "steps=5"])
    command_line.run(seen.append, "benchmark", given, resumable=False)
    assert seen[0].learning.steps == 5
    assert seen[0].learning.train == training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("locmotion",), "there is no benchmark 'locmotion'; did you mean 'locomotion'?"),
        ((), "the first word names the benchmark, for example: somite-benchmark locomotion"),
        (("seconds=5",), "the first word names the benchmark"),
        (("locomotion", "secnds=5"), "no key 'locomotion.secnds'; did you mean 'locomotion.seconds'?"),
        (("learning", "agent=smp"), "no key 'learning.agent'; did you mean 'learning.agents'?"),
        (("learning", "algoritm.num_envs=3"), "no key 'learning.algoritm.num_envs'"),
        (("learning", "output=x", "agents=naiv"), "agent has no choice 'naiv'; did you mean 'naive'?"),
        (("learning", "output=x", "algorithm.num_env=3"), "did you mean 'algorithm.num_envs'?"),
        (("learning", "output=x", "steps=many"), "steps must be a whole number"),
        (("learning",), "give output=learning.json"),
        (("locomotion", "seconds=0"), "seconds must be a number above 0"),
        (("locomotion", "seconds=.inf"), "seconds must be a number above 0"),
        (("locomotion", "rounds=0", "algorithm.gamma=5"), "algorithm.gamma must be a number from 0 to 1"),
        (("locomotion", "output=5"), "output must be a text"),
        (("locomotion", "output=."), "is a folder; name a file"),
        (("locomotion", "+ppo.x=['agent.widht=3']"), "did you mean 'agent.width'?"),
        (("--config-dir", "."), "there is no benchmark 'None'"),
    ],
)
def test_a_wrong_argument_gives_a_message_and_code_2(monkeypatch, capsys, own_folder, arguments, message):
    code, error = run(monkeypatch, capsys, *arguments)
    assert code == 2 and message in error and "Traceback" not in error
    assert not list(own_folder.iterdir()), "nothing is left behind"


def test_help_needs_no_torch_and_lists_every_benchmark(own_folder):
    program = (
        "import sys\n"
        "from somite.scripts import benchmark\n"
        "sys.argv = ['somite-benchmark', '--help']\n"
        "try:\n"
        "    benchmark.main()\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules, 'help should be fast'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = done.stdout.split("== Benchmarks")[1].split("== Examples ==")[0]
    sections = OmegaConf.create(done.stdout.split("changes one of NAME's) ==")[1])
    for name in (name for name in sections if name not in ("benchmark", "output")):
        assert f"\n{name} " in listed
    assert "seconds: 3" in done.stdout
