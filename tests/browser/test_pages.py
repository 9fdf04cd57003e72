"""Pages in headless Chromium: TensorBoard for a sweep, the leaderboard, and `pneumo serve`.

Screenshots are saved in outputs/screenshots.
"""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import write_checkpoint
from helpers.commands import ROOT
from helpers.damaged_images import smooth_image
from helpers.dicom_files import dicom

api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
SHOTS = ROOT / "outputs" / "screenshots"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:  # noqa: ANN401 (Playwright's)
    """A page whose console must not show errors."""
    page = chromium.new_page(viewport={"width": 1680, "height": 900})
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert [error for error in errors if "status of 422" not in error] == []  # Chromium logs these for invalid images


@pytest.fixture(scope="module")
def board(twelve: Path) -> Iterator[str]:
    """TensorBoard for the folder of sweeps, with all twelve runs loaded."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(twelve.parent), "--host", "127.0.0.1"]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.:]+/", line)))
            deadline = time.monotonic() + 120
            while len(session_groups(address)) < 12:
                assert time.monotonic() < deadline, "TensorBoard has not loaded the runs"
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of `pneumo serve`, and a folder with an image."""
    folder = tmp_path_factory.mktemp("served")
    pixels = smooth_image(np.random.default_rng(0), 400, 600)
    (folder / "scan.dcm").write_bytes(dicom(255 - pixels, photometric="MONOCHROME1", ViewPosition="LL"))
    command = [sys.executable, "-c", "from pneumo.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(
        [*command, str(write_checkpoint(folder / "best.ckpt"))], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://[\d.:]+/", process.stdout.readline())
            assert address is not None
            yield address[0], folder
        finally:
            process.terminate()


def session_groups(address: str) -> list[dict[str, Any]]:
    statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    request = {"startIndex": 0, "sliceSize": 1000, "allowedStatuses": statuses, "colParams": []}
    query = urllib.parse.urlencode({"request": json.dumps(request)})
    with urllib.request.urlopen(f"{address}data/plugin/hparams/session_groups?{query}") as reply:
        groups: list[dict[str, Any]] = json.load(reply).get("sessionGroups", [])
    return groups


def test_hparams_has_a_row_for_each_run_with_all_metrics(board: str, page: Any) -> None:  # noqa: ANN401 (Playwright's)
    for group in session_groups(board):
        assert {"model", "optimizer", "lr", "seed"} <= set(group["hparams"])
        assert len(group["metricValues"]) >= 16
    page.goto(f"{board}#hparams")
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content")
    cells.filter(has_text="googlenet").nth(2).wait_for()
    texts = [text.strip() for text in cells.all_inner_texts()]
    for title in ("model", "optimizer", "lr", "seed", "final/accuracy", "final/auroc", "final/sensitivity"):
        assert title in texts
    counts = Counter(texts)
    assert [counts[model] for model in ("xraychestnet", "vgg16", "resnext", "googlenet")] == [3] * 4
    assert [counts[optimizer] for optimizer in ("sgd", "adam", "adagrad")] == [4] * 3
    page.screenshot(path=SHOTS / "hparams.png")


def test_scalars_are_drawn_for_all_runs(board: str, page: Any) -> None:  # noqa: ANN401 (Playwright's)
    page.goto(f"{board}?tagFilter=%5E(train%2Floss%7Cval%2Fauroc%7Ctest%2Faccuracy)%24&smoothing=0#timeseries")
    page.locator("runs-selector tb-data-table-content-row").nth(11).wait_for()
    names = " ".join(page.locator("runs-selector tb-data-table-content-row").all_inner_texts())
    assert "study/xraychestnet-sgd-s0" in names
    page.locator("scalar-card line-chart").nth(2).wait_for()
    page.wait_for_timeout(1000)  # the curves are drawn gradually
    page.screenshot(path=SHOTS / "scalars.png")


def test_images_are_loaded(board: str, page: Any) -> None:  # noqa: ANN401 (Playwright's)
    page.goto(f"{board}?tagFilter=%5E(leaderboard%2Faccuracy%7Ctest%2Froc)%24#timeseries")
    images = page.locator("image-card img")
    images.nth(1).wait_for()
    loaded = "[...document.querySelectorAll('image-card img')].map(image => image.naturalWidth)"
    page.wait_for_function(f"{loaded}.every(width => width > 100)")
    assert len(page.evaluate(loaded)) > 2
    page.screenshot(path=SHOTS / "images.png")


def test_precision_recall_curves_are_drawn(board: str, page: Any) -> None:  # noqa: ANN401 (Playwright's)
    page.goto(f"{board}#pr_curves")
    lines = page.locator("tf-pr-curve-card svg path.line")
    lines.nth(11).wait_for(state="attached")
    drawn = lines.evaluate_all("lines => lines.map(line => (line.getAttribute('d') || '').split(/[LHVC,]/).length)")
    assert len([points for points in drawn if points > 2]) == 12  # a curve and not only axes for each run
    page.screenshot(path=SHOTS / "pr_curves.png")


@pytest.mark.parametrize("width", [1280, 400])
def test_the_leaderboard_opens_from_disk_and_sorts(width: int, twelve: Path, page: Any) -> None:  # noqa: ANN401
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((twelve / "leaderboard.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    rows = page.locator("#board tbody tr")
    assert rows.count() == 12
    page.get_by_role("button", name="AUROC", exact=True).click()
    values = page.evaluate(
        "[...document.querySelectorAll('#board tbody tr')]"
        ".map(row => +row.cells[document.querySelector('th[aria-sort]').cellIndex].dataset.value)"
    )
    assert values == sorted(values, reverse=True)
    page.get_by_role("button", name="network").click()
    first = page.locator("#board tbody tr td:first-child").all_inner_texts()
    assert first == sorted(first)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 100)")
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.screenshot(path=SHOTS / f"leaderboard-{width}.png", full_page=True)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_predicts_images(width: int, served: tuple[str, Path], page: Any) -> None:  # noqa: ANN401
    address, folder = served
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.set_input_files("#file", folder / "scan.dcm")
    page.locator("#result").wait_for()
    page.wait_for_function("['image', 'map'].every(id => document.getElementById(id).naturalWidth === 600)")
    assert page.locator("#predicted").inner_text() in ("NORMAL", "PNEUMONIA")
    assert page.locator("#name").inner_text() == "scan.dcm"
    assert "lateral" in page.locator("#remarks").inner_text()
    assert page.evaluate("getComputedStyle(document.getElementById('map')).opacity") == "0.7"
    page.locator("#opacity").focus()
    page.keyboard.press("Home")
    assert page.evaluate("getComputedStyle(document.getElementById('map')).opacity") == "0"
    page.keyboard.press("End")
    box, bar = page.locator(".marker").bounding_box(), page.locator(".bar").bounding_box()
    position = (box["x"] + box["width"] / 2 - bar["x"]) / bar["width"]
    assert position == pytest.approx(float(page.locator(".probability b").inner_text().lstrip("<>")), abs=0.01)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=SHOTS / f"serve-{width}.png", full_page=True)
    page.evaluate(  # drag and drop
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["no image"], "<b>notes.txt"));
            dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }"""
    )
    page.locator("#status.error").wait_for()
    assert page.locator("#status").inner_text() == "<b>notes.txt is text, not an image."
    assert page.locator("#result").is_hidden()
    assert page.locator(".notice").is_visible()
    assert [url for url in requests if not url.startswith((address, "data:"))] == []
