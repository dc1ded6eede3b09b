"""Threads and memory are counted by what this process may use, not by what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import mujoco.batch
import pytest

from somite.envs import cores
from somite.envs.car_racing import CarRacing
from somite.envs.errors import UserError
from somite.envs.locomotion import make_vec
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses

V1 = "9:memory:/x\n4:cpu,cpuacct:{path}\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A machine of 64 cores, to be bound, limited and shared out."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "OWN_CGROUP", tmp_path / "own")
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)

    def limit(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return limit


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/\n", {}, 64),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/not/shown/here\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 64),
        ("1:cpu:/\n0::/a\n", {"unified/a/cpu.max": "500000 100000\n"}, 5),
        *(
            (
                V1.format(path=path),
                {
                    f"cpu,cpuacct{path}/cpu.cfs_quota_us": quota,
                    f"cpu,cpuacct{path}/cpu.cfs_period_us": "50000\n",
                },
                wanted,
            )
            for path, quota, wanted in (("/job", "200000\n", 4), ("/job", "-1\n", 64))
        ),
        (V1.format(path="/host"), {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)
def test_quotas_of_control_groups_count(machine, own: str, files: dict[str, str], wanted: int) -> None:
    machine(own, files)
    assert cores.available_cores() == wanted


def test_the_least_counts(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("0::/\n", {"cpu.max": "800000 100000"})
    assert cores.available_cores() == 8
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "7")
    assert cores.available_cores() == 7
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert cores.available_cores() == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 9})
    assert cores.available_cores() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "")
    assert cores.available_cores() == 3


ENVIRONMENTS = {
    "bodies": lambda **options: make_vec(["cheetah_2_back"], 12, **options),
    "Gymnasium": lambda **options: GymnasiumTask("Hopper-v5").make_vec(num_envs=12, **options),
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_simulations_have_as_many_threads(machine, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    counts, make = [], mujoco.batch.Batch

    def batch(*arguments, nthread: int, **options):
        counts.append(nthread)
        return make(*arguments, nthread=1, **options)

    monkeypatch.setattr(mujoco.batch, "Batch", batch)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    for options in ({}, {"threads": 2}, {"threads": 50}):
        ENVIRONMENTS[kind](**options).close()
    assert counts == [3, 2, 12]  # no more than there are rows


def test_cars_have_as_many_workers(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("Box2D")
    from somite.envs.car_racing import source

    counts, make = [], source.make_cars
    monkeypatch.setattr(
        source, "make_cars", lambda cars, workers, *rest: counts.append(workers) or make(cars, 1, *rest)
    )
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    for options in ({}, {"threads": 1}):
        CarRacing(indicators=False).make_vec(num_envs=16, **options).close()
    assert counts == [3, 1]


@pytest.mark.parametrize(
    ("own", "group", "limit", "used", "cached"),
    [
        ("0::/a/b\n", "a", "memory.max", "memory.current", "inactive_file"),
        (
            V1.format(path="/"),
            "memory/x",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_memory_is_what_control_groups_leave(machine, own, group, limit, used, cached) -> None:
    machine("0::/\n", {})
    unlimited = cores.free_memory()
    assert unlimited > 2**20
    stat = f"anon 5\n{cached} 1000\n"
    machine(own, {f"{group}/{limit}": "9000\n", f"{group}/{used}": "6000\n", f"{group}/memory.stat": stat})
    assert cores.free_memory() == 4000
    with pytest.raises(UserError, match="it takes about 0.0 GiB, and 0.0 GiB are free; take less"):
        cores.check_memory(4001, "it", "take less")
    cores.check_memory(4000, "it", "take less")


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_vec(["cheetah_7_full"], 100_000),
        lambda: CartPoleSwingUp(senses=Senses(duplicates=1000, history=1000)).make_vec(num_envs=20),
    ],
)
def test_environments_that_do_not_fit_into_the_memory_are_refused(monkeypatch, make) -> None:
    monkeypatch.setattr(cores, "free_memory", lambda: 10**8)
    with pytest.raises(UserError, match="environments, whose observations take .* GiB are free; take fewer"):
        make()
