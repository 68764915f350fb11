//! Why an export fails.

use super::types::{RPW_CUT, RPW_ERROR, RPW_TOO_LARGE};

/// Why an export fails. In a box, so that what does not fail moves less.
pub(super) struct Failure(pub(super) Box<(i32, String)>);

impl Failure {
    #[cold]
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::with_code(RPW_ERROR, text)
    }

    /// Why.
    pub(super) fn text(&self) -> &str {
        &self.0.1
    }

    #[cold]
    pub(super) fn with_code(code: i32, text: impl Into<String>) -> Self {
        Self(Box::new((code, text.into())))
    }
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        use crate::error::Error;
        let code = match error {
            Error::BodyTooLarge { .. } | Error::ChangedTooLarge { .. } => RPW_TOO_LARGE,
            Error::Cut(_) => RPW_CUT,
            _ => RPW_ERROR,
        };
        Self::with_code(code, error.to_string())
    }
}
