"""Makes test/fixtures/tokenizers: a CLIP-style vocabulary and the ids of adversarial texts by transformers' CLIPTokenizer.

Usage: python test/reference/clip_tokenizer_cases.py <diffusers repository>

The vocabulary has CLIP's layout (256 bytes, the same ending a word, merges, start and end of text) and is trained on the
documentation of diffusers. Each text is encoded with the special tokens as written by three kinds of checkpoints.
"""

import json
import pathlib
import sys
import tempfile

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "tokenizers"
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def bytes_to_unicode():
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


def train(docs, size):
    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False, max_token_length=16)
    tokenizer.train_from_iterator(docs, trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]

    alphabet = bytes_to_unicode()
    tokens = alphabet + [c + "</w>" for c in alphabet]
    merges = []
    for a, b in learned:
        if a in tokens and b in tokens and a + b not in tokens:
            merges.append((a, b))
            tokens.append(a + b)
    return {t: i for i, t in enumerate([*tokens, START, END])}, merges


def token(content, normalized=True):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def typed(content):
    return {"__type": "AddedToken", **token(content)}


def kinds(end_id):
    """special_tokens_map.json and tokenizer_config.json as Stable Diffusion 1.5, 2.1 and newly saved checkpoints have them."""
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "errors": "replace"}
    named = {"bos_token": token(START), "eos_token": token(END), "unk_token": token(END)}
    old = {**config, "bos_token": typed(START), "eos_token": typed(END), "unk_token": typed(END), "pad_token": END}
    texts = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!"}
    listed = {
        "0": {**token("!", False), "special": True},
        str(end_id - 1): {**token(START), "special": True},
        str(end_id): {**token(END), "special": True},
        str(end_id + 1): {**token("<Cat-Toy>"), "special": False},
        str(end_id + 2): {**token("<dog>", False), "special": False, "lstrip": True, "rstrip": True},
    }
    return {
        "sd1": ({**named, "pad_token": END}, old),
        "sd2": ({**named, "pad_token": "!"}, old),
        "strings": ({**texts, "pad_token": END}, {**config, "pad_token": END}),
        "listed": ({}, {**config, **texts, "added_tokens_decoder": listed}),
    }


