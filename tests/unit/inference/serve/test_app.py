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
from pneumo.models.fast_inference import InferenceModule

CONTENT_TYPE = {"Content-Type": "application/octet-stream"}
IMAGE = smooth_image(np.random.default_rng(0), 200, 300)


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


def post(client: TestClient, content: bytes) -> Any:  # noqa: ANN401 (of httpx or httpx2, whichever Starlette finds)
    return client.post("/predict", content=content, headers=CONTENT_TYPE)


def decode_url(url: str) -> Image.Image:
    head, _, content = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_predictions_equal_those_of_pneumo_predict(client: TestClient, best: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_bytes(dicom(IMAGE, ViewPosition="LL"))
    run_predict(best, [str(tmp_path / "scan.dcm")], tmp_path / "x.json", None, None, None, "cpu")
    (expected,) = json.loads((tmp_path / "x.json").read_text())["predictions"]
    reply = post(client, (tmp_path / "scan.dcm").read_bytes())
    assert reply.status_code == 200
    prediction = reply.json()
    assert list(prediction)[:3] == ["predicted_class", "out_of_distribution", "ood_score"]
    names = {"predicted_class", "out_of_distribution", "ood_score", "called", "unlike", "unlike_score"}
    for name in names | {"probability", "uncertain", "probabilities", "logit_margin"}:
        assert prediction[name] == expected[name], name
    assert prediction["predicted_class"] == prediction["called"]
    assert prediction["out_of_distribution"] == prediction["unlike"]
    assert prediction["ood_score"] == prediction["unlike_score"]
    assert "lateral view" in prediction["remarks"][-1]
    assert np.array_equal(np.asarray(decode_url(prediction["film"])), IMAGE)
    overlay = np.asarray(decode_url(prediction["map"])).astype(int)
    assert overlay.shape == (200, 300, 3)
    assert (overlay[..., 0] != overlay[..., 2]).any()


@pytest.mark.parametrize("classes", [("NORMAL", "PNEUMONIA"), ("NORMAL", "BACTERIAL", "VIRAL")])
def test_the_page_is_self_contained(classes: tuple[str, ...], tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "best.ckpt", classes), "cpu")
    page = TestClient(make_app(model, None, ["*"])).get("/")
    assert page.status_code == 200
    assert NOTICE in page.text
    assert "result.predicted_class" in page.text
    assert "result.ood_score" in page.text
    assert not re.search(r"result\.(called|unlike)", page.text)
    assert not re.search(r"https?://|//[a-z]", page.text)
    script = re.search(r"const settings = (.*);", page.text)
    assert script is not None
    settings = json.loads(script[1])
    assert settings["bars"] == list(classes if len(classes) == 3 else classes[1:])
    if len(classes) == 3:
        assert settings["threshold"] is settings["band"] is None
    else:
        logits = [math.log(value / (1 - value)) for value in settings["band"]]
        assert logits == pytest.approx([-0.5, 0.5])  # the margin around a threshold of 0.5
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert (policy["connect-src"], policy["img-src"]) == ("'self'", "data:")
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["style-src"])
    assert (page.headers["Cache-Control"], page.headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_a_network_without_saliency_maps(model: Predictor) -> None:
    client = TestClient(make_app(model, None, ["*"]))
    assert 'id="opacity"' not in client.get("/").text
    assert post(client, encode_image(IMAGE, "PNG")).json()["map"] is None


def test_every_damaged_file_gets_an_error(client: TestClient, tmp_path: Path) -> None:
    for file in write_damaged(tmp_path, count=95):  # five of each kind
        reply = post(client, file.path.read_bytes())
        assert reply.status_code in (200, 422), file.kind
        assert file.readable in (None, reply.status_code == 200), file.kind
        if reply.status_code == 422:
            reason = reply.json()["error"]
            assert reason.endswith(".")
            assert reason[0].islower()


def test_a_large_body_is_rejected(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_BYTES", 1000)
    client = TestClient(make_app(model, None, ["*"]))
    reply = post(client, bytes(1001))
    assert reply.status_code == 413
    assert "is larger than" in reply.json()["error"]
    assert post(client, bytes(1000)).status_code == 422


def test_too_many_images_are_rejected_until_later(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_WAITING", 0)
    app = make_app(model, None, ["*"])
    resume, started = threading.Event(), threading.Event()
    predict_images = model.predict_images

    def hold(*arguments: Any) -> Any:  # noqa: ANN401
        started.set()
        resume.wait(60)
        return predict_images(*arguments)

    monkeypatch.setattr(model, "predict_images", hold)
    content = encode_image(IMAGE, "PNG")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, TestClient(app), content)
        started.wait(60)
        second = post(TestClient(app), content)
        resume.set()
        assert first.result().status_code == 200
    assert (second.status_code, second.headers["Retry-After"]) == (503, "3")
    assert "Try again" in second.json()["error"]
    assert post(TestClient(app), content).status_code == 200


def test_other_origins_and_hosts_are_rejected(client: TestClient) -> None:
    assert (
        client.post("/predict", content=encode_image(IMAGE, "PNG"), headers={"Content-Type": "text/plain"}).status_code
        == 415
    )
    preflight = client.options(
        "/predict", headers={"Origin": "http://elsewhere.org", "Access-Control-Request-Method": "POST"}
    )
    assert "Access-Control-Allow-Origin" not in preflight.headers
    for host, status in (
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("elsewhere.org", 400),
        ("127.0.0.1.nip.io", 400),
    ):
        assert client.get("/", headers={"Host": host}).status_code == status
    assert client.get("/predict").status_code == 405
    assert client.get("/nothing").status_code == 404


def test_images_are_neither_stored_nor_logged(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    caplog.set_level("INFO", "pneumo")
    assert post(client, encode_image(np.kron(IMAGE, np.ones((8, 8), np.uint8)), "TIFF")).status_code == 200  # 3.8 MB
    assert list(tmp_path.iterdir()) == []
    assert caplog.records == []


def test_a_network_with_nan_weights_is_an_error(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "best.ckpt"), "cpu")
    assert isinstance(model.network, CheckpointNetwork)
    assert isinstance(model.network.module, InferenceModule)
    torch.nn.init.constant_(model.network.module.head.bias, float("nan"))
    reply = post(TestClient(make_app(model, None, ["*"])), encode_image(IMAGE, "PNG"))
    assert reply.status_code == 422
    assert "weights are damaged" in reply.json()["error"]
