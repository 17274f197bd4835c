#!/usr/bin/env bash
# A run without Python: it needs two of MLflow's variables, and says at its end which run it was.
set -eu
call() {
    curl -sS --fail-with-body -X POST "$MLFLOW_TRACKING_URI/api/2.0/mlflow/$1" -d "$2" \
        -H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN" -H 'Content-Type: application/json'
}
answer=$(call runs/create '{"experiment_id": "0"}')
run=$(echo "$answer" | grep -o '"run_id": *"[0-9a-f]*"' | head -1 | grep -o '[0-9a-f]\{32\}')
call runs/log-parameter '{"run_id": "'"$run"'", "key": "a", "value": "b"}' > /dev/null
call runs/update '{"run_id": "'"$run"'", "status": "FINISHED"}' > /dev/null
echo "$run"
