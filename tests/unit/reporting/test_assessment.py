from rich.console import Console

from pneumo.reporting.assessment import Rows, Verdict, count_verdicts, terminal_table, verdict_grid

VERDICTS = [
    Verdict("warning", "a", "Three things:\n- one\n- two", "Fix them."),
    Verdict("note", "b", "A [red]name\x1b[31m.", "Nothing."),
]


def render(item: object) -> str:
    console = Console(width=60, force_terminal=False)
    with console.capture() as capture:
        console.print(item)
    return capture.get()


def test_verdicts_are_counted_by_severity() -> None:
    assert count_verdicts(VERDICTS) == "no errors, 1 warning, 1 note"
    assert count_verdicts([]) == "no errors, no warnings, no notes"


def test_verdicts_keep_line_breaks_and_escape_controls_and_markup() -> None:
    text = render(verdict_grid(VERDICTS))
    assert "- two\n" in text.replace(" ", "").replace("-two", "- two")
    assert r"A [red]name\x1b[31m. Nothing." in text


def test_cells_of_tables_may_have_two_lines() -> None:
    rows = Rows(["site", "AUROC"], [["a", "0.5\n0.4"]])
    words = [line.split() for line in render(terminal_table("Sites", rows)).splitlines()]
    assert words[0] == ["Sites"]
    assert words[words.index(["a", "0.5"]) + 1] == ["0.4"]
