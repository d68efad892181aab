"""A method in a file of one's own: what is right runs, every mistake is named with its line, most before any training."""

import re
import sys

import pytest
import torch
from torch import nn

import semiseg
import tiny
from semiseg.errors import Refusal
from semiseg.methods import METHODS, arguments, method_class, own
from semiseg.methods.base import Method
from semiseg.programs import PROGRAMS, program_class
from semiseg.training.config import Config, settings
from semiseg.training.ranges import typed

HEAD = "from semiseg.methods.base import Method\n\n\n"
RIGHT = (
    HEAD
    + """class Mine(Method):
    \"\"\"Labels only.\"\"\"

    views = ("weak",)

    def __init__(self, make, task, *, scales=(0.5, 1.0), names=("a",), gamma=None):
        super().__init__(make, task)
        self.scales, self.gamma = scales, gamma

    def step(self, labeled, unlabeled, clock):
        return {"loss": self.task.supervised(self.student(labeled.image), labeled)}
"""
)
INIT = "    def __init__(self, make, task{}):\n        super().__init__(make, task)\n"
STEP = "    def step(self, labeled, unlabeled, clock):\n        return {}\n"


def write(tmp_path, text, name="mine"):
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        (
            "    views = ('strong',)\n",
            4,
            "is Mine, which has no step. Fix: write def step(self, labeled, unlabeled, clock)",
        ),
        ("    def step(self, labeled, unlabeled):\n        pass\n", 5, "is a step that cannot be called: too many"),
        (INIT.format(", *, gamma") + STEP, 5, "has the argument 'gamma' without a default. Fix: write gamma=VALUE"),
        (INIT.format(", gamma=2") + STEP, 5, "takes 'gamma' by its place, so it is no configuration"),
        (INIT.format(", *, gamma={}") + STEP, 5, "has the argument 'gamma' = {}, which nobody can type"),
        ("    def __init__(self):\n        pass\n" + STEP, 5, "takes no make and task"),
        ("    views = ('strongg',)\n" + STEP, 4, "whose views have 'strongg'. Did you mean 'strong'?"),
        (
            "    views = 'strong'\n" + STEP,
            4,
            "whose views are 'strong'. Expected: a tuple of strong, mild, train, weak",
        ),
    ],
)
def test_what_can_be_seen_without_training_is_refused_by_line(tmp_path, body, line, said):
    path = write(tmp_path, HEAD + "class Mine(Method):\n" + body)
    with pytest.raises(Refusal, match=re.escape(f"{path}:{line} ") + ".*" + re.escape(said)) as refused:
        method_class(f"{path}:Mine")
    assert refused.value.exit == 2


def test_all_mistakes_of_a_class_are_said_at_once(tmp_path):
    path = write(tmp_path, HEAD + "class Mine(Method):\n    views = ('x', 'y')\n" + INIT.format(", *, a, b"))
    with pytest.raises(Refusal) as refused:
        method_class(f"{path}:Mine")
    assert len(refused.value.problems) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (\n", r"mine\.py:1 does not parse"),
        ("\nimport nothing_of_that_name\n", r"mine\.py:2 fails on import: ModuleNotFoundError"),
        ("x = 1\nraise SystemExit(3)\n", r"mine\.py:2 fails on import: SystemExit: 3"),
        ("x = '\0'\n", r"mine\.py does not parse: "),
    ],
)
def test_a_file_that_does_not_run_is_refused(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(Refusal, match=said):
        method_class(f"{path}:Mine")
    assert not [m for m in sys.modules.values() if getattr(m, "__file__", "") == str(path)]


def test_a_file_without_the_class_lists_those_that_it_has(tmp_path):
    path = write(tmp_path, HEAD + "class Other(Method):\n" + STEP)
    with pytest.raises(Refusal, match=r"has no class 'Mine'.*Expected: .*mine\.py:Other"):
        method_class(f"{path}:Mine")
    with pytest.raises(Refusal, match=r"names no class\. Expected: .*mine\.py:Mine"):
        method_class(str(write(tmp_path, RIGHT)))


def test_dataclasses_neighbours_and_the_docs_of_a_file(tmp_path):
    write(tmp_path, "VALUE = 3\n", "neighbour")
    extra = (
        "from dataclasses import dataclass\nfrom neighbour import VALUE\n@dataclass\nclass Extra:\n    a: int = VALUE\n"
    )
    path = write(tmp_path, '"""About mine."""\nfrom __future__ import annotations\n' + extra + RIGHT)
    before = list(sys.path)
    cls = method_class(f"{path}:Mine")
    assert sys.modules[cls.__module__].Extra().a == 3 and sys.modules[cls.__module__].__doc__ == "About mine."
    assert method_class(f"{path}:Mine") is cls, "a file is run once for each content"
    assert sys.path == before


def test_lists_and_open_arguments_are_typed(tmp_path):
    defaults = arguments(method_class(f"{write(tmp_path, RIGHT)}:Mine"))
    assert typed("0.5,2", defaults["scales"]) == [0.5, 2.0] and typed("(1, 2)", defaults["scales"]) == [1.0, 2.0]
    assert typed("b, c", defaults["names"]) == ["b", "c"]
    assert typed("0.5", defaults["gamma"]) == 0.5 and typed("x", defaults["gamma"]) == "x"
    with pytest.raises(ValueError, match="a number"):
        typed("0.5,x", defaults["scales"])


class Returns(Method):
    """Makes a network, or not."""

    def __init__(self, make, task, *, network=True):
        if network:
            super().__init__(make, task)
        else:
            nn.Module.__init__(self)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (torch.ones(()), "returns Tensor"),
        ({}, "returns no 'loss', but nothing"),
        ({"lost": torch.ones(())}, "returns no 'loss', but lost"),
        ({"loss": 1.0}, "returns 'loss' as float"),
        ({"loss": torch.ones(2, requires_grad=True)}, "a tensor of shape (2,)"),
        ({"loss": torch.ones((), requires_grad=True), "sup": 2.0}, "returns 'sup' as float"),
        ({"loss": torch.ones(())}, "depends on no parameter"),
    ],
)
def test_what_a_step_returns_is_looked_at(losses, said):
    task = tiny.task_of("binary")
    with pytest.raises(Refusal, match=re.escape(said)):
        own.stepped(Returns(tiny.make_of(task), task), losses)
    right = {"loss": torch.ones((), requires_grad=True), "sup": torch.ones(1)}
    assert own.stepped(Returns(tiny.make_of(task), task), right) is right


