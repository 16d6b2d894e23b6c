"""/files, /uploads and /batches. Nothing is stored: every id is known but "missing"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_proxy_mw.testing._answer import Answer, binary_answer, json_answer, page
from ai_proxy_mw.testing._call import CREATED, JSON, Call, Refusal

_DAY = 86_400
_PIECE = 64 << 10
_PATTERN = bytes(range(256)) * (_PIECE // 256)


def _known(call: Call) -> str:
    if call.id == "missing":
        raise Refusal(f"No such object: {call.id}", status=404, code="not_found", param="id")
    return call.id


def _file(id: str, size: int, filename: str, purpose: str) -> JSON:
    return {
        "id": id,
        "object": "file",
        "bytes": size,
        "created_at": CREATED,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
    }


def list_files(call: Call) -> Answer:
    size = call.traits.download_bytes
    return json_answer(page([_file(f"file-{n}", size, f"{n}.bin", "user_data") for n in (1, 2)]))


def create_file(call: Call) -> Answer:
    if "file" not in call.form:
        raise Refusal("Missing required parameter: 'file'.", param="file")
    purpose = call.form.get("purpose", "user_data")
    return json_answer(_file(f"file-{call.key}", call.file_size, call.form["file"], purpose))


def get_file(call: Call) -> Answer:
    name = _known(call)
    return json_answer(_file(name, call.traits.download_bytes, f"{name}.bin", "user_data"))


def delete_file(call: Call) -> Answer:
    return json_answer({"id": _known(call), "object": "file", "deleted": True})


def download(call: Call) -> Answer:
    _known(call)
    size = call.traits.download_bytes
    return binary_answer(b"application/octet-stream", download_pieces(size), size)


def download_pieces(size: int) -> Iterator[bytes]:
    """`size` bytes in pieces of 64 KiB, each marked with its number."""
    for number, start in enumerate(range(0, size, _PIECE)):
        piece = number.to_bytes(8) + _PATTERN[8:]
        yield piece[: size - start]


def create_upload(call: Call) -> Answer:
    call.required("filename")
    call.required("bytes", int)
    return json_answer(_upload(call, f"upload_{call.key}", "pending"))


def add_part(call: Call) -> Answer:
    upload_id = _known(call)
    if "data" not in call.form:
        raise Refusal("Missing required parameter: 'data'.", param="data")
    part = {"id": f"part_{call.key}", "object": "upload.part", "created_at": CREATED}
    return json_answer({**part, "upload_id": upload_id})


def complete_upload(call: Call) -> Answer:
    call.required("part_ids", list)
    upload = _upload(call, _known(call), "completed")
    upload["file"] = _file(f"file-{call.key}", 0, "upload.bin", "user_data")
    return json_answer(upload)


def cancel_upload(call: Call) -> Answer:
    return json_answer(_upload(call, _known(call), "cancelled"))


def _upload(call: Call, id: str, status: str) -> JSON:
    given = call.data if call.body else {}
    return {
        "id": id,
        "object": "upload",
        "bytes": given.get("bytes", 0),
        "created_at": CREATED,
        "expires_at": CREATED + _DAY,
        "filename": given.get("filename", "upload.bin"),
        "purpose": given.get("purpose", "user_data"),
        "status": status,
    }


def list_batches(_call: Call) -> Answer:
    return json_answer(page([_batch("batch_1", "completed", {})]))


def create_batch(call: Call) -> Answer:
    call.required("input_file_id")
    call.required("endpoint")
    return json_answer(_batch(f"batch_{call.key}", "validating", call.data))


def get_batch(call: Call) -> Answer:
    return json_answer(_batch(_known(call), "completed", {}))


def cancel_batch(call: Call) -> Answer:
    return json_answer(_batch(_known(call), "cancelling", {}))


def _batch(id: str, status: str, given: dict[str, Any]) -> JSON:
    return {
        "id": id,
        "object": "batch",
        "endpoint": given.get("endpoint", "/v1/chat/completions"),
        "errors": None,
        "input_file_id": given.get("input_file_id", "file-1"),
        "completion_window": given.get("completion_window", "24h"),
        "status": status,
        "output_file_id": "file-2" if status == "completed" else None,
        "created_at": CREATED,
        "expires_at": CREATED + _DAY,
        "request_counts": {"total": 1, "completed": 1, "failed": 0},
        "metadata": given.get("metadata"),
    }
