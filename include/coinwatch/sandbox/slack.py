"""The sandbox's Slack: an incoming webhook and a file upload that keep what they receive, and show it."""

import itertools
import json
import re
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from html import escape, unescape
from pathlib import Path
from typing import Any

import flask
from markupsafe import Markup

from coinwatch.files import append_lines, locked, open_log
from coinwatch.sandbox.http import HOST, Request, Response, SandboxServer
from coinwatch.times import format_time

# Slack's limits (Block Kit reference): blocks of a message, elements of a context, and characters of texts.
BLOCKS_MAX = 50
CONTEXT_MAX = 10
SECTION_MAX = 3000
HEADER_MAX = 150

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

    name = "Slack"

    def __init__(
        self, *, clock: Callable[[], datetime], port: int = 0, kept_in: Path | None = None, host: str = HOST
    ) -> None:
        """Read the kept messages, a line of JSON each, and take the port."""
        self.messages: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.files: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.is_down = False
        self._file_ids = (f"F{number:04d}" for number in itertools.count(1))
        self._uploads: dict[str, bytes] = {}
        self._answers: deque[Response] = deque()
        self._clock = clock
        self._lock = threading.Lock()
        self._file = kept_in
        if kept_in is not None and kept_in.exists():
            open_log(kept_in).close()
            try:
                self.messages.extend(map(json.loads, kept_in.read_bytes().splitlines()))
            except ValueError as error:
                raise ValueError(f"{kept_in} is damaged ({error}): correct or remove it") from None
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
                with locked(self._file), open_log(self._file) as file:
                    append_lines(file, json.dumps(message).encode() + b"\n")
            self.messages.append(message)
            return Response(200, "ok")

    def _start_upload(self) -> dict[str, Any]:
        """The first of three steps: give a URL for the bytes."""
        file_id = next(self._file_ids)
        return {"ok": True, "upload_url": f"{self.origin}/upload/{file_id}", "file_id": file_id}

    def _upload(self, file_id: str) -> flask.Response:
        """The second step: receive the bytes."""
        self._uploads[file_id] = flask.request.get_data()
        return Response(200, "OK")

    def _complete_upload(self) -> dict[str, Any]:
        """The third step: show the files in a channel."""
        given = flask.request.values
        channel = given.get("channel_id", "")
        if not re.fullmatch(r"[CDG][A-Z0-9]{8,}", channel):
            return {"ok": False, "error": "channel_not_found"}
        files = json.loads(given["files"])
        if not all(file["id"] in self._uploads for file in files):
            return {"ok": False, "error": "file_not_found"}
        for file in files:
            found = {"id": file["id"], "title": file["title"], "channel": channel, "content": self._uploads[file["id"]]}
            self.files.append(found)
        return {"ok": True, "files": files}


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
    """Return whether Slack would accept a block, as far as Coinwatch uses it."""
    match block:
        case {"type": "header", "text": {"type": "plain_text", "text": str(text)}}:
            return 1 <= len(text) <= HEADER_MAX
        case {"type": "section", "text": {"text": str(text)}}:
            return 1 <= len(text) <= SECTION_MAX
        case {"type": "context", "elements": [*elements]}:
            return 1 <= len(elements) <= CONTEXT_MAX
        case {"type": str(kind)}:
            return kind not in {"header", "section", "context"}
    return False


def shown(payload: dict[str, Any]) -> Markup:
    """Return a message as HTML, a line for each text in it."""
    texts = [text for block in payload.get("blocks") or [] for text in (block.get("text"), *block.get("elements", []))]
    return Markup("\n".join(_rendered(text) for text in texts if text) or _rendered(payload))  # noqa: S704 - escaped


def _rendered(text: dict[str, Any]) -> str:
    """Return a text as HTML: with its links and bold words, if it is mrkdwn."""
    source = text.get("text") or ""
    if text.get("type") == "plain_text":
        return escape(source)
    pieces = [_escape(piece) for piece in _LINK.split(source)]
    # Between the links, whose URLs and labels follow each other, are texts.
    pieces[::3] = [_BOLD.sub(r"<b>\1</b>", piece) for piece in pieces[::3]]
    pieces[1::3] = [f'<a href="{url}">' for url in pieces[1::3]]
    pieces[2::3] = [f"{label}</a>" for label in pieces[2::3]]
    return "".join(pieces)


def _escape(text: str) -> str:
    """Escape mrkdwn, in which the three characters that Slack wants escaped are escaped already."""
    return escape(unescape(text))
