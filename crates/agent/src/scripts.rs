//! Scripts of the host's owner that bring applications to rest for the moment of a backup, and
//! have them go on: `NAME_freeze.sh` and `NAME_unfreeze.sh`, in the place and with the
//! arguments that agents of CBR give theirs.
//! A script that runs is `process`.
//! Source: CBR, "Verifying the Application-Consistent Backup (Linux)" and "Protecting other
//! applications by custom scripts".

mod process;

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_link::Held;

use crate::state::replace;
use process::Running;

/// Where they are, in the agent's folder.
const FOLDER: &str = "bin/thirdparty/ebk_user";
/// What they may read in: it says where a result is written, and how something is logged.
const FRAME: &str = "bin/agent_func.sh";
/// What the names of scripts end in, by what they do.
const FREEZE: &str = "_freeze.sh";
const UNFREEZE: &str = "_unfreeze.sh";
/// Where results are written.
const RESULTS: &str = "tmp";
/// There while something may be at rest.
const MARK: &str = "at_rest";
/// Scripts at most.
const SCRIPTS_MAX: usize = 64;
/// How long all that freeze may take together.
const FREEZE_LIMIT: Duration = Duration::from_secs(25);
/// How long all that unfreeze may take together, and then those that have failed: less than the
/// server waits for what becomes of them.
const UNFREEZE_LIMITS: [Duration; 2] = [Duration::from_secs(25), Duration::from_secs(3)];
/// Bytes of what a script says that are told.
const SAID_MAX: u64 = 512;

const FRAME_TEXT: &str = r#"# For freeze and unfreeze scripts: `. "$1/bin/agent_func.sh"`, with AGENT_ROOT_PATH=$1 and PID=$2.
# The agent writes this file anew whenever it starts.

# The script writes 0 here if it did what it is for, and 1 if not.
RESULT_FILE="${AGENT_ROOT_PATH}/tmp/result.tmp${PID}"

# The agent's log gets it.
Log() {
  echo "$*"
}
"#;

/// The scripts of a host.
#[derive(Debug)]
pub struct Scripts {
    /// The agent's folder.
    root: PathBuf,
    /// Of each round of those that unfreeze.
    unfreeze_limits: [Duration; 2],
    at_rest: Mutex<bool>,
    /// Raised when nothing is at rest any more.
    gone_on: Condvar,
}

/// Applications that may be at rest. They go on when it is dropped.
struct AtRest {
    scripts: Arc<Scripts>,
    has_gone_on: bool,
}

