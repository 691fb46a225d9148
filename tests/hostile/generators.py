"""Generators of hostile input: each yields named cases, the same ones for the same seed."""

# ruff: noqa: E501 - a payload on its line is easier to read than a broken one

import io
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SPECS = (
    "em[eps=16/255,rounds=5]",
    "lsp[eps=1.3,patch=8]",
    "rem[train_steps=5,adv_radius=4/255]",
    "ar[kernels=k.npz,threshold=5]",
    "hypo[towards=next]",
    "entf[objective=pull,reference=standard]",
    "sep_fa_vr[checkpoints=5,means=last]",
    "adaptive_em[policy=p+c+t]",
    "ueraser[repeats=5,engine=batched]",
    "iss[quality=10]",
    "at[norm=l2,radius=0.5]",
    "augment[policy=p+c]",
    "resnet9[width=8]",
    "synthetic[n_train=40,n_test=20,n_classes=2,size=16]",
    "npz:none.npz[n_train=5]",
    "folder:none[size=8]",
    "imported:nobody[eps=8/255]",
)
NASTY = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07",
    "\x9b2J",
    "two\nlines",
    "cr\roverwrites",
    "tab\tbed",
    "bell\x07",
    "nul\x00byte",
    "right\u202eleft",
    "zero\u200bwidth",
    "\ud800",
    "\\input{/etc/passwd}",
    "\\write18{touch pwned}",
    "$x^2$ & 5% #1 _a_ {b} ~",
    "]]\\\\[1cm]",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt;",
    "[click](javascript:alert(1))",
    "![x](http://x/y.png)",
    "a | b | c",
    "`code`",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "+1+1",
    "[red]markup[/red]",
    "[/]",
    "[link=http://x]y[/link]",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\windows",
    "{{ 7*7 }}",
    "{% for x in y %}",
    "%s%s%n",
    "${HOME}",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "__import__('os').system('touch pwned')",
    "漢字" * 50,
    "\u0301" * 300,
    "a" * 50_000,
    "🦜" * 40,
    "",
    " ",
    "-",
    "--help",
    "nan",
    "1e999",
    "9" * 5000,
)


