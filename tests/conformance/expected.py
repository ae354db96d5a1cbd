"""What the conformance suite finds: of the fixtures, that the wiring conforms; of the workshop's own server, this.

A scenario MEETS where what it looks at is there and right. It is HOLLOW where it passes although the server offers
nothing of the name that it calls: that counts for nothing. It WANTS where a fixture is asked for that only a server
made for the suite has; then the checks that fail are named here, each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
REVISIONS = (MODERN, LEGACY)

# Of what a revision requires, every scenario passes on the fixtures, without a warning. These beside them do not:
FIXTURES_WANT = {
    "json-schema-2020-12": [
        "json-schema-2020-12-tool-found"
    ],  # a schema that the SDK does not make of a signature
    "server-sse-polling": [
        "incoming-sse-event",
        "server-sse-priming-event",
        "server-sse-retry-field",
    ],  # an event store
}
# An extension that the SDK does not offer: its scenarios are pending, and required by no revision.
EXTENSION = "tasks-"


@dataclass(frozen=True)
class Wants:
    """A scenario that the workshop's server cannot pass: what it asks for, and the checks that fail for it."""

    what: str
    failing: tuple[str, ...]


MEETS = "meets"
HOLLOW = "hollow"

_TOOL = "a tool of that name"
_PROMPT = "a prompt of that name"
_RESOURCE = "a resource of that name"
_INPUT = "a tool that asks the client for more"

_BOTH: dict[str, str | Wants] = {
    "completion-complete": MEETS,
    "dns-rebinding-protection": MEETS,
    "json-schema-2020-12": Wants(_TOOL, ("json-schema-2020-12-tool-found",)),
    "prompts-get-embedded-resource": Wants(_PROMPT, ("prompts-get-embedded-resource",)),
    "prompts-get-simple": Wants(_PROMPT, ("prompts-get-simple",)),
    "prompts-get-with-args": Wants(_PROMPT, ("prompts-get-with-args",)),
    "prompts-get-with-image": Wants(_PROMPT, ("prompts-get-with-image",)),
    "prompts-list": MEETS,
    "resources-list": MEETS,
    "resources-read-binary": Wants(_RESOURCE, ("resources-read-binary",)),
    "resources-read-text": Wants(_RESOURCE, ("resources-read-text",)),
    "resources-templates-read": Wants(_RESOURCE, ("resources-templates-read",)),
    "server-sse-multiple-streams": MEETS,
    "tools-call-audio": Wants(_TOOL, ("tools-call-audio",)),
    "tools-call-embedded-resource": Wants(_TOOL, ("tools-call-embedded-resource",)),
    # These two pass on the words "unknown tool".
    "tools-call-error": HOLLOW,
    "tools-call-simple-text": HOLLOW,
    "tools-call-image": Wants(_TOOL, ("tools-call-image",)),
    "tools-call-mixed-content": Wants(_TOOL, ("tools-call-mixed-content",)),
    "tools-call-with-progress": Wants(_TOOL, ("tools-call-with-progress",)),
    "tools-list": MEETS,
}

OURS: dict[str, dict[str, str | Wants]] = {
    MODERN: _BOTH
    | {
        "caching": MEETS,
        "http-custom-header-server-validation": Wants(
            "a tool with an argument in a header",
            (
                "sep-2243-server-no-xmcp-tool",
                "sep-2243-server-decode-base64",
                "sep-2243-server-validate-param-match",
                "sep-2243-server-reject-invalid-param-chars",
                "sep-2243-server-reject-param-mismatch",
            ),
        ),
        "http-header-validation": MEETS,
        "input-required-result-basic-elicitation": Wants(_INPUT, ("sep-2322-elicitation-incomplete",)),
        "input-required-result-basic-list-roots": Wants(_INPUT, ("sep-2322-list-roots-incomplete",)),
        "input-required-result-basic-sampling": Wants(_INPUT, ("sep-2322-sampling-incomplete",)),
        "input-required-result-capability-check": Wants(_INPUT, ("sep-2322-respect-client-capabilities",)),
        "input-required-result-ignore-extra-params": HOLLOW,
        "input-required-result-missing-input-response": Wants(
            _INPUT, ("sep-2322-missing-response-rerequests",)
        ),
        "input-required-result-multi-round": Wants(_INPUT, ("sep-2322-multi-round-r1",)),
        "input-required-result-multiple-input-requests": Wants(
            _INPUT, ("sep-2322-multiple-inputs-incomplete",)
        ),
        "input-required-result-non-tool-request": Wants(_PROMPT, ("sep-2322-non-tool-incomplete",)),
        "input-required-result-request-state": Wants(_INPUT, ("sep-2322-request-state-incomplete",)),
        "input-required-result-result-type": Wants(_INPUT, ("sep-2322-result-type-included",)),
        "input-required-result-tampered-state": Wants(_INPUT, ("sep-2322-reject-tampered-state",)),
        "input-required-result-unsupported-methods": MEETS,
        "input-required-result-validate-input": Wants(_INPUT, ("sep-2322-error-on-protocol-error",)),
        "sep-2164-resource-not-found": MEETS,
        "server-stateless": Wants(
            "tools that need a capability, and that change what is offered",
            (
                "sep-2575-server-rejects-undeclared-capability",
                "sep-2575-missing-capability-http-400",
                "sep-2575-server-sends-prompts-list-changed-on-subscription",
                "sep-2575-server-sends-tools-list-changed-on-subscription",
            ),
        ),
    },
    LEGACY: _BOTH
    | {
        "elicitation-sep1034-defaults": Wants(_TOOL, ("elicitation-sep1034-general",)),
        "elicitation-sep1330-enums": Wants(_TOOL, ("elicitation-sep1330-general",)),
        "logging-set-level": Wants("a log over MCP, which the protocol has given up", ("logging-set-level",)),
        "ping": MEETS,
        "resources-subscribe": Wants(_RESOURCE, ("resources-subscribe",)),
        "resources-unsubscribe": Wants(_RESOURCE, ("resources-unsubscribe",)),
        "server-initialize": MEETS,
        "server-session-lifecycle": MEETS,
        "server-sse-polling": Wants(
            _TOOL, ("incoming-sse-event", "server-sse-priming-event", "server-sse-retry-field")
        ),
        "tools-call-elicitation": Wants(_TOOL, ("tools-call-elicitation",)),
        "tools-call-sampling": Wants(_TOOL, ("tools-call-sampling",)),
        "tools-call-with-logging": Wants(_TOOL, ("tools-call-with-logging",)),
    },
}
