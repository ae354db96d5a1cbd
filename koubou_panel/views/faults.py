"""All that is wrong with a form, told at once: each at its field."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from koubou_panel.errors import Refused
from koubou_panel.views.language import _

MOST_FAULTS = 40

Form = Mapping[str, object]


class Faulty(Refused):
    """The form is refused for more than one reason.

    Args:
        first: what is told where one reason alone can be.
        faults: every reason, by the field that it is about.

    """

    def __init__(self, first: Refused, faults: Mapping[str, str]) -> None:
        super().__init__(first.code, first.message, field=first.field, nearest=first.nearest)
        self.faults = dict(faults)


def all_faults(
    first: Refused, check: Callable[[Form], object], form: Form, mend: Callable[[Form, str], Form]
) -> Refused:
    """The refusal of a form, with what else is wrong with it.

    A refusal tells of one field. That field is taken as if it was well, and the form is looked at again.

    Args:
        first: why the form was refused.
        check: looks at a form; raises `Refused`, in the form's own words for its fields.
        form: as it was filled in.
        mend: gives a form whose field of this name is well.
    """
    found: dict[str, str] = {}
    refused: Refused | None = first
    while refused is not None and refused.field and refused.field not in found and len(found) < MOST_FAULTS:
        found[refused.field] = refused.message
        form = mend(form, refused.field)
        refused = _refusal(check, form)
    return Faulty(first, found) if len(found) > 1 else first


def folder_in(text: str, field: str) -> str:
    """A folder as a person writes it, with `~` for a home; empty where none is given.

    Raises:
        Refused: it is not absolute.
    """
    text = text.strip()
    folder = text if "\0" in text else os.path.expanduser(text)  # noqa: PTH111 - Path's own raises for `~nobody`
    if folder and (not folder.startswith("/") or "\0" in folder):
        words = _("the folder must begin with / or ~, unlike {text}").format(text=repr(text[:60]))
        raise Refused("invalid", words, field=field)
    return folder


def _refusal(check: Callable[[Form], object], form: Form) -> Refused | None:
    try:
        check(form)
    except Refused as refused:
        return refused
    return None
