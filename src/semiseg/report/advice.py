"""What to type next, and which other training is worth a try."""

from __future__ import annotations

import shlex

from semiseg.report.load import Facts
from semiseg.report.markup import command, esc, note, section, signed
from semiseg.report.used import data_name, evaluate, has_test, run_name
from semiseg.report.verdict import CLEAR, Verdict, on, too_few

SHORT = 4 * CLEAR
"""What labels only gains from as many steps as all trainings in a row, where one of them was far from its end."""
ENCODER = "fpn/tu-tf_efficientnet_lite0"
"""The pretrained network that docs/explanation/does-it-help.md has numbers of."""


def advice(facts: Facts, verdict: Verdict) -> str:
    """Commands: first those that use this run, then trainings that may be better than it."""
    tries = _tries(facts, verdict)
    told = (
        note(f"If {on(facts.summary)} is better there, keep that one; each is a training of its own.") if tries else ""
    )
    heading = ["<h3>Worth a try</h3>", told] if tries else []
    return section("next", "Type this next", *_steps(_next(facts, verdict)), *heading, *_steps(tries))


def _steps(listed: list[tuple[str, str]]) -> list[str]:
    return [f'<p class="step">{esc(said)}</p>{command(text)}' for said, text in listed]


def _next(facts: Facts, verdict: Verdict) -> list[tuple[str, str]]:
    run = shlex.quote(run_name(facts))
    steps = [("Masks for new images", f"semiseg predict {run} my_new_images --out predictions")]
    if not facts.tests and has_test(facts):
        steps.append(("The fair number", evaluate(facts)))
    if facts.queue:
        data = shlex.quote(data_name(facts) or "my_data")
        again = f"semiseg check {data} && semiseg train {data} --out {shlex.quote(run_name(facts) + '-2')}"
        steps.append(("After labeling some of the images listed above", again))
    if verdict.model is None or verdict.model.miou is None:
        steps.append(("With a few labeled images in val/, the next report has scores", "semiseg check my_data"))
    return steps


def _tries(facts: Facts, verdict: Verdict) -> list[tuple[str, str]]:
    """What was worth most in our tests and was not done here. Where val cannot tell, nothing is worth a try."""
    if verdict.model is None or verdict.model.miou is None or too_few(facts.summary):
        return []
    found, config = [], facts.record["config"]
    colored = facts.record["data"]["channels"] == 3
    steps, gain = facts.summary["steps"], _gained(facts, verdict)
    if steps and gain is not None and gain >= SHORT:
        said = f"Longer trainings: labels only had {signed(gain)} from more steps than one of them has"
        found.append((said, again(facts, "longer", steps=str(2 * int(steps)))))
    if config.get("augment") == "default":
        said = "Labeled images in stronger colours: better on skin and cells in our tests, not on streets and scans"
        found.append((said, again(facts, "strong", augment="strong")))
    if steps and facts.summary["method"] == "supervised" and len(facts.generations) > 1:
        said = "One training of Mean Teacher, as long as these together: better on cells in our tests, not on streets"
        whole = str(int(steps) * len(facts.generations))
        found.append((said, again(facts, "teacher", method="mean_teacher+im_moving", steps=whole)))
    if colored and config.get("weights") == "" and str(config.get("network")).startswith("unet1x1"):
        said = "A pretrained encoder, which is fetched once: better than all else on skin in our tests, and slower"
        found.append((said, again(facts, "pretrained", network=ENCODER, weights="imagenet")))
    return found


def _gained(facts: Facts, verdict: Verdict) -> float | None:
    """What the labels-only baseline has above generation 0, which is labels only with the steps of one training."""
    folder, base = facts.summary["baseline"], verdict.baseline
    first = next((a for a in verdict.arms if a.folder == "generation-0/member-0"), None)
    if facts.summary["method"] != "supervised" or base is None or first is None or base.folder != folder:
        return None
    return None if base.miou is None or first.miou is None else base.miou - first.miou


def again(facts: Facts, name: str, **options: str) -> str:
    """The command of this run with other options, into a folder `name` beside it; without arguments of another method."""
    typed = shlex.split(facts.summary["command"])
    words = typed[2:] if typed[:2] == ["semiseg", "train"] else [data_name(facts) or "my_data"]
    kept, place, dropped = [], 0, {"out", *options}
    settings = facts.record["config"]

    def alien(key: str) -> bool:
        return "method" in options and key not in settings

    while place < len(words):
        option, equals, _ = words[place].removeprefix("--").partition("=")
        following = words[place + 1] if place + 1 < len(words) else ""
        if words[place] in ("--resume", "--json"):
            place += 1 + (following == "auto")
        elif words[place].startswith("--") and option in dropped:
            place += 1 if equals else 2
        elif words[place] == "--set" and ((key := following.partition("=")[0]) in dropped or alien(key)):
            place += 2
        else:
            kept.append(words[place])
            place += 1
    more = [w for k, v in options.items() for w in (f"--{k}", v)]
    return shlex.join(["semiseg", "train", *kept, *more, "--out", f"{run_name(facts)}-{name}"])
