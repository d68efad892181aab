"""What every program promises of the students it teaches. A program added to PROGRAMS is tested here without a new line.

Networks see one pixel at a time, so that nothing leaks from a pixel to the next; every generation is promoted, so that
the model that is shipped is a student.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

import tiny
from semiseg.methods import arguments, method_class
from semiseg.programs import PROGRAMS, _generations, program_class
from semiseg.programs.im import IM
from semiseg.programs.session import Session
from semiseg.training import prepare

TAUGHT = [name for name in PROGRAMS if issubclass(program_class(name), _generations.Generations)]
MASKED = [name for name in TAUGHT if issubclass(program_class(name), IM)]
BRIGHT, DARK = 200, 50


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "build", lambda name, channels, classes, **_: tiny.Pixelwise(channels, classes))
        patch.setattr(_generations, "judge", lambda *_: (True, "better"))
        yield


@pytest.fixture(scope="module")
def plain(prepared, tmp_path_factory):
    """name -> the shipped model and the hashes of generation 0, run once."""
    made = {}

    def get(name):
        if name not in made:
            model, session = run(name, tmp_path_factory.mktemp(name), prepared("multiclass"))
            made[name] = model, first(session)
        return made[name]

    return get


def run(name, folder, data, given=(), **config):
    """Two members at most and one generation of three steps: the shipped model, and the session."""
    cls = program_class(name)
    few = {k: v for k, v in {"members": 2, **tiny.ONE}.items() if k in arguments(cls)}
    few |= {"threshold": 1.0} if name == "evalnet" else {}  # one image; an untrained judge would keep all as they are
    config = {"steps": 3, "eval_every": 3, "program": name, "baseline": False, **config}
    session = tiny.session(folder, data, **config)
    return cls(**few, **dict(given)).run(session).model, session


def first(session):
    return [m.result["hash"] for m in session.members if m.generation == 0]


def negative(data):
    """The same data with the opposite of every unlabeled pixel."""
    return replace(data, unlabeled=replace(data.unlabeled, pixels=255 - data.unlabeled.pixels))


@pytest.mark.parametrize("name", TAUGHT)
def test_the_shipped_student_depends_on_unlabeled_images(name, plain, prepared, tmp_path):
    """On their pixels, and on the weight of their term; generation 0 of `supervised` on neither."""
    data, (model, start) = prepared("multiclass"), plain(name)
    assert model.generation == 1
    for folder, others, config in (("pixels", negative(data), {}), ("weight", data, {"method_args": {"weight": 0.0}})):
        other, session = run(name, tmp_path / folder, others, **config)
        assert other.result["hash"] != model.result["hash"] and first(session) == start, folder


def test_without_students_they_do_not_matter(prepared, tmp_path):
    """`supervised`, alone or as a committee; they do for a method that learns from them itself."""
    data = prepared("multiclass")
    for name in ("", "committee"):
        for method in ("supervised", "fixmatch"):
            config = {"method": method, "method_args": tiny.easy(method_class(method))}
            found = {
                run(name, tmp_path / f"{name}{method}{i}", d, **config)[0].result["hash"]
                for i, d in enumerate((data, negative(data)))
            }
            assert len(found) == (1 if method == "supervised" else 2), (name, method)


def test_what_is_trained_depends_on_the_program(plain, prepared, tmp_path):
    """On what it teaches alone: initialisation and streams are those of the member's key, and a second run is the same."""
    data = prepared("multiclass")
    assert len({plain(name)[1][0] for name in TAUGHT}) == 1
    assert run("im", tmp_path / "again", data)[0].result["hash"] == plain("im")[0].result["hash"]
    found = {name: plain(name)[0].result["hash"] for name in TAUGHT}
    assert found.pop("input_ensemble") == found["self_training"]  # one pixel looks the same turned and mirrored
    assert len(set(found.values())) == len(found), found


