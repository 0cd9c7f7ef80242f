"""Writes test/fixtures/tokenizers/unigram.json: a small tokenizer of T5's kind and its ids by Python's tokenizers."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

pieces = ["<pad>", "</s>", "<unk>", "▁a", "▁", "r", "e", "d", "▁red", "▁st", "ar", "s", "t", "a", "▁star", ",", "▁big"]
vocab = [(piece, 0.0 if i < 3 else -1.0 - i / 8) for i, piece in enumerate(pieces)]

tokenizer = Tokenizer(models.Unigram(vocab, unk_id=2, byte_fallback=False))
tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in pieces[:3]])
tokenizer.add_special_tokens([AddedToken("<extra_id_0>", normalized=False)])

texts = ["a red star", "A big RED star, star", "stared", "a</s> red", "star<extra_id_0>", "ＲＥＤ"]
encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
case = {"tokenizer": json.loads(tokenizer.to_str()), "texts": texts, "ids": encoded}
case["decoded"] = [tokenizer.decode(ids, skip_special_tokens=True) for ids in encoded]
with open("test/fixtures/tokenizers/unigram.json", "w") as file:
    json.dump(case, file, ensure_ascii=False, indent=1)
    file.write("\n")
