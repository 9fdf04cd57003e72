import csv
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import write_checkpoint
from helpers.commands import Run
from helpers.damaged_images import SMOOTH_IMAGES, encode_image, write_damaged

from pneumo.data.radiograph import decode
from pneumo.inference import batch_inference
from pneumo.inference.prediction import NOTICE, OOD_REMARK
from pneumo.inference.predictor import Predictor, load_model
from pneumo.models.classifier import Classifier
from pneumo.training import checkpoints


def test_json_csv_and_lines_equal_the_predictions_of_the_checkpoint(
    best: Path, scans: Path, tmp_path: Path, run: Run
) -> None:
    status, out, err = run(best, scans, "--json", tmp_path / "new" / "x.json", "--csv", tmp_path / "x.csv")
    assert status == 1  # one file is not an image
    assert err.splitlines() == [f"{scans / 'notes.txt'} is text, not an image.", NOTICE]
    content = json.loads((tmp_path / "new" / "x.json").read_text())
    assert {"pneumo_version", "network", "threshold", "margin", "checkpoint"} < content.keys()
    assert (content["notice"], content["classes"]) == (NOTICE, ["NORMAL", "PNEUMONIA"])
    records = content["predictions"]
    assert [record["path"] for record in records] == [
        str(scans / name) for name in ("0.png", "1.png", "2.png", "more/0", "notes.txt")
    ]
    classifier = Classifier.load_from_checkpoint(best).eval()
    for record in records[:3]:
        image = torch.from_numpy(decode(Path(record["path"]), classifier.input_format).copy())
        with torch.inference_mode():
            expected = float(classifier.probability(classifier.predict_logits(image[None, None]))[0, 1])
        assert record["probability"] == pytest.approx(expected, abs=1e-5)
        assert record["called"] == ("PNEUMONIA" if record["probability"] > 0.5 else "NORMAL")
        assert record["uncertain"] == (abs(math.log(expected / (1 - expected))) <= 0.5)
        assert record["unlike"] == (record["unlike_score"] > 1)
        assert list(record)[:3] == ["predicted_class", "out_of_distribution", "ood_score"]
        assert record["logit_margin"] == pytest.approx(math.log(expected / (1 - expected)), abs=1e-4)
    assert records[3] == {
        **records[0],  # except for rounding at another batch index
        "path": records[3]["path"],
        "notes": ["lateral view according to the header"],
    }
    missing = {"probability", "probabilities", "logit_margin", "called", "uncertain", "unlike", "unlike_score"}
    missing |= {"predicted_class", "out_of_distribution", "ood_score"}
    assert {name for name, value in records[4].items() if value is None} == missing
    assert records[4]["error"] == "is text, not an image."

    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    lines = [line.split("\t") for line in out.splitlines()]
    for record, row, line in zip(records, rows, lines, strict=True):
        for name in ("path", "probability", "called", "error", "unlike_score"):
            assert row[name] == ("" if record[name] is None else str(record[name]))
        assert row["uncertain"] == {None: "", True: "true", False: "false"}[record["uncertain"]]
        assert row["notes"] == "; ".join(record["notes"])
        assert [line[0], line[2]] == [record["path"], record["called"] or ""]
        assert line[1] == ("" if record["probability"] is None else f"{record['probability']:.6f}")
        assert (("uncertain" in line[3]), (OOD_REMARK in line[3])) == (
            bool(record["uncertain"]),
            bool(record["unlike"]),
        )
    assert [record["unlike"] for record in records[:4]] == [True] * 4  # random images are out of distribution


def test_a_terminal_gets_a_table(best: Path, scans: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    status, out, err = run(best, scans)
    assert status == 1
    assert err == f"{scans / 'notes.txt'} is text, not an image.\n"
    assert "probability" in out
    assert NOTICE in out


def test_each_of_three_classes_has_a_column(scans: Path, tmp_path: Path, run: Run) -> None:
    best = write_checkpoint(tmp_path / "best.ckpt", ("NORMAL", "BACTERIAL", "VIRAL"))
    assert run(best, scans / "1.png", scans / "2.png", "--csv", tmp_path / "x.csv")[0] == 0
    for row in csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())):
        probability = {name: float(row[name]) for name in ("NORMAL", "BACTERIAL", "VIRAL")}
        assert row["predicted_class"] == row["called"] == max(probability, key=lambda name: probability[name])
        assert sum(probability.values()) == pytest.approx(1)
        assert float(row["probability"]) == pytest.approx(1 - probability["NORMAL"])


