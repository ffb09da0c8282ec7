"""The documents name what there is; marked slow, every command in them runs.

In a fenced block a line that starts with `$ ` is a command, and the lines below it are what it
printed. In a block without such a line those that start as a command does are commands. A comment
`<!-- not run: why -->` above a block takes its commands out of the slow test alone. A printed `^C`
is Ctrl-C, pressed when the run is under way.
"""

import ast
import dataclasses
import functools
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptjax.config.config_file import load_config, split_overrides
from gptjax.config.knobs import KNOBS

ROOT = Path(__file__).parent.parent.parent

# In the order in which a newcomer meets them, and in which their commands run.
PAGES = ["README.md"] + [
    f"docs/{name}.md"
    for name in (
        "from-nanogpt recipes what-a-run-prints reading-your-numbers compare ladder sweeps "
        "checkpoints gpu scale speed plan token-files python environment layout glossary"
    ).split()
]
PAGES.append("CONTRIBUTING.md")
OTHERS = ["BENCHMARKS.md", "CHANGELOG.md"]

THE_TWO_COMMANDS = (
    "python3 -m venv .venv && . .venv/bin/activate && pip install -e . && "
    "python scripts/train.py --config configs/shakespeare_char.py",
    'python3 -m venv .venv && . .venv/bin/activate && pip install -e ".[dev]" && '
    "ruff check && ruff format --check && mypy && pytest",
)

_COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\S*/)?(?:python[0-9.]*|pip|pytest|ruff|mypy|pre-commit)\s"
)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_SECTIONS = "|".join(sorted({name.partition(".")[0] for name in KNOBS if "." in name}))

# The tools that build and check: whoever runs the tests has run them.
_TOOLS = {"pip", "pytest", "ruff", "mypy", "pre-commit"}


@dataclasses.dataclass(frozen=True)
class Command:
    """A documented command line, what it is said to print, and why it is not run ("": it is)."""

    where: str
    line: str
    printed: list[str]
    not_run: str

    @property
    def fails(self) -> bool:
        """Whether it is shown as refused."""
        return any(line.startswith("gptjax: error:") for line in self.printed)

    def parts(self) -> list[list[str]]:
        """The words of each command of `a && b`, without variables that are set for it."""
        found: list[list[str]] = [[]]
        for word in shlex.split(self.line):
            if word == "&&":
                found.append([])
            elif found[-1] or not re.match(r"[A-Z_]+=", word):
                found[-1].append(word)
        return found


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the line of the page that is above it."""

    where: str
    language: str
    lines: list[str]
    above: str


@functools.cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    lines, above, opened = text_of(page).splitlines(), "", None
    for number, line in enumerate(lines, 1):
        if line.startswith("```") and opened is None:
            opened, inside = Block(f"{page}:{number}", line[3:].strip(), [], above), []
        elif line.startswith("```"):
            yield dataclasses.replace(opened, lines=inside)
            above, opened = "", None
        elif opened is not None:
            inside.append(line)
        elif line.strip():
            above = line
    assert opened is None, f"{opened.where} is not closed"


def commands(page: str) -> Iterator[Command]:
    for block in blocks(page):
        if block.language == "python":
            continue
        marker = _NOT_RUN.fullmatch(block.above)
        why = marker[1] if marker else ""
        starts = [i for i, line in enumerate(block.lines) if line.startswith("$ ")]
        if starts:
            for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
                line, printed = block.lines[start][2:], block.lines[start + 1 : end]
                yield Command(block.where, line, printed, why)
        else:
            for line in block.lines:
                if _COMMAND.match(line):
                    yield Command(block.where, line, [], why)


def test_what_compare_is_said_to_print_is_what_it_prints(capsys, monkeypatch):
    """Lines as on a terminal of 80 columns, but for spaces; "…" stands for any."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    shown = [c for c in ALL_COMMANDS if "scripts/compare.py" in c.line and c.printed]
    assert len(shown) >= 3
    for command in shown:
        _, script, *arguments = shlex.split(command.line)
        capsys.readouterr()
        runpy.run_path(script)["main"](arguments)
        printed = [line.split() for line in capsys.readouterr().out.splitlines()]
        wrong = [line for line in command.printed if line.split() not in [*printed, ["…"]]]
        assert not wrong, f"{command.where}: not printed: {wrong}"


