"""A refresh of the shared last known good, by the operator and the command line."""
