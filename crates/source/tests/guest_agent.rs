//! Freezing a guest for the moment of a backup, by agents of every sort; the
//! real one is in `guest_booted.rs`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_source::{Consistency, Inventory, Level, ServerReaders};
use serde_json::{Value, json};

use crate::common::Lab;
use crate::common::guest::Guest;
use crate::common::proxy::CutProxy;

const DISKS: [&str; 2] = ["a.qcow2", "b.qcow2"];

/// An agent that answers by this table, and remembers what it was asked.
struct Agent {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    fn start(path: &Path, answer: impl Fn(&str) -> Option<Value> + Send + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&stream.unwrap(), &answer, &notes);
            }
        });
        Self { asked }
    }

    /// What it was asked, but for greetings.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: &UnixStream, answer: &impl Fn(&str) -> Option<Value>, notes: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        let text = line.strip_prefix(&[0xff]).unwrap_or(&line);
        let message: Value = serde_json::from_slice(text).unwrap();
        line.clear();
        let command = message["execute"].as_str().unwrap();
        let mut reply = Vec::new();
        if command == "guest-sync-delimited" {
            // Whatever was left over comes before the delimiter.
            reply.extend(b"{\"return\": 5}\n\xff");
            reply.extend(
                json!({"return": message["arguments"]["id"]})
                    .to_string()
                    .bytes(),
            );
        } else {
            notes.lock().unwrap().push(command.to_owned());
            match answer(command) {
                Some(answer) => reply.extend(answer.to_string().bytes()),
                None => continue,
            }
        }
        reply.push(b'\n');
        let mut stream = stream;
        let _ = stream.write_all(&reply);
    }
}

/// As `qemu-ga` answers when all goes well.
fn willing(command: &str) -> Option<Value> {
    Some(match command {
        "guest-fsfreeze-status" => json!({"return": "frozen"}),
        _ => json!({"return": 2}),
    })
}

fn guest(lab: &Lab) -> Guest {
    DISKS.iter().for_each(|name| lab.qcow2(name, "4M"));
    Guest::start(lab, &DISKS)
}

fn open(lab: &Lab, inventory: &Inventory, level: Level) -> ServerReaders {
    let volumes = DISKS.map(|name| lab.id(name));
    inventory
        .open_server(lab.server_id(inventory), &volumes, level)
        .unwrap()
}

#[test]
fn a_guest_is_frozen_for_the_moment_alone() {
    let lab = Lab::new();
    let guest = guest(&lab);
    let agent = Agent::start(&lab.path("agent"), willing);
    let inventory = lab.inventory_with_qmp(&DISKS, &lab.path("qmp"), Some(lab.path("agent")));
    let opened = open(&lab, &inventory, Level::Crash);
    assert_eq!(opened.consistency, Consistency::Crash { why: None });
    assert_eq!(agent.asked(), [""; 0]);
    drop(opened);
    let opened = open(&lab, &inventory, Level::Application(None));
    assert_eq!(opened.consistency, Consistency::Application);
    assert_eq!(
        agent.asked(),
        ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]
    );
    drop(opened);
    // Nothing was left, so nobody asks whether it is frozen.
    inventory.clean_up();
    assert_eq!(agent.asked().len(), 2);
    assert_eq!(guest.leftovers(), [""; 0]);
}

