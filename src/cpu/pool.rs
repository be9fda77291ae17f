//! A thread pool per criterion, created by the first batch that is large enough to benefit.
#![allow(unsafe_code, reason = "threads are given work that borrows from the caller and that they outlive")]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Worker threads, in addition to the caller's thread.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    wanted: usize,
    /// The process that created the threads: a forked child has none of them.
    process: u32,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is work, or the pool ends.
    wake: Condvar,
    /// A thread has started, or the last one has finished its part of a job.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    job: Option<Job>,
    /// How many more threads may join the job; also the number of the next one that does.
    open: usize,
    /// Threads that have started, and wait for work.
    started: usize,
    /// Threads that run the job.
    running: usize,
    panicked: bool,
    end: bool,
}

/// Work that a caller waits for: a function of the thread's number.
#[derive(Clone, Copy, Debug)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
}

// SAFETY: the work may be called from any thread (`Sync`), and `Pool::run` keeps it alive while threads use it.
unsafe impl Send for Job {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned state is consistent: nothing panics while it is changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main loop of a thread, until the pool ends.
    fn serve(&self) {
        let mut state = self.lock();
        state.started += 1;
        self.finished.notify_one();
        while !state.end {
            let Some(job) = state.job.filter(|_| state.open > 0) else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let number = state.open;
            state.open -= 1;
            state.running += 1;
            drop(state);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // SAFETY: `Pool::run` neither returns nor unwinds while `running` is not 0, so the work is alive.
                unsafe { (*job.work)(number) }
            }));
            state = self.lock();
            state.running -= 1;
            state.panicked |= outcome.is_err();
            if state.running == 0 {
                self.finished.notify_one();
            }
        }
    }
}

impl Pool {
    /// A pool for up to `threads` threads, the caller's included. Where the system refuses some, as in a container that limits processes, the
    /// pool has fewer: a training run goes on more slowly, with the same bits.
    pub fn new(threads: usize) -> Self {
        let mut pool = Self { shared: Arc::default(), handles: Vec::new(), wanted: threads, process: std::process::id() };
        let _signals = BlockedSignals::enter();
        for _ in 1..threads {
            let shared = Arc::clone(&pool.shared);
            match std::thread::Builder::new().name("libols".into()).spawn(move || shared.serve()) {
                Ok(handle) => pool.handles.push(handle),
                Err(_) => break,
            }
        }
        // Started threads have all that they need, memory above all, so that later calls allocate nothing.
        let mut state = pool.shared.lock();
        while state.started < pool.handles.len() {
            state = pool.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        pool
    }

    /// The number of threads that was asked for, the caller's included.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether this process created the threads.
    pub fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Calls `work(0)` on the caller's thread and concurrently `work(1)` to `work(threads - 1)` on those threads that wake up before the first call
    /// returns. The calls must therefore share out the work among themselves.
    pub fn run(&mut self, threads: usize, work: &(dyn Fn(usize) + Sync)) {
        let helpers = (threads - 1).min(self.handles.len());
        {
            let mut state = self.shared.lock();
            // SAFETY: this only extends the lifetime, and `Withdraw` takes the job back and waits for the threads that run it before `work` ends.
            let work = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(work) };
            (state.job, state.open, state.panicked) = (Some(Job { work }), helpers, false);
        }
        for _ in 0..helpers {
            self.shared.wake.notify_one();
        }
        let withdraw = Withdraw(&self.shared);
        work(0);
        drop(withdraw);
        assert!(!self.shared.lock().panicked, "a thread of the pool panicked");
    }
}

/// Takes the job back and waits for the threads that run it, also when the caller's part panics.
struct Withdraw<'a>(&'a Shared);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.job, state.open) = (None, 0);
        while state.running > 0 {
            state = self.0.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.is_ours() {
            // The threads exist in the parent process alone: there are none to wake or to join.
            self.handles.drain(..).for_each(std::mem::forget);
            return;
        }
        self.shared.lock().end = true;
        self.shared.wake.notify_all();
        for handle in self.handles.drain(..) {
            // `serve` catches the panics of the work.
            let _ = handle.join();
        }
    }
}

/// Blocks all signals for the calling thread while threads are made that inherit the mask: a program's handlers run on its own threads.
struct BlockedSignals {
    #[cfg(unix)]
    before: libc::sigset_t,
}

#[cfg(unix)]
impl BlockedSignals {
    fn enter() -> Self {
        // SAFETY: both sets are local variables, which the calls fill in.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

#[cfg(unix)]
impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is the one that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

#[cfg(not(unix))]
impl BlockedSignals {
    fn enter() -> Self {
        Self {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn work_is_done_on_every_thread_that_wakes_up() {
        let mut pool = Pool::new(3);
        for round in 0..100 {
            let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            pool.run(3, &|_| {
                while next.fetch_add(1, Ordering::Relaxed) < 50 {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert_eq!(done.into_inner(), 50, "round {round}");
        }
    }

    #[test]
    fn numbers_are_each_threads_own() {
        let mut pool = Pool::new(4);
        for _ in 0..50 {
            let seen: [AtomicUsize; 4] = Default::default();
            pool.run(4, &|number| {
                seen[number].fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(50));
            });
            assert!(seen[0].load(Ordering::Relaxed) == 1 && seen.iter().all(|calls| calls.load(Ordering::Relaxed) <= 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(2, &|number| {
                if number == 1 {
                    panic!("meant to");
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            });
        }));
        assert!(caught.is_err());
        pool.run(2, &|_| {});
    }
}
