import pytest

from somite.agents.storage import run_folder
from somite.envs.errors import UserError


def make_run(root, name, *parts):
    for part in parts or ("policy",):
        (root / name / part).mkdir(parents=True)
    return root / name


def test_last_is_the_newest_run_with_a_policy(tmp_path):
    make_run(tmp_path, "2026-01-02_03-04-05-000001-cheetah-smp-ppo")
    make_run(tmp_path, "2026-01-02_03-04-05-000002-cheetah-zzz-ppo-9")
    newest = make_run(tmp_path, "2026-01-02_03-04-05-000002-cheetah-mlp-ppo-10")
    make_run(tmp_path, "2026-01-02_03-04-05-000003-cheetah-smp-ppo", "checkpoints")
    assert run_folder.find_run("last", tmp_path) == newest
    assert run_folder.find_run("last", tmp_path, needs="checkpoints").name.startswith(
        "2026-01-02_03-04-05-000003"
    )


def test_a_run_is_found_by_path_and_by_name(tmp_path, monkeypatch):
    run = make_run(tmp_path / "runs", "mine")
    monkeypatch.chdir(tmp_path)
    assert run_folder.find_run("mine").resolve() == run == run_folder.find_run(run)


def test_a_missing_run_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="no run with policy/.*somite-train"):
        run_folder.find_run("last", tmp_path)
    make_run(tmp_path, "2026-01-02_03-04-05-000001-cheetah-smp-ppo")
    with pytest.raises(UserError, match="did you mean '2026-01-02_03-04-05-000001-cheetah-smp-ppo'"):
        run_folder.find_run("2026-01-02_03-04-05-000001-cheetah-smp-pp", tmp_path)
    make_run(tmp_path, "stopped", "checkpoints")
    with pytest.raises(UserError, match="has no policy/: it holds checkpoints"):
        run_folder.find_run("stopped", tmp_path)


def write_checkpoint(run, step):
    with run_folder.new_checkpoint(run, step) as folder:
        for part in ("policy", "training_state"):
            (folder / part).mkdir()
            (folder / part / "step").write_text(str(step))


def test_checkpoints_are_ordered_by_step(tmp_path):
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        run_folder.last_checkpoint(tmp_path)
    for step in (900, 1000, 200):
        write_checkpoint(tmp_path, step)
    assert [path.name for path in run_folder.list_checkpoints(tmp_path)] == ["200", "900", "1000"]
    assert run_folder.last_checkpoint(tmp_path).name == "1000"
    run_folder.keep_newest(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1000", "900"]


def test_a_checkpoint_that_was_cut_short_is_not_there(tmp_path):
    write_checkpoint(tmp_path, 100)
    with pytest.raises(RuntimeError), run_folder.new_checkpoint(tmp_path, 200) as folder:
        (folder / "policy").mkdir()
        assert run_folder.last_checkpoint(tmp_path).name == "100"
        raise RuntimeError("disk full")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["100"]


def test_publishing_copies_the_policy_alone(tmp_path):
    for step in (100, 200):
        write_checkpoint(tmp_path, step)
        run_folder.publish(run_folder.last_checkpoint(tmp_path), tmp_path)
        assert (tmp_path / "policy" / "step").read_text() == str(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "policy"]


def test_a_failed_copy_leaves_the_published_policy(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, 100)
    run_folder.publish(run_folder.last_checkpoint(tmp_path), tmp_path)
    write_checkpoint(tmp_path, 200)

    def broken(source, target, **options):
        (target / "step").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("somite.agents.storage.atomic.shutil.copytree", broken)
    with pytest.raises(OSError, match="disk full"):
        run_folder.publish(run_folder.last_checkpoint(tmp_path), tmp_path)
    assert (tmp_path / "policy" / "step").read_text() == "100"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "policy"]
