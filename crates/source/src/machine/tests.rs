use std::path::Path;

use super::*;
use crate::libvirt::domain::{child, parse};

const OLD: &str = "\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web &amp; 1</name>
  <uuid>6e644776-b143-4783-b9ee-f377dc61cee5</uuid>
  <genid>0bad5f3b-1f3e-4b8a-9d11-6f1f5a1b7f11</genid>
  <metadata><app:info xmlns:app='http://example.com/app'>kept</app:info></metadata>
  <memory unit='MiB'>512</memory>
  <vcpu>3</vcpu>
  <sysinfo type='smbios'><system><entry name='uuid'>6e644776-b143-4783-b9ee-f377dc61cee5</entry>\
<entry name='serial'>S</entry></system></sysinfo>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-9.0'>hvm</type>\
<loader readonly='no' type='pflash'>/usr/share/code.fd</loader><nvram template='/usr/share/vars.fd'>/var/lib/nvram/web-1.fd</nvram></os>
  <devices>
    <emulator>/opt/qemu</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/>\
<source file='/images/a.img'/><backingStore/><target dev='sda' bus='scsi'/><serial>S1</serial><boot order='1'/></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/b'/>\
<target dev='vdb' bus='virtio'/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='x/y'/><target dev='vdc'/></disk>
    <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='hda' bus='ide'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0' portid='p'/>\
<target dev='mine'/><model type='virtio'/></interface>
    <interface type='vhostuser'><source type='unix' path='/run/v'/></interface>
    <serial type='file'><source path='/var/log/web-1'/><target port='0'/></serial>
    <channel type='unix'><source mode='bind' path='/run/agent'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <graphics type='vnc' port='5901' autoport='no' listen='0.0.0.0'><listen type='address' address='0.0.0.0'/></graphics>
    <input type='passthrough'><source evdev='/dev/input/event0'/></input><input type='tablet' bus='usb'/>
    <filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>
    <hostdev mode='subsystem' type='usb'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <vsock model='virtio'><cid auto='no' address='3'/></vsock>
  </devices>
  <seclabel type='static'><label>x</label></seclabel>
  <qemu:commandline><qemu:arg value='-version'/></qemu:commandline>
</domain>
";

fn machine(targets: &[&str]) -> NewMachine {
    NewMachine {
        name: "new <1>".to_owned(),
        uuid: Uuid::from_u128(7),
        disks: targets
            .iter()
            .map(|target| NewDisk {
                target: (*target).to_owned(),
                path: Path::new("/new").join(target),
                format: ImageFormat::Qcow2,
            })
            .collect(),
    }
}

#[test]
fn what_only_one_machine_can_have_is_not_taken_over() {
    let made = machine(&["sda", "vdb"]).again(OLD).unwrap();
    for gone in [
        "web",
        "6e644776",
        "0bad5f3b",
        "/images",
        "/dev/vg",
        "/iso",
        "rbd",
        "52:54",
        "portid",
        "mine",
        "/run/",
        "/var/",
        "5901",
        "0.0.0.0",
        "/srv",
        "hostdev",
        "'3'",
        "seclabel",
        "qemu:arg",
        "/opt/qemu",
        "id='1'",
    ] {
        assert!(!made.xml.contains(gone), "{gone}: {}", made.xml);
    }
    let document = parse(&made.xml).unwrap();
    let root = document.root_element();
    assert_eq!(child(root, "name").unwrap().text(), Some("new <1>"));
    let uuid = child(root, "uuid").unwrap().text().unwrap();
    assert_eq!(uuid, Uuid::from_u128(7).to_string());
    for kept in [
        ">512<",
        ">3<",
        "pc-q35-9.0",
        "<loader type='pflash' readonly='yes'>/usr/share/code.fd</loader>",
        "<input type='tablet' bus='usb'/>",
        "kept",
        "<entry name='serial'>S</entry>",
        "<nvram template='/usr/share/vars.fd'/>",
        "<driver name='qemu' type='qcow2' cache='none' discard='unmap'/><source file='/new/sda'/>",
        "<target dev='sda' bus='scsi'/><serial>S1</serial><boot order='1'/>",
        "<source file='/new/vdb'/><target dev='vdb' bus='virtio'/>",
        "<disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>",
        "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>",
        "<serial type='pty'><target port='0'/></serial>",
        "org.qemu.guest_agent.0",
        "<graphics type='vnc' autoport='yes'/>",
        "<cid auto='yes'/>",
        "/dev/urandom",
        "<genid/>",
    ] {
        assert!(made.xml.contains(kept), "{kept}: {}", made.xml);
    }
    assert_eq!(
        made.left_out,
        [
            "what QEMU was told by commandline",
            "the disk vdc",
            "a network card of the sort vhostuser",
            "a device of the sort input",
            "a device of the sort filesystem",
            "a device of the sort hostdev",
        ]
    );
}

#[test]
fn what_cannot_be_used_is_refused() {
    let long = format!("<domain>{}</domain>", " ".repeat(DEFINITION_BYTES_MAX));
    for (xml, why) in [
        ("", "a root node"),
        ("<domain><name>a</name></domain>", "none of a domain"),
        (
            &OLD.replace("type='kvm'", "type='lxc'"),
            "no domain that QEMU runs",
        ),
        (OLD, "no disk vdx"),
        (&long, "too long"),
    ] {
        let refused = machine(&["vdx"]).again(xml).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
        assert_eq!(refused.kind(), cairn_types::Kind::Invalid);
    }
    for name in ["", ".a", "-a", "a/b", "a\nb", &"a".repeat(101)] {
        assert!(check_name(name).is_err(), "{name}");
    }
    check_name("web-1 ü").unwrap();
}

#[test]
fn a_plain_machine_is_the_hosts() {
    let capabilities = "<domainCapabilities><path>/usr/bin/qemu</path><domain>kvm</domain>\
        <machine>pc</machine><arch>x86_64</arch></domainCapabilities>";
    let plain = Plain {
        memory_mib: 300,
        cpus: 2,
        efi: true,
        bus: Bus::Scsi,
        network: Some("de<fault".to_owned()),
    };
    let new = machine(&["sda", "sdb"]);
    let xml = plain.write(&new, capabilities).unwrap();
    parse(&xml).unwrap();
    for part in [
        "<domain type='kvm'>",
        "<os firmware='efi'><type arch='x86_64' machine='q35'>",
        "<memory unit='MiB'>300</memory><vcpu>2</vcpu>",
        "<source file='/new/sda'/><target dev='sda' bus='scsi'/>",
        "virtio-scsi",
        "<source network='de&lt;fault'/>",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    assert!(plain.write(&new, "<domainCapabilities/>").is_err());
    let targets = [0, 25, 26, 27, 701, 702].map(|number| Bus::Virtio.target(number));
    assert_eq!(targets, ["vda", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]);
}
