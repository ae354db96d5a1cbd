"""Kind `prompt`: checks of a spec, the real small model, and servers that are not as they should be."""

from __future__ import annotations

import json
import pickle

import pytest

from koubou_panel.core.records import Job, Outcome
from koubou_panel.errors import Refused
from koubou_panel.kinds.prompt import PromptKind
from tests.kinds.odd_server import chat, event, models, refusing, send_json, serving

MODEL = "smollm2-135m-instruct"
PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer", "maximum": 9}},
    "required": ["age"],
    "additionalProperties": False,
}


def ask(context, **spec: object) -> Outcome:
    """Prepare and run a spec, as a worker does."""
    kind = PromptKind()
    checked = kind.prepare({"prompt": "Say hello."} | spec, b"").spec
    return kind.run(Job("t", 1, 0, "prompt", checked, b""), context)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.prompt"),
        ({"prompt": "  "}, "spec.prompt"),
        ({"prompt": 3}, "spec.prompt"),
        ({"prompt": "a" * 1_048_577}, "spec.prompt"),
        ({"prompt": "a\udcff"}, "spec.prompt"),
        ({"prompt": "a", "system": "a" * 1_048_577}, "spec.system"),
        ({"prompt": "a", "messages": []}, "spec.prompt"),
        ({"messages": []}, "spec.messages"),
        ({"messages": ["a"]}, "spec.messages[0]"),
        ({"messages": [{"role": "user", "content": "a", "more": 1}]}, "spec.messages[0]"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "spec.messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "spec.messages[0].content"),
        ({"prompt": "a", "modle": "b"}, "spec.modle"),
        ({"prompt": "a", "model": 1}, "spec.model"),
        ({"prompt": "a", "schema": "{}"}, "spec.schema"),
        ({"prompt": "a", "max_tokens": 0}, "spec.max_tokens"),
        ({"prompt": "a", "max_tokens": True}, "spec.max_tokens"),
        ({"prompt": "a", "temperature": 3}, "spec.temperature"),
        ({"prompt": "a", "seed": 1.5}, "spec.seed"),
        ({"prompt": "a", "url": "file:///etc/passwd"}, "spec.url"),
        ({"prompt": "a", "url": "http://user@host"}, "spec.url"),
    ],
)
def test_spec_is_refused_by_field(spec, field) -> None:
    """What cannot be asked is refused, naming the field."""
    with pytest.raises(Refused) as refused:
        PromptKind().prepare(spec, b"")
    assert refused.value.code == "invalid"
    assert refused.value.field == field


def test_unknown_field_suggests_the_nearest() -> None:
    """A misspelt field is answered with the right one."""
    with pytest.raises(Refused, match="did you mean 'model'"):
        PromptKind().prepare({"prompt": "a", "modle": "b"}, b"")


def test_summary_is_what_is_asked() -> None:
    """The words for a list are the prompt's own, or the last message's, on one line."""
    assert PromptKind().prepare({"prompt": "Why\n is it?"}, b"").summary == "Why is it?"
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]
    assert PromptKind().prepare({"messages": messages}, b"").summary == "Who?"


def test_real_model_answers_token_by_token(context) -> None:
    """The answer comes as output piece by piece, with its tokens counted by the server and told as progress."""
    pieces: list[bytes] = []
    context.output.on_write = pieces.append
    outcome = ask(context, max_tokens=6, temperature=0, seed=1)
    assert (outcome.reason, outcome.message) == (None, "")
    assert len(pieces) >= 3
    assert pickle.loads(outcome.value) == (True, context.output.text)
    assert outcome.result in context.output.text
    usage = outcome.usage
    assert usage.completion_tokens == 6
    assert usage.prompt_tokens > 3
    assert 0 < usage.first_token_s < usage.duration_s
    assert usage.tokens_per_s > 0
    assert context.told[0][3] == f"{MODEL} reads the prompt"
    assert (len(pieces), None, "tokens", MODEL) in context.told
    assert context.told[-1][3] == f"{MODEL}, cut off at its length"


