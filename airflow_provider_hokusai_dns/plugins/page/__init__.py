"""The status page inside the Airflow UI: hand-written files, given out as they are.

Nothing is built and nothing is fetched from elsewhere, so it works offline. The page asks the
endpoints beside it and Airflow's own REST API, with the cookie of the signed-in user.
"""

from __future__ import annotations

from pathlib import Path

#: The DAG behind the button; what ``build_refresh_dag`` calls it unless told otherwise.
REFRESH_DAG = "hokusai_dns_refresh"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Only what lies here may run, even if a name or an error text got past the escaping. The page
#: may stand in a frame of Airflow's own origin, and of no other.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # A browser that kept the files of an older version would show new answers with outdated code.
    "Cache-Control": "no-cache",
}


def read_files() -> dict[str, bytes]:
    """The files of the page by name."""
    folder = Path(__file__).parent
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in TYPES}


def content_type(name: str) -> str:
    """What a file of the page is to a browser."""
    return TYPES[Path(name).suffix]


def render(files: dict[str, bytes], *, may_trigger: bool) -> bytes:
    """The page for one reader, from the files of :func:`read_files`.

    :param may_trigger: whether Airflow lets this reader trigger the refresh DAG.
    """
    html = files["index.html"].replace(b"{{refresh_dag}}", REFRESH_DAG.encode())
    return html.replace(b"{{may_trigger}}", b"yes" if may_trigger else b"no")
