"""What tracing gives of a program: code for XLA, put into another program as a call."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.extend.mlir.dialects import func
from jax.interpreters import mlir

# Of arrays: shape and dtype.
Shapes = tuple[tuple[tuple[int, ...], str], ...]


@dataclasses.dataclass(frozen=True)
class Traced:
    """What tracing gives.

    (jax.export writes more of it down, and imports scipy to read it: a quarter of a second.)

    Attributes:
      code: StableHLO's bytecode.
      returns: the shapes and dtypes of what comes back.
    """

    code: bytes
    returns: Shapes

    def call(self, *leaves: jax.Array) -> list[jax.Array]:
        """Stands in a function that is to be compiled, in place of what has been traced."""
        return _traced_p.bind(*leaves, traced=self)


_traced_p = Primitive("traced")
_traced_p.multiple_results = True


@_traced_p.def_abstract_eval
def _traced_avals(*avals: Any, traced: Traced) -> list[jax.core.ShapedArray]:
    return [jax.core.ShapedArray(shape, jax.numpy.dtype(dtype)) for shape, dtype in traced.returns]


def _traced_lowering(context: Any, *values: Any, traced: Traced) -> Any:
    """The module becomes a function of the one that is being made, and is called."""
    target = context.module_context
    with target.module.context:
        module = mlir.ir.Module.parse(traced.code)
    main: Any = mlir.ir.SymbolTable(module.operation)["main"]
    results = main.type.results  # Before the module is merged, and is none any more.
    name = mlir.merge_mlir_modules(target.module, "traced", module, dst_symtab=target.symbol_table)
    return func.CallOp(results, mlir.ir.FlatSymbolRefAttr.get(name), values).results


mlir.register_lowering(_traced_p, _traced_lowering)


def shapes(tree: Any) -> Shapes:
    """Those of a tree's leaves."""
    return tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in jax.tree.leaves(tree))


def traced(lowered: jax.stages.Lowered) -> Traced:
    """What has been traced, of a function of arrays that uses all its arguments."""
    module: Any = lowered.compiler_ir("stablehlo")
    return Traced(mlir.module_to_bytecode(module), shapes(lowered.out_info))
