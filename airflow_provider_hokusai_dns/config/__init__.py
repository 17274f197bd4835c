"""Reads and checks what people configure: fields, connections, settings."""
