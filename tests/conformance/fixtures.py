"""An MCP server with the fixtures that the conformance suite asks for by name, in the same frame as the workshop's.

What each has to do is written in the suite's own scenarios; the names, addresses and words are theirs.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    ClientCapabilities,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    MissingRequiredClientCapabilityErrorData,
    SamplingCapability,
    SamplingMessage,
    SetLevelRequestParams,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from pydantic import Field

from koubou_panel.errors import Refused
from koubou_panel.servers.agents.mcp_frame import Frame

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = base64.b64encode(
    b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\2\0\0\0\0\0"
).decode()
STEP_S = 0.05

Ctx = Context[Any, Any]


def text(words: str) -> TextContent:
    """Words as content."""
    return TextContent(type="text", text=words)


def embedded(uri: str, words: str, mime_type: str = "text/plain") -> EmbeddedResource:
    """A text resource as content."""
    return EmbeddedResource(
        type="resource", resource=TextResourceContents(uri=uri, text=words, mime_type=mime_type)
    )


def image() -> ImageContent:
    """A picture of one pixel."""
    return ImageContent(type="image", data=PNG, mime_type="image/png")


# -- tools that answer ------------------------------------------------------------------------------------------


async def test_simple_text() -> list[TextContent]:
    """A text."""
    return [text("This is a simple text response for testing.")]


async def test_image_content() -> list[ImageContent]:
    """A picture."""
    return [image()]


async def test_audio_content() -> list[AudioContent]:
    """A sound."""
    return [AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


async def test_embedded_resource() -> list[EmbeddedResource]:
    """A resource within the answer."""
    return [embedded("test://embedded-resource", "This is an embedded resource content.")]


async def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """A text, a picture and a resource."""
    data = json.dumps({"test": "data", "value": 123})
    return [
        text("Multiple content types test:"),
        image(),
        embedded("test://mixed-content-resource", data, "application/json"),
    ]


async def test_error_handling() -> list[TextContent]:
    """An error of the tool."""
    raise Refused("failed", "This tool intentionally returns an error for testing")


async def test_tool_with_progress(ctx: Ctx) -> list[TextContent]:
    """Progress in three steps."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(STEP_S)
    return [text("done")]


async def test_tool_with_logging(ctx: Ctx) -> list[TextContent]:
    """Three lines of a log."""
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(words)
        await asyncio.sleep(STEP_S)
    return [text("done")]


async def test_logging_tool(ctx: Ctx) -> list[TextContent]:
    """One line of a log, for whoever asked for a log."""
    await ctx.info("logged")
    return [text("done")]


# -- tools that ask the client: within the call (2025-11-25) ----------------------------------------------------


async def test_sampling(
    prompt: Annotated[str, Field(description="The prompt")], ctx: Ctx
) -> list[TextContent]:
    """Ask the client's model."""
    ask = CreateMessageRequest(params=_sampling(prompt, 100).params)
    from mcp.shared.message import ServerMessageMetadata
    from mcp_types import CreateMessageResult

    answer = await ctx.session.send_request(
        ask, CreateMessageResult, metadata=ServerMessageMetadata(related_request_id=ctx.request_id)
    )
    return [text(f"LLM response: {answer.content.text}")]


async def test_elicitation(
    message: Annotated[str, Field(description="The question")], ctx: Ctx
) -> list[TextContent]:
    """Ask the client's user."""
    schema = {"username": _string("User's response"), "email": _string("User's email address")}
    return await _elicit(ctx, message, schema)


async def test_elicitation_sep1034_defaults(ctx: Ctx) -> list[TextContent]:
    """Ask the client's user, with a default for each field."""
    schema = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await _elicit(ctx, "Please review", schema)


async def test_elicitation_sep1330_enums(ctx: Ctx) -> list[TextContent]:
    """Ask the client's user to choose, in every form that a choice can have."""
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Option {n}"} for n in (1, 2, 3)]
    schema = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await _elicit(ctx, "Please choose", schema)