def test_messages_system_and_unicode_are_asked(context) -> None:
    """A conversation in any script is taken as it is."""
    messages = [
        {"role": "user", "content": "こんにちは 🦙"},
        {"role": "assistant", "content": "Hallo!"},
        {"role": "user", "content": "Say é."},
    ]
    outcome = ask(context, prompt=None, messages=messages, system="Be short.", model=MODEL, max_tokens=2)
    assert outcome.reason is None
    assert 1 <= outcome.usage.completion_tokens <= 2


def test_real_model_answers_by_a_schema(context) -> None:
    """With a schema the answer is JSON that fits it, and the short result is that on one line."""
    outcome = ask(context, prompt="A child.", schema=PERSON, max_tokens=60, temperature=0)
    assert outcome.message == ""
    assert json.loads(context.output.text) == json.loads(outcome.result)
    assert isinstance(json.loads(outcome.result)["age"], int)


def test_schema_that_the_server_cannot_use_is_told(context) -> None:
    """A schema that the server cannot follow fails with its words."""
    outcome = ask(context, schema={"$ref": "#/$defs/nope"}, max_tokens=2)
    assert outcome.reason == "start"
    assert "does not answer by this schema" in outcome.message
    assert "nope" in outcome.message


@pytest.mark.parametrize(
    "schema",
    [{"type": "nonsense"}, {"pattern": "("}, {"$schema": 3}, {"properties": {"a": 1}}, {"required": "a"}],
)
def test_schema_that_is_none_is_refused(schema) -> None:
    """What is no JSON schema is refused by its field before anything is asked."""
    with pytest.raises(Refused, match="is no JSON schema") as caught:
        PromptKind().prepare({"prompt": "x", "schema": schema}, b"")
    assert caught.value.field == "spec.schema"


def test_large_schema_is_checked_by_the_run(bare) -> None:
    """It takes too long to check where it is handed in: its run does so, before it asks anybody."""
    with serving(chat(event("1"), event(finish="stop"))) as (url, asked):
        outcome = ask(bare, url=url, schema={"allOf": [{}] * 250 + [{"type": "nonsense"}]})
        assert asked == []
        assert (outcome.reason, bare.output.text) == ("start", "")
        assert "no JSON schema: $.allOf[250].type" in outcome.message
        assert ask(bare, url=url, schema={"allOf": [{}] * 250}).reason is None


def test_deep_schema_is_refused(bare) -> None:
    """One that is nested too deeply is told, wherever it is checked."""
    schema: dict = {}
    for _ in range(190):
        schema = {"not": schema}
    with pytest.raises(Refused, match="nested too deeply"):
        PromptKind().prepare({"prompt": "x", "schema": schema}, b"")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/$defs/nope"}, "'/$defs/nope', which it does not hold"),
        ({"$ref": "#nope"}, "'nope', which it does not hold"),
        ({"$ref": "#"}, "in a circle"),
        ({"$id": "http://[", "$ref": "a"}, "cannot be followed"),
        ({"$ref": "#/own", "own": {"type": "nonsense"}}, "Unknown type 'nonsense'"),
        (
            {"$ref": "#/own", "own": {"propertyNames": {"pattern": "("}, "minProperties": "a"}},
            "cannot be followed",
        ),
        ({"$ref": "#/own", "own": 3}, "cannot be followed"),
    ],
)
def test_schema_that_cannot_be_followed_fails_with_its_costs(bare, schema, words) -> None:
    """What a schema refers to must be in it; the run fails, with the answer and its tokens kept."""
    with serving(chat(event("{}", usage={"completion_tokens": 7}), event(finish="stop"))) as (url, _):
        outcome = ask(bare, url=url, schema=schema)
    assert outcome.reason == "start"
    assert words in outcome.message
    assert (outcome.usage.completion_tokens, bare.output.text) == (7, "{}")


