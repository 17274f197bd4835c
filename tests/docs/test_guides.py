"""A page for each operator, sensor, hook and trigger, linked in the provider's metadata."""

from __future__ import annotations

import importlib
import re

from airflow_provider_hokusai_dns.provider_info import get_provider_info
from tests.docs.blocks import DOCS, REPOSITORY


def test_each_module_of_the_provider_has_its_how_to_guide():
    """Named after the module, below the folder of its kind; and none is there without one."""
    info = get_provider_info()
    (integration,) = info["integrations"]
    wanted = {
        f"/docs/{module.removeprefix('airflow_provider_hokusai_dns.').replace('.', '/')}.md"
        for kind in ("hooks", "sensors", "operators", "triggers")
        for entry in info[kind]
        for module in entry["python-modules"]
    }
    assert set(integration["how-to-guide"]) == wanted
    assert all((REPOSITORY / path.removeprefix("/")).exists() for path in wanted)


def test_each_guide_has_every_argument_of_its_class():
    """As a row of its table, with nothing that the class does not take."""
    for page, class_name in (
        ("sensors/mlflow_health", "MLflowHealthSensor"),
        ("operators/dns_refresh", "DNSRefreshOperator"),
    ):
        module = importlib.import_module(f"airflow_provider_hokusai_dns.{page.replace('/', '.')}")
        code = getattr(module, class_name).__init__.__wrapped__.__code__
        names = code.co_varnames[1 : 1 + code.co_kwonlyargcount]
        text = (DOCS / f"{page}.md").read_text()
        table = text.partition("| argument |")[2].partition("\n\n")[0]
        assert set(re.findall(r"^\| `(\w+)` ", table, re.MULTILINE)) == set(names), page


def test_each_guide_tells_the_types_of_its_xcoms():
    """Or what its trigger sends."""
    for page in ("hooks/mlflow", "sensors/mlflow_health", "operators/dns_refresh"):
        table = (DOCS / f"{page}.md").read_text().partition("## XComs\n")[2]
        assert re.search(r"^\| key \| type \|", table, re.MULTILINE), page
