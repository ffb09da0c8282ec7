"""How much XLA optimizes what tests compile."""

import os

# Neither LLVM's optimizations nor XLA's new emitters, and no program split into parts that are
# compiled side by side: a program of a test's size is compiled in a quarter of the time. Every
# version of jaxlib that pyproject.toml allows knows these flags.
LITTLE = (
    "--xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)

_OPTIMIZED = bool(os.environ.get("GPTJAX_TEST_OPTIMIZED"))

_of_commands = ""


def flags_here() -> str:
    """XLA's flags for this process."""
    return "" if _OPTIMIZED else LITTLE


def decide_for_commands(marks: str) -> None:
    """The default tests' commands are compiled as this process is, the slow ones' as for users.

    `marks` is what pytest's -m says.
    """
    global _of_commands
    _of_commands = flags_here() if "not slow" in marks else ""


def environment() -> dict[str, str]:
    """What is added to the environment of a command that a test starts."""
    return {"XLA_FLAGS": _of_commands} if _of_commands else {}
