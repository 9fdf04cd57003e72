import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException

from pneumo.common.text import quote_override
from pneumo.config.overrides import command_line, find_hint, override_hints, similar_keys

SETTINGS = {
    "seed": 0,
    "epochs": 20,
    "learning_rates": {"sgd": 0.1},
    "data": {"batch_size": 32, "root": None},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "trainer": {"_target_": "lightning.Trainer", "max_epochs": "${epochs}"},
    "callbacks": {"best": {"monitor": "val/loss"}},
}


@pytest.fixture(autouse=True)
def _no_hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("key", "similar"),
    [
        ("trainer.max_epoch", ["trainer.max_epochs"]),
        ("trainer.gradient_clip", ["+trainer.gradient_clip_val"]),
        ("trainer.gradient_clip_val", ["+trainer.gradient_clip_val"]),
        ("trainr.max_epoch", ["trainer.max_epochs"]),
        ("callbacks.bst.monitr", ["callbacks.best.monitor"]),
        ("optimiser", ["optimizer"]),
        ("exprimnt", ["experiment"]),
        ("epoch", ["epochs"]),
        ("batch_size", ["data.batch_size"]),
        ("learning_rate", ["optimizer.lr"]),
        ("optimizer.learning_rate", ["optimizer.lr"]),
        ("optimizer.momentun", ["+optimizer.momentum"]),
        ("seed.x", []),
        ("nonsense", []),
    ],
)
def test_similar_keys_are_suggested_for_unknown_keys(key: str, similar: list[str]) -> None:
    assert similar_keys(key, SETTINGS, ["optimizer", "experiment", "data"]) == similar


def hint(*arguments: str, script: str = "train.py") -> str | None:
    """Return the hint for the error that Hydra raises."""
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            compose(Path(script).stem, list(arguments))
    except HydraException as error:
        GlobalHydra.instance().clear()
        return find_hint(error, arguments, ROOT / script)
    raise AssertionError(f"Hydra accepts {arguments}")


@pytest.mark.parametrize(
    "value",
    ["/x/archive (1)", "/x/a=b", "/x/a#b", "/x/it's", '/x/a"b', "/x/данные", "/x/[a]/b", "{a}", "/x/a&b", "/x/\udcff"],
)
def test_a_value_that_hydra_cannot_parse_is_shown_with_quotes(value: str) -> None:
    shown = hint("seed=1", f"data.root={value}")
    assert shown is not None
    assert shown.endswith(f"for the shell and for Hydra: {quote_override(f'data.root={value}')}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=vgg16", "data.root=/x/my", "chest", "data", "seed=1"], """'data.root="/x/my chest data"'"""),
        (["resnext"], "resnext has no value"),
        (["data.root=/x/a,b"], "sweep.py -m data.root=/x/a,b`"),
        (["optimizer.lr=choice(1,2)"], "sweep.py -m 'optimizer.lr=choice(1,2)'`"),
        (["model=resnet"], "Did you mean model=resnext?"),
        (["modle=resnext", "optimizer=adam"], "Did you mean model=resnext?"),
        (["~sheduler"], "Did you mean '~scheduler'?"),
        (["hydra.run.dri=x"], "Did you mean hydra.run.dir=x?"),
        (["data.table=x.csv"], "Add data=table, which has the setting data.table; do not use +."),
        (["data.columns.file=x"], "Add data=table, which has the setting data.columns.file"),
        (["data.site=A"], "Add data=table, which has the setting data.site"),
        (["optimizer=adam", "optimizer.momentum=0.9"], "Use optimizer=sgd instead, which has the setting"),
        (["optimizer=adagrad", "optimizer.fused=true"], "Did you mean +optimizer.fused=true?"),
        (["data=table", "data.columns.lable=x"], "Did you mean data.columns.label=x?"),
        (
            ["data=table", "data.columns.age=Age"],
            "data.columns has the settings file, label, patient, site, split. Other columns of the table are kept",
        ),
        (["paths.data_dir=x"], "paths has the settings cache_dir, fresh_dir, output_dir, run_dir."),
        (["features.nonsense=1"], "features has the settings batch_size, cache, compile, views."),
    ],
)
def test_each_error_of_hydra_has_its_hint(arguments: list[str], words: str) -> None:
    shown = hint(*arguments)
    assert shown is not None
    assert words in shown


@pytest.mark.parametrize("override", ["model=nonsense", "+seed=3"])
def test_an_error_without_a_likely_cause_has_no_hint(override: str) -> None:
    assert hint(override) is None


def test_a_hint_is_printed_after_the_error_of_hydra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:  # as Hydra does
        try:
            raise ConfigCompositionException("Could not override 'sweep.nam'.")
        except ConfigCompositionException:
            sys.exit(1)

    monkeypatch.setattr("sys.argv", ["sweep.py", "sweep.nam=x"])
    with pytest.raises(SystemExit, match="1"), override_hints(ROOT / "sweep.py"):
        refuse()
    assert capsys.readouterr().err == "Did you mean sweep.name=x?\n"


@pytest.mark.parametrize(("script", "known"), [("sweep.py", True), ("train.py", False)])
def test_only_sweep_py_checks_whether_a_launcher_is_installed(
    script: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [script, "launcher=ray"])
    monkeypatch.setattr("pneumo.config.console.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="not installed" if known else "^the end$"), command_line(ROOT / script):
        raise SystemExit("the end")


def test_an_early_interrupt_prints_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, override_hints(ROOT / "train.py"):
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert end.value.__suppress_context__
    assert capsys.readouterr().err.count("\n") == 1
