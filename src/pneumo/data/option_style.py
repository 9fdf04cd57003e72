"""Notation of the options for labelled data in messages of each interface."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptionStyle:
    """Templates for `str.format` of the options; each `{}` is a name or value."""

    preset: str
    column: str  # name, column of the table
    mapping: str  # label, class
    root: str  # table; the folder of its files is written FOLDER
    split: str = ""  # unused in training
    labels: str = ""  # table; unused in training
    null: str = ""  # class of labels whose images are left out


COMMAND = OptionStyle(
    preset="--preset {}",
    column="--column {}={}",
    mapping="--map {}={}",
    root="FOLDER --labels {}",
    split="--split {}",
    labels="--labels {}",
)
TRAINING = OptionStyle(
    preset="data.preset={}",
    column="data.columns.{}={}",
    mapping="data.mapping={{{}: {}}}",
    root="data.root=FOLDER",
    null="null",
)
PYTHON = OptionStyle(
    preset='preset="{}"',
    column='columns={{"{}": "{}"}}',
    mapping='mapping={{"{}": "{}"}}',
    root='data="FOLDER", labels="{}"',
    split='split="{}"',
    labels='labels="{}"',
)
