"""Mutants are valid programs, each changed in one place, and never in words that a reader sees."""

import ast

from tests.mutants.mutate import chosen, mutants

SOURCE = '''"""A docstring with 1 < 2."""
from typing import Annotated

def f(x: Annotated[int, 3], y=4):
    log.info("%s of 5", x + 6)
    if not x < y and x:
        raise ValueError(f"got {x + 7}")
    return max(x, y) * 2 if x in (8,) else -x
'''


def test_each_mutant_changes_one_place_of_the_code() -> None:
    changes = {(mutant.before, mutant.after) for mutant in mutants(SOURCE)}
    assert changes == {
        ("4", "(5)"),
        ("not x < y and x", "(not x < y or x)"),
        ("not x < y", "(x < y)"),
        ("x < y", "(x <= y)"),
        ("max(x, y) * 2 if x in (8,) else -x", "(-x if x in (8,) else max(x, y) * 2)"),
        ("max(x, y) * 2", "(max(x, y) + 2)"),
        ("max(x, y)", "(min(x, y))"),
        ("2", "(3)"),
        ("x in (8,)", "(x not in (8,))"),
        ("8", "(9)"),
        ("-x", "(x)"),
    }
    for mutant in mutants(SOURCE):
        changed = SOURCE.splitlines()
        assert ast.parse(mutant.source)
        lines = mutant.source.splitlines()
        assert [i for i, line in enumerate(lines, 1) if line != changed[i - 1]] == [mutant.line]


def test_a_seed_chooses_the_same_mutants() -> None:
    assert chosen(SOURCE, 3, 0) == chosen(SOURCE, 3, 0)
    assert len(chosen(SOURCE, 3, 0)) == 3
    assert len({tuple(m.line for m in chosen(SOURCE, 3, seed)) for seed in range(9)}) > 1
    assert len(chosen(SOURCE, 99, 0)) == len(mutants(SOURCE))
