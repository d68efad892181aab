"""The sentence at the top is honest in every case that a run can end in."""

import pytest
from fake_run import Fake, summary

from semiseg.report import verdict as verdicts
from semiseg.report.shape import SUMMARY, shaped


def judge(value):
    return verdicts.judge(shaped(value, SUMMARY))


def changed(value, **changes):
    return judge(value | changes)


@pytest.mark.parametrize(
    ("gain", "tone", "said"),
    [
        (0.031, "helped", "Unlabeled images helped: +0.031 mIoU on val over labels only (0.742 → 0.773)."),
        (0.004, "flat", "made no clear difference: +0.004"),
        (-0.004, "flat", "made no clear difference: −0.004"),
        (0.0, "flat", "made no clear difference: ±0.000"),
        (-0.02, "hurt", "did not help: −0.020 mIoU on val over labels only (0.742 → 0.722)"),
    ],
)
def test_sentence_follows_the_difference(gain, tone, said):
    verdict = judge(summary(Fake(gain=gain)))
    assert verdict.tone == tone
    assert said in verdict.sentence.replace("\N{NO-BREAK SPACE}", " ")


def test_a_kept_labels_only_model_is_said_aloud():
    verdict = judge(summary(Fake(gain=-0.02, promoted=False)))
    assert "did not help: the best later model scored −0.006" in verdict.sentence
    assert not verdict.compared


def test_another_member_that_saw_labels_only_is_no_gain_from_unlabeled_images():
    value = summary(Fake(gain=-0.02))
    value["generations"][0]["members"][1]["val"]["miou"] = 0.79
    verdict = changed(value, model={"folder": "generation-0/member-1"})
    assert "did not help" in verdict.sentence and "0.790" in verdict.sentence


def test_labels_only_run_claims_nothing():
    verdict = judge(summary(Fake(program=None)))
    assert verdict.sentence == "Trained on labels only: 0.742 mIoU on val. No unlabeled image was used."
    assert verdict.tone == "plain" and verdict.caveats == []


def test_an_ensemble_learned_nothing_from_unlabeled_images():
    value = summary(Fake())
    value["generations"] = value["generations"][:1]
    value["arms"] = value["arms"][:2]
    verdict = changed(value, program="ensemble", model={"folder": "generation-0/member-0"})
    assert verdict.sentence.startswith("Trained on labels only: 0.742")
    assert verdict.caveats == ["“average of 2 at prediction” scores higher (0.759) than the model of this run (0.742)."]


def test_few_val_images_only_seem_to_say_something():
    for gain, said in ((0.03, "seem to have helped"), (-0.03, "seem not to have helped")):
        verdict = changed(summary(Fake(gain=gain)), scored={"on": "val", "images": 19})
        assert said in verdict.sentence and verdict.tone == "flat"


def test_a_gain_that_did_not_promote_is_no_help():
    value = summary(Fake(gain=0.03, promoted=False))
    verdict = judge(value)
    assert "did not help by the score that decides (worse on val than generation 0)" in verdict.sentence
    assert not verdict.compared


def test_the_reason_is_that_of_the_best_that_was_refused():
    value = summary(Fake(gain=0.03, promoted=False))
    for generation, why in zip(value["generations"], ("", "first", "second"), strict=True):
        generation["why"] = why
    assert "(second)" in judge(value).sentence
    for member in value["generations"][2]["members"]:
        member["val"]["miou"] = 0.6
    assert "(first)" in judge(value).sentence


def test_two_models_of_labels_only_are_not_compared():
    """What is shipped is generation 0's, and labels only had more steps: their difference is not of unlabeled images."""
    value = summary(Fake(gain=0.03, promoted=False))
    longer = {"name": "labels only", "folder": "baseline", "val": value["arms"][0]["val"] | {"miou": 0.6}}
    arms = [longer, value["arms"][0] | {"name": "generation 0"}, *value["arms"][1:]]
    assert not changed(value, arms=arms, baseline="baseline").compared


def test_what_labels_alone_can_do_better_is_no_green_light():
    value = summary(Fake(gain=0.01))
    best = value["arms"][0] | {"name": "best of 2 on val", "folder": "generation-0/member-1"}
    best["val"] = best["val"] | {"miou": 0.79}
    verdict = changed(value, arms=[*value["arms"], best])
    assert verdict.tone == "flat" and "It saw labels only." in verdict.caveats[0]


def test_without_val_there_is_no_score():
    assert judge(summary(Fake(val=False))).sentence.startswith("No val set, so no score")


def test_without_labels_only_there_is_no_claim():
    value = summary(Fake())
    value["arms"] = [value["arms"][-1] | {"name": "unimatch"}]
    assert "cannot tell what the unlabeled images did" in changed(value, method="unimatch").sentence


def test_caveats_name_small_val_carved_val_and_a_better_committee():
    value = summary(Fake(gain=0.01))
    verdict = changed(value, val_source="carved", scored={"on": "val", "images": 8})
    text = " ".join(verdict.caveats)
    assert (
        "seem to have helped" in verdict.sentence
        and "only 8 images" in text
        and "set aside from your labeled images" in text
    )
    assert "“average of 2 at prediction” scores higher (0.759)" in text and "One seed (0)" in text


def test_the_model_may_be_a_member_that_is_no_arm():
    value = summary(Fake())
    assert changed(value, model={"folder": "generation-2/member-1"}).model.name == "generation 2, member-1"
