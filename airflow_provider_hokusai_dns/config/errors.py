"""The errors of settings and connections."""

from __future__ import annotations

from airflow_provider_hokusai_dns.resolver.errors import PicklableError


def as_sentence(error: Exception) -> str:
    """An error between other sentences: with a capital letter and a full stop."""
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


class SettingError(PicklableError, ValueError):
    """A setting is invalid.

    :param where: for example ``"connection 'mlflow_default'"`` or ``"environment"``.
    :param field: the name of the field, variable or option.
    :param reason: one sentence on what is wrong and what to write instead. It contains the value,
        unless that may be a secret.
    """

    def __init__(self, where: str, field: str, reason: str) -> None:
        super().__init__(f"{where}, {field}: {reason}")
        self.where = where
        self.field = field
        self.reason = reason


class TLSFileError(ValueError):
    """A CA file or a client certificate of the connection cannot be used."""


class ConnectionMissingError(PicklableError, LookupError):
    """The connection does not exist, or Airflow cannot read it now; Airflow reports both alike.

    :param conn_id: the requested connection.
    :param hint: what to do, in one sentence.
    """

    _said = "Airflow returned no connection"

    def __init__(self, conn_id: str, hint: str) -> None:
        super().__init__(f"{self._said} {conn_id!r}. {hint}")
        self.conn_id = conn_id
        self.hint = hint


class ConnectionUndefinedError(ConnectionMissingError):
    """Airflow reports that the connection does not exist: retrying will not help."""

    _said = "There is no connection"


class ConnectionConflictError(PicklableError, ValueError):
    """One task uses two connections that resolve one hostname in different ways.

    :param hostname: the name they share.
    :param field: the extra in which they differ.
    :param conn_ids: the two connections.
    """

    def __init__(self, hostname: str, field: str, conn_ids: tuple[str, str]) -> None:
        super().__init__(
            f"Connections {conn_ids[0]!r} and {conn_ids[1]!r} both point to {hostname!r}, but their"
            f" {field} differ. MLflow's client resolves a name in one way per process: use the two "
            f"connections in two tasks, or make their {field} equal."
        )
        self.hostname = hostname
        self.field = field
        self.conn_ids = conn_ids
