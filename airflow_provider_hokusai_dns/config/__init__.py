"""What people set, read and checked: fields, connections, settings."""
