//! What the parts cost, each alone and on one thread: `cargo bench -p flowmesh-benches [-- NAME]`.
//!
//! To see what a change does to a part. How fast the whole is, beside others, `benches/compare` tells.

use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flowmesh::bus::trie::Trie;
use flowmesh::bus::{Bus, Inbox, SubscriptionKey};
use flowmesh::clock::{Moment, Timestamp};
use flowmesh::ledger::{Batch, Durability, Entry, Fold, Ledger, LedgerConfig, Lsn, Owner, Place};
use flowmesh::queue::{
    Body, Changes, Effects, EnqueueOptions, JobId, NewJob, Now, QueueConfig, QueueState, Queues, QueuesFold,
    ReserveOptions, Times, Token, WorkerId,
};
use flowmesh::rpc::{CallerKey, Effect, InstanceKey, InstanceWho, Rpc, RpcLimits};
use flowmesh::shm::{
    AttentionMap, AttentionPage, Consumer, Producer, Push, ReaderMap, RegionFd, Ring, WaitingWord, WriterMap,
    frames, seal,
};
use flowmesh::storage::{File, FileStorage, MemoryStorage, Open, Storage};
use flowmesh::wire::{Draft, Kind, Message};
use flowmesh::{Name, OnSlow, Pattern, ServeOptions, SubscribeOptions};

/// A burst of frames into a ring and out of it again.
fn ring(criterion: &mut Criterion) {
    let (mut producer, mut consumer) = ring_ends();
    let mut out = Vec::with_capacity(RING_BYTES);
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("push, publish and drain 32 frames of 64 B", |bencher| {
        bencher.iter(|| {
            for _ in 0..BURST {
                assert_eq!(producer.try_push(&[black_box(&PAYLOAD)]).unwrap(), Push::Written);
            }
            assert_eq!(producer.publish(), Ring::None, "nobody sleeps");
            out.clear();
            consumer.drain(&mut out, RING_BYTES).unwrap();
            assert_eq!(frames(&out).count() as u64, BURST);
        });
    });
    group.finish();
}

/// What one batch costs on the way to the kernel, beside a bare positioned write of as many bytes; and a flushed batch
/// for each of many writers, beside a bare group commit. On the file system of the build directory.
fn ledger(criterion: &mut Criterion) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench-ledger");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root).unwrap();
    let storage = Arc::new(FileStorage::new(root.join("ledger")).unwrap());
    let (ledger, _) = Ledger::open(storage, &LedgerConfig::default(), &mut Nothing).unwrap();
    let payload = [7_u8; 128];
    let mut group = criterion.benchmark_group("ledger");
    let mut batch = Batch::new();
    let mut written = 0_u64;
    group.bench_function("write a batch of one entry of 128 B", |bencher| {
        bencher.iter(|| {
            batch.clear();
            batch.push(Owner(1), 1, &[black_box(&payload)]);
            written += 1;
            // As the mesh does, so that segments are made ahead and the disk stays bounded.
            if written.is_multiple_of(1 << 16) {
                ledger.tend(Moment(0));
            }
            if written.is_multiple_of(1 << 21) {
                ledger.checkpoint().unwrap().finish().unwrap();
            }
            ledger.write(&mut batch).unwrap().lsn
        });
    });
    let bytes = [7_u8; 192];
    let bare = FileStorage::new(root.join("bare")).unwrap().open("file", Open::New).unwrap();
    bare.allocate(64 << 20).unwrap();
    let mut at = 0;
    group.bench_function("a bare positioned write of 192 B", |bencher| {
        bencher.iter(|| {
            bare.write_at(at, black_box(&bytes)).unwrap();
            at = (at + 192) % (60 << 20);
        });
    });
    group.bench_function("entry and frame in memory, no write", |bencher| {
        let storage = Arc::new(MemoryStorage::default());
        let config = LedgerConfig { segment_bytes: 1 << 20, ..LedgerConfig::default() };
        let (ledger, _) = Ledger::open(storage, &config, &mut Nothing).unwrap();
        let mut batch = Batch::new();
        let mut written = 0_u64;
        bencher.iter(|| {
            batch.clear();
            batch.push(Owner(1), 1, &[black_box(&payload)]);
            written += 1;
            if written.is_multiple_of(1 << 14) {
                ledger.checkpoint().unwrap().finish().unwrap();
            }
            ledger.write(&mut batch).unwrap().lsn
        });
    });
    for writers in [1, 16, 64] {
        group.throughput(Throughput::Elements(writers));
        group.bench_function(format!("{writers} writers, each flushed"), |bencher| {
            bencher.iter_custom(|rounds| {
                in_threads(writers, rounds, &|| {
                    let mut batch = Batch::new();
                    batch.push(Owner(1), 1, &[&payload]);
                    let lsn = ledger.write(&mut batch).unwrap().lsn;
                    ledger.sync(lsn, Durability::Fsync).unwrap();
                })
            });
        });
        group.bench_function(format!("{writers} writers, a bare group commit"), |bencher| {
            let group = BareGroup { file: &*bare, state: Mutex::default(), moved: Condvar::new() };
            bencher.iter_custom(|rounds| in_threads(writers, rounds, &|| group.commit(&bytes)));
        });
    }
    group.finish();
    drop(ledger);
    let _ = std::fs::remove_dir_all(root);
}

