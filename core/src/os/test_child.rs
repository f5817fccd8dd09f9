//! What the tests of this row need: real child processes and directories that go away.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by tests that fork and by tests that need a descriptor to be really closed: while a child lives, it
/// holds a copy of whatever another test had open when it was forked.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A forked child, killed and waited for on drop.
pub(crate) struct Child(i32);

impl Child {
    /// Runs `run` in a forked child, which ends with it.
    pub(crate) fn fork(run: impl FnOnce()) -> Self {
        // SAFETY: the child runs test code that takes no lock a thread of the parent could hold, but
        // for the allocator's, which the C library makes usable again after fork.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: plain call. A child whose test failed must not outlive it for ever.
                unsafe { libc::alarm(60) };
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                // SAFETY: ends this process without running the parent's exit handlers.
                unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) }
            }
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            pid => Self(pid),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0
    }

    pub(crate) fn kill(&self) {
        // SAFETY: our own child, not yet waited for, so the pid is still its.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// Waits for its end and returns its exit code, or 128 and the signal that ended it.
    pub(crate) fn wait(self) -> i32 {
        let status = wait_for(self.0);
        std::mem::forget(self);
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        wait_for(self.0);
    }
}

fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1 {
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR), "waitpid");
    }
    status
}

/// The exit code that `run` chose in a forked child.
pub(crate) fn exit_code_of_fork(run: impl FnOnce() -> i32) -> i32 {
    Child::fork(|| {
        let code = run();
        // SAFETY: ends this process without running the parent's exit handlers.
        unsafe { libc::_exit(code) }
    })
    .wait()
}

/// Whether a descriptor number is in use.
pub(crate) fn is_open(fd: i32) -> bool {
    // SAFETY: plain call; a number that is not open is an error return.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// A fresh directory, removed on drop.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(label: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("flowmesh-{label}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
