"""The health gate: one check of a connection, what a gate makes of it, checks that gates share."""
