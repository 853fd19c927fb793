"""Tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from eval.table import Table
from pipeline.errors import UsageError

TABLE = Table("Recall & more", ("a|b", "R@1", "mean"), [("x_1, 5 %", 53.333333, "1.0 ± 0.2"), ('"é"\nz', None, "2.0")])


def test_csv_keeps_numbers_whole_and_reads_back() -> None:
    rows = list(csv.reader(TABLE.csv().splitlines(keepends=True)))
    assert rows == [["a|b", "R@1", "mean"], ["x_1, 5 %", "53.333333", "1.0 ± 0.2"], ['"é"\nz', "", "2.0"]]


def test_markdown_has_one_line_a_row_and_numbers_to_the_right() -> None:
    assert TABLE.markdown() == (
        '| a\\|b | R@1 | mean |\n| --- | ---: | ---: |\n| x_1, 5 % | 53.3 | 1.0 ± 0.2 |\n| "é" z | – | 2.0 |\n'
    )


def test_latex_escapes_what_latex_would_read() -> None:
    text = TABLE.latex()
    assert "\\begin{tabular}{lrr}" in text and r"x\_1, 5 \% & 53.3 & 1.0 $\pm$ 0.2 \\" in text


def test_a_file_is_written_as_its_suffix_says_and_another_fails(tmp_path: Path) -> None:
    for suffix, made in ((".csv", TABLE.csv()), (".md", TABLE.markdown()), (".tex", TABLE.latex())):
        TABLE.write(tmp_path / "new" / f"t{suffix}")
        assert (tmp_path / "new" / f"t{suffix}").read_bytes() == made.encode()
    with pytest.raises(UsageError, match=r"\.csv, \.md, \.tex"):
        TABLE.write(tmp_path / "t.xls")


def test_a_row_of_another_length_fails() -> None:
    with pytest.raises(ValueError, match="2 cells stands under 1"):
        Table("t", ("a",), [("b", "c")])
