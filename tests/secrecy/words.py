"""The secrets of the scenario: distinctive, with characters that URLs and headers encode."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

LOGIN = "secrecy-admin"
PASSWORD = "pw Zx9%7Hq/sesame+one"
WRONG_PASSWORD = "pw Kd4%2Vw/sesame+two"
TOKEN = "tok-Rm8.3Jn_sesame-three"

HOSTNAME = "mlflow.secrecy.test"
STRANGER = "stranger.secrecy.test"
LOST = "lost.secrecy.test"


def spellings() -> dict[str, str]:
    """Every form in which a secret could stand somewhere, and whose it is."""
    found = {}
    for name, secret in (("password", PASSWORD), ("wrong password", WRONG_PASSWORD),
                         ("token", TOKEN)):  # fmt: skip
        forms = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
        forms |= {json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}
        if name != "token":
            forms.add(base64.b64encode(f"{LOGIN}:{secret}".encode()).decode())
        found |= dict.fromkeys(forms, name)
    return found
