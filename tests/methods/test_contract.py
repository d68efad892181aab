"""What every method promises, on every kind of task. A method added to METHODS is tested here without a new line."""

import copy
import textwrap
from pathlib import Path

import pytest
import torch

import tiny
from semiseg.batch import IGNORE, Clock, Planes
from semiseg.inconsistency import InconsistencyMask
from semiseg.methods import METHODS, arguments, method_class
from semiseg.storage import hash_tensors

SUPERVISED_TERM = "sup"
LOGGED = {"kept", "confident", "easiness", "trusted", "covered"}  # shares, no losses; whatever else is logged is a term
PARTS = {"u2pl": {"contrast"}, "segkc": {"feature"}, "supmix": {"pasted"}, "sufd": {"discriminator"}}  # of other terms


EXAMPLE = "the example of CONTRIBUTING.md"


@pytest.fixture(params=[*METHODS, EXAMPLE])
def name(request, tmp_path_factory):
    if request.param != EXAMPLE:
        return request.param
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    file = tmp_path_factory.mktemp("example") / "mymethod.py"
    file.write_text(textwrap.dedent(page.partition("```python\n")[2].partition("   ```")[0]))
    return f"{file}:MyMethod"


def build(name, kind, *, pixelwise=False, refine=None, seed=0, **changes):
    task = tiny.task_of(kind)
    torch.manual_seed(seed)
    pixels = lambda role="student", **options: tiny.Pixelwise(1, task.channels)  # noqa: E731
    cls = method_class(name)
    method = cls(pixels if pixelwise else tiny.make_of(task), task, **{**tiny.easy(cls), **changes})
    if refine is not None:
        method.refine = refine
    return method.train()


def images(name, kind, planes=None, size=16, seed=100):
    """The unlabeled batch that the loop would give: none for a method that needs a consensus and has none."""
    cls = method_class(name)
    if planes is None and not cls.uses_unlabeled:
        return None
    return tiny.unlabeled(kind, size=size, seed=seed, views=len(cls.views), planes=planes)


def taught(name, kind, **options):
    """A method with a consensus attached, and the images that carry it."""
    planes = tiny.planes(kind)
    return build(name, kind, refine=InconsistencyMask(), **options), images(name, kind, planes)


def train(method, labeled, unlabeled, steps=2, lr=1e-2):
    """Steps of the loop on one batch; the losses of each."""
    optimizer = torch.optim.AdamW([p for g in method.groups() for p in g["params"]], lr=lr)
    rows = []
    for step in range(steps):
        clock = Clock(step, steps, (7,))
        losses = method.step(labeled, unlabeled, clock)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        method.after_step(clock)
        rows.append({k: float(v.detach()) for k, v in losses.items()})
    return rows


def weights(method):
    return hash_tensors(dict(method.student.named_parameters()))


def terms(name, losses):
    """Names of the losses, whether or not they have a gradient: one that was detached by accident is among them."""
    return [k for k in losses if k != "loss" and k not in LOGGED | PARTS.get(name, set())]


def unsupervised(name, losses):
    """Names of the terms that come from unlabeled images."""
    return [k for k in terms(name, losses) if k != SUPERVISED_TERM]


def gradient(loss, method):
    """Of the student's parameters, in one row."""
    params = list(method.student.parameters())
    found = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    return torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, params, strict=True)])


def check_step(method, labeled, unlabeled):
    losses = method.step(labeled, unlabeled, Clock(3, 10))
    assert all(v.ndim == 0 and torch.isfinite(v) for v in losses.values()) and SUPERVISED_TERM in losses
    losses["loss"].backward()
    for key, p in method.named_parameters():
        trained = not key.startswith("teacher.")
        assert (p.grad is not None and torch.isfinite(p.grad).all()) if trained else p.grad is None, key
        assert p.requires_grad == trained
    groups = [id(p) for g in method.groups() for p in g["params"]]
    assert sorted(groups) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert {id(p) for p in method.student.parameters()} <= set(groups)


def test_finite_scalars_and_gradients_of_the_student_only(name, kind):
    for method, unlabeled in ((build(name, kind), images(name, kind)), taught(name, kind)):
        check_step(method, tiny.labeled(kind), unlabeled)


def test_a_unet_with_an_encoder_of_its_own(name):
    """Levels, strides and groups of an smp network, on one kind of task."""
    cls, task = method_class(name), tiny.task_of("multiclass")
    torch.manual_seed(0)
    method = cls(tiny.make_of(task, network="unet/mobilenetv3_small_100"), task, **tiny.easy(cls)).train()
    method.refine = InconsistencyMask()
    planes = tiny.planes("multiclass", size=24)  # less than the stride, and padded to it
    check_step(method, tiny.labeled("multiclass", size=24), images(name, "multiclass", planes, size=24))
    assert {g["name"] for g in method.groups()} >= {"encoder", "head"}
    assert next(method.student.backbone().parameters()).grad.any()
    assert method.predictor().eval()(tiny.labeled("multiclass", size=24).image).shape == (2, 3, 24, 24)


