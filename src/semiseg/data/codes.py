"""Every data problem by its code, and how many problems become few lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

from semiseg.errors import Problem

CODES = {
    "D01": "a labeled image has no mask",
    "D02": "a mask has no image",
    "D03": "the data folder, or images/ or masks/ in it, is not there",
    "D04": "there are no labeled images",
    "D05": "masks are colours and no class file says what they mean",
    "D06": "a mask holds colours that the class file does not name",
    "D07": "a mask has another size than its image",
    "D08": "a mask holds values that are no class",
    "D09": "a mask looks interpolated: in-between values along borders",
    "D10": "a mask cannot be read as labels (fractions, transparency, mixed codings)",
    "D11": "a mask is stored with lossy compression",
    "D12": "a file is damaged, empty or no image",
    "D13": "an image is larger than the pixel limit",
    "D14": "images differ in channels or type",
    "D15": "two files have one name",
    "D16": "two names differ only by case or Unicode form",
    "D17": "a file, folder or link cannot be read",
    "D18": "a split list names an image that is not there",
    "D19": "a split list is missing, malformed or overlaps another",
    "D20": "the class file is not understood, or does not fit the masks",
    "D21": "a file holds several pages or frames",
    "D22": "an image holds NaN or infinite pixels",
    "D23": "the same image is labeled and in val or test",
    "D24": "the same image is unlabeled and in another split",
    "D25": "the same image occurs twice among the labeled ones",
    "D26": "a mask is ignored everywhere",
    "D27": "a class does not occur in the labeled masks",
    "D28": "an image is constant",
    "D29": "the crop size is larger than images",
    "D30": "where the val set comes from",
    "D31": "files that are not read",
    "D32": "there are no unlabeled images",
    "D33": "fewer labels than folds",
    "D34": "an image was converted, losing something",
    "D35": "an image is too small",
    "D36": "a label folder lacks a mask",
    "D37": "the classes that were found",
    "D38": "masks seem to number objects instead of naming classes",
    "D39": "images have many channels",
}
"""Code -> one line. C01 (usage) is in errors.py."""
SHOWN = 3
LEVELS = ("error", "warning", "note")


def render(problems: Iterable[Problem], full: str = "the output of --json") -> list[str]:
    """One line per problem, or per group where more than three share a code: three of them and the number of the rest.

    full: where all of them are. Errors come first, then warnings, then notes. A line may end in a block to
    paste, so it may hold line breaks.
    """
    groups: dict[tuple[int, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((LEVELS.index(problem.level), problem.code), []).append(problem)
    lines = []
    for _, group in sorted(groups.items(), key=lambda pair: pair[0]):
        if len(group) <= SHOWN:
            lines += [str(problem) for problem in group]
            continue
        first, others = group[0], dict.fromkeys([group[0].where])
        for problem in group[1:SHOWN]:
            others.setdefault(_differs(problem, first) if problem.where in others else problem.where)
        also = ", ".join([*others][1:]) or first.where
        head = str(replace(first, found=f"{first.found.removesuffix('.')}; also {also}"))
        lines.append(f"{head} ({len(group) - SHOWN} more; all in {full})")
    return lines


def _differs(problem: Problem, first: Problem) -> str:
    """The words of its finding that the first one does not have: the class, or the image."""
    one, two = (re.findall(r"'[^']*'|\S+", p.found) for p in (problem, first))
    start = _shared(one, two)
    end = _shared(one[start:][::-1], two[start:][::-1])
    return " ".join(one[start : len(one) - end]).strip(",:;.") or problem.where


def _shared(one: Sequence[str], two: Sequence[str]) -> int:
    """How many words the two begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))
