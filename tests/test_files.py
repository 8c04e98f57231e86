"""Files out of backups, listed and fetched without a restore: by the program and by HTTP."""

import hashlib
import json
import os
import random
import stat

import pytest
from harness import CAIRN, CONFIG, MIB, Server, run

SHARE = """
[[source]]
kind = "share"
name = "home"
path = "share"
"""


def make_tree(folder):
    """A small tree of everything that names and files can be."""
    rng = random.Random(5)
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/passwd").write_bytes(b"root:x:0:0\n")
    (folder / "etc/empty").write_bytes(b"")
    (folder / "etc/big").write_bytes(rng.randbytes(9 * MIB + 13))
    with open(folder / "etc/sparse", "wb") as file:
        file.truncate(6 * MIB)
        file.seek(3 * MIB)
        file.write(b"in the middle")
    os.chmod(folder / "etc/passwd", 0o640)
    (folder / "etc/link").symlink_to("passwd")
    (folder / "many").mkdir()
    for number in range(1500):
        (folder / f"many/{number:05}").write_bytes(str(number).encode())
    odd = os.path.join(os.fsencode(folder), b"etc", b"odd \\ \xff\n\xc3\xbc")
    with open(odd, "wb") as file:
        file.write(b"odd")
    return folder


ODD = "odd \\\\ \\xff\\x0aü"


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module", name="stage")
def fixture_stage(tmp_path_factory):
    """A server with a disk of one file system, one with partitions and a share, all of the same files."""
    folder = tmp_path_factory.mktemp("files")
    tree = make_tree(folder / "share")
    images = folder / "images"
    images.mkdir()
    for name, offset in (("whole.img", 0), ("parts.img", MIB)):
        image = images / name
        with open(image, "wb") as file:
            file.truncate(64 * MIB)
        options = ["-E", f"offset={offset}", "-d", tree, "-q", "-F"]
        run("/usr/sbin/mkfs.ext4", *options, image, f"{(64 * MIB - 2 * offset) // 1024}k")
    table = "label: gpt\nstart=2048, size=126976, name=data\n"
    run("/usr/sbin/sfdisk", "-q", images / "parts.img", input=table)
    with open(images / "noise.img", "wb") as file:
        file.write(random.Random(1).randbytes(2 * MIB))
    config = CONFIG.split("[[source.server]]", maxsplit=1)[0] + SHARE
    with Server(folder, config) as server:
        server.tree = tree
        disks = server.protectables()
        vault = server.create_vault("disks", "disk", disks.values())
        server.start_backup(vault)
        server.all_operations_finished()
        home = server.create_vault("shares", "turbo", server.protectables("turbo").values())
        server.back_up(home)
        server.ids = {backup["resource_name"]: backup["id"] for backup in server.backups()}
        assert set(server.ids) == {"whole.img", "parts.img", "noise.img", "home"}
        yield server


PLACES = [("whole.img", ""), ("parts.img", "/p1"), ("home", "")]


def listed(server, name, path="/"):
    return json.loads(server.cli("backup", "files", server.ids[name], path, "-o", "json").stdout)


@pytest.mark.parametrize(("name", "top"), PLACES)
def test_a_directory_is_listed_as_it_was(stage, name, top):
    files = {one["name"]: one for one in listed(stage, name, f"{top}/etc")}
    assert set(files) == {"passwd", "empty", "big", "sparse", "link", ODD}
    for entry, one in files.items():
        source = stage.tree / "etc" / entry
        if entry == ODD:
            continue
        seen = source.lstat()
        assert one["size_bytes"] == (seen.st_size if one["type"] == "file" else 0)
        assert one["mode"] == f"{stat.S_IMODE(seen.st_mode):04o}"
        assert (one["uid"], one["gid"]) == (seen.st_uid, seen.st_gid)
        assert one["path"] == f"{top}/etc/{entry}"
        assert one["partition"] is None
    assert files["link"]["type"] == "symlink" and files["link"]["target"] == "passwd"
    many = [one["name"] for one in listed(stage, name, f"{top}/many")]
    assert many == [f"{number:05}" for number in range(1500)]
    [one] = listed(stage, name, f"{top}/etc/passwd")
    assert (one["type"], one["path"]) == ("file", f"{top}/etc/passwd")


@pytest.mark.parametrize(("name", "top"), PLACES)
def test_a_file_is_fetched_as_it_was(stage, name, top, tmp_path):
    for entry in ("passwd", "empty", "big", "sparse"):
        target = tmp_path / entry
        stage.cli("backup", "fetch", stage.ids[name], f"{top}/etc/{entry}", "--to", target)
        assert digest(target.read_bytes()) == digest((stage.tree / "etc" / entry).read_bytes())
    assert sorted(os.listdir(tmp_path)) == ["big", "empty", "passwd", "sparse"]
    done = stage.cli("backup", "fetch", stage.ids[name], f"{top}/etc/passwd")
    assert done.stdout == "root:x:0:0\n"
    done = stage.cli("backup", "fetch", stage.ids[name], f"{top}/etc/{ODD}")
    assert done.stdout == "odd"


