"""What devices send one another, counted by hand in a program written by hand and a real one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gptjax.device.collectives import Traffic, traffic

# Three micro-batches in each update; what stands outside of the updates' loop is not theirs.
PROGRAM = """\
HloModule jit_updates, entry_computation_layout={(f32[7,5]{1,0})->f32[7,5]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%micro_batch (m: (f32[7,5])) -> (f32[7,5]) {
  %g = bf16[20,6]{1,0} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %t = (f32[7,5]) tuple(%g)
}

%more (m: (f32[7,5])) -> pred[] {
  ROOT %c = pred[] constant(true)
}

%update (u: (f32[7,5])) -> (f32[7,5]) {
  %w = (f32[7,5]) while(%u), body=%micro_batch, backend_config={"known_trip_count":{"n":"3"}}
  %r = (f32[7,5]{1,0}, f32[3]{0}) all-reduce(%x, %y), replica_groups={{0,1,2,3,4,5,6,7}}
  %s = (f32[8,2]{1,0}, f32[2,2]{1,0}) reduce-scatter-start(%z), replica_groups={{0,1,2,3},{4,5,6,7}}
  ROOT %t = (f32[7,5]) tuple(%r)
}

ENTRY %main (p: f32[7,5]) -> f32[7,5] {
  %once = f32[100]{0} all-reduce(%p), replica_groups={}, to_apply=%add
  ROOT %w = (f32[7,5]) while(%p), condition=%more, body=%update
}
"""


def test_by_hand():
    found = {each.kind: each for each in traffic(PROGRAM, 8)}
    reduced, gathered = 4 * (7 * 5 + 3), 3 * 2 * 20 * 6
    assert found["all-reduce"] == Traffic("all-reduce", 1, reduced, reduced * 2 * 7 // 8)
    assert found["all-gather"] == Traffic("all-gather", 3, gathered, gathered * 3 // 4)
    # Each device is left with 2 x 2 of what was 8 x 2.
    assert found["reduce-scatter"] == Traffic("reduce-scatter", 1, 64, 48)
    assert set(found) == {"all-reduce", "all-gather", "reduce-scatter"}


def test_of_a_real_program():
    """A sum over four devices of a matrix of 3 x 5, in a loop whose length is an argument."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    split = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def updates(total_MN, x_BM, y_BN, n):
        def add(_, total_MN):
            return total_MN + jnp.sin(x_BM * total_MN.sum()).T @ y_BN

        return jax.lax.fori_loop(0, n, add, total_MN)

    def shape(*sizes, sharding):
        return jax.ShapeDtypeStruct(sizes, np.float32, sharding=sharding)

    arguments = (
        shape(3, 5, sharding=everywhere),
        shape(8, 3, sharding=split),
        shape(8, 5, sharding=split),
        jax.ShapeDtypeStruct((), np.int32, sharding=everywhere),
    )
    compiled = jax.jit(updates, out_shardings=everywhere).lower(*arguments).compile()
    text = compiled.as_text()
    assert traffic(text, 4) == [Traffic("all-reduce", 1, 60, 90)]
