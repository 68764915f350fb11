//! What becomes of a request's body that a filter is shown in pieces.

use crate::core::guest::Output;

/// See the module. While nothing was changed, what was dealt with is passed on as it is; then a new body is written.
pub struct RequestBody {
    source: Vec<u8>,
    /// The piece that the filter is shown.
    piece: (usize, usize),
    /// So much of the source is dealt with.
    done: usize,
    changed: Option<Vec<u8>>,
}

impl RequestBody {
    pub fn new(source: Vec<u8>) -> Self {
        Self { source, piece: (0, 0), done: 0, changed: None }
    }

    /// The next piece, of so many bytes at most.
    pub fn next_piece(&mut self, most: usize) -> Vec<u8> {
        let from = self.piece.1;
        self.piece = (from, (from + most).min(self.source.len()));
        self.source[from..self.piece.1].to_vec()
    }

    /// Whether that was the last one.
    pub fn is_at_end(&self) -> bool {
        self.piece.1 >= self.source.len()
    }

    /// Does what an outcome says of the piece.
    pub fn take(&mut self, output: Output) {
        let (from, to) = self.piece;
        match (output, &mut self.changed) {
            (Output::Hold, _) => return,
            (Output::Unchanged | Output::Pass(_), None) => {}
            (Output::Unchanged, Some(new)) => new.extend_from_slice(&self.source[from..to]),
            (Output::Replace(bytes) | Output::Pass(bytes), Some(new)) => new.extend(bytes),
            (Output::Replace(bytes), None) => {
                let mut new = self.source[..self.done].to_vec();
                new.extend(bytes);
                self.changed = Some(new);
            }
        }
        self.done = to;
        // An outcome that follows says nothing more of this piece.
        self.piece = (to, to);
    }

    /// The body as it continues: what no outcome was about is passed on as it is.
    pub fn complete(self) -> Vec<u8> {
        match self.changed {
            None => self.source,
            Some(mut new) => {
                new.extend_from_slice(&self.source[self.done..]);
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_replaced_with_the_piece_that_follows() {
        let mut body = RequestBody::new(b"abcdef".to_vec());
        assert_eq!(body.next_piece(2), b"ab");
        body.take(Output::Unchanged);
        assert_eq!(body.next_piece(2), b"cd");
        body.take(Output::Hold);
        assert_eq!(body.next_piece(2), b"ef");
        assert!(body.is_at_end());
        body.take(Output::Replace(b"XY".to_vec()));
        assert_eq!(body.complete(), b"abXY");
    }

    #[test]
    fn what_a_filter_failed_on_is_sent() {
        let mut body = RequestBody::new(b"abcd".to_vec());
        body.next_piece(2);
        body.take(Output::Replace(b"X".to_vec()));
        body.next_piece(2);
        assert_eq!(body.complete(), b"Xcd");
    }
}
