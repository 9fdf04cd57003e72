from pathlib import Path

import pytest
from helpers.commands import Compose
from helpers.mixed_tables import CLASSES, write_mixed_table
from helpers.run_files import write_run

from pneumo.config.fingerprints import config_hash
from pneumo.data.index import data_hash, index_radiographs
from pneumo.data.table_index import TableSource, index_table
from pneumo.errors import ConfigError
from pneumo.sweeps.grid import check_values, finished_jobs, parse_overrides
from pneumo.sweeps.plan import Job


def check(*lines: str) -> None:
    check_values(parse_overrides(None, lines), combined=True)


def test_an_existing_path_with_a_comma_is_not_split_into_jobs(tmp_path: Path) -> None:
    line = f"data.root={tmp_path}/a,b"
    check(line)
    (tmp_path / "a,b").mkdir()
    with pytest.raises(ConfigError, match="is an existing path") as error:
        check(line)
    assert f"""'data.root="{tmp_path}/a,b"'""" in str(error.value)
    check(f'data.root="{tmp_path}/a,b"')


def test_a_shared_setting_with_a_comma_is_shown_with_quotes() -> None:
    with pytest.raises(ConfigError, match="contains a comma: 'paths"):
        check("paths.output_dir=a,b")


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (["seed=range(0,0)"], r"seed=range\(0,0\) has no values"),
        (["seed=range(5,1)"], "no values"),
        (["seed=range(0,9,0)"], "a step other than 0"),
        (["optimizer.lr=range(0.1,inf,0.1)"], "finite bounds"),
        (["optimizer.lr=interval(0.1,1)"], r"optimizer\.lr.* infinitely many values"),
        (["seed=range(0,1000000000)"], "1,000,000,000 values"),
        (["seed=range(0,1,0.0000001)"], "10,000,000 values"),
        (["seed=range(0,200)", "epochs=range(0,200)"], "40,000 jobs"),
    ],
)
def test_a_sweep_of_no_or_too_many_jobs_is_rejected(lines: list[str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        check(*lines)


def test_only_the_last_override_of_a_key_counts() -> None:
    many, few = "seed=range(0,1000000000)", "seed=0,1"
    check(many, few, "epochs=1,2")
    with pytest.raises(ConfigError, match="1,000,000,000"):
        check(few, many)


@pytest.mark.parametrize(
    ("target", "indexed"),
    [
        ("pneumo.data.datamodule.ChestXrayDataModule", True),
        ("pneumo.data.datamodule.SyntheticDataModule", True),
        ("pneumo.data.synthetic.SyntheticDataModule", True),  # name in configurations of earlier versions
        ("pneumo.data.hospital.HospitalDataModule", False),  # a custom layout, which indexes its images itself
        ("hospital.DataModule", False),
    ],
)
def test_only_data_of_the_standard_layout_are_reindexed(
    target: str, indexed: bool, compose_run: Compose, phantoms: Path, tmp_path: Path
) -> None:
    cfg, folder = compose_run(), tmp_path / "sweep" / "job"
    cfg.data._target_ = target

    def finish(data_hash: str) -> None:
        write_run(folder, "xraychestnet", "sgd", 0, wrong=1, config_hash=config_hash(cfg), data_hash=data_hash)

    finish("of another index")
    jobs = [Job(folder.name, folder, (), cfg)]
    if not indexed:
        assert finished_jobs(jobs) == {folder.name}
        return
    with pytest.raises(ConfigError, match="other data"):
        finished_jobs(jobs)
    finish(data_hash(index_radiographs(phantoms, ["NORMAL", "PNEUMONIA"])))
    assert finished_jobs(jobs) == {folder.name}


def test_the_data_of_a_table_are_reindexed(compose_run: Compose, tmp_path: Path) -> None:
    table = write_mixed_table(tmp_path / "data", 3)
    classes = f"data.classes=[{','.join(CLASSES)}]"
    cfg = compose_run("data=table", f"data.table={table}", "data.root=null", classes)
    folder = tmp_path / "sweep" / "job"
    recorded = index_table(TableSource(table), CLASSES).data_hash
    write_run(folder, "xraychestnet", "sgd", 0, wrong=1, config_hash=config_hash(cfg), data_hash=recorded)
    jobs = [Job(folder.name, folder, (), cfg)]
    assert finished_jobs(jobs) == {folder.name}
    table.write_text(table.read_text().replace(",P1,", ",P2,"))
    with pytest.raises(ConfigError, match="other data"):
        finished_jobs(jobs)
