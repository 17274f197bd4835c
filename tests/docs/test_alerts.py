"""The alert rules to copy, by Prometheus's own promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
RULES = REPOSITORY / "docs" / "alerts.yml"
UNPACKED = REPOSITORY / ".tools" / "promtool"
PROMTOOL = shutil.which("promtool") or (str(UNPACKED) if UNPACKED.exists() else None)

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not here (.ci/promtool unpacks it from Debian's package)"
)

PLACE = '{conn_id="ml", hostname="mlflow.local"}'
STATE = 'hokusai_dns_mlflow_state{conn_id="ml", hostname="mlflow.local", state="unhealthy"}'
#: Series of each minute, the minute that is asked for, and the alerts that fire then.
CASES = {
    "all is well": ({STATE: "0x30"}, "10m", set()),
    "down for a minute": ({STATE: "0 0 1 0x30"}, "3m", set()),
    "down for three minutes": ({STATE: "1x30"}, "3m", {"MLflowUnusable"}),
    "gone for six minutes": (
        {f"hokusai_dns_name_away_seconds{PLACE}": "0+60x30"},
        "6m",
        {"MLflowNameGone"},
    ),
    "gone for four minutes": ({f"hokusai_dns_name_away_seconds{PLACE}": "0+60x30"}, "4m", set()),
    "no refresh for three hours": (
        {f"hokusai_dns_last_known_good_age_seconds{PLACE}": "10800+60x30"},
        "11m",
        {"MLflowFallbackCold"},
    ),
    "a broken Variable": (
        {f"hokusai_dns_variable_broken{PLACE}": "1x30"},
        "11m",
        {"MLflowFallbackCold"},
    ),
}


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules():
    """Syntax, expressions, templates."""
    promtool("check", "rules", str(RULES))


def alert(name: str) -> dict[str, object]:
    severity = "critical" if name == "MLflowUnusable" else "warning"
    labels = {"conn_id": "ml", "hostname": "mlflow.local", "severity": severity}
    return {"exp_labels": labels}


@pytest.mark.parametrize("case", CASES)
def test_each_rule_fires_when_it_should_and_not_before(case, tmp_path):
    """On series as our own endpoint gives them."""
    series, at, firing = CASES[case]
    names = ("MLflowUnusable", "MLflowNameGone", "MLflowFallbackCold")
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    tests = [
        {
            "interval": "1m",
            "input_series": inputs,
            "alert_rule_test": [
                {
                    "eval_time": at,
                    "alertname": name,
                    "exp_alerts": [alert(name)] if name in firing else [],
                }
                for name in names
            ],
        }
    ]
    # Labels alone: the words of an alert may change.
    (tmp_path / "rules.yml").write_text(json.dumps(_without_annotations()))
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(document))
    promtool("test", "rules", str(tmp_path / "test.yml"))


def _without_annotations() -> dict[str, object]:
    import yaml

    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations")
    return rules
