import base64
import io
import json
import math
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkpoints import write_checkpoint
from helpers.damaged_images import encode_image, smooth_image, write_damaged
from helpers.dicom_files import dicom
from PIL import Image
from starlette.testclient import TestClient

from pneumo.inference.batch_inference import run_predict
from pneumo.inference.explain.overlays import Explainer
from pneumo.inference.prediction import NOTICE
from pneumo.inference.predictor import Predictor, load_model
from pneumo.inference.serve import app as serving
from pneumo.inference.serve.app import make_app
from pneumo.inference.torch_backend import CheckpointNetwork

KIND = {"Content-Type": "application/octet-stream"}
FILM = smooth_image(np.random.default_rng(0), 200, 300)


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.ckpt")


@pytest.fixture(scope="module")
def model(best: Path) -> Predictor:
    return load_model(best, "cpu")


@pytest.fixture(scope="module")
def client(model: Predictor) -> TestClient:
    app = make_app(model, Explainer(model.network), ["127.0.0.1", "localhost"])
    return TestClient(app, base_url="http://127.0.0.1:8000")


def ask(client: TestClient, content: bytes) -> Any:  # noqa: ANN401 (of httpx or httpx2, whichever Starlette finds)
    return client.post("/predict", content=content, headers=KIND)


def picture(address: str) -> Image.Image:
    head, _, content = address.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_it_answers_as_predict_does(client: TestClient, best: Path, tmp_path: Path) -> None:
    (tmp_path / "film.dcm").write_bytes(dicom(FILM, ViewPosition="LL"))
    run_predict(best, [str(tmp_path / "film.dcm")], tmp_path / "x.json", None, None, None, "cpu")
    (expected,) = json.loads((tmp_path / "x.json").read_text())["predictions"]
    answered = ask(client, (tmp_path / "film.dcm").read_bytes())
    assert answered.status_code == 200
    found = answered.json()
    for name in ("probability", "called", "uncertain", "unlike", "unlike_score", "probabilities", "logit_margin"):
        assert found[name] == expected[name], name
    assert "lateral view" in found["remarks"][-1]
    assert np.array_equal(np.asarray(picture(found["film"])), FILM)
    laid = np.asarray(picture(found["map"])).astype(int)
    assert laid.shape == (200, 300, 3)
    assert (laid[..., 0] != laid[..., 2]).any()


@pytest.mark.parametrize("classes", [("NORMAL", "PNEUMONIA"), ("NORMAL", "BACTERIAL", "VIRAL")])
def test_the_page_has_what_it_needs_and_asks_for_nothing_else(classes: tuple[str, ...], tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "best.ckpt", classes), "cpu")
    page = TestClient(make_app(model, None, ["*"])).get("/")
    assert page.status_code == 200
    assert NOTICE in page.text
    assert not re.search(r"https?://|//[a-z]", page.text)
    found = re.search(r"const settings = (.*);", page.text)
    assert found is not None
    settings = json.loads(found[1])
    assert settings["bars"] == list(classes if len(classes) == 3 else classes[1:])
    if len(classes) == 3:
        assert settings["threshold"] is settings["band"] is None
    else:
        logits = [math.log(share / (1 - share)) for share in settings["band"]]
        assert logits == pytest.approx([-0.5, 0.5])  # the margin around a threshold of 0.5
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert (policy["connect-src"], policy["img-src"]) == ("'self'", "data:")
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["style-src"])
    assert (page.headers["Cache-Control"], page.headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_a_network_without_maps_gives_none(model: Predictor) -> None:
    client = TestClient(make_app(model, None, ["*"]))
    assert 'id="mix"' not in client.get("/").text
    assert ask(client, encode_image(FILM, "PNG")).json()["map"] is None


def test_every_damaged_file_gets_its_reason(client: TestClient, tmp_path: Path) -> None:
    for file in write_damaged(tmp_path, count=95):  # five of each kind
        answered = ask(client, file.path.read_bytes())
        assert answered.status_code in (200, 422), file.kind
        assert file.readable in (None, answered.status_code == 200), file.kind
        if answered.status_code == 422:
            reason = answered.json()["error"]
            assert reason.endswith(".")
            assert reason[0].islower()


def test_a_large_body_is_refused(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_BYTES", 1000)
    client = TestClient(make_app(model, None, ["*"]))
    answered = ask(client, bytes(1001))
    assert answered.status_code == 413
    assert "is larger than" in answered.json()["error"]
    assert ask(client, bytes(1000)).status_code == 422


def test_films_that_are_too_many_are_put_off(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_WAITING", 0)
    app = make_app(model, None, ["*"])
    turn = threading.Event()
    answered, answering = model.predict_images, threading.Event()

    def hold(*arguments: Any) -> Any:  # noqa: ANN401
        answering.set()
        turn.wait(60)
        return answered(*arguments)

    monkeypatch.setattr(model, "predict_images", hold)
    content = encode_image(FILM, "PNG")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, TestClient(app), content)
        answering.wait(60)
        second = ask(TestClient(app), content)
        turn.set()
        assert first.result().status_code == 200
    assert (second.status_code, second.headers["Retry-After"]) == (503, "3")
    assert "try again" in second.json()["error"]
    assert ask(TestClient(app), content).status_code == 200


def test_other_sites_and_other_names_are_refused(client: TestClient) -> None:
    assert (
        client.post("/predict", content=encode_image(FILM, "PNG"), headers={"Content-Type": "text/plain"}).status_code
        == 415
    )
    asked = client.options(
        "/predict", headers={"Origin": "http://elsewhere.org", "Access-Control-Request-Method": "POST"}
    )
    assert "Access-Control-Allow-Origin" not in asked.headers
    for host, status in (
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("elsewhere.org", 400),
        ("127.0.0.1.nip.io", 400),
    ):
        assert client.get("/", headers={"Host": host}).status_code == status
    assert client.get("/predict").status_code == 405
    assert client.get("/nothing").status_code == 404


def test_nothing_is_kept_or_logged(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    caplog.set_level("INFO", "pneumo")
    assert ask(client, encode_image(np.kron(FILM, np.ones((8, 8), np.uint8)), "TIFF")).status_code == 200  # 3.8 MB
    assert list(tmp_path.iterdir()) == []
    assert caplog.records == []


def test_a_damaged_network_is_no_crash(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "best.ckpt"), "cpu")
    assert isinstance(model.network, CheckpointNetwork)
    torch.nn.init.constant_(model.network.scorer.head.bias, float("nan"))
    answered = ask(TestClient(make_app(model, None, ["*"])), encode_image(FILM, "PNG"))
    assert answered.status_code == 422
    assert "weights are damaged" in answered.json()["error"]
