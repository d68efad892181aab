"""What semiseg says when it cannot go on: what it found, what it expected, what to do; all problems at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

BUG, USAGE, DATA, CHECKPOINT, DIVERGED, RESOURCES, BUSY, PARTLY = 1, 2, 3, 4, 5, 6, 7, 8
"""Exit codes: 0 is success, 130 and 143 an interrupt after a committed checkpoint."""


@dataclass(frozen=True)
class Problem:
    """One finding. `where` is a path as the user typed it, or the name of an option."""

    code: str
    where: str
    found: str
    fix: str = ""
    expected: str = ""
    level: str = "error"

    def __str__(self) -> str:
        text = _ended(f"{self.code}: {self.where} {self.found}")
        if self.expected:
            text += f" Expected: {_ended(self.expected)}"
        if self.fix:
            text += f" Fix: {_ended(self.fix)}"
        return text

    def to_json(self) -> dict[str, str]:
        """The same as a plain dictionary, for `--json` and check.json."""
        return asdict(self)


class Refusal(Exception):
    """semiseg stops on purpose: every problem it knows of, and the exit code of the contract."""

    def __init__(self, problems: Problem | Sequence[Problem], exit: int = DATA) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        self.exit = exit
        super().__init__("\n".join(str(p) for p in self.problems))


def _ended(text: str) -> str:
    """With a full stop, unless it is a question, ends in dots, or is a block of lines to paste."""
    return text if "\n" in text or text.endswith(("?", "...")) else text.rstrip(". ") + "."


def usage(where: str, found: str, fix: str = "", expected: str = "") -> Refusal:
    """A refusal of what was typed (exit 2)."""
    return Refusal(Problem("C01", where, found, fix, expected), USAGE)


def nearest(word: str, options: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or an empty string when nothing is near."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else ""
