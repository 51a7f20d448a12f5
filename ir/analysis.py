"""Questions about the IR, answered with networkx: calls, uses, pictures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .core import Block, Function, Module, Op, Value, walk
from .opdef import symbols

if TYPE_CHECKING:
    import networkx


def call_graph(module: Module) -> networkx.DiGraph[str]:
    """Functions as nodes, an edge from each to those that its ops name."""
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    for name, function in module.functions.items():
        graph.add_node(name)
        for op in walk(function.body):
            graph.add_edges_from((name, callee) for callee in symbols(op))
    return graph


def uses(function: Function) -> dict[Value, list[Op]]:
    """For each value, the ops that take it as an operand, in order."""
    found: dict[Value, list[Op]] = {}
    for op in walk(function.body):
        for v in op.operands:
            found.setdefault(v, []).append(op)
    return found


def use_def_graph(function: Function) -> networkx.DiGraph[int]:
    """Ops as nodes (numbered as `walk` gives them, attribute `op`), an edge along each use."""
    import networkx

    graph: networkx.DiGraph[int] = networkx.DiGraph()
    maker: dict[Value, int] = {}
    for number, op in enumerate(walk(function.body)):
        graph.add_node(number, op=op.name)
        maker.update((r, number) for r in op.results)
    for number, op in enumerate(walk(function.body)):
        results = [v for region in op.regions for v in region.results]
        for v in (*op.operands, *results):
            if v in maker and maker[v] != number:
                graph.add_edge(maker[v], number)
    return graph


def op_counts(function: Function) -> Counter[str]:
    """How often each op occurs, regions included."""
    return Counter(op.name for op in walk(function.body))


def to_dot(module: Module) -> str:
    """The module as a DOT graph: a cluster a function and a region, an edge a use."""
    writer = _Dot()
    for function in module.functions.values():
        writer.function(function)
    return "\n".join(
        ["digraph module {", "  node [shape=box, fontname=monospace];", *writer.lines, "}"]
    )


class _Dot:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.node: dict[Value, str] = {}
        self.count = 0

    def new(self, label: str, indent: str) -> str:
        self.count += 1
        text = label.replace("\\", "\\\\").replace('"', '\\"')
        self.lines.append(f'{indent}n{self.count} [label="{text}"];')
        return f"n{self.count}"

    def function(self, function: Function) -> None:
        self.lines.append(f'  subgraph "cluster_{function.name}" {{ label="@{function.name}";')
        self.block(function.body, "    ")
        out = self.new("return", "    ")
        self.edges(function.results, out, "    ")
        self.lines.append("  }")

    def block(self, block: Block, indent: str) -> None:
        for p in block.params:
            self.node[p] = self.new(f"%{p.name or 'v'}: {p.type}", indent)
        for op in block.ops:
            types = ", ".join(str(r.type) for r in op.results)
            node = self.new(f"{op.name}: {types}" if types else op.name, indent)
            self.edges(op.operands, node, indent)
            for i, region in enumerate(op.regions):
                self.lines.append(f'{indent}subgraph "cluster_{node}_{i}" {{ label="{op.name}";')
                self.block(region, indent + "  ")
                self.lines.append(f"{indent}}}")
                self.edges(region.results, node, indent)
            self.node.update((r, node) for r in op.results)

    def edges(self, values: list[Value] | tuple[Value, ...], node: str, indent: str) -> None:
        for v in values:
            if v in self.node:
                self.lines.append(f"{indent}{self.node[v]} -> {node};")
