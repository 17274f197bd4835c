"""MLflow's client, and what stands between it and the server."""
