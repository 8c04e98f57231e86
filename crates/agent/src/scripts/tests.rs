use std::process::{Command, Stdio};

use super::*;

struct Host {
    folder: tempfile::TempDir,
    scripts: Arc<Scripts>,
}

impl Host {
    fn new() -> Self {
        Self::with_limits(UNFREEZE_LIMITS)
    }

    /// One whose rounds of unfreeze scripts end so soon.
    fn with_limits(unfreeze_limits: [Duration; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut scripts = Scripts::new(folder.path());
        scripts.unfreeze_limits = unfreeze_limits;
        let scripts = Arc::new(scripts);
        scripts.prepare().unwrap();
        Self { folder, scripts }
    }

    /// The agent is killed, and started again.
    fn next_agent(&self) {
        let mut next = Scripts::new(self.folder.path());
        next.unfreeze_limits = self.scripts.unfreeze_limits;
        Arc::new(next).prepare().unwrap();
    }

    /// A pipe in the agent's folder: its other end is open for as long as what `HOLDS_FIFO` starts lives.
    fn fifo(&self) -> PathBuf {
        let fifo = self.folder.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        fifo
    }

    /// A script that notes its name, and does this.
    fn script(&self, name: &str, does: &str) {
        let path = self.folder.path().join(FOLDER).join(name);
        let text = format!("#!/bin/sh\necho {name} >> \"$1/ran\"\n{does}\n");
        // Whatever another test starts meanwhile would keep a file open that is written here: it could not be run.
        let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", write]).arg(&path).arg(text);
        assert!(shell.status().unwrap().success());
    }

    /// The scripts that have run since this was asked last.
    fn ran(&self) -> Vec<String> {
        let path = self.folder.path().join("ran");
        let text = fs::read_to_string(&path).unwrap_or_default();
        remove(&path).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn is_marked(&self) -> bool {
        self.folder.path().join(MARK).exists()
    }

    /// Why nothing comes to rest. Whatever has been brought to rest has gone on.
    fn refusal(&self) -> io::Error {
        let refused = self.scripts.freeze(HOUR).map(|held| held.count);
        self.scripts.wait();
        assert!(!self.is_marked());
        refused.unwrap_err()
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// A script with a second shell, neither of which ends.
const HOLDS_FIFO: &str = "sh -c 'exec 3> \"$1/fifo\"; sleep 3600' sh \"$1\" & wait";

#[test]
fn all_are_brought_to_rest_and_go_on_in_the_other_order() {
    let host = Host::new();
    host.script("b_freeze.sh", "");
    host.script("a_freeze.sh", "echo 0 > \"$RESULT_FILE\"");
    host.script("a_unfreeze.sh", "");
    host.script("b_unfreeze.sh", "");
    host.script("notes.txt", "");
    let held = host.scripts.freeze(HOUR).unwrap();
    assert_eq!(held.count, 2);
    assert_eq!(host.ran(), ["a_freeze.sh", "b_freeze.sh"]);
    assert!(host.is_marked());
    let busy = host.scripts.freeze(HOUR).map(|held| held.count);
    assert_eq!(busy.unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert_eq!(host.ran(), [""; 0]);
    assert_eq!(held.let_go().unwrap(), 2);
    assert_eq!(host.ran(), ["b_unfreeze.sh", "a_unfreeze.sh"]);
    assert!(!host.is_marked());
}

/// As the vendor's guide has them: by the frame, with a result, and with `exit`.
#[test]
fn scripts_that_were_written_for_cbr_run_as_they_are() {
    let host = Host::new();
    let script = |result: u8| {
        format!(
            "AGENT_ROOT_PATH=$1\nPID=$2\n. \"${{AGENT_ROOT_PATH}}/bin/agent_func.sh\"\n\
             Log \"[INFO]:result {result}\"\necho {result} > ${{RESULT_FILE}}\n\
             chmod 666 ${{RESULT_FILE}}\nexit {result}"
        )
    };
    host.script("db_freeze.sh", &script(0));
    host.script("db_unfreeze.sh", &script(0));
    assert_eq!(host.scripts.freeze(HOUR).unwrap().let_go().unwrap(), 1);
    host.script("db_freeze.sh", &script(1));
    let why = host.refusal().to_string();
    assert!(why.starts_with("db_freeze.sh failed"), "{why}");
    assert!(why.contains("[INFO]:result 1"), "{why}");
}

#[test]
fn one_that_fails_has_all_go_on_again() {
    let host = Host::new();
    for name in ["a", "c"] {
        host.script(&format!("{name}_freeze.sh"), "");
        host.script(&format!("{name}_unfreeze.sh"), "");
    }
    let failures = [
        ("exit 3", "failed (exit status: 3): "),
        ("echo 1 > \"$RESULT_FILE\"", "failed (exit status: 0): "),
        ("echo maybe > \"$RESULT_FILE\"", "failed (exit status: 0): "),
        (
            "printf '\\377' > \"$RESULT_FILE\"",
            "failed (exit status: 0): ",
        ),
        ("echo no memory >&2; exit 1", "no memory"),
        ("kill -9 $$", "failed (signal: 9"),
    ];
    for (does, expected) in failures {
        host.script("b_freeze.sh", does);
        let why = host.refusal().to_string();
        assert!(
            why.starts_with("b_freeze.sh ") && why.contains(expected),
            "{why}"
        );
        let ran = [
            "a_freeze.sh",
            "b_freeze.sh",
            "c_unfreeze.sh",
            "a_unfreeze.sh",
        ];
        assert_eq!(host.ran(), ran);
    }
    // A result of an earlier run is not that of a later one.
    host.script("b_freeze.sh", "");
    assert_eq!(host.scripts.freeze(HOUR).unwrap().count, 3);
}

#[test]
fn one_that_does_not_end_is_killed_with_what_it_has_started() {
    let host = Host::new();
    let fifo = host.fifo();
    host.script("a_freeze.sh", HOLDS_FIFO);
    let scripts = Arc::clone(&host.scripts);
    let limit = Duration::from_millis(300);
    let freezing = std::thread::spawn(move || scripts.freeze(limit).map(|held| held.count));
    let mut rest = Vec::new();
    fs::File::open(&fifo)
        .unwrap()
        .read_to_end(&mut rest)
        .unwrap();
    let why = freezing.join().unwrap().unwrap_err().to_string();
    assert!(why.starts_with("a_freeze.sh does not end"), "{why}");
    assert!(!host.is_marked());
}

#[test]
fn what_is_held_for_too_long_goes_on_and_the_end_says_so() {
    let host = Host::new();
    host.script("a_freeze.sh", "");
    host.script("a_unfreeze.sh", "");
    let held = host.scripts.freeze(Duration::from_secs(2)).unwrap();
    host.scripts.wait();
    assert_eq!(host.ran(), ["a_freeze.sh", "a_unfreeze.sh"]);
    assert_eq!(held.let_go().unwrap(), 0);
    host.script("a_unfreeze.sh", "exit 1");
    let held = host.scripts.freeze(HOUR).unwrap();
    let why = held.let_go().unwrap_err().to_string();
    assert!(why.starts_with("a_unfreeze.sh failed"), "{why}");
}

#[test]
fn what_a_killed_agent_left_at_rest_goes_on_with_the_next() {
    let host = Host::new();
    host.script("a_unfreeze.sh", "");
    replace(&host.folder.path().join(MARK), b"", false).unwrap();
    host.next_agent();
    assert_eq!(host.ran(), ["a_unfreeze.sh"]);
    assert!(!host.is_marked());
}

#[test]
fn what_a_killed_agent_left_running_ends_before_applications_go_on() {
    let host = Host::new();
    let fifo = host.fifo();
    host.script("a_freeze.sh", HOLDS_FIFO);
    host.script("a_unfreeze.sh", "");
    replace(&host.folder.path().join(MARK), b"", false).unwrap();
    let script = host.folder.path().join(FOLDER).join("a_freeze.sh");
    let command = process::command(&script, [host.folder.path().as_os_str()]).unwrap();
    let running = Running::start(host.folder.path(), command).unwrap();
    let mut other_end = File::open(&fifo).unwrap();
    // Nobody ends it who has started it.
    std::mem::forget(running);
    host.next_agent();
    assert_eq!(host.ran(), ["a_freeze.sh", "a_unfreeze.sh"]);
    // Would block if anybody were left to write.
    rustix::fs::fcntl_setfl(&other_end, rustix::fs::OFlags::NONBLOCK).unwrap();
    assert_eq!(other_end.read(&mut [0]).unwrap(), 0);
    assert!(!host.is_marked());
    host.next_agent();
    assert_eq!(host.ran(), [""; 0]);
}

#[test]
fn a_script_does_not_begin_before_it_is_noted() {
    let host = Host::new();
    host.script("a_freeze.sh", "");
    let script = host.folder.path().join(FOLDER).join("a_freeze.sh");
    // As if the agent had ended before it could note it.
    let mut command = process::command(&script, [host.folder.path().as_os_str()]).unwrap();
    let ended = command.stdin(Stdio::null()).status().unwrap();
    assert!(!ended.success());
    assert_eq!(host.ran(), [""; 0]);
}

#[test]
fn one_that_unfreezes_and_hangs_takes_no_other_ones_time() {
    let host = Host::with_limits([Duration::from_secs(2), Duration::from_millis(200)]);
    for name in ["a_freeze.sh", "b_freeze.sh", "a_unfreeze.sh"] {
        host.script(name, "");
    }
    host.script("b_unfreeze.sh", "sleep 3600");
    let held = host.scripts.freeze(HOUR).unwrap();
    host.ran();
    let why = held.let_go().unwrap_err().to_string();
    assert!(why.starts_with("b_unfreeze.sh does not end"), "{why}");
    assert_eq!(host.ran()[..2], ["b_unfreeze.sh", "a_unfreeze.sh"]);
    // The next agent tries again, and so on until it has gone on.
    assert!(host.is_marked());
    host.next_agent();
    assert_eq!(host.ran()[..2], ["b_unfreeze.sh", "a_unfreeze.sh"]);
    assert!(host.is_marked());
    host.script("b_unfreeze.sh", "");
    host.next_agent();
    assert_eq!(host.ran(), ["b_unfreeze.sh", "a_unfreeze.sh"]);
    assert!(!host.is_marked());
}

#[test]
fn one_that_fails_to_unfreeze_is_tried_once_more() {
    let host = Host::new();
    for name in ["a_freeze.sh", "b_freeze.sh", "a_unfreeze.sh"] {
        host.script(name, "");
    }
    let held = host.scripts.freeze(HOUR).unwrap();
    host.ran();
    host.script("b_unfreeze.sh", "mkdir \"$1/tried\" && exit 1; exit 0");
    assert_eq!(held.let_go().unwrap(), 2);
    let ran = ["b_unfreeze.sh", "a_unfreeze.sh", "b_unfreeze.sh"];
    assert_eq!(host.ran(), ran);
    assert!(!host.is_marked());
}

#[test]
fn what_others_could_have_written_does_not_run() {
    let host = Host::new();
    assert_eq!(host.refusal().kind(), ErrorKind::NotFound);
    host.script("a_freeze.sh", "");
    let folder = host.folder.path().join(FOLDER);
    let set = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    for path in [folder.join("a_freeze.sh"), folder.clone()] {
        set(&path, 0o777);
        assert_eq!(host.refusal().kind(), ErrorKind::PermissionDenied);
        set(&path, 0o755);
    }
    // Nothing is brought to rest that could not go on again.
    host.script("a_unfreeze.sh", "");
    set(&folder.join("a_unfreeze.sh"), 0o777);
    assert_eq!(host.refusal().kind(), ErrorKind::PermissionDenied);
    fs::remove_file(folder.join("a_unfreeze.sh")).unwrap();
    std::os::unix::fs::symlink("/bin/true", folder.join("b_freeze.sh")).unwrap();
    assert_eq!(host.refusal().kind(), ErrorKind::PermissionDenied);
    fs::remove_file(folder.join("b_freeze.sh")).unwrap();
    set(&folder.join("a_freeze.sh"), 0o644);
    let why = host.refusal().to_string();
    assert!(why.starts_with("a_freeze.sh cannot be run"), "{why}");
    assert_eq!(host.ran(), [""; 0]);
}
