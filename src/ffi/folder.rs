//! The folder of the module cache on disk.
//!
//! What lies there is run, so nobody but the user that nginx runs as may be able to put anything there. It is looked
//! at anew for each module: the folder, or the user of the process, may be another since.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdir, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::vm::{CodeStore, StoreError};

/// A folder that was found safe once.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Takes a folder, which is made when it is not there; its parent must be. The error begins with the path.
    pub fn set_up(path: &Path) -> Result<Self, String> {
        // Without a slash or a dot at the end, which would follow a symbolic link.
        let folder = Self { path: path.components().collect() };
        let usable = match mkdir(&folder.path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => folder.open(),
            // It may be there all the same, in a file system that is not written to.
            Err(error) => folder.open().map_err(|_| format!("cannot be made: {error}")),
        };
        usable.map_err(|cause| format!("{} {cause}", folder.path.display()))?;
        Ok(folder)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error completes a sentence that begins with the path.
    fn open(&self) -> Result<OwnedFd, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder =
            openat(CWD, &self.path, flags, Mode::empty()).map_err(|error| {
                match statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| kind(&stat)) {
                    Ok(FileType::Symlink) => "is a symbolic link: name the folder itself".into(),
                    Ok(FileType::Directory) | Err(_) => format!("cannot be opened: {error}"),
                    Ok(_) => "is not a folder".into(),
                }
            })?;
        let stat = fstat(&folder).map_err(|error| format!("cannot be looked at: {error}"))?;
        only_ours(&stat)?;
        Ok(folder)
    }
}

// SAFETY: the folder and each file that is read from it belong to the user that this process runs as, and nobody else
// can write to them.
unsafe impl CodeStore for Folder {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let folder = self.open().map_err(StoreError::Unusable)?;
        read(&folder, name).map_err(|cause| StoreError::Entry(format!("{name} {cause}")))
    }

    fn write(&self, name: &str, parts: [&[u8]; 2]) -> Result<(), StoreError> {
        let write = || {
            let folder = self.open()?;
            write(&folder, name, parts).map_err(|error| format!("cannot take {name}: {error}"))
        };
        write().map_err(StoreError::Unusable)
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn only_ours(stat: &Stat) -> Result<(), String> {
    let user = geteuid().as_raw();
    if stat.st_uid != user {
        let owner = stat.st_uid;
        return Err(format!("belongs to user {owner}, and this process runs as user {user}"));
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(format!("can be written to by others (mode {mode:03o}): chmod go-w"));
    }
    Ok(())
}

fn read(folder: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>, String> {
    // Opening a FIFO would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err("is a symbolic link".into()),
        Err(error) => return Err(format!("cannot be opened: {error}")),
    };
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let stat = fstat(&file).map_err(|error| unreadable(error.into()))?;
    if kind(&stat) != FileType::RegularFile {
        return Err("is not a file".into());
    }
    only_ours(&stat)?;
    let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0));
    File::from(file).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

/// Writes a file beside it and renames that, so that a reader finds a whole entry or none.
fn write(folder: &OwnedFd, name: &str, parts: [&[u8]; 2]) -> io::Result<()> {
    let temporary = format!(".{name}.{:016x}", getrandom::u64().map_err(io::Error::other)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let mut fill = || {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        renameat(folder, &temporary, folder, name)?;
        Ok(())
    };
    fill().inspect_err(|_| {
        let _ = unlinkat(folder, &temporary, AtFlags::empty());
    })
}
