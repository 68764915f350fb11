//! A DNS server for names that tests make up.

use std::net::UdpSocket;
use std::thread;

/// A DNS server that answers every question with this address, or that there is no such name. Returns where it is.
pub(crate) fn dns(address: Option<[u8; 4]>) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let at = socket.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let mut answer = question[..length].to_vec();
            match address {
                Some(address) => {
                    // A response without an error, one question, one answer.
                    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                    // The name of the question, A, IN, good for a second.
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                    answer.extend(address);
                }
                // NXDOMAIN.
                None => answer[2..4].copy_from_slice(&[0x81, 0x83]),
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    at
}
