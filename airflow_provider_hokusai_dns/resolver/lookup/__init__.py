"""Live lookups: the hosts file, DNS through dnspython, the system's own, and the three together."""
