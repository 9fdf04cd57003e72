from pathlib import Path

import pytest
from helpers.labelled_site import write_site

from pneumo.data.selection import DataSelection
from pneumo.errors import ConfigError
from pneumo.inference.command_inputs import read_selection, require_checkpoint


def test_networks_are_checked_before_the_data(tmp_path: Path) -> None:
    table, network, absent = write_site(tmp_path, images=4), tmp_path / "best.ckpt", Path("absent.csv")
    network.touch()
    with pytest.raises(ConfigError, match=r"first argument .* is a folder, and .*best.ckpt .* Exchange"):
        read_selection(DataSelection([network]), [], [tmp_path])
    with pytest.raises(ConfigError, match=r"labels.csv is not a checkpoint, and .*best.ckpt .* Exchange"):
        read_selection(DataSelection([network]), [], [table])
    with pytest.raises(ConfigError, match=r"best.ckpt is a network, but data must be"):
        read_selection(DataSelection([network]), [], [network])
    with pytest.raises(ConfigError, match=r"^none.ckpt is not a file"):
        read_selection(DataSelection([absent]), [], [Path("none.ckpt")])
    with pytest.raises(ConfigError, match=r"^--against none.ckpt is not a file"):
        read_selection(DataSelection([absent]), [], [network, Path("none.ckpt")])


def test_a_run_folder_is_no_checkpoint_but_has_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder, but it must be a network. Use a checkpoint, such as RUN/"):
        require_checkpoint(tmp_path)
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    best.touch()
    for folder in (tmp_path, best.parent):
        with pytest.raises(ConfigError) as error:
            require_checkpoint(folder, "--against ")
        assert str(error.value).startswith(f"--against {folder} is a folder")
        assert str(error.value).endswith(f"Use --against {best}.")
    require_checkpoint(best)
