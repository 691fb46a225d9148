"""Small changes of a program that a sharp test notices: an operator, constant or condition."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil"}


@dataclass(frozen=True)
class Mutant:
    """One change of a source file."""

    line: int
    before: str
    after: str
    source: str
    """The whole changed file."""


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a file's functions and of the defaults of its classes' fields."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    content = source.encode()
    made = []
    for node in _code(ast.parse(source)):
        changed = _changed(node)
        if changed is None or node.end_lineno is None or node.end_col_offset is None:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before, after = content[start:end].decode(), f"({ast.unparse(changed)})"
        if node.lineno == node.end_lineno:
            whole = content[:start] + after.encode() + content[end:]
            made.append(Mutant(node.lineno, before, after, whole.decode()))
    return made


def chosen(source: str, n: int, seed: int) -> list[Mutant]:
    """Return at most n mutants of a file, the same ones for the same seed, in order of line."""
    found = mutants(source)
    picked = random.Random(seed).sample(found, min(n, len(found)))
    return sorted(picked, key=lambda mutant: mutant.line)


def _code(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that are computed: no annotations, messages or decorators."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(tree, ast.FunctionDef) and child in (*tree.decorator_list, tree.returns):
            continue
        if isinstance(tree, ast.AnnAssign | ast.arg) and child is tree.annotation:
            continue
        if isinstance(tree, ast.Call) and _is_report(tree):
            continue
        if isinstance(child, ast.expr):
            yield child
        yield from _code(child)


def _is_report(call: ast.Call) -> bool:
    """Return whether a call only tells a reader something."""
    name = ast.unparse(call.func)
    return name.startswith("log.") or name in ("run.progress", "click.echo", "print")


def _changed(node: ast.expr) -> ast.expr | None:
    """Return a changed copy of an expression, or None if nothing in it can be changed."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=comparators):
            return ast.Compare(left, [COMPARISONS[type(op)]()], comparators)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            if isinstance(left, ast.Constant) and isinstance(left.value, str):
                return None
            return ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.BoolOp(op=op, values=values):
            return ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return operand
        case ast.Constant(value=bool(value)):
            return ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            return ast.Constant(value + 1)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return ast.IfExp(test, orelse, body)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=words) if name in OPPOSITES:
            return ast.Call(ast.Name(OPPOSITES[name]), args, words)
    return None
