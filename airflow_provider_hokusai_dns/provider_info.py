"""The description of this package for Airflow, as pure data: no other module is imported."""

from __future__ import annotations

from typing import Any

_HOOK = "airflow_provider_hokusai_dns.hooks.mlflow.MLflowHook"
_TEXT = {"type": ["string", "null"]}
_SECONDS = {"type": ["number", "null"], "minimum": 0}


def _field(label: str, description: str, schema: dict[str, Any] = _TEXT) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": schema}


def _option(description: str, default: str | None, type_: str = "float") -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type_,
        "example": None,
        "default": default,
    }


#: A page each, as Airflow's own providers have them; paths in the repository.
_GUIDES = (
    "hooks/mlflow",
    "sensors/mlflow_health",
    "operators/dns_refresh",
    "triggers/mlflow_health",
)
_CONN_FIELDS = {
    "path_prefix": _field("Path prefix", "Path under which MLflow is served, for example /mlflow."),
    "ca_file": _field(
        "CA file",
        "File on the workers with the CA certificates to trust (https). Empty: the system's.",
    ),
    "client_cert": _field(
        "Client certificate", "PEM file on the workers with certificate and key (https)."
    ),
    "verify": _field(
        "Verify certificate",
        "If off, any certificate is accepted: stale addresses are then as unsafe as over http.",
        {"type": ["boolean", "null"], "default": True},
    ),
    "workspace": _field("Workspace", "MLflow workspace, if the server has workspaces enabled."),
    "registry_uri": _field("Registry URI", "Model registry, if it is not on the tracking server."),
    "experiment": _field("Experiment", "Default experiment for hook.run()."),
    "request_timeout": _field(
        "Request timeout, seconds",
        "How long one call outside a run may take. Default 30.",
        _SECONDS,
    ),
    "max_retries": _field(
        "Retries",
        "How many times a failed request is sent again. Default: as often as the deadline allows.",
        {"type": ["integer", "null"], "minimum": 0},
    ),
    "deadline": _field(
        "Deadline in a run, seconds",
        "How long a call inside a run waits for an unavailable server. Default 600, which covers a "
        "redeploy on ECS.",
        _SECONDS,
    ),
    "fallback_addresses": _field(
        "Fallback addresses",
        "For emergencies: IP addresses, separated by commas, used when no other address is known.",
    ),
    "also_pin": _field(
        "Also pin",
        "Further hostnames to keep reachable, separated by commas, such as those of presigned "
        "artifact URLs.",
    ),
    "max_stale": _field(
        "Maximum age of a stale answer, seconds",
        "How old an address may be while DNS does not answer; 0 disables stale answers. Empty: "
        "max_stale of the policy.",
        _SECONDS | {"maximum": 259200},
    ),
    "cache_ttl": _field(
        "Lifetime of an answer, seconds",
        "Overrides the TTL from DNS for this hostname. Empty: the TTL, at most "
        "cache_ttl of the policy.",
        _SECONDS,
    ),
    "nameservers": _field(
        "Nameservers",
        "DNS servers for this hostname instead of the system's, separated by commas: for example "
        "10.0.0.2 or 10.0.0.2:8600.",
    ),
    "srv": _field(
        "SRV record",
        "SRV record with the server's address and port, for example _mlflow._tcp.service.consul. "
        "The URL keeps the hostname.",
    ),
    "srv_lookup": _field(
        "The host is an SRV record",
        "As in Airflow's HTTP connections: the host is looked up as an SRV record. The URL gets "
        "the name without its _service._proto labels.",
        {"type": "boolean", "default": False},
    ),
    "allow_stale_over_http": _field(
        "Stale address over plain http",
        "Whether an address that is not fresh may be used without TLS. never; checked: only if an "
        "MLflow server answers there, and with a login until it is 15 minutes old; always.",
        {"type": "string", "enum": ["never", "checked", "always"], "default": "checked"},
    ),
}

_UI_FIELD_BEHAVIOUR = {
    "hidden-fields": [],
    "relabeling": {
        "schema": "Scheme",
        "login": "User name (empty for a bearer token)",
        "password": "Password, or bearer token",
    },
    "placeholders": {
        "host": "mlflow.hokusai-development.local",
        "port": "5000",
        "schema": "http or https",
    },
}

