"""The page as a whole: what it says for every kind of run, and that it survives whatever is missing."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from checks import check
from fake_run import fake_run

from semiseg.errors import Refusal
from semiseg.report import write_report
from semiseg.report.pictures import png_bytes


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("finished") / "run", samples=2, side=32)


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def page(run):
    path = write_report(run)
    assert path == run / "report.html"
    return check(path.read_text(encoding="utf-8"))


def edit(run, **changes):
    file = run / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_every_kind_says_everything(tmp_path, kind):
    tree = page(fake_run(tmp_path / "run", kind=kind, samples=3, side=48))
    text = tree.text
    assert "Unlabeled images helped: +0.031 mIoU on val over labels only (0.742 → 0.773)." in text
    titles = ["Pictures", "Scores on val", "Generations", "Training", "Label these next", "What was used",
              "How long it took", "Warnings", "Test", "Type this next", "Where the committee disagrees"]  # fmt: skip
    assert [t for t in titles if t not in text] == []
    told = ["labels only", "average of 2 at prediction", "im, generation 2", "+0.017", "unet1x1", "171 561 parameters",
            "semiseg train my_data --method im --steps 2000", "387 200", "Models trained 17", "torch 2.10.0", "no dead cell",
            "semiseg predict run my_new_images --out predictions", "semiseg evaluate run my_data --split test",
            "run/label_next.csv", "plate_03/well_B01", "16 min", "committee of generation 0"]  # fmt: skip
    assert [t for t in told if t not in text.replace("\N{NARROW NO-BREAK SPACE}", " ")] == []
    samples = [a for a in tree.named("img") if "thumb" not in a.get("class", "")]
    assert len(samples) == 3 * 5 - 1  # one of three samples has no truth
    assert len([a for a in tree.named("img") if "thumb" in a.get("class", "")]) == 2
    assert len(tree.named("svg")) == 3
    order = [a["id"] for tag, a, _ in tree.tags if tag == "section"]
    assert order == ["pictures", "scores", "curves", "classes", "label-next", "inconsistency",
                     "used", "time", "warnings", "test", "next"]  # fmt: skip


def test_names_of_users_are_only_text(tmp_path):
    evil = ["<b>\"x'&\n", "</title><script>alert(1)</script>", 'javascript:"onload=x', "../../x\u202e\ud800"]
    run = fake_run(
        tmp_path / "run <i>",
        kind="multilabel",
        names=evil,
        image_name='<img src=x onerror="1">{}',
        warnings=("<u>w</u>",),
    )
    tree = page(run)
    tags = {tag for tag, _, _ in tree.tags}
    assert not tags & {"script", "b\"x'&", "u"}
    assert all(image["src"].startswith("data:image/") for image in tree.named("img"))
    assert "onerror" not in {k for _, attrs, _ in tree.tags for k in attrs}
    assert '<img src=x onerror="1">0' in tree.text and "<u>w</u>" in tree.text
    assert "\N{REPLACEMENT CHARACTER}" in tree.text  # the line feed and the lone surrogate are visible, not obeyed
    assert "semiseg predict 'run <i>' my_new_images" in tree.text


def test_supervised_run_without_val_or_truth(tmp_path):
    tree = page(fake_run(tmp_path / "run", program=None, val=False, truth=False, samples=1, warnings=()))
    assert "No val set, so no score" in tree.text
    assert len(tree.named("img")) == 2 and len(tree.named("svg")) == 1
    assert "None." in tree.text  # warnings
    for absent in ("Label these next", "inconsistent", "Δ", "Scores on val"):
        assert absent not in tree.text


def test_150_classes_with_very_long_names(tmp_path):
    names = ["background", *(f"class {i} " + "very_long_" * 30 for i in range(1, 150))]
    tree = page(
        fake_run(tmp_path / "run", kind="multiclass", names=names, samples=1, side=48, image_name="n" * 200 + "{}")
    )
    rows = [a for tag, a, parents in tree.tags if tag == "th" and a.get("scope") == "row"]
    assert len(rows) == 150 + 4 + 3 + 1 + 150  # classes, arms, generations, mask quality, classes kept
    assert "absent" in tree.text and "1 class absent from val" in tree.text
    assert any("tall" in a.get("class", "") for a in tree.named("div"))
    assert "and 138 classes with less" in tree.text


@pytest.mark.parametrize("name", ["run.json", "label_next.csv", "samples", "generation-0", "generation-1"])
def test_any_part_may_be_missing(run, name):
    part = run / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert "Unlabeled images helped" in page(run).text


@pytest.mark.parametrize("name", ["run.json", "label_next.csv", "samples/samples.json", "evaluation-test.json",
                                  "generation-0/member-0/metrics.csv"])  # fmt: skip
def test_a_damaged_part_is_named(run, name):
    (run / name).write_bytes(b"\xff\xfe{[" + bytes(range(256)))
    assert f"{name.rpartition('/')[2]} could not be read" in page(run).text


def test_a_damaged_picture_is_left_out(run):
    (run / "samples" / "00-model.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert "Model: none" in page(run).text


def test_noisy_pictures_stop_at_the_budget(run):
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    (run / "samples" / "noise.png").write_bytes(png_bytes(noise))
    files = dict.fromkeys(("image", "truth", "baseline", "model", "inconsistency"), "noise.png")
    entries = [{"name": f"n{i}", "split": "val", "share": 0.1, **files} for i in range(24)]
    (run / "samples" / "samples.json").write_text(json.dumps(entries))
    tree = page(run)  # below 5 MB
    assert 5 <= len(tree.named("img")) < 24 * 5
    assert "more samples in the folder samples/" in tree.text


def test_pictures_come_from_the_run_only(run, tmp_path):
    shutil.copy(run / "samples" / "00-image.png", tmp_path / "secret.png")
    entry = json.loads((run / "samples" / "samples.json").read_text())[0] | {"image": "../../secret.png"}
    (run / "samples" / "samples.json").write_text(json.dumps([entry]))
    assert not any(a["alt"].startswith("Image of") for a in page(run).named("img"))


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_without_summary_it_refuses(tmp_path, content):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    said = r"is no run: it has no run\.json.*Fix: give the" if content is None else r"summary\.json is damaged.*Fix: "
    with pytest.raises(Refusal, match=said) as refusal:
        write_report(tmp_path)
    assert refusal.value.exit == 4
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_goes_on_is_told_how(tmp_path):
    (tmp_path / "run.json").write_text('{"config": {"data": "my_images"}}')
    with pytest.raises(Refusal, match=r"S07: .*Fix: finish it: semiseg train my_images --out .* --resume"):
        write_report(tmp_path)


def test_an_almost_empty_summary_is_enough(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    assert "No val set, so no score" in page(tmp_path).text


def test_wrong_types_in_the_summary_do_not_stop_it(run):
    edit(run, counts=None, seconds=[], generations=[None, {"members": 3}], model=None, steps="many", seed=None)
    page(run)


@pytest.mark.parametrize("wrong", [None, 3, "text", [], {}, [None], [[]], [{}], {"val": []}, float("nan")])
@pytest.mark.parametrize("file", ["summary.json", "run.json", "samples/samples.json", "evaluation-test.json"])
def test_no_wrong_value_stops_it(run, file, wrong):
    """Every key of every file, one after the other."""
    (run / "evaluation-test.json").write_text(json.dumps({"images": 60, "metrics": {"miou": 0.7654}}))
    whole = json.loads((run / file).read_text())
    first = whole[0] if isinstance(whole, list) else whole
    for key in list(first):
        changed = first | {key: wrong}
        (run / file).write_text(json.dumps([changed] if isinstance(whole, list) else changed))
        page(run)


def test_scores_on_test_are_named_so(run):
    found = {"miou": 0.7654, "dice": 0.86, "iou_per_image": 0.75, "per_class": {"a": {"iou": 0.5}, "b": {"iou": None}}}
    (run / "evaluation-test.json").write_text(json.dumps({"images": 60, "metrics": found}))
    (run / "evaluation-test-ensemble.json").write_text(json.dumps({"images": 60, "metrics": {"miou": 0.8}}))
    text = page(run).text
    assert "mIoU on test 0.765" in text and "These are scores on 60 images of test" in text
    assert "average of the committee 0.800" in text and "b absent absent" in text
    assert "--split test" not in text


def test_a_score_on_test_of_another_model_is_not_shown(run):
    """Labels only may have become what the run ships since it was evaluated."""
    weights = "the weights"
    edit(run, hash=weights)
    for hashed, shown in ((weights, True), ("of another model", False)):
        model = hashlib.sha256(hashed.encode()).hexdigest()
        (run / "evaluation-test.json").write_text(
            json.dumps({"images": 60, "metrics": {"miou": 0.7654}, "model": model})
        )
        assert ("0.765" in page(run).text) == shown


def test_a_run_that_moved_is_called_by_its_present_name(run):
    record = json.loads((run / "run.json").read_text())
    for out, said in (("results/run", "semiseg predict results/run my"), ("results/old", "semiseg predict run my")):
        record["config"]["out"] = out
        (run / "run.json").write_text(json.dumps(record))
        assert said in page(run).text


def test_a_single_model_has_doubt_and_no_committee(run):
    (run / "label_next.csv").write_text("rank,image,path,score,inconsistent_share\n1,a,u/a.png,0.412,\n")
    text = page(run).text
    assert "The model is least sure" in text and "doubt 0.412" in text


def test_no_test_set_no_command_for_it(run):
    edit(run, counts={"labeled": 4, "unlabeled": 9, "val": 24, "test": 0})
    text = page(run).text
    assert "There is no test set." in text and "--split test" not in text


def test_writing_twice_gives_the_same_bytes(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_it_needs_no_torch(run):
    code = (
        "import sys, pathlib; sys.modules['torch'] = None; from semiseg.report import write_report; "
        "write_report(pathlib.Path(sys.argv[1])); import semiseg.report.pictures"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_mask_is_worth(run):
    text = page(run).text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")
    worth = text[text.index("Does disagreement find the errors?") :]
    found = [
        worth.index(value) for value in ("val", "8.1 %", "37.0 %", "42.0 %", "What is left to learn from", "80.0 %")
    ]
    assert found == sorted(found)
    edit(run, generations=[{"generation": 0, "inconsistent_share": 0.1}])
    assert "Does disagreement" not in page(run).text and "left to learn" not in page(run).text


def test_a_difference_that_few_images_say_has_no_colour(run):
    """Of the tile at the top, as of the sentence above it."""
    tile = re.compile(r'Δ to labels only.*?<span class="(\w+)">', re.S)
    for images, kind in ((40, "up"), (2, "same")):
        edit(run, scored={"on": "val", "images": images})
        text = write_report(run).read_text(encoding="utf-8")
        assert tile.search(text)[1] == kind
