//! A server behind nginx that keeps what it gets, byte by byte, and answers as a test says.

use super::http::Connection;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// A request as it came to the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub method: String,
    pub target: String,
    /// In order, with repeats, names as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Incoming {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Writes the answer to a request, head and body. The connection is closed after it.
type Respond = dyn Fn(&Incoming, &mut dyn Write) -> io::Result<()> + Send + Sync;

pub(crate) struct Upstream {
    port: u16,
    received: Receiver<Incoming>,
}

impl Upstream {
    /// Listens until the test process ends.
    pub(crate) fn start(
        respond: impl Fn(&Incoming, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, received) = channel();
        let respond: Arc<Respond> = Arc::new(respond);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (sender, respond) = (sender.clone(), respond.clone());
                // A client that goes away early is no matter of the upstream.
                thread::spawn(move || serve(stream, &*respond, &sender));
            }
        });
        Upstream { port, received }
    }

    /// Answers every request with 200 and no body.
    pub(crate) fn sink() -> Upstream {
        Upstream::start(|_, out| out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next request that came and was not taken yet.
    pub(crate) fn take(&self) -> Incoming {
        self.received.recv_timeout(super::patience()).expect("a request at the upstream")
    }
}

fn serve(stream: TcpStream, respond: &Respond, sender: &Sender<Incoming>) -> io::Result<()> {
    let mut connection = Connection::accepted(stream)?;
    if let Some(incoming) = connection.incoming()? {
        respond(&incoming, connection.stream())?;
        let _ = sender.send(incoming);
        // A client may use the connection again before it has seen the end. To close it with something unread would reset it.
        connection.stream().shutdown(Shutdown::Write)?;
        io::copy(connection.stream(), &mut io::sink())?;
    }
    Ok(())
}
