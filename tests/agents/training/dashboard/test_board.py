"""Texts, hyperparameters and pictures, as TensorBoard reads them from the run's own event file."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from somite.agents.show import video
from somite.agents.training import dashboard as pictures
from somite.agents.training.dashboard import FIRST, command_line, flat
from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from somite.envs.locomotion.pictures.rendering import find_backend
from tests.agents.runs import ROLLOUT

from .runs import events_of, limb_run


def hparams_of(folder: Path, tag: str) -> HParamsPluginData:
    content = events_of(folder).summary_metadata[f"_hparams_/{tag}"].plugin_data.content
    return HParamsPluginData.FromString(content)


def draws() -> bool:
    try:
        find_backend()
    except UserError:
        return False
    return True


def test_hyperparameters_stand_in_the_runs_own_event_file(limbs: Run) -> None:
    assert len(list(limbs.folder.glob("events.*"))) == 1
    assert not list(limbs.folder.glob("*/events.*")), "no run of its own below it"
    begun = hparams_of(limbs.folder, "session_start_info").session_start_info.hparams
    assert begun["agent"].string_value == "LimbTransformer" and begun["env"].string_value == "cheetah"
    assert begun["algorithm.num_envs"].number_value == 8 and begun["seed"].number_value == 0
    assert begun["env.bodies"].string_value == "['cheetah_2_back', 'cheetah_3_front']"
    assert not [name for name in begun if name.startswith("zero_shot") or "_target_" in name]
    assert hparams_of(limbs.folder, "session_end_info").session_end_info.status == 1, "success"


def test_scores_are_scalars_that_the_run_has_logged(limbs: Run) -> None:
    told = hparams_of(limbs.folder, "experiment").experiment
    metrics = {metric.name.tag: metric.display_name for metric in told.metric_infos}
    assert metrics == {
        "rollout/ep_rew_mean": "return", "validation/mean_reward": "validation", "zero_shot/mean": "zero-shot"
    }  # fmt: skip
    for name in metrics:
        assert events_of(limbs.folder).Scalars(name)[-1].step == 3 * ROLLOUT, "of the policy that is left"
    assert {column.name for column in told.hparam_infos if column.differs} == set(FIRST)


def test_a_run_that_was_stopped_has_no_end(tmp_path: Path) -> None:
    run = limb_run(tmp_path)
    run.records.close()
    with pytest.raises(KeyError):
        hparams_of(tmp_path, "session_end_info")


def test_flat_keys() -> None:
    config = {
        "seed": 3,
        "start_from": None,
        "agent": {"_target_": "somite.agents.policies.SMP", "width": 64, "tree": True, "none": None},
        "algorithm": {
            "_target_": "somite.agents.algorithms.PPO",
            "learning_rate": 1e-3,
            "keep_checkpoints": 2,
        },
        "env": {
            "_target_": "a.Gymnasium",
            "id": "Ant-v5",
            "senses": {"_target_": "b.Senses", "traces": [10, 50]},
        },
    }
    assert flat(config) == {
        "seed": 3, "agent": "SMP", "agent.width": 64, "agent.tree": "True", "algorithm": "PPO",
        "algorithm.learning_rate": 1e-3, "env": "Ant-v5", "env.id": "Ant-v5", "env.senses.traces": "[10, 50]",
    }  # fmt: skip


def test_configuration_command_and_versions_are_texts(limbs: Run) -> None:
    events = events_of(limbs.folder)
    texts = {
        name: events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("config", "command", "versions")
    }
    assert "max_episode_steps: 20" in texts["config"]
    assert command_line() in texts["command"]
    assert "| torch | " in texts["versions"] and "| mujoco | 4" in texts["versions"]


def test_the_command_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, expected in (
        (["python3", "/a/bin/somite-train", "env.bodies=[a,b]"], "somite-train 'env.bodies=[a,b]'"),
        (["/b/python", "-m", "somite.scripts.train", "seed=1"], "python -m somite.scripts.train seed=1"),
    ):
        monkeypatch.setattr(sys, "orig_argv", given)
        assert command_line() == expected


@pytest.mark.skipif(not draws(), reason="nothing draws on this machine: neither EGL nor OSMesa")
def test_each_time_there_is_a_video_that_moves(limbs: Run) -> None:
    images = events_of(limbs.folder).Images("video/cheetah_3_front")
    assert [image.step for image in images] == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    frames = imageio.imread(io.BytesIO(images[-1].encoded_image_string), index=None, extension=".gif")
    assert images[-1].encoded_image_string[:4] == b"GIF8"
    assert frames.shape[1:] == (pictures.HEIGHT, pictures.WIDTH, 3) and len(frames) > 3
    assert np.ptp(frames[0]) > 50, "not blank"
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.5


def test_each_time_there_is_what_the_policy_attends_to(limbs: Run) -> None:
    images = events_of(limbs.folder).Images("inside/cheetah_3_front")
    assert [image.step for image in images] == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT]
    picture = imageio.imread(images[-1].encoded_image_string)
    assert picture.shape[:2] == (images[-1].height, images[-1].width)
    assert np.ptp(picture[..., :3]) > 50


def test_where_nothing_draws_the_run_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise UserError("cannot draw without a display")

    monkeypatch.setattr(video, "BodyRenderer", refuse)
    limb_run(tmp_path, "zero_shot.pictures=true").learn()
    said = [r.getMessage() for r in caplog.records if "cannot draw" in r.getMessage()]
    assert said == ["no pictures of video/cheetah_3_front: cannot draw without a display"]
    events = events_of(tmp_path)
    assert events.Tags()["images"] == ["inside/cheetah_3_front"]
    assert len(events.Scalars("zero_shot/mean")) == 3


def test_sensors_have_no_video_and_pictures_may_be_left_out(evolved: Run) -> None:
    assert events_of(evolved.folder).Tags()["images"] == []
