//! Subjects routed against many patterns, one thread. No subject comes twice while the cache could know it.
//!
//! Flat means: flat in the patterns that do *not* match. So the same subjects are asked, and the same 1,000
//! patterns were made to match them, whether these are all there are or stand in the same bus among 99,000
//! others that match no subject asked. Those are drawn as the 1,000 are, from the same plants, lines, cells
//! and sensors, and a draw that matches a subject asked is drawn again: they differ only where they must,
//! and the way of a subject leads through nodes they share. A bus hands back equally many in both.
//!
//! In the third shape every one of 100,000 patterns is asked for. There a subject finds 2.6 subscriptions
//! instead of one, and each of them lies elsewhere in memory.

use std::collections::HashSet;
use std::hint::black_box;
use std::time::Instant;

use flowmesh::Pattern;
use flowmesh::bus::{Bus, SubscribeOptions, SubscriptionKey};

use crate::contender::{Figure, Result};

pub(crate) fn against_1000() -> Result<Figure> {
    round(1_000, 0)
}

pub(crate) fn against_100000() -> Result<Figure> {
    round(1_000, 99_000)
}

pub(crate) fn any_of_100000() -> Result<Figure> {
    round(100_000, 0)
}

fn round(asked: u32, others: u32) -> Result<Figure> {
    let Shape { mut bus, subjects } = Shape::new(asked, others)?;
    let mut matched = 0;
    let mut pass = || {
        for subject in &subjects {
            matched += black_box(bus.route(black_box(subject))).len();
        }
    };
    pass();
    let start = Instant::now();
    (0..PASSES).for_each(|_| pass());
    let elapsed = start.elapsed();
    assert!(matched >= (PASSES as usize + 1) * subjects.len(), "a subject made to match found nobody");
    Ok(Figure::rate(u64::from(PASSES) * subjects.len() as u64, elapsed))
}

struct Shape {
    bus: Bus,
    subjects: Vec<String>,
}

impl Shape {
    /// Subjects that match `asked` patterns, and `others` that match none of them.
    fn new(asked: u32, others: u32) -> Result<Self> {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let asked_for: Vec<Machines> = (0..asked).map(|_| Machines::draw(&mut random)).collect();
        let mut subjects = Vec::with_capacity(SUBJECTS as usize);
        let mut matching = HashSet::new();
        for number in 0..SUBJECTS {
            let machine = asked_for[random.below(asked) as usize].pick(&mut random);
            let [plant, line, cell, sensor] = machine;
            subjects.push(format!("plant{plant}.line{line}.cell{cell}.sensor{sensor}.reading{number}"));
            if others > 0 {
                matching.extend((0..4).map(|open| Machines::around(machine, Some(open))));
                matching.insert(Machines::around(machine, None));
            }
        }
        let mut bus = Bus::new((asked + others) as usize);
        let mut subscribe = |id, machines: Machines| {
            let key = SubscriptionKey { owner: 1, id };
            bus.subscribe(key, &Pattern::parse(&machines.pattern())?, &SubscribeOptions::default())
        };
        let share = others / asked;
        for (id, machines) in (0..).zip(asked_for) {
            // Spread among the others, as they would have come.
            subscribe(id * (share + 1), machines)?;
            for other in 1..=share {
                let mut drawn = Machines::draw(&mut random);
                while matching.contains(&drawn) {
                    drawn = Machines::draw(&mut random);
                }
                subscribe(id * (share + 1) + other, drawn)?;
            }
        }
        Ok(Self { bus, subjects })
    }
}

/// The machines of a pattern, by plant, line, cell and sensor; `None`: all.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Machines([Option<u32>; 4]);

impl Machines {
    /// Half name a machine down to its sensor, the others leave some of that open.
    fn draw(random: &mut Random) -> Self {
        let machine = [(); 4].map(|()| random.below(PLACES));
        let open = match random.below(10) {
            0..5 => None,
            5..7 => Some(2),
            7..9 => Some(3),
            _ => Some(0),
        };
        Self::around(machine, open)
    }

    fn around(machine: [u32; 4], open: Option<usize>) -> Self {
        let mut machines = machine.map(Some);
        if let Some(open) = open {
            machines[open] = None;
        }
        Self(machines)
    }

    fn pattern(self) -> String {
        let [plant, line, cell, sensor] = self.0.map(|place| place.map_or("*".to_owned(), |n| n.to_string()));
        match self.0 {
            [None, ..] => format!("*.line{line}.cell{cell}.sensor{sensor}.>"),
            [_, _, None, _] => format!("plant{plant}.line{line}.*.sensor{sensor}.*"),
            [.., None] => format!("plant{plant}.line{line}.cell{cell}.>"),
            _ => format!("plant{plant}.line{line}.cell{cell}.sensor{sensor}.*"),
        }
    }

    /// One of them.
    fn pick(self, random: &mut Random) -> [u32; 4] {
        self.0.map(|place| place.unwrap_or_else(|| random.below(PLACES)))
    }
}

/// xorshift64*: the same patterns in every round.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) * u64::from(limit)) >> 32) as u32
    }
}

/// Plants, and lines, cells and sensors in each.
const PLACES: u32 = 32;
/// Far more than the bus remembers.
const SUBJECTS: u32 = 1 << 18;
const PASSES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom all subjects find, as the numbers of subscriptions.
    fn found(asked: u32, others: u32) -> usize {
        let Shape { mut bus, subjects } = Shape::new(asked, others).unwrap();
        assert_eq!(bus.len(), (asked + others) as usize);
        let found = subjects.iter().map(|subject| bus.route(subject).len()).sum();
        println!("{asked} and {others}: {:.2} each", found as f64 / f64::from(SUBJECTS));
        found
    }

    #[test]
    fn the_others_match_no_subject() {
        let alone = found(1_000, 0);
        assert_eq!(alone, found(1_000, 99_000));
        assert!(found(100_000, 0) > 2 * alone, "where all are asked for, a subject finds more");
    }
}
