"""What the fields of a request are called at each of the agents' doors: a refusal names what its reader sent."""

from __future__ import annotations

from collections.abc import Mapping

from koubou_panel.errors import Refused

# The workshop's own words for fields that are called otherwise there; the first that fits counts.
TOOL_FIELDS: Mapping[str, str] = {"spec": "", "limits": ""}
REST_FIELDS: Mapping[str, str] = {
    "kind": "type",
    "script_name": "script",
    "timeout_s": "options.timeout",
    "retries": "options.retries",
    "after": "options.after",
    "labels": "options.labels",
    "idempotency_key": "options.idempotency_key",
    "on_crash": "options.on_crash",
    "name": "options.name",
    **{
        f"spec.{name}": f"options.{name}"
        for name in ("cwd", "env", "model", "system", "schema", "max_tokens", "temperature", "seed")
    },
    "spec": "",
}
# Of a kind that has no words of its own there, `parameters` is the whole description.
REST_KIND_FIELDS: Mapping[str, str] = {
    **REST_FIELDS,
    **{name: name.replace("spec", "parameters", 1) for name in REST_FIELDS if name.startswith("spec")},
}


def renamed(refused: Refused, fields: Mapping[str, str]) -> Refused:
    """A refusal with its field, in its words too, as `fields` has it: the name, or what it begins with."""
    field = refused.field
    if field is None:
        return refused
    ours = _renamed(field, fields)
    if ours == field:
        return refused
    words = refused.message
    if "." in field:
        words = words.replace(field, ours)
    elif words.startswith(f"{field} "):  # within a sentence a plain word may stand for itself
        words = ours + words.removeprefix(field)
    return Refused(refused.code, words, field=ours, nearest=refused.nearest)


def _renamed(field: str, fields: Mapping[str, str]) -> str:
    for known, ours in fields.items():
        if field == known and ours:
            return ours
        rest = field.removeprefix(known)
        if rest != field and rest[:1] in (".", "["):
            return ours + rest if ours else rest.removeprefix(".")
    return field


def check_folder(cwd: str | None) -> None:
    """Refuse a working folder that is not a whole name: nobody can know what it would begin at.

    Raises:
        Refused: code `invalid`, field `spec.cwd`.
    """
    if cwd is not None and not cwd.startswith("/"):
        raise Refused("invalid", f"spec.cwd must be an absolute path, not {cwd[:100]!r}", field="spec.cwd")
