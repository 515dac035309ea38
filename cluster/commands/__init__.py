"""The `stage` subcommands that start, show and end a cluster."""
