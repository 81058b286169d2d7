"""The rules R0 to R9: each decides one thing and writes one line of the trail."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod

from warmrack_store.durations import format_duration, format_size
from warmrack_store.errors import Defect, LockMismatch, NotSupported, RemoteCode, WontFit
from warmrack_store.facts import FileFact, RefFact, RepositoryFacts, WeightFile
from warmrack_store.locks import LockedLoad
from warmrack_store.refs import is_commit
from warmrack_store.requests import LoadRequest, LockUse, Mode, check_supported
from warmrack_store.resolution import Memory, TrailLine
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.files import list_companions
from warmrack_store.resolver.gguf import (
    choose_file,
    get_header,
    plan_gguf,
    read_config,
    unpacked,
)
from warmrack_store.resolver.kinds import INDEX, Weights, choose_weights
from warmrack_store.resolver.memory import describe_memory, estimate_memory
from warmrack_store.resolver.packing import count_packed
from warmrack_store.resolver.precision import (
    FLOATS,
    PrecisionPlan,
    count_dtypes,
    plan_precision,
)
from warmrack_store.resolver.quantization import find_quantization, is_quantization_state


def validate(request: LoadRequest) -> TrailLine:
    """R0: the request is one that this version serves."""
    check_supported(request)
    return TrailLine(
        rule="R0",
        input=request.model,
        decision=f"mode {request.mode.value}, precision {request.precision}",
        alternatives=tuple(mode.value for mode in Mode if mode is not request.mode),
        evidence=f"request {request.digest()}",
    )


def consult_lock(request: LoadRequest) -> TrailLine:
    """R1: a lock decides where one is used. Raises LockMismatch where it must and holds nothing."""
    locked = request.locked
    if locked is None and request.lock is LockUse.REQUIRE:
        raise LockMismatch(
            f"the lock holds nothing for {request.model} as it is asked for",
            hint="Add it: warmrack lock MODEL, with the same options.",
        )
    if locked is not None:
        _check_pins(request, locked)
    decision = "no lock is consulted" if request.lock is LockUse.NONE else "the lock holds nothing"
    return TrailLine(
        rule="R1",
        input=f"lock {request.lock.value}",
        decision=decision if locked is None else f"{locked.repository} at {locked.commit}",
        alternatives=tuple(use.value for use in LockUse if use is not request.lock),
        evidence="" if locked is None else f"{len(locked.files)} files by digest",
    )


def _check_pins(request: LoadRequest, locked: LockedLoad) -> None:
    """A commit that the request names itself is not given up for the one that is locked."""
    adapter = locked.adapter.commit if locked.adapter is not None else locked.asked_commit
    pins = [(request.ref(), adapter)]
    if request.adapter is not None:
        pins = [(request.ref(), locked.asked_commit), (request.adapter_ref(), adapter)]
    for ref, commit in pins:
        if is_commit(ref.revision) and ref.revision != commit:
            raise LockMismatch(
                f"{ref.repository} is asked for at {ref.revision}, and locked at {commit}",
                hint="Leave the revision out, or lock the model anew.",
            )


def name_canonically(request: LoadRequest, ref: RefFact) -> TrailLine:
    """R2: the Hub's own spelling; another case or an old name of the same repository is an alias."""
    asked = request.ref().repository
    same = asked == ref.repository
    return TrailLine(
        rule="R2",
        input=asked,
        decision=ref.repository,
        alternatives=() if same else (asked,),
        evidence="the Hub's spelling" if same else "the Hub answers under this name",
    )


def pin_commit(request: LoadRequest, asked: Asked) -> TrailLine:
    """R3: the revision is one commit from here on."""
    age = asked.age_seconds
    when = f", {format_duration(age)} ago" if age else ""
    return TrailLine(
        rule="R3",
        input=request.ref().revision or "the default branch",
        decision=asked.ref.commit,
        evidence=f"the Hub's answer for this revision{when}",
    )


