//! The lines of the speed table and how they are printed.
//!
//! A line compares one of our figures with a peer's or limit's of the same run, or with a fixed reach.

use std::collections::BTreeMap;

use crate::contender::{Figure, Result};

/// One line: our figure, what it is held against, and how far it must reach.
pub(crate) struct Line {
    pub(crate) group: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) ours: Ours,
    pub(crate) against: Option<&'static str>,
    pub(crate) reach: Reach,
}

#[derive(Clone, Copy)]
pub(crate) enum Ours {
    Of(&'static str),
    /// What one more step costs: the rise between two contenders divided by the steps between them.
    PerStep {
        low: &'static str,
        high: &'static str,
        steps: f64,
    },
}

#[derive(Clone, Copy)]
pub(crate) enum Reach {
    /// Ours divided by theirs.
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    /// Ours alone, in the contender's own unit.
    Floor(f64),
    Ceiling(f64),
    /// Printed to be seen; holds nothing.
    Shown,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Nanoseconds,
    /// Nanoseconds per event: of the publisher's calls, and until every subscriber has it.
    FanOut,
    PerSecond,
    BytesPerSecond,
    Bytes,
    Percent,
}

/// What the rounds of one contender came to.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// Medians over the rounds; of rates, the tail is the slowest round.
    Measured(Figure),
    Failed(String),
}

/// By group and contender.
pub(crate) type Outcomes<'a> = BTreeMap<(&'a str, &'a str), Outcome>;

impl Line {
    /// Every contender the line needs.
    pub(crate) fn contenders(&self) -> Vec<&'static str> {
        let ours = match self.ours {
            Ours::Of(name) => vec![name],
            Ours::PerStep { low, high, .. } => vec![low, high],
        };
        ours.into_iter().chain(self.against).collect()
    }

    fn ours(&self, outcomes: &Outcomes) -> Option<Figure> {
        let figure = |name| match outcomes.get(&(self.group, name)) {
            Some(Outcome::Measured(figure)) => Some(*figure),
            _ => None,
        };
        match self.ours {
            Ours::Of(name) => figure(name),
            Ours::PerStep { low, high, steps } => {
                let (low, high) = (figure(low)?, figure(high)?);
                Some(Figure { value: (high.value - low.value) / steps, tail: (high.tail - low.tail) / steps })
            }
        }
    }

    fn verdict(&self, ours: Option<f64>, ratio: Option<f64>) -> Verdict {
        let holds = match self.reach {
            Reach::AtMost(limit) => ratio.map(|ratio| ratio <= limit),
            Reach::Below(limit) => ratio.map(|ratio| ratio < limit),
            Reach::AtLeast(limit) => ratio.map(|ratio| ratio >= limit),
            Reach::Floor(limit) => ours.map(|ours| ours >= limit),
            Reach::Ceiling(limit) => ours.map(|ours| ours <= limit),
            Reach::Shown => return Verdict::Shown,
        };
        match holds {
            Some(true) => Verdict::Holds,
            Some(false) => Verdict::Short,
            None => Verdict::Missing,
        }
    }

    fn reach_text(&self) -> String {
        match self.reach {
            Reach::AtMost(ratio) => format!("≤ {ratio} ×"),
            Reach::Below(ratio) => format!("< {ratio} ×"),
            Reach::AtLeast(ratio) => format!("≥ {ratio} ×"),
            Reach::Floor(value) => format!("≥ {}", self.unit.show(value)),
            Reach::Ceiling(value) => format!("≤ {}", self.unit.show(value)),
            Reach::Shown => String::new(),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Holds,
    Short,
    Missing,
    Shown,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds | Self::FanOut if value.abs() < 1_000.0 => format!("{value:.0} ns"),
            Self::Nanoseconds | Self::FanOut if value.abs() < 1_000_000.0 => format!("{:.2} µs", value / 1e3),
            Self::Nanoseconds | Self::FanOut => format!("{:.2} ms", value / 1e6),
            Self::PerSecond if value < 1e6 => format!("{:.0} k/s", value / 1e3),
            Self::PerSecond => format!("{:.2} M/s", value / 1e6),
            Self::BytesPerSecond => format!("{:.2} GB/s", value / 1e9),
            Self::Bytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
            Self::Percent => format!("{value:.1} %"),
        }
    }

    /// Value and tail: p50 / p99 of a latency, median and slowest round of a rate.
    fn show_both(self, figure: Figure) -> String {
        match self {
            Self::Nanoseconds => format!("{} / {}", self.show(figure.value), self.show(figure.tail)),
            Self::FanOut => format!("{}, read after {}", self.show(figure.value), self.show(figure.tail)),
            Self::PerSecond | Self::BytesPerSecond => {
                format!("{} (low {})", self.show(figure.value), self.show(figure.tail))
            }
            Self::Bytes | Self::Percent => self.show(figure.value),
        }
    }

    /// Whether more is better, so that the slowest round is the smallest figure.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::PerSecond | Self::BytesPerSecond)
    }
}

