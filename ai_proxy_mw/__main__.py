"""`python -m ai_proxy_mw`: try the proxy offline, look into what it keeps, time upstreams."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from ai_proxy_mw import _cache_command, _ping_command, _report_command
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._proxy import AIProxy
from ai_proxy_mw.asgi import AIProxyMiddleware
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    import uvicorn

    from ai_proxy_mw._http import Request


class Command(Protocol):
    """A module with a command that looks into a store."""

    def add_arguments(self, command: argparse.ArgumentParser) -> None: ...

    async def run(self, options: argparse.Namespace, say: Callable[[str], None]) -> None: ...


KEY = "sk-demo"
DASHBOARD = "/ai"
DEFAULTS = {"AI_PROXY_UPSTREAM": "fake"}
QUESTION = "What does a proxy inside my own app save me?"

COMMANDS: dict[str, tuple[Command, str]] = {
    "cache": (_cache_command, "look into a cache, or forget what it holds"),
    "report": (_report_command, "what each model has cost, and would have cost elsewhere"),
}

GUIDE = """
Try it yourself, with curl:

  curl -N {url}/chat/completions -H 'Authorization: Bearer {key}' \
-H 'Content-Type: application/json' \
-d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

or with the official client (pip install openai):

  from openai import OpenAI

  client = OpenAI(base_url="{url}", api_key="{key}")
  for chunk in client.chat.completions.create(
      model="{model}", stream=True, messages=[{{"role": "user", "content": "Hello!"}}]
  ):
      print(chunk.choices[0].delta.content or "", end="", flush=True)

and look at what the calls are like: {look}
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ai_proxy_mw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("demo", help="serve the proxy and stream a first answer")
    command.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    command.add_argument("--model", default="fake-1", help="what the first question is put to")
    command.add_argument("--once", action="store_true", help="stop after the first answer")
    for name, (module, text) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=text, description=text))
    text = "how long each step to an upstream takes"
    _ping_command.add_arguments(commands.add_parser("ping", help=text, description=text))
    options = parser.parse_args(arguments)
    try:
        if options.command in COMMANDS:
            module, _ = COMMANDS[options.command]
            asyncio.run(module.run(options, print))
            return 0
        if options.command == "ping":
            say, warn = print, partial(print, file=sys.stderr)
            return asyncio.run(_ping_command.run(options, say, warn))
        return demo(options.port, options.model, once=options.once)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    except StoreDown as error:
        print(error, file=sys.stderr)
        return 1


def demo(port: int, model: str, *, once: bool) -> int:
    """Serve on a port of this machine until interrupted. Raises ConfigurationError.

    The upstream is a fake one unless the AI_PROXY_* variables name another; who may call is
    always the demo's own key.
    """
    try:
        import uvicorn  # noqa: PLC0415 - of the extra [demo]
    except ImportError:
        raise ConfigurationError(
            "the demo needs a server: pip install 'ai_proxy_mw[demo]'"
        ) from None
    proxy = AIProxy.from_env(
        {**DEFAULTS, **_given()},
        api_keys={"demo": KEY},
        dashboard=DASHBOARD,
        dashboard_identify=_on_this_machine,
    )
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            print(f"port {port}: {error.strerror}; choose another with --port", file=sys.stderr)
            return 1
        url = f"http://127.0.0.1:{listening.getsockname()[1]}{proxy.prefix}"
        config = uvicorn.Config(AIProxyMiddleware(proxy=proxy), log_level="warning")
        asyncio.run(_serve(uvicorn.Server(config), listening, url, model, once=once))
    return 0


def _on_this_machine(request: Request) -> str | None:
    """Nobody else can connect; but a page may have its own name lead here (DNS rebinding)."""
    host = (request.headers.get("host") or "").rpartition(":")[0]
    return "demo" if host in ("127.0.0.1", "localhost") else None


def _given() -> dict[str, str]:
    """The variables that are set to something: an empty one counts as unset."""
    return {name: value for name, value in os.environ.items() if value}


async def _serve(
    server: uvicorn.Server, listening: socket.socket, url: str, model: str, *, once: bool
) -> None:
    serving = asyncio.ensure_future(server.serve([listening]))
    while not server.started and not serving.done():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.01)
    await asyncio.to_thread(_first_answer, url, model)
    look = url.removesuffix(urlsplit(url).path) + DASHBOARD
    print(GUIDE.format(url=url, key=KEY, model=model, look=look))
    if once:
        server.should_exit = True
    else:
        print("Serving until you press Ctrl-C.", flush=True)
    await serving


def _first_answer(url: str, model: str) -> None:
    """Ask once, as a client would, and print the answer as it comes."""
    print(f"The proxy is at {url}\n\n> {QUESTION}\n")
    address = urlsplit(url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
    message = {"role": "user", "content": QUESTION}
    connection.request(
        "POST",
        f"{address.path}/chat/completions",
        json.dumps({"model": model, "stream": True, "messages": [message]}),
        {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )
    answer = connection.getresponse()
    if answer.status != 200:
        print(answer.read().decode("utf-8", "replace"))
    for line in answer:
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:]).get("choices", []):
                print(choice["delta"].get("content") or "", end="", flush=True)
    connection.close()
    print()


if __name__ == "__main__":
    sys.exit(main())
