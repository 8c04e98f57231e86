//! A real QEMU with disks, which executes nothing: what a guest would write
//! is written at its devices by the monitor.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_source::{Consistency, ImagesConfig, Inventory, Level, ServerConfig, SourceConfig};
use cairn_types::ResourceId;
use cairn_types::disk::DiskReader;
use serde_json::{Value, json};

use super::Lab;

/// How long a test waits for another program.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what another program does.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// The test's own connection to a QEMU.
pub struct Monitor {
    stream: BufReader<UnixStream>,
    /// The names of the events that came.
    pub events: Vec<String>,
}

impl Monitor {
    pub fn connect(path: &Path) -> Option<Self> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut monitor = Self {
            stream: BufReader::new(stream),
            events: Vec::new(),
        };
        monitor.line()?;
        monitor.ask("qmp_capabilities", json!({}));
        Some(monitor)
    }

    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// The answer, or QEMU's error.
    pub fn try_ask(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let message = json!({"execute": command, "arguments": arguments});
        let sent = writeln!(self.stream.get_mut(), "{message}");
        sent.map_err(|error| error.to_string())?;
        loop {
            let line = self.line().ok_or("the connection ended")?;
            if let Some(answer) = line.get("return") {
                return Ok(answer.clone());
            }
            if let Some(event) = line.get("event") {
                self.events.push(event.as_str().unwrap().to_owned());
            }
            if let Some(error) = line.get("error") {
                return Err(error["desc"].as_str().unwrap().to_owned());
            }
        }
    }

    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let answer = self.try_ask(command, arguments);
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Everything of Cairn's in this QEMU, but for the bitmaps that stay in images.
    pub fn leftovers(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for command in [
            "query-block-exports",
            "query-jobs",
            "query-named-block-nodes",
            "query-fdsets",
        ] {
            let answer = self.ask(command, json!({}));
            for one in answer.as_array().unwrap() {
                let id = one.get("id").or(one.get("node-name"));
                let id = id.and_then(Value::as_str).unwrap_or("a descriptor");
                let is_ours = id.starts_with("cairn") || id == "a descriptor";
                found.extend(is_ours.then(|| format!("{command}: {id}")));
                for bitmap in one["dirty-bitmaps"].as_array().into_iter().flatten() {
                    let name = bitmap["name"].as_str().unwrap_or_default();
                    let stays = bitmap["persistent"] == json!(true);
                    found.extend((!stays).then(|| format!("bitmap {name} of {id}")));
                }
            }
        }
        let refused = self.try_ask("nbd-server-stop", json!({}));
        found.extend(refused.is_ok().then(|| "the NBD server".to_owned()));
        found
    }

    /// The persistent bitmaps of a disk.
    pub fn bitmaps(&mut self, node: &str) -> Vec<String> {
        let nodes = self.ask("query-named-block-nodes", json!({}));
        let mut nodes = nodes.as_array().unwrap().iter();
        let node = nodes
            .find(|found| found["node-name"] == json!(node))
            .unwrap();
        let bitmaps = node["dirty-bitmaps"].as_array().into_iter().flatten();
        let persistent = bitmaps.filter(|bitmap| bitmap["persistent"] == json!(true));
        let name = |bitmap: &Value| bitmap["name"].as_str().unwrap().to_owned();
        persistent.map(name).collect()
    }
}

/// A QEMU that runs until this is dropped.
pub struct Guest {
    process: Child,
    pub monitor: Mutex<Monitor>,
    /// What QEMU says beside its monitor.
    log: PathBuf,
}

/// The program, so that the tests can be run with another version.
fn qemu() -> Command {
    let program = std::env::var("CAIRN_TEST_QEMU");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "sh", "-c", "exec $0 \"$@\""]);
    command.args(
        program
            .unwrap_or("qemu-system-x86_64".to_owned())
            .split(' '),
    );
    command
}

impl Guest {
    /// Starts a guest with these images of a lab as its disks, in their order; it executes nothing.
    pub fn start(lab: &Lab, disks: &[&str]) -> Self {
        Self::start_with(lab, disks, &["-S", "-m", "16"])
    }

