//! How a worker hears that a message came into a queue that one of its filters listens to.
//!
//! The master makes a datagram socket before it forks. In a worker with a listener, a cosocket connects to it, which gives
//! the cosocket a name of its own in Linux's abstract name space (unix(7), autobind), and says hello. From then on any
//! worker can send to that name, through the master's socket, and nginx wakes the light thread that receives. So nobody
//! polls, no thread is needed, and nothing but nginx touches its event loop. The socket has no name in a file system: its
//! file is gone before the first worker is there, and cosockets reach it by `/proc/self/fd`.

use std::cell::{Cell, RefCell};
use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, chmod, mkdir, openat, rmdir, unlink};

use super::shared::{none, shared};
use super::{Failure, RPW_CONTINUE, boundary, nginx, process, rpw_error_t, work};
use crate::abi::LogLevel;
use crate::ports::Listening;
use crate::store::Address;

/// The socket that messages of all workers go through.
struct Post {
    socket: UnixDatagram,
    /// Its file, which has no name any more.
    door: OwnedFd,
}

static POST: OnceLock<Result<Post, String>> = OnceLock::new();

/// Where a file may be for a moment.
const FOLDERS: [&str; 4] = ["/tmp", "/dev/shm", "/var/tmp", "/run"];

/// What a worker's cosocket says first.
const HELLO: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    /// The shell was told to listen, and has said this.
    Begun(u64),
    At(Address),
    Polls,
}

thread_local! {
    /// Of which process, and how far it is.
    static STATE: Cell<(u64, State)> = const { Cell::new((0, State::Unknown)) };
    /// Workers that could not be woken yet.
    static UNSENT: RefCell<Vec<Address>> = const { RefCell::new(Vec::new()) };
}

fn state() -> State {
    match STATE.get() {
        (of, state) if of == process::current() => state,
        _ => State::Unknown,
    }
}

fn set_state(state: State) {
    STATE.set((process::current(), state));
}

/// Makes the socket; to be called before the master forks.
pub(super) fn prepare() {
    POST.get_or_init(|| {
        let mut failed = String::new();
        for folder in FOLDERS {
            match Post::new(Path::new(folder)) {
                Ok(post) => return Ok(post),
                Err(error) => failed = format!("{folder}: {error}"),
            }
        }
        Err(failed)
    });
}

impl Post {
    #[allow(
        clippy::disallowed_methods,
        reason = "no bytes of filters go through it: it only wakes"
    )]
    fn new(parent: &Path) -> io::Result<Self> {
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
        let door = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { socket, door })
    }

    /// A hello that some worker said, and where its cosocket is.
    fn hear(&self) -> Option<(u64, Address)> {
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

    fn send(&self, address: Address) -> io::Result<usize> {
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

fn post() -> Result<&'static Post, Failure> {
    prepare();
    match POST.get() {
        Some(Ok(post)) => Ok(post),
        Some(Err(error)) => Err(Failure::new(format!("no socket to wake workers by: {error}"))),
        None => Err(Failure::new("no socket to wake workers by")),
    }
}

/// How this process hears of messages.
pub(super) fn listening() -> Listening {
    match state() {
        State::Unknown | State::Begun(_) => Listening::NotYet,
        State::At(address) => Listening::At(address),
        State::Polls => Listening::Polls,
    }
}

/// Whether the shell must begin to listen; true once.
pub(super) fn must_begin() -> bool {
    let must = state() == State::Unknown;
    if must {
        set_state(State::Begun(0));
    }
    must
}

/// Wakes a worker, now or a little later.
pub(super) fn wake(address: Address) {
    if address == 0 {
        return;
    }
    // What is sent to oneself would take the room of what is sent to others.
    if state() == State::At(address) && work::is_looked_for() {
        work::announce_callbacks();
    } else {
        send(address);
    }
}

/// Wakes the workers that could not be woken when they should.
pub(super) fn wake_others_again() {
    for address in UNSENT.take() {
        send(address);
    }
}

/// Whether there are any.
pub(super) fn must_wake_others() -> bool {
    UNSENT.with_borrow(|unsent| !unsent.is_empty())
}

fn send(address: Address) {
    let Ok(post) = post() else { return };
    match post.send(address) {
        Ok(_) => {}
        // All workers send through one socket, and its room is taken by what some worker has not read.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            UNSENT.with_borrow_mut(|unsent| {
                if !unsent.contains(&address) {
                    unsent.push(address);
                }
            });
            work::announce();
        }
        Err(_) => {
            if let Some(shared) = shared() {
                shared.forget_listener(address);
            }
        }
    }
}

/// Begins to listen: says what a datagram cosocket must connect to, and what it must send first.
///
/// # Arguments
/// `hello`: room for 8 bytes, which are to be sent as one datagram; then comes `rpw_listen_end`.
/// # Returns
/// The number of a descriptor: the cosocket connects to `unix:/proc/self/fd/NUMBER`. `RPW_ERROR` when there is none.
/// # Safety
/// `hello` has room for 8 bytes, `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_listen_begin(hello: *mut c_char, error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        let post = post()?;
        let mut random = [0; HELLO];
        getrandom::fill(&mut random).map_err(|error| Failure::new(error.to_string()))?;
        set_state(State::Begun(u64::from_ne_bytes(random)));
        // SAFETY: as promised by the caller.
        unsafe { std::ptr::copy_nonoverlapping(random.as_ptr(), hello.cast(), HELLO) };
        Ok(post.door.as_raw_fd())
    })
}

/// The hello was sent: from now on the cosocket receives a datagram whenever `rpw_listen_heard` is to be called.
///
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` when it cannot be reached.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_listen_end(error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        let State::Begun(hello) = state() else {
            return Err(Failure::new("rpw_listen_begin comes first"));
        };
        let (post, shared) = (post()?, shared().ok_or_else(none)?);
        let found = shared.hello(hello, || post.hear()).map_err(super::shared::refused)?;
        let address = found.ok_or_else(|| Failure::new("nobody heard the hello"))?;
        set_state(State::At(address));
        shared.set_address(address).map_err(super::shared::refused)?;
        work::announce_callbacks();
        Ok(RPW_CONTINUE)
    })
}

/// Messages may have come: there is work.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_listen_heard() -> i32 {
    work::announce_callbacks();
    RPW_CONTINUE
}

/// Has the cosocket receive a datagram, so that its light thread wakes.
///
/// # Returns
/// 1 when that was tried in vain, and must be tried again; else 0.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_listen_wake() -> i32 {
    let State::At(address) = state() else { return 0 };
    let Ok(post) = post() else { return 0 };
    let sent = post.send(address);
    i32::from(sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
}

/// There is no cosocket, or none any more: from now on the queues are looked at now and then.
///
/// # Arguments
/// `reason`: for the error log.
/// # Returns
/// `RPW_CONTINUE`.
/// # Safety
/// `reason` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_listen_failed(reason: *const c_char, reason_length: usize) -> i32 {
    boundary(std::ptr::null_mut(), || {
        // SAFETY: as promised by the caller.
        let reason = unsafe { super::types::bytes(reason, reason_length) };
        set_state(State::Polls);
        let mut line = b"wasm: queues are looked at 20 times a second: ".to_vec();
        line.extend_from_slice(reason);
        nginx::log(None, LogLevel::Warn, &line);
        work::announce_callbacks();
        Ok(RPW_CONTINUE)
    })
}
