"""Ask the real API server's application for our endpoints; run as a script by its test."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    with TestClient(create_app(apps="core"), base_url="http://testserver") as client:

        def sign_in(name: str) -> dict[str, str]:
            given = {"username": name, "password": f"{name}-password"}
            token = client.post("/auth/token", json=given).json()["access_token"]
            return {"Authorization": f"Bearer {token}"}

        viewer, admin = sign_in("viewer"), sign_in("admin")
        nonsense = {"Authorization": "Bearer nonsense"}

        def ask(path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
            client.cookies.clear()
            answer = client.get(path, headers=headers)
            return {"status": answer.status_code, "body": answer.text}

        health, details = "/hokusai-dns/health", "/hokusai-dns/health/mlflow"
        seen = {
            "health_before": ask(health),
            "details_anonymous": ask(details),
            "details_nonsense": ask(details, nonsense),
            "details_viewer": ask(details, viewer),
            "health_after": ask(health),
            "openapi": ask("/hokusai-dns/openapi.json"),
            "form": ask("/ui/connections/hook_meta", admin),
            "plugins": ask("/api/v2/plugins", admin),
            "import_errors": ask("/api/v2/plugins/importErrors", admin),
        }
    out.write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
