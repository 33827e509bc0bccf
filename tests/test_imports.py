# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, as code."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

DATA = {"fulcra_jax._check", "fulcra_jax._extras", "fulcra_jax.values"}
CORE = {"jax", "numpy"} | DATA
PURE = CORE | {"fulcra_jax.scoring", "fulcra_jax.objectives", "fulcra_jax.targets"}
EVERYTHING = None

# What each room may import, besides the standard library and itself.
MAY_IMPORT: dict[str, set[str] | None] = {
    "fulcra_jax": PURE,
    "fulcra_jax._check": {"jax", "numpy"},
    "fulcra_jax._extras": set(),
    "fulcra_jax.values": {"jax", "numpy", "fulcra_jax._check"},
    "fulcra_jax.catalogue": set(),
    "fulcra_jax.configs": {"numpy"},
    "fulcra_jax.scoring": CORE,
    "fulcra_jax.objectives": CORE,
    "fulcra_jax.targets": CORE,
    "fulcra_jax.models": CORE | {"flax", "fulcra_jax.configs"},
    "fulcra_jax.convert": DATA | {"numpy", "safetensors", "fulcra_jax.configs"},
    "fulcra_jax.data": CORE
    | {
        "tensorflow_datasets",
        "grain",
        "array_record",
        "transformers",
        "tokenizers",
        "etils",
        "fulcra_jax.configs",
        "fulcra_jax.catalogue",
    },
    "fulcra_jax.training": PURE | {"flax", "optax", "orbax", "fulcra_jax.configs"},
    "fulcra_jax.inference": CORE
    | {
        "fulcra_jax.scoring",
        "fulcra_jax.models",
        "fulcra_jax.data",
        "fulcra_jax.convert",
        "fulcra_jax.configs",
    },
    "fulcra_jax.annotation": PURE | {"openai", "starlette", "uvicorn"},
    "fulcra_jax.alignment": PURE,
    "fulcra_jax.alignment.tunix": PURE | {"flax", "fulcra_jax.alignment"},
    "fulcra_jax.alignment.tunix._imports": {"tunix"},
    "fulcra_jax.report": DATA
    | {"jax", "numpy", "matplotlib", "rich", "fulcra_jax.scoring"},
    "fulcra_jax.cli": EVERYTHING,
    "experiments": EVERYTHING,
}

# Allowed inside a function only, so that the room imports without it.
MAY_IMPORT_LATE = {
    "fulcra_jax.convert": {"huggingface_hub"},
    "fulcra_jax.inference": {"joblib", "sklearn"},
    "fulcra_jax.training": {"tensorboardX", "wandb"},
}

ENTRANCES = ("fulcra_jax.cli", "experiments")

PURE_MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for room in ("__init__", "values", "scoring", "objectives", "targets")
    for path in (
        *ROOT.glob(f"fulcra_jax/{room}.py"),
        *ROOT.glob(f"fulcra_jax/{room}/**/*.py"),
    )
)

FILES = sorted(
    path
    for part in ("fulcra_jax", "experiments")
    for path in (ROOT / part).rglob("*.py")
)


def within(name, parent):
    return (name + ".").startswith(parent + ".")


def module_of(path):
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def room_of(module):
    if module == "fulcra_jax":
        return module
    rooms = [r for r in MAY_IMPORT if r != "fulcra_jax" and within(module, r)]
    assert rooms, f"{module} is in no room: give it a row in MAY_IMPORT."
    return max(rooms, key=len)


def imports_of(tree):
    """`(name, is it inside a function)` of all that is not the standard library."""
    inside = {
        id(node)
        for fn in ast.walk(tree)
        if isinstance(fn, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(fn)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] not in sys.stdlib_module_names:
                yield name, id(node) in inside


def faults(module, source):
    """What `module` imports and may not."""
    room = room_of(module)
    allowed, late = MAY_IMPORT[room], MAY_IMPORT_LATE.get(room, set())
    for name, inside in imports_of(ast.parse(source)):
        if any(within(name, entrance) for entrance in ENTRANCES):
            if not within(name, room):
                yield name
        elif allowed is not EVERYTHING:
            known = allowed | {room} - {"fulcra_jax"} | (late if inside else set())
            if not any(within(name, a) for a in known):
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_room_imports_only_what_it_may(path):
    module = module_of(path)
    found = sorted(set(faults(module, path.read_text())))
    assert not found, f"{module} is in {room_of(module)}, which may not import {found}."


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        ("fulcra_jax.scoring.new", "from fulcra_jax import objectives", True),
        ("fulcra_jax.objectives.new", "import fulcra_jax.scoring.resampling", True),
        ("fulcra_jax.scoring.new", "def f():\n    import optax", True),
        ("fulcra_jax.scoring.new", "import fulcra_jax", True),
        ("fulcra_jax.models.new", "from experiments import config", True),
        ("fulcra_jax.cli", "from experiments import train", True),
        ("fulcra_jax.convert.new", "import huggingface_hub", True),
        ("fulcra_jax.convert.new", "def f():\n    import huggingface_hub", False),
        ("fulcra_jax.training.new", "import wandb", True),
        ("fulcra_jax.training.new", "def f():\n    import wandb", False),
        ("fulcra_jax.alignment.new", "import tunix", True),
        ("fulcra_jax.alignment.tunix.new", "from tunix.rl import common", True),
        ("fulcra_jax.scoring.new", "from fulcra_jax.scoring import bootstrap", False),
        ("experiments.new", "import optax\nfrom experiments import config", False),
    ],
)
def test_the_rules_catch_what_they_should(module, source, caught):
    assert bool(list(faults(module, source))) == caught