def test_standard_names_follow_the_columns_of_earlier_versions(
    best: Path, scans: Path, tmp_path: Path, run: Run
) -> None:
    run(best, scans, "--json", tmp_path / "x.json", "--csv", tmp_path / "x.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert list(rows[0])[:3] == ["path", "probability", "called"]
    assert list(rows[0])[-4:] == ["logit_margin", "predicted_class", "out_of_distribution", "ood_score"]
    for records in (rows, json.loads((tmp_path / "x.json").read_text())["predictions"]):
        for record in records:
            assert record["predicted_class"] == record["called"]
            assert record["out_of_distribution"] == record["unlike"]
            assert record["ood_score"] == record["unlike_score"]


def test_predictions_do_not_depend_on_the_batch_size(best: Path, scans: Path, run: Run) -> None:
    large, small = ([x.split("\t") for x in run(best, scans, "--batch-size", n)[1].splitlines()] for n in (99, 1))
    for one, other in zip(large, small, strict=True):
        assert one[0] == other[0]
        assert one[2:] == other[2:]
        assert float(one[1] or 0) == pytest.approx(float(other[1] or 0), abs=2e-6)


def test_an_uncalibrated_checkpoint_has_no_remarks(scans: Path, tmp_path: Path, run: Run) -> None:
    last = write_checkpoint(tmp_path / "last.ckpt", tested=False)
    status, _, err = run(last, scans / "1.png", scans / "2.png", "--json", tmp_path / "x.json")
    assert status == 0
    assert err.count("uncertain") == 1
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["margin"] is None
    assert [(x["uncertain"], x["unlike"], x["unlike_score"]) for x in content["predictions"]] == [(None,) * 3] * 2


def test_damaged_files_are_reported_and_the_others_are_predicted(best: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "damaged").mkdir()
    files = write_damaged(tmp_path / "damaged")
    status, out, err = run(best, tmp_path / "damaged")
    assert status == 1
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    errors = err.splitlines()
    for file in files:
        probability, predicted, remarks = lines[str(file.path)]
        assert (probability == "") == (predicted == "") == (f"{file.path} {remarks}" in errors)
        assert file.readable in (None, probability != "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.ckpt", "{scans}"], "no.ckpt is not a file"),
        (["{scans}/1.png", "{scans}"], "cannot be read as a checkpoint"),
        (["{best}", "{scans}/*.dcm"], "matches no file"),
        (["{best}", "{scans}", "--json", "{scans}"], "is a folder"),
        (["{best}", "{scans}", "--csv", "{scans}/1.png/x.csv"], "cannot be written"),
        (["{best}", "{scans}", "--explain", "{scans}/1.png"], "cannot be written"),
        (
            ["{best}", "{scans}", "--batch-size", "0"],
            "--batch-size 0 is out of range: it must be 1 or more",
        ),
        (["{best}", "{scans}", "--device", "tpu"], "--device tpu is not a device: it must be auto, cpu or cuda"),
        (["{best}", "{scans}", "--device", "cuda"], "--device cuda needs a GPU"),
        (["{best}", "{scans}", "--device", "cuda"], "finds none. Use --device cpu, or"),
    ],
)
def test_a_user_error_prints_one_paragraph_before_prediction(
    arguments: list[str], message: str, best: Path, scans: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Predictor, "predict_batches", None)
    status, out, err = run(*(argument.format(best=best, scans=scans) for argument in arguments))
    assert (status, out) == (1, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_network_with_nan_weights_is_an_error(scans: Path, tmp_path: Path, run: Run) -> None:
    best = write_checkpoint(tmp_path / "best.ckpt")
    content = torch.load(best, weights_only=True)
    content["state_dict"]["head.bias"][0] = float("nan")
    checkpoints.write_checkpoint(content, best)
    status, out, err = run(best, scans, "--json", tmp_path / "x.json")
    assert (status, out) == (1, "")
    assert "its weights are damaged" in err
    assert not (tmp_path / "x.json").exists()


def test_any_file_name_is_printed_on_one_line(best: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in (b"[bold]a\n\tb\x1b[31m.png", b"caf\xe9.png", "ü;,\"'.png".encode()):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(encode_image(SMOOTH_IMAGES[1], "PNG"))
    status, out, _ = run(best, folder, "--csv", tmp_path / "x.csv", "--json", tmp_path / "x.json")
    shown = [r"[bold]a\n\tb\x1b[31m.png", r"caf\udce9.png", "ü;,\"'.png"]
    assert status == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == [f"{folder}/{name}" for name in shown]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text(encoding="utf-8"))))
    records = json.loads((tmp_path / "x.json").read_text())["predictions"]
    assert [row["path"] for row in rows] == [record["path"] for record in records] == [f"{folder}/{x}" for x in shown]


def test_ctrl_c_leaves_no_output_files(
    best: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(best, "cpu", 2)
    batches = []

    def score(image: np.ndarray) -> None:
        batches.append(len(image))
        raise KeyboardInterrupt

    monkeypatch.setattr(model.network, "score", score)
    monkeypatch.setattr(batch_inference, "load_predictor", lambda path, device, batch_size, style: model)
    with pytest.raises(KeyboardInterrupt):
        batch_inference.run_predict(best, [str(scans)], tmp_path / "x.json", tmp_path / "x.csv", None, 2, "cpu")
    assert batches == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans"]


def test_outputs_of_an_earlier_call_are_not_inputs(best: Path, scans: Path, run: Run) -> None:
    (scans / "notes.txt").unlink()
    options = ("--csv", scans / "x.csv", "--json", scans / "x.json", "--explain", scans / "maps")
    first, second = (run(best, scans, *options) for _ in range(2))
    assert (first[0], first[1]) == (second[0], second[1])
    assert "Skipping" not in first[2]
    assert f"{scans / 'maps' / '0.png.png'} and 6 more." in second[2]
    status, _, err = run(best, scans / "maps", "--explain", scans / "maps")
    assert status == 1
    assert "Use another output path" in err
