"""`pneumo serve` under a flood of slow and large requests."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import write_checkpoint
from helpers.damaged_images import encode_image, smooth_image
from helpers.served_page import HEADER, is_closed, serving, upload

IMAGE = encode_image(smooth_image(np.random.default_rng(0)), "PNG")
FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))"
MB = 1_000_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets closed by the server
]


def test_the_server_responds_under_a_flood_with_bounded_memory(tmp_path: Path) -> None:
    with serving(write_checkpoint(tmp_path / "best.ckpt"), before=FEW_FILES) as served:
        assert [served.post(IMAGE).status for _ in range(3)] == [200] * 3  # lazy imports are not growth
        idle = served.memory()
        half_open = served.send_all([HEADER.format("text/plain", 1).encode()] * 300)
        pending = served.send_all([upload(59 * MB)] * 12)
        reply = served.post(IMAGE)
        assert (reply.status, reply.seconds < 5) == (200, True)
        complete = served.send_all([upload(59 * MB, missing=0)] * 4)
        reply = served.post(IMAGE)
        assert (reply.status in (200, 503), reply.seconds < 5) == (True, True)
        assert served.memory("VmHWM") - idle < 500  # 192 MB of bodies, a copy of one, and decoded images
        assert all(is_closed(client, 20) for client in half_open + pending)
        reply = served.post(IMAGE)
        assert (reply.status, reply.seconds < 5) == (200, True)
        assert served.memory() - idle < 100
        for client in complete:
            client.close()
        served.process.terminate()
        assert served.process.communicate(timeout=30) == ("", "")
