"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "org/name, org/name@revision or hf://org/name@revision"
Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag, refs/pr/N or commit.")]
ModeName = Annotated[
    str | None,
    typer.Option(help="exact (the default), equivalent, optimized, auto or compat:unsloth."),
]
PrecisionName = Annotated[
    str | None,
    typer.Option(help="checkpoint (the default), bf16, fp16, fp32, fp8, int8, nf4 or gguf:<Q>."),
]
QuantizeName = Annotated[
    str | None, typer.Option(help="never, any, prequantized or on_the_fly; exact never does.")
]
MaxSeqLength = Annotated[int | None, typer.Option(help="Tokens of context to make room for.")]
Locked = Annotated[bool, typer.Option("--locked", help="Only what models.lock names.")]
UnslothArgs = Annotated[
    str | None,
    typer.Option(
        help="from_pretrained's own arguments: load_in_4bit=True,use_exact_model_name=True."
    ),
]
LockPath = Annotated[Path, typer.Option("--lock-file", help="The lock file.")]
KeepAlive = Annotated[
    str | None, typer.Option(help="How long it stays warm when idle: 0, 10m or pinned.")
]
PriorityName = Annotated[str, typer.Option(help="interactive, normal or background.")]
Timeout = Annotated[
    str | None,
    typer.Option(help="End the job so long after its submission, waiting included: 90s, 10m."),
]
ExpiresAt = Annotated[
    str | None,
    typer.Option(help="Drop the job if nobody has started it by then: 2027-01-31T08:00:00Z."),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(help="The same key and request again give the same job, for a day."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Explain what it would do, do nothing.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job and do not wait for it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say each change of state on stderr.")
]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]
Trail = Annotated[bool, typer.Option("--trail", help="Show each rule's decision.")]
