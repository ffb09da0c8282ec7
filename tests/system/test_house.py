"""The plan of the house: imports go down only, each wing has its door plate, scripts stay thin."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gptjax"

# From the ground up. The commands, modules of the package itself, stand on top of all wings.
WINGS = "system config data model update device run explain speed".split()

# Above the commands: a run opened in a notebook, where their functions are called. No script.
NOTEBOOK = "gptjax.notebook"

MOST_LINES = 250


def module_name(path: Path) -> str:
    """As in an import: gptjax.run.ledger; a wing's own name for its __init__."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module: str) -> int:
    """How high a module stands: the place of its wing, or above all of them."""
    if module == NOTEBOOK:
        return len(WINGS) + 1
    parts = module.split(".")
    return WINGS.index(parts[1]) if len(parts) > 1 and parts[1] in WINGS else len(WINGS)


def imported(path: Path) -> set[str]:
    """The modules of gptjax that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    # `from gptjax.run import ledger` names a module, `from gptjax.run.ledger import KINDS` another.
    found = {name for name in names if name in MODULES}
    return {name for name in found if not any(other.startswith(name + ".") for other in found)}


IMPORTED = {module: imported(path) - {module} for module, path in MODULES.items()}


def test_every_folder_is_a_wing_and_only_commands_lie_loose():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(WINGS)
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert loose == scripts | {NOTEBOOK.split(".")[1]}, "a command has the name of its script"
    # No folder within a wing: two words lead to every module.
    assert all(len(module.split(".")) <= 3 for module in MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    if module == "gptjax":  # The package's own __init__ is imported by all: it may reach `system`.
        # What it opens in a notebook is imported when that is called, as is seen below.
        assert all(floor(name) == 0 for name in IMPORTED[module] - {NOTEBOOK})
        return
    for name in IMPORTED[module] - {"gptjax"}:
        is_command = floor(module) == len(WINGS)
        assert floor(name) < floor(module) or (not is_command and floor(name) == floor(module)), (
            f"{module} imports {name}"
        )


@pytest.mark.parametrize("wing", WINGS)
def test_no_module_of_a_wing_leads_back_to_itself(wing):
    inside = {
        module: {name for name in names if name.startswith(f"gptjax.{wing}.")}
        for module, names in IMPORTED.items()
        if module.startswith(f"gptjax.{wing}.")
    }
    while inside:
        settled = [module for module, names in inside.items() if not names & set(inside)]
        assert settled, f"imports in a circle among {sorted(inside)}"
        for module in settled:
            del inside[module]


@pytest.mark.parametrize("wing", WINGS)
def test_a_wings_init_is_its_door_plate_and_nothing_else(wing):
    (plate,) = ast.parse((PACKAGE / wing / "__init__.py").read_text()).body
    assert isinstance(plate, ast.Expr) and isinstance(plate.value, ast.Constant)
    words = plate.value.value
    assert "mports" in words or "it may" in words, "it says what the wing may import"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_read_in_a_sitting(module):
    assert len(MODULES[module].read_text().splitlines()) <= MOST_LINES


def test_tests_mirror_the_house():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    mirrored = {"commands", "support", *WINGS}
    assert folders - {"__pycache__", "data"} <= mirrored
    assert not list((ROOT / "tests").glob("test_*.py")), "every test has a folder"


def test_nothing_imports_scripts_or_configs():
    for path in [*MODULES.values(), *(ROOT / "scripts").glob("*.py")]:
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
        ("system", {"jax", "flax", "numpy", "ml_collections", "gptjax.notebook"}),
        ("config.config_file", {"jax", "numpy", "tensorflow_datasets"}),
        ("train", {"tensorflow", "tensorflow_datasets", "torch", "tensorboardX", "safetensors"}),
        ("sample", {"tensorflow", "tensorflow_datasets", "torch", "tensorboardX", "safetensors"}),
    ],
)
def test_heavy_libraries_are_imported_late(module, unwanted):
    code = f"import sys, gptjax.{module}; print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert not unwanted & set(printed.split())


def test_p23_nothing_untrusted_is_executed_or_unpickled():
    modules = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "torch"}
    calls = {"exec", "eval", "compile", "system", "popen"}
    for path in [*MODULES.values(), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                found = {name.split(".")[0] for name in names} & modules
                # One module reads nanoGPT's, with a reader that refuses whatever names a function.
                assert not found or (path.name, found) == ("nanogpt_meta.py", {"pickle"}), path
            if isinstance(node, ast.Constant) and node.value == "torch":
                assert path.name == "torch_file.py", path
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


def test_p23_the_one_reader_of_pickles_calls_nothing():
    tree = ast.parse((PACKAGE / "data" / "nanogpt_meta.py").read_text())
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("pickle.")} == {
        "pickle.Unpickler",
        "pickle.UnpicklingError",
    }
    (reader,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert {method.name for method in reader.body if isinstance(method, ast.FunctionDef)} == {
        "find_class",
        "persistent_load",
    }
    for method in (node for node in reader.body if isinstance(node, ast.FunctionDef)):
        assert isinstance(method.body[-1], ast.Raise) and len(method.body) == 2


def test_p23_torch_loads_tensors_and_plain_data_alone():
    tree = ast.parse((PACKAGE / "run" / "torch_file.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (load,) = (call for call in calls if ast.unparse(call.func) == "torch.load")
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in load.keywords}
    assert given == {"weights_only": "True", "map_location": "'cpu'"}
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("torch.")} == {
        "torch.Tensor",
        "torch.__version__",
        "torch.from_numpy",
        "torch.load",
        "torch.save",
    }


def test_p23_who_reaches_for_a_network_and_who_starts_processes():
    """Nothing is fetched but by two modules; the processes of a run talk to each other."""
    network = {"urllib", "http", "socket", "ssl", "ftplib", "requests", "httpx", "aiohttp"}
    network.add("huggingface_hub")
    processes = {"subprocess", "multiprocessing", "pty"}
    starters = ("process.py", "nanogpt.py", "encoders.py", "distributed.py")
    importers = set()
    for path in [*MODULES.values(), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in getattr(node, "names", [])}
            if isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            if isinstance(node, ast.Import | ast.ImportFrom):
                roots = {name.split(".")[0] for name in names}
                assert not roots & processes or path.name in starters, path
                importers |= {path.name} if roots & network else set()
    fetch, talk = {"datasets.py", "hub.py"}, {"link.py", "rollcall.py", "coordinator.py"}
    assert importers == fetch | talk
