//! The folder of the module cache on disk.
//!
//! What lies there is run, so only root and the user of this process may be able to put anything there. Workers
//! that a master of root's starts as another user read what it wrote, and add nothing. The folder is checked again for
//! each module: it, or the user of the process, may have changed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, mkdir,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::turn::{Attempt, wait};
use crate::vm::{CodeStore, StoreError, Turn};

/// What all users may read and only the owner may write.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);
const ENTRY_MODE: Mode = Mode::from_raw_mode(0o644);

/// A folder that was found safe once, and the user that it belonged to.
pub struct Folder {
    path: PathBuf,
    owner: u32,
}

impl Folder {
    /// Takes a folder, which is made when it is not there; its parent must be. The error begins with the path.
    pub fn set_up(path: &Path) -> Result<Self, String> {
        // Without a slash or a dot at the end, which would follow a symbolic link.
        let path: PathBuf = path.components().collect();
        let made = mkdir(&path, FOLDER_MODE);
        let usable = open(&path, &[geteuid().as_raw(), 0]).and_then(|(folder, owner)| {
            if made.is_ok() {
                // The umask may have taken away what workers need.
                fchmod(&folder, FOLDER_MODE)
                    .map_err(|error| format!("cannot be given its mode: {error}"))?;
            }
            Ok(owner)
        });
        let owner = match (made, usable) {
            // It may be there all the same, in a file system that is not written to.
            (_, Ok(owner)) => owner,
            (Ok(()) | Err(Errno::EXIST), Err(cause)) => {
                return Err(format!("{} {cause}", path.display()));
            }
            (Err(error), Err(_)) => {
                return Err(format!("{} cannot be made: {error}", path.display()));
            }
        };
        Ok(Self { path, owner })
    }

    /// Takes a folder that is there, to look at it. The error begins with the path.
    pub fn open_existing(path: &Path) -> Result<Self, String> {
        let path: PathBuf = path.components().collect();
        match open(&path, &[geteuid().as_raw(), 0]) {
            Ok((_, owner)) => Ok(Self { path, owner }),
            Err(cause) => Err(format!("{} {cause}", path.display())),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<OwnedFd, String> {
        open(&self.path, &[self.owner]).map(|(folder, _)| folder)
    }
}

// SAFETY: the folder and each file that is read from it belong to root or to the user that this process runs as, and
// no other user can write to them.
unsafe impl CodeStore for Folder {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let folder = self.open().map_err(StoreError::Unusable)?;
        read(&folder, name, self.owner)
            .map_err(|cause| StoreError::Entry(format!("{name} {cause}")))
    }

    fn write(&self, name: &str, parts: [&[u8]; 2]) -> Result<(), StoreError> {
        let folder = self.open().map_err(StoreError::Unusable)?;
        let (owner, user) = (self.owner, geteuid().as_raw());
        if owner != user {
            return Err(StoreError::ReadOnly(format!(
                "belongs to user {owner}, so this process (user {user}) only reads it: a module that is not in it is \
                 compiled in each worker; a master of user {owner} keeps those that init_by_lua loads"
            )));
        }
        write(&folder, name, parts)
            .map_err(|error| StoreError::Unusable(format!("cannot take {name}: {error}")))
    }

    fn turn(&self, name: &str) -> Option<Turn> {
        let folder = self.open().ok().filter(|_| self.owner == geteuid().as_raw())?;
        let name = format!(".{name}.lock");
        wait(|| try_lock(&folder, &name)).map(|file| {
            let turn: Turn = Box::new(Lock { folder, name, _file: file });
            turn
        })
    }
}

/// A file that its maker holds locked. The system lets go of the lock when the process ends, however that happens.
struct Lock {
    folder: OwnedFd,
    name: String,
    _file: OwnedFd,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before it is let go of: who gets hold of it afterwards sees that it has no name.
        let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
    }
}

/// Takes the lock file of that name, made when it is not there.
fn try_lock(folder: &OwnedFd, name: &str) -> Attempt<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = openat(folder, name, flags, Mode::RUSR | Mode::WUSR) else {
        return Attempt::Impossible;
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Attempt::Taken,
        Err(_) => return Attempt::Impossible,
    }
    // Another one may have held it and removed it.
    let held = fstat(&file).map(|stat| stat.st_ino);
    let named = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ino);
    match (held, named) {
        (Ok(held), Ok(named)) if held == named => Attempt::Held(file),
        (Ok(_), Ok(_) | Err(Errno::NOENT)) => Attempt::Taken,
        _ => Attempt::Impossible,
    }
}

/// The folder and its owner, one of `users`. The error completes a sentence that begins with the path.
fn open(path: &Path, users: &[u32]) -> Result<(OwnedFd, u32), String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty()).map_err(|error| {
        match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| kind(&stat)) {
            Ok(FileType::Symlink) => "is a symbolic link: name the folder itself".into(),
            Ok(FileType::Directory) | Err(_) => unopened(error, "chmod go+rx"),
            Ok(_) => "is not a folder".into(),
        }
    })?;
    let stat = fstat(&folder).map_err(|error| format!("cannot be looked at: {error}"))?;
    trusted(&stat, users)?;
    Ok((folder, stat.st_uid))
}

/// Workers that may not read what their master wrote are told what lets them.
fn unopened(error: Errno, cure: &str) -> String {
    match error {
        Errno::ACCESS => {
            format!("cannot be opened by user {}: {error}: {cure}", geteuid().as_raw())
        }
        _ => format!("cannot be opened: {error}"),
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Only its owner, one of `users`, and root can have written it.
fn trusted(stat: &Stat, users: &[u32]) -> Result<(), String> {
    let (owner, user) = (stat.st_uid, geteuid().as_raw());
    if !users.contains(&owner) {
        return Err(if owner == user {
            format!("belongs to user {owner}, and not to user {}", users[0])
        } else {
            format!("belongs to user {owner}, and this process runs as user {user}")
        });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(format!("can be written to by others (mode {mode:03o}): chmod go-w"));
    }
    Ok(())
}

fn read(folder: &OwnedFd, name: &str, owner: u32) -> Result<Option<Vec<u8>>, String> {
    // Opening a FIFO would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err("is a symbolic link".into()),
        Err(error) => return Err(unopened(error, "chmod go+r")),
    };
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let stat = fstat(&file).map_err(|error| unreadable(error.into()))?;
    if kind(&stat) != FileType::RegularFile {
        return Err("is not a file".into());
    }
    trusted(&stat, &[owner, 0])?;
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
        fchmod(&file, ENTRY_MODE)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        renameat(folder, &temporary, folder, name)?;
        Ok(())
    };
    fill().inspect_err(|_| {
        let _ = unlinkat(folder, &temporary, AtFlags::empty());
    })
}
