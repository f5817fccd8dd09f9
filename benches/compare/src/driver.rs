//! Runs rounds in turn (A, B, A, B, …) so that a noisy minute hits every contender of a group alike.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use crate::contender::{Contender, Figure, Interpreter, Result, Run, die_with_parent};
use crate::contender::{DIRECTORY, QUICK};
use crate::lines::TABLES;
use crate::pin;
use crate::table::{self, Outcome, Table};

pub(crate) struct Options {
    table: &'static Table,
    rounds: Option<usize>,
    groups: Vec<String>,
    check: bool,
    pin: bool,
    quick: bool,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let named = args.first().and_then(|first| TABLES.iter().find(|table| table.name == first));
        let table = named.unwrap_or(&TABLES[0]);
        let mut options =
            Self { table, rounds: None, groups: groups(table), check: false, pin: true, quick: false };
        let mut args = args.iter().skip(usize::from(named.is_some()));
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--rounds" => options.rounds = Some(value()?.parse()?),
                "--only" => options.groups = value()?.split(',').map(str::to_owned).collect(),
                "--check" => options.check = true,
                "--no-pin" => options.pin = false,
                "--quick" => options.quick = true,
                other => return Err(format!("{other} is not an option; see --help").into()),
            }
        }
        if options.rounds == Some(0) {
            return Err("at least one round; five or more for figures that mean something".into());
        }
        if let Some(unknown) = options.groups.iter().find(|group| !groups(table).contains(group)) {
            return Err(format!("no group is called {unknown}; there are {}", groups(table).join(" ")).into());
        }
        Ok(options)
    }

    fn rounds(&self, group: &str) -> usize {
        let few = self.table.few_rounds.iter().find(|(few, _)| *few == group);
        let most = few.map_or(usize::MAX, |(_, rounds)| *rounds);
        self.rounds.unwrap_or(if self.quick { 1 } else { self.table.rounds }).min(most)
    }
}

/// Runs the chosen groups and prints the table. False only with `--check` and a line that does not hold.
pub(crate) fn compare(contenders: &[Contender], options: &Options) -> Result<bool> {
    let started = Instant::now();
    println!("{}", machine());
    let mut outcomes = BTreeMap::new();
    for group in &options.groups {
        eprintln!("{group} …");
        // Kept by group: a peer that two groups share is compared with what ran beside it.
        let measured =
            measure(contenders_of(options.table, group, contenders), options.rounds(group), options);
        for (name, outcome) in measured {
            outcomes.insert((group.as_str(), name), outcome);
        }
    }
    let legend = "p50 / p99; rates: median round (slowest)";
    println!("{legend}; {} interleaved rounds, load now {}\n", options.rounds(""), load());
    let all_hold = table::print(options.table, &options.groups, &outcomes)?;
    println!("\n{:.0} s", started.elapsed().as_secs_f64());
    Ok(all_hold || !options.check)
}

fn measure(
    mut contenders: Vec<(Contender, bool)>,
    rounds: usize,
    options: &Options,
) -> Vec<(&'static str, Outcome)> {
    let mut figures: BTreeMap<&str, Vec<Figure>> = BTreeMap::new();
    let mut outcomes = Vec::new();
    for _ in 0..rounds {
        // One that failed is reported and left out of the rounds that remain.
        contenders.retain(|(contender, _)| match round(contender, options) {
            Ok(figure) => {
                figures.entry(contender.name).or_default().push(figure);
                true
            }
            Err(error) => {
                outcomes.push((contender.name, Outcome::Failed(error.to_string())));
                false
            }
        });
    }
    for (contender, is_rate) in contenders {
        let rounds = &figures[contender.name];
        let value = median(rounds.iter().map(|figure| figure.value).collect());
        let tails = rounds.iter().map(|figure| figure.tail);
        let tail = if is_rate { tails.fold(f64::INFINITY, f64::min) } else { median(tails.collect()) };
        outcomes.push((contender.name, Outcome::Measured(Figure { value, tail })));
    }
    outcomes
}

/// One round in processes and a directory of its own, killed as a group when it takes too long.
fn round(contender: &Contender, options: &Options) -> Result<Figure> {
    let directory = Directory::new()?;
    let mut command = command(contender)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).env(DIRECTORY, &directory.0);
    if !options.pin {
        command.env(pin::NO_PIN, "1");
    }
    if options.quick {
        command.env(QUICK, "1");
    }
    let limit = options.table.round_limit;
    die_with_parent(&mut command);
    let mut process = command.spawn().map_err(|error| format!("could not be started: {error}"))?;
    let mut stdout = process.stdout.take().expect("stdout was piped");
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let output = output.recv_timeout(limit);
    if output.is_err() {
        // SAFETY: the group was made for this process, which has not been waited for, so its id is ours.
        unsafe { libc::kill(-(process.id() as i32), libc::SIGKILL) };
    }
    let status = process.wait()?;
    let output = output.map_err(|_| format!("still running after {} s, killed", limit.as_secs()))?;
    if !status.success() {
        return Err(format!("left with {status}").into());
    }
    let line = output.lines().find(|line| line.starts_with("figure ")).ok_or("printed no figure")?;
    line.parse()
}

/// Beside this program, not among temporary files: those may lie in memory, and what is to be flushed must not.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("");
        // What an interrupted run left may be gigabytes.
        for entry in std::fs::read_dir(&beside)? {
            let name = entry?.file_name();
            let run = name.to_str().and_then(|name| name.strip_prefix(DATA));
            if run.is_some_and(|run| !std::path::Path::new("/proc").join(run).exists()) {
                std::fs::remove_dir_all(beside.join(name))?;
            }
        }
        let directory = beside.join(format!("{DATA}{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }
}

/// Before the number of the run's process.
const DATA: &str = "compare-data-";

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn command(contender: &Contender) -> Result<Command> {
    Ok(match contender.run {
        Run::Rust { .. } => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("round").arg(contender.name);
            command
        }
        Run::Script { interpreter, file, args } => {
            let (variable, default) = match interpreter {
                Interpreter::Python => ("FLOWMESH_PYTHON", "python3"),
                Interpreter::PeersPython => ("FLOWMESH_PEERS_PYTHON", "python3"),
                Interpreter::Node => ("FLOWMESH_NODE", "node"),
            };
            let mut command = Command::new(std::env::var_os(variable).unwrap_or_else(|| default.into()));
            command.arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).args(args);
            command
        }
    })
}

/// The contenders that lines of `group` name, each once, with whether its figure is a rate.
fn contenders_of(table: &Table, group: &str, contenders: &[Contender]) -> Vec<(Contender, bool)> {
    let mut found: Vec<(Contender, bool)> = Vec::new();
    for line in table.lines.iter().filter(|line| line.group == group) {
        for name in line.contenders() {
            if found.iter().any(|(contender, _)| contender.name == name) {
                continue;
            }
            if let Some(contender) = contenders.iter().find(|contender| contender.name == name) {
                found.push((*contender, line.unit.is_rate()));
            }
        }
    }
    found
}

fn groups(table: &Table) -> Vec<String> {
    let mut groups: Vec<String> = table.lines.iter().map(|line| line.group.to_owned()).collect();
    groups.dedup();
    groups
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{} × {cpus}, kernel {}, load {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load()
    )
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![9.0, 1.0, 3.0]), 3.0);
    }
}