def test_tokens_of_an_answer_without_a_sign_are_told(bare) -> None:
    """Tokens that make no whole character yet are counted as the server counted them."""
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    with serving(chat(event(finish="length", usage=usage), b"data: [DONE]\n\n")) as (url, _):
        outcome = ask(bare, url=url)
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (9, 2)


def test_nothing_that_a_schema_refers_to_is_fetched(bare, tmp_path) -> None:
    """Neither an address nor a file is read, whatever a schema names."""
    file = tmp_path / "schema.json"
    file.write_text("{}")
    with serving(chat(event("{}"), event(finish="stop"))) as (url, asked):
        for ref in (f"{url}/schema", file.as_uri()):
            outcome = ask(bare, url=url, schema={"$ref": ref})
            assert f"it refers to {ref!r}, which it does not hold" in outcome.message
    assert {path for path, _ in asked} == {"/v1/models", "/v1/chat/completions"}


def test_answer_that_is_nested_too_deeply_is_told(bare) -> None:
    """Brackets without end are no answer; what they cost is kept."""
    with serving(chat(event("[" * 100_000), event(finish="stop"))) as (url, _):
        outcome = ask(bare, url=url, schema={})
    assert "nested too deeply" in outcome.message
    assert outcome.usage.completion_tokens == 1


def test_prompt_that_is_too_long_is_told(context) -> None:
    """A prompt beyond the context fails at once, saying how much there is room for."""
    outcome = ask(context, prompt="long " * 9_000)
    assert outcome.reason == "start"
    assert outcome.message.startswith(f"the prompt is too long for {MODEL}: ")
    assert "shorten it" in outcome.message


def test_unknown_model_names_those_there_are(context) -> None:
    """A misspelt model is answered with the nearest, and with all."""
    outcome = ask(context, model="smollm2-135m-instrukt")
    assert outcome.reason == "start"
    assert f"did you mean '{MODEL}'" in outcome.message
    assert f"The models here: {MODEL}" in outcome.message


def test_server_without_usage_has_its_pieces_counted(bare) -> None:
    """Where the server tells no usage, each piece counts as a token."""
    with serving(chat(event("a"), event("b"), event("c"), event(finish="stop"), b"data: [DONE]\n\n")) as (
        url,
        asked,
    ):
        outcome = ask(bare, url=f"{url}/v1", system="Hm.", seed=3)
    assert outcome.reason is None
    assert bare.output.text == "abc"
    assert (outcome.usage.completion_tokens, outcome.usage.prompt_tokens) == (3, None)
    path, body = asked[-1]
    assert path == "/v1/chat/completions"
    assert body["stream_options"] == {"include_usage": True}
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert (body["seed"], body["model"]) == (3, "odd")


def test_line_separators_do_not_cut_a_piece(bare) -> None:
    """U+2028 and the like in an answer are text, also where JSON holds them as they are."""
    with serving(chat(event("a\u2028b\x85c"), event(finish="stop"))) as (url, _):
        outcome = ask(bare, url=url)
    assert outcome.reason is None
    assert bare.output.text == "a\u2028b\x85c"


def test_thoughts_are_no_part_of_the_answer(bare) -> None:
    """What a model thinks first is counted and not printed."""
    thought = b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    with serving(chat(thought, event("x"), event(finish="stop"))) as (url, _):
        outcome = ask(bare, url=url)
    assert bare.output.text == "x"
    assert 1 <= outcome.usage.completion_tokens <= 2


def test_connection_that_is_cut_keeps_what_came(bare) -> None:
    """An answer that breaks off is a failure that says so, with what came in the output."""
    with serving(chat(event("half"))) as (url, _):
        outcome = ask(bare, url=url)
    assert outcome.reason == "exception"
    assert "in the middle" in outcome.message
    assert bare.output.text == "half"
    assert outcome.usage.completion_tokens == 1


