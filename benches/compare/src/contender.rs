//! What can be measured, and how the two processes of a measurement talk.
//!
//! Knows no peer and no table: a [`Contender`] is a name and how to run one round of it.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

/// Errors end a round and are printed under the table; nothing here recovers from one.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One side of the comparison, by name: `ours.…`, or a peer's or limit's own name.
#[derive(Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
}

/// How a round is run. Either way it ends by printing one [`Figure`] on a line of its own.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// `round` runs in a fresh process and usually starts `child` in another with [`Peer::spawn`].
    Rust { round: fn() -> Result<Figure>, child: Option<ChildMain> },
    /// A program of another language that starts its own second process.
    Script { interpreter: Interpreter, file: &'static str, args: &'static [&'static str] },
}

/// What the other process runs, given the arguments that followed its contender's name.
pub(crate) type ChildMain = fn(&[String]) -> Result<()>;

#[derive(Clone, Copy)]
pub(crate) enum Interpreter {
    Python,
    /// One that has the peers' packages, which ours need not share.
    PeersPython,
    Node,
}

/// The outcome of one round, as text `figure <value> <tail>`.
///
/// For a latency, `value` is the p50 and `tail` the p99, both in nanoseconds. For a rate both are the
/// rate per second (the table shows the slowest round as the tail). For a fan-out, nanoseconds per event of
/// the publisher's own calls, and until every subscriber has read it. Else: the quantity, twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) tail: f64,
}

impl Figure {
    /// From single latencies in nanoseconds, in any order.
    pub(crate) fn latency(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| samples[(samples.len() - 1) * percent / 100] as f64;
        Self { value: at(50), tail: at(99) }
    }

    /// `count` things in `elapsed`.
    pub(crate) fn rate(count: u64, elapsed: std::time::Duration) -> Self {
        Self::plain(count as f64 / elapsed.as_secs_f64())
    }

    /// `count` events, published in `publishing` and read by every subscriber in `reading`, both from the start.
    pub(crate) fn fan_out(count: u64, publishing: std::time::Duration, reading: std::time::Duration) -> Self {
        let each = |time: std::time::Duration| time.as_nanos() as f64 / count as f64;
        Self { value: each(publishing), tail: each(reading) }
    }

    pub(crate) fn plain(value: f64) -> Self {
        Self { value, tail: value }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "figure {} {}", self.value, self.tail)
    }
}

impl FromStr for Figure {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.strip_prefix("figure ").ok_or("not a figure")?.split_whitespace();
        let mut next = || -> Result<f64> { Ok(words.next().ok_or("a figure has two numbers")?.parse()?) };
        Ok(Self { value: next()?, tail: next()? })
    }
}

/// The other process of a measurement: this binary again, as `child <contender> <args…>`.
///
/// It speaks by lines: it says `ready` on stdout when it may be measured and, when it took the
/// measurement itself, a figure at the end. It dies with its parent.
pub(crate) struct Peer {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn spawn(contender: &str, args: &[String]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("child").arg(contender).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut process = command.spawn()?;
        let stdin = process.stdin.take().expect("stdin was piped");
        let stdout = BufReader::new(process.stdout.take().expect("stdout was piped"));
        Ok(Self { process, stdin, stdout })
    }

    /// Waits until the child says it may be measured.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        match self.line()?.as_str() {
            READY => Ok(()),
            other => Err(format!("the child said {other:?} instead of {READY:?}").into()),
        }
    }

    /// The next line the child prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("the child ended early: {}", self.process.wait()?).into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Sends the child a line on its stdin.
    #[allow(dead_code, reason = "for contenders whose child must wait for a word")]
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}")?;
        Ok(self.stdin.flush()?)
    }

    #[allow(dead_code, reason = "for contenders that watch the child's memory or CPU")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Closes the child's stdin and waits for it to leave well.
    pub(crate) fn finish(mut self) -> Result<()> {
        drop(self.stdin);
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the child left with {status}").into()) }
    }
}

/// In the child: may be measured from now on.
pub(crate) fn say_ready() -> Result<()> {
    say(READY)
}

/// In the child: one line to the parent.
pub(crate) fn say(line: impl fmt::Display) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// The `index`th argument of a child, parsed.
pub(crate) fn argument<T: FromStr>(args: &[String], index: usize) -> Result<T> {
    args.get(index)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("argument {index} is missing or malformed").into())
}

/// An empty directory for this round, on the disk that fsync is measured on; it goes with the round.
pub(crate) fn directory() -> Result<PathBuf> {
    let directory = std::env::var_os(DIRECTORY).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = directory.join(format!("{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Whether one round with a tenth of the work is to do.
pub(crate) fn is_quick() -> bool {
    std::env::var_os(QUICK).is_some()
}

/// Has the kernel kill the spawned process when this thread is gone.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one async-signal-safe system call.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

const READY: &str = "ready";
/// Told to every process of a round: its directory, and whether it is to be quick.
pub(crate) const DIRECTORY: &str = "FLOWMESH_COMPARE_DIRECTORY";
pub(crate) const QUICK: &str = "FLOWMESH_COMPARE_QUICK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_survives_its_text() {
        let figure = Figure { value: 1234.5, tail: 9.0e9 };
        assert_eq!(figure.to_string().parse::<Figure>().unwrap(), figure);
    }

    #[test]
    fn percentiles_come_from_sorted_samples() {
        let figure = Figure::latency((0..=100).rev().collect());
        assert_eq!(figure, Figure { value: 50.0, tail: 99.0 });
    }
}
