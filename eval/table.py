"""A table for people and for programs: as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import storage
from pipeline.errors import UsageError

Cell = str | int | float | None
SUFFIXES = (".csv", ".md", ".tex")
NOTHING = "–"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "→": r"$\to$",
    "<": r"$<$", ">": r"$>$",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of cells under a `head`; numbers with a fraction are shown with one digit behind the point, and written to
    CSV whole. None is no value."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"a row of {len(row)} cells stands under {len(self.head)} names: {row}")

    def csv(self) -> str:
        content = io.StringIO()
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow(self.head)
        writer.writerows(self.rows)
        return content.getvalue()

    def markdown(self) -> str:
        marks = ["---:" if self.numeric(column) else "---" for column in range(len(self.head))]
        shown = [
            [words(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (self.head, *self.rows)
        ]
        return "".join(f"| {' | '.join(row)} |\n" for row in (shown[0], marks, *shown[1:]))

    def latex(self) -> str:
        """A tabular with rules of the package booktabs."""
        columns = "".join("r" if self.numeric(column) else "l" for column in range(len(self.head)))
        lines = [" & ".join(_latex(words(cell)) for cell in row) + r" \\" for row in (self.head, *self.rows)]
        body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
        return f"% {self.title}\n\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"

    def write(self, path: Path) -> None:
        """As the file's suffix says. Raises UsageError for another one, Refusal where it cannot be written."""
        made = {".csv": self.csv, ".md": self.markdown, ".tex": self.latex}
        if path.suffix not in made:
            raise UsageError(
                f"a table cannot be written as {path.suffix or 'a file without a suffix'}",
                where=str(path),
                remedy=f"end the name with {', '.join(SUFFIXES)}",
            )
        with storage.writing("the table", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_atomically(path, made[path.suffix]().encode())

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers alone."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(re.fullmatch(r"[-+]?[\d.,]+( ± [\d.]+)?", words(cell)) for cell in cells)


def words(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return NOTHING
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
