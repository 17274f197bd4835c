"""What the fleet's DAGs and those who drive them call the same thing."""

from __future__ import annotations

#: The connection to MLflow through the counting front, and the same for Airflow's HttpSensor.
COUNTED, COUNTED_HTTP = "mlflow_counted", "http_counted"
#: What HttpSensor asks for; the words after the question mark are for the front.
HTTP_SENSOR = "/health?http-sensor"
GATES, HTTP_GATES = "fleet_gates", "fleet_http_gates"
TRAINING = "fleet_training"
UNGATED = "fleet_ungated"
POKE, RESCHEDULE, DEFERRABLE = "fleet_poke", "fleet_reschedule", "fleet_deferrable"
FROM_TRIGGER = "fleet_from_trigger"
MODES = (POKE, RESCHEDULE, DEFERRABLE, FROM_TRIGGER)
DAGS = {GATES, HTTP_GATES, TRAINING, UNGATED, *MODES}
