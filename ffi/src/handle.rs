//! Typed handles over the registry: which C type stands for which Rust value.

use crate::{
    guard::Call,
    inspect::InspectionHandle,
    mesh::MeshHandle,
    message::MessageHandle,
    queue::{
        NamesHandle, QueueHandle, SettingsHandle,
        answer::AnswerHandle,
        job::{ContentHandle, JobHandle},
        look::JobsHandle,
        reserve::ReservationHandle,
        schedule::SchedulesHandle,
        worker::WorkerHandle,
    },
    registry::{HANDLES_MAX, Ref, Registry},
    rpc::PendingHandle,
    service::{RequestHandle, ServiceHandle},
    stats::{InstancesHandle, SnapshotHandle},
    subscription::SubscriptionHandle,
};
use flowmesh::{ErrorKind, Result};
use std::{marker::PhantomData, ops::Deref};

static HANDLES: Registry<Object> = Registry::new();
// What a handle costs, beside what it stands for: a quarter of a kilobyte.
const _: () = assert!(size_of::<Object>() <= 240);

/// A value that C holds a handle of.
pub(crate) trait Handle: Sized + 'static {
    /// The opaque type that C sees.
    type C;
    /// What errors call it.
    const NOUN: &'static str;
    fn of(object: &Object) -> Option<&Self>;
    fn into_object(self) -> Object;
}

macro_rules! handles {
    ($($variant:ident($value:ty) = $c:path, $noun:literal;)*) => {
        /// Any value that C can hold a handle of.
        pub(crate) enum Object {
            $($variant($value),)*
        }

        impl Object {
            fn noun(&self) -> &'static str {
                match self { $(Self::$variant(_) => $noun,)* }
            }
        }

        $(impl Handle for $value {
            type C = $c;
            const NOUN: &'static str = $noun;

            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$variant(value) => Some(value),
                    #[allow(unreachable_patterns)]
                    _ => None,
                }
            }

            fn into_object(self) -> Object {
                Object::$variant(self)
            }
        })*
    };
}

handles! {
    Mesh(MeshHandle) = crate::mesh::flowmesh_mesh, "mesh";
    Subscription(SubscriptionHandle) = crate::subscription::flowmesh_subscription, "subscription";
    Message(MessageHandle) = crate::message::flowmesh_message, "message";
    Service(ServiceHandle) = crate::service::flowmesh_service, "service";
    Request(RequestHandle) = crate::service::flowmesh_request, "request";
    Pending(PendingHandle) = crate::rpc::flowmesh_pending, "pending call";
    Instances(InstancesHandle) = crate::stats::flowmesh_instance_list, "list of instances";
    Snapshot(SnapshotHandle) = crate::stats::flowmesh_snapshot, "snapshot";
    Queue(QueueHandle) = crate::queue::flowmesh_queue, "queue";
    Names(NamesHandle) = crate::queue::flowmesh_name_list, "list of names";
    Settings(SettingsHandle) = crate::queue::flowmesh_queue_settings, "settings";
    Job(JobHandle) = crate::queue::job::flowmesh_job, "job";
    Answer(AnswerHandle) = crate::queue::answer::flowmesh_job_answer, "answer about a job";
    Content(ContentHandle) = crate::queue::job::flowmesh_content, "content";
    Reservation(ReservationHandle) = crate::queue::reserve::flowmesh_reservation, "reservation";
    Jobs(JobsHandle) = crate::queue::look::flowmesh_job_list, "list of jobs";
    Worker(WorkerHandle) = crate::queue::worker::flowmesh_worker, "worker";
    Inspection(InspectionHandle) = crate::inspect::flowmesh_inspection, "inspection";
    Schedules(SchedulesHandle) = crate::queue::schedule::flowmesh_schedule_list, "list of schedules";
}

/// A handle's value for the time of a call: freeing the handle meanwhile does not take it away.
pub(crate) struct Live<T: Handle> {
    share: Ref<Object>,
    value: PhantomData<T>,
}

impl<T: Handle> Deref for Live<T> {
    type Target = T;

    fn deref(&self) -> &T {
        T::of(&self.share).expect("`Call::live` checked the type, and a slot in use keeps its value")
    }
}

impl Call {
    /// The value behind `handle`.
    #[inline]
    pub(crate) fn live<T: Handle>(self, handle: *const T::C) -> Result<Live<T>> {
        if handle.is_null() {
            return Err(self.null(T::NOUN));
        }
        match HANDLES.get(handle as u64) {
            Some(share) if T::of(&share).is_some() => Ok(Live { share, value: PhantomData }),
            Some(other) => {
                Err(self.error(ErrorKind::BadHandle).with("expected", T::NOUN).with("found", other.noun()))
            }
            None => Err(self
                .error(ErrorKind::BadHandle)
                .with("expected", T::NOUN)
                .with("found", "no live handle")),
        }
    }

    /// A new handle, which C is to free.
    pub(crate) fn give<T: Handle>(self, value: T) -> Result<*mut T::C> {
        match HANDLES.insert(value.into_object()) {
            Ok(handle) => Ok(handle as *mut T::C),
            Err(_) => Err(self.error(ErrorKind::ResourceExhausted).with("handles", HANDLES_MAX)),
        }
    }

    /// Ends `handle` after `last` was done with its value; NULL is fine.
    pub(crate) fn free<T: Handle>(self, handle: *mut T::C, last: impl FnOnce(&T)) -> Result<()> {
        if handle.is_null() {
            return Ok(());
        }
        let value = self.live::<T>(handle)?;
        if !HANDLES.remove(handle as u64) {
            return Err(self
                .error(ErrorKind::BadHandle)
                .with("expected", T::NOUN)
                .with("found", "freed by another thread"));
        }
        last(&value);
        Ok(())
    }

    /// Ends `count` handles and writes NULL in their places; NULL is fine.
    ///
    /// # Safety
    /// `handles` is NULL or points to `count` handles that nobody else uses during the call.
    pub(crate) unsafe fn free_many<T: Handle>(
        self,
        handles: *mut *mut T::C,
        count: usize,
        argument: &'static str,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let mut outcome = Ok(());
        // SAFETY: the caller's duty, passed on.
        for place in unsafe { self.room(handles, count, argument) }? {
            // SAFETY: the caller filled each place, with NULL if with nothing else.
            let handle = unsafe { place.assume_init_read() };
            outcome = outcome.and(self.free::<T>(handle, |_| ()));
            place.write(std::ptr::null_mut());
        }
        outcome
    }
}

/// Ends a handle that the library lent to a callback. The callback may have freed it itself.
pub(crate) fn take_back<C>(handle: *mut C) {
    HANDLES.remove(handle as u64);
}

/// Handles that C has not freed.
pub(crate) fn count() -> usize {
    HANDLES.live()
}
