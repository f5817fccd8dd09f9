//! Where a process says that it sleeps: in its own region, or on one page for all its sessions.
//!
//!   offset  size  field           (little-endian)
//!        0     8  magic           "FLOWWAIT"
//!        8     4  layout version  1
//!      128     4  waiting         as in a region
//!
//! A host has one [`AttentionPage`], so that its poller arms once however many clients it has, and each
//! client maps it read-only. A client, with its one session, uses the word in its own region.

use super::copy::copy;
use super::region::{ReaderMap, WriterMap, check_file};
use super::ring::{Region, Waiting, WaitingWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::os::map::{Access, Map};
use crate::os::memfd;
use crate::sync::AtomicU32;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The page on which this process says that it sleeps. Gone from a forked child.
#[derive(Debug)]
pub struct AttentionPage {
    fd: OwnedFd,
    map: Map,
}

impl AttentionPage {
    /// Makes the page, maps it and seals it against any other writer.
    ///
    /// # Errors
    /// - [`ErrorKind::ResourceExhausted`]: no memory or no descriptor for it.
    pub fn create(name: &str) -> Result<Arc<Self>> {
        let file = File::from(memfd::create(name, PAGE_BYTES as u64)?);
        file.write_all_at(&IDENTITY, 0).map_err(|error| Error::from_io("shm.attention.create", error))?;
        let map = Map::plain(file.as_fd(), PAGE_BYTES, Access::ReadWrite)?;
        memfd::seal_writer(file.as_fd())?;
        Ok(Arc::new(Self { fd: OwnedFd::from(file), map }))
    }

    /// The descriptor to send to the peers.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The writer of its word. Take it once.
    pub fn waiting_writer(self: &Arc<Self>) -> WaitingWriter<OwnWaiting> {
        WaitingWriter::new(OwnWaiting::Attention(Arc::clone(self)))
    }
}

impl WriterMap {
    /// The writer of this region's word. Take it once.
    pub fn waiting_writer(self: &Arc<Self>) -> WaitingWriter<OwnWaiting> {
        WaitingWriter::new(OwnWaiting::Region(Arc::clone(self)))
    }
}

/// The peer's attention page, mapped read-only.
#[derive(Debug)]
pub struct AttentionMap {
    map: Map,
}

impl AttentionMap {
    /// Maps the page that a peer sent.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: the file is not such a page, or lacks a seal.
    pub fn map(fd: BorrowedFd<'_>) -> Result<Arc<Self>> {
        check_file(fd, PAGE_BYTES, memfd::WRITER_SEALS)?;
        let map = Map::plain(fd, PAGE_BYTES, Access::ReadOnly)?;
        let mut identity = [0; IDENTITY.len()];
        // SAFETY: the page is longer than the identity, which is private.
        unsafe { copy(identity.as_mut_ptr(), map.base().as_ptr(), identity.len()) };
        if identity != IDENTITY {
            return Err(Error::new(ErrorKind::Protocol, "shm.map").with("rule", "an attention page"));
        }
        Ok(Arc::new(Self { map }))
    }
}

/// The word in which this process says that it sleeps.
#[derive(Debug)]
pub enum OwnWaiting {
    /// On its attention page.
    Attention(Arc<AttentionPage>),
    /// In its own region.
    Region(Arc<WriterMap>),
}

/// The word in which the peer says that it sleeps.
#[derive(Clone, Debug)]
pub enum WaitingWord {
    /// On the host's attention page: for a client's producer.
    Attention(Arc<AttentionMap>),
    /// In the client's region: for a host's producer.
    Region(Arc<ReaderMap>),
}

impl Waiting for OwnWaiting {
    #[inline]
    fn waiting(&self) -> &AtomicU32 {
        match self {
            Self::Attention(page) => word(&page.map),
            Self::Region(region) => &region.words().waiting.0,
        }
    }
}

impl Waiting for WaitingWord {
    #[inline]
    fn waiting(&self) -> &AtomicU32 {
        match self {
            Self::Attention(page) => word(&page.map),
            Self::Region(region) => &region.words().waiting.0,
        }
    }
}

const IDENTITY: [u8; 12] = *b"FLOWWAIT\x01\0\0\0";
const PAGE_BYTES: usize = 4096;
const WORD_AT: usize = 128;

const _: () = assert!(IDENTITY.len() <= WORD_AT && WORD_AT + 4 <= PAGE_BYTES);

#[inline]
fn word(map: &Map) -> &AtomicU32 {
    // SAFETY: both kinds of map hold a whole page as long as they live; the word is aligned and atomic, and
    // a read-only one is only loaded from: `WaitingWriter` alone stores, to the own page.
    unsafe { map.base().add(WORD_AT).cast::<AtomicU32>().as_ref() }
}
