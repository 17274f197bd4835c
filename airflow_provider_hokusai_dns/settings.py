"""The former path of two errors of :mod:`~airflow_provider_hokusai_dns.exceptions`."""

from __future__ import annotations

from airflow_provider_hokusai_dns.config.errors import (
    ConnectionMissingError as ConnectionMissingError,
)
from airflow_provider_hokusai_dns.config.errors import SettingError as SettingError
