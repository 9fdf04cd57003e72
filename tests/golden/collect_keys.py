"""Collectors of the keys in the outputs of reports, predictions, audits, exports and the server."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from golden.collect import list_files, read_head, restore_checkpoint
from golden.images import tested_images, write_images
from golden.interface import QUICK, run_command, run_script

FOLDS = ("model=efficientnet_lite0", "optimizer=adagrad", "optimizer.lr=0.01,0.03", "data.split=kfold", "data.folds=2",
         "data.fold=0,1", "data.image_size=64", "epochs=3")  # fmt: skip


def collect_sweep(folder: Path) -> dict[str, Any]:
    """Run a sweep over folds and return its files and the columns and keys of its reports."""
    folders = (f"data.root={write_images(folder / 'images')}", f"paths.output_dir={folder / 'outputs'}")
    assert run_script("sweep.py", "-m", *folders, *QUICK, *FOLDS) == 0
    sweep = folder / "outputs" / "sweep" / "study"
    assert run_command("report", str(sweep), "--ensemble")[0] == 0
    job = next(path.parent for path in sorted(sweep.rglob("results.json")))
    assert run_command("report", str(job))[0] == 0
    assert run_command("report", str(job), "--model-card")[0] == 0
    documents = [sweep / ".command.json", job / "status.json", job / ".run.json", sweep / "ensemble" / "ensemble.json"]
    status, listed = run_command("cache", "list", "--dir", str(folder / "outputs" / "cache"))
    return {
        "files": list_files(sweep),
        "columns": {path.name: read_head(path) for path in [*sweep.glob("*.csv"), *sweep.glob("ensemble/*.csv")]},
        "keys": {path.name: sorted(outline(json.loads(path.read_text()))) for path in documents},
        "entries": [status, "features" in listed],
    }


def collect_outputs(folder: Path) -> dict[str, Any]:
    """Return the keys in the outputs of an audit, and in those of a checkpoint of an earlier version."""
    import onnx
    import torch

    root = write_images(folder / "images")
    best = folder / "best.ckpt"
    torch.save(restore_checkpoint("best"), best)
    predicted, audited, explained = folder / "predicted.json", folder / "audited.json", folder / "maps"
    images = tested_images(root)
    assert run_command("predict", str(best), *images[:2], "--json", str(predicted), "--explain", str(explained))[0] == 0
    assert run_command("audit", str(root), "--json", str(audited))[0] == 0
    for suffix in ("onnx", "pt2"):
        assert run_command("export", str(best), "--output", str(folder / f"exported.{suffix}"))[0] == 0
    model = onnx.load(folder / "exported.onnx")
    extra = {"pneumo.json": ""}
    torch.export.load(folder / "exported.pt2", extra_files=extra)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    return {
        "predict": outline(json.loads(predicted.read_text())),
        "audit": outline(json.loads(audited.read_text())),
        "maps": list_files(explained),
        "onnx": sorted(metadata),
        "onnx rules": sorted(key for text in metadata.values() if text.startswith("{") for key in json.loads(text)),
        "onnx inputs": [value.name for value in model.graph.input],
        "onnx outputs": [value.name for value in model.graph.output],
        "pt2": sorted(json.loads(extra["pneumo.json"])),
        "serve": _serve(best, Path(images[0]).read_bytes()),
    }


def _serve(best: Path, image: bytes) -> dict[str, list[str]]:
    """Return the keys of the server's JSON for a prediction and for an error."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore SIGINT, as do their children
    code = "from pneumo.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(best), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert address is not None
        kind = {"Content-Type": "application/octet-stream"}
        found = {}
        for name, body in (("prediction", image), ("error", b"no image")):
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{address[0]}predict", body, kind)) as reply:
                    found[name] = outline(json.load(reply))
            except urllib.request.HTTPError as error:
                with error:
                    found[name] = [str(error.code), *outline(json.load(error))]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    return found


def outline(value: Any, at: str = "") -> list[str]:  # noqa: ANN401 (any JSON value)
    """Return the dotted keys of a JSON document, including those in lists, with the types of their values."""
    if isinstance(value, dict) and value:
        lines = [line for key, item in value.items() for line in outline(item, f"{at}.{key}" if at else key)]
    elif isinstance(value, list) and value:
        lines = [line for item in value for line in outline(item, f"{at}[]")]
    else:
        lines = [f"{at} {type(value).__name__}"]
    return list(dict.fromkeys(lines))
