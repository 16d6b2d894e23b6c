"""What each endpoint takes, as the providers publish it; one file for each family."""

from __future__ import annotations

from collections.abc import Mapping

from ai_proxy_mw.schema.spec import Table
from ai_proxy_mw.schema.tables.chat import CHAT
from ai_proxy_mw.schema.tables.completions import COMPLETIONS
from ai_proxy_mw.schema.tables.embeddings import EMBEDDINGS
from ai_proxy_mw.schema.tables.images import IMAGES
from ai_proxy_mw.schema.tables.messages import COUNT_TOKENS, MESSAGES
from ai_proxy_mw.schema.tables.moderations import MODERATIONS
from ai_proxy_mw.schema.tables.responses import RESPONSES
from ai_proxy_mw.schema.tables.speech import SPEECH

TABLES: Mapping[str, Table] = {
    table.endpoint: table
    for table in (
        CHAT,
        COMPLETIONS,
        RESPONSES,
        EMBEDDINGS,
        MODERATIONS,
        IMAGES,
        SPEECH,
        MESSAGES,
        COUNT_TOKENS,
    )
}
"""By endpoint."""
