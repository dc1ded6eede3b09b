"""A run that cannot go on ends with one message and an exit code of its own."""

from __future__ import annotations

import pytest

from somite.agents.training.faults import RunFault
from somite.envs.errors import UserError
from somite.scripts.cli import command_line


@pytest.mark.parametrize("error, code", [(RunFault, 1), (UserError, 2)])
def test_a_fault_is_told_in_one_line(error, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def task(config):
        raise error("the gradient of x is not finite at step 7")

    with pytest.raises(SystemExit) as left:
        command_line.run(task, "train", [], resumable=False)
    assert left.value.code == code
    assert capsys.readouterr().err.strip().splitlines()[-1] == "the gradient of x is not finite at step 7"
