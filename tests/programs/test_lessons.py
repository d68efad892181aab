"""What students draw: pools, gates, discs, growing networks, noise; and that nobody else's training changes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import tiny
from semiseg.batch import IGNORE, Clock
from semiseg.data.discs import position_discs
from semiseg.data.sampler import Drawing
from semiseg.errors import Refusal
from semiseg.inconsistency import InconsistencyMask
from semiseg.networks.base import parameters_count
from semiseg.programs._growing import grown, noise
from semiseg.programs._lessons import pooled, rows_of, school
from semiseg.programs._recipes import PAPER
from semiseg.programs._tasks import ExtraClass, Weighted
from semiseg.programs.consensus import Rule, Stored, consensus, load
from semiseg.programs.im import IM
from semiseg.programs.im_plus import IMPlus
from semiseg.programs.noisy_student import NoisyStudent
from semiseg.programs.train import configure
from semiseg.task import make_task
from semiseg.training.optimizer import make_optimizer


def planes_of(data, label, agree=1, labels=1):
    """Planes of one value; label None = random ones."""
    pixels = len(data.unlabeled.pixels)
    g = torch.Generator().manual_seed(5)
    made = torch.randint(2, (pixels, labels), generator=g) if label is None else torch.full((pixels, labels), label)
    return made.to(torch.uint8), torch.full((pixels, 1), agree, dtype=torch.uint8)


def stored_of(data, planes):
    return Stored(planes, 0.0, {}, [{"image": n, "inconsistent_share": 0.0} for n in data.unlabeled.names])


def feeds(session, **options):
    return session.data.feed((0, 0), unlabeled=True, **options)


def test_the_school_changes_what_students_draw_and_nothing_else(prepared, tmp_path):
    data = prepared("binary")
    session = tiny.session(tmp_path, data)
    taught = school(session, Drawing(torch.tensor([2, 0, 1, 0, 0])))
    assert taught.members is session.members and taught.generations is session.generations
    with_planes = feeds(taught, planes=planes_of(data, 1))
    assert {n for s in range(6) for n in with_planes.names(s)[2:]} == {data.unlabeled.names[i] for i in (0, 2)}
    without, ever = feeds(taught, planes=None), feeds(session, planes=None)
    assert [without.names(s) for s in range(4)] == [ever.names(s) for s in range(4)]
    again = school(replace(taught, data=taught.data.with_network("unet1x1:1")), Drawing())
    assert again.data.drawing == Drawing() and again.data.config.network == "unet1x1:1"


def test_a_pool_holds_both_kinds_by_their_numbers(prepared, tmp_path):
    """6 labeled, 5 unlabeled of which some come several times: batches of 16, weight = others / labeled."""
    data = prepared("binary")
    session = tiny.session(tmp_path, data, batch=16, unlabeled_batch=16, method_args={"weight": 2.0})
    for number, clean, others in (
        ([1, 1, 1, 1, 1], False, 5),
        ([5, 0, 5, 5, 5], False, 20),
        ([5, 0, 5, 5, 5], True, 24),
    ):
        made = pooled(session, Drawing(torch.tensor(number), clean)).data.config
        labeled = round(16 * 6 / (6 + others))
        assert (made.batch, made.unlabeled_batch) == (labeled, 16 - labeled)
        assert made.method_args == {"weight": pytest.approx(2 * others / 6)}
    assert pooled(session, Drawing()).data.config.batch == round(16 * 6 / 11)
    feed = feeds(pooled(session, Drawing()), planes=planes_of(data, 1))
    assert feed.first_batch_hash() == feeds(session, planes=planes_of(data, 1)).first_batch_hash()
    other = tiny.session(tmp_path, data, method="fixmatch")
    assert pooled(other, Drawing()).data.config == other.data.config


def test_every_image_of_a_pool_counts_as_much(prepared, tmp_path):
    """The gradient of the pooled loss is the mean over all images of the batch, labeled or not."""
    data = prepared("binary")
    data = replace(data, task=tiny.task_of("binary", "mse"))
    session = tiny.session(tmp_path, data, batch=16)
    made = pooled(session, Drawing(torch.tensor([6, 6, 6, 0, 0])))  # 6 and 18 images: 4 and 12 of a batch
    method = made.data.method()
    method.refine = InconsistencyMask(background=True)
    method.student = tiny.Pixelwise(1, 1)
    labeled, unlabeled = tiny.labeled("binary", 4), tiny.unlabeled("binary", 12, planes=tiny.planes("binary", 12))
    loss = method.step(labeled, unlabeled, Clock(0, 8))["loss"]
    view = unlabeled.strong[0]
    truth = torch.cat([labeled.mask, unlabeled.planes.label.masked_fill(unlabeled.planes.label == IGNORE, 0)]).float()
    want = (method.student(torch.cat([labeled.image, view])).sigmoid() - truth).square().mean()
    assert loss.item() == pytest.approx(want.item(), abs=1e-6)


def test_the_gate_of_preset_paper_is_for_binary_sets(prepared, tmp_path):
    for kind, gate, gated in (("binary", "", True), ("multiclass", "", False), ("multiclass", "foreground", True)):
        data = prepared(kind)
        label, agree = planes_of(data, 0)
        first = int(data.unlabeled.offset[1])
        label[:first] = 1  # image 0 is all foreground
        made = IM(preset="paper", gate=gate).drawing(tiny.session(tmp_path, data), 1, stored_of(data, (label, agree)))
        assert (made.multiplicity is not None) == gated
        if gated:
            assert made.multiplicity.tolist() == [1, 0, 0, 0, 0]
    session = tiny.session(tmp_path, data)
    none = IM(gate="foreground").drawing(session, 2, stored_of(data, planes_of(data, 0)))
    assert none == Drawing() and "left open" in session.warnings[0] and "generation 2" in session.warnings[0]
    assert IM().drawing(session, 1, stored_of(data, planes_of(data, 0))) == Drawing()


def test_the_extra_class_is_the_students_alone(prepared, tmp_path):
    data = prepared("multiclass")
    session = tiny.session(tmp_path, data)
    made, _ = IM(label="extra").lessons(session, 1, stored_of(data, planes_of(data, 1)))
    assert isinstance(made.data.task, ExtraClass) and not isinstance(session.data.task, ExtraClass)
    assert made.data.task.channels == 3
    assert not isinstance(IM().lessons(session, 1, stored_of(data, planes_of(data, 1)))[0].data.task, ExtraClass)


@pytest.mark.parametrize("reduce", ["union", "channel"])
def test_discs_replace_the_position_label_before_blocking(prepared, tmp_path, reduce):
    data = prepared("multilabel")
    session = tiny.session(tmp_path, data)
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(data.make().eval())
    im = IM(discs="dead", reduce=reduce)
    assert im.rule().reduce == "channel"
    stored = consensus(session, networks, f"c-{reduce}", im.rule())
    _, (label, agree) = im.lessons(session, 1, stored)
    assert agree.shape[1] == (1 if reduce == "union" else 2)
    for i in range(len(data.unlabeled)):
        before, after = rows_of(session, stored.planes[0], i), rows_of(session, label, i)
        trusted = rows_of(session, stored.planes[1], i) == 1
        seen = trusted.all(0) if reduce == "union" else trusted
        want = torch.stack([before[0], position_discs(before[1] == 1).to(torch.uint8)])
        assert torch.equal(after, want.masked_fill(~seen, IGNORE))
        assert torch.equal(
            rows_of(session, agree, i).bool(), trusted.all(0, keepdim=True) if reduce == "union" else trusted
        )
    assert torch.equal(load(tmp_path / f"c-{reduce}").planes[0], stored.planes[0])  # what is stored stays


def test_the_position_weight_is_in_the_fingerprint(prepared, tmp_path, monkeypatch):
    data = prepared("multilabel")
    seen = []
    monkeypatch.setattr("semiseg.programs._generations.Generations.run", lambda self, session: seen.append(session))
    for arguments in ({}, {"preset": "paper"}, {"disc_weight": 1.0}):
        IM(discs="dead", **arguments).run(tiny.session(tmp_path, data))
    plain, paper, same = (s.data for s in seen)
    assert isinstance(paper.task, Weighted) and paper.task.weights == (1.0, 3.0) and paper.task.loss == data.task.loss
    assert plain.task is data.task and same.task is data.task
    shapes = {d.config.shape((0, 0, 0), "supervised", "x") for d in (plain, paper, same)}
    assert len(shapes) == 2
    with pytest.raises(Refusal, match="Did you mean 'dead'"):
        IM(discs="daed").run(tiny.session(tmp_path, data))
    with pytest.raises(Refusal, match="overlapping"):
        IM(discs="leaf").run(tiny.session(tmp_path, prepared("multiclass")))


def test_students_grow(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("binary"))  # unet1x1:0.25
    assert grown(session, 1, 0.25).data.config.network == "unet1x1:0.25"
    names = [grown(session, g, 0.25).data.config.network for g in (2, 3, 5)]
    assert names == ["unet1x1:0.5", "unet1x1:0.75", "unet1x1:1.25"]
    assert grown(session, 4, 0.0) is session and not session.warnings
    other = tiny.session(tmp_path, prepared("binary"), network="unet/resnet18")
    assert grown(other, 3, 0.25) is other and grown(other, 1, 0.25) is other and len(other.warnings) == 1


def test_noise_grows_and_stops_growing(prepared, tmp_path):
    policies = [noise(g) for g in range(1, 7)]
    for name in ("contrast", "brightness", "noise", "blur"):
        values = [getattr(p, name) for p in policies]
        assert values == sorted(values) and values[0] < values[4] == values[5]
    assert [round(p.contrast, 6) for p in policies[:5]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [round(p.brightness * 255) for p in policies[:5]] == [5, 10, 15, 20, 25]
    data = prepared("binary")
    stored, program = stored_of(data, planes_of(data, 1)), NoisyStudent()
    made = program.drawing(tiny.session(tmp_path, data, augment="none"), 2, stored)
    assert made.geometry.flip and made.geometry.scale == (1.0, 1.0) and made.colors == noise(2)
    assert program.drawing(tiny.session(tmp_path, data), 2, stored).geometry is None


@pytest.mark.parametrize(("network", "channels", "classes", "count"), [
    ("unet1x1:0.5", 3, 1, 171_561), ("unet1x1:1.0", 1, 3, 681_683), ("unet1x1:1.0", 3, 9, 681_817),
])  # fmt: skip
def test_parameters_of_the_papers_networks(network, channels, classes, count):
    from semiseg.networks import build

    assert parameters_count(build(network, channels, classes)) == count


def asked(tmp_path, *sets, method="im", **options):
    return configure({"data": str(tmp_path), "method": method, **options}, list(sets), None, {})


def test_the_papers_optimiser(prepared, tmp_path):
    """The preset alone: a step with zero gradient scales every parameter, biases and norms included, by 1 - 1e-4."""
    config = asked(tmp_path, "im.preset=paper")
    assert (config.schedule, config.lr_warmup, config.clip, config.average) == ("constant", 0, 0, 0)
    method = tiny.session(tmp_path, prepared("binary")).data.method()
    with torch.no_grad():
        for p in method.parameters():
            p.add_(0.5)
    before = [p.detach().clone() for p in method.parameters()]
    optimizer = make_optimizer(method, config)
    for p in method.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for p, old in zip(method.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old * (1 - 1e-4), rtol=1e-6, atol=1e-8)


def test_adam_as_in_keras(tmp_path):
    """By hand, one parameter, gradient g = 1e-7: m / (root of v + eps) = 1e-7 / (1e-7 + 1e-7), so half a step of 3e-3."""
    one = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    method = SimpleNamespace(groups=lambda: [{"params": [one]}])
    optimizer = make_optimizer(method, asked(tmp_path, "im.preset=paper"))
    one.grad = torch.full_like(one, 1e-7)
    optimizer.step()
    assert one.item() == pytest.approx(-3e-3 / 2, rel=1e-6)


def test_the_preset_yields_to_what_is_typed_and_to_nothing_else(tmp_path):
    plain, paper = asked(tmp_path), asked(tmp_path, "im.preset=paper", "clip=1", lr=0.01, augment="default")
    assert (paper.clip, paper.lr, paper.augment, paper.eps) == (1, 0.01, "default", 1e-7)
    changed = {k for k, v in plain.to_json().items() if paper.to_json()[k] != v}
    assert changed == {"loss", "lr", "weight_decay", "eps", "schedule", "lr_warmup", "program_args", "method_args"}
    assert paper.method_args["weight"] == 1.0  # its students start afresh, and take the consensus at full weight
    again = configure({"data": str(tmp_path), "method": "im"}, ["im.preset=paper"], None, paper.to_json())
    assert again == paper  # resumed: what was typed the first time stays
    assert asked(tmp_path, "aim_plus.preset=paper", method="aim_plus").augment == "default"
    assert asked(tmp_path, "ensemble.preset=paper", method="ensemble").loss == "paper"


@pytest.mark.parametrize(("kind", "loss"), [("binary", "mse"), ("multilabel", "mse"), ("multiclass", "ce")])
def test_the_papers_loss(kind, loss):
    assert make_task(kind, tiny.NAMES[kind], "paper").loss == loss


def test_preset_paper_says_where_it_is_not_the_papers(prepared, tmp_path):
    for kind, loss in (("binary", "mse"), ("multiclass", "ce")):
        data = prepared(kind)
        said = IM(preset="paper").deviations(tiny.session(tmp_path, data))
        assert len(said) == 1 and "loss=ce+dice (there paper)" in said[0] and "augment=default (there none)" in said[0]
        for typed in ("paper", loss):
            session = tiny.session(tmp_path, replace(data, task=tiny.task_of(kind, loss)), **{**PAPER, "loss": typed})
            assert not IM(preset="paper").deviations(session)
        assert not IM().deviations(tiny.session(tmp_path, data))


def test_arguments_that_could_do_nothing_say_so(prepared, tmp_path):
    session = tiny.session(tmp_path, prepared("multiclass"), method="fixmatch")
    assert "for overlapping labels" in IM(reduce="channel").deviations(session)[0]
    assert "for supervised students" in IM(draw="pool").deviations(session)[0]
    assert not IM(reduce="channel").deviations(tiny.session(tmp_path, prepared("multilabel")))
    with pytest.raises(Refusal, match="share is about the committee's label"):
        IM(route="online", share=0.5)
    assert IMPlus(networks="unet1x1:0.25,unet1x1:0.5").grow == 0 and IMPlus().grow == 0.25


def test_a_rule_is_what_it_was():
    assert IM(reduce="channel").rule() == Rule(reduce="channel") and IM().rule() == Rule()
