//! Files in memory, for a mesh without a directory: the same calls, and nothing outlives the process.

use super::{File, Open, Storage};
use crate::sync::lock::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

/// A directory in memory. Rooms for files are made as they fill, whatever was allocated.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    tree: Mutex<Tree>,
}

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<String, Arc<MemoryFile>>,
    directories: BTreeSet<String>,
}

impl Storage for MemoryStorage {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        let mut tree = self.tree.lock();
        match (tree.files.get(name), how) {
            (Some(file), Open::Existing | Open::ReadOnly) => Ok(file.clone()),
            (Some(_), Open::New) => Err(io::ErrorKind::AlreadyExists.into()),
            (None, Open::Existing | Open::ReadOnly) => Err(io::ErrorKind::NotFound.into()),
            (None, Open::New) => {
                let file = Arc::new(MemoryFile::default());
                tree.files.insert(name.to_owned(), file.clone());
                Ok(file)
            }
        }
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let tree = self.tree.lock();
        if !directory.is_empty() && !tree.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(children(directory, tree.files.keys().chain(&tree.directories)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let file = tree.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        tree.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.tree.lock().files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn make_directory(&self, directory: &str) -> io::Result<()> {
        self.tree.lock().directories.insert(directory.to_owned());
        Ok(())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn is_volatile(&self) -> bool {
        true
    }
}

/// The last parts of those `names` that lie right below `directory`.
pub(super) fn children<'a>(directory: &str, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let below = |name: &&'a String| {
        let rest = if directory.is_empty() {
            name.as_str()
        } else {
            name.strip_prefix(directory)?.strip_prefix('/')?
        };
        (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned())
    };
    names.filter_map(|name| below(&name)).collect()
}

#[derive(Debug, Default)]
struct MemoryFile {
    bytes: RwLock<Vec<u8>>,
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(read(&self.bytes.read(), offset, into))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        write(&mut self.bytes.write(), offset, bytes);
        Ok(bytes.len())
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn read(from: &[u8], offset: u64, into: &mut [u8]) -> usize {
    let from = usize::try_from(offset).ok().and_then(|offset| from.get(offset..)).unwrap_or(&[]);
    let count = from.len().min(into.len());
    into[..count].copy_from_slice(&from[..count]);
    count
}

pub(super) fn write(into: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = offset as usize;
    if into.len() < offset {
        into.resize(offset, 0);
    }
    let over = bytes.len().min(into.len() - offset);
    into[offset..offset + over].copy_from_slice(&bytes[..over]);
    into.extend_from_slice(&bytes[over..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_grows_and_keeps_its_bytes_under_another_name() {
        let storage = MemoryStorage::default();
        let file = storage.open("one", Open::New).unwrap();
        assert!(storage.open("one", Open::New).is_err() && storage.open("two", Open::Existing).is_err());
        file.write_at(4, b"later").unwrap();
        file.write_at(2, b"soon").unwrap();
        storage.make_directory("old").unwrap();
        storage.rename("one", "old/one").unwrap();
        let mut bytes = [9; 16];
        let read = storage.open("old/one", Open::Existing).unwrap().read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"\0\0soonter");
        assert_eq!(
            (storage.list("").unwrap(), storage.list("old").unwrap()),
            (vec!["old".into()], vec!["one".into()])
        );
        storage.remove("old/one").unwrap();
        assert_eq!(storage.remove("old/one").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(file.len().unwrap(), 9);
    }
}
