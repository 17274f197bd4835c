"""Gates in every mode, each before a task that is fed with its XCom; read by ``test_modes.py``."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, task

from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

#: What comes back too soon after its last process ended is taken for failed by an Airflow that has
#: not heard of that end yet: so the times are such that a busy machine bears them.
MODES = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule", "poke_interval": 15},
    "deferrable": {"deferrable": True, "poke_interval": 5},
    "from_trigger": {"deferrable": True, "start_from_trigger": True},
    "to_worker": {"deferrable": True, "start_from_trigger": True, "end_from_trigger": False},
}
USUAL = {"poke_interval": 1, "retries": 1, "retry_delay": 0, "mlflow_conn_id": "ml"}


class TellingGate(MLflowHealthSensor):
    """One whose author is notified when it opens."""

    def post_execute(self, context, result=None):
        context["ti"].xcom_push(key="told", value="it is open")


@task(trigger_rule="all_done")
def summary(verdict):
    """What a DAG author does with the XCom: it breaks on a text."""
    return {"type": type(verdict).__name__, "said": f"{verdict['level']}: {verdict['sentence']}"}


def gates(**given):
    for mode, arguments in MODES.items():
        one = MLflowHealthSensor(task_id=mode, **{**USUAL, **arguments, **given})
        summary.override(task_id=f"after_{mode}")(one.output)


with DAG("open_gates", schedule=None):
    gates(timeout=600)
    late = {**USUAL, **MODES["from_trigger"], "timeout": 600}
    MLflowHealthSensor(task_id="late_outlet", **late).outlets.append(Asset("opened late"))
    TellingGate(task_id="telling", **late)

with DAG("many_gates", schedule=None):
    for number in range(20):
        arguments = {**USUAL, **MODES["from_trigger"], "timeout": 600}
        MLflowHealthSensor(task_id=f"gate_{number}", **arguments)

with DAG("away_gates", schedule=None):
    for mode, arguments in MODES.items():
        given = {**USUAL, **arguments, "retries": 0, "timeout": 600}
        MLflowHealthSensor(task_id=mode, **given)

with DAG("late_gates", schedule=None):
    gates(timeout=15)

with DAG("cut_gates", schedule=None):
    gates(timeout=600, execution_timeout=timedelta(seconds=12))

with DAG("misspelt_gates", schedule=None):
    gates(timeout=600, mlflow_conn_id="mll", soft_fail=True)