TEXTS = [
    "",
    " ",
    "   \t\n  ",
    "a",
    "A",
    "a photo of an astronaut riding a horse on mars",
    "A PHOTO of  An\tAstronaut\n\nRiding",
    "  leading and trailing  ",
    "hello world",
    "hello, world!",
    "hello,world!",
    "hello , world !",
    "Hello...World???!!!",
    "it's they're we've I'm you'll he'd don't",
    "IT'S THEY'RE WE'VE I'M YOU'LL HE'D DON'T",
    "it’s they’re",
    "'s 't 're",
    "''s'''t",
    "rock'n'roll",
    "o'clock 'quoted' \"double\"",
    "'sample 'tree 'red 'vest 'mouse 'llama 'dog",
    "the dogs' bones",
    "x'svelte",
    "0",
    "1234567890",
    "3.14159",
    "1,000,000",
    "2nd 21st 1990s",
    "a1b2c3",
    "4k 8k uhd",
    "10%",
    "-5",
    "½ ¼ ² ³ ①②③ Ⅷ ⅸ",
    "१२३ ٤٥٦ 四五六",
    "１２３ ＡＢＣ ａｂｃ",
    "v1.5-pruned_emaonly.safetensors",
    "https://example.com/a?b=c&d=e#f",
    "name@example.com",
    "C:\\path\\to\\file",
    "snake_case camelCase kebab-case",
    "f(x) = {a: [1, 2]} <b>",
    "&amp; &lt; &quot;",
    "(masterpiece:1.3), ((best)), [bad]",
    "--ar 16:9 --v 5",
    "a|b||c",
    "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./",
    "!!!",
    "!",
    "! !",
    "a!b",
    "hey!!! wow!",
    "?!?!",
    "----",
    "=====",
    "(((())))",
    "...",
    "…",
    "—–-",
    "“smart” ‘quotes’ «guillemets»",
    "100€ £5 ¥300 $20",
    "© ® ™ ° ± × ÷",
    "α β γ",
    "café",
    "cafe\u0301",
    "naïve façade résumé",
    "nai\u0308ve fac\u0327ade re\u0301sume\u0301",
    "ÀÉÎÕÜ àéîõü",
    "A\u030a Å \u212b",
    "ẛ̣ \u1e9b\u0323",
    "q\u0307\u0323 q\u0323\u0307",
    "Straße STRASSE ẞ ß",
    "İstanbul ISTANBUL ıstanbul",
    "ΟΔΟΣ Οδός ὈΔΥΣΣΕΎΣ Σ ΣΣ",
    "ΑΣ. ΑΣΑ ΑΣ’Α",
    "ǅ ǈ ǋ ǲ",
    "Ꭰ Ꭱ ꭰ",
    "ﬁ ﬂ ﬃ ﬀ",
    "ſ K Ω",
    "Привет, мир! ПРИВЕТ",
    "Ёж ёж",
    "שלום עולם",
    "שָׁלוֹם",
    "مرحبا بالعالم",
    "مَرْحَبًا",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "வணக்கம்",
    "你好，世界！",
    "你好 世界",
    "一只猫坐在红色的沙发上",
    "こんにちは世界",
    "カタカナ ｶﾀｶﾅ",
    "か\u3099 が",
    "안녕하세요 세계",
    "\u1100\u1161\u11a8 각",
    "豈 更 \uf900",
    "𠀀𠀁 𪚥",
    "Tiếng Việt có dấu",
    "😀",
    "😀😃😄",
    "a 😀 b",
    "👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇩🇪",
    "❤️ ❤",
    "1️⃣ #️⃣",
    "☀☁☂ ♠♥♦♣",
    "→←↑↓ ⇒",
    "∑∏∫√∞≈≠≤≥",
    "▀▄█░▒▓",
    "𝓗𝓮𝓵𝓵𝓸 𝔸𝔹 𝟙𝟚",
    "\x00",
    "a\x00b",
    "a\x01\x02\x03b",
    "a\x07\x08\x0b\x0c\x0d\x0eb",
    "a\x1c\x1d\x1e\x1fb",
    "a\x7f\x80\x81\x85\x9fb",
    "a\u00a0b",
    "a\u00adb",
    "a\u1680b\u2000c\u2003d\u2009e\u200af",
    "a\u2028b\u2029c",
    "a\u202fb\u205fc\u3000d",
    "a\u180eb",
    "zero\u200bwidth\u200cnon\u200djoin\u2060er",
    "\ufeffbom",
    "bom\ufeff",
    "!\ufeff!",
    ".\ufeff 's",
    "\u200e\u200fmarks\u202a\u202c",
    "\ufffd",
    "a\ufffdb",
    "\ue000\uf8ff",
    "\U000f0000",
    "\ufdd0\uffff",
    "e\u0301\u0302\u0303\u0304\u0305\u0306",
    "Z̷̢̛a̸͝l̵g̶o̷",
    "\u0301alone",
    "a\u20dd b\u20e3",
    "<|endoftext|>",
    "<|startoftext|>",
    "a <|endoftext|> b",
    "a<|endoftext|>b",
    "<|endoftext|><|endoftext|>",
    "<|ENDOFTEXT|>",
    "a <|EndOfText|>! b",
    "<|endoftext|>!!",
    ",<|endoftext|>",
    ",<|ENDOFTEXT|>!",
    "<|endoftext|",
    "<|endof text|>",
    "<| endoftext |>",
    "</w>",
    "a</w>b",
    "<|pad|> [PAD] <unk> <s>",
    "a <cat-toy> b",
    "a<Cat-Toy>b <CAT-TOY>",
    "a  <dog>  b",
    "<dog> <DOG>",
    "<dog><dog>",
    "\u00c9\u0301 <dog>\u0301",
    "supercalifragilisticexpialidocious",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababababab",
    "ththththththe",
    "diffusers pipeline schedulers transformers attention",
    "mississippi banana cocoa",
    "xyzzy qwrtp",
    "trending on artstation, highly detailed, sharp focus, digital painting, concept art, smooth, 8 k",
    "a " * 60,
    "photo, " * 50,
    "1" * 120,
    "的" * 40,
]


def main():
    root = pathlib.Path(sys.argv[1]) / "docs" / "source"
    docs = [p.read_text() for lang in ("en", "zh", "ja") for p in sorted((root / lang).rglob("*.md"))]
    vocab, merges = train(docs, 2000)
    target = FIXTURES / "clip-2k"
    target.mkdir(parents=True, exist_ok=True)
    (target / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")))
    (target / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n")

    cases = {"kinds": {}, "texts": [], "ids": {}, "decoded": []}
    for kind, (special, config) in kinds(vocab[END]).items():
        cases["kinds"][kind] = {"special_tokens_map.json": special, "tokenizer_config.json": config}
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for file in ("vocab.json", "merges.txt"):
                (folder / file).write_bytes((target / file).read_bytes())
            (folder / "special_tokens_map.json").write_text(json.dumps(special))
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            tokenizer = CLIPTokenizer.from_pretrained(name)
        ids = [tokenizer(text).input_ids for text in TEXTS]
        first = cases["ids"].setdefault("sd1", ids)
        if ids is not first:
            cases["ids"][kind] = {i: x for i, x in enumerate(ids) if x != first[i]}
        else:
            cases["decoded"] = [tokenizer.decode(x, skip_special_tokens=True) for x in ids]
        padded = tokenizer("a star", padding="max_length", max_length=77, truncation=True)
        long = tokenizer("photo, " * 50, padding="max_length", max_length=77, truncation=True)
        cases["kinds"][kind].update(
            pad_id=tokenizer.pad_token_id, vocab_size=tokenizer.vocab_size, star=padded.input_ids, long=long.input_ids
        )
    cases["texts"] = TEXTS
    lines = json.dumps(cases, separators=(",", ":"))
    (FIXTURES / "clip_2k_cases.json").write_text(lines + "\n")
    print(len(vocab), len(merges), len(TEXTS), len(lines))


main()