def mutated(text: str, rng: random.Random) -> str:
    """Return a text with some characters changed, doubled, cut, or replaced by something nasty."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(6):
            case 0:
                text = text[:at] + rng.choice("[]=,:/+-.\\\"'{}%\x00\x1b\n é9") + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 5) :]
            case 2:
                text = text[:at] + rng.choice(NASTY)[:2500] + text[at:]
            case 3:
                text = text[:at] + text[: rng.randint(0, 40)] + text[at:]
            case 4:
                text = text.replace("=", rng.choice(["==", "=-", "=1e400,", "=[", "=0/0"]), 1)
            case 5:
                text = text.replace("[", "[" * rng.randint(1, 900), 1)
    return text


def specs(n: int) -> Iterator[tuple[str, str]]:
    rng = random.Random(1)
    for i in range(n):
        yield f"spec {i}", mutated(rng.choice(SPECS), rng)


YAML_BASES = (
    "attacks: [em, lsp]\ndefenses: standard\nseeds: [0, 1]\n",
    "dataset: synthetic\nset: {em.rounds: 3}\nprotocol_options: {epochs: 2, lr: 0.1}\n",
    "title: a\nratio: [0.5, 1]\nclasses: [cat, 3]\ncraft_on: subset\narch: resnet9\n",
)
YAML_CASES = {
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "attacks: *i\n",
    "merges": "a: &a {x: 1}\n"
    + "".join(
        f"{b}: &{b} {{<<: [*{a},*{a},*{a},*{a},*{a},*{a}]}}\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "few laughs": "attacks: &a [em, em, em]\ndefenses: *a\nset: {x: *a, y: *a}\n",
    "endless list": "attacks: &a [*a]\n",
    "endless dict": "set: &a {b: *a}\n",
    "deep flow": "attacks: " + "[" * 5000,
    "deep closed": "attacks: " + "[" * 900 + "]" * 900,
    "deep block": "".join(" " * i + "a:\n" for i in range(300)),
    "huge": "attacks: " + "em," * 40_000,
    "python object": "attacks: !!python/object/apply:os.system ['touch pwned']\n",
    "python name": "attacks: !!python/name:os.system\n",
    "python module": "attacks: !!python/module:os\n",
    "python new": "attacks: !!python/object/new:subprocess.Popen [['touch', 'pwned']]\n",
    "unknown tag": "attacks: !evil x\n",
    "bad int": "seeds: !!int " + "9" * 5000 + "\n",
    "long int": "seeds: [" + "9" * 5000 + "]\n",
    "hex": "seeds: [0x" + "f" * 3000 + "]\n",
    "bad date": "title: 9999-99-99\n",
    "bad float": "ratio: !!float x\n",
    "sexagesimal": "seeds: [1:1:1:1:1:1:1:1:1:1]\n",
    "binary": "title: !!binary x\n",
    "bytes": "title: !!binary aGVsbG8=\n",
    "set": "attacks: !!set {em, lsp}\n",
    "omap": "set: !!omap [em.rounds: 3]\n",
    "list key": "? [a, b]\n: c\n",
    "null key": "~: 3\n",
    "nul": "attacks: \x00\n",
    "directive": "%YAML 9.9\n---\nattacks: em\n",
    "two documents": "attacks: em\n---\nattacks: lsp\n",
    "scalar": "hello\n",
    "number": "42\n",
    "nothing": "",
    "tab": "\tattacks: em\n",
    "seeds": f"seeds: {list(range(2000))}\npoison_seeds: {list(range(2000))}\nratio: [0.1, 0.2]\n",
    "infinite": "ratio: .inf\n",
    "nan": "ratio: .nan\n",
    "negative": "seeds: [-1]\n",
    "epochs": "protocol_options: {epochs: 1.0e+400}\n",
    "traversal": "dataset: npz:../../../../etc/passwd\n",
    "surrogates": 'title: "\\ud800"\n',
}


def yamls(n: int) -> Iterator[tuple[str, bytes]]:
    for name, text in YAML_CASES.items():
        yield f"yaml {name}", text.encode()
    for name, raw in (("latin", b"title: \xff\xfe\n"), ("utf16", "attacks: em".encode("utf-16"))):
        yield f"yaml {name}", raw
    rng = random.Random(2)
    for i in range(n - len(YAML_CASES) - 2):
        yield f"yaml {i}", mutated(rng.choice(YAML_BASES), rng).encode("utf-8", "surrogatepass")


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype.hasobject)
    return stream.getvalue()


def npy_header(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


class Runs:
    """Unpickles into a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch pwned",)


def arrays() -> dict[str, bytes]:
    """The members of a good npz data set."""
    rng = np.random.default_rng(0)
    labels = np.arange(8) % 2
    images = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    return {
        "train_images.npy": npy(images),
        "train_labels.npy": npy(labels),
        "test_images.npy": npy(images[:4]),
        "test_labels.npy": npy(labels[:4]),
    }


def npz_cases() -> dict[str, bytes]:
    good = arrays()
    shape = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
    huge = npy_header(shape % ("|u1", "(100000000, 100, 100, 3)"))
    return {
        "objects": zipped(good | {"train_labels.npy": npy(np.array([Runs()], dtype=object))}),
        "object names": zipped(good | {"class_names.npy": npy(np.array([Runs()], dtype=object))}),
        "huge": zipped(good | {"train_images.npy": huge}),
        "overflow": zipped(good | {"train_images.npy": npy_header(shape % ("|u1", f"({2**62}, 8, 8, 3)"))}),
        "negative": zipped(good | {"train_images.npy": npy_header(shape % ("|u1", "(-8, 8, 8, 3)"))}),
        "code": zipped(good | {"train_images.npy": npy_header("__import__('os').system('touch pwned')")}),
        "deep": zipped(good | {"train_images.npy": npy_header("(" * 5000)}),
        "version": zipped(good | {"train_images.npy": npy_header("{}", version=b"\x09\x00")}),
        "bomb": zipped(good | {"train_images.npy": npy_header(shape % ("|u1", "(100000, 32, 32, 3)"), bytes(307_200_000))}),
        "wide names": zipped(good | {"class_names.npy": npy_header(shape % ("<U99999999", "(2,)"))}),
        "nasty names": zipped(good | {"class_names.npy": npy(np.array(["\x1b[31ma", "b\n\u202e"]))}),
        "many names": zipped(good | {"class_names.npy": npy(np.array(["x"] * 200_000))}),
        "labels": zipped(good | {"train_labels.npy": npy(np.full(8, 2**62))}),
        "float labels": zipped(good | {"train_labels.npy": npy(np.full(8, np.nan))}),
        "scalar": zipped(good | {"train_labels.npy": npy(np.array(3))}),
        "no images": zipped(good | {"train_images.npy": npy(np.zeros((0, 8, 8, 3), np.uint8))}),
        "flat": zipped(good | {"train_images.npy": npy(np.zeros(8, np.uint8))}),
        "text file": zipped(good | {"README": b"hello"}),
        "traversal": zipped(good | {"../../pwned.npy": npy(np.arange(3))}),
        "members": zipped({f"{i}.npy": b"" for i in range(1500)}),
        "lzma": zipped(good, zipfile.ZIP_LZMA),
        "pickle": pickle.dumps(Runs()),
        "empty": b"",
        "text": b"not a zip\n",
        "lacking": zipped({"train_images.npy": good["train_images.npy"]}),
    }  # fmt: skip


