"""The compiled engine: functions on the state. No classes with behaviour, no I/O, no Python objects inside."""
