"""The client of one command, and how the command waits for a job."""

from typing import TYPE_CHECKING

import typer

from warmrack_daemon.cli import INTERRUPTED
from warmrack_daemon.cli.output import say
from warmrack_store.errors import WarmrackError

if TYPE_CHECKING:
    from warmrack import Client, Job


def open_client() -> "Client":
    """A client as the settings say."""
    from warmrack import Client

    return Client()


def wait_for(client: "Client", job: "Job", *, verbose: bool) -> "Job":
    """The job once it has succeeded, with its progress on stderr; raises its error.

    Ctrl-C ends the waiting, not the job.
    """
    from warmrack_daemon.cli.progress import watching

    try:
        with watching(verbose=verbose) as on_change:
            if on_change is not None:
                on_change(job)
            elif job.progress.waiting_for:
                say(f"job {job.id} waits for {job.progress.waiting_for}")
            return client.wait(job.id, on_change=on_change)
    except WarmrackError:
        say(f"job {job.id} did not succeed; `warmrack job {job.id} --logs` says more")
        raise
    except KeyboardInterrupt:
        say(f"interrupted: job {job.id} goes on; `warmrack cancel {job.id}` ends it")
        raise typer.Exit(INTERRUPTED) from None
