"""The path of before ``config.server``, for code that still imports it."""

from __future__ import annotations

from airflow_provider_hokusai_dns.config.server import Credentials as Credentials
from airflow_provider_hokusai_dns.config.server import MLflowServer as MLflowServer
from airflow_provider_hokusai_dns.config.server import Proxy as Proxy
from airflow_provider_hokusai_dns.config.server import StaleOverHTTP as StaleOverHTTP
