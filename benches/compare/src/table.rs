//! What a table is made of and how it is printed; `lines` has the lines.
//!
//! A line compares one of our figures with a peer's or limit's of the same run, or with a fixed reach.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::contender::{Figure, Result};

/// One command's table. Groups are measured one after the other; within a group rounds are interleaved.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) lines: &'static [Line],
    pub(crate) columns: Columns,
    /// Rounds of every contender unless told otherwise, and groups whose rounds are long and so fewer.
    pub(crate) rounds: usize,
    pub(crate) few_rounds: &'static [(&'static str, usize)],
    /// Far above what any round takes.
    pub(crate) round_limit: Duration,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Columns {
    /// One figure of ours.
    Plain,
    /// Where it was measured, and a figure by [`DURABILITIES`].
    ByDurability,
}

/// How safe a change is when its caller hears of it: in memory alone, handed to the kernel, on the disk.
pub(crate) const DURABILITIES: [&str; 3] = ["none", "os", "fsync"];

/// One line: our figure, what it is held against, and how far it must reach.
pub(crate) struct Line {
    pub(crate) group: &'static str,
    pub(crate) title: &'static str,
    /// Whether the caller is in the host's process or in a client's, where that is told.
    pub(crate) place: &'static str,
    pub(crate) unit: Unit,
    pub(crate) ours: Ours,
    pub(crate) against: Option<&'static str>,
    pub(crate) reach: Reach,
}

#[derive(Clone, Copy)]
pub(crate) enum Ours {
    Of(&'static str),
    /// One of each of [`DURABILITIES`]; the one at `held` is compared.
    By {
        figures: [Option<&'static str>; 3],
        held: usize,
    },
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
    BytesEach,
    Seconds,
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
            Ours::By { figures, .. } => figures.into_iter().flatten().collect(),
            Ours::PerStep { low, high, .. } => vec![low, high],
        };
        ours.into_iter().chain(self.against).collect()
    }

    fn ours(&self, outcomes: &Outcomes) -> Option<Figure> {
        let figure = |name| self.figure(name, outcomes);
        match self.ours {
            Ours::Of(name) => figure(name),
            Ours::By { figures, held } => figure(figures[held]?),
            Ours::PerStep { low, high, steps } => {
                let (low, high) = (figure(low)?, figure(high)?);
                Some(Figure { value: (high.value - low.value) / steps, tail: (high.tail - low.tail) / steps })
            }
        }
    }

    fn figure(&self, name: &'static str, outcomes: &Outcomes) -> Option<Figure> {
        match outcomes.get(&(self.group, name)) {
            Some(Outcome::Measured(figure)) => Some(*figure),
            _ => None,
        }
    }

    /// The cells that show our side, and where it was measured.
    fn cells(&self, columns: Columns, outcomes: &Outcomes) -> Vec<String> {
        let show =
            |figure: Option<Figure>| figure.map_or("-".to_owned(), |figure| self.unit.show_both(figure));
        match (columns, self.ours) {
            (Columns::Plain, _) => vec![show(self.ours(outcomes))],
            (Columns::ByDurability, Ours::By { figures, .. }) => {
                let cell =
                    |name: Option<_>| name.map_or(String::new(), |name| show(self.figure(name, outcomes)));
                [self.place.to_owned()].into_iter().chain(figures.map(cell)).collect()
            }
            (Columns::ByDurability, _) => {
                vec![self.place.to_owned(), String::new(), show(self.ours(outcomes)), String::new()]
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
        // Only where there is more than one figure must be said which one is meant.
        let which = match self.ours {
            Ours::By { figures, held } if figures.iter().flatten().count() > 1 => DURABILITIES[held],
            _ => "",
        };
        let reach = match self.reach {
            Reach::AtMost(ratio) => format!("≤ {ratio} ×"),
            Reach::Below(ratio) => format!("< {ratio} ×"),
            Reach::AtLeast(ratio) => format!("≥ {ratio} ×"),
            Reach::Floor(value) => format!("≥ {}", self.unit.show(value)),
            Reach::Ceiling(value) => format!("≤ {}", self.unit.show(value)),
            Reach::Shown => return String::new(),
        };
        format!("{which} {reach}").trim_start().to_owned()
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
            Self::PerSecond if value < 1e3 => format!("{value:.0} /s"),
            Self::PerSecond if value < 1e4 => format!("{:.1} k/s", value / 1e3),
            Self::PerSecond if value < 1e6 => format!("{:.0} k/s", value / 1e3),
            Self::PerSecond => format!("{:.2} M/s", value / 1e6),
            Self::BytesPerSecond => format!("{:.2} GB/s", value / 1e9),
            Self::Bytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
            Self::Percent => format!("{value:.1} %"),
            Self::BytesEach => format!("{value:.0} B"),
            Self::Seconds => format!("{value:.2} s"),
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
            Self::Bytes | Self::Percent | Self::BytesEach | Self::Seconds => self.show(figure.value),
        }
    }

    /// Whether more is better, so that the slowest round is the smallest figure.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::PerSecond | Self::BytesPerSecond)
    }
}

/// Prints the lines of `groups`, then what could not be measured and why. Returns whether all hold.
pub(crate) fn print(table: &Table, groups: &[String], outcomes: &Outcomes) -> Result<bool> {
    let ours: &[&str] = match table.columns {
        Columns::Plain => &["FlowMesh"],
        Columns::ByDurability => &["where", "FlowMesh, none", "os", "fsync"],
    };
    let headings = [&["line"], ours, &["peer or limit", "ratio", "reach", "verdict"]].concat();
    let mut rows = vec![headings.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    let mut all_hold = true;
    for line in table.lines.iter().filter(|line| groups.iter().any(|group| group == line.group)) {
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
        let mut row = vec![line.title.to_owned()];
        row.extend(line.cells(table.columns, outcomes));
        row.extend([
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
        rows.push(row);
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