def test_the_examples_are_small_and_name_no_machine():
    files = [path for path in (ROOT / "examples").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix != ".png") < 300_000
    for path in (ROOT / "examples").rglob("*.json*"):
        assert not re.search(r"[\"' =]/\w", path.read_text(encoding="utf-8")), path


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def spans(page: str) -> list[str]:
    """The words in backticks of a page's prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


ALL_COMMANDS = [command for page in PAGES for command in commands(page)]


@functools.cache
def flags_of(script: str) -> dict[str, list[str] | None]:
    """The flags of a script, each with its choices where they are given."""
    found: dict[str, list[str] | None] = {"--help": None}
    named: dict[str, ast.expr] = {}
    for node in ast.walk(ast.parse((ROOT / script).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = node.value
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            choices = given.get("choices")
            if isinstance(choices, ast.Name):
                choices = named[choices.id]
            for name in map(ast.literal_eval, node.args):
                found[name] = list(ast.literal_eval(choices)) if choices is not None else None
    return found


def problems_of_script(words: list[str], *, fails: bool) -> Iterator[str]:
    """What is wrong with `scripts/NAME.py` and its arguments, as far as the source tells."""
    script, *arguments = words
    if not (ROOT / script).is_file():
        yield f"there is no {script}"
        return
    takes_knobs = "split_overrides" in (ROOT / script).read_text(encoding="utf-8")
    overrides: dict[str, str] = {}
    if takes_knobs and not fails:
        for argument in arguments:
            name = argument.partition("=")[0].removeprefix("--config.")
            if argument.startswith("--config.") and name not in KNOBS:
                yield f"there is no knob {name}"
                return
        overrides, arguments = split_overrides(arguments)
    flags = flags_of(script)
    values: dict[str, str] = {}
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or (fails and flag.startswith("--config.")):
            continue
        if flag not in flags:
            yield f"{script} has no {flag}"
            continue
        values[flag] = value if equals else " ".join(arguments[index + 1 : index + 2])
        choices = flags[flag]
        if choices is not None and values[flag] not in choices:
            yield f"{script} {flag} is one of {choices}, not {values[flag]}"
    for flag in ("--config", "--peer_config"):
        if flag in values and not (ROOT / values[flag]).is_file():
            yield f"there is no {values[flag]}"
        elif flag in values and not fails:
            # Every rule of every knob; it raises what the command would say.
            load_config(str(ROOT / values[flag]), overrides if flag == "--config" else {})


@functools.cache
def names_of_tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


@functools.cache
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def problems_of_pytest(words: list[str]) -> Iterator[str]:
    markers = {
        line.partition(":")[0] for line in pyproject()["tool"]["pytest"]["ini_options"]["markers"]
    }
    for flag, value in zip(words, [*words[1:], ""], strict=False):
        if flag == "-k" and not any(value in name for name in names_of_tests()):
            yield f"no test is called {value}"
        if flag == "-m":
            yield from (
                f"there is no marker {name}"
                for name in re.findall(r"\w+", value)
                if name not in markers | {"and", "or", "not"}
            )
        if flag.startswith("tests") and not (ROOT / flag.partition("::")[0]).exists():
            yield f"there is no {flag}"


def problems_of(command: Command) -> Iterator[str]:
    for words in command.parts():
        program = Path(words[0]).name
        if program == "python" and words[1].startswith("scripts/"):
            yield from problems_of_script(words[1:], fails=command.fails)
        elif program == "pytest":
            yield from problems_of_pytest(words[1:])
        elif program == "pip":
            extras = re.findall(r"^\.\[(.*)\]$", "\n".join(words), re.MULTILINE)
            known = pyproject()["project"]["optional-dependencies"]
            yield from (f"there is no extra {name}" for name in extras if name not in known)
            if "-c" in words and not (ROOT / words[words.index("-c") + 1]).is_file():
                yield f"there is no {words[words.index('-c') + 1]}"


@pytest.mark.parametrize("page", PAGES)
def test_every_documented_command_could_run(page):
    found = list(commands(page))
    wrong = [f"{c.where}: {c.line}: {what}" for c in found for what in problems_of(c)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("python scripts/tarin.py --config configs/shakespeare_char.py", "no scripts/tarin.py"),
        ("python scripts/train.py --cofnig configs/shakespeare_char.py", "has no --cofnig"),
        ("python scripts/train.py --config configs/hamlet.py", "no configs/hamlet.py"),
        ("python scripts/train.py --config configs/gpt2_124m.py --config.sed=2", "no knob sed"),
        ("python scripts/sample.py --out_dir out/a --config.seed=1", "has no --config.seed"),
        ("A=1 python scripts/bench.py --config configs/shakespeare_char.py --what x", "one of"),
        ("pytest -k it_is_called_so_nowhere", "no test is called"),
        ("pytest -m quickly", "no marker quickly"),
        ("pytest tests/test_gpt.py", "no tests/test_gpt.py"),
        ('pip install -e . && pip install -e ".[gpu]"', "no extra gpu"),
    ],
)
def test_a_wrong_command_would_be_noticed(line, what):
    (problem,) = problems_of(Command("here", line, [], ""))
    assert what in problem


def test_commands_are_found_in_blocks():
    readme = [command.line for command in ALL_COMMANDS if command.where.startswith("README.md")]
    assert [line for line in readme if line in THE_TWO_COMMANDS] == list(THE_TWO_COMMANDS)
    assert len(ALL_COMMANDS) > 30
    assert any("^C" in command.printed for command in ALL_COMMANDS)
    # Each page but these shows at least one.
    without = {page for page in PAGES if not list(commands(page))}
    assert without == {"docs/python.md", "docs/layout.md", "docs/glossary.md"}


def test_the_readme_is_short_and_has_the_two_commands():
    lines = text_of("README.md").splitlines()
    assert len(lines) < 200
    assert all(command in lines for command in THE_TWO_COMMANDS)


def links(page: str) -> list[str]:
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


def anchors(page: str) -> set[str]:
    """What a page's headings are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES + OTHERS)