def test_the_loss_falls(name, kind):
    rows = train(build(name, kind), tiny.labeled(kind), images(name, kind), 16)
    assert rows[-1][SUPERVISED_TERM] < 0.75 * rows[0][SUPERVISED_TERM]


def test_every_term_reaches_the_student(name, kind):
    """Each of them alone, and all of them through the loss, each with a weight above 0."""
    method, unlabeled = taught(name, kind)
    train(method, tiny.labeled(kind), unlabeled, 1)  # a teacher equal to its student has nothing to say
    losses = method.step(tiny.labeled(kind), unlabeled, Clock(3, 10))
    assert {k for k, v in losses.items() if v.requires_grad} == {"loss", *terms(name, losses)}
    found = {term: gradient(losses[term], method).double() for term in terms(name, losses)}
    assert len(found) >= 2 and all(g.abs().max() > 0 for g in found.values()), found
    total, each = gradient(losses["loss"], method).double(), torch.stack(list(found.values()), 1)
    weight = torch.linalg.lstsq(each, total[:, None]).solution
    rest = (total - (each @ weight)[:, 0]).norm() / total.norm()
    if name in ("u2pl", "supmix"):
        assert rest > 1e-3  # labeled anchors, pasted masks: in no term, but logged as PARTS
    else:
        assert rest < 1e-4 and (weight > 1e-4).all(), (rest, dict(zip(found, weight, strict=True)))


@pytest.mark.parametrize(("method", "part", "on", "off"), [
    ("u2pl", "contrast", {"contrast": 1.0}, {"contrast": 0.0}),
    ("segkc", "feature", {"feature": 1.0, "prediction": 0.0}, {"feature": 0.0, "prediction": 0.0}),
    ("segkc", "consult", {"feature": 0.0, "prediction": 1.0}, {"feature": 0.0, "prediction": 0.0}),
    ("supmix", "pasted", {"threshold": 1.01}, {"threshold": 1.01, "weight": 0.0}),
    ("supmix", "adversarial", {"discriminator": 1.0}, {"discriminator": 1e-9}),
])  # fmt: skip
def test_every_part_of_a_term_reaches_the_student(method, part, on, off, kind):
    """What is logged without a gradient has one in the loss: that of the loss with it is not that without it."""
    found = []
    for changes in (on, off):
        made = build(method, kind, **changes)
        losses = made.step(tiny.labeled(kind), tiny.unlabeled(kind, views=len(made.views)), Clock(3, 10))
        found.append((losses[part], gradient(losses["loss"], made)))
    (value, with_it), (_, without) = found
    assert value > 0 and (with_it - without).abs().max() > 1e-6


def test_nothing_to_learn_from_gives_zero(name, kind):
    """All padding, all disputed, and by the method's own rule all rejected."""
    _, unlabeled = taught(name, kind)
    nowhere = torch.zeros_like(unlabeled.valid)
    nothing = Planes(torch.full_like(unlabeled.planes.label, IGNORE), nowhere)
    cases = [({}, InconsistencyMask(), unlabeled.replace(**gone)) for gone in ({"valid": nowhere}, {"planes": nothing})]
    if "threshold" in arguments(method_class(name)):
        cases.append(({"threshold": 1.01}, None, images(name, kind)))
    for changes, refine, batch in cases:
        method = build(name, kind, refine=refine, **changes)
        losses = method.step(tiny.labeled(kind), batch, Clock(3, 10))
        for term in unsupervised(name, losses):
            if not (changes and term == "consult"):  # segkc: consultation selects no pixels
                assert losses[term].item() == 0 and not gradient(losses[term], method).any(), term
        if changes:
            assert not losses["confident" if name == "cutmix_seg" else "kept"].any()
        losses["loss"].backward()
        assert all(torch.isfinite(p.grad).all() for p in method.student.parameters())


def test_the_weight_of_unlabeled_images_matters(name, kind):
    assert arguments(method_class(name))["weight"] > 0
    seen = set()
    for changes in ({}, {"weight": 0.0}):
        method, unlabeled = taught(name, kind, **changes)
        train(method, tiny.labeled(kind), unlabeled)
        seen.add(weights(method))
    assert len(seen) == 2


def test_unlabeled_pixels_matter(name, kind):
    """For `supervised` only with a consensus: without one it does not even draw them, nor use them when it is given."""
    plain, taught_ = set(), set()
    uses = method_class(name).uses_unlabeled
    for seed in (100, 200):
        assert (images(name, kind) is None) == (not uses)
        method = build(name, kind)
        train(method, tiny.labeled(kind), tiny.unlabeled(kind, seed=seed, views=max(1, len(method_class(name).views))))
        plain.add(weights(method))
        student, known = taught(name, kind)
        train(student, tiny.labeled(kind), images(name, kind, known.planes, seed=seed))
        taught_.add(weights(student))
    if not uses:
        method = build(name, kind)
        train(method, tiny.labeled(kind), None)
        plain.add(weights(method))
    assert len(plain) == (2 if uses else 1) and len(taught_) == 2


