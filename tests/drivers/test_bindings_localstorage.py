"""bindings.localstorage on real folders."""

from __future__ import annotations

import base64
import json
import os
import random
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from meshnode_bindings_localstorage import Options, driver
from meshnode_bindings_localstorage._payload import payload

from meshnode.errors import BindingError, ComponentUnavailable, ConfigError, InvalidArgument
from meshnode.interfaces import BindingRequest, DriverContext, OutputBinding
from meshnode.registry import load_options
from meshnode.testing.conformance import bindings

CONTEXT = DriverContext("files", "app")


@asynccontextmanager
async def opened(root, **options):
    async with driver.open(Options(root_path=str(root), **options), CONTEXT) as binding:
        yield binding


async def call(binding, operation, name=None, data=b""):
    metadata = {} if name is None else {"fileName": name}
    return (await binding.invoke(BindingRequest(operation, data, metadata))).data


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_conformance(check, tmp_path):
    example = BindingRequest("create", b"some text.", {"fileName": "a"})
    assert await check.run(bindings.OutputSetup(lambda: opened(tmp_path), example))


async def test_a_file_s_life(tmp_path):
    root = tmp_path / "new" / "root"
    async with opened(root) as binding:
        assert isinstance(binding, OutputBinding)
        assert binding.operations == ("create", "get", "list", "delete")
        assert await call(binding, "list") == b"null"
        assert await call(binding, "create", "a/b.txt", b"hello, world") == b'{"fileName":"a/b.txt"}'
        assert (root / "a" / "b.txt").read_bytes() == b"hello, world"
        assert await call(binding, "get", "a/b.txt") == b"hello, world"
        await call(binding, "create", "a/b.txt", b"other words")
        assert await call(binding, "get", "a/b.txt") == b"other words"
        assert await call(binding, "delete", "a/b.txt") == b""
        with pytest.raises(BindingError, match="file not found"):
            await call(binding, "get", "a/b.txt")
        assert await call(binding, "delete", "a") == b""
        assert list(root.iterdir()) == []


async def test_without_a_name_it_gets_one(tmp_path):
    context = DriverContext("files", "app", rng=random.Random(1))
    async with driver.open(Options(root_path=str(tmp_path)), context) as binding:
        result = await binding.invoke(BindingRequest("create", b"some text."))
    name = json.loads(result.data)["fileName"]
    assert (tmp_path / name).read_bytes() == b"some text."
    assert len(name) == 36
    assert name[14] == "4"


async def test_listing_is_by_folder_and_name(tmp_path):
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    async with opened(root) as binding:
        for name in ("b", "a/2", "a/1/x", "c & <d>", "ä"):
            await call(binding, "create", name, b"some text.")
        (root / "empty").mkdir()
        (root / "link").symlink_to(tmp_path / "outside")
        (root / ".meshnode-unfinished-1").write_bytes(b"half")
        expected = ["a/1/x", "a/2", "b", "c & <d>", "link", "ä"]
        assert json.loads(await call(binding, "list")) == [f"{root}/{name}" for name in expected]
        assert json.loads(await call(binding, "list", "a")) == [f"{root}/a/1/x", f"{root}/a/2"]
        with pytest.raises(BindingError, match="listing b: Not a directory"):
            await call(binding, "list", "b")
        with pytest.raises(BindingError, match="listing nope: No such file"):
            await call(binding, "list", "nope")


@pytest.mark.parametrize("operation", ["create", "get", "list", "delete"])
@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "/../secret", "..", "out/secret", "out", "a\0b", "file"]
)
async def test_there_is_no_way_out(tmp_path, operation, name):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (root / "out").symlink_to(tmp_path)
    (root / "file").symlink_to("../secret")
    async with opened(root) as binding:
        with pytest.raises(InvalidArgument, match="fileName"):
            await call(binding, operation, name, b"changed!!")
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("operation", ["get", "delete"])
@pytest.mark.parametrize("name", [None, "", ".", "/", "a/.."])
async def test_a_name_is_needed(tmp_path, operation, name):
    async with opened(tmp_path / "root") as binding:
        with pytest.raises(InvalidArgument, match="fileName is missing"):
            await call(binding, operation, name)
    assert (tmp_path / "root").is_dir()


async def test_links_that_stay_inside_are_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "real").write_text("words")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("a/real")
    async with opened(tmp_path) as binding:
        assert await call(binding, "get", "b/real") == b"words"
        assert await call(binding, "create", "c", b"other words") == b'{"fileName":"a/real"}'
    assert (tmp_path / "c").is_symlink()
    assert (tmp_path / "a" / "real").read_text() == "other words"


async def test_absolute_names_begin_at_the_folder(tmp_path):
    async with opened(tmp_path) as binding:
        assert await call(binding, "create", "/x/./y", b"some text.") == b'{"fileName":"x/y"}'
    assert (tmp_path / "x" / "y").exists()


