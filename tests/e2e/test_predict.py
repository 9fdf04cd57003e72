"""`pneumo predict` and `pneumo serve` in an empty folder, with a checkpoint and images."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import write_checkpoint
from helpers.damaged_images import encode_image, smooth_image
from helpers.forked_commands import ForkedCommands

COMMAND = "from pneumo.cli import main; main()"
IMAGE = encode_image(smooth_image(np.random.default_rng(0)), "PNG")


@pytest.mark.slow
def test_predict_needs_only_a_checkpoint_and_images(tmp_path: Path) -> None:
    best = write_checkpoint(tmp_path / "best.ckpt")
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "command.py").write_text(COMMAND)
    for name in ("a.png", "b c.png"):
        (tmp_path / name).write_bytes(IMAGE)
    with ForkedCommands(tmp_path, work) as forks:
        done = forks.run("../command.py", "predict", str(best), "../*.png", "--csv", "x.csv")
        assert done.returncode == 0, done.stderr
        names, probabilities = zip(*(line.split("\t")[:2] for line in done.stdout.splitlines()), strict=True)
        assert (names, len(set(probabilities))) == (("../a.png", "../b c.png"), 1)
        (tmp_path / "b c.png").write_bytes(IMAGE[:200])
        done = forks.run("../command.py", "predict", str(best), "../b c.png", "../a.png")
        assert done.returncode == 1
        assert "../b c.png is truncated" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout.splitlines()[1].startswith("../a.png\t0.")
    assert [path.name for path in work.iterdir()] == ["x.csv"]


@pytest.mark.slow
def test_the_page_is_served_until_ctrl_c(tmp_path: Path) -> None:
    best = write_checkpoint(tmp_path / "best.ckpt")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    command = [sys.executable, "-c", COMMAND, "serve", str(best), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert url is not None
        address = url[0]
        with urllib.request.urlopen(address) as page:
            assert "Not a medical device" in page.read().decode()
        request = urllib.request.Request(f"{address}predict", IMAGE, {"Content-Type": "application/octet-stream"})
        with urllib.request.urlopen(request) as reply:
            assert 0 < json.load(reply)["probability"] < 1
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
