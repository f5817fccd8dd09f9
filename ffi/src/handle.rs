//! Typed handles over the registry: which C type stands for which Rust value.

use crate::{
    guard::Call,
    mesh::MeshHandle,
    message::MessageHandle,
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
}

/// Ends a handle that the library lent to a callback. The callback may have freed it itself.
pub(crate) fn take_back<C>(handle: *mut C) {
    HANDLES.remove(handle as u64);
}

/// Handles that C has not freed.
pub(crate) fn count() -> usize {
    HANDLES.live()
}