def test_attaching_masks_changes_what_is_trained(name, kind):
    seen = []
    for label in ("consensus", "own", "veto", None):
        planes = tiny.planes(kind)
        method = build(name, kind, refine=None if label is None else InconsistencyMask(label=label))
        train(method, tiny.labeled(kind), images(name, kind, planes if label else None))
        seen.append(weights(method))
    wanted = 4 if method_class(name).uses_unlabeled else 2  # `supervised` has no label of its own
    assert len(set(seen)) == wanted


def region_gradient(name, kind, refine):
    """d unsupervised terms / d views where the committee disagrees, and elsewhere; no receptive field."""
    planes = tiny.planes(kind)
    unlabeled = images(name, kind, planes)
    views = tuple(v.detach().clone().requires_grad_() for v in (unlabeled.weak, *unlabeled.strong))
    method = build(name, kind, pixelwise=True, refine=refine)
    if hasattr(method, "teacher"):  # away from the student
        with torch.no_grad():
            method.teacher.network.conv.bias += 0.5
    losses = method.step(tiny.labeled(kind), unlabeled.replace(weak=views[0], strong=views[1:]), Clock(3, 10))
    total = sum(losses[k] for k in unsupervised(name, losses))
    disputed = ~planes.agree
    grads = [g for g in torch.autograd.grad(total, views, allow_unused=True) if g is not None]
    inside, outside = zip(*((g[disputed].abs().max(), g[~disputed].abs().mean()) for g in grads), strict=True)
    return float(max(inside)), float(max(outside))


def test_half_precision_reaches_all_that_full_precision_trains(name):
    """A cast that a pass without gradient made must not serve the pass with one."""
    reached = []
    for half in (False, True):
        method, unlabeled = taught(name, "multiclass") if name == "supervised" else (build(name, "multiclass"), None)
        unlabeled = images(name, "multiclass") if unlabeled is None else unlabeled
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = method.step(tiny.labeled("multiclass"), unlabeled, Clock(3, 10))["loss"]
        loss.backward()
        reached.append({n for n, p in method.named_parameters() if p.grad is not None})
    assert reached[0] and reached[1] == reached[0]


SWITCHES = [{"label": "consensus"}, {"label": "own"}, {"label": "veto"}, {"fill": "zero"}, {"fill": "noise"}]


@pytest.mark.parametrize("options", SWITCHES)
def test_disputed_pixels_teach_nothing(name, kind, options):
    inside, outside = region_gradient(name, kind, InconsistencyMask(**options))
    assert inside == 0 and outside > 0


def test_they_do_without_a_mask():
    """The test above can fail."""
    for name in ("fixmatch", "mean_teacher"):
        assert region_gradient(name, "multiclass", None)[0] > 0
    assert region_gradient("supervised", "multiclass", InconsistencyMask(background=True))[0] > 0


def test_overlapping_labels_survive(name):
    """A consensus of two labels at every pixel pushes both channels up: after refining, mixing and the loss."""
    unlabeled = images(name, "multilabel", tiny.planes("multilabel"))
    both = Planes(torch.ones_like(unlabeled.planes.label), torch.ones_like(unlabeled.planes.agree))
    method = build(name, "multilabel", pixelwise=True, refine=InconsistencyMask())
    losses = method.step(tiny.labeled("multilabel"), unlabeled.replace(planes=both), Clock(3, 10))
    term = sum(losses[k] for k in unsupervised(name, losses))
    (grad,) = torch.autograd.grad(term, [method.student.conv.bias])
    assert (grad < 0).all()


def test_equal_seeds_equal_weights(name, kind):
    seen = set()
    for _ in range(2):
        method, unlabeled = taught(name, kind)
        train(method, tiny.labeled(kind), unlabeled, 3)
        seen.add(hash_tensors(method.state_dict()))
    assert len(seen) == 1
    assert hash_tensors(build(name, kind, seed=1).state_dict()) not in seen


def test_a_method_is_its_state_dict(name, kind):
    """Restored into differently initialised networks, training goes on as if nothing had happened."""
    method, unlabeled = taught(name, kind)
    train(method, tiny.labeled(kind), unlabeled, 2)
    other = build(name, kind, seed=9, refine=InconsistencyMask())
    other.load_state_dict(copy.deepcopy(method.state_dict()), strict=True)
    rows = [train(m, tiny.labeled(kind), unlabeled, 2) for m in (method, other)]
    assert rows[0] == rows[1] and hash_tensors(method.state_dict()) == hash_tensors(other.state_dict())


def test_the_predictor_gives_logits_and_does_not_move(name, kind):
    method = build(name, kind)
    predictor = method.predictor().eval()
    x = tiny.labeled(kind).image
    assert predictor(x).shape == (2, method.task.channels, 16, 16)
    before = hash_tensors(predictor.state_dict())
    method.step(tiny.labeled(kind), images(name, kind), Clock(0, 10))
    if hasattr(method, "teacher"):
        method.train()
        assert not method.teacher.network.training and hash_tensors(method.teacher.network.state_dict()) == before
    assert method.images_per_step(4, 6) >= 4
