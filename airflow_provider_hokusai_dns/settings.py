"""The former path of the errors of a setting and of a connection that is missing."""

from __future__ import annotations

from airflow_provider_hokusai_dns.config.connections import (
    ConnectionMissingError as ConnectionMissingError,
)
from airflow_provider_hokusai_dns.config.fields import SettingError as SettingError
