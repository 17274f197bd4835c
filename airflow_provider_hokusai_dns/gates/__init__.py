"""The health gate: one check of a connection, the gate's decision, checks shared by gates."""
