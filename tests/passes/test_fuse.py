"""The shape of what fusion makes: how many nests, what is stored, what is vectorised."""

from __future__ import annotations

import time

import numpy as np
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value, walk
from wengert.ir.types import F32, F64, TensorType
from wengert.passes.bufferize import bufferize

RNG = np.random.default_rng(11)


def nests(module):
    return [op for op in module.main.body.ops if op.name == "loop.nest"]


def count(module, name):
    return sum(op.name == name for op in walk(module.main.body))


def row(b, x, n):
    return b.broadcast(x, shape=(*b.type(x).shape, n), axes=tuple(range(b.type(x).rank)))


def test_elementwise_chain_is_one_nest_without_memory(check_loops) -> None:
    def make(b, x, y):
        return b.exp(b.mul(b.add(x, y), b.reverse(y, axes=(0,))))

    module = check_loops([(6,), (6,)], make, RNG.normal(size=(2, 6)))
    (nest,) = nests(module)
    assert nest.attrs["dims"] == (6,)
    assert count(module, "loop.store") == 1
    assert count(module, "loop.load") == 3
    assert module.main.attrs["arena"] == 0


def test_outputs_of_one_shape_share_a_nest_and_its_loads(check_loops) -> None:
    module = check_loops([(6,)], lambda b, x: (b.exp(x), b.sin(x)), [RNG.normal(size=6)])
    assert len(nests(module)) == 1
    assert count(module, "loop.load") == 1


def test_value_used_twice_is_computed_once(check_loops) -> None:
    def make(b, x):
        y = b.exp(b.sin(x))
        return b.mul(y, y), b.add(y, x)

    module = check_loops([(6,)], make, [RNG.normal(size=6)])
    assert len(nests(module)) == 1
    assert count(module, "exp") == 1
    assert count(module, "loop.store") == 2  # none for y, which only this nest reads


def test_logsumexp_of_rows_is_one_nest_of_two_reductions(check_loops) -> None:
    def make(b, x):
        top = b.reduce_max(x, axes=(1,))
        total = b.reduce_sum(b.exp(b.sub(x, row(b, top, 5))), axes=(1,))
        return b.add(b.log(total), top)

    module = check_loops([(3, 5)], make, [RNG.normal(size=(3, 5))])
    (nest,) = nests(module)
    assert nest.attrs["dims"] == (3,)
    assert count(module, "loop.reduce") == 2


def test_reduction_of_a_reversed_expression_needs_no_memory(check_loops) -> None:
    def make(b, x):
        return b.reduce_sum(b.mul(b.exp(x), b.reverse(x, axes=(0,))), axes=(0,))

    module = check_loops([(7,)], make, [RNG.normal(size=7)])
    assert len(nests(module)) == 1
    assert module.main.attrs["arena"] == 0


def test_costly_operand_of_an_outer_product_gets_memory(check_loops) -> None:
    def make(b, x, y):
        left = b.broadcast(b.exp(b.sin(x)), shape=(4, 5), axes=(0,))
        right = b.broadcast(b.exp(b.cos(y)), shape=(4, 5), axes=(1,))
        return b.mul(left, right)

    module = check_loops([(4,), (5,)], make, [RNG.normal(size=4), RNG.normal(size=5)])
    (inner,) = [n for n in nests(module) if n.attrs["dims"] == (4, 5)]
    assert not any(op.name == "cos" for op in walk(inner.regions[0]))


def test_columns_are_summed_along_memory(check_loops) -> None:
    module = check_loops(
        [(6, 4)], lambda b, x: b.reduce_sum(x, axes=(0,)), [RNG.normal(size=(6, 4))]
    )
    (nest,) = nests(module)
    assert nest.attrs["simd"] == 0
    (reduce,) = nest.regions[0].ops[-2:-1]
    assert reduce.name == "loop.reduce" and reduce.attrs["simd"] == -1


def test_rows_are_summed_along_memory(check_loops) -> None:
    module = check_loops(
        [(6, 4)], lambda b, x: b.reduce_sum(x, axes=(1,)), [RNG.normal(size=(6, 4))]
    )
    (reduce,) = [op for op in walk(module.main.body) if op.name == "loop.reduce"]
    assert reduce.attrs["simd"] == 0


def test_stores_decide_what_is_vectorised_in_a_transposition(check_loops) -> None:
    """The store runs along axis 1, the load along axis 0, each once."""
    module = check_loops(
        [(3, 4)], lambda b, x: b.transpose(b.exp(x), perm=(1, 0)), [RNG.normal(size=(3, 4))]
    )
    (nest,) = nests(module)
    assert nest.attrs["dims"] == (4, 3)
    assert nest.attrs["simd"] == 1


def test_loads_of_a_reduction_decide_what_is_vectorised(check_loops) -> None:
    """The store runs along axis 1 once, the loads along axis 0 many times."""

    def make(b, x):
        turned = b.transpose(b.exp(x), perm=(2, 1, 0))
        return b.reduce_sum(turned, axes=(1,))

    module = check_loops([(3, 5, 4)], make, [RNG.normal(size=(3, 5, 4))])
    (nest,) = nests(module)
    assert nest.attrs["dims"] == (4, 3)
    assert nest.attrs["simd"] == 0
    (reduce,) = [op for op in walk(nest.regions[0]) if op.name == "loop.reduce"]
    assert reduce.attrs["simd"] == -1


def test_only_large_work_is_shared_among_threads() -> None:
    for size, parallel in ((100, 0), (10_000_000, 1)):
        block = Block([Value(TensorType(F32, (size,)))])
        b = Builder(block)
        block.results = [b.exp(block.params[0])]
        (nest,) = nests(bufferize(Module({"f": Function("f", block)}, "f")))
        assert nest.attrs["parallel"] == parallel


def test_ten_thousand_operations_are_one_nest_in_little_time() -> None:
    block = Block([Value(TensorType(F64, (1_000_000,))) for _ in range(2)])
    b = Builder(block)
    x, y = block.params
    v = b.add(x, y)
    for i in range(10_000):
        v = b.add(v, x) if i % 2 else b.mul(v, y)
    block.results = [v]
    start = time.perf_counter()
    module = bufferize(Module({"f": Function("f", block)}, "f"))
    assert time.perf_counter() - start < 5
    assert len(nests(module)) == 1
    assert count(module, "loop.store") == 1
    assert count(module, "loop.load") == 2


def test_deep_chain_of_moves_does_not_recurse_deeply(check_loops) -> None:
    def make(b, x):
        for _ in range(600):
            x = b.neg(b.reverse(x, axes=(0,)))
        return x

    check_loops([(3,)], make, [RNG.normal(size=3)])
