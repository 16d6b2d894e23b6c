"""Parts and items of the input of the Responses API."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import (
    Anything,
    Either,
    Fields,
    Flag,
    Get,
    Kind,
    ListOf,
    Media,
    Problem,
    Text,
    Variants,
)
from ai_proxy_mw.schema.tables.common import (
    DETAIL,
    FILE_DETAIL,
    ID,
    JSON_OBJECT,
    JSON_OBJECT_OR_NULL,
    TEXT_OR_NULL,
    TEXT_PART,
    missing_one,
)


def _one_image(get: Get) -> Problem | None:
    """One of `image_url` and `file_id` must be there."""
    if get("image_url") is None and get("file_id") is None:
        return missing_one("image_url", "An image needs image_url or file_id.")
    return None


def _one_file(get: Get) -> Problem | None:
    """One of `file_data`, `file_id` and `file_url` must be there."""
    if all(get(name) is None for name in ("file_data", "file_id", "file_url")):
        return missing_one("file_data", "A file needs file_data, file_id or file_url.")
    return None


_IMAGE: dict[str, Kind] = {
    "image_url": Media(media="image", nullable=True),
    "file_id": Text(least=1, nullable=True),
    "detail": DETAIL,
    "prompt_cache_breakpoint": JSON_OBJECT_OR_NULL,
}

PARTS: dict[str, Fields] = {
    "input_text": TEXT_PART,
    "input_image": Fields(fields=_IMAGE, rule=_one_image),
    "input_file": Fields(
        fields={
            "file_data": Media(media="file", nullable=True),
            "file_id": Text(least=1, nullable=True),
            "file_url": Media(media="file_link", nullable=True),
            "filename": TEXT_OR_NULL,
            "detail": FILE_DETAIL,
            "prompt_cache_breakpoint": JSON_OBJECT_OR_NULL,
        },
        rule=_one_file,
    ),
    "input_audio": Fields(
        fields={
            "input_audio": Fields(
                fields={
                    "data": Media(media="audio", declared="format"),
                    "format": Text(choices=("wav", "mp3")),
                },
                needed=("data", "format"),
            )
        },
        needed=("input_audio",),
    ),
    "output_text": Fields(
        fields={
            "text": Text(),
            "annotations": ListOf(item=JSON_OBJECT, nullable=True),
            "logprobs": ListOf(item=JSON_OBJECT, nullable=True),
        },
        needed=("text",),
    ),
    "refusal": Fields(fields={"refusal": Text()}, needed=("refusal",)),
}

PART = Variants(by="type", known=PARTS)

_CONTENT = Either(kinds=(Text(), ListOf(item=PART)))

_OF_ALL: dict[str, Kind] = {"id": TEXT_OR_NULL, "status": TEXT_OR_NULL}


def _message(get: Get) -> Problem | None:
    """`role` and `content` must be there, unless there is only an `id`."""
    role, content = get("role"), get("content")
    if role is not None and content is not None:
        return None
    # An item of no type that has an id alone refers to an earlier one.
    if role is None and content is None and get("id") is not None:
        return None
    name = "role" if role is None else "content"
    return missing_one(name, f"A message needs the member '{name}'.")


def _answers_a_call(get: Get) -> Problem | None:
    """`call_id` must be there, unless there is a `name`."""
    if get("call_id") is None and get("name") is None:
        return missing_one("call_id", "The output of a function needs the call_id of its call.")
    return None


def _item(needed: str = "", **fields: Kind) -> Fields:
    return Fields(fields={**_OF_ALL, **fields}, needed=tuple(needed.split()))


def _thoughts(type_: str) -> ListOf:
    known = {type_: Fields(fields={"text": Text()}, needed=("text",))}
    return ListOf(item=Variants(by="type", known=known), nullable=True)


ITEM = Variants(
    by="type",
    default="message",
    known={
        "message": Fields(
            fields={
                "role": Text(choices=("user", "assistant", "system", "developer")),
                "content": _CONTENT,
                "phase": TEXT_OR_NULL,
                **_OF_ALL,
            },
            rule=_message,
        ),
        "function_call": _item(
            "call_id name arguments",
            call_id=Text(),
            name=Text(least=1),
            arguments=Text(),
            namespace=TEXT_OR_NULL,
            caller=JSON_OBJECT_OR_NULL,
        ),
        "function_call_output": Fields(
            fields={
                "call_id": TEXT_OR_NULL,
                "output": _CONTENT,
                "name": TEXT_OR_NULL,
                "namespace": TEXT_OR_NULL,
                "caller": JSON_OBJECT_OR_NULL,
                **_OF_ALL,
            },
            needed=("output",),
            rule=_answers_a_call,
        ),
        "custom_tool_call": _item(
            "call_id name input",
            call_id=Text(),
            name=Text(least=1),
            input=Text(),
            namespace=TEXT_OR_NULL,
            caller=JSON_OBJECT_OR_NULL,
        ),
        "custom_tool_call_output": _item(
            "call_id output", call_id=Text(), output=_CONTENT, caller=JSON_OBJECT_OR_NULL
        ),
        "reasoning": _item(
            "summary",
            summary=_thoughts("summary_text"),
            content=_thoughts("reasoning_text"),
            encrypted_content=TEXT_OR_NULL,
        ),
        "item_reference": Fields(fields={"id": ID}, needed=("id",)),
        "computer_call_output": _item(
            "call_id output",
            call_id=Text(),
            output=Variants(
                by="type", known={"computer_screenshot": Fields(fields=_IMAGE, rule=_one_image)}
            ),
            acknowledged_safety_checks=ListOf(item=JSON_OBJECT, nullable=True),
        ),
        "image_generation_call": Fields(
            fields={
                "id": ID,
                "result": Media(media="image_data", nullable=True),
                "status": TEXT_OR_NULL,
            },
            needed=("id",),
            is_open=True,
        ),
        "mcp_approval_response": _item(
            "approval_request_id approve",
            approval_request_id=ID,
            approve=Flag(),
            reason=TEXT_OR_NULL,
        ),
        "compaction": _item("encrypted_content", encrypted_content=Text()),
        "web_search_call": _item(action=JSON_OBJECT_OR_NULL),
        "file_search_call": _item(
            queries=ListOf(item=Text()), results=ListOf(item=JSON_OBJECT, nullable=True)
        ),
        "mcp_call": _item(
            "server_label name arguments",
            server_label=Text(),
            name=Text(),
            arguments=Text(),
            output=TEXT_OR_NULL,
            error=Anything(),
            approval_request_id=TEXT_OR_NULL,
        ),
    },
)
