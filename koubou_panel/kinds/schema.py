"""JSON schemas of answers: checked before anything is asked, held against the answer after.

Nothing that a schema refers to is ever fetched, neither from a URL nor from a file.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, cast

from koubou_panel.errors import KoubouError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from jsonschema.protocols import Validator

MOST_WORDS = 500
SMALL_PARTS, SMALL_OBJECTS = 5_000, 200
GRAMMAR = "rfc3987_syntax"


class NotASchema(KoubouError):
    """A schema is none, or cannot be followed."""


class NotFitting(KoubouError):
    """A document is not what its schema asks for."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """That a schema is one.

    Raises:
        NotASchema: where it is not, and why.
    """
    jsonschema = _library()
    try:
        # Which other formats can be checked depends on what else is installed.
        formats = jsonschema.FormatChecker(formats=("regex",))
        _validator(schema).check_schema(schema, format_checker=formats)
    except jsonschema.SchemaError as error:
        raise NotASchema(f"{error.json_path}: {error.message[:MOST_WORDS]}") from None
    except RecursionError:
        raise NotASchema("it is nested too deeply") from None


def is_small(schema: Mapping[str, Any]) -> bool:
    """Whether it takes no longer to check than a moment, some 0.1 s."""
    parts, objects, waiting = 0, 0, [cast("object", schema)]
    while waiting and parts <= SMALL_PARTS and objects <= SMALL_OBJECTS:
        part = waiting.pop()
        parts += 1
        objects += isinstance(part, dict)
        if isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
    return not waiting and parts <= SMALL_PARTS and objects <= SMALL_OBJECTS


def check_answer(document: object, schema: Mapping[str, Any]) -> None:
    """That a document is what a schema asks for.

    Raises:
        NotFitting: the place, and what is not right there.
        NotASchema: it cannot be followed: what it refers to is not in it, or leads in a circle.
    """
    import re

    jsonschema = _library()
    from jsonschema.exceptions import UnknownType
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # A part under a keyword of its own is checked by nobody before something refers to it.
    wrong = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, re.error, UnknownType)

    try:
        # The registry is empty: the library's own would fetch what is not there.
        found = jsonschema.exceptions.best_match(
            _validator(schema)(schema, registry=Registry()).iter_errors(document)
        )
    except Unresolvable as error:
        named = getattr(error, "anchor", "") or error.ref
        words = f"it refers to {named!r}, which it does not hold; nothing is fetched: put it under $defs"
        raise NotASchema(words) from None
    except RecursionError:
        raise NotASchema("it leads in a circle, or is nested too deeply") from None
    except wrong as error:
        raise NotASchema(str(error)[:MOST_WORDS] or type(error).__name__) from None
    if found is not None:
        raise NotFitting(f"{found.json_path}: {found.message[:MOST_WORDS]}")


def _library() -> ModuleType:
    """jsonschema, loaded late, since most prompts have no schema.

    Where JupyterLab is installed it would load a grammar of addresses, two seconds of processor, for formats that
    nobody here asks for; so it does not find it.
    """
    is_hidden = "jsonschema" not in sys.modules and GRAMMAR not in sys.modules
    if is_hidden:
        sys.modules[GRAMMAR] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("jsonschema")
    finally:
        if is_hidden:
            del sys.modules[GRAMMAR]


def _validator(schema: Mapping[str, Any]) -> type[Validator]:
    """The rules of the draft that a schema names; of the newest, where it names none that is known."""
    jsonschema = _library()
    newest = jsonschema.Draft202012Validator
    is_named = isinstance(schema.get("$schema"), str)
    found: type[Validator] = jsonschema.validators.validator_for(schema, newest) if is_named else newest
    return found
