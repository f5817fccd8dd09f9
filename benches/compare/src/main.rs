//! FlowMesh beside its peers and the machine's limits: same work, same run, one table.
//!
//! Three levels of process, all of them this binary:
//!
//!   driver                 interleaves rounds (A, B, A, B, …), takes medians, prints the table
//!   └─ round <contender>   one side of the measured pair; prints one line `figure <value> <tail>`
//!      └─ child <contender> <args…>   the other side
//!
//! A round gets fresh processes, so no contender inherits another's heap, threads or affinity, and
//! a round that hangs is killed and reported instead of stopping the run.

mod contender;
mod driver;
mod lines;
mod ours;
mod payload;
mod peers;
mod pin;
mod table;
mod usage;

use contender::{Contender, Result, Run};
use driver::Options;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        Some("round") => round(args.get(1)),
        Some("child") => child(args.get(1), args.get(2..).unwrap_or_default()),
        Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(true)
        }
        _ => Options::parse(&args).and_then(|options| driver::compare(&contenders(), &options)),
    };
    match outcome {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("flowmesh-compare: {error}");
            std::process::ExitCode::from(2)
        }
    }
}

fn round(name: Option<&String>) -> Result<bool> {
    let contender = named(name)?;
    match contender.run {
        Run::Rust { round, .. } => println!("{}", round()?),
        Run::Script { .. } => return Err("a script is run by the driver itself".into()),
    }
    Ok(true)
}

fn child(name: Option<&String>, args: &[String]) -> Result<bool> {
    match named(name)?.run {
        Run::Rust { child: Some(child), .. } => child(args).map(|()| true),
        _ => Err("this contender has no child".into()),
    }
}

fn named(name: Option<&String>) -> Result<Contender> {
    let name = name.ok_or("which contender?")?;
    contenders()
        .into_iter()
        .find(|contender| contender.name == name)
        .ok_or_else(|| format!("no contender is called {name}").into())
}

fn contenders() -> Vec<Contender> {
    [ours::CONTENDERS, &[peers::CONTENDERS]].concat().concat()
}

const HELP: &str = "\
flowmesh-compare [ipc|queues] [--rounds N] [--only GROUP,…] [--no-pin] [--check] [--quick]
flowmesh-compare round CONTENDER      one round, by hand

  --rounds N    rounds of every contender, interleaved; medians are printed (default 7 and 5, at least 5)
  --only        groups of lines to run; of ipc: rpc-block rpc-spin event rate bulk fanout match python node idle;
                of queues: local commit session python node redis waiting latency
  --quick       one round of everything, of what takes long a tenth: to see that it works
  --no-pin      leave the two sides of latency measurements where the scheduler puts them
  --check       exit 1 when a line falls short or could not be measured

  FLOWMESH_PYTHON         interpreter with flowmesh (for ipc with pyzmq, too) for the Python lines (default python3)
  FLOWMESH_PEERS_PYTHON   interpreter with the queues' Python peers (default python3)
  FLOWMESH_NODE           Node for the Node lines (default node)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_names_contenders_that_exist() {
        let known: Vec<_> = contenders().iter().map(|contender| contender.name).collect();
        for line in lines::TABLES.iter().flat_map(|table| table.lines) {
            for name in line.contenders() {
                assert!(known.contains(&name), "{name} in {:?}", line.title);
            }
        }
    }
}
