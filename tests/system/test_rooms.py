"""Each room's ``__all__`` lists exactly the modules that other rooms import.

import-linter checks the order of the layers; these tests check the modules of each room. Tests may import every module.
"""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

ROOT = "lungstage"


def rooms_of(graph: grimp.ImportGraph) -> set[str]:
    return {module for module in graph.modules if graph.find_children(module)} - {ROOT}


def doors(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Return, for each room, its modules that are imported from outside."""
    found: dict[str, set[str]] = defaultdict(set)
    rooms = rooms_of(graph)
    for imported in graph.modules:
        for importer in graph.find_modules_that_directly_import(imported):
            parent, _, child = imported.rpartition(".")
            while parent in rooms and not f"{importer}.".startswith(f"{parent}."):
                found[parent].add(child)
                parent, _, child = parent.rpartition(".")
    return found


def own_names(room: str) -> set[str]:
    """Return the names that a room's ``__init__`` defines, without ``__all__``."""
    tree = ast.parse(Path(str(importlib.import_module(room).__file__)).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names - {"__all__"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(ROOT, cache_dir=None)


def test_a_room_has_the_doors_that_it_names_and_no_other(graph: grimp.ImportGraph) -> None:
    needed, faults = doors(graph), []
    for room in sorted(rooms_of(graph)):
        named = getattr(importlib.import_module(room), "__all__", None)
        own = own_names(room)
        if named is None or named != sorted(named) or {*named} - own != needed[room] - own:
            faults.append(f"{room}: __all__ = {sorted(needed[room] | ({*(named or ())} & own))}")
    assert not faults, "write these:\n" + "\n".join(faults)
