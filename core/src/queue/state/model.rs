//! Random operations against the same queue in plain lists; restarts by reading everything back.
//!
//! The model ([`lists`]) knows the rules and no index: it looks through all jobs each time. After every operation the
//! outcome is compared, after every few all lists and numbers. Every change goes through its bytes. In half of the
//! rounds there is a second queue, which jobs that are dead move to.
#![forbid(unsafe_code)]

mod dice;
mod lists;
mod operations;
mod schedules;

use super::tests::Rig;
use crate::{
    clock::Timestamp,
    queue::{
        change::Cause,
        job::{Failure, JobId, JobState, Totals, WorkerId},
    },
};
use dice::Dice;
use lists::{At, Job, Model, Role};
use operations::Side;

const SECOND: u64 = 1_000_000_000;
const TEN_YEARS: u64 = 10 * 365 * 86_400 * SECOND;
const START_WALL: u64 = 1_700_000_000 * SECOND;
/// What jobs carry is a beginning of it.
const PAYLOAD: &[u8] = b"payload";
const GROUPS: u64 = 4;
const KEYS: u64 = 4;
const WORKERS: u64 = 3;

/// Runs `count` operations.
fn run(seed: u64, count: usize) {
    let mut dice = Dice(seed);
    let mut rig = Rig::new(dice.config(), seed);
    let mut model = Model::new(rig.state.config(), rig.now);
    let mut dead = dice.one_in(2).then(|| Rig::new(dice.config(), !seed));
    model.dead = dead.as_ref().map(|dead| Box::new(Model::new(dead.state.config(), dead.now)));
    let is_grouped = !dice.one_in(3);
    // Now and then a checkpoint is long ago, or takes long.
    let pace = [3, 30, 200][dice.roll(3) as usize];
    let mut known: [Vec<JobId>; 2] = Default::default();
    for step in 0..count {
        move_time(&mut dice, &mut rig, &mut model);
        if let (Some(dead), Some(model)) = (&mut dead, &mut model.dead) {
            (dead.now, model.now) = (rig.now, rig.now);
            dead.advance();
            model.advance();
        }
        rig.advance();
        model.advance();
        let [first, second] = &mut known;
        let mut side = match (&mut dead, &mut model) {
            (Some(dead), Model { dead: Some(model), .. }) if dice.one_in(4) => {
                Side { dice: &mut dice, rig: dead, model, dead: None, known: second, is_grouped }
            }
            (dead, model) => {
                let dead = dead.as_mut();
                Side { dice: &mut dice, rig: &mut rig, model, dead, known: first, is_grouped }
            }
        };
        side.operate();
        if dice.one_in(pace) {
            rig.checkpoint_slice(dice.roll(20) as u32);
            dead.iter_mut().for_each(|dead| dead.checkpoint_slice(dice.roll(20) as u32));
        }
        if dice.one_in(400) {
            restart(&mut dice, &mut rig, dead.as_mut(), &mut model);
        }
        if step % 8 == 0 {
            compare(&rig, &model);
            if let (Some(dead), Some(model)) = (&dead, &model.dead) {
                compare(dead, model);
            }
        }
    }
}

fn move_time(dice: &mut Dice, rig: &mut Rig, model: &mut Model) {
    let by = match dice.roll(10) {
        0..5 => 0,
        5..8 => dice.roll(SECOND),
        8 => dice.roll(4 * SECOND),
        // The machine slept, or the process was stopped: all leases are long over.
        9 if dice.one_in(40) => dice.roll(40 * 86_400) * SECOND,
        _ => dice.roll(30 * SECOND),
    };
    rig.now.at.0 += by;
    rig.now.wall.0 += by;
    if dice.one_in(300) {
        let jump = [TEN_YEARS, TEN_YEARS, 3600 * SECOND, 40 * 3600 * SECOND][dice.roll(4) as usize];
        rig.now.wall.0 = if dice.one_in(2) { rig.now.wall.0 + jump } else { rig.now.wall.0 - jump };
        // Neither so far ahead nor so far back that a number would not hold it.
        rig.now.wall.0 = rig.now.wall.0.clamp(START_WALL - 3 * TEN_YEARS, START_WALL + 3 * TEN_YEARS);
    }
    model.now = rig.now;
}