def test_partitions_are_listed_with_what_is_in_them(stage):
    [one] = listed(stage, "parts.img")
    assert (one["name"], one["type"], one["size_bytes"]) == ("p1", "directory", 62 * MIB)
    assert one["partition"] == {"content": "ext4", "label": "data"}
    refused = stage.cli("backup", "files", stage.ids["parts.img"], "/etc", check=False)
    assert refused.returncode == 1 and "begins with one, such as /p1" in refused.stderr


def test_a_fetch_goes_on_where_it_was_interrupted(stage, tmp_path):
    wanted = (stage.tree / "etc/big").read_bytes()
    target = tmp_path / "big"
    # A limit of the file's size ends the first one in the middle.
    script = 'ulimit -f 5000; exec "$0" "$@"'
    environment = {**os.environ, "CAIRN_CREDENTIALS": str(stage.credentials_file)}
    fetch = [CAIRN, "backup", "fetch", stage.ids["home"], "/etc/big", "--to", target]
    cut = run("bash", "-c", script, *fetch, env=environment, check=False)
    assert cut.returncode != 0 and not target.exists()
    [part] = tmp_path.iterdir()
    assert 0 < part.stat().st_size < len(wanted)
    # What is a part of something else is not taken for a part of this.
    stage.cli("backup", "fetch", stage.ids["home"], "/etc/sparse", "--to", tmp_path / "big2")
    stage.cli("backup", "fetch", stage.ids["home"], "/etc/big", "--to", target)
    assert digest(target.read_bytes()) == digest(wanted)
    assert sorted(os.listdir(tmp_path)) == ["big", "big2"]


def test_a_file_with_holes_is_fetched_with_holes(stage, tmp_path):
    stage.cli("backup", "fetch", stage.ids["home"], "/etc/sparse", "--to", tmp_path / "sparse")
    assert (tmp_path / "sparse").stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("verb", [("fetch", "/etc/passwd"), ("download",)])
def test_what_is_there_and_no_file_is_not_replaced(stage, tmp_path, verb):
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("kept")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    name = "home" if verb[0] == "fetch" else "noise.img"
    for target in ("link", "pipe", "new/", "kept/x"):
        path = f"{tmp_path}/{target}"
        refused = stage.cli("backup", verb[0], stage.ids[name], *verb[1:], "--to", path, check=False)
        assert refused.returncode != 0 and path in refused.stderr, refused.stderr
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "link").is_symlink()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and (tmp_path / "kept").read_bytes() == b"kept"
    long = tmp_path / ("n" * 255)
    stage.cli("backup", verb[0], stage.ids[name], *verb[1:], "--to", long)
    assert long.stat().st_size > 0


def test_a_range_is_answered_as_http_says(stage):
    path = f"/backups/{stage.ids['whole.img']}/files/content?path=/etc/big"
    wanted = (stage.tree / "etc/big").read_bytes()
    whole = stage.call("GET", path)
    assert (whole.status_code, digest(whole.content)) == (200, digest(wanted))
    for text, start, end in (("5-9", 5, 10), ("-7", len(wanted) - 7, len(wanted)), ("9437180-", 9437180, None)):
        part = stage.call("GET", path, headers={"range": f"bytes={text}"})
        assert part.status_code == 206 and part.content == wanted[start:end]
        total = f"/{len(wanted)}"
        assert part.headers["content-range"].startswith(f"bytes {start}-") and part.headers[
            "content-range"
        ].endswith(total)
    for text in ("99999999-", "2-1", "x", "0-1,5-6"):
        assert stage.call("GET", path, headers={"range": f"bytes={text}"}).status_code == 400


@pytest.mark.parametrize(
    ("name", "path", "status", "code"),
    [
        ("whole.img", "/nothing", 404, "Cairn.0007"),
        ("home", "/nothing", 404, "Cairn.0007"),
        ("home", "/etc/passwd/x", 404, "Cairn.0007"),
        ("home", "/../etc", 404, "Cairn.0007"),
        ("parts.img", "/p9", 404, "Cairn.0007"),
        ("noise.img", "/", 400, "Cairn.0008"),
        ("whole.img", "\\q", 400, "BackupService.9900"),
    ],
)
def test_what_is_not_there_is_said(stage, name, path, status, code):
    answer = stage.call("GET", f"/backups/{stage.ids[name]}/files?path={path.replace(chr(92), '%5C')}")
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text


def test_a_directory_is_no_file(stage):
    for name, top in PLACES:
        path = f"/backups/{stage.ids[name]}/files/content?path={top}/etc"
        answer = stage.call("GET", path)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "Cairn.0008"), answer.text
        link = stage.cli("backup", "fetch", stage.ids[name], f"{top}/etc/link", check=False)
        assert link.returncode == 2 and "no file but a symlink" in link.stderr


def test_another_project_sees_nothing(stage):
    other = stage.create_project("files-other")
    sign = {"access_key": other["access_key"], "secret_key": other["secret_key"]}
    for path in ("files", "files/content?path=/etc/passwd"):
        answer = stage.call(
            "GET", f"/backups/{stage.ids['home']}/{path}", sign=sign, project=other["project_id"],
            headers={"x-project-id": stage.project},
        )
        assert answer.status_code in (401, 403, 404), answer.text
