//! The machine's files.

use super::{File, Open, Storage};
use crate::{
    error::{Error, Result},
    os,
};
use std::{
    fs, io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// A directory of the file system.
#[derive(Debug)]
pub struct FileStorage {
    root: PathBuf,
}

impl FileStorage {
    /// The directory `root`, which is made, and made durable, if there is none.
    ///
    /// # Errors
    /// `Io`, `PermissionDenied`, `NotFound` (of its parent).
    pub fn new(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let made = match fs::create_dir(&root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // One that another process made a moment ago may not be durable either.
            _ => root.parent().map_or(Ok(()), sync_directory),
        };
        made.map_err(|error| Error::from_io("storage.open", error).with("directory", root.display()))?;
        Ok(Self { root })
    }

    /// The directory `root` as it is, to be looked at.
    pub fn existing(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Storage for FileStorage {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(how != Open::ReadOnly)
            .create_new(how == Open::New)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(self.root.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        fs::read_dir(self.root.join(directory))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(name))
    }

    fn make_directory(&self, directory: &str) -> io::Result<()> {
        match fs::create_dir(self.root.join(directory)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        sync_directory(&self.root.join(directory))
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    fs::File::open(path)?.sync_all()
}

struct RealFile(fs::File);

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match os::file::allocate(self.0.as_fd(), bytes) {
            // Not every file system can; a write is as good, only slower to flush.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            allocated => allocated,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn distrust_cache(&self) {
        // What cannot be dropped is read from the cache: no worse than without asking.
        let _ = os::file::drop_cache(self.0.as_fd());
    }

    fn read_ahead(&self) {
        // What is not read ahead is read when it is needed.
        let _ = os::file::read_ahead(self.0.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read_full, write_full};
    use super::*;

    #[test]
    fn what_is_written_under_one_name_is_read_under_another() {
        let root = std::env::temp_dir().join(format!("flowmesh-storage-{}", std::process::id()));
        let storage = FileStorage::new(&root).unwrap();
        let file = storage.open("one", Open::New).unwrap();
        assert!(storage.open("one", Open::New).is_err());
        file.allocate(4096).unwrap();
        write_full(&*file, 4000, &[7; 200]).unwrap();
        file.sync().unwrap();
        file.distrust_cache();
        storage.make_directory("old").unwrap();
        storage.make_directory("old").unwrap();
        storage.rename("one", "old/one").unwrap();
        storage.sync_directory("").unwrap();
        storage.sync_directory("old").unwrap();
        assert_eq!(storage.list("").unwrap(), ["old"]);
        let mut bytes = [0; 300];
        let file = storage.open("old/one", Open::ReadOnly).unwrap();
        assert_eq!(read_full(&*file, 3990, &mut bytes).unwrap(), 210);
        assert!(bytes[..10] == [0; 10] && bytes[10..210] == [7; 200]);
        assert!(file.write_at(0, b"no").is_err(), "opened to be read");
        storage.remove("old/one").unwrap();
        fs::remove_dir_all(root).unwrap();
    }
}
