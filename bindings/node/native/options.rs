//! Options as the TypeScript layer writes them: JSON, names and ranges already checked there.
#![forbid(unsafe_code)]

use flowmesh::{
    Backoff, BreakerOptions, Error, ErrorKind, Mesh, MeshBuilder, Name, OnSlow, RateLimit, Result, Retry,
    ServeOptions, Subject, SubscribeOptions, WaitStrategy,
};
use serde::Deserialize;
use std::time::Duration;

/// Reads `json`.
pub(crate) fn parse<T: for<'a> Deserialize<'a>>(json: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, "node.options").with("options", error))
}

/// Of `open`, `connect` and `connectTcp`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Opening {
    name: String,
    max_message_bytes: Option<usize>,
    ring_bytes: Option<usize>,
    max_sessions: Option<usize>,
    wait: Option<Waiting>,
    breaker: Option<Breaker>,
    timeout_ms: Option<f64>,
    shared_memory: Option<bool>,
    repair: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Waiting {
    Adaptive { spin_us: f64 },
    Block,
    Spin,
    Timed { interval_ms: f64 },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Breaker {
    Switch(bool),
    Options(BreakerFields),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BreakerFields {
    window_ms: Option<f64>,
    min_calls: Option<u32>,
    failure_ratio: Option<f64>,
    open_ms: Option<f64>,
    open_ms_max: Option<f64>,
    probes: Option<u32>,
}

impl Opening {
    /// A builder with these options.
    pub(crate) fn builder(&self) -> MeshBuilder {
        let mut builder = Mesh::builder().language("node").name(&self.name);
        if let Some(bytes) = self.max_message_bytes {
            builder = builder.max_message_bytes(bytes);
        }
        if let Some(bytes) = self.ring_bytes {
            builder = builder.ring_bytes(bytes);
        }
        if let Some(count) = self.max_sessions {
            builder = builder.max_sessions(count);
        }
        if let Some(wait) = &self.wait {
            builder = builder.wait_strategy(match wait {
                Waiting::Adaptive { spin_us } => WaitStrategy::Adaptive { spin: millis(spin_us / 1000.0) },
                Waiting::Block => WaitStrategy::Block,
                Waiting::Spin => WaitStrategy::Spin,
                Waiting::Timed { interval_ms } => WaitStrategy::Timed { interval: millis(*interval_ms) },
            });
        }
        match &self.breaker {
            Some(Breaker::Switch(false)) => builder = builder.breaker(None),
            Some(Breaker::Options(fields)) => builder = builder.breaker(Some(fields.options())),
            Some(Breaker::Switch(true)) | None => {}
        }
        if let Some(timeout_ms) = self.timeout_ms {
            builder = builder.connect_timeout(millis(timeout_ms));
        }
        if let Some(yes) = self.shared_memory {
            builder = builder.shared_memory(yes);
        }
        if let Some(yes) = self.repair {
            builder = builder.repair(yes);
        }
        builder
    }
}

impl BreakerFields {
    fn options(&self) -> BreakerOptions {
        let default = BreakerOptions::default();
        BreakerOptions {
            window: self.window_ms.map_or(default.window, millis),
            min_calls: self.min_calls.unwrap_or(default.min_calls),
            failure_ratio: self.failure_ratio.unwrap_or(default.failure_ratio),
            open_for: self.open_ms.map_or(default.open_for, millis),
            open_for_max: self.open_ms_max.map_or(default.open_for_max, millis),
            probes: self.probes.unwrap_or(default.probes),
        }
    }
}

/// Of `subscribe`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Subscribing {
    group: Option<String>,
    priority: Option<i32>,
    capacity: Option<usize>,
    on_slow: Option<Slow>,
    block_timeout_ms: Option<f64>,
    retry: Option<Retrying>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Slow {
    DropOldest,
    Block,
    Disconnect,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Retrying {
    max_attempts: Option<u32>,
    backoff_ms: Option<f64>,
    backoff_factor: Option<f64>,
    backoff_ms_max: Option<f64>,
    dead_letter: Option<String>,
}

impl Subscribing {
    pub(crate) fn options(&self) -> Result<SubscribeOptions> {
        let default = SubscribeOptions::default();
        Ok(SubscribeOptions {
            group: self.group.as_deref().map(Name::parse).transpose()?,
            priority: self.priority.unwrap_or(default.priority),
            capacity: self.capacity.unwrap_or(default.capacity),
            on_slow: match self.on_slow {
                None => default.on_slow,
                Some(Slow::DropOldest) => OnSlow::DropOldest,
                Some(Slow::Block) => {
                    OnSlow::Block { timeout: self.block_timeout_ms.map_or(BLOCK_TIMEOUT, millis) }
                }
                Some(Slow::Disconnect) => OnSlow::Disconnect,
            },
            retry: self.retry.as_ref().map(Retrying::options).transpose()?,
        })
    }
}

impl Retrying {
    fn options(&self) -> Result<Retry> {
        let default = Retry::default();
        let initial = self.backoff_ms.map_or(default.backoff.initial, millis);
        Ok(Retry {
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            backoff: Backoff {
                initial,
                factor: self.backoff_factor.unwrap_or(default.backoff.factor),
                max: self.backoff_ms_max.map_or(default.backoff.max.max(initial), millis),
            },
            dead_letter: self.dead_letter.as_deref().map(Subject::parse).transpose()?,
        })
    }
}

/// Of `serve`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Serving {
    version: Option<String>,
    concurrency: Option<u32>,
    queue: Option<u32>,
    rate: Option<f64>,
    burst: Option<u32>,
}

impl Serving {
    pub(crate) fn options(self) -> ServeOptions {
        let default = ServeOptions::default();
        ServeOptions {
            version: self.version.unwrap_or(default.version),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            queue: self.queue.unwrap_or(default.queue),
            rate: self.rate.map(|per_second| RateLimit {
                per_second,
                burst: self.burst.unwrap_or_else(|| per_second.clamp(1.0, 1e6) as u32),
            }),
        }
    }
}

/// Milliseconds as a duration. The TypeScript layer lets no negative, infinite or huge number pass.
pub(crate) fn millis(ms: f64) -> Duration {
    // Whole milliseconds stay whole: errors show them.
    Duration::from_millis(ms as u64) + Duration::from_nanos((ms.fract() * 1e6).round() as u64)
}

/// How long a publisher waits for a subscriber that blocks it, unless the subscriber says otherwise.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(1);
