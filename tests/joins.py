"""Finds joins of a folder and a name in Python source: which of them could join a name that was read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TypeGuard

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
_GIVE_PATHS = {
    "Path",
    "PurePath",
    "inside",
    "atomic_folder",
    "_draft",
    "unique_beside",
    "TemporaryDirectory",
    "temporary_folder",
}
_KEEP_PATHS = {
    "resolve",
    "absolute",
    "expanduser",
    "with_name",
    "with_suffix",
    "relative_to",
    "joinpath",
    "parent",
    "home",
    "cwd",
}
_BINDINGS = (ast.AnnAssign, ast.Assign, ast.NamedExpr, ast.For, ast.comprehension, ast.withitem)
_LIST_PATHS = {"rglob", "glob", "iterdir"}


class Joins:
    """The joins in some files. A variable is a path if it is annotated as one or assigned from one.

    Args:
        sources: text of the files, by name.
    """

    def __init__(self, sources: dict[str, str]) -> None:
        self._trees = {name: ast.parse(text) for name, text in sources.items()}
        self._attributes = {"path"}  # of KFP artifacts
        for tree in self._trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self._attributes |= {
                        one.target.id
                        for one in node.body
                        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and _is_path(one)
                    }
        self._global = {
            target.id
            for tree in self._trees.values()
            for node in tree.body
            if isinstance(node, ast.Assign) and self._path(node.value, set())
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def unchecked(self) -> Iterator[str]:
        """Joins with anything but a name that is written in the code: `file: expression`."""
        for file, tree in self._trees.items():
            for node, paths in self._nodes(tree):
                if self._joins(node, paths):
                    yield f"{file}: {ast.unparse(node)}"

    def unknown(self) -> Iterator[str]:
        """Quotients of something and a text, which are joins, whose left side was not known for a path."""
        for file, tree in self._trees.items():
            for node, paths in self._nodes(tree):
                if (
                    _quotient(node)
                    and isinstance(node.right, ast.Constant)
                    and _written(node.right)
                    and not self._path(node.left, paths)
                ):
                    yield f"{file}: {ast.unparse(node)}"

    def _joins(self, node: ast.AST, paths: set[str]) -> bool:
        if _quotient(node):
            return self._path(node.left, paths) and not _written(node.right)
        if not isinstance(node, ast.Call):
            return False
        called = _dotted(node.func)
        if called in ("storage.join", "os.path.join", "Path") or called.endswith(".joinpath"):
            parts = node.args if called.endswith(".joinpath") else node.args[1:]
            formatted = called == "Path" and any(map(_slashed, node.args))
            return formatted or not all(map(_written, parts))
        return called.startswith(("storage.", "remote.")) and any(map(_slashed, node.args))

    def _nodes(self, tree: ast.Module) -> Iterator[tuple[ast.AST, set[str]]]:
        """Every node, with the names that are paths where it is."""
        known: dict[ast.AST, set[str]] = {}
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):  # outer ones first
            paths = self._local(function) | known.get(function, self._global)
            known |= dict.fromkeys(ast.walk(function), paths)
        for node in ast.walk(tree):
            yield node, known.get(node, self._global)

    def _local(self, function: ast.FunctionDef) -> set[str]:
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        paths = {argument.arg for argument in arguments if _is_path(argument)} | self._global
        nodes = [node for node in ast.walk(function) if isinstance(node, _BINDINGS)]
        for _ in range(2):  # what is assigned from what is assigned
            for node in nodes:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _is_path(node):
                    paths.add(node.target.id)
                elif isinstance(node, ast.Assign):
                    for target in node.targets:
                        paths |= set(self._assigned(target, node.value, paths))
                elif isinstance(node, ast.NamedExpr):
                    paths |= set(self._assigned(node.target, node.value, paths))
                elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                    paths |= set(self._assigned(node.optional_vars, node.context_expr, paths))
                elif isinstance(node, ast.For | ast.comprehension):
                    paths |= set(self._assigned(node.target, node.iter, paths, each=True))
        return paths

    def _assigned(self, target: ast.expr, value: ast.expr, paths: set[str], *, each: bool = False) -> Iterator[str]:
        if not each and isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, its in zip(target.elts, value.elts, strict=False):
                yield from self._assigned(one, its, paths)
        elif isinstance(target, ast.Name) and self._path(value, paths):
            yield target.id

    def _path(self, value: ast.expr, paths: set[str]) -> bool:
        if isinstance(value, ast.Name):
            return value.id in paths
        if isinstance(value, ast.Starred):
            return _dotted(value.value).endswith(".parents")
        if isinstance(value, ast.Attribute):
            return value.attr in self._attributes or (value.attr in _KEEP_PATHS and self._path(value.value, paths))
        if isinstance(value, ast.Call):
            name = value.func.id if isinstance(value.func, ast.Name) else getattr(value.func, "attr", "")
            return name in _GIVE_PATHS | _LIST_PATHS or (
                isinstance(value.func, ast.Attribute)
                and name in _KEEP_PATHS
                and (_dotted(value.func.value) == "Path" or self._path(value.func.value, paths))
            )
        if isinstance(value, ast.Tuple):
            return any(self._path(one, paths) for one in value.elts)
        if isinstance(value, ast.IfExp):
            return self._path(value.body, paths) or self._path(value.orelse, paths)
        if isinstance(value, ast.BoolOp):
            return any(self._path(one, paths) for one in value.values)
        if isinstance(value, ast.Subscript):  # of parents, of a mapping to paths
            return self._path(value.value, paths) or _dotted(value.value).endswith(".parents")
        return _quotient(value) and self._path(value.left, paths)


def _is_path(node: ast.AnnAssign | ast.arg) -> bool:
    return node.annotation is not None and bool(re.search(r"\bPath\b", ast.unparse(node.annotation)))


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of names and attributes; what is before the last call or index is left out."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _quotient(node: ast.AST) -> TypeGuard[ast.BinOp]:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)


def _written(node: ast.expr) -> bool:
    """A text in the code, or a constant that is called like one."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    return bool(_CONSTANT.fullmatch(_dotted(node).rpartition(".")[2]))


def _slashed(node: ast.expr) -> bool:
    """A formatted text in which a value follows a slash."""
    if not isinstance(node, ast.JoinedStr):
        return False
    pairs = zip(node.values, node.values[1:], strict=False)
    return any(isinstance(a, ast.Constant) and str(a.value).endswith("/") for a, b in pairs if not _made(b))


def _made(node: ast.expr) -> bool:
    return not isinstance(node, ast.FormattedValue)