def test_error_in_the_stream_is_told(bare) -> None:
    """An error that comes after the first piece is the task's message."""
    with serving(chat(event("half"), b'data: {"error": {"message": "out of memory"}}\n\n')) as (url, _):
        outcome = ask(bare, url=url)
    assert (outcome.reason, outcome.message) == ("exception", "odd broke off: out of memory")


@pytest.mark.parametrize(
    ("status", "document", "reason", "words"),
    [
        (500, {"error": {"message": "CUDA error"}}, "exception", "answered HTTP 500: CUDA error"),
        (429, {"error": "slow down"}, "exception", "answered HTTP 429: slow down"),
        (422, {"detail": "bad body"}, "start", "answered HTTP 422: bad body"),
        (404, {"object": "error", "message": "no such model"}, "start", "answered HTTP 404: no such model"),
        (
            400,
            {"error": {"message": "maximum context length is 8"}},
            "start",
            "the prompt is too long for odd",
        ),
        (502, ["?"], "exception", 'answered HTTP 502: ["?"]'),
    ],
)
def test_refusal_of_the_server_is_told(bare, status, document, reason, words) -> None:
    """Whatever shape a server's error has, its words are the message; what may pass by itself may be tried again."""
    with serving(refusing(status, document)) as (url, _):
        outcome = ask(bare, url=url)
    assert outcome.reason == reason
    assert words in outcome.message


def test_server_that_knows_no_schemas_is_told_of(bare) -> None:
    """An answer that is no JSON, or another than was asked for, fails and says why."""
    with serving(chat(event("Sure! Here"), event(finish="stop"))) as (url, _):
        outcome = ask(bare, url=url, schema=PERSON)
    assert outcome.reason == "exception"
    assert "is no JSON" in outcome.message
    assert bare.output.text == "Sure! Here"


def test_answer_is_held_against_its_schema(bare) -> None:
    """JSON that does not fit the schema fails, naming the place."""
    with serving(chat(event('{"age": "old"}'), event(finish="stop"))) as (url, _):
        outcome = ask(bare, url=url, schema=PERSON)
    assert outcome.reason == "exception"
    assert "does not fit the schema: $.age" in outcome.message


def test_schema_answer_that_is_cut_off_is_told(bare) -> None:
    """An answer that max_tokens cut short is not called invalid JSON."""
    with serving(chat(event('{"age"'), event(finish="length"))) as (url, _):
        outcome = ask(bare, url=url, schema=PERSON, max_tokens=2)
    assert "cut off at max_tokens" in outcome.message


def test_garbage_is_no_answer(bare) -> None:
    """A server that streams something else than JSON is told of with what it sent."""
    with serving(chat(b"data: <html>\n\n")) as (url, _):
        outcome = ask(bare, url=url)
    assert "<html>" in outcome.message


def test_no_prompt_goes_to_a_server_that_is_no_model_server(bare) -> None:
    """A server without a list of models is asked for that alone."""
    with serving({"/v1/models": lambda handler, body: send_json(handler, {"hello": 1})}) as (url, asked):
        outcome = ask(bare, url=url)
    assert outcome.reason == "start"
    assert f"no model answers at {url}: no model server" in outcome.message
    assert [path for path, _ in asked] == ["/v1/models"]


def test_server_that_loads_is_waited_for(bare) -> None:
    """A server that says that it is loading is asked again until it is ready, and that is told."""
    left = [2]

    def loading(handler, body) -> None:
        left[0] -= 1
        if left[0] >= 0:
            send_json(handler, {"error": {"message": "Loading model", "code": 503}}, 503)
        else:
            models("odd")(handler, body)

    with serving(chat(event("x"), event(finish="stop")) | {"/v1/models": loading}) as (url, _):
        outcome = ask(bare, url=url)
    assert outcome.reason is None
    assert bare.told[0][3] == f"{url} loads its model"
