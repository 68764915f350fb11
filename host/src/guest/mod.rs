//! The contexts that live in a VM: plugin (root) contexts and stream contexts, and what hostcalls see of
//! the call in progress.

mod body;
#[allow(unsafe_code, reason = "a guest's memory is kept by its address")]
mod cached_memory;
mod calls;
mod contexts;
pub mod deadline;
mod grpc;
mod handover;
#[allow(unsafe_code, reason = "bytes of an event are kept by their address")]
mod lent;
mod limiter;
mod properties;
mod root;
#[allow(unsafe_code, reason = "a memory of our own is kept by its address")]
pub mod shown_headers;
mod state;
mod stream;

pub use body::{Body, Course, Output};
pub use calls::{CallOf, CallResult, Calls, Dispatched, Dropped, ForeignCall, Requested, Token};
pub use contexts::{Contexts, SPARE_ROOTS};
pub use deadline::Deadline;
pub use grpc::{GrpcCalls, GrpcKind};
pub use handover::{Handovers, Return};
pub use limiter::{Limiter, MemoryToCome};
pub use properties::Properties;
pub use root::{Listener, Root};
pub use shown_headers::ShownHeaders;
pub use state::{Call, PluginInfo, State, StdioLines};
pub use stream::Stream;

/// Id of a context inside its VM: roots and streams share one counter that starts at 1.
pub type ContextId = u32;