_OPTIONS = {
    "connections": _option(
        "Connections that the refresh DAG refreshes and the health endpoints check by default, "
        "separated by commas.",
        "mlflow_default",
        "string",
    ),
    "hostnames": _option(
        "Further hostnames, separated by commas. The refresh DAG refreshes them by default, and "
        "the API server and the triggerer look them up early, like those of the connections.",
        "",
        "string",
    ),
    "look_every": _option(
        "The health endpoints of the API server check each connection at most once per this many "
        "seconds per process, however many clients ask. Above 0.",
        "15",
    ),
    "metrics_for_anyone": _option(
        "Whether /hokusai-dns/metrics, which shows connection ids and hostnames, answers without a "
        "login. Takes effect when the API server starts.",
        "False",
        "boolean",
    ),
    "cache_ttl": _option(
        "Longest lifetime of an answer in seconds; DNS_CACHE_TTL overrides it.", "300"
    ),
    "min_ttl": _option("Shortest lifetime of an answer in seconds.", "5"),
    "stale_after": _option(
        "Seconds that a caller waits for a lookup if a stale answer is available.", "0.5"
    ),
    "timeout": _option("Seconds that a lookup may take; DNS_TIMEOUT overrides it.", "10"),
    "failure_recheck": _option(
        "Seconds between lookups of a name while a stale answer is served.", "30"
    ),
    "failure_ttl": _option(
        "Seconds for which the same error is returned while there is no address to serve; doubles "
        "with each failure.",
        "1",
    ),
    "failure_ttl_max": _option("Seconds up to which failure_ttl doubles.", "10"),
    "max_stale": _option(
        "Maximum age in seconds of an answer that is served while DNS does not answer or fails; at "
        "most 259200; 0 disables stale answers.",
        "86400",
    ),
    "max_stale_no_name": _option(
        "Seconds for which a stale answer is served after DNS first said that the name does not "
        "exist; 0 disables this.",
        "900",
    ),
    "no_name_recheck": _option(
        "Seconds between lookups while DNS says that the name does not exist.", "5"
    ),
    "refresh_ahead": _option(
        "A name in use is refreshed when this fraction of its lifetime is left.", "0.2"
    ),
    "jitter": _option("Maximum fraction by which lifetimes are shortened at random.", "0.1"),
    "penalty": _option(
        "Seconds for which an address that accepted no connection stays at the end of the list.",
        "30",
    ),
    "report_interval": _option(
        "Failed connections start a lookup at most once per this many seconds.", "1"
    ),
    "max_hosts": _option("Maximum number of names in memory.", "1024", "integer"),
    "max_clock_skew": _option(
        "Seconds by which a stored timestamp may be ahead of the clock.", "300"
    ),
    "store_max_age": _option("Seconds after which the stored last known good is rewritten.", "600"),
    "store_recheck": _option(
        "Seconds between reads of the stored last known good for a failing name.", "30"
    ),
    "window": _option("Length in seconds of the rolling window for the health level.", "300"),
    "nameservers": _option(
        "Nameservers to ask instead of the system's: address or address:port, separated by commas.",
        "",
        "string",
    ),
    "relay_keep": _option(
        "MiB of temporary files in which a relay (hook.relay) keeps artifacts until they are "
        "delivered; anything beyond that is sent once.",
        "1024",
        "integer",
    ),
    "search": _option("Search domains instead of the system's, separated by commas.", "", "string"),
}


def get_provider_info() -> dict[str, Any]:
    """Describe the provider (entry point ``apache_airflow_provider``)."""
    from airflow_provider_hokusai_dns import __version__

    return {
        "package-name": "airflow-provider-hokusai-dns",
        "name": "MLflow that survives DNS (Hokusai)",
        "description": "Keeps MLflow reachable from Airflow when DNS fails: hook, sensor, "
        "operator, refresh DAG.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "MLflow",
                "external-doc-url": "https://mlflow.org/docs/latest/",
                "how-to-guide": [f"/docs/{page}.md" for page in _GUIDES],
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("hooks.mlflow")],
        "sensors": [_modules("sensors.mlflow_health")],
        "operators": [_modules("operators.dns_refresh")],
        "triggers": [_modules("triggers.mlflow_health")],
        "connection-types": [
            {
                "connection-type": "mlflow",
                "hook-class-name": _HOOK,
                "hook-name": "MLflow",
                "ui-field-behaviour": _UI_FIELD_BEHAVIOUR,
                # DAGs and messages name a field by its key, so the form shows the key too.
                "conn-fields": {
                    name: field | {"label": f"{field['label']} ({name})"}
                    for name, field in _CONN_FIELDS.items()
                },
            }
        ],
        "cli": ["airflow_provider_hokusai_dns.cli.definition.get_hokusai_dns_cli_commands"],
        "extra-links": [
            "airflow_provider_hokusai_dns.links.mlflow_run.MLflowRunLink",
            "airflow_provider_hokusai_dns.links.status_page.StatusPageLink",
        ],
        "config": {
            "hokusai_dns": {
                "description": "How names are resolved while DNS works, and while it fails. "
                "Durations are in seconds.",
                "options": _OPTIONS,
            }
        },
    }


def _modules(name: str) -> dict[str, Any]:
    return {
        "integration-name": "MLflow",
        "python-modules": [f"airflow_provider_hokusai_dns.{name}"],
    }