#[test]
fn without_a_freeze_the_backup_goes_on_and_says_why() {
    let lab = Lab::new();
    let guest = guest(&lab);
    let start = |name: &str, answer: fn(&str) -> Option<Value>| {
        (lab.path(name), Some(Agent::start(&lab.path(name), answer)))
    };
    let refusing = |command: &str| match command {
        "guest-fsfreeze-freeze" => Some(json!({"error": {"class": "x", "desc": "no such thing"}})),
        other => willing(other),
    };
    let zero = |command: &str| match command {
        "guest-fsfreeze-freeze" => Some(json!({"return": 0})),
        other => willing(other),
    };
    let thawing = |command: &str| match command {
        "guest-fsfreeze-thaw" => Some(json!({"return": 0})),
        other => willing(other),
    };
    let slow = |command: &str| match command {
        "guest-fsfreeze-freeze" => None,
        other => willing(other),
    };
    let odd = |_: &str| Some(json!([1, 2]));
    let both = ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"];
    let cases = [
        (
            (lab.path("nothing"), None),
            "the guest could not be frozen: nobody listens on the socket of its agent",
        ),
        (
            start("refusing", refusing),
            "the guest could not be frozen: no such thing",
        ),
        (
            start("zero", zero),
            "the guest could not be frozen: none of its file systems can be",
        ),
        (start("thawing", thawing), "the guest had thawed by itself"),
        (
            start("slow", slow),
            "the guest could not be frozen: its agent does not answer",
        ),
        (
            start("odd", odd),
            "the guest could not be frozen: its agent did not say that it thawed",
        ),
    ];
    for ((path, agent), expected) in cases {
        let inventory = lab.inventory_with_qmp(&DISKS, &lab.path("qmp"), Some(path));
        let started = Instant::now();
        let opened = open(&lab, &inventory, Level::Application(None));
        assert!(started.elapsed() < Duration::from_secs(20), "{expected}");
        let Consistency::Crash { why: Some(why) } = opened.consistency else {
            panic!("{expected}: {:?}", opened.consistency);
        };
        assert!(why.starts_with(expected), "{why}");
        assert_eq!(opened.disks.len(), 2);
        if let Some(agent) = agent {
            assert_eq!(agent.asked()[..2], both, "{expected}");
        }
    }
    let silent = UnixListener::bind(lab.path("silent")).unwrap();
    for (agent, expected) in [
        (
            Some(lab.path("silent")),
            "the guest could not be frozen: its agent does not answer",
        ),
        (
            None,
            "the guest could not be frozen: no agent in it is configured",
        ),
    ] {
        let inventory = lab.inventory_with_qmp(&DISKS, &lab.path("qmp"), agent);
        let opened = open(&lab, &inventory, Level::Application(None));
        let why = Some(expected.to_owned());
        assert_eq!(opened.consistency, Consistency::Crash { why });
    }
    drop(silent);
    assert_eq!(guest.leftovers(), [""; 0]);
}

/// Wherever the connection to QEMU is cut, the guest was told to thaw after it was told to freeze.
#[test]
fn a_guest_is_thawed_whatever_fails() {
    let lab = Lab::new();
    let guest = guest(&lab);
    let agent = Agent::start(&lab.path("agent"), willing);
    let (mut frozen_and_cut, mut asked_before) = (0, 0);
    for cut in 1.. {
        let proxy = CutProxy::start(&lab.path("proxy"), &lab.path("qmp"), cut);
        let agent_path = Some(lab.path("agent"));
        let inventory = lab.inventory_with_qmp(&DISKS, &lab.path("proxy"), agent_path);
        let volumes = DISKS.map(|name| lab.id(name));
        let server = lab.server_id(&inventory);
        let opened = inventory.open_server(server, &volumes, Level::Application(None));
        let asked = agent.asked()[asked_before..].to_vec();
        asked_before += asked.len();
        if !asked.is_empty() {
            assert_eq!(
                asked,
                ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"],
                "cut at {cut}"
            );
            frozen_and_cut += usize::from(opened.is_err());
        }
        let done = opened.is_ok();
        drop(opened);
        proxy.end();
        lab.inventory_with_guest(&DISKS).clean_up();
        if done {
            break;
        }
    }
    assert!(frozen_and_cut > 5, "only {frozen_and_cut}");
    assert_eq!(guest.leftovers(), [""; 0]);
}

#[test]
fn a_guest_that_a_killed_cairn_froze_is_thawed() {
    let lab = Lab::new();
    let guest = guest(&lab);
    let inventory = lab.inventory_with_guest(&DISKS);
    std::mem::forget(open(&lab, &inventory, Level::Crash));
    let agent = Agent::start(&lab.path("agent"), willing);
    let agent_path = Some(lab.path("agent"));
    let inventory = lab.inventory_with_qmp(&DISKS, &lab.path("qmp"), agent_path);
    inventory.clean_up();
    assert_eq!(
        agent.asked(),
        ["guest-fsfreeze-status", "guest-fsfreeze-thaw"]
    );
    assert_eq!(guest.leftovers(), [""; 0]);
}
