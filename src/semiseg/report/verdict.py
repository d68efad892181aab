"""Did the unlabeled images help? The arms of a run, and one honest sentence about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from semiseg.report.markup import change, count, plural, score, signed
from semiseg.report.shape import Json
from semiseg.training.config import SELECTABLE

CLEAR = 0.005
"""A smaller difference of mIoU is no clear one: the same training with another seed moves the score as much."""


@dataclass(frozen=True)
class Arm:
    """One row of the comparison. `val`: its `SCORES`."""

    name: str
    folder: str
    val: Json

    @property
    def miou(self) -> float | None:
        """Mean IoU on val, or None."""
        return cast(float | None, self.val["miou"])


@dataclass(frozen=True)
class Verdict:
    """What the page says first. `tone` is helped, flat, hurt or plain; `model` and `baseline` are its two arms."""

    sentence: str
    tone: str
    caveats: list[str]
    arms: list[Arm]
    baseline: Arm | None
    model: Arm | None
    compared: bool
    """Whether there are two arms to compare, one of which learned from unlabeled images."""


def on(summary: Json) -> str:
    """What the arms were scored on: val, or labels that they did not see."""
    return summary["scored"]["on"] or "val"


def judge(summary: Json) -> Verdict:
    """The verdict of a run from its summary alone."""
    arms = _arms(summary)
    baseline = next((a for a in arms if a.name.lower().startswith("labels only")), None)
    model = _model(summary, arms)
    sentence, tone = _sentence(summary, baseline, model)
    rival = _rival(arms, baseline, model)
    caveats = _caveats(summary, baseline, model, rival)
    compared = bool(baseline and model and model.folder not in {baseline.folder, *_first(summary)})
    return Verdict(sentence, "flat" if rival and tone == "helped" else tone, caveats, arms, baseline, model, compared)


def supervised(summary: Json) -> bool:
    """Whether no model of the run learned from an unlabeled image: the supervised method, and generation 0 only."""
    return summary["method"] == "supervised" and not any(g["generation"] for g in summary["generations"])


def _arms(summary: Json) -> list[Arm]:
    return [Arm(a["name"] or "arm", a["folder"], a["val"]) for a in summary["arms"]]


def _members(summary: Json) -> list[Arm]:
    """Every member of every generation as an arm, generation 0 first."""
    return [
        Arm(f"generation {count(g['generation'], '?')}, {m['name']}", m["folder"], m["val"])
        for g in summary["generations"]
        for m in g["members"]
    ]


def _model(summary: Json, arms: list[Arm]) -> Arm | None:
    folder = summary["model"]["folder"]
    for arm in [*reversed(arms), *_members(summary)]:
        if folder and arm.folder == folder:
            return arm
    return arms[-1] if arms and not folder else None


def _sentence(summary: Json, baseline: Arm | None, model: Arm | None) -> tuple[str, str]:
    if model is None or model.miou is None:
        if summary["counts"].get("val"):
            return "This run holds no score on val, so judge it by the pictures.", "plain"
        return "No val set, so no score: judge this model by the pictures, or label a few images for val.", "plain"
    if supervised(summary):
        return (
            f"Trained on labels only: {score(model.miou)} mIoU on {on(summary)}. No unlabeled image was used.",
            "plain",
        )
    if baseline is None or baseline.miou is None:
        said = f"{score(model.miou)} mIoU on {on(summary)}. No labels-only model was trained beside it, "
        return said + "so this run cannot tell what the unlabeled images did.", "plain"
    if model.folder in {baseline.folder, *_first(summary)}:
        return _kept(summary, model)
    gain = model.miou - baseline.miou
    numbers = f"{signed(gain)} mIoU on {on(summary)} over labels only {change(baseline.miou, model.miou)}"
    few = too_few(summary)
    if gain >= CLEAR:
        return f"Unlabeled images {'seem to have helped' if few else 'helped'}: {numbers}.", "flat" if few else "helped"
    if gain > -CLEAR:
        return f"Unlabeled images made no clear difference: {numbers}.", "flat"
    said = "seem not to have helped" if few else "did not help"
    return f"Unlabeled images {said}: {numbers}.", "flat" if few else "hurt"


def _first(summary: Json) -> set[str]:
    """The folders of the members that saw labels only: generation 0 of the supervised method."""
    if summary["method"] != "supervised":
        return set()
    return {m["folder"] for g in summary["generations"][:1] for m in g["members"]}


def _kept(summary: Json, model: Arm) -> tuple[str, str]:
    """A labels-only model is the model of the run: no later one was better."""
    own = {model.folder, *_first(summary)}
    later = [a for a in _members(summary) if a.folder not in own and a.miou is not None]
    if not later:
        said = (
            f"Unlabeled images did not help: a labels-only model is kept ({score(model.miou)} mIoU on {on(summary)})."
        )
        return said, "flat"
    best = max(later, key=lambda a: a.miou or 0.0)
    gain = (best.miou or 0.0) - (model.miou or 0.0)
    if gain > 0:  # below 20 val images another figure than mIoU promotes
        by_run = summary["model"]["why"] if model.folder == summary["baseline"] else ""
        its = next(g for g in summary["generations"] if best.folder in [m["folder"] for m in g["members"]])
        reason = by_run or its["why"]
        said = f"Unlabeled images did not help by the score that decides{f' ({reason})' if reason else ''}: "
        return said + f"a labels-only model is kept ({score(model.miou)} mIoU on {on(summary)}).", "flat"
    return (
        f"Unlabeled images did not help: the best later model scored {signed(gain)} mIoU on {on(summary)} "
        f"{change(model.miou, best.miou)}, so a labels-only model is kept.",
        "flat",
    )


def too_few(summary: Json) -> float | None:
    """The number of images that models were scored on when it is too small to tell, else None."""
    images = cast(float | None, summary["scored"]["images"])
    return images if images is not None and 0 < images < SELECTABLE else None


def _rival(arms: list[Arm], baseline: Arm | None, model: Arm | None) -> Arm | None:
    """The best other arm, when it is clearly better than the model: averaging at prediction, or the best of several."""
    if model is None or model.miou is None:
        return None
    others = [a for a in arms if a is not baseline and (a.folder != model.folder or not a.folder) and a is not model]
    best = max(others, key=lambda a: a.miou or 0.0, default=None)
    return best if best and (best.miou or 0.0) - model.miou >= CLEAR else None


def _caveats(summary: Json, baseline: Arm | None, model: Arm | None, rival: Arm | None) -> list[str]:
    if model is None or model.miou is None:
        return []
    said = []
    few = too_few(summary)
    if few:
        had = "Val has only" if on(summary) == "val" else "Models were scored on labels that they did not see,"
        said.append(f"{had} {plural(few, 'image')}; below {SELECTABLE} a difference like this can be chance.")
    if summary["val_source"] == "carved":
        said.append(
            "Val was set aside from your labeled images, so the models trained on fewer labels. Among more labels others "
            "are set aside: without a folder val/ the scores of two such trainings cannot be compared."
        )
    if rival:
        pair = f"({score(rival.miou)}) than the model of this run ({score(model.miou)})"
        only = " It saw labels only." if rival.folder in _first(summary) else ""
        said.append(f"“{rival.name}” scores higher {pair}.{only}")
    if baseline is not None and not supervised(summary):
        seed = count(summary["seed"], "?")
        said.append(f"One seed ({seed}), and {on(summary)} also chose the model: the fair number is the one on test.")
    return said
