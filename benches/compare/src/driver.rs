//! Runs rounds in turn (A, B, A, B, …) so that a noisy minute hits every contender of a group alike.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Figure, Interpreter, Result, Run, die_with_parent};
use crate::pin;
use crate::table::{self, LINES, Outcome};

pub(crate) struct Options {
    rounds: usize,
    groups: Vec<String>,
    check: bool,
    pin: bool,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { rounds: 7, groups: groups(), check: false, pin: true };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--only" => options.groups = value()?.split(',').map(str::to_owned).collect(),
                "--check" => options.check = true,
                "--no-pin" => options.pin = false,
                other => return Err(format!("{other} is not an option; see --help").into()),
            }
        }
        if options.rounds == 0 {
            return Err("at least one round; five or more for figures that mean something".into());
        }
        if let Some(unknown) = options.groups.iter().find(|group| !groups().contains(group)) {
            return Err(format!("no group is called {unknown}; there are {}", groups().join(" ")).into());
        }
        Ok(options)
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
        for (name, outcome) in measure(contenders_of(group, contenders), options) {
            outcomes.insert((group.as_str(), name), outcome);
        }
    }
    println!(
        "p50 / p99; rates: median round (slowest); {} interleaved rounds, load now {}\n",
        options.rounds,
        load()
    );
    let all_hold = table::print(&options.groups, &outcomes)?;
    println!("\n{:.0} s", started.elapsed().as_secs_f64());
    Ok(all_hold || !options.check)
}

fn measure(mut contenders: Vec<(Contender, bool)>, options: &Options) -> Vec<(&'static str, Outcome)> {
    let mut figures: BTreeMap<&str, Vec<Figure>> = BTreeMap::new();
    let mut outcomes = Vec::new();
    for _ in 0..options.rounds {
        // One that failed is reported and left out of the rounds that remain.
        contenders.retain(|(contender, _)| match round(contender, options.pin) {
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

/// One round in processes of its own, killed as a group when it takes too long.
fn round(contender: &Contender, pin: bool) -> Result<Figure> {
    let mut command = command(contender)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    if !pin {
        command.env(pin::NO_PIN, "1");
    }
    die_with_parent(&mut command);
    let mut process = command.spawn().map_err(|error| format!("could not be started: {error}"))?;
    let mut stdout = process.stdout.take().expect("stdout was piped");
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let output = output.recv_timeout(ROUND_LIMIT);
    if output.is_err() {
        // SAFETY: the group was made for this process, which has not been waited for, so its id is ours.
        unsafe { libc::kill(-(process.id() as i32), libc::SIGKILL) };
    }
    let status = process.wait()?;
    let output = output.map_err(|_| format!("still running after {} s, killed", ROUND_LIMIT.as_secs()))?;
    if !status.success() {
        return Err(format!("left with {status}").into());
    }
    let line = output.lines().find(|line| line.starts_with("figure ")).ok_or("printed no figure")?;
    line.parse()
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
                Interpreter::Node => ("FLOWMESH_NODE", "node"),
            };
            let mut command = Command::new(std::env::var_os(variable).unwrap_or_else(|| default.into()));
            command.arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).args(args);
            command
        }
    })
}

/// The contenders that lines of `group` name, each once, with whether its figure is a rate.
fn contenders_of(group: &str, contenders: &[Contender]) -> Vec<(Contender, bool)> {
    let mut found: Vec<(Contender, bool)> = Vec::new();
    for line in LINES.iter().filter(|line| line.group == group) {
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

fn groups() -> Vec<String> {
    let mut groups: Vec<String> = LINES.iter().map(|line| line.group.to_owned()).collect();
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

/// Far above what any round takes.
const ROUND_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![9.0, 1.0, 3.0]), 3.0);
    }
}
