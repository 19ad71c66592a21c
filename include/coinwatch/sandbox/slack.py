"""The sandbox's Slack: an incoming webhook that keeps what it was sent, and shows it."""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from coinwatch.files import append_lines, cut_torn_line, locked
from coinwatch.sandbox.http import HOST, Request, Response, SandboxServer, json_response
from coinwatch.times import format_time

BLOCKS_MAX = 50
"""Blocks of a message (Slack, Block Kit reference: blocks)."""

SECTION_MAX = 3000
"""Characters of a section block's text (Slack, Block Kit reference: section)."""

FIELDS_MAX = 10
"""Fields of a section block, of at most ``FIELD_MAX`` characters (Slack, Block Kit reference: section)."""

FIELD_MAX = 2000

HEADER_MAX = 150
"""Characters of a header block (Slack, Block Kit reference: header)."""

CONTEXT_MAX = 10
"""Elements of a context block (Slack, Block Kit reference: context)."""

_KEPT = 1000

_LINK = re.compile(r"<(https?://[^|>\s]+)\|([^>]*)>")

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
    time {{ color: #ababad }}
    a {{ color: #1d9bd1 }}
  }}
</style>
<h1>Sandbox Slack</h1>
<p>What Coinwatch has posted to its webhook, the newest first. Nobody but this page received it.</p>
{messages}
</html>
"""

_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}


class SlackSandbox(SandboxServer):
    """A Slack webhook on loopback.

    Attributes:
        messages: What it took, oldest first: ``received_at`` and ``payload``.
        files: What a bot has uploaded and shown: ``id``, ``title``, ``channel`` and ``content``.
    """

    def __init__(
        self, *, clock: Callable[[], datetime], port: int = 0, kept_in: Path | None = None, host: str = HOST
    ) -> None:
        """Take the port, and read what was kept.

        Args:
            clock: Tells when a message comes.
            port: To listen on; any free one if 0.
            kept_in: File that messages are appended to, a line of JSON each.
            host: To listen on.

        Raises:
            CannotListen: The port cannot be had.
            ValueError: The file does not hold messages.
        """
        self.messages: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.files: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._uploads: dict[str, dict[str, Any]] = {}
        self._answers: deque[Response] = deque()
        self._clock = clock
        self._lock = threading.Lock()
        self._file = kept_in
        if kept_in is not None and kept_in.exists():
            cut_torn_line(kept_in)
            self.messages.extend(_read_messages(kept_in))
        super().__init__(clock, port, host)

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
        if request.path.startswith(("/api/files.", "/upload/")):
            return self._take_file(request)
        if request.method == "POST" and request.path == "/sandbox/answers":
            return self._script(request)
        with self._lock:
            messages = list(self.messages)
        if request.path == "/messages":
            return json_response(messages)
        if request.path == "/":
            return Response(200, _page(messages).encode(), dict(_PAGE_HEADERS))
        return Response(404, b"no_service")

    def _take_file(self, request: Request) -> Response:
        """Slack's upload in three steps: ask for a URL, send the bytes there, show the file in a channel."""
        given = {**request.query, **dict(parse_qsl(request.body.decode(errors="replace")))}
        with self._lock:
            if request.path.startswith("/upload/"):
                file = self._uploads.get(request.path.rpartition("/")[2])
                if file is None or len(request.body) != file["length"]:
                    return Response(400, b"no such upload")
                file["content"] = request.body
                return Response(200, f"OK - {len(request.body)}".encode())
            if not request.headers.get("authorization", "").startswith("Bearer xox"):
                return json_response({"ok": False, "error": "not_authed"})
            if request.path == "/api/files.getUploadURLExternal":
                file_id = f"F{len(self._uploads) + 1:04d}"
                self._uploads[file_id] = {"id": file_id, "length": int(given["length"]), "content": None}
                answer = {"ok": True, "upload_url": f"{self.origin}/upload/{file_id}", "file_id": file_id}
                return json_response(answer)
            return self._show_files(given)

    def _show_files(self, given: Mapping[str, str]) -> Response:
        channel = given.get("channel_id", "")
        if not re.fullmatch(r"[CDG][A-Z0-9]{8,}", channel):
            return json_response({"ok": False, "error": "channel_not_found"})
        shown = []
        for file in json.loads(given["files"]):
            upload = self._uploads.get(file["id"])
            if upload is None or upload["content"] is None:
                return json_response({"ok": False, "error": "file_not_found"})
            shown.append({"id": file["id"], "title": file["title"]})
            self.files.append({**shown[-1], "channel": channel, "content": upload["content"]})
        return json_response({"ok": True, "files": shown})

    def _script(self, request: Request) -> Response:
        try:
            answer = _read_answer(request.body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            needed = '{"status": 429, "body": "rate_limited", "headers": {"Retry-After": "30"}}'
            return json_response({"error": f"{error!r}: no answer; write for example {needed}"}, 400)
        self._answers.append(answer)
        return json_response({"waiting": len(self._answers)})

    def _take(self, request: Request) -> Response:
        with self._lock:
            if self._answers:
                return self._answers.popleft()
            payload = _read_payload(request.body)
            refusal = problem(payload)
            if refusal:
                return Response(400, refusal.encode())
            message = {"received_at": format_time(self._clock()), "payload": payload}
            if self._file is not None:
                with locked(self._file):
                    append_lines(self._file, json.dumps(message).encode() + b"\n")
            self.messages.append(message)
            return Response(200, b"ok", {"Content-Type": "text/html"})


def _read_messages(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            message = json.loads(line)
            yield {"received_at": str(message["received_at"]), "payload": dict(message["payload"])}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number} is no message ({error!r}): correct or remove the file") from None


def _read_answer(body: bytes) -> Response:
    """An answer that is to be given."""
    scripted = json.loads(body)
    status, text = scripted["status"], scripted.get("body", "")
    if type(status) is not int or not 200 <= status <= 599 or not isinstance(text, str):
        raise ValueError(f"status is {status!r} and body {text!r}")
    headers = {str(name): str(value) for name, value in scripted.get("headers", {}).items()}
    return Response(status, text.encode(), headers)


def _read_payload(body: bytes) -> Any:
    """What was posted; none if it is no JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def problem(payload: Any) -> str:
    """Why Slack would refuse a payload, in its words."""
    if not isinstance(payload, dict) or not isinstance(payload.get("text") or "", str):
        return "invalid_payload"
    blocks = payload.get("blocks") or []
    if not payload.get("text") and not blocks:
        return "no_text"
    if not isinstance(blocks, list) or len(blocks) > BLOCKS_MAX or not all(map(_is_block, blocks)):
        return "invalid_blocks"
    return ""


def _is_block(block: Any) -> bool:
    """Whether Slack would take a block, as far as its limits are known."""
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    check = _CHECKS.get(block["type"])
    return check is None or check(block)


def _is_section(block: dict[str, Any]) -> bool:
    fields = block.get("fields", [])
    if "text" not in block and not fields:
        return False
    return (
        ("text" not in block or _is_text(block["text"], SECTION_MAX))
        and isinstance(fields, list)
        and len(fields) <= FIELDS_MAX
        and all(_is_text(field, FIELD_MAX) for field in fields)
    )


def _is_header(block: dict[str, Any]) -> bool:
    return _is_text(block.get("text"), HEADER_MAX) and block["text"].get("type") == "plain_text"


def _is_context(block: dict[str, Any]) -> bool:
    elements = block.get("elements")
    return isinstance(elements, list) and 1 <= len(elements) <= CONTEXT_MAX


def _is_text(text: Any, limit: int) -> bool:
    return isinstance(text, dict) and isinstance(text.get("text"), str) and 1 <= len(text["text"]) <= limit


_CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "section": _is_section,
    "header": _is_header,
    "context": _is_context,
}


def _page(messages: list[dict[str, Any]]) -> str:
    articles = [
        f"<article><time>{escape(message['received_at'])}</time>\n{_shown(message['payload'])}</article>"
        for message in reversed(messages)
    ]
    return _PAGE.format(messages="\n".join(articles) or "<p><em>No message yet.</em></p>")


def _shown(payload: dict[str, Any]) -> str:
    """A message as HTML, a line for each text in it."""
    texts = [text for block in payload.get("blocks") or [] for text in _texts(block)]
    return "\n".join(map(_rendered, texts or [{"type": "mrkdwn", "text": payload.get("text") or ""}]))


def _texts(block: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = [block.get("text"), *(block.get("fields") or []), *(block.get("elements") or [])]
    return [text for text in candidates if isinstance(text, dict) and isinstance(text.get("text"), str)]


def _rendered(text: dict[str, Any]) -> str:
    """A text as HTML: with its links and bold words, if it is mrkdwn."""
    source = text["text"]
    if text.get("type") == "plain_text":
        return escape(source)
    shown, end = "", 0
    for link in _LINK.finditer(source):
        shown += _bold(_html(source[end : link.start()])) + f'<a href="{_html(link[1])}">{_html(link[2])}</a>'
        end = link.end()
    return shown + _bold(_html(source[end:]))


def _html(text: str) -> str:
    """The three characters that Slack wants escaped, and nothing else, are escaped already."""
    return escape(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def _bold(text: str) -> str:
    return re.sub(r"(?<!\w)\*([^*\n]+)\*(?!\w)", r"<b>\1</b>", text)