def test_a_module_outside_every_room_is_named():
    with pytest.raises(AssertionError, match=r"fulcra_jax\.utils is in no room"):
        room_of("fulcra_jax.utils")


HIDE_ALL_BUT_JAX = """
import importlib, importlib.util, sys

KNOWN = {"jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "fulcra_jax"}

def is_standard(top):
    return top in sys.stdlib_module_names or top.startswith("_sysconfigdata_")

class Hiding:
    # A finder that does not see what is neither known nor standard.
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        seen = top in KNOWN or is_standard(top)
        return self.finder.find_spec(name, path, target) if seen else None

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
for hidden in ("flax", "optax", "pytest"):
    assert importlib.util.find_spec(hidden) is None, hidden
for module in sys.argv[1:]:
    importlib.import_module(module)
"""

WAKE_NO_DEVICE = """
import importlib, sys
from jax._src import xla_bridge
for module in sys.argv[1:]:
    importlib.import_module(module)
assert not xla_bridge.backends_are_initialized()
import jax.numpy as jnp
jnp.zeros(1)
assert xla_bridge.backends_are_initialized()
"""


SAYS_WHAT_TO_INSTALL = """
import importlib, sys

room, package, extra = sys.argv[1:]
sys.modules[package] = None
try:
    importlib.import_module(room)
except ModuleNotFoundError as error:
    said = str(error)
    assert said.startswith(f"{room}: the package {package} is missing; pip "), said
    assert f'-e ".[{extra}]" in the checkout' in said, said
    assert error.name == package
else:
    raise AssertionError("imported")
"""

COMMAND_WITHOUT_TYRO = """
import contextlib, io, sys
sys.modules["tyro"] = None
from fulcra_jax import cli
with contextlib.redirect_stderr(io.StringIO()) as said:
    assert cli.main(["--help"]) == 1
said = said.getvalue()
assert said.startswith("error: fulcra_jax.cli: the package tyro is missing; "), said
assert said.count(chr(10)) == 1
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_pure_rooms_need_only_jax_and_numpy():
    """Every other package is hidden, but for those that jax itself depends on."""
    run(HIDE_ALL_BUT_JAX, *PURE_MODULES)


def test_pure_rooms_start_no_backend():
    """A jnp constant at module level would start it before a cluster is formed."""
    run(WAKE_NO_DEVICE, *PURE_MODULES)


@pytest.mark.parametrize(
    ("room", "package", "extra"),
    [
        ("fulcra_jax.models", "flax", "models"),
        ("fulcra_jax.convert", "safetensors", "models"),
        ("fulcra_jax.data.tokenizer", "transformers", "data"),
        ("fulcra_jax.data.fulcra", "tensorflow_datasets", "data"),
    ],
)
def test_a_room_without_its_package_says_what_to_install(room, package, extra):
    run(SAYS_WHAT_TO_INSTALL, room, package, extra)


def test_the_command_without_its_package_says_what_to_install():
    run(COMMAND_WITHOUT_TYRO)


@pytest.mark.parametrize(
    ("room", "other"), [("scoring", "objectives"), ("objectives", "scoring")]
)
def test_pure_rooms_do_not_import_each_other(room, other):
    tops = [m for m in PURE_MODULES if within(m, f"fulcra_jax.{room}")]
    for module in tops:
        path = ROOT / module.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        names = [name for name, _ in imports_of(ast.parse(source.read_text()))]
        assert not any(within(name, f"fulcra_jax.{other}") for name in names), module
