import io

from rich.console import Console

from pneumo.inference.evaluate.evaluation import Evaluation
from pneumo.inference.evaluate.evaluation_tables import tables
from pneumo.inference.evaluate.evaluation_terminal import to_terminal


def test_all_tables_fit_a_terminal_of_80_columns(evaluation: Evaluation) -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(to_terminal(evaluation))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for title, rows in tables(evaluation).items():
        assert title in lines[[line.strip() for line in lines].index(title)]
        shown = {cell for row in rows.rows for cell in row[1:] for cell in cell.split("\n")}
        assert not [cell for cell in shown if not any(cell in line for line in lines)], title  # no cell is folded


def test_each_table_has_a_cell_for_each_heading(evaluation: Evaluation) -> None:
    for title, rows in tables(evaluation).items():
        assert {len(row) for row in rows.rows} == {len(rows.head)}, title


def test_verdicts_follow_the_tables_and_the_notice_is_last(evaluation: Evaluation) -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(to_terminal(evaluation))
    text = stream.getvalue()
    places = [text.index(part) for part in ("Metrics", "Verdicts", "Reporting checklists", "Not a medical device")]
    assert places == sorted(places)
