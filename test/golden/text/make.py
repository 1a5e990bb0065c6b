"""Writes tokens.json and word-tokenizer.json with the Hugging Face tokenizers library (0.23).

Run from the repository root: python test/golden/text/make.py
"""

import hashlib
import json
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, trainers

here = Path(__file__).parent
TEXTS = [
    "The tower is 324 metres tall , about the same height as an 81 @-@ storey building .",
    "  leading and trailing spaces  ",
    "line one\nline two\r\n\r\n\tindented\n\n\n   ",
    "don't they'll I'M we've",
    "na\u00efve caf\u00e9 \u2014 \u201cquoted\u201d \u00a3 12,345.67",
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002 \u041c\u043e\u0441\u043a\u0432\u0430",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 end",
    "<s>special</s> tokens <pad> in the text",
    "a",
    " ",
    "\n",
]


def word_tokenizer():
    """A small BPE tokenizer in the style of LLaMA 1 and 2: no pre-tokenizer, spaces as U+2581, bytes as a fallback."""
    corpus = Path("data/wikitext2-validation-slice.txt").read_text()[:60000]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=80,
        show_progress=False,
    )
    # trained word by word, so that no token crosses the start of a word
    words = ("\u2581" + word for word in corpus.split())
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def cases(tokenizer):
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
    return rows


words = word_tokenizer()
definition = json.loads(words.to_str())
# the bytes are plain tokens of the vocabulary, as in LLaMA's file, not added ones
definition["added_tokens"] = [token for token in definition["added_tokens"] if not token["content"].startswith("<0x")]
words = Tokenizer.from_str(json.dumps(definition))
(here / "word-tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False, separators=(",", ":")))

bundled = Tokenizer.from_file("models/wiki-7m/tokenizer.json")
slices = {}
for name in ["c4-slice", "wikitext2-validation-slice"]:
    text = Path(f"data/{name}.txt").read_bytes().decode()
    ids = bundled.encode(text, add_special_tokens=False).ids
    digest = hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()
    slices[name] = {"count": len(ids), "sha256": digest}
golden = {
    "made_by": f"tokenizers {tokenizers.__version__}",
    "bundled": cases(bundled),
    "words": cases(words),
    "slices": slices,
}
(here / "tokens.json").write_text(json.dumps(golden, indent=1) + "\n")
