//! TLS between an exchange and its connection.

use bytes::BytesMut;

use super::{Exchange, Failure, FailureKind, Protocol, Step, Tls, Trust};

/// The TLS of one connection, which serves one exchange after the other.
pub struct Secure {
    tls: Tls,
    /// What waits for the handshake.
    outgoing: Vec<u8>,
}

impl Secure {
    /// Begins; the certificate must have that name.
    pub fn new(trust: &Trust, name: &str) -> Result<Self, Failure> {
        Ok(Self { tls: Tls::new(trust, name, Protocol::Http1)?, outgoing: Vec::new() })
    }

    /// Does what [`Exchange::advance`] does, with bytes of TLS.
    pub fn advance(
        &mut self,
        exchange: &mut Exchange,
        received: &[u8],
        eof: bool,
        out: &mut Vec<u8>,
    ) -> Step {
        let tls = &mut self.tls;
        let mut incoming = BytesMut::new();
        if let Err(failure) = tls.receive(received, &mut incoming) {
            // The server is told why.
            tls.send(&mut Vec::new(), out);
            return Step::Failed(Failure { reached: exchange.reached(), ..failure });
        }
        // A connection that ends without the server saying so may have been cut by someone else.
        let step = exchange.advance(&incoming, tls.is_closed(), &mut self.outgoing);
        tls.send(&mut self.outgoing, out);
        match step {
            Step::Receive if eof => {
                let kind = if tls.is_agreed() { FailureKind::Closed } else { FailureKind::Tls };
                let failure = Failure::new(kind, "the connection ended before TLS did");
                Step::Failed(Failure { reached: exchange.reached(), ..failure })
            }
            Step::Done { reusable } => {
                Step::Done { reusable: reusable && !eof && !tls.is_closed() }
            }
            step => step,
        }
    }
}
