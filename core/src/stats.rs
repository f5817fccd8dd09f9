//! Counters and the latency histogram, as plain values.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Everything one mesh counts, taken at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// How long the host has been open, in milliseconds.
    pub uptime_ms: u64,
    /// Events.
    pub bus: BusStats,
    /// Each subscription.
    pub subscriptions: Vec<SubscriptionStats>,
    /// Each service.
    pub services: Vec<ServiceStats>,
    /// Each session.
    pub sessions: Vec<SessionStats>,
    /// Sessions ended because the peer broke the protocol, since the host opened.
    pub protocol_violations: u64,
    /// Handshakes refused, since the host opened.
    pub handshakes_refused: u64,
}

/// Counts over all events since the host opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BusStats {
    /// Events accepted from publishers.
    pub published: u64,
    /// Their payload bytes.
    pub published_bytes: u64,
    /// Deliveries to subscriptions: one event to three subscriptions counts three.
    pub delivered: u64,
    /// Their payload bytes.
    pub delivered_bytes: u64,
    /// Deliveries lost because a subscription was slow.
    pub dropped: u64,
    /// Deliveries that came too late for their time to live.
    pub expired: u64,
    /// Events no subscription matched.
    pub unmatched: u64,
    /// Events waiting for their delay to pass.
    pub delayed: u64,
    /// Times a publisher had to wait for a subscriber that blocks.
    pub blocked: u64,
}

/// One subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionStats {
    /// Its pattern.
    pub pattern: String,
    /// Its queue group; empty for none.
    pub group: String,
    /// The session it belongs to; 0 is the host itself.
    pub session: u32,
    /// Events handed over.
    pub delivered: u64,
    /// Their payload bytes.
    pub delivered_bytes: u64,
    /// Events lost.
    pub dropped: u64,
    /// Events waiting now.
    pub depth: u64,
}

/// One service, over all its instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceStats {
    /// Its name.
    pub name: String,
    /// Instances now.
    pub instances: u32,
    /// Calls accepted.
    pub calls: u64,
    /// Calls that ended in a handler's failure.
    pub failed: u64,
    /// Calls whose deadline passed.
    pub timed_out: u64,
    /// Calls the caller cancelled.
    pub cancelled: u64,
    /// Calls whose instance died.
    pub peer_gone: u64,
    /// Calls refused by the rate limit.
    pub rate_limited: u64,
    /// Calls refused because too many were waiting.
    pub refused: u64,
    /// Calls an instance is working on now.
    pub in_flight: u64,
    /// Calls waiting for an instance now.
    pub depth: u64,
    /// Payload bytes of requests.
    pub request_bytes: u64,
    /// Payload bytes of responses.
    pub response_bytes: u64,
    /// From the host's accepting a call to its answer.
    pub latency: Histogram,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionStats {
    /// Its number.
    pub session: u32,
    /// The name the client gave.
    pub name: String,
    /// The client's language.
    pub language: String,
    /// The client's FlowMesh version.
    pub version: String,
    /// The client's process.
    pub pid: u32,
    /// `shm`, `unix` or `tcp`.
    pub transport: String,
    /// Frames received from the client.
    pub frames_in: u64,
    /// Bytes received from the client.
    pub bytes_in: u64,
    /// Frames sent to the client.
    pub frames_out: u64,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// Bytes waiting at the host for room in the ring.
    pub backlog_bytes: u64,
}

/// A service as discovery lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// Who serves it.
    pub instances: Vec<InstanceInfo>,
}

/// One instance of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceInfo {
    /// Its number, unique on the mesh.
    pub instance: u64,
    /// The service version it announced.
    pub version: String,
    /// Its session; 0 is the host itself.
    pub session: u32,
    /// Its process.
    pub pid: u32,
    /// The name its client gave.
    pub client: String,
    /// Calls it is working on.
    pub outstanding: u32,
    /// Calls it takes at once.
    pub concurrency: u32,
    /// Median time from accepting a call to its answer, in nanoseconds.
    pub latency_p50_ns: u64,
    /// The 99th percentile of the same.
    pub latency_p99_ns: u64,
}

/// A log-linear latency histogram: eight buckets to each power of two, from 1 ns to about 9 minutes.
///
/// A quantile is the upper edge of its bucket, so it is never more than 12.5 % above the true value.
/// The layout is HdrHistogram's with three significant bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many values fell in each bucket; trailing zeros are left out.
    buckets: Vec<u64>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

const SUB_BITS: u32 = 3;
const BUCKETS_MAX: usize = 37 << SUB_BITS;

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, value: Duration) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket_of(ns);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean, zero when nothing was counted.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.checked_div(self.count).unwrap_or(0))
    }

    /// The largest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The value below which the share `q` (0 to 1) of all durations lies.
    pub fn quantile(&self, q: f64) -> Duration {
        let wanted = (self.count as f64 * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_edge(bucket).min(self.max_ns));
            }
        }
        self.max()
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < 1 << SUB_BITS {
        return ns as usize;
    }
    let power = 63 - ns.leading_zeros();
    let sub = (ns >> (power - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    ((((power - SUB_BITS + 1) << SUB_BITS) as u64 + sub) as usize).min(BUCKETS_MAX - 1)
}

fn upper_edge(bucket: usize) -> u64 {
    let (group, sub) = ((bucket >> SUB_BITS) as u32, (bucket & ((1 << SUB_BITS) - 1)) as u64);
    if group == 0 {
        return sub;
    }
    let width = 1u64 << (group - 1);
    ((1 << SUB_BITS) + sub) * width + width - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let mut histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        for (q, exact_us) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(q).as_nanos() as f64 / 1000.0;
            assert!(found >= exact_us && found <= exact_us * 1.125, "{q}: {found}");
        }
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.max(), Duration::from_millis(1));
    }

    #[test]
    fn every_value_lies_at_or_below_its_bucket_edge() {
        for shift in 0..39 {
            for ns in [1u64 << shift, (1u64 << shift) + 1, (2u64 << shift) - 1] {
                let edge = upper_edge(bucket_of(ns));
                assert!(edge >= ns && edge <= ns + ns / 8 + 1, "{ns}: {edge}");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS_MAX - 1);
    }

    #[test]
    fn merge_adds() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        a.record(Duration::from_nanos(5));
        b.record(Duration::from_millis(5));
        a.merge(&b);
        assert_eq!((a.count(), a.max()), (2, Duration::from_millis(5)));
        assert_eq!(a.quantile(0.5), Duration::from_nanos(5));
    }
}