def choose_kind(facts: RepositoryFacts) -> tuple[Weights, TrailLine]:
    """R4: a full model in safetensors, and which of the files are it."""
    weights = choose_weights(facts)
    line = TrailLine(
        rule="R4",
        input=f"{len(facts.files)} files",
        decision=f"full model: {_list_some(file.path for file in weights.files)}",
        alternatives=weights.left_out,
        evidence=INDEX if weights.index else weights.files[0].path,
    )
    return weights, line


def choose_gguf(request: LoadRequest, facts: RepositoryFacts) -> tuple[str, Weights, TrailLine]:
    """R4 of a request for GGUF: the quantization, and the one file that has it."""
    kind, file = choose_file(request, facts)
    others = tuple(path.path for path in facts.files if path.path.endswith(".gguf"))
    line = TrailLine(
        rule="R4",
        input=f"{len(facts.files)} files",
        decision=f"a model in GGUF: {file.path}",
        alternatives=tuple(path for path in others if path != file.path),
        evidence=f"its name says {kind}",
    )
    return kind, Weights(files=(file,), index=None, left_out=line.alternatives), line


def read_gguf(
    facts: RepositoryFacts, weights: Weights
) -> tuple[RepositoryFacts, tuple[WeightFile, ...], TrailLine]:
    """R5 of a GGUF repository: the facts with the config that its header stands for."""
    header = get_header(facts)
    config = read_config(header)
    headers = tuple(unpacked(header, file.path) for file in weights.files)
    line = TrailLine(
        rule="R5",
        input=f"the header of {header.path}",
        decision=f"{config['architectures']}, {count_parameters(config, headers)} parameters",
        evidence=f"{len(header.tensors)} tensors, as they unpack",
    )
    return facts.model_copy(update={"config": config}), headers, line


def read_facts(
    facts: RepositoryFacts, weights: Weights
) -> tuple[tuple[WeightFile, ...], TrailLine]:
    """R5: config and headers. Raises NotSupported or RemoteCode for a config that is not served."""
    declared = check_config(facts)
    known = {file.path: file for file in facts.weights}
    headers = tuple(known[file.path] for file in weights.files if file.path in known)
    _check_tensors(facts.repository, weights, headers)
    dtypes = count_dtypes(headers)
    quantized = find_quantization(facts, dtypes)
    parameters = count_parameters(declared.config, headers)
    shown = ", ".join(f"{count} {dtype}" for dtype, count in dtypes.items())
    line = TrailLine(
        rule="R5",
        input="config.json and safetensors headers",
        decision=f"{declared.architecture or 'no class named'}, {parameters} parameters, "
        f"{f'quantized ({quantized})' if quantized else 'not quantized'}",
        evidence=f"tensors: {shown or 'none'}",
    )
    return headers, line


def is_plain(facts: RepositoryFacts) -> bool:
    """Whether the repository's weights are not quantized."""
    dtypes = count_dtypes(facts.weights)
    return find_quantization(facts, dtypes) is None


def check_limits(request: LoadRequest, memory: Memory, size_bytes: int) -> None:
    """R8: the caller's own limits. Raises WontFit."""
    if request.max_download_bytes is not None and size_bytes > request.max_download_bytes:
        raise WontFit(
            f"the files are {size_bytes} bytes ({format_size(size_bytes)}); max_download_bytes "
            f"allows {request.max_download_bytes}",
            hint="Raise max_download_bytes, or name a smaller model.",
        )
    if request.max_memory_bytes is not None and memory.total_bytes > request.max_memory_bytes:
        raise WontFit(
            f"the model needs {describe_memory(memory)}, {memory.total_bytes} bytes; "
            f"max_memory_bytes allows {request.max_memory_bytes}",
            hint="Raise max_memory_bytes, lower max_seq_length, or name a smaller model.",
        )


