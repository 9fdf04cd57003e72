"""`pneumo serve` under clients that open, send and wait without end."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import write_checkpoint
from helpers.damaged_images import encode_image, smooth_image
from helpers.served_page import HEADER, is_closed, serving, upload

FILM = encode_image(smooth_image(np.random.default_rng(0)), "PNG")
FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))"
MB = 1_000_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets that the other side closed
]


def test_the_page_answers_under_a_flood_within_bounded_memory(tmp_path: Path) -> None:
    with serving(write_checkpoint(tmp_path / "best.ckpt"), before=FEW_FILES) as served:
        assert [served.post(FILM).status for _ in range(3)] == [200] * 3  # what is loaded on first use is no growth
        idle = served.memory()
        half_open = served.send_all([HEADER.format("text/plain", 1).encode()] * 300)
        pending = served.send_all([upload(59 * MB)] * 12)
        reply = served.post(FILM)
        assert (reply.status, reply.seconds < 5) == (200, True)
        complete = served.send_all([upload(59 * MB, missing=0)] * 4)
        reply = served.post(FILM)
        assert (reply.status in (200, 503), reply.seconds < 5) == (True, True)
        assert served.memory("VmHWM") - idle < 500  # 192 MB of bodies, one of them once more, and what is decoded
        assert all(is_closed(client, 20) for client in half_open + pending)
        reply = served.post(FILM)
        assert (reply.status, reply.seconds < 5) == (200, True)
        assert served.memory() - idle < 100
        for client in complete:
            client.close()
        served.process.terminate()
        assert served.process.communicate(timeout=30) == ("", "")
