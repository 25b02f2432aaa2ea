"""The ``raftkv`` command. Told: what somebody typed. Tells: what happened, an exit code, and what to do next."""
