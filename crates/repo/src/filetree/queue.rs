//! What is left to do of a tree, shared by the workers: the newest first, so
//! that a directory is finished before the next is begun and little is open at a time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Tasks of which each may add others.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// Taken and not done yet: these may still add others.
    taken: usize,
    closed: bool,
}

/// A task that somebody is at; closes the queue unless it is done.
pub(crate) struct Taken<'q, T> {
    queue: &'q Queue<T>,
    done: bool,
}

impl<T> Queue<T> {
    pub fn new(first: T) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: vec![first],
                taken: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Adds a task, which is taken before those that wait.
    pub fn push(&self, task: T) {
        self.lock().waiting.push(task);
        self.changed.notify_one();
    }

    /// Adds tasks, of which the first is taken first.
    pub fn push_all(&self, tasks: Vec<T>) {
        self.lock().waiting.extend(tasks.into_iter().rev());
        self.changed.notify_all();
    }

    /// Waits for a task; nothing once all are done or one failed.
    pub fn take(&self) -> Option<(T, Taken<'_, T>)> {
        let mut state = self.lock();
        loop {
            if state.closed || (state.waiting.is_empty() && state.taken == 0) {
                return None;
            }
            if let Some(task) = state.waiting.pop() {
                state.taken += 1;
                let taken = Taken {
                    queue: self,
                    done: false,
                };
                return Some((task, taken));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Taken<'_, T> {
    pub fn done(mut self) {
        self.done = true;
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.taken -= 1;
        state.closed |= !self.done;
        let over = state.closed || (state.waiting.is_empty() && state.taken == 0);
        drop(state);
        if over {
            self.queue.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn everything_that_is_added_is_done_by_somebody() {
        let (queue, done) = (Queue::new(12_u32), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some((task, taken)) = queue.take() {
                        done.fetch_add(1, Ordering::Relaxed);
                        if task > 0 {
                            queue.push_all(vec![task - 1, task - 1]);
                        }
                        taken.done();
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), (1 << 13) - 1);
    }

    #[test]
    fn a_task_that_fails_ends_the_others() {
        let queue = Queue::new(0);
        std::thread::scope(|scope| {
            let (_, taken) = queue.take().unwrap();
            let waiting = scope.spawn(|| queue.take().is_none());
            queue.push_all(vec![]);
            drop(taken);
            assert!(waiting.join().unwrap());
        });
        queue.push(1);
        assert!(queue.take().is_none());
    }
}
