"""Imports go one way, and nothing heavy is imported before the work starts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "semiseg"
LAYERS = [
    {"errors", "batch", "task", "losses", "ema", "inconsistency", "networks", "storage"},
    {"data"},
    {"methods"},
    {"training"},
    {"programs", "predict", "model", "compare", "report"},
    {"cli", "commands", "exits", "demo", "__init__", "__main__"},
]
LIGHT = ["cli", "exits", "errors", "storage", "report"]
LIGHT += [f"data.{name}" for name in ("folder", "splits", "decode", "classes", "check", "synthetic")]


def files():
    return sorted(SRC.rglob("*.py"))


def layer(module):
    """Level of `semiseg.x.y`; a new top-level module without a level fails here (predict_files belongs to predict)."""
    top = module.split(".")[1] if "." in module else "__init__"
    top = top.lstrip("_") if top != "__init__" else top
    for level, names in enumerate(LAYERS):
        if any(top == n or (n in ("predict", "compare") and top.startswith(n)) for n in names):
            return level
    raise AssertionError(f"semiseg.{top} has no layer")


def imports(path):
    """Absolute names of everything of semiseg that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # `from semiseg import losses` imports a module, `from semiseg.x import name` maybe one
            found |= {f"semiseg.{a.name}" for a in node.names} if node.module == "semiseg" else {node.module}
    return found


def module_of(path):
    parts = ["semiseg", *path.relative_to(SRC).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def only_version(path):
    """The package itself may be imported below the top for nothing but its version and place."""
    tree = ast.parse(path.read_text())
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "semiseg"}
    return used <= {"__version__", "__file__"}


def test_imports_go_one_way():
    wrong = []
    for path in files():
        mine = module_of(path)
        for name in imports(path):
            if name == "semiseg.__version__" or (name == "semiseg" and only_version(path)):
                continue
            if (name == "semiseg" or name.startswith("semiseg.")) and layer(name) > layer(mine):
                wrong.append(f"{mine} imports {name}")
    assert not wrong, wrong


def test_the_vocabulary_knows_only_itself():
    """batch imports nothing of ours; task, losses, ema and inconsistency no networks and no storage."""
    ours = {n: {i for i in imports(SRC / f"{n}.py") if i.startswith("semiseg")} for n in
            ("errors", "batch", "task", "losses", "ema", "inconsistency")}  # fmt: skip
    assert not ours["errors"] and not ours["batch"]
    allowed = {f"semiseg.{n}" for n in ours}
    assert set.union(*ours.values()) <= allowed


def test_a_method_file_speaks_vocabulary_only():
    wrong = []
    for path in (SRC / "methods").glob("[!_]*.py"):
        for name in imports(path):
            other = name.startswith("semiseg.methods.") and not name.startswith("semiseg.methods._")
            if "lightning" in name or (other and name != "semiseg.methods.base") or name.startswith("semiseg.training"):
                wrong.append(f"{path.name} imports {name}")
    assert not wrong, wrong


@pytest.fixture(scope="module")
def loaded():
    """{module: heavy libraries in sys.modules after importing it}, each in a process of its own... in one go."""
    code = (
        "import importlib, sys\n"
        "heavy = ('torch', 'torchvision', 'timm', 'segmentation_models_pytorch', 'lightning_fabric', 'torchmetrics')\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module('semiseg.' + name)\n"
        "    print(name, *[h for h in heavy if h in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *LIGHT], capture_output=True, text=True, check=True)
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_nothing_heavy(loaded, name):
    assert loaded[name] == []


def test_help_works():
    done = subprocess.run([sys.executable, "-m", "semiseg.cli", "--help"], capture_output=True, text=True)
    if not done.stdout:  # the module has no main guard: ask it as the console script does
        code = "import sys; sys.argv = ['semiseg', '--help']; from semiseg.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("check", "train", "predict"):
        assert command in done.stdout