def plan_load(
    request: LoadRequest, facts: RepositoryFacts, headers: tuple[WeightFile, ...]
) -> tuple[PrecisionPlan, Memory, TrailLine]:
    """R9: the precision and the memory of the load."""
    plan = plan_precision(request, facts, headers)
    memory = estimate_memory(
        facts.config or {},
        headers,
        request.max_seq_length,
        quantization=plan.quantization,
        cast=plan.cast,
        skeleton=facts.skeleton,
    )
    return plan, memory, _describe_load(request, plan, memory)


def plan_gguf_load(
    request: LoadRequest, facts: RepositoryFacts, headers: tuple[WeightFile, ...], kind: str
) -> tuple[PrecisionPlan, Memory, TrailLine]:
    """R9 of a GGUF file, whose tensors lie in memory unpacked."""
    plan = plan_gguf(kind)
    memory = estimate_memory(facts.config or {}, headers, request.max_seq_length)
    return plan, memory, _describe_load(request, plan, memory)


def _describe_load(request: LoadRequest, plan: PrecisionPlan, memory: Memory) -> TrailLine:
    return TrailLine(
        rule="R9",
        input=f"precision {request.precision}, max_seq_length "
        f"{request.max_seq_length or 'by default'}",
        decision=f"{plan.describe()}, {describe_memory(memory)}",
        evidence="the weights' headers and the config",
    )


def check_config(facts: RepositoryFacts) -> Declared:
    """The config, where transformers can tell from it what to build without code of others."""
    name = facts.repository
    if facts.config is None:
        reason = f"has a config.json that {facts.config_error}" if facts.config_error else None
        raise NotSupported(
            f"{name} {reason or 'has no config.json in its root'}",
            hint="Name a repository that transformers can load.",
        )
    declared = Declared(facts.config)
    if declared.config.get("auto_map") or declared.text().config.get("auto_map"):
        raise RemoteCode(
            f"{name} declares Python code of its own (auto_map in config.json)",
            hint="Name a model whose class transformers has; this version runs no remote code.",
        )
    if declared.model_type is None:
        raise NotSupported(f"{name}'s config.json names no model_type")
    if declared.config.get("transformers_weights") is not None:
        raise NotSupported(f"{name}'s config.json names its weights by transformers_weights")
    return declared


def _check_tensors(name: str, weights: Weights, headers: tuple[WeightFile, ...]) -> None:
    """Every weight file has its header, and every tensor one place."""
    if len(headers) != len(weights.files):
        raise Defect(f"facts of {name} lack the header of a weight file")
    names = Counter(tensor.name for file in headers for tensor in file.tensors)
    if not names:
        raise NotSupported(f"{name}'s weight files hold no tensors")
    tensor, places = names.most_common(1)[0]
    if places > 1:
        raise NotSupported(f"{name} stores the tensor {tensor[:100]!r} in {places} files")


def count_parameters(config: Mapping[str, object], headers: Iterable[WeightFile]) -> int:
    """Elements of the float tensors, and what packed ones unpack to; other integer tensors are
    positions and masks."""
    tensors = [tensor for file in headers for tensor in file.tensors]
    if any(is_quantization_state(tensor.name) for tensor in tensors):
        return count_packed(config, tensors)
    return sum(prod(tensor.shape) for tensor in tensors if tensor.dtype in FLOATS)


def plan_files(facts: RepositoryFacts, weights: Weights) -> tuple[FileFact, ...]:
    """What is fetched, in path order: weights, their index, and what transformers reads besides."""
    index = () if weights.index is None else (weights.index,)
    chosen = (*weights.files, *index, *list_companions(facts.files))
    return tuple(sorted(chosen, key=lambda file: file.path))


def _list_some(paths: Iterable[str]) -> str:
    listed = list(paths)
    return listed[0] if len(listed) == 1 else f"{listed[0]} and {len(listed) - 1} more shards"
