"""The sandbox's Slack: an incoming webhook and a file upload that keep what they receive, and show it."""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import flask
from markupsafe import Markup

from coinwatch.files import append_lines, cut_torn_line, locked
from coinwatch.sandbox.http import HOST, Request, Response, SandboxServer
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
_BOLD = re.compile(r"(?<!\w)\*([^*\n]+)\*(?!\w)")


class SlackSandbox(SandboxServer):
    """A Slack on loopback.

    Attributes:
        messages: What the webhook accepted, oldest first: ``received_at`` and ``payload``.
        files: What a bot uploaded to a channel: ``id``, ``title``, ``channel`` and ``content``.
        is_down: Whether the webhook and the file upload answer 503.
    """

    def __init__(
        self, *, clock: Callable[[], datetime], port: int = 0, kept_in: Path | None = None, host: str = HOST
    ) -> None:
        """Read the kept messages and take the port.

        Args:
            clock: The time at which a message is received.
            port: 0 is any free port.
            kept_in: File to which messages are appended, a line of JSON each.
            host: To listen on.

        Raises:
            CannotListen: The port is taken or not allowed.
            ValueError: A line of the file is damaged.
        """
        self.messages: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.files: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.is_down = False
        self._uploads: dict[str, dict[str, Any]] = {}
        self._answers: deque[Response] = deque()
        self._clock = clock
        self._lock = threading.Lock()
        self._file = kept_in
        if kept_in is not None and kept_in.exists():
            cut_torn_line(kept_in)
            self.messages.extend(_read_messages(kept_in))
        super().__init__(clock, port, host)
        self.app.before_request(self._refuse)
        self.app.post("/services/<path:webhook>")(self._post)
        self.app.route("/api/files.getUploadURLExternal", methods=["GET", "POST"])(self._start_upload)
        self.app.post("/upload/<file_id>")(self._upload)
        self.app.post("/api/files.completeUploadExternal")(self._complete_upload)
        self.app.get("/messages")(lambda: list(self.messages))

    @property
    def url(self) -> str:
        """The host of the Airflow connection; its password may be anything."""
        return f"{self.origin}/services"

    def answer_next(self, status: int, body: str, **headers: str) -> None:
        """Give this answer to the next post instead of accepting it; several wait in line."""
        self._answers.append(Response(status, body, headers))

    def respond(self, _: Request) -> flask.Response:
        """Answer a path that Slack does not have."""
        return Response(404, "no_service")

    def _refuse(self) -> flask.Response | None:
        path = flask.request.path
        if not path.startswith(("/services/", "/api/", "/upload/")):
            return None
        if self.is_down:
            return Response(503)
        if path.startswith("/api/") and not flask.request.headers.get("Authorization", "").startswith("Bearer xox"):
            return flask.jsonify(ok=False, error="not_authed")
        return None

    def _post(self, webhook: str) -> flask.Response:  # noqa: ARG002 - Flask passes it by name; any webhook will do
        with self._lock:
            if self._answers:
                return self._answers.popleft()
            payload = flask.request.get_json(force=True, silent=True)
            refusal = problem(payload)
            if refusal:
                return Response(400, refusal)
            message = {"received_at": format_time(self._clock()), "payload": payload}
            if self._file is not None:
                with locked(self._file):
                    append_lines(self._file, json.dumps(message).encode() + b"\n")
            self.messages.append(message)
            return Response(200, "ok")

    def _start_upload(self) -> dict[str, Any]:
        """The first of three steps: give a URL for the bytes."""
        with self._lock:
            file_id = f"F{len(self._uploads) + 1:04d}"
            self._uploads[file_id] = {"length": int(flask.request.values["length"]), "content": None}
        return {"ok": True, "upload_url": f"{self.origin}/upload/{file_id}", "file_id": file_id}

    def _upload(self, file_id: str) -> flask.Response:
        """The second step: receive the bytes."""
        body = flask.request.get_data()
        file = self._uploads.get(file_id)
        if file is None or len(body) != file["length"]:
            return Response(400, "no such upload")
        file["content"] = body
        return Response(200, f"OK - {len(body)}")

    def _complete_upload(self) -> dict[str, Any]:
        """The third step: show the files in a channel."""
        given = flask.request.values
        channel = given.get("channel_id", "")
        if not re.fullmatch(r"[CDG][A-Z0-9]{8,}", channel):
            return {"ok": False, "error": "channel_not_found"}
        shown = [{"id": file["id"], "title": file["title"]} for file in json.loads(given["files"])]
        for file in shown:
            content = self._uploads.get(file["id"], {}).get("content")
            if content is None:
                return {"ok": False, "error": "file_not_found"}
            self.files.append({**file, "channel": channel, "content": content})
        return {"ok": True, "files": shown}


def _read_messages(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            message = json.loads(line)
            yield {"received_at": str(message["received_at"]), "payload": dict(message["payload"])}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number} is damaged ({error!r}): correct or remove the file") from None


def problem(payload: Any) -> str:
    """Return why Slack would refuse a payload, in its words."""
    if not isinstance(payload, dict) or not isinstance(payload.get("text") or "", str):
        return "invalid_payload"
    blocks = payload.get("blocks") or []
    if not payload.get("text") and not blocks:
        return "no_text"
    if not isinstance(blocks, list) or len(blocks) > BLOCKS_MAX or not all(map(_is_valid, blocks)):
        return "invalid_blocks"
    return ""


def _is_valid(block: Any) -> bool:
    """Return whether Slack would accept a block, as far as its limits are known."""
    match block:
        case {"type": "header", "text": {"type": "plain_text"} as text}:
            valid = _is_text(text, HEADER_MAX)
        case {"type": "context", "elements": [*elements]}:
            valid = 1 <= len(elements) <= CONTEXT_MAX
        case {"type": "section"}:
            texts = [block["text"]] if "text" in block else []
            fields = block.get("fields", [])
            valid = (
                bool(texts or fields)
                and all(_is_text(text, SECTION_MAX) for text in texts)
                and len(fields) <= FIELDS_MAX
                and all(_is_text(field, FIELD_MAX) for field in fields)
            )
        case {"type": str(kind)}:
            valid = kind not in {"header", "context"}
        case _:
            valid = False
    return valid


def _is_text(text: Any, limit: int) -> bool:
    return isinstance(text, dict) and isinstance(text.get("text"), str) and 1 <= len(text["text"]) <= limit


def shown(payload: dict[str, Any]) -> Markup:
    """Return a message as HTML, a line for each text in it."""
    texts = [text for block in payload.get("blocks") or [] for text in _texts(block)]
    return Markup("\n".join(map(_rendered, texts or [{"text": payload.get("text") or ""}])))  # noqa: S704 - escaped


def _texts(block: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = [block.get("text"), *(block.get("fields") or []), *(block.get("elements") or [])]
    return [text for text in candidates if isinstance(text, dict) and isinstance(text.get("text"), str)]


def _rendered(text: dict[str, Any]) -> str:
    """Return a text as HTML: with its links and bold words, if it is mrkdwn."""
    source = text["text"]
    if text.get("type") == "plain_text":
        return escape(source)
    html, end = "", 0
    for link in _LINK.finditer(source):
        html += _BOLD.sub(r"<b>\1</b>", _escape(source[end : link.start()]))
        html += f'<a href="{_escape(link[1])}">{_escape(link[2])}</a>'
        end = link.end()
    return html + _BOLD.sub(r"<b>\1</b>", _escape(source[end:]))


def _escape(text: str) -> str:
    """Escape mrkdwn, in which the three characters that Slack wants escaped are escaped already."""
    return escape(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