async def _elicit(ctx: Ctx, message: str, properties: dict[str, Any]) -> list[TextContent]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    answer = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return [text(f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}")]


# -- tools that ask the client: by an answer that wants more (2026-07-28) ----------------------------------------


def _string(words: str = "") -> dict[str, Any]:
    return {"type": "string", "description": words} if words else {"type": "string"}


def _question(message: str, field: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sampling(prompt: str, max_tokens: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text(prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def _answers(ctx: Ctx, *keys: str) -> list[Any] | None:
    """What the client answered, if it answered all of `keys`."""
    given = ctx.input_responses or {}
    return [given[key] for key in keys] if all(key in given for key in keys) else None


def _field(answer: Any, name: str) -> str:
    return str((answer.content or {}).get(name)) if isinstance(answer, ElicitResult) else ""


Ask = list[TextContent] | InputRequiredResult


async def test_input_required_result_elicitation(ctx: Ctx) -> Ask:
    """Greet the user by the name that is asked for."""
    answers = _answers(ctx, "user_name")
    if answers is None:
        return InputRequiredResult(input_requests={"user_name": _question("What is your name?", "name")})
    return [text(f"Hello, {_field(answers[0], 'name')}!")]


async def test_input_required_result_sampling(ctx: Ctx) -> Ask:
    """Answer as the client's model does."""
    answers = _answers(ctx, "capital_question")
    if answers is None:
        ask = _sampling("What is the capital of France?", 100)
        return InputRequiredResult(input_requests={"capital_question": ask})
    return [text(answers[0].content.text)]


async def test_input_required_result_list_roots(ctx: Ctx) -> Ask:
    """Name the client's roots."""
    answers = _answers(ctx, "client_roots")
    if answers is None:
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
    return [text(", ".join(str(root.uri) for root in answers[0].roots))]


async def test_input_required_result_request_state(ctx: Ctx) -> Ask:
    """Ask with a state that comes back."""
    if _answers(ctx, "confirm") is None or ctx.request_state is None:
        ask = {"confirm": _question("Please confirm", "ok", "boolean")}
        return InputRequiredResult(input_requests=ask, request_state="confirming")
    return [text("state-ok" if ctx.request_state == "confirming" else "state-wrong")]


test_input_required_result_tampered_state = test_input_required_result_request_state


async def test_input_required_result_multiple_inputs(ctx: Ctx) -> Ask:
    """Ask for three things at once."""
    if _answers(ctx, "user_name", "greeting", "client_roots") is None or ctx.request_state is None:
        asks = {
            "user_name": _question("What is your name?", "name"),
            "greeting": _sampling("Generate a greeting", 50),
            "client_roots": ListRootsRequest(),
        }
        return InputRequiredResult(input_requests=asks, request_state="three")
    return [text("all there")]


async def test_input_required_result_multi_round(ctx: Ctx) -> Ask:
    """Ask twice, one after the other."""
    if ctx.request_state == "two" and _answers(ctx, "step2") is not None:
        return [text("both there")]
    if ctx.request_state == "one" and _answers(ctx, "step1") is not None:
        ask = {"step2": _question("Step 2: What is your favorite color?", "color")}
        return InputRequiredResult(input_requests=ask, request_state="two")
    ask = {"step1": _question("Step 1: What is your name?", "name")}
    return InputRequiredResult(input_requests=ask, request_state="one")


async def test_input_required_result_capabilities(ctx: Ctx) -> Ask:
    """Ask for what the client says it can, and nothing else."""
    able = ctx.client_capabilities
    asks: dict[str, Any] = {}
    if able is not None and able.elicitation is not None:
        asks["user_name"] = _question("What is your name?", "name")
    if able is not None and able.sampling is not None:
        asks["greeting"] = _sampling("Generate a greeting", 50)
    if _answers(ctx, *asks) is None:
        return InputRequiredResult(input_requests=asks)
    return [text("done")]


async def test_streaming_elicitation(ctx: Ctx) -> Ask:
    """Tell progress, then ask."""
    answers = _answers(ctx, "user_name")
    await ctx.report_progress(1, 2)
    if answers is None:
        return InputRequiredResult(input_requests={"user_name": _question("What is your name?", "name")})
    return [text("done")]


async def test_missing_capability(ctx: Ctx) -> list[TextContent]:
    """Answer only a client that can sample."""
    able = ctx.client_capabilities
    if able is None or able.sampling is None:
        wanted = ClientCapabilities(sampling=SamplingCapability())
        data = MissingRequiredClientCapabilityErrorData(required_capabilities=wanted)
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs sampling",
            data.model_dump(by_alias=True, mode="json", exclude_none=True),
        )
    return [text("done")]


async def test_header_argument(
    region: Annotated[str, Field(description="A region", json_schema_extra={"x-mcp-header": "Region"})],
) -> list[TextContent]:
    """An argument that stands in a header too."""
    return [text(region)]


async def test_trigger_tool_change(ctx: Ctx) -> list[TextContent]:
    """Say that the tools changed."""
    await ctx.notify_tools_changed()
    return [text("done")]


async def test_trigger_prompt_change(ctx: Ctx) -> list[TextContent]:
    """Say that the prompts changed."""
    await ctx.notify_prompts_changed()
    return [text("done")]


TOOLS = (
    test_simple_text,
    test_image_content,
    test_audio_content,
    test_embedded_resource,
    test_multiple_content_types,
    test_error_handling,
    test_tool_with_progress,
    test_tool_with_logging,
    test_logging_tool,
    test_sampling,
    test_elicitation,
    test_elicitation_sep1034_defaults,
    test_elicitation_sep1330_enums,
    test_input_required_result_elicitation,
    test_input_required_result_sampling,
    test_input_required_result_list_roots,
    test_input_required_result_request_state,
    test_input_required_result_multiple_inputs,
    test_input_required_result_multi_round,
    test_input_required_result_capabilities,
    test_streaming_elicitation,
    test_missing_capability,
    test_header_argument,
    test_trigger_tool_change,
    test_trigger_prompt_change,
)


# -- resources, prompts, and the rest ----------------------------------------------------------------------------


async def static_text() -> str:
    """A text."""
    return "This is the content of the static text resource."


async def static_binary() -> bytes:
    """A picture."""
    return base64.b64decode(PNG)


async def watched() -> str:
    """A text to follow."""
    return "Watched resource content"


async def by_template(id: str) -> str:
    """Data by their id."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


async def test_simple_prompt() -> str:
    """A prompt."""
    return "This is a simple prompt for testing."


async def test_prompt_with_arguments(
    arg1: Annotated[str, Field(description="First test argument")],
    arg2: Annotated[str, Field(description="Second test argument")],
) -> str:
    """A prompt made of two arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


async def test_prompt_with_embedded_resource(
    resourceUri: Annotated[str, Field(description="URI of the resource to embed")],  # noqa: N803 - the suite's name
) -> list[Any]:
    """A prompt with a resource in it."""
    return [
        embedded(resourceUri, "Embedded resource content for testing."),
        "Please process the embedded resource above.",
    ]


async def test_prompt_with_image() -> list[Any]:
    """A prompt with a picture in it."""
    return [image(), "Please analyze the image above."]


async def test_input_required_result_prompt(ctx: Ctx) -> str | InputRequiredResult:
    """A prompt that asks for its context."""
    answers = _answers(ctx, "user_context")
    if answers is None:
        ask = _question("What context should the prompt use?", "context")
        return InputRequiredResult(input_requests={"user_context": ask})
    return f"In the context of {_field(answers[0], 'context')}"


PROMPTS = (
    test_simple_prompt,
    test_prompt_with_arguments,
    test_prompt_with_embedded_resource,
    test_prompt_with_image,
    test_input_required_result_prompt,
)


async def _complete(*_about: Any) -> Completion:
    return Completion(values=["paris", "park", "party"], total=3, has_more=False)


async def _set_level(_ctx: Any, _params: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()


def make_fixtures() -> Frame:
    """The server."""
    frame = Frame("fixtures", title="Fixtures", version="1", instructions="For the conformance suite.")
    hints = ToolAnnotations(read_only_hint=True)
    for function in TOOLS:
        frame.offer(function, title=function.__name__, need="read", annotations=hints)
    frame.add_tool(
        test_input_required_result_tampered_state, name="test_input_required_result_tampered_state"
    )
    frame.needs["test_input_required_result_tampered_state"] = "read"
    for uri, function, mime_type in (
        ("test://static-text", static_text, "text/plain"),
        ("test://static-binary", static_binary, "image/png"),
        ("test://watched-resource", watched, "text/plain"),
        ("test://template/{id}/data", by_template, "application/json"),
    ):
        frame.resource(uri, mime_type=mime_type)(function)
    for prompt in PROMPTS:
        frame.prompt()(prompt)
    frame.completion()(_complete)
    lowlevel = frame._lowlevel_server
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, _set_level)
    return frame
