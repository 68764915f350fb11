//! The socket by which workers wake each other.
//!
//! The master makes it before it forks, so that all workers have it. It has no name in a file system: its file is removed
//! before the first worker starts, and cosockets reach it by `/proc/self/fd`.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, chmod, mkdir, openat, rmdir, unlink};

use crate::store::Address;

/// See the module.
pub(super) struct WakeSocket {
    socket: UnixDatagram,
    /// Its file, which has no name any more.
    pub path_fd: OwnedFd,
}

/// Where a file may be for a moment.
const FOLDERS: [&str; 4] = ["/tmp", "/dev/shm", "/var/tmp", "/run"];

/// The bytes that a worker's cosocket sends first.
pub(super) const HELLO: usize = 8;

impl WakeSocket {
    /// Makes one, in the first folder where that is possible; why not in the last one else.
    pub(super) fn new() -> Result<Self, String> {
        let mut failed = String::new();
        for folder in FOLDERS {
            match Self::new_in(Path::new(folder)) {
                Ok(made) => return Ok(made),
                Err(error) => failed = format!("{folder}: {error}"),
            }
        }
        Err(failed)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "no bytes of filters go through it: it only wakes"
    )]
    fn new_in(parent: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("rpw-{:016x}", u64::from_ne_bytes(random));
        let folder = parent.join(name);
        mkdir(&folder, Mode::RWXU)?;
        let path = folder.join("s");
        let made = Self::bind(&path);
        let _ = unlink(&path);
        rmdir(&folder)?;
        made
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "no bytes of filters go through it: it only wakes"
    )]
    fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        // Workers run as another user than the master, as a rule.
        chmod(path, Mode::from_raw_mode(0o666))?;
        let path_fd = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { socket, path_fd })
    }

    /// A hello that some worker sent, and the address of its cosocket.
    pub(super) fn recv(&self) -> Option<(u64, Address)> {
        loop {
            let mut hello = [0; HELLO];
            let (size, from) = self.socket.recv_from(&mut hello).ok()?;
            if size == HELLO
                && let Some(address) = number(&from)
            {
                return Some((u64::from_ne_bytes(hello), address));
            }
        }
    }

    /// Wakes the worker at that address.
    pub(super) fn send(&self, address: Address) -> io::Result<usize> {
        let to = SocketAddr::from_abstract_name(format!("{:05x}", address - 1))?;
        self.socket.send_to_addr(b"!", &to)
    }
}

/// The kernel's names are five hexadecimal digits.
fn number(of: &SocketAddr) -> Option<Address> {
    let name = of.as_abstract_name().filter(|name| name.len() == 5)?;
    let number = u32::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()?;
    Some(number + 1)
}
