"""Which endpoint answers what."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from ai_proxy_mw.testing import _chat, _files, _listing, _media, _messages, _responses
from ai_proxy_mw.testing._answer import Answer, json_answer
from ai_proxy_mw.testing._call import Call, Refusal

Endpoint = Callable[[Call], Answer]

_FIXED: dict[tuple[str, str], Endpoint] = {
    ("POST", "/chat/completions"): _chat.create,
    ("GET", "/chat/completions"): _chat.list_stored,
    ("POST", "/completions"): _chat.complete,
    ("POST", "/responses"): _responses.create,
    ("POST", "/embeddings"): _listing.embed,
    ("POST", "/moderations"): _listing.moderate,
    ("GET", "/models"): _listing.list_models,
    ("POST", "/images/generations"): _media.generate_image,
    ("POST", "/images/edits"): _media.change_image,
    ("POST", "/images/variations"): _media.change_image,
    ("POST", "/audio/speech"): _media.speak,
    ("POST", "/audio/transcriptions"): _media.transcribe,
    ("POST", "/audio/translations"): _media.transcribe,
    ("POST", "/messages"): _messages.create,
    ("POST", "/messages/count_tokens"): _messages.count,
    ("GET", "/files"): _files.list_files,
    ("POST", "/files"): _files.create_file,
    ("POST", "/uploads"): _files.create_upload,
    ("GET", "/batches"): _files.list_batches,
    ("POST", "/batches"): _files.create_batch,
}

_WITH_ID: list[tuple[str, re.Pattern[str], Endpoint]] = [
    (method, re.compile(pattern), endpoint)
    for method, pattern, endpoint in (
        ("GET", r"/chat/completions/([^/]+)", _chat.get_stored),
        ("POST", r"/chat/completions/([^/]+)", _chat.get_stored),
        ("DELETE", r"/chat/completions/([^/]+)", _chat.delete_stored),
        ("GET", r"/chat/completions/([^/]+)/messages", _chat.stored_messages),
        ("GET", r"/responses/([^/]+)", _responses.get_stored),
        ("DELETE", r"/responses/([^/]+)", _responses.delete_stored),
        ("POST", r"/responses/([^/]+)/cancel", _responses.cancel),
        ("GET", r"/responses/([^/]+)/input_items", _responses.input_items),
        ("GET", r"/models/(.+)", _listing.get_model),  # such as "org/model"
        ("GET", r"/files/([^/]+)", _files.get_file),
        ("DELETE", r"/files/([^/]+)", _files.delete_file),
        ("GET", r"/files/([^/]+)/content", _files.download),
        ("POST", r"/uploads/([^/]+)/parts", _files.add_part),
        ("POST", r"/uploads/([^/]+)/complete", _files.complete_upload),
        ("POST", r"/uploads/([^/]+)/cancel", _files.cancel_upload),
        ("GET", r"/batches/([^/]+)", _files.get_batch),
        ("POST", r"/batches/([^/]+)/cancel", _files.cancel_batch),
    )
]


def respond(call: Call) -> Answer:
    """The answer to a call. Pure: the same call gets the same bytes."""
    try:
        answer = _endpoint(call)(call)
    except Refusal as refusal:
        answer = refuse(call.path, refusal)
    except RecursionError:
        answer = refuse(call.path, Refusal("The JSON body of your request is nested too deeply."))
    answer.sign(call.key)
    return answer


def _endpoint(call: Call) -> Endpoint:
    method = "GET" if call.method == "HEAD" else call.method
    fixed = _FIXED.get((method, call.path))
    if fixed is not None:
        return fixed
    for allowed, pattern, endpoint in _WITH_ID:
        match = pattern.fullmatch(call.path)
        if match is not None and allowed == method:
            call.id = unquote(match.group(1))
            return endpoint
    raise Refusal(f"Invalid URL ({call.method} {call.path})", status=404, code="unknown_url")


def refuse(path: str, refusal: Refusal) -> Answer:
    """An error in the shape of the provider that this path belongs to."""
    if path.startswith("/messages"):
        error = {"type": refusal.type, "message": refusal.message}
        return json_answer({"type": "error", "error": error}, refusal.status)
    told = {
        "message": refusal.message,
        "type": refusal.type,
        "param": refusal.param,
        "code": refusal.code,
    }
    return json_answer({"error": told}, refusal.status)
