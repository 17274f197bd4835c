"""The other host that artifacts go to: takes parts by PUT, gives ranges by GET."""

from __future__ import annotations

from pathlib import Path

from tests.servers import Handler, HTTPThread


class FileHost(HTTPThread):
    """A context manager. Keeps the headers of every request, to see that no credential came."""

    def __init__(self, folder: Path, host: str) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        file_host = self

        class Answering(Handler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                target = folder / self.path.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(body)
                self.answer(200, b"")

            def do_GET(self) -> None:
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                whole = (folder / self.path.lstrip("/")).read_bytes()
                self.answer(206, whole[int(first) : int(last) + 1])

            def answer(self, status: int, body: bytes) -> None:
                file_host.requests.append((self.command, dict(self.headers)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"part"')
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Answering, host)
