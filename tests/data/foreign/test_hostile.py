"""Files of strangers are refused soon, with little memory, and run nothing."""

import io
import os
import pickle
import pickletools
import resource
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.foreign.helpers import (
    DATA,
    FORMS,
    IMAGES,
    save_any,
    write_pngs,
)
from uebench.data.foreign import read_poison
from uebench.data.poison import PoisonError


class Runs:
    """Unpickles into a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Calls:
    """Unpickles into a call of anything."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.call = what, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def npy_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


def torch_file(content: bytes, values: bytes | None = None) -> bytes:
    members = {"archive/data.pkl": content, "archive/version": b"3\n"}
    if values is not None:
        members["archive/data/0"] = values
    return zipped(members, zipfile.ZIP_STORED)


def storage_pickle(n: int, size: str, stride: str) -> bytes:
    """A data.pkl of one tensor, written by hand in protocol 0."""
    persistent = f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{n}\ntQ"
    return (
        f"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n({persistent}I0\n({size}t({stride}tI00\n"
        "ccollections\nOrderedDict\n(tRtR."
    ).encode("latin1")


def many_members() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for i in range(5_000):
            file.writestr(f"{i}", b"")
    return stream.getvalue()


def long_directory() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for i in range(15):
            info = zipfile.ZipInfo(f"{i}.png")
            info.comment = bytes(60_000)
            file.writestr(info, b"")
    return stream.getvalue()


def lying_member() -> bytes:
    """A member that says it is small and unpacks to 100 MB."""
    data = bytearray(zipped({"0.png": bytes(10**8)}))
    end = data.rfind(b"PK\x01\x02")
    for offset in (22, end + 24):
        struct.pack_into("<I", data, offset, 1000)
    return bytes(data)


