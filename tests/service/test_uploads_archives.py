import io
import struct
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.archives import Archive, ZippedFile, read_tar, read_zip
from service.errors import BadRequest, ImageUndecodable, PayloadTooLarge, RequestRejected

MANY = 10_000
HUGE = 2**30


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def tarred(
    entries: list[tuple[str, bytes, bytes]], form: int = tarfile.USTAR_FORMAT, mode: str = "w"
) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode, format=form) as archive:  # type: ignore[call-overload]  # the mode is chosen by the test
        for name, content, kind in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content)
            info.linkname = "elsewhere/" * 20 if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def file(name: str, content: bytes = b"pixels") -> tuple[str, bytes, bytes]:
    return name, content, tarfile.REGTYPE


def contents(archive: Archive) -> list[bytes]:
    return [
        bytes(member.content)
        for member in archive.members
        if not isinstance(member.content, ZippedFile)
    ]


def first_zipped(body: bytes) -> ZippedFile:
    content = read_zip(body, MANY, HUGE).members[0].content
    assert isinstance(content, ZippedFile)
    return content


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"]
)
def test_a_zips_members_come_out_as_they_went_in(method: int):
    content = b"0123456789" * 1000

    member = first_zipped(zipped({"some/where/a.png": content}, method))

    assert member.info.filename == "some/where/a.png"
    assert member.read(max_bytes=HUGE) == content


def test_directories_hidden_files_links_and_what_a_mac_adds_are_skipped():
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    sink = io.BytesIO(
        zipped({"d/": b"", "__MACOSX/._a.png": b"x", ".DS_Store": b"x", "d/.b": b"x"})
    )
    with zipfile.ZipFile(sink, "a") as archive:
        archive.writestr(link, b"a.png")
        archive.writestr("./d/a.png", b"x")

    found = read_zip(sink.getvalue(), MANY, HUGE)

    assert [member.path for member in found.members] == ["./d/a.png"]
    assert found.skipped == 5


def test_a_member_that_declares_too_much_is_its_own_error():
    member = first_zipped(zipped({"a.bmp": bytes(1000)}))

    with pytest.raises(PayloadTooLarge) as refused:
        member.read(max_bytes=999)

    assert (refused.value.limit, refused.value.actual) == (999, 1000)


def test_members_that_declare_too_much_together_are_refused_before_any_is_inflated():
    body = zipped({f"{k}.bmp": bytes(1000) for k in range(3)})

    with pytest.raises(PayloadTooLarge) as refused:
        read_zip(body, MANY, 2999)

    assert refused.value.actual == 3000


def test_a_member_that_inflates_past_what_it_declares_is_undecodable():
    body = zipped({"a.bmp": bytes(2**20)})
    size = struct.pack("<I", 2**20)
    lying = body.replace(size, struct.pack("<I", 10))

    member = first_zipped(lying)

    with pytest.raises(ImageUndecodable):
        member.read(max_bytes=HUGE)


def test_a_corrupt_member_leaves_the_others_alone():
    body = bytearray(zipped({"a": b"aaaa", "b": b"bbbb"}, zipfile.ZIP_STORED))
    body[body.index(b"aaaa")] ^= 1

    a, b = (member.content for member in read_zip(bytes(body), MANY, HUGE).members)

    assert isinstance(a, ZippedFile)
    assert isinstance(b, ZippedFile)
    with pytest.raises(ImageUndecodable):
        a.read(max_bytes=HUGE)
    assert b.read(max_bytes=HUGE) == b"bbbb"


def test_an_encrypted_member_is_undecodable():
    body = bytearray(zipped({"a.png": b"x"}))
    directory = body.index(b"PK\x01\x02")
    body[directory + 8] |= 1

    with pytest.raises(ImageUndecodable, match="encrypted"):
        first_zipped(bytes(body)).read(max_bytes=HUGE)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_methods_that_inflate_without_bound_are_undecodable(method: int):
    with pytest.raises(ImageUndecodable, match="deflate"):
        first_zipped(zipped({"a.png": b"x" * 100}, method)).read(max_bytes=HUGE)


@pytest.mark.parametrize(
    "body",
    [b"", b"PK\x03\x04 not a zip", zipped({"a": b"x"})[:-10], b"PK\x05\x06" + b"\xff" * 18],
    ids=["empty", "magic-alone", "truncated", "nonsense"],
)
def test_what_is_no_zip_is_a_bad_request(body: bytes):
    with pytest.raises(BadRequest):
        read_zip(body, MANY, HUGE)


def test_too_many_images_in_a_zip_are_too_large():
    body = zipped({f"{k}.png": b"x" for k in range(4)} | {"d/": b""})

    assert len(read_zip(body, 4, HUGE).members) == 4
    with pytest.raises(PayloadTooLarge) as refused:
        read_zip(body, 3, HUGE)
    assert (refused.value.unit, refused.value.actual) == ("images", 4)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"PK\x01\x02" * 1001, id="zip"),
        pytest.param(zipped({f"{k}/": b"" for k in range(1001)}), id="zip-of-directories"),
    ],
)
def test_a_directory_out_of_proportion_is_refused_before_it_is_listed(body: bytes):
    with pytest.raises(PayloadTooLarge):
        read_zip(body, 10, HUGE)


