//! What is listed, under which ids, in which state.

use std::os::unix::fs::FileExt;

use cairn_source::{ImageFormat, ProtectableStatus, SourceConfig};
use cairn_types::{Kind, ResourceId, ResourceType};

use crate::common::{Lab, MIB};

#[test]
fn images_below_the_folder_are_volumes() {
    let lab = Lab::new();
    lab.create("b.img", MIB + 1);
    lab.create("a.raw", 512);
    lab.create("notes.txt", 3);
    lab.create("a.raw.bak", 3);
    lab.folder("deep/er");
    lab.qemu_img(&["create", "-f", "qcow2", "deep/er/c.qcow2", "5G"]);
    std::os::unix::fs::symlink(lab.path("."), lab.path("loop")).unwrap();
    lab.create("text.qcow2", 100);

    let all = lab.inventory().list().unwrap();
    let seen: Vec<_> = all
        .iter()
        .map(|one| (&*one.name, one.size_bytes, one.status))
        .collect();
    use ProtectableStatus::{Available, Unusable};
    let expected = [
        ("a.raw", 512, Available),
        ("b.img", MIB + 1, Available),
        ("deep/er/c.qcow2", 5 << 30, Available),
        ("text.qcow2", 0, Unusable),
    ];
    assert_eq!(seen, expected);
    assert!(
        all.iter()
            .all(|one| one.resource_type == ResourceType::Volume && one.source == "lab")
    );
    assert_eq!(all[2].format, Some(ImageFormat::Qcow2));
    for one in &all {
        assert_eq!(lab.inventory().find(one.id).unwrap(), *one);
    }
}

#[test]
fn a_server_has_its_disks_as_children() {
    let lab = Lab::new();
    lab.create("data.img", MIB);
    lab.qemu_img(&["create", "-f", "qcow2", "root.qcow2", "2M"]);
    let inventory = lab.inventory_with_server("web-1", &["root.qcow2", "data.img", "gone.img"]);
    let all = inventory.list().unwrap();
    let [data, root, server] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!(server.resource_type, ResourceType::Server);
    assert_eq!((&*server.name, server.size_bytes), ("web-1", 3 * MIB));
    assert_eq!(server.status, ProtectableStatus::Missing);
    let names: Vec<_> = server.children.iter().map(|child| &*child.name).collect();
    assert_eq!(names, ["root.qcow2", "data.img", "gone.img"]);
    assert_eq!((&server.children[0], &server.children[1]), (root, data));
    assert!(root.system_disk && !data.system_disk);

    let gone = &server.children[2];
    assert_eq!(gone.status, ProtectableStatus::Missing);
    assert_eq!(inventory.find(gone.id).unwrap(), *gone);
    let error = inventory
        .open_reader(gone.id)
        .err()
        .expect("there is no file");
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.to_string(), "the image gone.img is missing");
    assert_eq!(
        inventory
            .open_reader(server.id)
            .err()
            .expect("no disk")
            .kind(),
        Kind::Invalid
    );
    // When the file comes, the id is that of the volume.
    lab.create("gone.img", MIB);
    assert_eq!(lab.id("gone.img"), gone.id);
}

#[test]
fn what_is_not_there_is_not_found() {
    let lab = Lab::new();
    let error = lab
        .inventory()
        .find(ResourceId::random())
        .expect_err("a random id");
    assert_eq!(error.kind(), Kind::NotFound);
    let mut config = lab.config();
    config.path = lab.path("not-mounted-yet");
    let inventory = cairn_source::Inventory::new(vec![SourceConfig::Images(config)]).unwrap();
    assert_eq!(inventory.list().unwrap(), []);
}

#[test]
fn a_link_leads_to_an_image_elsewhere() {
    let (lab, elsewhere) = (Lab::new(), Lab::new());
    elsewhere
        .create("disk", MIB)
        .write_all_at(b"hello", 9)
        .unwrap();
    std::os::unix::fs::symlink(elsewhere.path("disk"), lab.path("linked.img")).unwrap();
    let disk = lab.reader("linked.img");
    let mut read = [0; 5];
    disk.read_at(9, &mut read).unwrap();
    assert_eq!((&read, disk.size_bytes()), (b"hello", MIB));
}
