"""A mirror on this machine, with the manners of good and of bad ones; it remembers what it was asked and sent."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HTML = b"<html><title>Sign in to the network</title></html>"


@dataclass
class Asked:
    """A request: the file, its Range and If-Range, and the bytes of a body that it got."""

    name: str
    range: str | None
    if_range: str | None
    sent: int = 0


class Reply:
    """One answer to a request, written by a function of `Manner`."""

    def __init__(self, handler: BaseHTTPRequestHandler, content: bytes, asked: Asked, closing: threading.Event) -> None:
        self._handler, self.content, self.asked, self.closing = handler, content, asked, closing

    @property
    def start(self) -> int:
        """Where the range that was asked for begins."""
        return int(re.fullmatch(r"bytes=(\d+)-", self.asked.range)[1]) if self.asked.range else 0  # type: ignore[index]

    def head(self, status: int, **headers: object) -> None:
        """Send the status and the headers, of which `Content_Length` is Content-Length."""
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), str(value))
        self._handler.end_headers()

    def body(self, content: bytes) -> None:
        """Send some of the body, as much as the client takes."""
        self._handler.wfile.write(content)
        self._handler.wfile.flush()
        self.asked.sent += len(content)


Manner = Callable[[Reply], None]


def good(reply: Reply, **headers: object) -> None:
    """All that is asked for."""
    partial(reply, len(reply.content), **headers)


def partial(reply: Reply, end: int, **headers: object) -> None:
    """What is asked for up to byte `end`, though the headers promise all of it."""
    start, size = reply.start, len(reply.content)
    if reply.asked.range:
        headers["Content_Range"] = f"bytes {start}-{size - 1}/{size}"
    reply.head(206 if reply.asked.range else 200, Content_Length=size - start, **headers)
    reply.body(reply.content[start:end])


def breaks_off(end: int, **headers: object) -> Manner:
    """Ends the connection before byte `end`."""
    return lambda reply: partial(reply, end, **headers)


def stalls(end: int) -> Manner:
    """Sends the bytes before `end`, and then nothing until the test is over."""

    def manner(reply: Reply) -> None:
        partial(reply, end)
        reply.closing.wait(10)

    return manner


def trickles(reply: Reply) -> None:
    """Sends a byte now and then."""
    reply.head(200, Content_Length=len(reply.content))
    for k in range(len(reply.content)):
        reply.body(reply.content[k : k + 1])
        if reply.closing.wait(0.02):
            return


def of_version(etag: str, end: int | None = None) -> Manner:
    """Of a file with this ETag: the range where the client has the same, or does not say; else all of it."""

    def manner(reply: Reply) -> None:
        if reply.asked.range and reply.asked.if_range not in (None, etag):
            reply.head(200, Content_Length=len(reply.content), ETag=etag)
            reply.body(reply.content)
        else:
            partial(reply, len(reply.content) if end is None else end, ETag=etag)

    return manner


def without_range(end: int | None = None) -> Manner:
    """All of the file whatever is asked for, or what comes before byte `end`."""

    def manner(reply: Reply) -> None:
        reply.head(200, Content_Length=len(reply.content))
        reply.body(reply.content[:end])

    return manner


def sends(content: bytes, **headers: object) -> Manner:
    """Something else, with its own length."""

    def manner(reply: Reply) -> None:
        reply.head(200, **({"Content_Length": len(content)} | headers))
        reply.body(content)

    return manner


def unmeasured(content: bytes, **headers: object) -> Manner:
    """Something without a length: it is over when the connection is."""

    def manner(reply: Reply) -> None:
        reply.head(200, **headers)
        reply.body(content)

    return manner


def in_chunks(end: int | None = None) -> Manner:
    """In chunks of 1000 bytes; with `end`, without the last chunk and what comes from byte `end` on."""

    def manner(reply: Reply) -> None:
        reply.head(200, Transfer_Encoding="chunked")
        content = reply.content[:end]
        for start in range(0, len(content), 1000):
            chunk = content[start : start + 1000]
            reply.body(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        reply.body(b"0\r\n\r\n" if end is None else b"")

    return manner


def endless(reply: Reply) -> None:
    """Zeros until the client hangs up."""
    reply.head(200)
    while not reply.closing.is_set():
        reply.body(bytes(1 << 12))


def answers(status: int) -> Manner:
    """A status and no file."""

    def manner(reply: Reply) -> None:
        reply.head(status, Content_Length=0)

    return manner


def wrong_range(text: str) -> Manner:
    """Another Content-Range than was asked for; all of the file where none is."""

    def manner(reply: Reply) -> None:
        if not reply.asked.range:
            good(reply)
            return
        reply.head(206, Content_Length=len(reply.content), Content_Range=text)
        reply.body(reply.content)

    return manner


@dataclass
class Mirror:
    """A server of files by name; `manners` are taken one a request, the last for all that follow."""

    files: dict[str, bytes]
    manners: dict[str, list[Manner]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def behave(self, name: str, *manners: Manner) -> None:
        """Let requests for a file be answered in these manners."""
        self.manners[name] = list(manners)

    def ranges(self, name: str) -> list[str | None]:
        """The Range of each request for a file."""
        return [each.range for each in self.asked if each.name == name]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        name = handler.path.rsplit("/", 1)[-1]
        asked = Asked(name, handler.headers["Range"], handler.headers["If-Range"])
        self.asked.append(asked)
        manners = self.manners.get(name, [good if name in self.files else answers(404)])
        manner = manners.pop(0) if len(manners) > 1 else manners[0]
        manner(Reply(handler, self.files.get(name, b""), asked, self.closing))


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Mirror]:
    """A mirror of these files, for the block."""
    mirror = Mirror(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                mirror.answer(self)
            except OSError:  # the client has hung up
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    mirror.url = f"http://127.0.0.1:{server.server_address[1]}/set/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def refusing() -> str:
    """The address of a folder at a port where nobody listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = server.server_address[1]
    server.server_close()
    return f"http://127.0.0.1:{port}/set/"
