"""What the subcommands of ``tidegate`` do."""
