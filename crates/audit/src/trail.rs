//! Writing: many requests add traces at the same time, one thread writes them,
//! as many in one go as have come together, so that a call waits for one flush
//! of the disk at the most and a thousand wait for the same one.

use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::chain::{BEGINNING, read};
use crate::{Code, Error, Result, Trace, TrailKey, folder};

/// Traces that wait to be written; further callers wait themselves.
const QUEUE: usize = 4096;
/// Traces that are written in one go.
const BATCH: usize = 1024;
/// The size from which on a new file is begun.
const FILE_BYTES: u64 = 64 << 20;
/// How much of a file's end is read to find its last line.
const TAIL_BYTES: u64 = 1 << 20;

/// The open trail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trail {
    queue: mpsc::Sender<Entry>,
    /// Whether the last attempt to write failed.
    failing: Arc<AtomicBool>,
}

/// A trace on its way, and who waits for it.
#[derive(Debug)]
struct Entry {
    trace: String,
    written: oneshot::Sender<Result<(), Arc<Error>>>,
}

impl Trail {
    /// Opens the trail in `folder`, and makes it if it is not there. Several
    /// processes may have the same one open.
    ///
    /// Errors: the folder cannot be read or written; `Corrupt` if its end is no line of a trail.
    pub fn open(folder: &Path, key: TrailKey) -> Result<Self> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.map_err(Error::file("make", folder))?;
        let mut writer = Writer {
            folder: folder.to_owned(),
            key,
            end: End::default(),
            failing: Arc::default(),
        };
        let failing = Arc::clone(&writer.failing);
        let lock = folder::lock(folder)?;
        writer.find_end()?;
        drop(lock);
        let (queue, entries) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread
            .spawn(move || writer.run(entries))
            .map_err(Error::file("start the writer of", folder))?;
        Ok(Self { queue, failing })
    }

    /// Adds a trace and returns when it is on disk.
    ///
    /// Errors: it could not be written, and is not part of the trail.
    pub async fn add(&self, trace: &Trace) -> Result<(), Arc<Error>> {
        let written = self.queue(trace).await?;
        written
            .await
            .unwrap_or_else(|_| Err(Arc::new(Error::Closed)))
    }

    /// Adds a trace and returns when it is in the queue; while the trail cannot
    /// be written, as [`Trail::add`].
    ///
    /// Errors: as [`Trail::add`].
    pub async fn add_later(&self, trace: &Trace) -> Result<(), Arc<Error>> {
        if self.failing.load(Ordering::Relaxed) {
            return self.add(trace).await;
        }
        self.queue(trace).await.map(drop)
    }

    async fn queue(
        &self,
        trace: &Trace,
    ) -> Result<oneshot::Receiver<Result<(), Arc<Error>>>, Arc<Error>> {
        let trace = serde_json::to_string(trace).expect("a trace has string keys only");
        let (written, wait) = oneshot::channel();
        let sent = self.queue.send(Entry { trace, written }).await;
        sent.map_err(|_| Arc::new(Error::Closed))?;
        Ok(wait)
    }
}

/// The thread's state.
struct Writer {
    folder: PathBuf,
    key: TrailKey,
    end: End,
    failing: Arc<AtomicBool>,
}

/// Where the trail ends.
struct End {
    number: u32,
    bytes: u64,
    code: Code,
}

impl Default for End {
    fn default() -> Self {
        Self {
            number: 1,
            bytes: 0,
            code: BEGINNING,
        }
    }
}