def test_every_relative_link_leads_somewhere(page):
    wrong = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if not target.exists():
            wrong.append(f"{link}: there is no {target.relative_to(ROOT)}")
        elif anchor and anchor not in anchors(str(target.relative_to(ROOT))):
            wrong.append(f"{link}: no such heading")
    assert not wrong, f"{page}: " + "; ".join(wrong)


def test_every_page_is_one_link_from_the_readme():
    linked = {link.partition("#")[0] for link in links("README.md")}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")} <= linked
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "BENCHMARKS.md", "LICENSE"} <= linked
    assert set(PAGES) == {"README.md", "CONTRIBUTING.md"} | {
        link for link in linked if link.startswith("docs/") and link.endswith(".md")
    }


@pytest.mark.parametrize("page", [*PAGES, "BENCHMARKS.md"])
def test_files_and_knobs_in_the_prose_exist(page):
    wrong = []
    for span in spans(page):
        if path := re.match(r"(?:scripts|configs|gptjax|tests|docs|examples)/[\w/.-]+", span):
            if "NAME" not in path[0] and not (ROOT / path[0]).exists():
                wrong.append(f"there is no {path[0]}")
        for name in re.findall(rf"(?<![\w./-])((?:{_SECTIONS})\.[a-z]\w*)", span):
            if not name.endswith((".py", ".bin", ".safetensors")) and name not in KNOBS:
                wrong.append(f"there is no knob {name}")
    assert not wrong, f"{page}: " + "; ".join(wrong)


def test_config_files_in_the_documents_are_configs(tmp_path):
    examples = [
        block
        for page in PAGES
        for block in blocks(page)
        if block.language == "python" and "def get_config" in "\n".join(block.lines)
    ]
    assert examples
    for block in examples:
        (tmp_path / "example.py").write_text("\n".join(block.lines), encoding="utf-8")
        load_config(str(tmp_path / "example.py"), {})


