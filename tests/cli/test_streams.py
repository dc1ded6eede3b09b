"""Output on terminals that are not UTF-8, are narrow, or have been left; files are UTF-8 everywhere."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from somite.scripts.cli import command_line
from somite.scripts.cli.streams import guard_log_files, patient_streams

ROOT = Path(__file__).parents[2]


def table():
    found = Table(title="return ± 95 %")
    found.add_column("body\udcff")
    found.add_row("ü")
    Console(width=40).print(found)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_a_table_is_told_in_every_encoding(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    with patient_streams():
        table()
        print("it’s 3 × 4 …", flush=True)
    told = written.getvalue().decode(encoding)
    assert "body\\udcff" in told and told.count("\n") >= 7
    if encoding == "ascii":
        assert "return +- \n" in told and "\\xfc" in told and "it's 3 x 4 ..." in told and "+---" in told


@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_a_narrow_terminal_ends_nothing(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    with patient_streams():
        found = Table("body", "return")
        found.add_row("cheetah_7_full", "1000")
        Console().print(found)
    assert capsys.readouterr().out


def test_a_command_goes_on_when_nobody_reads_any_more(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    done = []

    def task(config):
        print("x" * 100_000, flush=True)
        table()
        done.append(config)

    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        command_line.run(task, "results", [], resumable=False)
        assert sys.stdout is stream
    assert done


def test_other_errors_of_a_stream_are_told(monkeypatch):
    stream = open("/dev/full", "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(OSError, match="No space left"), patient_streams():
        print("told", flush=True)
    with pytest.raises(OSError, match="No space left"):
        stream.close()


def test_a_log_file_is_utf_8_whatever_the_terminal_is(tmp_path, monkeypatch):
    handler = logging.FileHandler(tmp_path / "train.log", encoding="ascii")
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    guard_log_files()
    logging.getLogger().warning("ü ± \udcff")
    handler.close()
    assert (tmp_path / "train.log").read_text(encoding="utf-8").strip() == "ü ± \\udcff"


def test_text_files_are_opened_with_their_encoding():
    missing = []
    for path in (path for name in ("agents", "envs", "scripts") for path in (ROOT / name).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if re.search(r"open\(|_text\(", source) else ():
            if isinstance(node, ast.Call) and _is_text_without_encoding(node):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not missing


def _is_text_without_encoding(call):
    of = call.func.value.id if isinstance(getattr(call.func, "value", None), ast.Name) else ""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    opens = ("open", "fdopen", "read_text", "write_text")
    if name not in opens or (of in ("os", "Image") and name == "open"):
        return False
    modes = [*call.args, *(keyword.value for keyword in call.keywords)]
    binary = any(isinstance(m, ast.Constant) and isinstance(m.value, str) and "b" in m.value for m in modes)
    return not binary and "encoding" not in [keyword.arg for keyword in call.keywords]


WRONG = """
train resume=nowhere
train algorithm=clone algorithm.teacher=nowhere
train -m seed=-1,-2 device=abc
evaluate run=nowhere
references run=nowhere/*
results table=nowhere
benchmark nowhere
describe env=nowhere
view run=bundled/cheetah-smp viewer=abc
export run=nowhere
"""


def test_a_wrong_word_is_answered_before_anything_heavy_is_imported(tmp_path):
    program = textwrap.dedent("""
        import contextlib, importlib, io, sys

        HEAVY = {"torch", "pandas", "scipy", "matplotlib", "mujoco", "stable_baselines3", "cv2"}
        for line in sys.stdin.read().splitlines():
            name, *arguments = line.split()
            sys.argv = [f"somite-{name}", *arguments]
            with contextlib.redirect_stderr(io.StringIO()) as said:
                try:
                    importlib.import_module(f"somite.scripts.{name}").main()
                    code = 0
                except SystemExit as leaving:
                    code = leaving.code
            assert code == 2 and "Traceback" not in said.getvalue(), (line, code, said.getvalue())
            assert not HEAVY & set(sys.modules), (line, HEAVY & set(sys.modules))
    """)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=WRONG.strip(), text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
