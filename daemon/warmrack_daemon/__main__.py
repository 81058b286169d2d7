"""`python -m warmrack_daemon` is the command line."""

from warmrack_daemon.cli import main

main()