/// How long `threads` threads take for `rounds` turns each.
fn in_threads(threads: u64, rounds: u64, turn: &(dyn Fn() + Sync)) -> Duration {
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..rounds).for_each(|_| turn()));
        }
    });
    start.elapsed()
}

/// Nothing but a positioned write, and one flush for all who wait.
struct BareGroup<'a> {
    file: &'a dyn File,
    /// Written, flushed, whether somebody leads.
    state: Mutex<(u64, u64, bool)>,
    moved: Condvar,
}

impl BareGroup<'_> {
    fn commit(&self, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        self.file.write_at(state.0 % 300_000 * 192, bytes).unwrap();
        state.0 += 1;
        let mine = state.0;
        loop {
            if state.1 >= mine {
                return;
            }
            if !state.2 {
                break;
            }
            state = self.moved.wait(state).unwrap();
        }
        let reached = state.0;
        state.2 = true;
        drop(state);
        self.file.sync().unwrap();
        let mut state = self.state.lock().unwrap();
        (state.1, state.2) = (reached, false);
        self.moved.notify_all();
    }
}

/// Stands on the ledger and wants nothing.
struct Nothing;

impl Fold for Nothing {
    fn image(&mut self, _: Owner, _: Lsn, _: &[u8]) -> flowmesh::Result<()> {
        Ok(())
    }

    fn entry(&mut self, _: Lsn, _: Place, _: Entry<'_>) -> flowmesh::Result<()> {
        Ok(())
    }

    fn kept(&mut self, _: &mut dyn FnMut(Place)) {}
}

/// The host's ring, with the host's end and the client's, in one process.
fn ring_ends() -> (Producer, Consumer) {
    let region = || {
        let region = RegionFd::create("flowmesh-bench", 1, RING_BYTES, 0).unwrap();
        let writer = WriterMap::map(region.fd(), &region.params()).unwrap();
        seal(region.fd()).unwrap();
        (writer, ReaderMap::map(region.fd(), &region.params()).unwrap())
    };
    let (host_writer, host_reader) = region();
    let (client_writer, client_reader) = region();
    let page = AttentionPage::create("flowmesh-bench").unwrap();
    let bell = WaitingWord::Attention(AttentionMap::map(page.fd()).unwrap());
    let producer = Producer::attach(host_writer, client_reader, bell);
    let consumer = Consumer::attach(client_writer, host_reader);
    (producer, consumer)
}

fn message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    group.bench_function("encode", |bencher| bencher.iter(|| draft(black_box(1)).encode()));
    let block = Arc::new(draft(1).encode());
    group.bench_function("decode", |bencher| {
        bencher.iter(|| Message::decode(black_box(&block), 0, block.len()).unwrap());
    });
    group.finish();
}

/// No subject comes from a cache.
fn trie(criterion: &mut Criterion) {
    let mut trie = Trie::new();
    for id in 0..PATTERNS {
        trie.insert(&pattern(id), id);
    }
    let mut matched = Vec::new();
    let mut turn = Turn(0);
    let subjects = subjects();
    criterion.bench_function("trie: match among 100,000 patterns", |bencher| {
        bencher.iter(|| {
            matched.clear();
            trie.matches(black_box(turn.next(&subjects)), &mut matched);
            assert!(!matched.is_empty());
        });
    });
}

