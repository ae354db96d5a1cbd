"""A notebook's cell as a function: which names it needs, and how a worker runs it.

`run_cell` is what a worker calls: nothing of the workshop or of IPython is imported here.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import symtable
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

SIMPLE = (
    ast.Assign,
    ast.AnnAssign,
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)


class Missing:
    """Stands for a value that a cell could not give.

    Args:
        why: in words.
    """

    def __init__(self, why: str) -> None:
        """There is nothing but the words."""
        self.why = why

    def __repr__(self) -> str:
        """`<missing: the cell has not made it>`."""
        return f"<missing: {self.why}>"


def names_used(source: str, title: str = "<cell>") -> list[str]:
    """The names that a cell takes from outside: read before it has bound them itself, in the order of their use.

    What is bound only perhaps (in a branch, a loop) is taken from outside as well, where it is there.

    Raises:
        SyntaxError: it is no Python.
    """
    used: dict[str, None] = {}
    bound: set[str] = set()
    for statement in ast.parse(source, title).body:
        table = symtable.symtable(_plain(statement), "<cell>", "exec")
        used |= dict.fromkeys(name for name in _read(table, statement) if name not in bound)
        if isinstance(statement, SIMPLE):
            bound |= {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    return list(used)


def _plain(statement: ast.stmt) -> str:
    """Its text, with what is awaited outside a function taken as it stands: the names are the same."""
    return ast.unparse(_Unawaited().visit(ast.parse(ast.unparse(statement))))


class _Unawaited(ast.NodeTransformer):
    """Takes `await` and `async` away outside functions, where a symbol table has no place for them."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.generic_visit(node).value  # type: ignore[attr-defined, no-any-return]

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        return ast.For(node.target, node.iter, node.body, node.orelse, lineno=1)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        return ast.With(node.items, node.body, lineno=1)

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.is_async = 0
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return node


def _read(table: symtable.SymbolTable, statement: ast.stmt) -> Iterator[str]:
    """The module's names that a statement reads, wherever in it."""
    for node in ast.walk(statement):
        target = node.target if isinstance(node, ast.AugAssign) else None
        if isinstance(target, ast.Name) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del)):
            yield target.id if isinstance(target, ast.Name) else node.id  # type: ignore[attr-defined]
    yield from (s.get_name() for s in table.get_symbols() if s.is_referenced())
    for child in table.get_children():
        yield from _global(child)


def _global(table: symtable.SymbolTable) -> Iterator[str]:
    is_class = table.get_type() == "class"  # whose body reads from outside what it has not bound yet
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or (is_class and symbol.is_local())):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _global(child)


def taken(names: Iterable[str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `names` that `namespace` has; a built-in only where it was given another meaning."""
    found = {name: namespace[name] for name in names if name in namespace}
    return {name: value for name, value in found.items() if getattr(builtins, name, found) is not value}


def run_cell(source: str, title: str, namespace: dict[str, Any], keep: list[str]) -> Any:
    """The value of a cell's last expression, None where it has none; or that and the names to keep, as a pair.

    Args:
        source: the text.
        title: what a traceback calls it.
        namespace: the names that it uses.
        keep: names whose values at the end are wanted too; for what cannot be had, a `Missing` says why.

    Raises:
        BaseException: what the cell raises.
    """
    linecache.cache[title] = (len(source), None, source.splitlines(keepends=True), title)
    namespace |= {"__name__": "__main__", "__builtins__": builtins}
    *statements, last = ast.parse(source, title).body or [ast.Pass(lineno=1, col_offset=0)]
    is_silent = source.rstrip().endswith(";") or not isinstance(last, ast.Expr)
    body = statements if isinstance(last, ast.Expr) else [*statements, last]
    codes = [compile(ast.Module(body, []), title, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)]
    if isinstance(last, ast.Expr):
        codes.append(compile(ast.Expression(last.value), title, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    value = _do(codes, namespace)
    value = None if is_silent else value
    if not keep:
        return value
    return _sendable(value), {name: _kept(name, namespace) for name in keep}


def _do(codes: list[CodeType], namespace: dict[str, Any]) -> Any:
    """What the last of a cell's parts gives; where one awaits, all of them are on one loop."""
    if any(_awaits(code) for code in codes):
        import asyncio

        return asyncio.run(_do_awaiting(codes, namespace))
    value = None
    for code in codes:
        value = eval(code, namespace)  # noqa: S307 - the person's own cell
    return value


async def _do_awaiting(codes: list[CodeType], namespace: dict[str, Any]) -> Any:
    value = None
    for code in codes:
        value = eval(code, namespace)  # noqa: S307 - the person's own cell
        if _awaits(code):
            value = await value
    return value


def _awaits(code: CodeType) -> bool:
    return bool(inspect.CO_COROUTINE & code.co_flags)


def _kept(name: str, namespace: dict[str, Any]) -> Any:
    return _sendable(namespace[name]) if name in namespace else Missing("the cell has not made it")


def _sendable(value: Any) -> Any:
    """The value, or why it cannot leave its process: what else the cell has made is not lost for it."""
    from koubou_panel.kinds.packing import cloud_pickler, plain_pickler, safe_str

    why = ""
    for pickler in (plain_pickler, cloud_pickler):
        try:
            pickler(_Nowhere(), {}, lambda _: None).dump(value)
        except Exception as error:  # noqa: BLE001 - pickling runs the person's code
            why = safe_str(error)
        else:
            return value
    return Missing(f"a {type(value).__name__} cannot leave the task: {why}")


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)
