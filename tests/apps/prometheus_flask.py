"""A Flask app that counts records in whichever of gunicorn's workers is asked to."""

from __future__ import annotations

import os

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.metrics.prometheus import PrometheusMetrics

app = Flask(__name__)
hook = PrometheusMetrics()


@app.post("/count")
def count() -> str:
    """Count one call; says by which process."""
    hook(
        Record(
            time=1.0,
            request_id="r",
            endpoint="POST /chat/completions",
            model="gpt-4.1",
            upstream="openai",
            status=200,
            cost=int(request.args["cost"]),
            total=0.5,
        )
    )
    return str(os.getpid())


@app.get("/metrics")
def show() -> Response:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type="text/plain")
