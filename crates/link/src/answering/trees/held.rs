//! Applications that are at rest: they go on when they are let go, when the connection ends over which that
//! was asked for, and at the latest after some time.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Applications that are at rest. They go on when it is dropped.
pub struct Held {
    /// How many.
    pub count: u64,
    /// Its end is noticed at once.
    held: Sender<()>,
    /// How many were at rest until they were let go.
    thawed: Receiver<io::Result<u64>>,
}

impl Held {
    /// Holds so many applications for so long at most; `thaw` has them go on.
    ///
    /// Errors: no thread can be started; they have gone on.
    pub fn new(
        count: u64,
        limit: Duration,
        thaw: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (held, let_go) = mpsc::channel::<()>();
        let (told, thawed) = mpsc::channel();
        let watch = move || {
            let by_itself = let_go.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if by_itself {
                tracing::warn!(
                    "Applications go on: they have been at rest for as long as they may be."
                );
            }
            let thawed = thaw().map(|()| if by_itself { 0 } else { count });
            if let Err(error) = &thawed {
                tracing::error!(%error, "Applications may still be at rest.");
            }
            // Who let them go may not be there any more.
            let _ = told.send(thawed);
        };
        // If that fails, `thaw` is dropped: whoever made it sees to that.
        thread::Builder::new()
            .name("held".to_owned())
            .spawn(watch)?;
        Ok(Self {
            count,
            held,
            thawed,
        })
    }

    /// Lets them go on, and says how many were at rest until now; none if they had gone on
    /// by themselves.
    ///
    /// Errors: what could not be brought to go on.
    pub fn let_go(self) -> io::Result<u64> {
        drop(self.held);
        let thawed = self.thawed.recv();
        thawed.unwrap_or_else(|_| Err(io::Error::other("it is not known")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_goes_on_when_it_is_let_go_dropped_or_held_for_too_long() {
        let hold = |limit| {
            let (told, hears) = mpsc::channel();
            let thaw = move || told.send(()).map_err(io::Error::other);
            (Held::new(2, limit, thaw).unwrap(), hears)
        };
        let hour = Duration::from_secs(3600);
        let (held, thawed) = hold(hour);
        assert!(thawed.try_recv().is_err());
        assert_eq!(held.let_go().unwrap(), 2);
        thawed.try_recv().unwrap();
        let (held, thawed) = hold(hour);
        drop(held);
        thawed.recv().unwrap();
        let (held, thawed) = hold(Duration::from_millis(1));
        thawed.recv().unwrap();
        assert_eq!(held.let_go().unwrap(), 0);
    }

    #[test]
    fn who_lets_go_hears_what_went_wrong() {
        let thaw = || Err(io::Error::other("no such script"));
        let held = Held::new(1, Duration::from_secs(3600), thaw).unwrap();
        assert_eq!(held.let_go().unwrap_err().to_string(), "no such script");
    }
}
