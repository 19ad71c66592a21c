"""The sandbox's Slack: an incoming webhook that keeps what it was sent, and shows it."""

import json
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from coinwatch.sandbox.http import Request, Response, SandboxServer, json_response
from coinwatch.storage.files import append_lines, cut_torn_line, locked
from coinwatch.times import format_time

_KEPT = 1000

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Sandbox Slack</title>
<style>
  body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 44rem; padding: 0 1rem;
         background: #fff; color: #1d1c1d }}
  article {{ border: 1px solid #ddd; border-left: 4px solid #e8912d; border-radius: 6px; margin: 1rem 0;
            padding: .5rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere }}
  time {{ color: #616061; font-size: .85em }}
  @media (prefers-color-scheme: dark) {{
    body {{ background: #1a1d21; color: #d1d2d3 }}
    article {{ border-color: #444; border-left-color: #e8912d }}
  }}
</style>
<h1>Sandbox Slack</h1>
<p>What Coinwatch has posted to its webhook, the newest first. Nobody but this page received it.</p>
{messages}
</html>
"""


class SlackSandbox(SandboxServer):
    """A Slack webhook on loopback.

    Attributes:
        messages: What it took, oldest first: ``received_at`` and ``payload``.
    """

    def __init__(self, *, clock: Callable[[], datetime], port: int = 0, kept_in: Path | None = None) -> None:
        super().__init__(clock, port)
        self._clock = clock
        self.messages: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._answers: deque[Response] = deque()
        self._lock = threading.Lock()
        self._file = kept_in
        if kept_in is not None and kept_in.exists():
            cut_torn_line(kept_in)
            self.messages.extend(json.loads(line) for line in kept_in.read_bytes().splitlines())

    @property
    def url(self) -> str:
        """What the connection's host has to be; its password is whatever may follow."""
        return f"{self.origin}/services"

    def answer_next(self, status: int, body: str, **headers: str) -> None:
        """Answer the next post so, and do not take it; several wait in line."""
        self._answers.append(Response(status, body.encode(), headers))

    def respond(self, request: Request) -> Response:
        """Take a post as Slack would, or show what was taken."""
        if request.method == "POST" and request.path.startswith("/services/"):
            return self._take(request)
        if request.method == "POST" and request.path == "/sandbox/answers":
            scripted = json.loads(request.body)
            self.answer_next(scripted["status"], scripted.get("body", ""), **scripted.get("headers", {}))
            return json_response({"waiting": len(self._answers)})
        if request.path == "/messages":
            return json_response(list(self.messages))
        if request.path == "/":
            return Response(200, self._page().encode(), {"Content-Type": "text/html; charset=utf-8"})
        return Response(404, b"no_service")

    def _take(self, request: Request) -> Response:
        with self._lock:
            if self._answers:
                return self._answers.popleft()
            problem = _problem(request.body)
            if problem:
                return Response(400, problem.encode())
            message = {"received_at": format_time(self._clock()), "payload": json.loads(request.body)}
            if self._file is not None:
                with locked(self._file):
                    append_lines(self._file, json.dumps(message).encode() + b"\n")
            self.messages.append(message)
            return Response(200, b"ok", {"Content-Type": "text/html"})

    def _page(self) -> str:
        articles = [
            f"<article><time>{escape(message['received_at'])}</time>\n{escape(_plain(message['payload']))}</article>"
            for message in reversed(self.messages)
        ]
        return _PAGE.format(messages="\n".join(articles) or "<p><em>No message yet.</em></p>")


def _problem(body: bytes) -> str:
    """Why Slack would refuse a payload, in its words."""
    try:
        payload = json.loads(body)
    except ValueError:
        return "invalid_payload"
    if not isinstance(payload, dict):
        return "invalid_payload"
    blocks = payload.get("blocks") or []
    if not payload.get("text") and not blocks:
        return "no_text"
    texts = [block["text"]["text"] for block in blocks if block["type"] == "section"]
    headers = [block["text"]["text"] for block in blocks if block["type"] == "header"]
    if len(blocks) > 50 or any(len(text) > 3000 for text in texts) or any(len(text) > 150 for text in headers):
        return "invalid_blocks"
    return ""


def _plain(payload: dict[str, Any]) -> str:
    lines = []
    for block in payload.get("blocks", []):
        lines += [block["text"]["text"]] if "text" in block else [element["text"] for element in block["elements"]]
    return "\n".join(lines) or payload["text"]