    /// Boots the Linux that `scripts/guest_image.sh` has built, until it has begun to write
    /// on its two disks. Its agent listens at `agent`.
    pub fn boot(lab: &Lab, disks: &[&str]) -> Self {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
        assert!(
            built.join("built").exists(),
            "scripts/guest_image.sh has built no guest"
        );
        let (kernel, initrd) = (built.join("kernel"), built.join("initrd"));
        let (console, agent) = (lab.path("console"), lab.path("agent"));
        let (to_console, to_agent) = (
            format!("file:{}", console.display()),
            format!(
                "socket,path={},server=on,wait=off,id=agent",
                agent.display()
            ),
        );
        let guest = Self::start_with(
            lab,
            disks,
            &[
                "-m",
                "256",
                "-cpu",
                "max",
                "-serial",
                &to_console,
                "-kernel",
                kernel.to_str().unwrap(),
                "-initrd",
                initrd.to_str().unwrap(),
                "-object",
                "iothread,id=loop",
                "-global",
                "virtio-blk-device.iothread=loop",
                "-append",
                "console=ttyS0 panic=-1",
                "-device",
                "virtio-serial",
                "-chardev",
                &to_agent,
                "-device",
                "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            ],
        );
        wait_until("the guest's start", || {
            let said = std::fs::read(&console).unwrap_or_default();
            String::from_utf8_lossy(&said).contains("cairn guest: ready")
        });
        guest
    }

    /// With these arguments more.
    pub fn start_with(lab: &Lab, disks: &[&str], more: &[&str]) -> Self {
        let (qmp, own) = (lab.path("qmp"), lab.path("monitor"));
        for socket in [&qmp, &own] {
            // That of a guest before this one.
            let _ = std::fs::remove_file(socket);
        }
        let mut command = qemu();
        command.args(["-accel", "tcg", "-nodefaults", "-display", "none"]);
        for (at, disk) in disks.iter().enumerate() {
            let format = match disk.ends_with(".qcow2") {
                true => "qcow2",
                false => "raw",
            };
            let path = lab.path(disk);
            let node = format!(
                "driver={format},node-name=node{at},file.driver=file,file.filename={}",
                path.display()
            );
            command.args(["-blockdev", &node, "-device"]);
            command.arg(format!("virtio-blk-pci,drive=node{at},id=disk{at}"));
        }
        for socket in [&qmp, &own] {
            command.arg("-qmp");
            command.arg(format!("unix:{},server=on,wait=off", socket.display()));
        }
        let log = lab.path("guest.log");
        let said = File::create(&log).unwrap();
        command.args(more).stdin(Stdio::null()).stdout(said);
        let process = command
            .spawn()
            .expect("package qemu-system-x86 is installed");
        let mut monitor = None;
        wait_until("the start of QEMU", || {
            monitor = Monitor::connect(&own);
            monitor.is_some()
        });
        Self {
            process,
            monitor: Mutex::new(monitor.unwrap()),
            log,
        }
    }

    pub fn ask(&self, command: &str, arguments: Value) -> Value {
        self.monitor.lock().unwrap().ask(command, arguments)
    }

    pub fn leftovers(&self) -> Vec<String> {
        self.monitor.lock().unwrap().leftovers()
    }

    pub fn bitmaps(&self, disk: usize) -> Vec<String> {
        self.monitor.lock().unwrap().bitmaps(&format!("node{disk}"))
    }

    /// Writes at a device as its driver in the guest would.
    pub fn write(&self, disk: usize, byte: u8, offset: u64, length: u64) {
        self.io(disk, &format!("write -P {byte} {offset} {length}"));
    }

    /// Has `qemu-io` do something at a device.
    pub fn io(&self, disk: usize, what: &str) {
        self.io_at(
            &format!("/machine/peripheral/disk{disk}/virtio-backend"),
            what,
        );
    }

    pub fn io_at(&self, device: &str, what: &str) {
        let line = format!("qemu-io -d {device} \"{what}\"");
        let said = self.ask("human-monitor-command", json!({"command-line": line}));
        assert_eq!(said, "", "{what}");
        let said = std::fs::read_to_string(&self.log).unwrap();
        assert!(!said.contains("failed"), "{what}: {said}");
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Has it end as it does when its guest is shut down.
    pub fn quit(mut self) {
        self.ask("quit", json!({}));
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Lab {
    /// An inventory with the server `web-1`, which has these disks and a QEMU.
    pub fn inventory_with_guest(&self, disks: &[&str]) -> Inventory {
        self.inventory_with_qmp(disks, &self.path("qmp"), None)
    }

    pub fn inventory_with_qmp(
        &self,
        disks: &[&str],
        qmp: &Path,
        guest_agent: Option<PathBuf>,
    ) -> Inventory {
        let disks = disks.iter().map(PathBuf::from).collect();
        let server = vec![ServerConfig {
            qmp: Some(qmp.to_owned()),
            guest_agent,
            ..ServerConfig::new("web-1", disks)
        }];
        let config = ImagesConfig {
            server,
            ..self.config()
        };
        Inventory::new(vec![SourceConfig::Images(config)]).unwrap()
    }

    pub fn server_id(&self, inventory: &Inventory) -> ResourceId {
        let all = inventory.list().unwrap();
        all.iter().find(|one| one.name == "web-1").unwrap().id
    }

    /// Makes a qcow2 image.
    pub fn qcow2(&self, name: &str, size: &str) {
        self.qemu_img(&["create", "-q", "-f", "qcow2", name, size]);
    }
}

/// Reads whatever the other end says until it closes.
pub fn drain(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

/// What a disk should hold.
#[derive(Clone)]
pub struct Model(pub Vec<u8>);

impl Model {
    pub fn new(size_bytes: u64) -> Self {
        Self(vec![0; size_bytes as usize])
    }

    /// The guest writes, and the model with it.
    pub fn write(&mut self, guest: &Guest, disk: usize, byte: u8, offset: u64, length: u64) {
        guest.write(disk, byte, offset, length);
        self.0[offset as usize..(offset + length) as usize].fill(byte);
    }

    pub fn assert_is(&self, disk: &dyn DiskReader) {
        assert_eq!(disk.size_bytes(), self.0.len() as u64);
        let mut at = 0;
        while at < disk.size_bytes() {
            let extent = disk.extent_at(at).unwrap();
            let expected = &self.0[at as usize..extent.end() as usize];
            let mut read = vec![0xaa; expected.len()];
            disk.read_at(at, &mut read).unwrap();
            assert!(read == expected, "{extent:?}");
            assert!(
                extent.data || read.iter().all(|byte| *byte == 0),
                "{extent:?}"
            );
            at = extent.end();
        }
        disk.check_unchanged().unwrap();
    }
}

/// Opens disks of the server `web-1` at one point in time.
pub fn open_all(lab: &Lab, inventory: &Inventory, disks: &[&str]) -> Vec<Arc<dyn DiskReader>> {
    let volumes: Vec<_> = disks.iter().map(|disk| lab.id(disk)).collect();
    let opened = inventory
        .open_server(lab.server_id(inventory), &volumes, Level::Crash)
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    assert_eq!(opened.consistency, Consistency::Crash { why: None });
    opened.disks.into_iter().map(|(_, reader)| reader).collect()
}