def test_the_layout_names_every_module_and_no_other():
    _, _, after = text_of("docs/layout.md").partition("## The house\n")
    figure = re.search(r"^```\n(gptjax/\n.*?)^```", after, re.MULTILINE | re.DOTALL)
    assert figure, "docs/layout.md has no figure that begins with gptjax/"
    named, wing = [], ""
    for line in figure[1].splitlines()[1:]:
        word, what_it_is = line.split(maxsplit=1)
        assert what_it_is, line
        if word.endswith("/"):
            wing = word
        else:
            named.append((wing if line.startswith("    ") else "") + word)
    found = {
        path.relative_to(ROOT / "gptjax").as_posix()
        for path in (ROOT / "gptjax").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert len(named) == len(set(named))
    assert not set(named) - found, f"docs/layout.md names what is not: {set(named) - found}"
    assert not found - set(named), f"docs/layout.md lacks {found - set(named)}"


def test_the_environment_page_names_every_variable_of_gptjax():
    name = re.compile(r"GPTJAX_[A-Z]+(?:_[A-Z]+)*")
    sources = [*(ROOT / "gptjax").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    read = {word for path in sources for word in name.findall(path.read_text(encoding="utf-8"))}
    assert set(name.findall(text_of("docs/environment.md"))) == read


def test_every_promise_names_a_test_that_exists():
    """A promise that nothing holds is a wish. Rows are `| P7 | … | `test_p7_…` |`."""
    _, title, after = text_of("docs/checkpoints.md").partition("## What gptjax promises\n")
    assert title, 'docs/checkpoints.md has no section "## What gptjax promises"'
    section, _, _ = after.partition("\n## ")
    rows = {int(n): row for n, row in re.findall(r"^\| P(\d+) \|(.*)$", section, re.MULTILINE)}
    problems = []
    for number in range(1, 31):
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
            if name not in names_of_tests()
        ]
    assert not problems, "; ".join(problems)


def shell_line(command: Command) -> str:
    """What of a command line is run: not what builds an environment or checks the program."""
    kept = []
    for part, words in zip(command.line.split(" && "), command.parts(), strict=True):
        is_tool = Path(words[0]).name in _TOOLS or words[0] == "." or "venv" in words
        kept += [] if is_tool else [part]
    return " && ".join(kept)


def exit_code(line: str, *, interrupted: bool, folder: Path, environment: dict) -> tuple[int, str]:
    """Runs a line as from a terminal in `folder`; its exit code, and all that it printed."""
    with subprocess.Popen(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        printed = []
        for text in child.stdout:
            printed.append(text)
            if interrupted and re.match(r"step \d+/", text):
                os.killpg(child.pid, signal.SIGINT)
                interrupted = False
    return child.returncode, "".join(printed)


@pytest.fixture
def fresh_folder(tmp_path):
    """A copy of the repository with nothing made in it yet, and the environment of a user."""
    data = os.environ.get("GPTJAX_DATA_DIR", "")
    if not data or not (Path(data) / "tiny_shakespeare" / "input.txt").is_file():
        pytest.skip("wants GPTJAX_DATA_DIR with tiny_shakespeare/input.txt")
    folder = tmp_path / "gptjax"
    made = {"out", "data", ".git", ".venv", ".ci"}  # Or large, and not needed.
    everywhere = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*_cache", ".hypothesis")

    def ignored(where: str, names: list[str]) -> set[str]:
        return everywhere(where, names) | (made & set(names) if Path(where) == ROOT else set())

    shutil.copytree(ROOT, folder, ignore=ignored)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XLA_", "JAX_", "PYTEST_"))
    }
    environment |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(folder),
        "PYTHONUNBUFFERED": "1",
        "GPTJAX_CACHE_DIR": str(tmp_path / "cache"),
        "GPTJAX_DATA_DIR": str(Path(data).resolve()),
        # Whatever the machine has: JAX_PLATFORMS=cuda is shown where there is none.
        "CUDA_VISIBLE_DEVICES": "",
    }
    return folder, environment


@pytest.mark.slow
def test_every_documented_command_runs_as_written(fresh_folder):
    """One after the other, page by page: later ones use what earlier ones have made."""
    folder, environment = fresh_folder
    wrong = []
    for command in ALL_COMMANDS:
        line = "" if command.not_run else shell_line(command)
        if not line:
            print(f"not run: {command.where}: {command.line}: {command.not_run or 'a tool'}")
            continue
        is_interrupted = "^C" in command.printed
        wanted = 2 if command.fails else 130 if is_interrupted else 0
        print(f"{command.where}: {line}")
        code, printed = exit_code(
            line, interrupted=is_interrupted, folder=folder, environment=environment
        )
        if code != wanted:
            wrong.append(f"{command.where}: {line}: {code}, not {wanted}: {printed[-500:]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_page_on_python_runs(fresh_folder):
    folder, environment = fresh_folder
    program = "\n".join(
        "\n".join(block.lines)
        for block in blocks("docs/python.md")
        if block.language == "python" and not _NOT_RUN.fullmatch(block.above)
    )
    program += "\nprint(exit_code, logits.shape, run.losses.steps)"
    code, printed = exit_code(
        f"python -c {shlex.quote(program)}",
        interrupted=False,
        folder=folder,
        environment=environment,
    )
    assert code == 0, printed
    assert "0 (1, 6, 65) [ 0 30 60]" in printed.splitlines()[-1]
