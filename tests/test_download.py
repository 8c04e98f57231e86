"""Backups downloaded whole: as images that QEMU reads, as archives that GNU tar unpacks, and on from where they broke off."""

import errno
import hashlib
import json
import os
import random
import re
import signal
import stat
import struct
import subprocess

import pytest
import requests
from harness import CAIRN, CONFIG, MIB, PATIENCE_S, Server, run, wait_for
from test_share import fill, same, state

SHARE = """
[[source]]
kind = "share"
name = "home"
path = "home"
"""
# Large enough to be in the middle of for a while.
LARGE = 192 * MIB + 12345
SIZES = {"odd.img": 9 * MIB + 777, "hole.img": 3 * MIB + 1, "small.img": 100, "large.img": LARGE}


def acl(*entries):
    """An access control list as Linux keeps it."""
    packed = (struct.pack("<HHI", tag, may, who) for tag, may, who in entries)
    return struct.pack("<I", 2) + b"".join(packed)


def make_hostile(folder):
    """What tar has no field for, and what would lead out of a directory if anybody followed it."""
    fill(folder, seed=7)
    (folder / "socket").unlink()
    deep = folder
    for letter in "abcdef":
        deep = deep / (letter * 100)
        deep.mkdir()
    (deep / "file").write_bytes(b"far down")
    os.link(deep / "file", folder / "linked")
    os.symlink("/" + "t" * 3000, deep / "far")
    for name in (b"-rf", b"x" * 255, b"\x01\x7f\t", b"\xff\xfe", "ümlaut".encode(), b"a=b %41", b"'\"\\"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(name)
    (folder / "suid").write_bytes(b"x")
    os.chown(folder / "suid", 3_000_000_000, 2_500_000)
    os.chmod(folder / "suid", 0o6755)
    (folder / "old").write_bytes(b"x")
    os.utime(folder / "old", ns=(0, -1_500_000_001))
    (folder / "late").write_bytes(b"x")
    os.utime(folder / "late", ns=(0, 15_000_000_000_000_000_007))
    os.symlink("/etc", folder / "etc")
    os.symlink("..", folder / "up")
    (folder / "closed").mkdir()
    (folder / "closed/in").write_bytes(b"x")
    os.chmod(folder / "closed", 0)
    os.mknod(folder / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(folder / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    os.setxattr(folder / "docs", "user.of = folder", b"\x00\n\xff")
    os.setxattr(folder / "empty", "user.long", b"v" * 3000)
    everybody = 0xFFFFFFFF
    listed = acl((1, 6, everybody), (2, 4, 4711), (4, 4, everybody), (16, 6, everybody), (32, 0, everybody))
    try:
        os.setxattr(folder / "empty", "system.posix_acl_access", listed)
        os.setxattr(folder / "docs", "system.posix_acl_default", listed)
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP
    with open(folder / "holes", "wb") as file:
        for number in range(300):
            file.seek(number * 128 * 1024 + 5000)
            file.write(b"data %d" % number)
        file.truncate(80 * MIB)
    (folder / "many").mkdir()
    for number in range(2500):
        (folder / f"many/{number:04}").write_bytes(b"%d" % number)
    os.utime(folder / "many", ns=(7, 7_000_000_007))


def make_disks(images):
    """Disks of every size and filling; returns their names."""
    rng = random.Random(3)
    images.mkdir()
    for name, size in SIZES.items():
        with open(images / name, "wb") as file:
            file.truncate(size)
            for at in range(0, size, MIB):
                if name != "hole.img" and rng.random() < (1 if name == "large.img" else 0.5):
                    file.seek(at)
                    file.write(rng.randbytes(min(MIB // 2 + rng.randrange(MIB // 2), size - at)))
    run("qemu-img", "create", "-q", "-f", "qcow2", images / "sparse.qcow2", "4T")
    writes = [("write -P 1 0 64k", "write -P 2 1T 1M", f"write -P 3 {(4 << 40) - 4096} 4096")]
    for commands in writes:
        run("qemu-io", "-f", "qcow2", *(part for one in commands for part in ("-c", one)), images / "sparse.qcow2")


@pytest.fixture(scope="module", name="stage")
def fixture_stage(tmp_path_factory):
    """A server with backups of disks, of a disk with files, and of a share."""
    folder = tmp_path_factory.mktemp("download")
    make_disks(folder / "images")
    make_hostile(folder / "home")
    image = folder / "images/files.img"
    with open(image, "wb") as file:
        file.truncate(192 * MIB)
    run("/usr/sbin/mkfs.ext4", "-d", folder / "home", "-q", "-F", "-b", "4096", "-N", "8192", image)
    config = CONFIG.split("[[source.server]]", maxsplit=1)[0] + SHARE
    with Server(folder, config) as server:
        server.home = folder / "home"
        disks = server.create_vault("disks", "disk", server.protectables().values(), size=10_000)
        server.start_backup(disks)
        shares = server.create_vault("shares", "turbo", server.protectables("turbo").values())
        server.start_backup(shares)
        server.all_operations_finished()
        backups = server.backups()
        assert {backup["status"] for backup in backups} == {"available"}
        server.ids = {backup["resource_name"]: backup["id"] for backup in backups}
        assert set(server.ids) == {*SIZES, "sparse.qcow2", "files.img", "home"}
        yield server


def download(server, name, to, *options):
    """Downloads by the program; returns what it says of it."""
    done = server.cli("backup", "download", server.ids[name], "--to", to, *options, "-o", "json")
    return json.loads(done.stdout)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(server, name, query):
    """Where the bytes of a download are asked for."""
    return f"/backups/{server.ids[name]}/content?{query}"


@pytest.mark.parametrize("name", SIZES)
def test_a_disk_comes_as_it_is(stage, name, tmp_path):
    source, target = stage.images / name, tmp_path / "copy.img"
    done = download(stage, name, target)
    assert (done["format"], done["size_bytes"], done["had_bytes"]) == ("raw", SIZES[name], 0)
    assert digest(target) == digest(source)
    assert os.listdir(tmp_path) == ["copy.img"]
    # What is zero takes no space here either.
    assert target.stat().st_blocks <= source.stat().st_blocks + 256


def test_the_holes_of_a_disk_are_not_sent(stage, tmp_path):
    target = tmp_path / "copy.img"
    # A hundred times as many zeros as could be sent while the test waits.
    done = download(stage, "sparse.qcow2", target)
    assert done["size_bytes"] == target.stat().st_size == 4 << 40
    assert target.stat().st_blocks * 512 < 8 * MIB
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", stage.images / "sparse.qcow2", target)
    # The runs of data one after another; with one of another backup in hand, from the start.
    path, at, runs = content(stage, "sparse.qcow2", "format=raw&skip_holes=true"), 0, []
    while at < 4 << 40:
        answer = stage.call("GET", path, headers={"Range": f"bytes={at}-"})
        assert answer.status_code == 206, answer.text
        told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"]).groups()
        start, end, size = map(int, told)
        assert start >= at and size == 4 << 40 and len(answer.content) == end + 1 - start <= MIB
        runs.append((start, set(answer.content) - {0}))
        at = end + 1
    assert [found for _, found in runs] == [{1}, {2}, {3}] and [runs[0][0], runs[1][0]] == [0, 1 << 40]
    other = stage.call("GET", path, headers={"Range": f"bytes={2 << 40}-", "If-Range": '"other"'})
    assert other.headers["content-range"].startswith("bytes 0-")
    assert stage.call("GET", path.replace("raw", "qcow2")).status_code == 400


@pytest.mark.parametrize("name", ["copy.vmdk", "copy.VHDX", "copy.tar.gz"])
def test_no_file_is_called_what_it_is_not(stage, name, tmp_path):
    done = stage.cli("backup", "download", stage.ids["odd.img"], "--to", tmp_path / name, check=False)
    assert done.returncode == 2 and "not downloaded as" in done.stderr, done.stderr
    assert not os.listdir(tmp_path)
    assert download(stage, "odd.img", tmp_path / name, "--format", "raw")["format"] == "raw"


@pytest.mark.parametrize("name", [*SIZES, "sparse.qcow2"])
def test_qemu_finds_nothing_wrong_with_an_image(stage, name, tmp_path):
    target = tmp_path / "copy.qcow2"
    done = download(stage, name, target)
    assert done["format"] == "qcow2" and done["size_bytes"] == target.stat().st_size
    checked = json.loads(run("qemu-img", "check", "--output=json", "-f", "qcow2", target).stdout)
    assert checked["check-errors"] == 0 and not checked.keys() & {"leaks", "corruptions"}, checked
    kind = "qcow2" if name.endswith("qcow2") else "raw"
    source = stage.images / name
    run("qemu-img", "compare", "-f", kind, "-F", "qcow2", source, target)
    info = json.loads(run("qemu-img", "info", "--output=json", target).stdout)
    assert info["format-specific"]["data"]["compat"] == "1.1" and info["cluster-size"] == 65536
    if name == "sparse.qcow2":
        assert info["virtual-size"] == 4 << 40 and target.stat().st_size < 8 * MIB
        assert "64 KiB" not in run("qemu-io", "-f", "qcow2", "-c", "read -P 2 1T 1M", target).stderr
        return
    raw = tmp_path / "raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", target, raw)
    with open(raw, "rb") as file:
        assert file.read(SIZES[name]) == source.read_bytes()
    # Nobody but a guest makes it differ.
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 100", target)
    run("qemu-img", "check", "-q", "-f", "qcow2", target)


def test_gnu_tar_unpacks_a_share(stage, tmp_path):
    archive, target = tmp_path / "home.tar", tmp_path / "home"
    done = download(stage, "home", archive)
    assert (done["format"], done["size_bytes"]) == ("tar", archive.stat().st_size)
    target.mkdir()
    options = ["--xattrs", "--acls", "--numeric-owner", "--warning=no-timestamp"]
    said = run("tar", *options, "-xpf", archive, "-C", target)
    assert said.stderr == ""
    same(state(target), state(stage.home))
    assert (target / "disk").lstat().st_rdev == (stage.home / "disk").lstat().st_rdev
    # Holes are not in it.
    assert archive.stat().st_size < 60 * MIB
    listed = run("tar", "-tf", archive, "--quoting-style=literal", text=False).stdout.splitlines()
    assert listed[0] == b"./"


def fetched(server, name, path, target):
    return json.loads(server.cli("backup", "fetch", server.ids[name], path, "--to", target, "-o", "json").stdout)


def as_mkfs_keeps(seen):
    """States without what mkfs does not take over (parts of seconds) and what is not read on disks (attributes)."""
    kept = {path: [part for part in entry if not isinstance(part, list)] for path, entry in seen.items()}
    for entry in kept.values():
        entry[3] //= 1_000_000_000
    # The uppermost directory is mkfs's own, and ext4 has no times that are so late.
    return {path: entry for path, entry in kept.items() if path not in (".", "old", "late")}


def test_a_directory_of_a_share_is_fetched(stage, tmp_path):
    whole = fetched(stage, "home", "/", tmp_path / "whole")
    wanted = state(stage.home)
    same(state(tmp_path / "whole"), wanted)
    for device in ("null", "disk"):
        assert (tmp_path / "whole" / device).lstat().st_rdev == (stage.home / device).lstat().st_rdev
    assert whole["refused"] == {"owners": 0, "xattrs": 0, "devices": 0}
    kinds = [stat.S_IFMT(entry[0]) for entry in wanted.values()]
    assert whole["directories"] == kinds.count(stat.S_IFDIR) - 1
    (tmp_path / "empty").mkdir()
    fetched(stage, "home", "/docs", tmp_path / "empty")
    same(state(tmp_path / "empty"), state(stage.home / "docs"))


def test_a_directory_of_a_disk_is_fetched(stage, tmp_path):
    fetched(stage, "files.img", "/", tmp_path / "whole")
    (tmp_path / "whole/lost+found").rmdir()
    same(as_mkfs_keeps(state(tmp_path / "whole")), as_mkfs_keeps(state(stage.home)))
    archive = tmp_path / "docs.tar"
    download(stage, "files.img", archive, "--path", "/docs")
    (tmp_path / "docs").mkdir()
    run("tar", "-xpf", archive, "-C", tmp_path / "docs", "--numeric-owner")
    same(as_mkfs_keeps(state(tmp_path / "docs")), as_mkfs_keeps(state(stage.home / "docs")))


def test_a_directory_goes_to_one_that_is_empty(stage, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept").write_bytes(b"kept")
    command = ["backup", "fetch", stage.ids["home"], "/docs"]
    refused = stage.cli(*command, "--to", tmp_path / "full", check=False)
    assert refused.returncode == 2 and "not empty" in refused.stderr
    assert (tmp_path / "full/kept").read_bytes() == b"kept"
    refused = stage.cli(*command, check=False)
    assert refused.returncode == 2 and "--to" in refused.stderr


def started(server, name, target, *options):
    """A download that is under way: some of it is there."""
    folder = target.parent
    process = subprocess.Popen(
        [CAIRN, "backup", "download", server.ids[name], "--to", target, "-o", "json", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "CAIRN_CREDENTIALS": str(server.credentials_file)},
    )
    before = part_bytes(folder)
    wait_for("some bytes", lambda: process.poll() is not None or part_bytes(folder) > before + MIB)
    assert process.poll() is None, "it is done already"
    return process


def part_bytes(folder):
    return sum(path.stat().st_size for path in folder.iterdir() if path.name.endswith(".part"))


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_download_that_was_killed_goes_on(stage, form, tmp_path):
    whole = tmp_path / "whole"
    download(stage, "large.img", whole, "--format", form)
    folder = tmp_path / "broken"
    folder.mkdir()
    target, had = folder / "copy", 0
    for _ in range(3):
        process = started(stage, "large.img", target, "--format", form)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
        assert not target.exists() and had < part_bytes(folder) < whole.stat().st_size
        had = part_bytes(folder)
    # Of another download it is no part.
    download(stage, "odd.img", folder / "other.img")
    done = download(stage, "large.img", target, "--format", form)
    assert had - 1 <= done["had_bytes"] <= had
    assert digest(target) == digest(whole)
    assert sorted(os.listdir(folder)) == ["copy", "other.img"]


def test_a_download_outlives_its_server(stage, tmp_path):
    target = tmp_path / "copy.img"
    process = started(stage, "large.img", target)
    stage.kill()
    stage.start()
    said, wrong = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, wrong
    assert json.loads(said)["size_bytes"] == LARGE
    assert digest(target) == digest(stage.images / "large.img")


def test_a_part_of_something_else_is_not_gone_on_with(stage, tmp_path):
    target = tmp_path / "copy"
    process = started(stage, "large.img", target, "--format", "raw")
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    [part] = tmp_path.iterdir()
    # As if the backup had been another then.
    stale = part.with_name(part.name[: -len(".part") - 4] + "0000.part")
    part.rename(stale)
    done = download(stage, "large.img", target, "--format", "raw")
    assert done["had_bytes"] == 0
    assert digest(target) == digest(stage.images / "large.img")
    assert os.listdir(tmp_path) == ["copy"]


def test_standard_output_gets_the_bytes(stage):
    environment = {**os.environ, "CAIRN_CREDENTIALS": str(stage.credentials_file)}
    command = [CAIRN, "backup", "download", stage.ids["odd.img"], "--to", "-"]
    done = run(*command, text=False, env=environment)
    assert hashlib.sha256(done.stdout).hexdigest() == digest(stage.images / "odd.img")


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("odd.img", "format=raw"),
        ("odd.img", "format=qcow2"),
        ("sparse.qcow2", "format=qcow2"),
        ("home", "format=tar"),
        ("files.img", "format=tar&path=/many"),
    ],
)
def test_any_range_is_a_part_of_the_whole(stage, name, query):
    path = content(stage, name, query)
    whole = stage.call("GET", path)
    assert whole.status_code == 200 and len(whole.content) == int(whole.headers["content-length"])
    tag, size = whole.headers["etag"], len(whole.content)
    assert tag.startswith('"') and "filename=" in whole.headers["content-disposition"]
    rng = random.Random(query)
    for _ in range(40):
        start = rng.randrange(size)
        end = min(size, start + rng.choice([1, 511, 512, 70_000, 3 * MIB]))
        headers = {"range": f"bytes={start}-{end - 1}", "if-range": tag}
        part = stage.call("GET", path, headers=headers)
        assert part.status_code == 206 and part.headers["etag"] == tag
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.content == whole.content[start:end], (start, end)
    last = stage.call("GET", path, headers={"range": "bytes=-10"})
    assert last.content == whole.content[-10:]
    other = stage.call("GET", path, headers={"range": "bytes=5-9", "if-range": '"other"'})
    assert other.status_code == 200 and other.content == whole.content
    assert stage.call("GET", path, headers={"range": f"bytes={size}-"}).status_code == 400


def test_tags_tell_contents_and_forms_apart(stage):
    queries = [("odd.img", "format=raw"), ("odd.img", "format=qcow2"), ("large.img", "format=raw")]
    queries += [("files.img", "format=tar&path=/docs"), ("files.img", "format=tar")]
    first = {"headers": {"range": "bytes=0-0"}}
    tags = [stage.call("GET", content(stage, *one), **first).headers["etag"] for one in queries]
    assert len(set(tags)) == len(queries)
    again = [stage.call("GET", content(stage, *one), **first).headers["etag"] for one in queries]
    assert tags == again


@pytest.mark.parametrize(
    ("name", "query", "status", "code"),
    [
        ("home", "format=raw", 400, "Cairn.0005"),
        ("home", "format=qcow2", 400, "Cairn.0005"),
        ("odd.img", "format=tar", 400, "Cairn.0008"),
        ("home", "format=tar&path=/nothing", 404, "Cairn.0007"),
        ("home", "format=tar&path=/empty", 400, "Cairn.0008"),
        ("files.img", "format=tar&path=/empty", 400, "Cairn.0008"),
        ("files.img", "format=tar&path=/etc/passwd", 404, "Cairn.0007"),
        ("odd.img", "", 400, "BackupService.9900"),
        ("odd.img", "format=zip", 400, "BackupService.9900"),
        ("odd.img", "format=raw&path=/", 400, "BackupService.9900"),
    ],
)
def test_what_does_not_fit_is_said(stage, name, query, status, code):
    answer = stage.call("GET", content(stage, name, query))
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text


def test_another_project_gets_nothing(stage):
    other = stage.create_project("download-other")
    sign = {"access_key": other["access_key"], "secret_key": other["secret_key"]}
    answer = stage.call(
        "GET", content(stage, "odd.img", "format=raw"), sign=sign, project=other["project_id"],
        headers={"x-project-id": stage.project},
    )
    assert answer.status_code in (401, 403, 404), answer.text


def test_what_a_guest_has_damaged_is_left_out_and_named(tmp_path):
    tree, image = tmp_path / "tree", tmp_path / "images/disk.img"
    for number in range(300):
        (tree / f"d{number % 10}").mkdir(parents=True, exist_ok=True)
        (tree / f"d{number % 10}/{number:03}").write_bytes(bytes([number % 251]) * (number * 97))
    image.parent.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 * MIB)
    run("/usr/sbin/mkfs.ext4", "-O", "metadata_csum", "-d", tree, "-q", "-F", image)
    # A file, a directory, and the names in another.
    lost = ["d3/123", "d4", "d5/"]
    for name in lost:
        found = run("/usr/sbin/debugfs", "-R", f"imap /{name.rstrip('/')}", image).stdout
        block, offset = re.search(r"located at block (\d+), offset (0x[0-9a-f]+)", found).groups()
        size = int(re.search(r"Block size:\s+(\d+)", run("/usr/sbin/dumpe2fs", "-h", image).stdout)[1])
        at = int(block) * size + int(offset, 16) + 0x10
        if name.endswith("/"):
            [first] = run("/usr/sbin/debugfs", "-R", f"bmap /{name.rstrip('/')} 0", image).stdout.split()
            at = int(first) * size + 12
        with open(image, "r+b") as file:
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ 0x55]))
    with Server(tmp_path, CONFIG.split("[[source.server]]", maxsplit=1)[0]) as server:
        vault = server.create_vault("v", "disk", server.protectables().values())
        backup = server.back_up(vault)["id"]
        done = server.cli("backup", "fetch", backup, "/", "--to", tmp_path / "whole", check=False)
        assert done.returncode == 5, done.stderr
        assert "3 entries could not be read" in done.stderr
        for name in ("d3/123", "d4", "d5"):
            assert f'"{name}": ' in done.stderr
        kept = {path.relative_to(tree) for path in tree.rglob("*") if path.relative_to(tree).parts[0] not in ("d4", "d5")}
        kept = {str(path) for path in kept} - {"d3/123"} | {"d5", "lost+found"}
        assert {str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*")} == kept
        for path in (tmp_path / "whole").rglob("*"):
            if path.is_file():
                assert path.read_bytes() == (tree / path.relative_to(tmp_path / "whole")).read_bytes()
        for words in (["--to", tmp_path / "all.tar"], ["--format", "tar", "--to", "-"]):
            archive = run(
                CAIRN, "backup", "download", backup, *words, check=False, text=False,
                env={**os.environ, "CAIRN_CREDENTIALS": str(server.credentials_file)},
            )
            assert archive.returncode == 5 and b'"d3/123": left out: ' in archive.stderr
        listed = run("tar", "-tf", tmp_path / "all.tar").stdout.split()
        assert {name.removeprefix("./").rstrip("/") for name in listed} - {""} == kept
        assert archive.stdout == (tmp_path / "all.tar").read_bytes()
        # Nothing is missing from what is whole, and what is damaged itself is no directory.
        server.cli("backup", "fetch", backup, "/d1", "--to", tmp_path / "d1")
        refused = server.cli("backup", "fetch", backup, "/d4", "--to", tmp_path / "d4", check=False)
        assert refused.returncode == 1 and "damaged" in refused.stderr


def test_damage_breaks_the_download_off(tmp_path):
    """Last, and on a server of its own: it is beyond repair then."""
    images = tmp_path / "images"
    images.mkdir()
    with open(images / "disk.img", "wb") as file:
        file.write(random.Random(1).randbytes(8 * MIB))
    with Server(tmp_path, CONFIG.split("[[source.server]]", maxsplit=1)[0]) as server:
        vault = server.create_vault("v", "disk", server.protectables().values())
        server.ids = {"disk.img": server.back_up(vault)["id"]}
        assert server.stop() == 0
        packs = [path for path in (server.data / "repository").rglob("*") if "packs" in path.parts and path.is_file()]
        largest = max(packs, key=lambda path: path.stat().st_size)
        with open(largest, "r+b") as file:
            file.seek(largest.stat().st_size // 2)
            file.write(b"\0" * 100_000)
        server.start()
        for form in ("raw", "qcow2"):
            with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
                server.call("GET", content(server, "disk.img", f"format={form}"))
