//! Compiled code in sealed files of memory, which the workers of one nginx share.
//!
//! A process that has compiled a module, or has read it from the folder, writes it into a file of memory (`memfd_create(2)`), seals
//! it so that nothing can change or cut it, and maps it. Others find the file by its name among the open files of that
//! process, below `/proc`, and map the same memory. The file lives as long as some process uses it.
//!
//! Code is taken from files only that this process's own user or root has made: a master of root's takes none from its
//! workers.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate,
    memfd_create, openat, readlinkat,
};
use rustix::process::geteuid;

use super::process::PROCESS;
use crate::vm::{Images, Turn};
use proxy_wasm_host::turn::{Attempt, wait};

/// The files of the workers of this nginx.
pub(super) struct Siblings;

const SEALS: SealFlags = SealFlags::from_bits_retain(
    SealFlags::SEAL.bits()
        | SealFlags::SHRINK.bits()
        | SealFlags::GROW.bits()
        | SealFlags::WRITE.bits(),
);

// SAFETY: a file that is given out is sealed and belongs to root or to the user that this process runs as.
unsafe impl Images for Siblings {
    fn find(&self, name: &str) -> Option<File> {
        let link = format!("/memfd:{name} (deleted)");
        let others = PROCESS.shared.get()?.processes();
        others
            .into_iter()
            .filter(|id| *id != std::process::id())
            .find_map(|id| find_in(id, link.as_bytes()))
    }

    fn make(&self, name: &str, parts: [&[u8]; 2]) -> io::Result<File> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // The system says now whether it has the memory, and not by a signal later.
        let size = parts.iter().map(|part| part.len() as u64).sum();
        ftruncate(&file, size)?;
        let mut file = File::from(file);
        parts.iter().try_for_each(|part| file.write_all(part))?;
        fcntl_add_seals(&file, SEALS)?;
        // The descriptor that was written through is closed.
        reopened(&file, OFlags::RDONLY)
    }

    fn turn(&self, name: &str) -> Option<Turn> {
        let locks = PROCESS.image_locks.get()?.as_ref()?;
        // Locks belong to an open file, and the one that was inherited is open in all workers.
        let file = reopened(locks, OFlags::RDWR).ok()?;
        // A name begins with the digest of the module.
        let place = u64::from_str_radix(name.get(..15)?, 16).ok()?;
        wait(|| try_lock(&file, place))?;
        Some(Box::new(file))
    }
}

fn reopened(file: &impl AsFd, access: OFlags) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(openat(CWD, path, access | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// The file with that link among those of a process.
#[allow(clippy::disallowed_methods, reason = "a list of open files is not a folder of the host's")]
fn find_in(process: u32, link: &[u8]) -> Option<File> {
    let folder = format!("/proc/{process}/fd");
    for entry in std::fs::read_dir(&folder).ok()?.flatten() {
        let path = entry.path();
        let is_named = readlinkat(CWD, &path, Vec::new()).is_ok_and(|to| to.as_bytes() == link);
        if is_named
            && let Ok(file) = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            && is_trusted(&file)
        {
            return Some(file.into());
        }
    }
    None
}

/// Nothing can change it any more, and root or this user has made it.
fn is_trusted(file: &OwnedFd) -> bool {
    let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS));
    let owner = fstat(file).map(|stat| stat.st_uid);
    sealed && owner.is_ok_and(|owner| owner == 0 || owner == geteuid().as_raw())
}

fn try_lock(file: &File, place: u64) -> Attempt<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place as libc::off_t,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the structure is one that fcntl(2) reads.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match io::Error::last_os_error().raw_os_error() {
        _ if rc == 0 => Attempt::Held(()),
        Some(libc::EAGAIN | libc::EACCES | libc::EINTR) => Attempt::Taken,
        _ => Attempt::Impossible,
    }
}
