"""How a conversation becomes a method of a client, with its name, signature and docstring."""

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

Method = TypeVar("Method", bound=Callable[..., object])


def describe(method: Method, conversation: Callable[..., object]) -> Method:
    """`method` as help() should show it: the conversation's parameters, behind its own self."""
    functools.update_wrapper(method, conversation)
    shown = inspect.signature(conversation)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__dict__["__signature__"] = inspect.Signature([own, *shown.parameters.values()])
    return method
