"""Fixtures that several test programs share."""

import described
import pytest
from harness import CAIRN, MIB, Disk, Server


def pytest_configure():
    described.check_everything()
    if not CAIRN.exists():
        pytest.exit(f"{CAIRN} is missing: run `make test`, which builds it", returncode=2)


# What takes minutes begins first: else one of several workers would be at it alone in the end.
LONG = ["test_schemathesis", "test_sweep", "test_schedule_oracle", "test_openstack", "test_guests"]


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.module.__name__, len(LONG)))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server with a disk of its own and a server of two disks, shared by a module's tests."""
    folder = tmp_path_factory.mktemp("lab")
    disks = {
        "disk.img": Disk(folder / "images/disk.img").create(24 * MIB + 512, seed=1),
        "web-root.qcow2": Disk(folder / "images/web-root.qcow2").create(16 * MIB, seed=2),
        "web-data.img": Disk(folder / "images/web-data.img").create(10 * MIB + 4096, seed=3),
    }
    with Server(folder) as server:
        server.disks = disks
        yield server