impl Scripts {
    /// The scripts in the agent's folder.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            unfreeze_limits: UNFREEZE_LIMITS,
            at_rest: Mutex::new(false),
            gone_on: Condvar::new(),
        }
    }

    /// Makes the folders that scripts need, ends a script that an agent which was killed has left
    /// running, and has go on what is left at rest. May block.
    ///
    /// Errors: as `State`.
    pub fn prepare(self: &Arc<Self>) -> io::Result<()> {
        for folder in [FOLDER, RESULTS] {
            let mut made = DirBuilder::new();
            made.recursive(true).mode(0o700);
            made.create(self.root.join(folder))?;
        }
        replace(&self.root.join(FRAME), FRAME_TEXT.as_bytes(), false)?;
        if let Err(error) = process::end_left(&self.root) {
            tracing::error!(%error, "A script of an agent that was killed may still run.");
        }
        if self.root.join(MARK).try_exists()? {
            tracing::warn!("Applications may have been left at rest: their unfreeze scripts run.");
            drop(AtRest::new(self)?);
        }
        Ok(())
    }

    /// Brings the applications to rest, for so long at most; then everything that was written
    /// is on the disks. May block.
    ///
    /// Errors: `NotFound` there are no scripts; `ResourceBusy` they are at rest already; `PermissionDenied`
    /// others could change a script; what a script says. All have gone on.
    pub fn freeze(self: &Arc<Self>, limit: Duration) -> io::Result<Held> {
        let scripts = self.find(FREEZE)?;
        if scripts.is_empty() {
            let text = "its agent has no freeze scripts";
            return Err(io::Error::new(ErrorKind::NotFound, text));
        }
        // What could not be brought to go on again is not brought to rest.
        for path in self.find(UNFREEZE)?.iter().chain(&scripts) {
            check_safe(path)?;
        }
        let until = Instant::now() + limit;
        let at_rest = AtRest::new(self)?;
        let frozen_by = Instant::now() + FREEZE_LIMIT.min(limit);
        for path in &scripts {
            self.run(path, frozen_by)?;
        }
        rustix::fs::sync();
        let left = until.saturating_duration_since(Instant::now());
        Held::new(scripts.len() as u64, left, move || at_rest.go_on())
    }

    /// Waits until nothing is at rest. May block.
    pub fn wait(&self) {
        let mut at_rest = self.at_rest.lock().unwrap_or_else(PoisonError::into_inner);
        while *at_rest {
            let waited = self.gone_on.wait(at_rest);
            at_rest = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The scripts whose names end so, in their order.
    fn find(&self, suffix: &str) -> io::Result<Vec<PathBuf>> {
        let folder = self.root.join(FOLDER);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_string_lossy().ends_with(suffix) {
                continue;
            }
            if found.len() == SCRIPTS_MAX {
                let text = format!("there are more than {SCRIPTS_MAX} scripts");
                return Err(io::Error::new(ErrorKind::InvalidInput, text));
            }
            found.push(entry.path());
        }
        found.sort();
        for folder in Path::new(FOLDER).ancestors() {
            check_safe(&self.root.join(folder))?;
        }
        Ok(found)
    }

    fn run(&self, path: &Path, until: Instant) -> io::Result<()> {
        check_safe(path)?;
        let pid = std::process::id().to_string();
        let result = self.root.join(RESULTS).join(format!("result.tmp{pid}"));
        remove(&result)?;
        // What it starts may keep it open for as long as it runs: nobody waits for its end.
        let mut said = tempfile::tempfile()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let failed = |text: &dyn std::fmt::Display| io::Error::other(format!("{name} {text}"));
        let mut command = process::command(path, [self.root.as_os_str(), pid.as_ref()])
            .map_err(|error| failed(&format!("cannot be run: {error}")))?;
        command
            .env("AGENT_ROOT_PATH", &self.root)
            .env("PID", &pid)
            .env("RESULT_FILE", &result)
            .current_dir("/")
            .stdout(said.try_clone()?)
            .stderr(said.try_clone()?);
        let running = Running::start(&self.root, command)
            .map_err(|error| failed(&format!("cannot be run: {error}")))?;
        let status = running.wait(until)?;
        let mut text = Vec::new();
        said.seek(SeekFrom::Start(0))?;
        said.take(SAID_MAX).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim();
        let Some(status) = status else {
            return Err(failed(&format!("does not end: {text}")));
        };
        // One that writes nothing is taken by how it ended.
        let mut written = Vec::new();
        match File::open(&result) {
            Ok(file) => file.take(SAID_MAX).read_to_end(&mut written).map(drop)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        remove(&result)?;
        tracing::info!(script = %name, %status, said = text, "A script has ended.");
        match status.success() && matches!(written.trim_ascii(), b"" | b"0") {
            true => Ok(()),
            false => Err(failed(&format!("failed ({status}): {text}"))),
        }
    }
}

impl AtRest {
    /// From here on something may be at rest.
    fn new(scripts: &Arc<Scripts>) -> io::Result<Self> {
        let mut at_rest = scripts
            .at_rest
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *at_rest {
            let text = "its applications are at rest already";
            return Err(io::Error::new(ErrorKind::ResourceBusy, text));
        }
        replace(&scripts.root.join(MARK), b"", false)?;
        *at_rest = true;
        Ok(Self {
            scripts: Arc::clone(scripts),
            has_gone_on: false,
        })
    }

    /// Has them go on, each whatever becomes of the others.
    ///
    /// Errors: what the first that did not says.
    fn go_on(mut self) -> io::Result<()> {
        self.has_gone_on = true;
        self.run_unfreeze()
    }

    fn run_unfreeze(&self) -> io::Result<()> {
        // What has not gone on is tried again when the next is to go on, and by the agent's next start.
        let root = &self.scripts.root;
        let ended = self.unfreeze().and_then(|()| remove(&root.join(MARK)));
        let at_rest = self.scripts.at_rest.lock();
        *at_rest.unwrap_or_else(PoisonError::into_inner) = false;
        self.scripts.gone_on.notify_all();
        ended
    }

    /// Runs all that unfreeze, and those once more that have failed.
    ///
    /// Errors: what the first that failed each time says.
    fn unfreeze(&self) -> io::Result<()> {
        let mut left = self.scripts.find(UNFREEZE)?;
        // What was brought to rest first goes on last.
        left.reverse();
        let mut ended = Ok(());
        for limit in self.scripts.unfreeze_limits {
            let until = Instant::now() + limit;
            let mut failed = Vec::new();
            ended = Ok(());
            for (path, waiting) in left.iter().zip((1..=left.len() as u32).rev()) {
                // An equal part of what those before it have left: none takes another's time.
                let now = Instant::now();
                let part = until.saturating_duration_since(now) / waiting;
                if let Err(error) = self.scripts.run(path, now + part) {
                    tracing::warn!(%error, "Something may still be at rest.");
                    failed.push(path.clone());
                    ended = ended.and(Err(error));
                }
            }
            left = failed;
        }
        ended
    }
}

impl Drop for AtRest {
    fn drop(&mut self) {
        if !self.has_gone_on
            && let Err(error) = self.run_unfreeze()
        {
            tracing::error!(%error, "Applications may still be at rest.");
        }
    }
}

/// Refuses what somebody else could have put there: it would run with the agent's rights.
fn check_safe(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let mine = [0, rustix::process::geteuid().as_raw()].contains(&found.uid());
    let is_of_sort = found.is_file() || found.is_dir();
    match is_of_sort && mine && found.permissions().mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("others can change {}: chmod go-w it", path.display()),
        )),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
#[path = "scripts/tests.rs"]
mod tests;
