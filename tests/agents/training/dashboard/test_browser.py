"""The dashboard as a person sees it: TensorBoard in headless Chromium, with the folder of a tiny run."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from somite.agents.training.loop import Run

from .test_board import draws

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1400,3600",
)  # fmt: skip
PATIENCE = 120.0

pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no Chromium with its driver here; on Debian: apt-get install chromium chromium-driver",
    ),
    pytest.mark.timeout(600),
]

WALK = """
const all = (node, found = []) => {
  for (const e of node.querySelectorAll('*')) { found.push(e); if (e.shadowRoot) all(e.shadowRoot, found); }
  return found;
};
const named = (node, name) => all(node).filter(e => e.tagName.toLowerCase().match(name));
"""
"""TensorBoard's elements stand within each other's shadows."""

PAGES = (
    WALK
    + """
return named(document, /^tf-category-paginated-view$/).map(view => [
  view.category.name,
  [...view.querySelectorAll('tf-custom-scalar-multi-line-chart-card,tf-custom-scalar-margin-chart-card')].map(
    card => [card.title, named(card.shadowRoot, /^path$/).filter(
      path => path.classList.contains('line') && path.getBoundingClientRect().width > 20).length])
]);
"""
)
"""Of each page its name and, of each chart, title and number of curves that are drawn."""

TEXT = (
    WALK
    + """
return all(document.body).filter(e => !['SCRIPT', 'STYLE'].includes(e.tagName) && e.getClientRects().length)
  .flatMap(e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()))
  .filter(text => text);
"""
)
"""Pieces of text that are seen."""

IMAGES = (
    WALK
    + """
return named(document, /^img$/).filter(i => i.naturalWidth).map(i => [i.src, i.naturalWidth]);
"""
)
"""Of each image its address and its width in pixels."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, limbs: Run, evolved: Run) -> Iterator[str]:
    """Where TensorBoard shows both runs."""
    folder = tmp_path_factory.mktemp("board") / "runs"
    for name, run in (("limbs", limbs), ("evolved", evolved)):
        shutil.copytree(run.folder, folder / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--logdir", str(folder), "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    board = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *where], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port), "TensorBoard to answer")
        yield f"http://127.0.0.1:{port}"
    finally:
        board.terminate()
        board.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for(what: Callable[[], Any], named: str) -> Any:
    """What it returns once that is true."""
    end = time.monotonic() + PATIENCE
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"waited {PATIENCE:.0f} s for {named}"
        time.sleep(0.5)


def open_tab(browser: Any, address: str, tab: str) -> None:
    browser.get("about:blank")  # else only what follows the # would change
    browser.get(f"{address}/#{tab}")


def test_every_page_has_its_curves(browser: Any, address: str, tmp_path: Path) -> None:
    open_tab(browser, address, "custom_scalars")

    def drawn() -> dict[str, dict[str, int]]:
        pages = {name: dict(charts) for name, charts in browser.execute_script(PAGES)}
        complete = pages and all(count for charts in pages.values() for count in charts.values())
        return pages if complete else {}

    pages = wait_for(drawn, f"curves; last seen: {browser.execute_script(PAGES)}")
    assert list(pages) == ["Training", "Bodies", "Zero-shot", "Speed"]
    assert {"Return", "Loss of the critic", "Step size of the search"} <= set(pages["Training"])
    assert pages["Zero-shot"]["Each condition"] >= 2 * (3 + 5), "a line and its smoothing, of each run"
    assert pages["Bodies"]["All bodies: mean, worst, best"] >= 1
    assert browser.get_screenshot_as_file(str(tmp_path / "custom_scalars.png"))


def test_hyperparameters_stand_beside_scores(browser: Any, address: str) -> None:
    open_tab(browser, address, "hparams")
    wait_for(lambda: "limbs" in browser.execute_script(TEXT), "the table")
    columns = {"agent", "algorithm", "env", "seed", "return", "validation", "zero-shot"}
    cells = {"evolved", "limbs", "LimbTransformer", "SensorTransformer", "CMAES", "PPO", "cheetah"}
    assert columns | cells <= set(browser.execute_script(TEXT))


def test_pictures_are_shown(browser: Any, address: str) -> None:
    open_tab(browser, address, "images")
    count = 1 + draws()
    found = wait_for(lambda: len(i := browser.execute_script(IMAGES)) >= count and i, "images")
    assert len(found) == count and all(width > 100 for _, width in found)
    assert "inside" in browser.execute_script(TEXT)


def test_texts_are_shown(browser: Any, address: str) -> None:
    open_tab(browser, address, "text")
    wanted = {"command", "config", "versions"}
    assert wait_for(lambda: wanted <= set(browser.execute_script(TEXT)), "the texts")
