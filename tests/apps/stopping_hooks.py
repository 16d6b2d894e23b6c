"""gunicorn's configuration where its workers have their signals only after the app is loaded."""

from __future__ import annotations


def post_worker_init(worker: object) -> None:
    # Not at the top: this is read before there is anything to serve.
    from tests.apps.stopping import proxy

    proxy.follow_signals()
