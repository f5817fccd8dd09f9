//! Subjects routed against many patterns, one thread. No subject comes twice while the cache could know it.

use std::hint::black_box;
use std::time::Instant;

use flowmesh::Pattern;
use flowmesh::bus::{Bus, SubscribeOptions, SubscriptionKey};

use crate::contender::{Figure, Result};

pub(crate) fn against_1000() -> Result<Figure> {
    round(1_000)
}

pub(crate) fn against_100000() -> Result<Figure> {
    round(100_000)
}

fn round(patterns: u32) -> Result<Figure> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut bus = Bus::new(patterns as usize);
    let mut texts = Vec::with_capacity(patterns as usize);
    for id in 0..patterns {
        let text = pattern(&mut random);
        let key = SubscriptionKey { owner: 1, id };
        bus.subscribe(key, &Pattern::parse(&text)?, &SubscribeOptions::default())?;
        texts.push(text);
    }
    let subjects: Vec<String> = (0..SUBJECTS)
        .map(|number| subject(&texts[random.below(patterns) as usize], number, &mut random))
        .collect();
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

/// Half name a machine down to its sensor, the others leave some of that open.
fn pattern(random: &mut Random) -> String {
    let [plant, line, cell, sensor] = [(); 4].map(|()| random.below(PLACES));
    match random.below(10) {
        0..5 => format!("plant{plant}.line{line}.cell{cell}.sensor{sensor}.*"),
        5..7 => format!("plant{plant}.line{line}.*.sensor{sensor}.*"),
        7..9 => format!("plant{plant}.line{line}.cell{cell}.>"),
        _ => format!("*.line{line}.cell{cell}.sensor{sensor}.>"),
    }
}

/// A subject that this pattern matches, and that no other number gives.
fn subject(pattern: &str, number: u32, random: &mut Random) -> String {
    let kinds = ["plant", "line", "cell", "sensor"];
    let mut tokens: Vec<String> = pattern.split('.').map(str::to_owned).collect();
    for (place, kind) in kinds.iter().enumerate() {
        match tokens.get(place).map(String::as_str) {
            Some("*" | ">") => tokens[place] = format!("{kind}{}", random.below(PLACES)),
            Some(_) => {}
            None => tokens.push(format!("{kind}{}", random.below(PLACES))),
        }
    }
    tokens.truncate(kinds.len());
    tokens.push(format!("reading{number}"));
    tokens.join(".")
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
