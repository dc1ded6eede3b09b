"""Small networks run fastest on one thread, above all beside other work."""

import json
import sys

import pytest
import torch

from somite.scripts import benchmark

torch.set_num_threads(1)


def run(*arguments, folder=None):
    """The exit code of somite-benchmark with these arguments, in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["somite-benchmark", *arguments])
        if folder is not None:
            patch.chdir(folder)
        try:
            benchmark.main()
        except SystemExit as leaving:
            return leaving.code or 0
    return 0


def measured(folder, name, *arguments):
    """Rows of a report by name, of a benchmark that leaves nothing but this report behind."""
    assert run(name, "output=new/report.json", *arguments, folder=folder) == 0
    assert [path.name for path in folder.rglob("*")] == ["new", "report.json"]
    return report_of(folder)


def report_of(folder):
    """The machine, and the rows by name."""
    report = json.loads((folder / "new" / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    for row in rows.values():
        if "rounds" in row:
            assert 0 < row["minimum"] <= row["steps_per_second"] <= row["maximum"]
            assert set(row["ratios"]) <= set(rows)
    return report["machine"], rows
