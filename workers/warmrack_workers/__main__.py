"""`python -m warmrack_workers` (also `warmrack worker`): one node's agent."""

import json
import sys

from warmrack_store import heap
from warmrack_store.errors import WarmrackError
from warmrack_store.logs import configure_logs
from warmrack_store.settings import load_settings


def main() -> None:
    heap.limit_arenas()
    try:
        settings = load_settings()
        configure_logs(settings.log, node=settings.node)
        from warmrack_workers.agent import Agent

        Agent(settings).run()
    except WarmrackError as error:
        print(json.dumps({"error": error.to_record()}), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
