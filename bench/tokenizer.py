#!/usr/bin/env python3
"""The tokenizer against tiktoken, on the ranks of Kimi-K2.

    pip install tiktoken splintr-rs gguf numpy
    bench/tokenizer.py             # every id equal over 20,000 texts, then the speeds of both
    bench/tokenizer.py --goldens   # writes testdata/tokenizer/goldens.json for the small model

splintr-rs carries the 163,584 ranks of Kimi-K2; tiktoken is what Moonshot's own tokenizer runs on. Exit code 1 when an
id differs.
"""
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import gguf
import tiktoken

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = ROOT / "testdata/hub/kimi-operator/Kimi-Tiny-GGUF/Q8_0"
PATTERN = "|".join([
    r"""[\p{Han}]+""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""",
    r""" ?[^\s\p{L}\p{N}]+[\r\n]*""",
    r"""\s*[\r\n]+""",
    r"""\s+(?!\S)""",
    r"""\s+""",
])
# The first article of the Universal Declaration of Human Rights, and lines with traps in them.
LINES = [
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.",
    "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İIıi",
    "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "எல்லா மனிதர்களும் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "ყველა ადამიანი იბადება თავისუფალი. Բոլոր մարդիկ ծնվում են ազատ: ሰብአዊ ፍጡራን ሁሉ ነጻ",
    "I'm sure they'll say DON'T, we've he'd it'ſ O'Reilly's 'twas ''re 'LL",
    "camelCaseHTTPServer XMLHttpRequest snake_case_name SCREAMING_CASE kebab-case iPhone ǅungla ﬁne",
    "e\u0301te\u0301 cafe\u0301 n\u0303 a\u030a\u0323 \u0301alone \u200d\u200c\u00ad zero\u200bwidth",
    "👩‍👩‍👧‍👦🏳️‍🌈🇳🇴 ✨🚀💯 ☕️ 1️⃣ 🤷🏽‍♀️",
    "12345678 3.14159 1,000,000 ٣٤٥ ²³½ Ⅷ 〇一二 𝟘𝟙 0x1F 2024-09-30T12:00:00Z",
    "  two  three   \t tab\t\ttabs \u00a0nbsp \u3000ideographic \u2028line\u2029para \r\n\r\n \n\n  \n x",
    "a中b文c 漢字かな交じり文 カタカナー 々〆〇 ⺀⻑ 한글漢字 𠀀𪜀",
    "<|im_end|> [EOS] <think> <|tool_call_begin|> </s> {{ jinja }} \\u0041 \x00\x01\x7f",
    "fn main() {\n    let x: Vec<u8> = b\"\\xff\".to_vec();\n\tprintln!(\"{x:?}\"); // 注释\n}\n\n\n",
    "if (a!=b&&c<=d||e>>>2){return[...f,{g:h}]??i?.j}//---===***///",
    "https://user:pw@example.com:8080/a/b%20c?d=e&f=%F0%9F%98%80#g",
    "∀x∈ℝ: ∃ε>0 ⟹ ∫₀^∞ e^{-x²}dx = √π/2 \\frac{a}{b} $$",
]


def byte_alphabet():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(0x100 + i) for i, b in enumerate(rest)}


ALPHABET = byte_alphabet()


def kimi_ranks():
    import splintr

    kimi = splintr.Tokenizer.from_pretrained("kimi_k2")
    return {bytes(kimi.decode_token_bytes(i)): i for i in range(163_584)}


