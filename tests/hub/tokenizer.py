"""The small byte-level tokenizer of the tiny models."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 384
# ChatML, the template of most small chat models.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHAT_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Any text does: it only decides which pairs of bytes become one token.
_CORPUS = (
    "the quick brown fox jumps over the lazy dog and then the dog chases the fox",
    "a model answers the question that the user asked and nothing else",
    "warm models stay in memory while cold models wait on the disk",
    "what is the capital of the country where the river meets the sea",
) * 8


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Any text survives encode and decode; ids are below `VOCABULARY_SIZE`."""
    end, _start, turn_end, pad = _CHAT_SPECIALS
    return PreTrainedTokenizerFast(
        tokenizer_object=_train(_CHAT_SPECIALS),
        bos_token=end,
        eos_token=turn_end,
        pad_token=pad,
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """As BERT's: every text stands between [CLS] and [SEP]."""
    pad, unknown, begin, separator, mask = _BERT_SPECIALS
    trained = _train(_BERT_SPECIALS)
    trained.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {separator}",
        pair=f"{begin} $A {separator} $B:1 {separator}:1",
        special_tokens=[(token, trained.token_to_id(token)) for token in (begin, separator)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        pad_token=pad,
        unk_token=unknown,
        cls_token=begin,
        sep_token=separator,
        mask_token=mask,
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def _train(specials: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer
