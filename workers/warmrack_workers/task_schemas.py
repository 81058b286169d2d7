"""The downstream tasks as other processes see them: names and JSON schemas, no torch."""

from typing import Any

from warmrack_workers.downstream import list_tasks


def list_schemas() -> dict[str, dict[str, Any]]:
    """By task: a summary, whether it streams, and the schemas of its input and output."""
    return {
        task.name: {
            "summary": task.summary,
            "streams": task.streams,
            "input": task.input_type.model_json_schema(),
            "output": task.output_type.model_json_schema(),
        }
        for task in list_tasks()
    }
