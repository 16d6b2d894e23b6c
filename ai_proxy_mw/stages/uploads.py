"""Judges uploads while they pass: a part that turns out wrong ends the call, here and upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest, ModelNotAllowed
from ai_proxy_mw.schema.call import upload_type

if TYPE_CHECKING:
    from ai_proxy_mw._caps import Caps
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._incoming import Watcher
    from ai_proxy_mw._models import Models
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.accounting.note import Note
    from ai_proxy_mw.schema.upload_rules import UploadRules

_MODEL_FIELDS = ("model", "svg[model]")
_FURTHER_MODELS = ("fallbacks", "models")
_ALSO_JSON = "POST /images/edits"


class UploadsStage:
    def __init__(self, uploads: Mapping[str, UploadRules], models: Models, caps: Caps) -> None:
        self._uploads = uploads
        self._models = models
        self._max_n = caps.max_n

    # Not a coroutine of its own: that would be one more frame to wake for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        rules = self._uploads.get(request.endpoint)
        if rules is not None and not self._is_json(request):
            request.body.watch(self._watcher(request, rules))
        return handler(request)

    def _is_json(self, request: Request) -> bool:
        """Whether it is no upload; some providers take edits as JSON, too, which pass unjudged."""
        content_type = request.headers.get("content-type") or ""
        if request.endpoint != _ALSO_JSON or not content_type.startswith("application/json"):
            return False
        if self._models.restrict(request.identity):
            raise ModelNotAllowed("You may use certain models only: send this call as a form.")
        return True

    def _watcher(self, request: Request, rules: UploadRules) -> Watcher:
        from ai_proxy_mw.schema.multipart import Scanner  # noqa: PLC0415 - only for uploads

        content_type = upload_type(request.headers)
        if "model" not in rules.fields:
            return Scanner(content_type, rules)
        named = _NamedModels(request.identity, self._models, self._max_n, request.note)
        return _Watched(Scanner(content_type, rules, named.see), named)


class _NamedModels:
    """The models that an upload names, held to those that its caller may use; and how many
    answers it asks for.
    """

    def __init__(
        self, identity: Identity | None, models: Models, max_n: int | None, note: Note | None
    ) -> None:
        self._note = note
        self._identity = identity
        self._models = models
        self._max_n = max_n
        self._seen = False

    def see(self, name: str, value: str) -> None:
        if name == "n" and self._max_n is not None and int(value) > self._max_n:
            message = f"Invalid 'n': at most {self._max_n} is taken here, but got {value}."
            raise InvalidRequest(message, param=name, code="integer_above_max_value")
        if name in _FURTHER_MODELS and self._models.restrict(self._identity):
            raise ModelNotAllowed("You may use certain models only: name one, and no others.")
        if name not in _MODEL_FIELDS:
            return
        self._seen = self._seen or name == "model"
        if self._note is not None and name == "model":
            self._note.model = value
        if not self._models.allows_to(self._identity, value):
            raise ModelNotAllowed(f"You may not use the model {value!r}.")
        if self._models.real(value) != value:
            # It passes while it is read: nothing in it can be written anew.
            raise InvalidRequest(
                "In an upload, name the model by its own name.", param=name, code="alias_in_upload"
            )

    def finish(self) -> None:
        if not self._seen and self._models.restrict(self._identity):
            raise ModelNotAllowed("You may use certain models only, and this call names none.")


class _Watched:
    """The scanner, and behind it whether a model was named."""

    def __init__(self, scanner: Watcher, named: _NamedModels) -> None:
        self.feed = scanner.feed
        self._scanner = scanner
        self._named = named

    def finish(self) -> None:
        self._scanner.finish()
        self._named.finish()
