"""The public errors, in one place: each is defined in the package that raises it.

Each has a message that is a sentence for people, has fields, and can be pickled.
"""

from __future__ import annotations

from airflow_provider_hokusai_dns.client.errors import (
    AmbiguousRunError,
    AsyncOutsideRunError,
    AuthProviderError,
    EnvironmentConflictError,
    Loss,
    LostDataError,
    NotSignedInError,
    RunEndError,
)
from airflow_provider_hokusai_dns.config.errors import (
    ConnectionConflictError,
    ConnectionMissingError,
    ConnectionUndefinedError,
    SettingError,
    TLSFileError,
)
from airflow_provider_hokusai_dns.health.errors import BreakerOpenError
from airflow_provider_hokusai_dns.hooks.errors import (
    MLflowRefusedError,
    MLflowRestError,
    MLflowUnreachableError,
)
from airflow_provider_hokusai_dns.resolver.errors import (
    DNSResolutionError,
    LookupFailed,
    PicklableError,
    StoreOverdue,
    StoreUnreadableError,
)

__all__ = [
    "AmbiguousRunError",
    "AsyncOutsideRunError",
    "AuthProviderError",
    "BreakerOpenError",
    "ConnectionConflictError",
    "ConnectionMissingError",
    "ConnectionUndefinedError",
    "DNSResolutionError",
    "EnvironmentConflictError",
    "LookupFailed",
    "Loss",
    "LostDataError",
    "MLflowRefusedError",
    "MLflowRestError",
    "MLflowUnreachableError",
    "NotSignedInError",
    "PicklableError",
    "RunEndError",
    "SettingError",
    "StoreOverdue",
    "StoreUnreadableError",
    "TLSFileError",
]
