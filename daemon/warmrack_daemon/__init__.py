"""The light side: HTTP API, intake, reconciler, supervisor, command line."""
