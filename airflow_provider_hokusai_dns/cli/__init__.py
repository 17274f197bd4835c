"""``airflow hokusai-dns ...``."""
