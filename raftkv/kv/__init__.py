"""The replicated key-value store as a state machine: commands, the table, sessions. Pure and deterministic."""
