"""The shape of the code: imports run one way, libraries stay where they belong, light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deqcli
from deqcli.recipe.library import header, shipped_recipes
from deqcli.recipe.loading import load_recipe

PACKAGE = Path(deqcli.__file__).parent
FLOORS = (
    "errors", "options", "deq", "theory", "data", "recipe", "runs", "sweep", "exporters", "show", "loaded",
    "api", "cli", "__main__",
)  # fmt: skip
FENCES = {
    "typer": {"cli"},
    "matplotlib": {"show", "loaded"},
    "bokeh": {"show"},
    "jinja2": {"show"},
    "rich": {"show"},
    "safetensors": {"runs"},
    "sklearn": {"data"},
    "filelock": {"runs"},
    "pooch": {"data"},
    "requests": {"data"},
    "urllib3": {"data"},
    "pyarrow": {"exporters"},
    "tensorboard": {"exporters"},
    "mlflow": {"exporters"},
}
HEAVY = ("torch", "pandas", "numpy", "scipy", "matplotlib", "bokeh", "sklearn", "requests", "pooch")
MODULES = sorted(PACKAGE.rglob("*.py"))


def floor(module: str) -> str:
    """`deqcli.deq.solvers` -> `deq`."""
    return module.split(".")[1] if "." in module else "errors"


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def own_floor(path: Path) -> str:
    """The floor that a file stands on."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_down_the_floors_only() -> None:
    looked = 0
    for path in MODULES:
        if path.name == "__init__.py" and path.parent == PACKAGE:
            continue
        for module in imports(path):
            if module.startswith("deqcli."):
                looked += 1
                assert FLOORS.index(floor(module)) <= FLOORS.index(own_floor(path)), f"{path} imports {module}"
    assert looked > 100


def test_the_import_graph_has_no_cycle() -> None:
    graph = {
        ".".join(("deqcli", *path.relative_to(PACKAGE).with_suffix("").parts)): [
            module for module in imports(path) if module.startswith("deqcli.")
        ]
        for path in MODULES
        if path.name != "__init__.py"
    }
    finished: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in finished:
            for imported in graph.get(module, []):
                visit(imported, (*above, module))
            finished.add(module)

    for module in graph:
        visit(module, ())
    assert len(finished) >= len(graph) > 30


@pytest.mark.parametrize(("library", "floors"), FENCES.items())
def test_libraries_stay_behind_their_fences(library: str, floors: set[str]) -> None:
    users = {own_floor(path) for path in MODULES if any(name.split(".")[0] == library for name in imports(path))}
    assert users == floors


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["recipes", "list"],
        ["recipes", "validate", "quickstart"],
        ["recipes", "validate", "figure-1a", "train.stepz=1"],
        ["recipes", "schema"],
        ["runs", "list"],
        ["data", "list"],
        ["runs", "list", "--where", "sigma_w_sq<1", "--json"],
    ],
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom deqcli.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_shell_completion_imports_nothing_heavy() -> None:
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr))\n"
        "sys.argv = ['deqcli']\nfrom deqcli.cli.main import app\napp(prog_name='deqcli')"
    )
    words = {"_DEQCLI_COMPLETE": "complete_bash", "COMP_WORDS": "deqcli train q", "COMP_CWORD": "2", "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=words)
    assert done.stdout.split() == ["quickstart"]
    assert done.stderr.splitlines()[-1] == "[]"


def test_functions_and_files_stay_small() -> None:
    lengths = []
    for path in MODULES:
        text = path.read_text()
        assert text.count("\n") <= 320, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documentation = ast.get_docstring(node, clean=False) or ""
                lengths.append((node.end_lineno or 0) - node.lineno + 1 - documentation.count("\n"))
    assert len(lengths) > 200
    assert sorted(lengths)[len(lengths) // 2] <= 11
    assert sorted(lengths)[int(0.95 * len(lengths))] <= 40


SHIPPED = [
    "activations", "figure-1-digits", "figure-1a", "figure-1a-small", "figure-1b", "figure-1b-small", "figure-1c",
    "figure-1c-small", "gao-2022", "gaussian-mixture", "matrix-families", "monotone", "quickstart", "theorem-1",
]  # fmt: skip


def test_every_shipped_recipe_loads_and_says_its_command_its_cost_and_what_to_expect() -> None:
    recipes = shipped_recipes()
    assert list(recipes) == SHIPPED
    for name, path in recipes.items():
        assert load_recipe(name).name == name
        text = "\n".join(header(path))
        for word in ("Command", "Cost", "Expect"):
            assert f"\n{word} " in text, (name, word)
        assert f"deqcli sweep-width {name}" in text or f"deqcli train {name}" in text
