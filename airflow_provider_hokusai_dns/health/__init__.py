"""Whether an MLflow server can be used: probe, judge, verdict, breaker. Never imports MLflow."""
