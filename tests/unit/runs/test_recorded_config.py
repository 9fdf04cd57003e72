from pathlib import Path

import pytest

from pneumo.errors import ConfigError
from pneumo.runs.recorded_config import read_config, resolve_references, select

_RECORDED = """
seed: 3
paths: {cache_dir: '${paths.out}/cache', out: /o}
data: {root: '${paths.cache_dir}/v1-${data.train}-s${seed}', train: 800}
optimizer: {lr: '${oc.select:rates.sgd,0.003}', decay: '${oc.select:rates.adam,0.1}'}
rates: {adam: 1e-4}
"""


def write(folder: Path, text: str) -> Path:
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(text)
    return folder


def test_references_to_settings_are_resolved(tmp_path: Path) -> None:
    resolved = resolve_references(read_config(write(tmp_path, _RECORDED)))
    assert resolved["data"]["root"] == "/o/cache/v1-800-s3"
    assert resolved["optimizer"] == {"lr": 0.003, "decay": 0.0001}


def test_no_resolver_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMO_SECRET", "secret")
    texts = ["${oc.env:PNEUMO_SECRET}", "x/${oc.env:PNEUMO_SECRET}/y", "${now:%Y}", "${hydra:runtime.cwd}", "${a.${b}}"]
    texts += ["${oc.select:b,${oc.env:PNEUMO_SECRET}}", "${oc.decode:1}", "${.b}", "${missing}"]
    lines = "".join(f"k{number}: '{text}'\n" for number, text in enumerate(texts))
    resolved = resolve_references(read_config(write(tmp_path, lines + "last: ${k0}\n")))
    assert list(resolved.values()) == [*texts, texts[0]]


def test_nested_and_circular_references_are_limited(tmp_path: Path) -> None:
    bomb = "".join(f"a{n}: '{f'${{a{n + 1}}}' * 10}'\n" for n in range(12)) + "a12: lol\nb: ${c}\nc: ${b}\n"
    resolved = resolve_references(read_config(write(tmp_path, bomb)))
    assert max(len(value) for value in resolved.values()) <= 10_000
    assert resolve_references({"a": "x" * 4_000, "b": "${a}" * 1_000})["b"] == "${a}" * 1_000
    assert (resolved["a11"], resolved["b"]) == ("lol" * 10, "${c}")


def test_a_damaged_configuration_raises_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read \(it is not a mapping\)"):
        read_config(write(tmp_path, "- 1"))


def test_values_of_other_types_raise_an_error_with_their_key() -> None:
    config = {"data": {"root": 5, "rate": float("nan"), "on": True}}
    for key, kind in (
        ("data.root", str),
        ("data.rate", float),
        ("data.on", float),
        ("data.no", str),
        ("data.on.x", str),
    ):
        with pytest.raises(ConfigError, match=key):
            select(config, key, kind)
    assert select(config, "data.root", float) == 5
    assert select({"root": None}, "root", str, type(None)) is None