def test_a_method_without_a_network_says_how_to_begin():
    task = tiny.task_of("binary")
    with pytest.raises(Refusal, match=re.escape("begin __init__ with super().__init__(make, task)")):
        own.made(Returns(tiny.make_of(task), task, network=False))


def test_what_never_refines_takes_no_masks(tmp_path):
    path = write(tmp_path, RIGHT.replace('"""Labels only."""', "# self.refine is not called"))
    with pytest.raises(Refusal, match=rf"{re.escape(str(path))}:13 is Mine, which never calls self.refine"):
        own.refines(f"{path}:Mine")
    helper = "\n\ndef helper(method, *args):\n    return method.refine(*args)\n"
    own.refines(f"{write(tmp_path, RIGHT + helper)}:Mine")
    inherits = "from semiseg.methods.fixmatch import FixMatch\n\n\nclass Mine(FixMatch):\n    views = ('strong',)\n"
    own.refines(f"{write(tmp_path, inherits)}:Mine")
    own.refines("fixmatch")


def test_a_changed_file_is_another_method(tmp_path):
    data = tiny.write_folder(tmp_path / "data", "binary")
    path = write(tmp_path, RIGHT)
    options = {"method": f"{path}:Mine", "steps": 2, "size": 16, "batch": 2, "baseline": False, "quiet": True}
    first = semiseg.train(data, tmp_path / "first", **options)
    write(tmp_path, RIGHT.replace("return {", "return {'half': self.student.mean.sum(), "))
    with pytest.raises(
        Refusal, match=r"S08: .*mine\.py:Mine changed since models of .*first were trained with it"
    ) as refused:
        semiseg.train(data, tmp_path / "first", resume="auto", **options)
    assert refused.value.exit == 4
    again = semiseg.train(data, tmp_path / "again", reuse=str(tmp_path / "first"), **options)
    logged = (tmp_path / "again/generation-0/member-0/metrics.csv").read_text()
    assert "half=" in logged and "taken over" not in (tmp_path / "again/events.jsonl").read_text()
    assert again["hash"] == first["hash"], "the same training under another file"


def test_a_file_that_it_imports_is_part_of_it(tmp_path):
    """Also one that only that file imports, or one in a folder; not what merely lies beside it."""
    path = write(tmp_path, "import helper\n" + RIGHT)
    seen = [own.digest(f"{path}:Mine")]
    (tmp_path / "more").mkdir()
    for name, text in (("helper", "from more import rest"), ("more/__init__", ""), ("more/rest", "SIGN = 1"),
                       ("more/rest", "SIGN = -1"), ("helper", "from more import rest  # and so on")):  # fmt: skip
        (tmp_path / f"{name}.py").write_text(text)
        seen.append(own.digest(f"{path}:Mine"))
    assert len({*seen}) == len(seen) - 1 and seen[1] == seen[2]  # an empty file changes nothing
    (tmp_path / "beside.py").write_text("SIGN = 1")
    assert own.digest(f"{path}:Mine") == seen[-1] and own.digest("fixmatch") == ""
    (tmp_path / "more/.#lock.py").symlink_to("nowhere")  # an editor's
    (tmp_path / "data").mkdir()
    (tmp_path / "data/odd.py").write_text("no package")
    path = write(tmp_path, "import helper, data\n" + RIGHT)
    now = own.digest(f"{path}:Mine")
    (tmp_path / "data/odd.py").write_text("changed")
    assert own.digest(f"{path}:Mine") == now


def test_a_shape_knows_the_file(tmp_path):
    path = write(tmp_path, RIGHT)
    config = Config(method=f"{path}:Mine")
    shapes = [config.shape((0,), config.method, ""), Config().shape((0,), "supervised", "")]
    write(tmp_path, RIGHT + "\n")
    assert config.shape((0,), config.method, "") != shapes[0]
    assert Config().shape((0,), "supervised", "") == shapes[1]


@pytest.mark.parametrize("name", METHODS)
def test_no_argument_of_a_method_hides_behind_a_setting(name):
    assert not arguments(method_class(name)).keys() & settings().keys()


def test_views_that_may_be_asked_for_are_those_that_there_are():
    from semiseg.data.views import VIEWS

    assert set(own.STRENGTHS) == {*VIEWS, "weak"}


def test_only_programs_that_refine_attach():
    assert {name for name in PROGRAMS if not program_class(name).attaches} >= {"committee"}
    assert program_class("im").attaches and program_class("im_moving").attaches


def test_what_predicts_has_the_students_weights(tmp_path):
    """A network around the student could be trained, and never be loaded again."""
    text = RIGHT + "\n    def predictor(self):\n        return torch.nn.Sequential(self.student)\n"
    path = write(tmp_path, "import torch\n\n" + text)
    with pytest.raises(Refusal, match=r"C03: .*mine\.py:18 returns a network with other weights") as error:
        own.made(method_class(f"{path}:Mine")(lambda *_: nn.Linear(1, 1), tiny.task_of("binary")))
    assert error.value.exit == 2