/// Prints the lines of `groups`, then what could not be measured and why. Returns whether all hold.
pub(crate) fn print(groups: &[String], outcomes: &Outcomes) -> Result<bool> {
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    let mut all_hold = true;
    for line in LINES.iter().filter(|line| groups.iter().any(|group| group == line.group)) {
        let ours = line.ours(outcomes);
        let (theirs_text, theirs) = match line.against {
            None => (String::new(), None),
            Some(name) => match outcomes.get(&(line.group, name)) {
                Some(Outcome::Measured(figure)) => {
                    (format!("{name}: {}", line.unit.show_both(*figure)), Some(figure.value))
                }
                _ => (format!("{name}: -"), None),
            },
        };
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours.value / theirs);
        let verdict = line.verdict(ours.map(|ours| ours.value), ratio);
        all_hold &= !matches!(verdict, Verdict::Short | Verdict::Missing);
        rows.push(vec![
            line.title.to_owned(),
            ours.map_or_else(|| "-".to_owned(), |ours| line.unit.show_both(ours)),
            theirs_text,
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
            line.reach_text(),
            match verdict {
                Verdict::Holds => "holds",
                Verdict::Short => "short",
                Verdict::Missing => "not measured",
                Verdict::Shown => "",
            }
            .to_owned(),
        ]);
    }
    print_aligned(&rows);
    for ((_, name), outcome) in outcomes {
        if let Outcome::Failed(reason) = outcome {
            println!("{name}: {reason}");
        }
    }
    Ok(all_hold)
}

fn print_aligned(rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if index == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("| {} |", rules.join(" | "));
        }
    }
}

const HEADINGS: [&str; 6] = ["line", "FlowMesh", "peer or limit", "ratio", "reach", "verdict"];