def parts(ranks, token):
    """The two tokens that merge into `token`: what its own bytes become when it may not."""
    pieces = [bytes([b]) for b in token]
    while len(pieces) > 2:
        at = min(range(len(pieces) - 1), key=lambda i: ranks.get(pieces[i] + pieces[i + 1], len(ranks)))
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def write_gguf(ranks, path):
    """A GGUF file with a tokenizer and nothing else, as a converter would write it."""
    text = lambda token: "".join(ALPHABET[b] for b in token)
    tokens = sorted(ranks, key=ranks.get)
    merges = [" ".join(map(text, parts(ranks, token))) for token in tokens if len(token) > 1]
    writer = gguf.GGUFWriter(path, "deepseek2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("kimi-k2")
    writer.add_token_list([text(t) for t in tokens] + [f"<|reserved_token_{len(tokens) + i}|>" for i in range(256)])
    writer.add_token_types([1] * len(tokens) + [3] * 256)
    writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def texts(count):
    yield from LINES
    yield "\n".join(LINES)
    rng = random.Random(1)
    words = [w for line in LINES for w in line.split(" ")]
    sources = [p.read_text() for p in sorted(ROOT.glob("crates/*/src/**/*.rs"))]
    yield from sources
    prose = (ROOT / "testdata/heldout.txt").read_text()
    yield prose
    for _ in range(count):
        match rng.randrange(5):
            case 0:  # random bytes, as a client would send them
                yield rng.randbytes(rng.randrange(1, 60)).decode("utf-8", "replace")
            case 1:  # any characters
                points = (rng.randrange(0x110000) for _ in range(rng.randrange(1, 30)))
                yield "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
            case 2:  # characters of the basic plane, where scripts are
                points = (rng.randrange(0x3400) for _ in range(rng.randrange(1, 40)))
                yield "".join(map(chr, points))
            case 3:  # words and blanks thrown together
                blanks = [" ", "", "\n", "  ", "\t", "'s ", ".\n\n", "\u3000", "\r\n"]
                yield "".join(rng.choice(words) + rng.choice(blanks) for _ in range(rng.randrange(1, 30)))
            case _:  # a cut out of source or prose
                text = rng.choice([prose, *sources])
                at = rng.randrange(len(text))
                yield text[at : at + rng.randrange(1, 400)]


def tokenize(model, lines, folder, rounds):
    """Our ids, and the seconds of each round."""
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "engine", "--example", "tokenize", "--"]
    files = [str(model), str(folder / "texts.jsonl"), str(folder / "ids.jsonl"), str(rounds)]
    out = subprocess.run(run + files, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
    ids = [json.loads(line) for line in (folder / "ids.jsonl").open()]
    return ids, [float(line.split()[0]) for line in out.splitlines()]


def goldens():
    (first,) = TINY.glob("*-00001-*")
    fields = gguf.GGUFReader(first).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    back = {c: b for b, c in ALPHABET.items()}
    ranks = {bytes(back[c] for c in t): i for i, (t, kind) in enumerate(zip(tokens, types)) if kind == 1}
    tiny = tiktoken.Encoding("kimi-tiny", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    golden = [{"text": line, "ids": tiny.encode_ordinary(line)} for line in LINES]
    out = ROOT / "testdata/tokenizer/goldens.json"
    out.write_text("[\n" + ",\n".join(json.dumps(g, ensure_ascii=False) for g in golden) + "\n]\n")


def main():
    if sys.argv[1:] == ["--goldens"]:
        return goldens()
    ranks = kimi_ranks()
    judge = tiktoken.Encoding("kimi-k2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = folder / "kimi-k2-tokenizer.gguf"
        write_gguf(ranks, model)
        lines = list(texts(20_000))
        ours, _ = tokenize(model, lines, folder, 0)
        theirs = [judge.encode_ordinary(line) for line in lines]
        wrong = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        for i in wrong[:10]:
            print(f"differs: {lines[i][:200]!r}\n  tiktoken {theirs[i][:20]}\n  ours     {ours[i][:20]}")
        print(f"{len(lines)} texts, {sum(map(len, theirs))} tokens, {len(wrong)} differ")
        if wrong:
            return 1
        kinds = {
            "prose": [(ROOT / "testdata/heldout.txt").read_text()] * 8,
            "source": [p.read_text() for p in sorted(ROOT.glob("crates/*/src/**/*.rs"))],
            "languages": ["\n".join(LINES)] * 400,
        }
        for name, sample in kinds.items():
            size = sum(len(text.encode()) for text in sample) / 1e6
            _, seconds = tokenize(model, sample, folder, 9)
            reference = []
            for _ in range(9):
                begun = time.perf_counter()
                for text in sample:
                    judge.encode_ordinary(text)
                reference.append(time.perf_counter() - begun)
            a, b = size / statistics.median(seconds), size / statistics.median(reference)
            print(f"{name}: {size:.2f} MB, one thread, median of 9: ours {a:.1f} MB/s, tiktoken {b:.1f} MB/s, {a / b:.1f}x")
    return 0


sys.exit(main())