def test_what_is_trained_depends_on_the_route(prepared, tmp_path):
    programs = [("ensemble", {}), *(("im", {"route": route}) for route in ("offline", "online", "both"))]
    config = {"method": "fixmatch", "method_args": {"threshold": 0.0}}
    seen = [run(n, tmp_path / str(i), prepared("multiclass"), g, **config) for i, (n, g) in enumerate(programs)]
    assert len({model.result["hash"] for model, _ in seen}) == len(programs)
    assert len({first(session)[0] for _, session in seen}) == 1


class Opinion(nn.Module):
    """A planted member: everything is of the first class; the second of two members says the opposite of what is bright."""

    def __init__(self, index, classes):
        super().__init__()
        self.index, self.classes = index, classes

    def forward(self, x):
        bright = x[:, :1] > (BRIGHT + DARK) / 2 / 255
        logits = torch.full((len(x), self.classes, *x.shape[-2:]), -1.0)
        logits[:, :1] = torch.where(bright, 1.0 - 3 * self.index, 1.0)
        return logits


def planted(data):
    """Unlabeled images, bright above and dark below."""
    store, pixels = data.unlabeled, torch.full_like(data.unlabeled.pixels, DARK)
    for start, h, w in zip(store.offset.tolist(), store.height.tolist(), store.width.tolist(), strict=True):
        pixels[start : start + h // 2 * w] = BRIGHT
    return replace(data, unlabeled=replace(store, pixels=pixels))


def watch(monkeypatch, method):
    """Of each student's step: the greatest gradient at a bright and at a dark pixel, and of each term by the weights."""
    seen, original = [], method_class(method).step

    def step(self, labeled, unlabeled, clock):
        if unlabeled is None or unlabeled.planes is None:
            return original(self, labeled, unlabeled, clock)
        weak, *strong = views = [v.clone().requires_grad_() for v in (unlabeled.weak, *unlabeled.strong)]
        losses = original(self, labeled, unlabeled.replace(weak=weak, strong=tuple(strong)), clock)
        grads = torch.autograd.grad(losses["loss"], views, retain_graph=True, allow_unused=True)
        size = sum(g.abs() for g in grads if g is not None)
        pure = [(unlabeled.weak - level / 255).abs() < 0.01 for level in (BRIGHT, DARK)]  # not mixed by a warp
        assert all((p & unlabeled.valid).any() for p in pure)
        weights = list(self.student.parameters())
        terms = {
            k: max(g.abs().max() for g in torch.autograd.grad(v, weights, retain_graph=True))
            for k, v in losses.items()
            if v.requires_grad
        }
        seen.append((*(float(size[p & unlabeled.valid].max()) for p in pure), terms))
        return losses

    monkeypatch.setattr(method_class(method), "step", step)
    return seen


def lessons(name, kind, prepared, folder, monkeypatch, method="supervised", given=()):
    data = planted(prepared(kind))
    monkeypatch.setattr(Session, "load", lambda self, m: Opinion(int(m.folder[-1]), data.task.channels))
    seen = watch(monkeypatch, method)
    run(name, folder, data, given, method=method, method_args=tiny.easy(method_class(method)))
    assert len(seen) == 3
    for _, agreed, terms in seen:
        assert agreed > 0 and len(terms) == 3 and all(v > 0 for v in terms.values()), terms  # loss, sup and one more
    return [disputed for disputed, _, _ in seen]


@pytest.mark.parametrize("name", TAUGHT)
def test_disputed_pixels_teach_nothing_and_every_term_something(name, prepared, tmp_path, monkeypatch):
    disputed = lessons(name, "multiclass", prepared, tmp_path, monkeypatch)
    assert not any(disputed) if name in MASKED else all(disputed)


CASES = [
    ("supervised", {}),
    ("supervised", {"fill": "zero"}),
    ("fixmatch", {"route": "online"}),
    ("fixmatch", {"route": "both"}),
]


@pytest.mark.parametrize(("method", "given"), CASES)
def test_also_on_other_tasks_and_routes(kind, method, given, prepared, tmp_path, monkeypatch):
    """And they do teach where the same program has no mask."""
    assert not any(lessons("im", kind, prepared, tmp_path / "im", monkeypatch, method, given))
    if not given:
        assert all(lessons("ensemble", kind, prepared, tmp_path / "none", monkeypatch, method))