/// The whole table. Groups are measured one after the other; within a group rounds are interleaved.
pub(crate) const LINES: &[Line] = {
    use Ours::{Of, PerStep};
    use Reach::{AtLeast, AtMost, Below, Ceiling, Floor, Shown};
    use Unit::{Bytes, BytesPerSecond, FanOut, Nanoseconds, PerSecond, Percent};

    const fn line(
        group: &'static str,
        title: &'static str,
        unit: Unit,
        ours: Ours,
        against: Option<&'static str>,
        reach: Reach,
    ) -> Line {
        Line { group, title, unit, ours, against, reach }
    }

    &[
        line(
            "rpc-block",
            "RPC round trip 64 B, spinning off",
            Nanoseconds,
            Of("ours.rpc.block"),
            Some("raw.futex"),
            AtMost(1.3),
        ),
        line("rpc-block", "  beside a Unix socket", Nanoseconds, Of("ours.rpc.block"), Some("uds"), Shown),
        line(
            "rpc-spin",
            "RPC round trip 64 B, default, back to back",
            Nanoseconds,
            Of("ours.rpc"),
            Some("raw.spin"),
            AtMost(2.5),
        ),
        line(
            "rpc-spin",
            "  beside request-response",
            Nanoseconds,
            Of("ours.rpc"),
            Some("iceoryx2.rpc"),
            Below(1.0),
        ),
        line(
            "rpc-spin",
            "  beside its own benchmark's shape",
            Nanoseconds,
            Of("ours.rpc"),
            Some("iceoryx2.requests"),
            Shown,
        ),
        line("rpc-spin", "  beside a Unix socket", Nanoseconds, Of("ours.rpc"), Some("uds"), AtMost(0.125)),
        line(
            "event",
            "event one way, blocking, host→client",
            Nanoseconds,
            Of("ours.event"),
            Some("iceoryx2.event"),
            AtMost(0.75),
        ),
        line("rate", "events 64 B, batched", PerSecond, Of("ours.rate.batched"), None, Floor(10e6)),
        line("rate", "  beside shmipc", PerSecond, Of("ours.rate.batched"), Some("shmipc"), AtLeast(5.0)),
        line("rate", "  beside ZeroMQ", PerSecond, Of("ours.rate.batched"), Some("zeromq"), AtLeast(5.0)),
        line(
            "rate",
            "  beside shmipc, 32 to a flush",
            PerSecond,
            Of("ours.rate.batched"),
            Some("shmipc.batched"),
            Shown,
        ),
        line("rate", "events 64 B, singly", PerSecond, Of("ours.rate.single"), None, Floor(3e6)),
        line("rate", "  beside shmipc", PerSecond, Of("ours.rate.single"), Some("shmipc"), Shown),
        line("rate", "  beside ZeroMQ", PerSecond, Of("ours.rate.single"), Some("zeromq"), Shown),
        line("bulk", "1 MiB messages", BytesPerSecond, Of("ours.bulk"), Some("uds.bulk"), AtLeast(1.5)),
        line(
            "fanout",
            "fan-out to 1, publishing one event",
            FanOut,
            Of("ours.fanout.1"),
            Some("zeromq.fanout.1"),
            Shown,
        ),
        line("fanout", "fan-out to 8", FanOut, Of("ours.fanout.8"), Some("zeromq.fanout.8"), Shown),
        line("fanout", "fan-out to 32", FanOut, Of("ours.fanout.32"), Some("zeromq.fanout.32"), Shown),
        line(
            "fanout",
            "  one more subscriber costs",
            FanOut,
            PerStep { low: "ours.fanout.1", high: "ours.fanout.32", steps: 31.0 },
            None,
            Shown,
        ),
        line("match", "match against 100,000 patterns", PerSecond, Of("ours.match.100000"), None, Floor(1e6)),
        line(
            "match",
            "  beside 1,000, the others match nothing",
            PerSecond,
            Of("ours.match.100000"),
            Some("ours.match.1000"),
            AtLeast(0.8),
        ),
        line(
            "match",
            "  any of the 100,000 may match",
            PerSecond,
            Of("ours.match.100000.any"),
            Some("ours.match.1000"),
            Shown,
        ),
        line(
            "python",
            "Python RPC round trip 64 B",
            Nanoseconds,
            Of("ours.python.rpc"),
            Some("python.pipe"),
            AtMost(0.6),
        ),
        line(
            "python",
            "Python events one way",
            PerSecond,
            Of("ours.python.rate"),
            Some("python.pyzmq"),
            AtLeast(3.0),
        ),
        line(
            "node",
            "Node RPC round trip 64 B",
            Nanoseconds,
            Of("ours.node.rpc"),
            Some("node.fork.rpc"),
            AtMost(0.8),
        ),
        line(
            "node",
            "Node events one way",
            PerSecond,
            Of("ours.node.rate"),
            Some("node.fork.rate"),
            AtLeast(5.0),
        ),
        line("idle", "idle host with 50 sessions, CPU", Percent, Of("ours.idle.cpu"), None, Ceiling(0.0)),
        line(
            "idle",
            "  memory beside mapped rings",
            Bytes,
            Of("ours.idle.rss"),
            None,
            Ceiling(10.0 * 1024.0 * 1024.0),
        ),
    ]
};