fn route(criterion: &mut Criterion) {
    let mut bus = Bus::new(PATTERNS as usize);
    for id in 0..PATTERNS {
        let key = SubscriptionKey { owner: 1, id };
        bus.subscribe(key, &pattern(id), &SubscribeOptions::default()).unwrap();
    }
    let subjects = subjects();
    let mut turn = Turn(0);
    let mut group = criterion.benchmark_group("route");
    group.bench_function("the same subject again", |bencher| {
        bencher.iter(|| assert!(!bus.route(black_box(&subjects[0])).is_empty()));
    });
    group.bench_function("one of 64 subjects", |bencher| {
        bencher.iter(|| assert!(!bus.route(black_box(turn.next(&subjects[..64]))).is_empty()));
    });
    group.bench_function("one of more than are remembered", |bencher| {
        bencher.iter(|| assert!(!bus.route(black_box(turn.next(&subjects))).is_empty()));
    });
    group.finish();
}

/// One call through the host's table.
fn rpc(criterion: &mut Criterion) {
    let mut rpc = Rpc::new(RpcLimits::default());
    let mut effects = Vec::new();
    let (instance, who) = (InstanceKey { owner: 1, id: 1 }, InstanceWho::default());
    let service = Name::parse(SERVICE).unwrap();
    rpc.serve(instance, &service, ServeOptions::default(), who, NOW, &mut effects).unwrap();
    let message = draft(1).to_message();
    let mut caller = CallerKey { owner: 2, call: 0 };
    criterion.bench_function("rpc: request to response", |bencher| {
        bencher.iter(|| {
            caller.call += 1;
            rpc.request(caller, black_box(SERVICE), message.clone(), PATIENCE, NOW, &mut effects);
            let Some(Effect::Deliver { call, .. }) = effects.pop() else { panic!("not delivered") };
            rpc.respond(instance.owner, call, Ok(message.clone()), NOW, &mut effects);
            let Some(Effect::Answer { result: Ok(_), .. }) = effects.pop() else { panic!("not answered") };
        });
    });
}

fn inbox(criterion: &mut Criterion) {
    let mut inbox = Inbox::new(BURST as usize, OnSlow::DropOldest, None);
    let message = draft(1).to_message();
    let mut group = criterion.benchmark_group("inbox");
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("push and pop 32 events", |bencher| {
        bencher.iter(|| {
            for _ in 0..BURST {
                inbox.push(message.clone(), 0);
            }
            while let Some(delivery) = inbox.pop(WALL, NOW) {
                black_box(delivery);
            }
        });
    });
    group.finish();
}

/// One job through a queue: the state machine alone, then with its entries written to memory.
fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    for waiting in [0, 1_000_000] {
        let mut alone = Alone::new();
        (0..waiting).for_each(|_| alone.enqueue());
        group.bench_function(format!("state: enqueue, reserve, ack; {waiting} more wait"), |bencher| {
            bencher.iter(|| {
                alone.enqueue();
                let token = alone.reserve();
                alone.ack(token);
            });
        });
    }
    let mut alone = Alone::new();
    group.bench_function("state: enqueue", |bencher| bencher.iter(|| alone.enqueue()));
    let (queues, times) = queues();
    let mail = queues.declare(times, &Name::parse("mail").unwrap(), &QueueConfig::default()).unwrap().value.0;
    let options = EnqueueOptions::default();
    group.bench_function("over memory: enqueue, reserve, ack", |bencher| {
        bencher.iter(|| {
            let _ = queues.enqueue(times, mail, black_box(&JOB), &options).unwrap();
            let jobs = queues
                .reserve(times, mail, WorkerId(1), ReserveOptions::default(), 1, usize::MAX, None)
                .unwrap();
            let _ = queues.ack(times, mail, jobs.value[0].token, None).unwrap();
        });
    });
    let many = vec![(&JOB[..], &options); 100];
    group.throughput(Throughput::Elements(100));
    group.bench_function("over memory: the same, 100 at once", |bencher| {
        bencher.iter(|| {
            let _ = queues.enqueue_many(times, mail, &many).unwrap();
            let jobs = queues
                .reserve(times, mail, WorkerId(1), ReserveOptions::default(), 100, usize::MAX, None)
                .unwrap();
            let tokens: Vec<Token> = jobs.value.iter().map(|job| job.token).collect();
            let _ = queues.ack_many(times, mail, &tokens).unwrap();
        });
    });
    group.finish();
}

/// A queue whose changes are written nowhere.
struct Alone {
    state: QueueState,
    now: Now,
    options: EnqueueOptions,
    effects: Effects,
    count: u64,
}

