"""The `stage` subcommands about jobs: check, run, each."""
