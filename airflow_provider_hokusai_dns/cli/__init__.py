"""``airflow hokusai-dns ...`` (feature E6)."""
