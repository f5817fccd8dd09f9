//! What a host and a client do differently, behind one seam; handles know only this.
#![forbid(unsafe_code)]

use super::{
    call::CallState,
    engine::Engine,
    keeper::Jobs,
    options::PublishOptions,
    service::ServiceInbox,
    subscription::Inlet,
    wait::{Mailbox, Wait},
};
use crate::{
    bus::SubscribeOptions,
    error::{Error, Result},
    ledger::Durability,
    name::{Name, Pattern},
    queue::{Answered, QueueRequest},
    rpc::ServeOptions,
    stats::{ServiceInfo, Stats},
    wire::Draft,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// The operations of a mesh, already checked by the caller: names are valid, sizes within limits.
pub(super) trait Backend: Send + Sync {
    fn engine(&self) -> &Arc<Engine>;
    fn session(&self) -> u32;
    fn host_pid(&self) -> u32;
    fn max_message_bytes(&self) -> usize;

    /// Publishes one event; its id and timestamp are set here.
    fn publish(&self, draft: &mut Draft<'_>, options: &PublishOptions, wait: &mut Wait<'_>) -> Result<u64>;
    /// Publishes events that share all but subject and payload.
    fn publish_many(
        &self,
        events: &mut dyn Iterator<Item = (&str, &[u8])>,
        draft: &mut Draft<'_>,
        options: &PublishOptions,
        wait: &mut Wait<'_>,
    ) -> Result<()>;

    fn subscribe(&self, pattern: &Pattern, options: &SubscribeOptions) -> Result<Arc<Inlet>>;
    fn unsubscribe(&self, inlet: &Inlet);
    /// The subscriber took events: there is room for more.
    fn taken(&self, inlet: &Inlet);

    fn serve(&self, name: &Name, options: ServeOptions) -> Result<Arc<ServiceInbox>>;
    fn unserve(&self, inbox: &ServiceInbox);
    /// Answers a call.
    fn answer(&self, call: u64, answer: Answer<'_>) -> Result<()>;

    fn start_call(
        &self,
        service: &str,
        draft: &mut Draft<'_>,
        timeout: Duration,
        wait: &mut Wait<'_>,
    ) -> Result<Started>;
    fn cancel_call(&self, call: u64);

    /// Asks the queues for something and waits for the answer: a reservation as long as `wait` says, others at most
    /// [`REQUEST_TIMEOUT`].
    fn queue_request(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        wait: &mut Wait<'_>,
    ) -> Result<Answered>;
    /// Asks, and does not wait. `timeout` is how long a reservation waits.
    fn start_queue_request(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        timeout: Option<Duration>,
    ) -> Result<Started>;
    fn cancel_queue_request(&self, call: u64);
    fn jobs(&self) -> &Jobs;

    fn services(&self) -> Result<Vec<ServiceInfo>>;
    fn stats(&self) -> Result<Stats>;
    fn listen_tcp(&self, address: &str, secret: &[u8]) -> Result<SocketAddr>;
    fn close(&self, reason: Error);
}

/// How long an answer of the queues is waited for, unless jobs are what is waited for.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A call under way: its number and where its result will lie.
pub(super) type Started = (u64, Arc<Mailbox<CallState>>);

/// What a handler made of a call.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    Reply { payload: &'a [u8], headers: &'a [u8] },
    Failure(Error),
}
