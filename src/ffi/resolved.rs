//! The addresses that nginx resolved names to.
//!
//! nginx's resolver tells Lua no address. But Lua can connect a UDP socket to a name, for which nothing is sent, and to a port
//! that no other socket has: so the address is that socket's peer.

use std::ffi::c_char;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::fs::{Dir, Mode, OFlags};

use super::boundary::boundary;
use super::failure::Failure;
use super::types::{RPW_CONTINUE, rpw_error_t};

/// Writes the address that the process's UDP socket with that remote port is connected to.
///
/// # Returns
/// The bytes written to `text`: an IPv4 address, or an IPv6 address in brackets; `RPW_CONTINUE` (0) when there is no such
/// socket, or more than one; `RPW_ERROR`.
/// # Safety
/// `text` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn rpw_udp_peer(
    port: i32,
    text: *mut c_char,
    capacity: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        let mut found = None;
        let folder = rustix::fs::open(
            "/proc/self/fd",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let folder = folder.and_then(Dir::read_from).map_err(no_list)?;
        for entry in folder {
            let entry = entry.map_err(no_list)?;
            let number = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
            let Some(address) = number.and_then(|number| udp_peer(number, port)) else { continue };
            if found.replace(address).is_some() {
                return Ok(RPW_CONTINUE);
            }
        }
        let shown = match found {
            None => return Ok(RPW_CONTINUE),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => format!("[{address}]"),
        };
        if shown.len() > capacity || text.is_null() {
            return Err(Failure::new("rpw_udp_peer: no room for the address"));
        }
        // SAFETY: checked above.
        unsafe { std::ptr::copy_nonoverlapping(shown.as_ptr(), text.cast(), shown.len()) };
        Ok(shown.len() as i32)
    })
}

fn no_list(error: rustix::io::Errno) -> Failure {
    Failure::new(format!("the files of the process cannot be listed: {error}"))
}

/// The peer of that descriptor, when it is a UDP socket connected to that port.
fn udp_peer(descriptor: i32, port: i32) -> Option<IpAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let mut kind: libc::c_int = 0;
    let mut kind_length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the buffers have the lengths that are given; a descriptor of any kind is refused and no more.
    let (peer, typed) = unsafe {
        (
            libc::getpeername(descriptor, storage.as_mut_ptr().cast(), &raw mut length),
            libc::getsockopt(
                descriptor,
                libc::SOL_SOCKET,
                libc::SO_TYPE,
                (&raw mut kind).cast(),
                &raw mut kind_length,
            ),
        )
    };
    if peer != 0 || typed != 0 || kind != libc::SOCK_DGRAM {
        return None;
    }
    // SAFETY: all zeros are a storage, and the family says which address was written to it.
    unsafe {
        let storage = storage.assume_init_ref();
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                let address = &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>();
                let found = i32::from(u16::from_be(address.sin_port)) == port;
                found.then(|| Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let address = &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>();
                let found = i32::from(u16::from_be(address.sin6_port)) == port;
                found.then(|| Ipv6Addr::from(address.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}
