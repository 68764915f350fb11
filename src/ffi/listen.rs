//! How a worker is notified that a message came into a queue that one of its filters listens to.
//!
//! The master makes a datagram socket before it forks. In a worker with a listener, a cosocket connects to it, which gives
//! the cosocket a name of its own in Linux's abstract name space (unix(7), autobind), and says hello. From then on any
//! worker can send to that name, through the master's socket, and nginx wakes the light thread that receives. So no one
//! polls, no thread is needed, and nothing but nginx touches its event loop. The socket has no name in a file system: its
//! file is gone before the first worker is there, and cosockets reach it by `/proc/self/fd`.

use std::ffi::c_char;
use std::io;
use std::os::fd::AsRawFd as _;

use super::boundary::with_worker;
use super::failure::Failure;
use super::jobs::State;
use super::nginx;
use super::process::PROCESS;
use super::shared_memory::{none, refused};
use super::types::{self, RPW_CONTINUE, rpw_error_t};
use super::wake_socket::{HELLO, WakeSocket};
use super::worker::{self, Worker};
use crate::abi::LogLevel;
use crate::store::Address;

fn wake_socket() -> Result<&'static WakeSocket, Failure> {
    let socket = PROCESS.wake_socket().as_ref();
    socket.map_err(|error| Failure::new(format!("no socket to wake workers by: {error}")))
}

/// Wakes a worker, now or a little later.
pub(super) fn wake(worker: &Worker, address: Address) {
    if address == 0 {
        return;
    }
    // What is sent to oneself would take the room of what is sent to others.
    if worker.queue.state() == State::At(address) && worker.is_looked_for() {
        worker.announce_callbacks();
    } else {
        send(worker, address);
    }
}

/// Wakes the workers that could not be woken when they should.
pub(super) fn wake_others_again(worker: &Worker) {
    for address in worker.queue.take_unsent() {
        send(worker, address);
    }
}

fn send(worker: &Worker, address: Address) {
    let Ok(socket) = wake_socket() else { return };
    match socket.send(address) {
        Ok(_) => {}
        // All workers send through one socket, and its room is taken by what some worker has not read.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            worker.queue.add_unsent(address);
            worker.announce();
        }
        Err(_) => {
            if let Some(shared) = PROCESS.shared.get() {
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
    with_worker(error, |worker| {
        let socket = wake_socket()?;
        let mut random = [0; HELLO];
        getrandom::fill(&mut random).map_err(|error| Failure::new(error.to_string()))?;
        worker.queue.set_state(State::Begun(u64::from_ne_bytes(random)));
        // SAFETY: as promised by the caller.
        unsafe { std::ptr::copy_nonoverlapping(random.as_ptr(), hello.cast(), HELLO) };
        Ok(socket.path_fd.as_raw_fd())
    })
}

/// The hello was sent: from now on the cosocket receives a datagram whenever `rpw_listen_received` is to be called.
///
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` when it cannot be reached.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_listen_end(error: *mut rpw_error_t) -> i32 {
    with_worker(error, |worker| {
        let State::Begun(hello) = worker.queue.state() else {
            return Err(Failure::new("rpw_listen_begin comes first"));
        };
        let (socket, shared) = (wake_socket()?, PROCESS.shared.get().ok_or_else(none)?);
        let found = shared.address_of(hello, || socket.recv()).map_err(refused)?;
        let address = found.ok_or_else(|| Failure::new("the hello was not received"))?;
        worker.queue.set_state(State::At(address));
        shared.set_address(address).map_err(refused)?;
        worker.announce_callbacks();
        Ok(RPW_CONTINUE)
    })
}

/// A datagram was received: messages may have come, so there is work.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_listen_received() -> i32 {
    worker::with(Worker::announce_callbacks);
    RPW_CONTINUE
}

/// Has the cosocket receive a datagram, so that its light thread wakes.
///
/// # Returns
/// 1 when that failed, and must be tried again; else 0.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_listen_wake() -> i32 {
    let State::At(address) = worker::with(|worker| worker.queue.state()) else { return 0 };
    let Ok(socket) = wake_socket() else { return 0 };
    let sent = socket.send(address);
    i32::from(sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
}

/// There is no cosocket, or none any more: from now on the queues are polled.
///
/// # Arguments
/// `reason`: for the error log.
/// # Returns
/// `RPW_CONTINUE`.
/// # Safety
/// `reason` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_listen_failed(reason: *const c_char, reason_length: usize) -> i32 {
    with_worker(std::ptr::null_mut(), |worker| {
        // SAFETY: as promised by the caller.
        let reason = unsafe { types::bytes(reason, reason_length) };
        worker.queue.set_state(State::Polls);
        let mut line = b"wasm: falling back to polling queues 20 times a second: ".to_vec();
        line.extend_from_slice(reason);
        nginx::log(None, LogLevel::Warn, &line);
        worker.announce_callbacks();
        Ok(RPW_CONTINUE)
    })
}
