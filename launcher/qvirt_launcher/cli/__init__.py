"""The `qvirt` command. `parser` says what can be typed, `main` dispatches, one module a subcommand does it."""