/// The host ends, and another reads back what is there.
fn restart(dice: &mut Dice, rig: &mut Rig, mut dead: Option<&mut Rig>, model: &mut Model) {
    read_back(dice, rig, model);
    if let (Some(dead), Some(model)) = (&mut dead, &mut model.dead) {
        read_back(dice, dead, model);
    }
    let most = 1 + dice.roll(4) as usize;
    let known = &mut Vec::new();
    let side = &mut Side { dice, rig, model, dead: dead.as_deref_mut(), known, is_grouped: false };
    side.end_leases(Cause::Restarted, most, None);
    compare(rig, model);
    if let (Some(dead), Some(model)) = (dead, &mut model.dead) {
        let side = &mut Side { dice, rig: dead, model, dead: None, known, is_grouped: false };
        side.end_leases(Cause::Restarted, most, None);
        compare(dead, model);
    }
}

fn read_back(dice: &mut Dice, rig: &mut Rig, model: &mut Model) {
    if dice.one_in(2) {
        rig.finish_checkpoint();
    }
    rig.reopen();
    rig.advance();
    model.lost.extend(model.leased());
    model.totals = Totals::default();
    for job in &mut model.jobs {
        job.progress = None;
        if !job.dated || job.stage == At::Dated {
            continue;
        }
        // Where a jump of the wall clock made a job ready early its place was taken again; or it has to wait for its
        // time again.
        let (is_dated, at, due) = rig.times(job.id);
        if job.stage == At::Ready && is_dated {
            (job.stage, job.at, job.due) = (At::Dated, at, due);
        } else if !matches!(job.stage, At::Delayed | At::Held) {
            assert!(at <= rig.now.at.0, "{job:?}");
            job.at = at;
        }
    }
    if let Some(run) = &mut model.redriving {
        run.2 = rig.redriving_next();
    }
    model.begin_turns();
    model.advance();
}

