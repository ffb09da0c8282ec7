"""The plan of the package: imports go down only, scripts stay thin, heavy libraries come late."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# From the ground up: a module imports only from those before it.
FLOORS = """
    errors versions signals cache command knobs config config_file tokenizer token_files
    synthetic markov datasets corpus batches description gradients layers attention model muon
    optim step generate mesh kernels flops ledger checkpoint runlog progress evaluate resume
    program replica replay report train sample prepare peer stepper op_groups growth bench
    doctor card card_parts
""".split()


def imported(path: Path) -> set[str]:
    """Names of the gptjax modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "gptjax":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module.removeprefix("gptjax.")} if "gptjax." in node.module else set()
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.removeprefix("gptjax.")
                for alias in node.names
                if alias.name.startswith("gptjax.")
            }
    return names


def test_every_module_has_its_floor():
    modules = {path.stem for path in (ROOT / "gptjax").glob("*.py")} - {"__init__"}
    assert modules == set(FLOORS)


@pytest.mark.parametrize("name", FLOORS)
def test_imports_go_down_only(name):
    below = set(FLOORS[: FLOORS.index(name)])
    assert imported(ROOT / "gptjax" / f"{name}.py") <= below


def test_nothing_imports_scripts_or_configs():
    for path in [*(ROOT / "gptjax").glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            module = getattr(node, "module", "") or ""
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not any(n.split(".")[0] in ("scripts", "configs") for n in [module, *names])


def test_scripts_are_thin():
    for path in (ROOT / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) < 40, path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("config_file", {"jax", "numpy", "tensorflow_datasets"}),
        ("train", {"tensorflow", "tensorflow_datasets", "torch", "tensorboardX"}),
        ("sample", {"tensorflow", "tensorflow_datasets", "torch", "tensorboardX"}),
    ],
)
def test_heavy_libraries_are_imported_late(module, unwanted):
    code = f"import sys, gptjax.{module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert not unwanted & set(printed.split())


def test_p23_nothing_untrusted_is_executed_or_unpickled():
    modules = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "torch"}
    calls = {"exec", "eval", "compile", "system", "popen"}
    for path in [*(ROOT / "gptjax").glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                assert not {name.split(".")[0] for name in names} & modules, path
            if isinstance(node, ast.Call):
                # A method of ours or of XLA may be called compile; the built-in may not be used.
                if isinstance(node.func, ast.Name):
                    assert node.func.id not in calls, path
                elif isinstance(node.func, ast.Attribute):
                    assert node.func.attr not in {"system", "popen"}, path
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                assert "shell" not in given, path
                if ast.unparse(node.func) in ("np.load", "numpy.load"):
                    assert "allow_pickle" in given, path
                    assert ast.unparse(given["allow_pickle"]) == "False", path


def test_p23_only_datasets_reaches_for_a_network_and_nothing_starts_a_process():
    network = {"urllib", "http", "socket", "ssl", "ftplib", "requests", "httpx", "aiohttp"}
    processes = {"subprocess", "multiprocessing", "pty"}
    importers = set()
    for path in [*(ROOT / "gptjax").glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in getattr(node, "names", [])}
            if isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            if isinstance(node, ast.Import | ast.ImportFrom):
                roots = {name.split(".")[0] for name in names}
                assert not roots & processes or path.name == "peer.py", path
                importers |= {path.name} if roots & network else set()
    assert importers == {"datasets.py"}


def test_the_readme_names_a_test_for_every_promise():
    """A promise that nothing holds is a wish. Rows are `| P7 | … `test_p7_…` … |`."""
    _, title, after = (ROOT / "README.md").read_text().partition("## What gptjax promises\n")
    assert title, 'README.md has no section "## What gptjax promises"'
    section, _, _ = after.partition("\n## ")
    rows = {int(n): row for n, row in re.findall(r"^\| P(\d+) \|(.*)$", section, re.MULTILINE)}
    functions = {
        node.name
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    problems = []
    for number in range(1, 25):
        # A test may hold several promises: test_p15_p16_….
        named = re.findall(r"\btest_p\d+_\w+", rows.get(number, ""))
        own = [name for name in named if f"_p{number}_" in re.match(r"test(_p\d+)+_", name)[0]]
        if number not in rows:
            problems.append(f"P{number} has no row")
        elif not own:
            problems.append(f"the row of P{number} names no test_p{number}_…")
        problems += [
            f"the row of P{number} names {name}, which is no test in tests/"
            for name in named
            if name not in functions
        ]
    assert not problems, "README.md, What gptjax promises: " + "; ".join(problems)
