"""A tokenizer that loses nothing, so that a test can read a prompt as the text it is."""

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.models.tiny import START, TURN


def write_tokenizer(folder, special, template=TURN, video="<video>"):
    """Replace a tiny checkpoint's tokenizer by one of single bytes; its special ids stay.

    The ids of other words no longer fit the network, so this is for prompts only.
    """
    named = [*START, *special]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: index for index, word in enumerate([*named, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", *special],
        chat_template=template.replace("VIDEO", video),
    )
    made.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["max_position_embeddings"] = 1024  # bytes are many
    (folder / "config.json").write_text(json.dumps(settings))
    return made


def read_prompt(model, question, items):
    """The whole prompt as text, placeholders by their names."""
    ids = model.prompt(question, items)["input_ids"][0]
    return model._voice.tokenizer.decode(ids)