fn compare(rig: &Rig, model: &Model) {
    let now = rig.now;
    let stats = rig.state.stats(now);
    let bytes: usize = model.jobs.iter().filter(|job| !job.is_over()).map(|job| job.bytes).sum();
    assert_eq!(stats.payload_bytes, bytes as u64);
    assert_eq!((stats.paused, stats.draining), (model.paused, model.draining));
    assert_eq!(rig.state.is_paused(), (model.paused, model.draining));
    assert_eq!(stats.redriving, model.redriving.map_or(0, |run| run.0));
    assert_eq!(stats.groups, model.groups() as u64);
    assert_eq!(stats.totals, model.totals);
    assert_eq!(*rig.state.config(), model.config);
    assert_eq!(rig.state.is_idle(), model.waiting() == 0 && model.leased().is_empty());
    assert!(model.next().is_none() || rig.state.available(now) > 0);
    for state in JobState::ALL {
        let mut listed = Vec::new();
        let mut cursor = None;
        loop {
            let part = rig.state.list(now, state, cursor, 3).unwrap();
            listed.extend(part.jobs);
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
        let mut expected = model.in_state(state);
        let ids: [Vec<JobId>; 2] =
            [listed.iter().map(|job| job.id).collect(), expected.iter().map(|job| job.id).collect()];
        assert_eq!(listed.len(), expected.len(), "{state:?} {ids:?} {:?}", model.jobs);
        assert_eq!(stats.count(state), expected.len() as u64, "{state:?}");
        let mut found: Vec<_> = listed.iter().collect();
        if matches!(state, JobState::Ready | JobState::Blocked | JobState::Scheduled) {
            // Ordered by group, or on two clocks: compared one by one, and in order where the model knows it.
            expected.sort_by_key(|job| job.id);
            found.sort_by_key(|job| job.id);
        }
        for (found, job) in found.into_iter().zip(expected) {
            assert_eq!(
                (found.id, found.attempt, found.max_attempts, found.priority, found.redrives),
                (job.id, job.attempt, model.max_attempts(job), job.priority, job.redrives),
                "{state:?}"
            );
            assert_eq!(found.payload_bytes as usize, job.bytes);
            assert_eq!(found.group, job.group.map(|group| format!("g{group}")));
            let key = job.unique.filter(|(_, _, role)| *role != Role::Past);
            assert_eq!(found.unique_key, key.map(|(key, ..)| format!("k{key}")), "{job:?}");
            assert_eq!(found.cancelling, job.stage == At::Leased && job.asked > 0);
            assert_eq!(found.progress, job.progress.map(|percent| [percent].into()));
            assert_eq!(found.has_result, job.has_result);
            let failure = |failure: &Failure| (failure.attempt, !failure.detail.is_empty());
            assert!(found.failures.iter().map(failure).eq(job.failures.iter().copied()), "{found:?} {job:?}");
            assert_eq!(found.worker, (job.stage == At::Leased).then_some(WorkerId(job.worker)));
            assert_eq!(found.due, due_of(rig, job), "{job:?}");
            assert_eq!(found.expires, (job.expires != u64::MAX).then(|| wall_of(rig, job.expires)));
            assert_eq!(found.since, wall_of(rig, job.at), "{job:?}");
        }
    }
    let schedules = rig.state.schedules().map(|(schedule, next)| (schedule, next.0));
    assert!(schedules.eq(model.schedules.values().map(|planned| (&planned.schedule, planned.next))));
    rig.check_places();
    for kept in rig.kept.values() {
        let job = &model.jobs[model.index(kept.job).expect("it is there")];
        assert!(if kept.is_result { job.has_result } else { kept.bytes == PAYLOAD[..job.bytes] }, "{job:?}");
    }
    let due = rig.state.next_due(now).map_or(u64::MAX, |due| due.0);
    let first = next_due(model);
    assert!(due <= first.max(now.at.0), "{due} {first}");
}

/// A time on the mesh's time line, as the wall clock would show it.
fn wall_of(rig: &Rig, at: u64) -> Timestamp {
    let wall = i128::from(rig.now.wall.0) + i128::from(at) - i128::from(rig.now.at.0);
    Timestamp(u64::try_from(wall.clamp(0, i128::from(u64::MAX))).unwrap())
}

fn due_of(rig: &Rig, job: &Job) -> Option<Timestamp> {
    match job.stage {
        At::Dated => Some(Timestamp(job.due)),
        At::Ready | At::Held => None,
        _ => Some(wall_of(rig, job.due)),
    }
}

/// When time alone changes something next.
fn next_due(model: &Model) -> u64 {
    let now = model.now;
    let mut due = Vec::new();
    // The wall clock may be set: it is looked at once a minute.
    let wall = |wall: u64| now.at.0 + wall.saturating_sub(now.wall.0).min(60 * SECOND);
    for job in &model.jobs {
        due.push(if job.stage == At::Dated { wall(job.due) } else { u64::MAX });
        let ends = matches!(job.stage, At::Delayed | At::Retry | At::Leased | At::Over(_));
        due.push(if ends { job.due } else { u64::MAX });
        due.push(if job.waits() { job.expires } else { u64::MAX });
        due.push(if job.stage == At::Leased && job.asked > 0 { job.asked } else { u64::MAX });
    }
    due.extend(model.schedules.values().map(|planned| wall(planned.next)));
    due.extend(model.windows.iter().map(|(_, _, until)| *until));
    let is_ready = |job: &&Job| job.stage == At::Ready;
    for job in model.jobs.iter().filter(is_ready) {
        let at = job.group.map_or(0, |group| model.group_ready_at(group));
        due.push(if at > now.at.0 { at } else { u64::MAX });
        let at = model.config.rate.map_or(0, |rate| lists::ready_at(model.bucket, rate));
        due.push(if at > now.at.0 { at } else { u64::MAX });
    }
    if let Some((1.., _, next)) = model.redriving
        && model.jobs.iter().any(|job| job.stage == At::Over(JobState::Dead))
    {
        due.push(next);
    }
    due.into_iter().min().unwrap_or(u64::MAX)
}

#[test]
fn random_operations_agree_with_plain_lists() {
    let seed = std::env::var("FLOWMESH_SEED").ok().and_then(|seed| seed.parse().ok());
    let count: usize =
        std::env::var("FLOWMESH_STEPS").ok().and_then(|count| count.parse().ok()).unwrap_or(STEPS);
    let first = seed.unwrap_or_else(|| {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        time.as_nanos() as u64
    });
    let rounds = if seed.is_some() { 1 } else { count.div_ceil(STEPS_OF_ROUND) };
    for round in 0..rounds as u64 {
        let seed = first.wrapping_add(round);
        let result = std::panic::catch_unwind(|| run(seed, STEPS_OF_ROUND));
        if let Err(reason) = result {
            eprintln!("again with FLOWMESH_SEED={seed}");
            std::panic::resume_unwind(reason);
        }
    }
}

const STEPS_OF_ROUND: usize = 5000;
/// A debug build takes ten times as long for each.
const STEPS: usize = if cfg!(debug_assertions) { 200_000 } else { 2_000_000 };
