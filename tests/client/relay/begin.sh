#!/usr/bin/env bash
# Begins a run and leaves it RUNNING.
set -eu
curl -sS --fail-with-body -X POST "$MLFLOW_TRACKING_URI/api/2.0/mlflow/runs/create" \
    -H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN" -H 'Content-Type: application/json' \
    -d '{"experiment_id": "0", "tags": [{"key": "begun_by", "value": "'"$AIRFLOW_CTX_DAG_ID"'"}]}'