@pytest.mark.parametrize(
    "form",
    [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT],
    ids=["ustar", "gnu", "pax"],
)
@pytest.mark.parametrize(
    "name",
    ["a.png", "d/" * 60 + "a.png", pytest.param("ä" * 70 + ".png", id="not-ascii")],
    ids=["short", "long", "not-ascii"],
)
def test_a_tars_members_come_out_as_they_went_in(name: str, form: int):
    if form == tarfile.USTAR_FORMAT and not name.isascii():
        form = tarfile.PAX_FORMAT
    body = tarred([file(name, b"x" * 700), file("b.png", b"")], form)

    found = read_tar(body, MANY)

    assert [member.path for member in found.members] == [name, "b.png"]
    assert contents(found) == [b"x" * 700, b""]


def test_only_files_of_a_tar_are_images():
    body = tarred(
        [
            file("./d/a.png"),
            ("d", b"", tarfile.DIRTYPE),
            ("s.png", b"", tarfile.SYMTYPE),
            ("l.png", b"", tarfile.LNKTYPE),
            ("null", b"", tarfile.CHRTYPE),
            file("d/._a.png"),
            file("__MACOSX/a.png"),
            file("old/", b""),
        ],
        tarfile.GNU_FORMAT,
    )

    found = read_tar(body, MANY)

    assert [member.path for member in found.members] == ["./d/a.png"]
    assert found.skipped == 7


def test_names_that_are_not_utf8_can_still_be_written_down():
    body = tarred([file("latin-\udce4.png")])

    assert read_tar(body, MANY).members[0].path == "latin-\N{REPLACEMENT CHARACTER}.png"


def with_size(field: bytes) -> bytes:
    """Return a tar of one file of three bytes whose size is given in another way."""
    body = bytearray(tarred([file("a.png", b"abc")]))
    body[124:136] = field.ljust(12, b"\0")
    body[148:156] = b" " * 8
    body[148:156] = b"%06o\0 " % sum(body[:512])
    return bytes(body)


@pytest.mark.parametrize("field", [b"3", b" 3 ", b"\x80" + (3).to_bytes(11)], ids=str)
def test_a_size_is_understood_in_octal_and_in_binary(field: bytes):
    assert contents(read_tar(with_size(field), MANY)) == [b"abc"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_refused_by_name(mode: str):
    with pytest.raises(BadRequest, match="compressed"):
        read_tar(tarred([file("a.png")], mode=mode), MANY)


def pax_tar(records: bytes) -> bytes:
    return tarred([("x", records, tarfile.XHDTYPE), file("a.png")])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * 2000, id="no-tar"),
        pytest.param(bytes(1024), id="end-marks-alone"),
        pytest.param(tarred([file("a.png", b"x" * 600)])[:900], id="ends-within-a-member"),
        pytest.param(tarred([file("a.png")])[:400], id="ends-within-a-header"),
        pytest.param(tarred([file("a.png")]).replace(b"a.png", b"b.png"), id="checksum"),
        pytest.param(pax_tar(b"nonsense"), id="pax-without-a-length"),
        pytest.param(pax_tar(b"0 size=1\n"), id="pax-length-of-nothing"),
        pytest.param(pax_tar(b"9 a=b\n"), id="pax-length-past-the-end"),
        pytest.param(pax_tar(b"11 size=-1\n"), id="pax-negative-size"),
        pytest.param(pax_tar(b"19 size=9999999999\n"), id="pax-size-past-the-end"),
        pytest.param(pax_tar(b"x" * 70_000), id="pax-too-long"),
        pytest.param(with_size(b"8888"), id="size-not-octal"),
    ],
)
def test_what_is_no_tar_is_a_bad_request(body: bytes):
    with pytest.raises(BadRequest):
        read_tar(body, MANY)


def test_too_many_images_in_a_tar_are_too_large():
    body = tarred([file(f"{k}.png") for k in range(4)])

    assert len(read_tar(body, 4).members) == 4
    with pytest.raises(PayloadTooLarge):
        read_tar(body, 3)


def test_too_many_members_of_any_kind_are_too_large():
    body = tarred([("d", b"", tarfile.DIRTYPE)] * 1001)

    with pytest.raises(PayloadTooLarge):
        read_tar(body, 10)


@given(flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), max_size=8))
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(zipped({"a.png": b"x" * 300, "b.png": b"yy"}), id="zip"),
        pytest.param(tarred([file("a.png"), file("n" * 120)], tarfile.PAX_FORMAT), id="tar"),
    ],
)
def test_a_damaged_archive_is_read_or_refused(body: bytes, flips: list[tuple[int, int]]):
    damaged = bytearray(body)
    for at, bits in flips:
        damaged[at % len(body)] ^= bits

    try:
        if body.startswith(b"PK"):
            found = read_zip(bytes(damaged), MANY, HUGE)
        else:
            found = read_tar(bytes(damaged), MANY)
        for member in found.members:
            if isinstance(member.content, ZippedFile):
                member.content.read(max_bytes=2**20)
    except RequestRejected:
        return

    assert len(found.members) + found.skipped <= 3
