"""Short names for subjects, endpoints and models."""

from __future__ import annotations

from ai_proxy_mw.caching.tags import tag_of


def test_tags_stay_what_they_are() -> None:
    assert tag_of("subject", "ann") == "s:49915e0d7d4b402e3017d010"
    assert tag_of("endpoint", "POST /chat/completions") == "e:c02c7276da8debf3f005f663"
    assert tag_of("model", "\ud800") == "m:91a681b998555fb475479817"


def test_kinds_do_not_meet() -> None:
    assert len({tag_of(kind, "ann") for kind in ("subject", "endpoint", "model")}) == 3