def npzs(n: int) -> Iterator[tuple[str, bytes]]:
    cases = npz_cases()
    for name, content in cases.items():
        yield f"npz {name}", content
    rng, good = random.Random(3), zipped(arrays(), zipfile.ZIP_STORED)
    for i in range(n - len(cases)):
        yield f"npz {i}", damaged(good, rng)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some are changed, or the end is missing."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(min(len(data), 400)) * rng.choice([1, -1])
        data[at] = rng.randrange(256)
    return bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])


def png(side: tuple[int, int], data: bytes | None = None, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    w, h = side
    rows = zlib.compress(bytes((3 * w + 1) * h)) if data is None else data
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def picture_cases() -> dict[str, bytes]:
    text = b"a\x00\x00" + zlib.compress(bytes(200_000_000), 9)
    body = (
        struct.pack(">I", len(text))
        + b"zTXt"
        + text
        + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    )
    script = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(pwned) (w) file closefile\nshowpage\n"
    )
    return {
        "pixels": png((13_000, 13_000), b""),
        "gigapixels": png((2**31 - 1, 2**31 - 1), b""),
        "zero": png((0, 8), b""),
        "bomb": png((8, 8), zlib.compress(bytes(10**8), 9)),
        "text bomb": png((8, 8), extra=body),
        "cut": png((8, 8))[:50],
        "postscript": script,
        "empty": b"",
        "text": b"hello",
        "tiff": b"II*\x00\x08\x00\x00\x00" + b"\xff" * 300,
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6 99999999 99999999 255\n",
        "webp": b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(40),
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"\xff" * 200,
    }  # fmt: skip


def pictures(n: int) -> Iterator[tuple[str, bytes]]:
    cases = picture_cases()
    for name, content in cases.items():
        yield f"picture {name}", content
    rng, good = random.Random(4), png((8, 8))
    for i in range(n - len(cases)):
        yield f"picture {i}", damaged(good, rng)


OPCODES = [bytes([code]) for code in b"(.0123FGIJKLMNPQRSTUVXabcdeghijlopqrstu}])\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98"]  # fmt: skip
GLOBALS = [b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"csubprocess\nPopen\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nload\n", b"cnumpy\ndtype\n", b"ctorch\nload\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n"]  # fmt: skip


def pickles(n: int) -> Iterator[tuple[str, bytes]]:
    """Random programs for the pickle machine, with names of what would run something."""
    rng = random.Random(5)
    for i in range(n):
        parts = [b"\x80" + bytes([rng.randrange(6)])]
        for _ in range(rng.randint(1, 30)):
            match rng.randrange(4):
                case 0:
                    parts.append(rng.choice(GLOBALS))
                case 1:
                    parts.append(b"X\x0b\x00\x00\x00touch pwned")
                case 2:
                    parts.append(b"(X\x0b\x00\x00\x00touch pwnedtR")
                case _:
                    parts.append(rng.choice(OPCODES) + rng.randbytes(rng.choice([0, 0, 1, 4, 8])))
        program = b"".join(parts) + b"."
        if i % 3 == 0:
            members = {
                "archive/data.pkl": program,
                "archive/version": b"3\n",
                "archive/data/0": bytes(9),
            }
            yield f"torch {i}", zipped(members, zipfile.ZIP_STORED)
        else:
            yield f"pickle {i}", program


def write(folder: Path, name: str, content: bytes) -> Path:
    """Write a case's file and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
