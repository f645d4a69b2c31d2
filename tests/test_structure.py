"""The structure that docs/architecture.md describes, held against the tree."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "makermark"
MODULES = sorted(PACKAGE.rglob("*.py"))
VAGUE_NAMES = {
    "told",
    "heard",
    "found",
    "said",
    "kept",
    "place",
    "places",
    "each",
}  # they do not name what they hold
COMPATIBILITY = {"registering"}  # import path of models registered by version 0.1


def bound_names(path: Path) -> set[str]:
    """Return the names that a module binds: variables, parameters, attributes, functions, classes and aliases."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                names.add(name)
            case (
                ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Attribute(attr=name, ctx=ast.Store())
            ):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                names.add(name)
            case _:
                pass
    return names


def rooms() -> set[str]:
    return {
        path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"
    } - COMPATIBILITY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_modules_bind_no_vague_names(path):
    assert not bound_names(path) & VAGUE_NAMES


def test_package_has_at_most_20_top_level_entries():
    entries = [
        path for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.name != "py.typed"
    ]
    assert len(entries) <= 20


def test_architecture_page_describes_every_room():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [room for room in sorted(rooms()) if f"| `{room}` |" not in page] == []


def test_tests_mirror_the_rooms():
    folders = {path.name for path in (REPOSITORY / "tests").iterdir() if any(path.glob("**/test_*.py"))}
    assert folders - {"gpu", "fuzz"} == rooms()