def old_torch_file(tensor: torch.Tensor) -> bytes:
    """What torch.save wrote before 1.6: five pickles, then each storage after its length."""
    stream = io.BytesIO()
    torch.save(tensor, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


class Within:
    """Unpickles as a storage does that pickle wrote, from the bytes of another file."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.storage._load_from_bytes, (self.raw,)


def nested_pickles(depth: int) -> bytes:
    """Files of old torch whose first pickle holds another such file, and so on."""
    inner = old_torch_file(torch.zeros(4))
    for _ in range(depth):
        inner = pickle.dumps(Within(inner)) + inner
    return pickle.dumps(Within(inner))


def repeated_pickle() -> bytes:
    """A pickle that asks a thousand times for a storage that it holds once."""
    instructions = pickletools.genops(pickle.dumps(torch.zeros(4)))
    raw = next(value for _, value, _ in instructions if isinstance(value, bytes))
    return pickle.dumps([Within(raw) for _ in range(1000)])


def hostile() -> dict[str, tuple[bytes, str]]:
    """Name of the file: its content, and what is told."""
    raw = io.BytesIO()
    np.save(raw, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 3, 1000, 1000), }"
    lies = "{'descr': '<f4', 'fortran_order': False, 'shape': (12, 3, 8, 10), }"
    negative = "{'descr': '<f4', 'fortran_order': False, 'shape': (-12, 3, 8, 10), }"
    lying = pickle.dumps(IMAGES.numpy(), 2).replace(b"K\x0cK\x03K\x08K\n", b"K\x0cK\x03K\x08K\xff")
    objects = pickle.dumps(np.array([{"a": 1}], dtype=object))
    old = old_torch_file(torch.zeros(4))
    old_claim = old.replace(b"K\x04N", b"J\xff\xff\x00\x00N", 1)
    old_keys = old_torch_file(torch.zeros(4))
    at = old_keys.rfind(b"]q")
    old_keys = old_keys[:at] + b"]." + old_keys[-24:]
    memo = b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."
    return {
        "runs.pkl": (pickle.dumps(Runs("touch pwned")), "asks for '(posix|nt).system'"),
        "runs0.pkl": (pickle.dumps(Runs("touch pwned"), 0), "asks for '(posix|nt).system'"),
        "eval.pkl": (pickle.dumps(Calls(eval, "1")), "asks for 'builtins.eval'"),
        "getattr.pkl": (pickle.dumps(Calls(getattr, 1, "real")), "'builtins.getattr'"),
        "load.pkl": (
            pickle.dumps(Calls(np.load, "x")),
            "and only arrays, numbers, dicts and lists are read",
        ),
        "zeros.pkl": (pickle.dumps(Calls(bytearray, 10**11)), "'builtins.bytearray'"),
        "tensor.pkl": (pickle.dumps(torch.zeros(2)), "no array of images"),
        "nested.pkl": (nested_pickles(2), "pickles within pickles; it is forged"),
        "repeated.pkl": (repeated_pickle(), "pickles within pickles; it is forged"),
        "persistent.pkl": (b"\x80\x02X\x01\x00\x00\x00aQ.", "outside itself"),
        "inst.pkl": (b"(S'touch pwned'\nios\nsystem\n.", "asks for 'os.system'"),
        "memo.pkl": (memo, "a memo of 2147483648 entries"),
        "bytes.pkl": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "not a readable pickle"),
        "frame.pkl": (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.", "not a readable pickle"),
        "steps.pkl": (b"\x80\x02" + b"N0" * 150_000 + b"N.", "more than 200,000 instructions"),
        "objects.pkl": (objects, "holds 'O8' values"),
        "lying.pkl": (lying, "claims"),
        "cut.pkl": (pickle.dumps(IMAGES.numpy())[:-300], "not a readable pickle"),
        "set.pkl": (b"\x80\x02cnumpy\ndtype\n}X\x05\x00\x00\x00_callNsb.", "not a readable pickle"),
        "runs.pt": (
            torch_file(pickle.dumps(Runs("touch pwned"), 2)),
            "asks for '(posix|nt).system'",
        ),
        "bytes.pt": (torch_file(pickle.dumps(Calls(bytearray, 10**11), 2)), "bytearray'"),
        "stride.pt": (
            torch_file(storage_pickle(4, "I100000\nI3\nI8\nI10\n", "I0\nI0\nI0\nI0\n")),
            "claims the shape",
        ),
        "outside.pt": (
            torch_file(storage_pickle(4, "I12\nI3\nI8\nI10\n", "I240\nI80\nI10\nI1\n")),
            "outside its storage",
        ),
        "storage.pt": (torch_file(storage_pickle(10**12, "I1\n", "I1\n")), "holds 4,0.* bytes"),
        "missing.pt": (
            torch_file(storage_pickle(2880, "I12\nI3\nI8\nI10\n", "I240\nI80\nI10\nI1\n")),
            "'archive/data/0' has 0 bytes where 11,520 are claimed",
        ),
        "old_cut.pt": (old[:-8], "ends before its last value"),
        "old_claim.pt": (old_claim, "claims 262,140 bytes of values"),
        "old_keys.pt": (old_keys, "does not list its storages"),
        "longer.pt": (
            torch_file(storage_pickle(4, "I4\n", "I1\n"), bytes(10**5)),
            "'archive/data/0' has 100,000 bytes where 16 are claimed",
        ),
        "state.pt": (
            torch_file(storage_pickle(4, "I4\n", "I1\n")[:-1] + b"}b.", bytes(16)),
            "not a readable pickle",
        ),
        "storage.pt-state": (
            torch_file(b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ(N}Vvalue\nNstb."),
            "not a readable pickle",
        ),
        "twice.pt": (
            torch_file(
                b"("
                + b"".join(storage_pickle(n, "I4\n", "I1\n")[2:-1] for n in (4, 10**3))
                + b"t.",
                bytes(16),
            ),
            "shares storages",
        ),
        "objects.npy": (raw.getvalue(), "Python objects"),
        "huge.npy": (npy_header(huge), "too large for a poison"),
        "lies.npy": (npy_header(lies, b"1234"), "says that it holds 11,520 bytes .* but has 4"),
        "negative.npy": (npy_header(negative), "not a readable|too large"),
        "code.npy": (npy_header("__import__('os').system('touch pwned')"), "not a readable .npy"),
        "text.npy": (npy_header("{'descr': '<U9', 'fortran_order': False, 'shape': ()}"), "values"),
        "objects.npz": (zipped({"images.npy": raw.getvalue()}), "Python objects"),
        "huge.npz": (zipped({"images.npy": npy_header(huge)}), "too large for a poison"),
        "bomb.npz": (zipped({"images.npy": bytes(10**8)}), "holds 100,000,000 bytes"),
        "cut.npz": (zipped({"images.npy": npy_header(lies)})[:-40], "not a readable zip"),
        "bomb.zip": (zipped({"0.png": bytes(10**8)}), "holds 100,000,000 bytes"),
        "lying.zip": (lying_member(), "cannot be unpacked|not a readable image"),
        "record.zip": (zipped({"0.png": bytes(1_060_000)}), "needs at most 1,048,576"),
        "record.pt": (
            zipped({"a/data.pkl": b"N.", "a/data/0": bytes(10**5)}),
            "holds a NoneType; an array, a tensor or a dict",
        ),
        "many.zip": (many_members(), "has 5000 files"),
        "directory.zip": (long_directory(), "a directory of more than 584,784 bytes"),
        "lzma.zip": (zipped({"0.png": bytes(10**5)}, zipfile.ZIP_LZMA), "packed in an unusual way"),
        "slip.zip": (zipped({"../../0.png": png_bomb(8)}), "names a file outside itself"),
        "absolute.zip": (zipped({"/tmp/0.png": png_bomb(8)}), "names a file outside itself"),
        "drive.zip": (zipped({"C:\\0.png": png_bomb(8)}), "names a file outside itself"),
        "pixels.zip": (zipped({"0.png": png_bomb(8000)}), "8000x8000 px, those of random are 10x8"),
        "gigapixels.zip": (zipped({"0.png": png_bomb(60_000)}), "not a readable image"),
        "empty.zip": (zipped({}), "no images"),
        "cut.safetensors": (struct.pack("<Q", 10**9) + b"{}", "not a readable .safetensors"),
        "lies.safetensors": (
            struct.pack("<Q", 64)
            + b'{"a":{"dtype":"F32","shape":[9000000000],"data_offsets":[0,4]}}'.ljust(64),
            "not a readable .safetensors",
        ),
        "text": (b"a file\n", "not a readable poison file"),
        "empty.pkl": (b"", "not a readable"),
        "empty.npy": (b"", "not a readable poison file"),
    }


HOSTILE = hostile()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, told = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(PoisonError, match=told):
        read_poison(Path(name), DATA)
    assert time.perf_counter() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB
    assert [path.name for path in tmp_path.iterdir()] == [name], "something was run or unpacked"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_refused_with_one_sentence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes of good files are overwritten or cut: images come out, or PoisonError."""
    form = data.draw(st.sampled_from(FORMS))
    path = tmp_path_factory.mktemp("d") / f"p{form}"
    save_any(path, IMAGES.numpy())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 600)))
        if data.draw(st.booleans()):
            at = len(content) - 1 - at
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    try:
        poison, _ = read_poison(path, DATA)
    except PoisonError as error:
        assert len(str(error)) < 1000
    else:
        assert poison.images.shape == DATA.train.images.shape


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    write_pngs(secret)
    folder = tmp_path / "poison"
    folder.mkdir()
    (folder / "0.png").symlink_to(secret / "0.png")
    with pytest.raises(PoisonError, match=r"'0.png' is a link that leads outside"):
        read_poison(folder, DATA)
    (folder / "0.png").unlink()
    (folder / "0").symlink_to(secret)
    with pytest.raises(PoisonError, match="'0' is a link that leads outside"):
        read_poison(folder, DATA)
    (folder / "0").unlink()
    (folder / "2.png").symlink_to("3.png")
    (folder / "3.png").symlink_to("2.png")
    with pytest.raises(PoisonError, match=r"is a link that leads outside"):
        read_poison(folder, DATA)
    (folder / "2.png").unlink()
    (folder / "3.png").unlink()
    os.mkfifo(folder / "1.png")  # reading it would wait for ever
    with pytest.raises(PoisonError, match="has no images"):
        read_poison(folder, DATA)
    with pytest.raises(PoisonError, match="neither a file nor a folder"):
        read_poison(folder / "1.png", DATA)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["cat.png"], "'cat.png' does not say which training image"),
        (["1_2.png"], "does not say which training image"),
        (["12.png"], "is index 12, and random has 12"),
        (["0/3.png", "1/3.png"], "both index 3; names give the position in the whole"),
        (["0/3.png", "dog/4.png"], "folder 'dog' is not a class of the data set"),
        (["3.png", "3.bmp"], "both index 3"),
    ],
)
def test_images_without_a_clear_place(names: list[str], told: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[3].permute(1, 2, 0).numpy()).save(tmp_path / "p" / name)
    with pytest.raises(PoisonError, match=told):
        read_poison(tmp_path / "p", DATA)


def test_odd_pixels_are_refused(tmp_path: Path) -> None:
    for mode, told in (("I;16", "I;16 pixels"), ("RGBA", "partly transparent")):
        (tmp_path / mode).mkdir()
        Image.new(mode, (10, 8)).save(tmp_path / mode / "0.png")
        with pytest.raises(PoisonError, match=told):
            read_poison(tmp_path / mode, DATA)


def test_a_damaged_record_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", IMAGES.numpy())
    for text in ("[1]", "{", '{"a": NaN}', "[" * 100_000):
        (tmp_path / "p.npy.meta.json").write_text(text)
        with pytest.raises(PoisonError, match=r"meta.json is not JSON"):
            read_poison(tmp_path / "p.npy", DATA)
