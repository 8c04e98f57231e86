//! The process of a script. It leads a group, with all that it starts, and that group is noted in the
//! agent's folder before the script begins: what outlives an agent that was killed is ended by the next.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::state::{boot, replace};

/// Which group runs: the boot, its leader, and when that was started.
const NOTE: &str = "running_script";
/// What the group of a script begins with: it waits for a line before it becomes the script, and ends
/// if whoever would write that ends first.
const GATE: &str = "read -r go && exec \"$0\" \"$@\" < /dev/null";
/// How long what was killed may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// A script that runs. It is ended when this is dropped before it has.
pub(super) struct Running {
    child: Child,
    group: Pid,
    note: PathBuf,
    has_ended: bool,
}

/// What will be a script with these arguments.
pub(super) fn command<'a>(
    script: &Path,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> io::Result<Command> {
    rustix::fs::access(script, Access::EXEC_OK)?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(GATE).arg(script).args(arguments);
    Ok(command)
}

impl Running {
    /// Starts what `command` has made, once the agent's folder says that it runs.
    pub fn start(root: &Path, mut command: Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::piped()).process_group(0).spawn()?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let mut running = Self {
            group: group.expect("a process id is a positive number"),
            child,
            note: root.join(NOTE),
            has_ended: false,
        };
        let started = Stat::of(running.group)?.started;
        let note = format!("{} {} {started}\n", boot()?.trim(), running.group);
        replace(&running.note, note.as_bytes(), false)?;
        let gate = running.child.stdin.take();
        gate.expect("it was asked for").write_all(b"\n")?;
        Ok(running)
    }

    /// Waits for its end; nothing if that does not come in time.
    pub fn wait(mut self, until: Instant) -> io::Result<Option<ExitStatus>> {
        let process = rustix::process::pidfd_open(self.group, PidfdFlags::empty())?;
        if !ends(&process, until)? {
            return Ok(None);
        }
        let status = self.child.wait()?;
        self.has_ended = true;
        Ok(Some(status))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            // It may have ended by now.
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.note);
    }
}

/// Ends what an agent that was killed has left running of a script.
///
/// Errors: it cannot be ended, or nobody knows what it is.
pub(super) fn end_left(root: &Path) -> io::Result<()> {
    let note = root.join(NOTE);
    let text = match fs::read_to_string(&note) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    if let Some(group) = noted(&text, boot()?.trim()) {
        end_group(group)?;
    }
    fs::remove_file(note)
}

/// The group of a note, if it may still be there.
fn noted(text: &str, boot: &str) -> Option<Pid> {
    let mut words = text.split_whitespace();
    if words.next() != Some(boot) {
        return None;
    }
    let group = process_id(words.next()?)?;
    let started = words.next()?.parse::<u64>().ok()?;
    // No process gets the id of a group that is there: one with another start has it because the
    // group is gone. The leader of a group may be gone before it.
    let is_another = Stat::of(group).is_ok_and(|leader| leader.started != started);
    (!is_another).then_some(group)
}

/// Kills a group, and waits until nobody in it lives.
fn end_group(group: Pid) -> io::Result<()> {
    let until = Instant::now() + GONE;
    while let Some(process) = member(group)? {
        match rustix::process::kill_process_group(group, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        if !ends(&process, until)? {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Some process of a group that lives.
fn member(group: Pid) -> io::Result<Option<OwnedFd>> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(process_id) else {
            continue;
        };
        // It must be the same when it is open: what was looked at may have ended.
        let is_in = || Stat::of(pid).is_ok_and(|stat| stat.lives && stat.group == group);
        if is_in()
            && let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            && is_in()
        {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

fn process_id(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok().filter(|id| *id > 0)?)
}

/// What the system says of a process (`proc_pid_stat(5)`).
struct Stat {
    lives: bool,
    group: Pid,
    /// In ticks since the boot.
    started: u64,
}

impl Stat {
    fn of(pid: Pid) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        let text = String::from_utf8_lossy(&text);
        Self::read(&text).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    fn read(text: &str) -> Option<Self> {
        // The second field is a name, in brackets, and may have anything in it.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        Some(Self {
            lives: !matches!(*fields.first()?, "Z" | "X"),
            group: process_id(fields.get(2)?)?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Whether a process ends before then.
fn ends(process: &OwnedFd, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ends = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut ends, Some(&left)) {
            // A signal that tells the agent to end.
            Err(Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_known_by_its_boot_and_the_start_of_its_leader() {
        let this = Stat::of(rustix::process::getpid()).unwrap();
        let pid = std::process::id();
        let known = |note: String| noted(&note, "this-boot").map(|group| group.to_string());
        let started = this.started;
        assert_eq!(
            known(format!("this-boot {pid} {started}")),
            Some(pid.to_string())
        );
        assert_eq!(known(format!("this-boot {pid} {}", started + 1)), None);
        assert_eq!(known(format!("other-boot {pid} {started}")), None);
        // Its leader is gone: no process has an id that is so large.
        let gone = i32::MAX.to_string();
        assert_eq!(known(format!("this-boot {gone} 1")), Some(gone));
        for damaged in [
            "",
            "this-boot",
            "this-boot 0 1",
            "this-boot 7 x",
            "this-boot -7 1",
        ] {
            assert_eq!(known(damaged.to_owned()), None, "{damaged}");
        }
    }

    #[test]
    fn the_name_of_a_process_may_hold_anything() {
        let fields = "S 1 77 70 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2 3";
        let stat = Stat::read(&format!("78 (a) Z 9 (b) {fields}\n")).unwrap();
        assert_eq!(
            (stat.group.to_string(), stat.started),
            ("77".to_owned(), 4711)
        );
        assert!(stat.lives);
        assert!(
            !Stat::read(&format!("78 (a) {}", fields.replace('S', "Z")))
                .unwrap()
                .lives
        );
        assert!(Stat::read("78 (a) S 1").is_none());
    }
}