impl Alone {
    fn new() -> Self {
        let state = QueueState::new(QueueConfig::default(), 1);
        let (options, effects) = (EnqueueOptions::default(), Effects::default());
        Self { state, now: Now::default(), options, effects, count: 0 }
    }

    fn apply(&mut self, changes: &Changes<'_>) {
        self.count += 1;
        for change in changes.iter() {
            let place = Place::from_bits(self.count);
            self.state.apply(Lsn(self.count), place, change, &mut self.effects).unwrap();
        }
        self.effects.clear();
    }

    fn enqueue(&mut self) {
        self.now.at.0 += 100;
        self.state.advance(self.now, &mut self.effects);
        let id =
            JobId(u128::from(self.count) << 64 | u128::from(self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let options = std::mem::take(&mut self.options);
        let (mut changes, mut outcomes) = (Changes::new(), Vec::with_capacity(1));
        let job = NewJob { id, options: &options, body: Body { payload: &JOB, ..Body::default() } };
        self.state.enqueue(self.now, &[job], &mut changes, &mut outcomes).unwrap();
        self.apply(&changes);
        self.options = options;
    }

    fn reserve(&mut self) -> Token {
        let mut changes = Changes::new();
        self.state.advance(self.now, &mut self.effects);
        self.state
            .reserve(self.now, WorkerId(1), ReserveOptions::default(), 1, usize::MAX, &mut changes)
            .unwrap();
        self.apply(&changes);
        let Some(flowmesh::queue::Change::Reserve { job, .. }) = changes.iter().next() else {
            panic!("none")
        };
        self.state.token_of(job.id).unwrap().1
    }

    fn ack(&mut self, token: Token) {
        let mut changes = Changes::new();
        self.state.advance(self.now, &mut self.effects);
        self.state.ack(self.now, token, None, &mut changes).unwrap();
        self.apply(&changes);
    }
}

fn queues() -> (Queues, Times) {
    struct Empty;
    impl Fold for Empty {
        fn image(&mut self, _: Owner, _: Lsn, _: &[u8]) -> flowmesh::Result<()> {
            Ok(())
        }
        fn entry(&mut self, _: Lsn, _: Place, _: Entry<'_>) -> flowmesh::Result<()> {
            Ok(())
        }
        fn kept(&mut self, _: &mut dyn FnMut(Place)) {}
    }
    let storage = Arc::new(MemoryStorage::default());
    let (ledger, _) = Ledger::open(storage, &LedgerConfig::default(), &mut Empty).unwrap();
    let times = Times { boot: Moment(1), wall: Timestamp(1_700_000_000_000_000_000) };
    (Queues::open(QueuesFold::new(1), ledger, times, 1, 1 << 20).unwrap().0, times)
}

const JOB: [u8; 128] = [7; 128];

fn draft(id: u64) -> Draft<'static> {
    Draft::new(Kind::Event, id, "plant1.line2.cell3.sensor4.reading", &PAYLOAD)
}

/// One subject of each pattern, neighbours far apart.
fn subjects() -> Vec<String> {
    (0..SUBJECTS).map(|number| subject(number * 7_919 % PATTERNS)).collect()
}

/// A tenth of them leave something open.
fn pattern(id: u32) -> Pattern {
    let subject = subject(id);
    let text = match id % 20 {
        0 => subject.replace(".reading", ".>"),
        1 => subject.replace(".reading", ".*"),
        _ => subject,
    };
    Pattern::parse(&text).unwrap()
}

fn subject(id: u32) -> String {
    format!("plant{}.line{}.cell{}.sensor{}.reading", id % 10, id / 10 % 10, id / 100 % 10, id / 1_000)
}

/// Goes round and round.
struct Turn(usize);

impl Turn {
    fn next<'a>(&mut self, subjects: &'a [String]) -> &'a str {
        self.0 = (self.0 + 1) % subjects.len();
        &subjects[self.0]
    }
}

const PAYLOAD: [u8; 64] = [7; 64];
const RING_BYTES: usize = 1 << 20;
const BURST: u64 = 32;
const PATTERNS: u32 = 100_000;
/// Far more than the bus remembers.
const SUBJECTS: u32 = 50_000;
const SERVICE: &str = "bench.echo";
const NOW: Moment = Moment(1_000_000_000);
const WALL: Timestamp = Timestamp(1_000_000_000);
const PATIENCE: Duration = Duration::from_secs(30);

criterion_group!(parts, ring, message, trie, route, rpc, inbox, ledger, queue);
criterion_main!(parts);