impl Writer {
    fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        let mut batch = Vec::with_capacity(BATCH);
        while entries.blocking_recv_many(&mut batch, BATCH) > 0 {
            let done = self.write(&batch).map_err(Arc::new);
            self.failing.store(done.is_err(), Ordering::Relaxed);
            for entry in batch.drain(..) {
                // Who does not wait for it is not told.
                let _ = entry.written.send(done.clone());
            }
        }
    }

    /// Writes a batch behind the end of the trail, wherever that is by now.
    fn write(&mut self, batch: &[Entry]) -> Result<()> {
        let _lock = folder::lock(&self.folder)?;
        let mut file = self.open_newest()?;
        let length = |file: &File, path: &Path| {
            let metadata = file.metadata().map_err(Error::file("look at", path));
            metadata.map(|metadata| metadata.len())
        };
        let path = folder::path(&self.folder, self.end.number);
        let found = length(&file, &path)?;
        if found > self.end.bytes {
            // Another process has written, or an earlier attempt broke off.
            self.find_end()?;
            file = self.open_newest()?;
        } else if found < self.end.bytes {
            // What was written is gone. The chain goes on from what was known of
            // it, so that whoever verifies it sees the gap.
            tracing::error!(file = %path.display(), "lines were removed from the audit trail");
            self.end.bytes = found;
        }
        if self.end.bytes >= FILE_BYTES {
            self.end.number += 1;
            self.end.bytes = 0;
            file = self.open_newest()?;
        }
        let path = folder::path(&self.folder, self.end.number);
        let (mut lines, mut code) = (String::new(), self.end.code);
        for entry in batch {
            code = self.key.write(code, &entry.trace, &mut lines);
        }
        file.write_all_at(lines.as_bytes(), self.end.bytes)
            .and_then(|()| file.sync_data())
            .map_err(Error::file("write", &path))?;
        self.end.bytes += lines.len() as u64;
        self.end.code = code;
        Ok(())
    }

    /// Opens the newest file. A new one is made durable as a name as well.
    fn open_newest(&mut self) -> Result<File> {
        while folder::path(&self.folder, self.end.number + 1).exists() {
            self.find_end()?;
        }
        let path = folder::path(&self.folder, self.end.number);
        let new = !path.exists();
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let file = options.mode(0o600).open(&path);
        let file = file.map_err(Error::file("open", &path))?;
        if new {
            File::open(&self.folder)
                .and_then(|folder| folder.sync_all())
                .map_err(Error::file("flush", &self.folder))?;
        }
        Ok(file)
    }

    /// Finds the end of the trail on disk, and takes away what is left there
    /// of a line that was never finished.
    fn find_end(&mut self) -> Result<()> {
        let number = folder::newest(&self.folder)?;
        let (mut bytes, mut code) = end_of(&folder::path(&self.folder, number))?;
        if bytes == 0 && number > 1 {
            // The first line of a new file follows from the last of the one before.
            code = end_of(&folder::path(&self.folder, number - 1))?.1;
            bytes = 0;
        }
        self.end = End {
            number,
            bytes,
            code,
        };
        Ok(())
    }
}

/// The end of a file behind its last whole line, and that line's code.
fn end_of(path: &Path) -> Result<(u64, Code)> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, BEGINNING)),
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    let mut tail = Vec::new();
    let length = file
        .seek(SeekFrom::End(0))
        .map_err(Error::file("read", path))?;
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_to_end(&mut tail))
        .map_err(Error::file("read", path))?;
    let Some(last) = tail.iter().rposition(|byte| *byte == b'\n') else {
        if start > 0 {
            return Err(not_a_trail(path));
        }
        cut(&file, path, length, 0)?;
        return Ok((0, BEGINNING));
    };
    let end = start + last as u64 + 1;
    cut(&file, path, length, end)?;
    let begin = tail[..last].iter().rposition(|byte| *byte == b'\n');
    let line = &tail[begin.map_or(0, |at| at + 1)..last];
    let (code, _) = read(line).ok_or_else(|| not_a_trail(path))?;
    Ok((end, code))
}

fn cut(file: &File, path: &Path, length: u64, end: u64) -> Result<()> {
    if length == end {
        return Ok(());
    }
    file.set_len(end)
        .and_then(|()| file.sync_data())
        .map_err(Error::file("cut", path))
}

fn not_a_trail(path: &Path) -> Error {
    Error::Broken {
        path: path.to_owned(),
        line: 0,
        problem: "its end is no line of a trail",
    }
}
