"""The page of a demo and its answers over HTTP, on the loopback address only."""

from __future__ import annotations

import errno
import http.server
import json
import re
import traceback
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mmcontrast.errors import UserError

if TYPE_CHECKING:
  from mmcontrast.demo.answers import Demo

HOST = "127.0.0.1"
_LARGEST = 64 * 2**20  # bytes of a request
_FILES = {
  "/": ("page.html", "text/html"),
  "/page.css": ("page.css", "text/css"),
  "/page.js": ("page.js", "text/javascript"),
}
_THING = re.compile(r"/(picture|sound)/(\w+)/(\d{1,12})")
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self'; " \
          "connect-src 'self'; form-action 'none'; frame-ancestors 'none'"  # fmt: skip


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  demo: Demo


class Server:
  """A server that listens from the start, and answers once it knows the demo. A context, which closes it."""

  def __init__(self, port: int):
    """Raises UserError where the port is in use, or no port."""
    if not 0 <= port <= 65535:
      raise UserError(f"--port {port}: ports are numbers from 1 to 65535; 0 takes one that is free")
    try:
      self._server = _Server((HOST, port), _Handler)
    except OSError as error:
      if error.errno == errno.EADDRINUSE:
        raise UserError(
          f"--port {port}: is in use, by another demo perhaps; give another, such as --port {port % 65535 + 1}, or "
          "--port 0 for one that is free"
        ) from None
      raise UserError(
        f"--port {port}: {error.strerror}; give one above 1023, or --port 0 for one that is free"
      ) from None

  @property
  def address(self) -> str:
    """Where the page is."""
    return f"http://{HOST}:{self._server.server_address[1]}/"

  def serve(self, demo: Demo) -> None:
    """Answers until it is interrupted or `stop` is called."""
    self._server.demo = demo
    self._server.serve_forever(poll_interval=0.1)

  def stop(self) -> None:
    """Ends `serve`, which runs in another thread."""
    self._server.shutdown()

  def __enter__(self) -> Server:
    return self

  def __exit__(self, *error: object) -> None:
    self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  server: _Server

  def do_GET(self) -> None:
    if not self._from_here():
      return
    path = urlsplit(self.path).path
    if path in _FILES:
      name, kind = _FILES[path]
      self._send(200, f"{kind}; charset=utf-8", (resources.files("mmcontrast.demo") / name).read_bytes())
    elif path == "/about":
      self._answer(self.server.demo.about)
    elif match := _THING.fullmatch(path):
      self._answer(lambda: getattr(self.server.demo, match[1])(match[2], int(match[3])))
    else:
      self._say(404, f"{path}: there is no such page")

  def do_POST(self) -> None:
    if not self._from_here():
      return
    asked = {"/search": "search", "/classify": "classify"}.get(urlsplit(self.path).path)
    length = self.headers.get("Content-Length", "")
    if asked is None:
      self.close_connection = True
      return self._say(404, f"{self.path}: there is no such page")
    # A page of another site cannot send this type without asking, which is not answered.
    if self.headers.get_content_type() != "application/json" or not length.isdigit():
      self.close_connection = True
      return self._say(400, "send JSON, with its length")
    if int(length) > _LARGEST:
      self.close_connection = True
      return self._say(413, f"the file is too large: {_LARGEST // 2**20} MiB are read, as base64")
    try:
      request = json.loads(self.rfile.read(int(length)))
    except ValueError:
      request = None
    if not isinstance(request, dict):
      return self._say(400, "the request is no JSON table")
    self._answer(lambda: getattr(self.server.demo, asked)(request))

  def _from_here(self) -> bool:
    """Whether the page was opened by its address on this machine: a site elsewhere may give its name that address."""
    name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
    origin = self.headers.get("Origin")
    here = (HOST, "localhost", "::1")
    if name in here and (origin is None or urlsplit(origin).hostname in here):
      return True
    self.close_connection = True
    self._say(403, f"open http://{HOST}:{self.server.server_address[1]}/ on this machine")
    return False

  def _answer(self, function: Any) -> None:
    """Sends what `function` gives: JSON, or (media type, bytes); what is wrong, for the page to show."""
    try:
      found = function()
    except UserError as error:
      return self._say(400, str(error))
    except Exception as error:  # the page is told, and stays
      traceback.print_exc()
      return self._say(500, f"the demo failed: {type(error).__name__}; its terminal says more")
    if isinstance(found, tuple):
      return self._send(200, *found)
    self._send(200, "application/json", json.dumps(found).encode())

  def _say(self, status: int, error: str) -> None:
    self._send(status, "application/json", json.dumps({"error": error}).encode())

  def _send(self, status: int, kind: str, data: bytes) -> None:
    try:
      self.send_response(status)
      headers = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": "no-store",
                 "Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}  # fmt: skip
      for name, value in headers.items():
        self.send_header(name, value)
      if self.close_connection:
        self.send_header("Connection", "close")
      self.end_headers()
      self.wfile.write(data)
    except ConnectionError:  # the page was closed meanwhile
      self.close_connection = True

  def log_message(self, *_: object) -> None:
    """Says nothing: a line a picture would hide what matters."""
