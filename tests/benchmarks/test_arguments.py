import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from somite.scripts.benchmark import for_hydra
from somite.scripts.cli import command_line
from tests.benchmarks.conftest import run
from tests.benchmarks.test_speed import VARIANTS

ALONE = tuple(f"~ppo.{name}" for name in VARIANTS)
"""Nothing but what is added is composed."""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_keys_go_to_the_section_that_the_first_word_names():
    assert for_hydra(["locomotion", "seconds=5", "output=x.json", "~ppo.smp", "hydra.verbose=true"]) == [
        "benchmark=locomotion",
        "locomotion.seconds=5",
        "output=x.json",
        "~locomotion.ppo.smp",
        "hydra.verbose=true",
    ]
    asked = ["bodies.seconds=5", "--cfg", "job"]
    assert for_hydra(["bodies", *asked])[1:] == asked
    assert for_hydra(["locomotion", "+ppo.x=[a]"])[1:] == ["+locomotion.ppo.x=[a]"]
    assert for_hydra(["--help"]) == ["--help"]


def test_arguments_of_training_are_given_as_to_train():
    seen = []
    training = ["env=walker", "algorithm.num_envs=24", "env.task.direction=[0,1]"]
    given = for_hydra(["population", *training, "steps=5"])
    command_line.run(seen.append, "benchmark", given, resumable=False)
    assert seen[0].population.steps == 5
    assert seen[0].population.train == training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("locmotion",), "there is no benchmark 'locmotion'; did you mean 'locomotion'?"),
        ((), "the first word names the benchmark, for example: somite-benchmark locomotion"),
        (("seconds=5",), "the first word names the benchmark"),
        (("locomotion", "secnds=5"), "no key 'locomotion.secnds'; did you mean 'locomotion.seconds'?"),
        (("bodies", "algoritm.num_envs=3"), "no key 'bodies.algoritm.num_envs'"),
        (
            ("locomotion", "rounds=0", *ALONE, "+ppo.x=['agent=naiv']"),
            "agent has no choice 'naiv'; did you mean 'naive'?",
        ),
        (("locomotion", "rounds=0", "algorithm.num_env=3"), "did you mean 'algorithm.num_envs'?"),
        (("population", "steps=many"), "steps must be a whole number"),
        (("population", "ant_candidates=-1"), "ant_candidates must be"),
        (("bodies", "topologies=[]"), "topologies must be a list of at least 1"),
        (("bodies", "factors=[2,1]"), "factors must be [low, high] with low <= high"),
        (("car_racing", "num_envs=0"), "num_envs must be a whole number from 1 to 1,000,000"),
        (("scaling", "shard_sizes=[4]"), "shard_sizes must be two or more"),
        (("scaling", "workers=[0]"), "workers must be a list"),
        (("scaling", "bandwidth=.nan"), "bandwidth must be a number above 0"),
        (("locomotion", "seconds=0"), "seconds must be a number above 0"),
        (("locomotion", "seconds=.inf"), "seconds must be a number above 0"),
        (("locomotion", "rounds=0", "algorithm.gamma=5"), "algorithm.gamma must be a number from 0 to 1"),
        (("locomotion", "output=5"), "output must be a text"),
        (("locomotion", "output=."), "is a folder; name a file"),
        (("locomotion", *ALONE, "+ppo.x=['agent.widht=3']"), "did you mean 'agent.width'?"),
        (("--config-dir", "."), "there is no benchmark 'None'"),
    ],
)
def test_a_wrong_argument_gives_a_message_and_code_2(capsys, own_folder, arguments, message):
    code, error = run(*arguments), capsys.readouterr().err
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