async def test_what_goes_wrong(tmp_path):
    (tmp_path / "folder" / "x").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    async with opened(tmp_path) as binding:
        for operation, name in [
            ("create", "folder"),
            ("create", "file/below"),
            ("create", "n" * 300),
            ("get", "folder"),
            ("get", "file/below"),
            ("delete", "folder"),
            ("delete", "nothing"),
        ]:
            with pytest.raises(BindingError):
                await call(binding, operation, name, b"some text.")
        assert await call(binding, "get", "pipe") == b""
        with pytest.raises(InvalidArgument, match="unsupported operation move"):
            await call(binding, "move", "file")
        with pytest.raises(InvalidArgument, match="must not begin with"):
            await call(binding, "create", ".meshnode-unfinished-1", b"some text.")
        # No descriptor and no unfinished file stays behind.
        assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder", "pipe"]


async def test_descriptors_are_closed(tmp_path):
    (tmp_path / "folder").mkdir()
    async with opened(tmp_path) as binding:
        await call(binding, "create", "a/b", b"some text.")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await call(binding, "create", "a/b", b"some text.")
            await call(binding, "get", "a/b")
            await call(binding, "list")
            with pytest.raises(BindingError):
                await call(binding, "get", "folder")
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    async with opened(tmp_path) as binding:
        await call(binding, "create", "a", b"old words.")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ComponentUnavailable, match="writing a: No space left"):
            await call(binding, "create", "a", b"new words.")
        assert await call(binding, "get", "a") == b"old words."
    assert os.listdir(tmp_path) == ["a"]


async def test_readers_see_whole_files_only(tmp_path):
    versions = [bytes([n]) * 200_000 for n in (1, 2)]
    async with opened(tmp_path) as binding:
        await call(binding, "create", "a", versions[0])

        async def write():
            for n in range(20):
                await call(binding, "create", "a", versions[n % 2])
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while True:
                assert await call(binding, "get", "a") in versions
    assert os.listdir(tmp_path) == ["a"]


async def test_the_mode_of_a_file_survives(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0o600)
    async with opened(tmp_path) as binding:
        await call(binding, "create", "a", b"some text.")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


async def test_base64_can_be_left_alone(tmp_path):
    async with opened(tmp_path) as binding:
        await call(binding, "create", "a", b"abcd")
        assert (tmp_path / "a").read_bytes() == b"\x69\xb7\x1d"
    async with opened(tmp_path, decode_base64=False) as binding:
        await call(binding, "create", "a", b"abcd")
        assert (tmp_path / "a").read_bytes() == b"abcd"


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        (b"aGVsbG8=", b"hello"),
        (b"aGVs\r\nbG8=\n", b"hello"),
        (b"aGVsbG8", b"aGVsbG8"),
        (b"aGVsbG8==", b"aGVsbG8=="),
        (b"aGVs bG8=", b"aGVs bG8="),
        (b"_-_-", b"_-_-"),
        (b'"aGVsbG8="', b"hello"),
        (b'"two words"', b"two words"),
        (b'"a\\n\\t\\"\\\\\\x41\\101\\u00e4\\U0001F600 "', 'a\n\t"\\AAä😀 '.encode()),
        (b'"a \\/"', b'"a \\/"'),
        (b'"a \\ud83d"', b'"a \\ud83d"'),
        (b'"a \\400"', b'"a \\400"'),
        (b'"a \n"', b'"a \n"'),
        (b'"a " b"', b'"a " b"'),
        (b'"', b'"'),
        (b'"a \\"', b'"a \\"'),
        (b'{"a": 1}', b'{"a": 1}'),
    ],
)
def test_what_data_is(data, stored):
    assert payload(data, decode_base64=True) == stored


@given(st.binary(max_size=60))
def test_base64_brings_any_data(data):
    assert payload(base64.b64encode(data), decode_base64=True) == data


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "rootPath: is missing"),
        ({"rootPath": ""}, "rootPath: is no folder's name"),
        ({"rootPath": "/proc/self"}, "rootPath: /proc is no place for files"),
        ({"rootPath": "/var/../sys"}, "rootPath: /sys is no place for files"),
        ({"rootPath": "/var/run/secrets/x"}, "rootPath: /var/run/secrets is no place for files"),
        ({"rootPath": "x", "rootpat": "y"}, "rootpat: unknown metadata name"),
        ({"rootPath": "x", "decodeBase64": "perhaps"}, "expected true or false"),
    ],
)
def test_mistakes_in_the_metadata(metadata, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_options(Options, metadata)


async def test_a_link_to_a_refused_folder(tmp_path):
    (tmp_path / "link").symlink_to("/proc")
    with pytest.raises(ConfigError, match="/proc is no place for files"):
        async with opened(tmp_path / "link" / "self"):
            pass


async def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="is not a folder"):
            async with opened(root):
                pass
