//! A real libvirtd with domains that execute nothing: what a guest would write
//! is written at its devices by the monitor.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use cairn_source::{Consistency, Inventory, Level, LibvirtConfig, SourceConfig};
use cairn_types::ResourceId;
use cairn_types::disk::DiskReader;

use super::guest::{Model, wait_until};

/// A libvirtd with everything of its own in a temporary folder, until this is dropped.
pub struct Libvirt {
    process: Child,
    folder: tempfile::TempDir,
}

impl Libvirt {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        std::fs::create_dir(&images).unwrap();
        // It may run as somebody else.
        std::fs::set_permissions(&images, PermissionsExt::from_mode(0o777)).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/libvirtd.sh");
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(script)
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let libvirt = Self { process, folder };
        libvirt.wait();
        libvirt
    }

    /// Waits until libvirt answers.
    pub fn wait(&self) {
        wait_until("the start of libvirtd", || {
            self.try_virsh(&["list"]).is_ok()
        });
    }

    pub fn uri(&self) -> String {
        let folder = self.folder.path().display();
        format!("qemu:///session?socket={folder}/run/libvirt/libvirt-sock")
    }

    pub fn image(&self, name: &str) -> PathBuf {
        self.folder.path().join("images").join(name)
    }

    pub fn try_virsh(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("virsh")
            .args(["-q", "-c", &self.uri()])
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .expect("package libvirt-clients is installed");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    pub fn virsh(&self, arguments: &[&str]) -> String {
        let said = self.try_virsh(arguments);
        said.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Makes an image that libvirt's QEMU may write.
    pub fn create(&self, name: &str, options: &[&str], size: &str) {
        let format = if name.ends_with(".qcow2") {
            "qcow2"
        } else {
            "raw"
        };
        let path = self.image(name);
        let mut create = Command::new("qemu-img");
        create
            .args(["create", "-q", "-f", format])
            .args(options)
            .arg(&path)
            .arg(size);
        assert!(create.status().unwrap().success());
        self.open_to_all(name);
    }

    pub fn open_to_all(&self, name: &str) {
        std::fs::set_permissions(self.image(name), PermissionsExt::from_mode(0o666)).unwrap();
    }

    /// Defines a domain with these images as its disks `sda` and so on, and these devices more.
    pub fn define_with(&self, name: &str, images: &[&str], more: &str) {
        let disks = self.disks(images, "sd", "scsi");
        let devices = format!("<controller type='scsi' model='virtio-scsi'/>{disks}{more}");
        self.define_xml(name, 16, "", &devices);
    }

    /// Defines a domain that boots the Linux of `scripts/guest_image.sh`, with disks `vda` and so on; its
    /// console is the file `console` among the images.
    pub fn define_linux(&self, name: &str, images: &[&str], kernel: &str, initrd: &str) {
        let [kernel, initrd, console] =
            [kernel, initrd, "console"].map(|file| self.image(file).display().to_string());
        let boot = format!(
            "<kernel>{kernel}</kernel><initrd>{initrd}</initrd>\
             <cmdline>console=ttyS0 panic=-1</cmdline>"
        );
        let devices = format!(
            "{}<serial type='file'><source path='{console}'/><target port='0'/></serial>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
            self.disks(images, "vd", "virtio")
        );
        self.define_xml(name, 256, &boot, &devices);
    }

    fn disks(&self, images: &[&str], target: &str, bus: &str) -> String {
        let disk = |(at, image): (usize, &&str)| {
            let format = if image.ends_with(".qcow2") {
                "qcow2"
            } else {
                "raw"
            };
            format!(
                "<disk type='file' device='disk'><driver name='qemu' type='{format}'/>\
                 <source file='{}'/><target dev='{target}{}' bus='{bus}'/></disk>",
                self.image(image).display(),
                char::from(b'a' + at as u8)
            )
        };
        images.iter().enumerate().map(disk).collect()
    }

    fn define_xml(&self, name: &str, memory_mib: u32, boot: &str, devices: &str) {
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><uuid>{}</uuid>\
             <memory unit='MiB'>{memory_mib}</memory>\
             <os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os>\
             <cpu mode='maximum'/><devices>\
             <emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices></domain>",
            uuid_of(name)
        );
        let file = self.folder.path().join("domain.xml");
        #[allow(clippy::disallowed_methods, reason = "nobody needs it after a crash")]
        std::fs::write(&file, xml).unwrap();
        self.virsh(&["define", file.to_str().unwrap()]);
    }

    pub fn define(&self, name: &str, images: &[&str]) {
        self.define_with(name, images, "");
    }

    pub fn start_domain(&self, name: &str) {
        self.virsh(&["start", name, "--paused"]);
    }

    /// Defines and starts a domain with empty qcow2 images.
    pub fn domain(&self, name: &str, images: &[&str], size: &str) {
        images
            .iter()
            .for_each(|image| self.create(image, &[], size));
        self.define(name, images);
        self.start_domain(name);
    }

    /// Writes at a disk as its driver in the guest would.
    pub fn write(&self, name: &str, disk: usize, byte: u8, offset: u64, length: u64) {
        self.io(name, disk, &format!("write -P {byte} {offset} {length}"));
    }

    /// Has `qemu-io` do something at a disk.
    pub fn io(&self, name: &str, disk: usize, what: &str) {
        let line = format!("qemu-io -d scsi0-0-0-{disk} \"{what}\"");
        let said = self.virsh(&["qemu-monitor-command", name, "--hmp", &line]);
        assert!(!said.contains("rror"), "{said}");
    }

    /// The process of a domain's QEMU, as this test sees it.
    pub fn qemu(&self, name: &str) -> Option<i32> {
        self.process(&["qemu-system", &format!("guest={name},")])
    }

    pub fn kill_qemu(&self, name: &str) {
        self.kill(self.qemu(name).expect("it runs"));
        wait_until("the end of a QEMU", || {
            self.virsh(&["domstate", name]).trim() == "shut off"
        });
    }

    /// Ends libvirtd and waits until it is there again. Its domains go on.
    pub fn restart(&self) {
        let before = self.process(&["libvirtd", "--timeout=0"]).unwrap();
        self.kill(before);
        wait_until("another libvirtd", || {
            let now = self.process(&["libvirtd", "--timeout=0"]);
            now.is_some_and(|now| now != before)
        });
        self.wait();
    }

    /// The process of this libvirt in whose command line all of these are.
    fn process(&self, words: &[&str]) -> Option<i32> {
        let own = self.folder.path().to_str().unwrap();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.find(|id: &i32| {
            let read = |file| std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
            let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            let first = command.split('\0').next().unwrap_or_default();
            first.contains(words[0])
                && words.iter().all(|word| command.contains(word))
                && (environment.contains(own) || command.contains(own))
        })
    }

    fn kill(&self, id: i32) {
        let killed = Command::new("kill")
            .args(["-KILL", &id.to_string()])
            .status();
        assert!(killed.unwrap().success());
    }

    pub fn config(&self) -> LibvirtConfig {
        LibvirtConfig {
            name: "host".to_owned(),
            uri: self.uri(),
            project: None,
            domains: Vec::new(),
            exclude: Vec::new(),
            scratch: None,
            tags: std::collections::BTreeMap::new(),
        }
    }

    pub fn inventory(&self) -> Inventory {
        Inventory::new(vec![SourceConfig::Libvirt(self.config())]).unwrap()
    }

    /// Whatever of Cairn's is at a domain, but for the checkpoint that stays.
    pub fn leftovers(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(job) = self.try_virsh(&["backup-dumpxml", name]) {
            found.push(job);
        }
        let files = std::fs::read_dir(self.folder.path().join("images")).unwrap();
        let files = files
            .flatten()
            .map(|file| file.file_name().into_string().unwrap());
        found.extend(files.filter(|file| file.starts_with(".cairn")));
        found
    }

    /// The names of the checkpoints of a domain.
    pub fn checkpoints(&self, name: &str) -> Vec<String> {
        let said = self.virsh(&["checkpoint-list", name, "--name"]);
        let names = said.lines().map(str::trim).filter(|line| !line.is_empty());
        names.map(str::to_owned).collect()
    }

    /// The bitmaps that QEMU has of a running domain's images.
    pub fn bitmaps(&self, name: &str) -> Vec<String> {
        let ask = r#"{"execute": "query-named-block-nodes", "arguments": {"flat": true}}"#;
        let said = self.virsh(&["qemu-monitor-command", name, ask]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let nodes = said["return"].as_array().unwrap().iter();
        let bitmaps = nodes.flat_map(|node| node["dirty-bitmaps"].as_array().into_iter().flatten());
        bitmaps
            .map(|bitmap| bitmap["name"].as_str().unwrap_or("?").to_owned())
            .collect()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The id of the domain of this name.
pub fn uuid_of(name: &str) -> uuid::Uuid {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, name.as_bytes())
}

pub fn server_of(name: &str) -> ResourceId {
    ResourceId::from_uuid(uuid_of(name))
}

/// The ids of the disks of a domain, in the order in which it has them.
pub fn volumes_of(inventory: &Inventory, name: &str) -> Vec<ResourceId> {
    let server = inventory.find(server_of(name)).unwrap();
    server.children.iter().map(|disk| disk.id).collect()
}

/// Opens all disks of a domain that runs, at one point in time.
pub fn open_all(inventory: &Inventory, name: &str) -> Vec<Arc<dyn DiskReader>> {
    open_some(inventory, name, &volumes_of(inventory, name))
}

pub fn open_some(
    inventory: &Inventory,
    name: &str,
    volumes: &[ResourceId],
) -> Vec<Arc<dyn DiskReader>> {
    let opened = inventory
        .open_server(server_of(name), volumes, Level::Crash)
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    assert_eq!(opened.consistency, Consistency::Crash { why: None });
    opened.disks.into_iter().map(|(_, reader)| reader).collect()
}

/// What the disk of a domain should hold, and what is written on both.
pub fn write(libvirt: &Libvirt, name: &str, disk: usize, model: &mut Model, what: (u8, u64, u64)) {
    let (byte, offset, length) = what;
    libvirt.write(name, disk, byte, offset, length);
    model.0[offset as usize..(offset + length) as usize].fill(byte);
}
