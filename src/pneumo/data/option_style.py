"""Notation of the options for labelled data in messages of each interface."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptionStyle:
    """Templates for `str.format` of the options; each `{}` is a name or value."""

    preset: str
    split: str
    column: str  # name, column of the table
    mapping: str  # label, class
    labels: str  # table
    root: str  # table; the folder of its files is written FOLDER


COMMAND = OptionStyle("--preset {}", "--split {}", "--column {}={}", "--map {}={}", "--labels {}", "FOLDER --labels {}")
TRAINING = OptionStyle(
    "data.preset={}",
    "data.split={}",
    "data.columns.{}={}",
    "data.mapping={{{}: {}}}",
    "data.table={}",
    "data.root=FOLDER",
)
PYTHON = OptionStyle(
    'preset="{}"',
    'split="{}"',
    'columns={{"{}": "{}"}}',
    'mapping={{"{}": "{}"}}',
    'labels="{}"',
    'data="FOLDER", labels="{}"',
)
