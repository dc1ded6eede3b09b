"""Speed of simulation and of PPO: what is compared with what, and that the report says so."""

import pytest
from omegaconf import OmegaConf

from somite.envs.cores import available_cores
from tests.benchmarks.conftest import measured, run

PPO = ("algorithm.n_steps=4", "algorithm.batch_size=12", "algorithm.n_epochs=1")
VARIANTS = (
    "limb_transformer",
    "limb_transformer_bf16",
    "limb_transformer_1_core",
    "smp",
    "mlp",
    "naive_1_core",
)

MEASURED = ("limb_transformer_bf16", "mlp", "naive_1_core")


@pytest.fixture(scope="module")
def locomotion(tmp_path_factory):
    """A whole run with a tiny budget, of some of the variants."""
    tiny = ("seconds=0.02", "rounds=2", "num_envs=2", "rows_per_body=1", "iterations=1")
    tiny += tuple(f"~ppo.{name}" for name in VARIANTS if name not in MEASURED)
    return measured(tmp_path_factory.mktemp("a"), "locomotion", *tiny, "algorithm.num_envs=12", *PPO)[1]


def test_ours_is_compared_with_each_rival_round_by_round(locomotion):
    rivals = {"ant/bare", "ant/gymnasium_async", "ant/sb3_subproc"}
    alone = rivals | {"cheetahs/bare"}
    assert set(locomotion) == {*alone, "ant/somite", "cheetahs/somite", *(f"ppo/{name}" for name in MEASURED)}
    ratios = locomotion["ant/somite"]["ratios"]
    assert set(ratios) == rivals
    own, rival = (locomotion[name]["rounds"] for name in ("ant/somite", "ant/sb3_subproc"))
    each = [a / b for a, b in zip(own, rival, strict=True)]
    ratio = ratios["ant/sb3_subproc"]
    assert (ratio["minimum"], ratio["maximum"]) == pytest.approx((min(each), max(each)))
    assert ratio["minimum"] <= ratio["median"] <= ratio["maximum"]
    assert set(locomotion["cheetahs/somite"]["ratios"]) == {"cheetahs/bare"}
    assert locomotion["cheetahs/somite"]["num_envs"] == 12
    assert not any(locomotion[name]["ratios"] for name in (*alone, "ppo/naive_1_core"))
    assert set(locomotion["ppo/mlp"]["ratios"]) == {"ppo/naive_1_core"}


def test_ppo_tells_its_phases_and_settings(locomotion):
    for name in MEASURED:
        shares = locomotion[f"ppo/{name}"]["shares"]
        assert list(shares) == ["env", "policy", "update", "rest"]
        assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0
    assert locomotion["ppo/naive_1_core"]["agent"] == "NaiveTransformer"
    assert locomotion["ppo/naive_1_core"]["torch_threads"] == 1
    assert locomotion["ppo/limb_transformer_bf16"]["precision"] == "bf16"
    assert locomotion["ppo/mlp"]["bodies"] == 12


def test_each_kind_of_body_is_compared_with_its_rival(tmp_path):
    tiny = ("seconds=0.05", "rounds=2", "num_envs=3", "rows_per_topology=2", "topologies=[hopper_3,walker_2]")
    rows = measured(tmp_path, "bodies", *tiny)[1]
    rivals = {
        "ants/varied": "ants/equal",
        "ants/different": "ants/equal",
        "topologies/mixed": "topologies/alone",
    }
    assert set(rows) == {*rivals, *rivals.values()}
    for name, row in rows.items():
        assert set(row["ratios"]) == ({rivals[name]} if name in rivals else set())
    assert {rows[name]["num_envs"] for name in ("ants/equal", "ants/varied", "ants/different")} == {3}
    assert rows["topologies/mixed"]["num_envs"] == 4


def test_car_racing_is_compared_with_gymnasiums_own_picture(tmp_path):
    pytest.importorskip("Box2D")
    tiny = ("num_envs=4", "seconds=0.05", "rounds=2", "iterations=1", "algorithm.num_envs=3", *PPO)
    less = ("~ppo.patch_transformer", "~ppo.patch_transformer_1_core")
    rows = measured(tmp_path, "car_racing", *tiny, *less)[1]
    gymnasium, cores = "frames/gymnasium_1_core", available_cores()
    several = {f"frames/somite_{cores}_cores"} if cores > 1 else set()
    frames = {gymnasium, "frames/somite_1_core", "state/somite_1_core"} | several
    assert {name for name in rows if not name.startswith("ppo/")} == frames
    assert rows[gymnasium]["ratios"] == {} and rows[gymnasium]["num_envs"] == 1
    ours = rows["frames/somite_1_core"]
    assert ours["ratios"].keys() == {gymnasium} and ours["num_envs"] == 4
    ppo = [row for name, row in rows.items() if name.startswith("ppo/")]
    assert {row["agent"] for row in ppo} == {"PatchJigsaw", "PatchCNN"}
    assert all(sum(row["shares"].values()) == pytest.approx(1) for row in ppo)


def test_the_variants_are_those_of_the_configuration(capsys):
    assert run("locomotion", "--cfg", "job") == 0
    assert tuple(OmegaConf.create(capsys.readouterr().out).locomotion.ppo) == VARIANTS
