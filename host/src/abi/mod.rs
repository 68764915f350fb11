//! The Proxy-Wasm ABI as data: numbers, names, versions, and the table of host functions.
//!
//! Source: the specification's `abi-versions/v0.2.1/README.md` and its forerunners; where those leave a
//! choice, `docs/RATIONALE.md` says what was chosen.

mod attribute;
mod callback;
mod hostcalls;
mod property;
mod vendor;

use std::fmt;

pub use attribute::Attribute;
pub use callback::Callback;
pub(crate) use hostcalls::for_each_hostcall;
pub use hostcalls::{HOST_FUNCTIONS, HostFunction, Support, WASI_FUNCTIONS};
pub use property::{PROPERTIES, Property, Source, ValueType};
pub use vendor::{COMMANDS, FOREIGN_FUNCTIONS};

/// Versions of the ABI, by their marker exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `proxy_abi_version_0_1_0`
    V0_1_0,
    /// `proxy_abi_version_0_2_0`
    V0_2_0,
    /// `proxy_abi_version_0_2_1`
    V0_2_1,
}

/// Exports with which a guest makes room for a value, the first of them that it has: the ABI's, and that of C.
pub const ALLOCATORS: [&str; 2] = ["proxy_on_memory_allocate", "malloc"];

/// Prefix of the marker exports.
pub const VERSION_MARKER: &str = "proxy_abi_version_";

/// What a marker export says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A version of the specification.
    Known(Version),
    /// A vendor's superset of 0.2, taken as 0.2.1.
    Vendor,
    /// Another version, that this host does not speak.
    Unknown,
}

impl Marker {
    /// Reads an export's name; `None` when it is no marker.
    pub fn parse(export: &str) -> Option<Self> {
        let version = export.strip_prefix(VERSION_MARKER)?;
        Some(match version {
            "0_1_0" => Self::Known(Version::V0_1_0),
            "0_2_0" => Self::Known(Version::V0_2_0),
            "0_2_1" => Self::Known(Version::V0_2_1),
            v if v.starts_with("0_2_") => Self::Vendor,
            _ => Self::Unknown,
        })
    }
}

/// `proxy_status_t`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// There is nothing of that name.
    NotFound = 1,
    /// An argument is not one that the function takes, or not now.
    BadArgument = 2,
    /// What a foreign function returned cannot be passed on.
    SerializationFailure = 3,
    /// What was handed over cannot be read.
    ParseFailure = 4,
    /// An address is not in the memory of the guest.
    InvalidMemoryAccess = 6,
    /// The queue is empty.
    Empty = 7,
    /// The version of the value is another one.
    CasMismatch = 8,
    /// The host cannot do it; its log says why.
    InternalFailure = 10,
    /// The host does not have the function.
    Unimplemented = 12,
}

/// A number of the ABI that names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// Declares an enum of the ABI together with its reading from the guest's number.
macro_rules! abi_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$vmeta])* $variant = $value),* }

        impl TryFrom<u32> for $name {
            type Error = Unknown;
            fn try_from(number: u32) -> Result<Self, Unknown> {
                match number {
                    $($value => Ok(Self::$variant),)*
                    _ => Err(Unknown),
                }
            }
        }
    };
}

abi_enum! {
    /// `proxy_log_level_t`
    LogLevel {
        /// Every step.
        Trace = 0,
        /// For those who look for a fault.
        Debug = 1,
        /// What happens in normal operation.
        Info = 2,
        /// Something is wrong, and work continues.
        Warn = 3,
        /// Something failed.
        Error = 4,
        /// The whole is in danger.
        Critical = 5,
    }
}

abi_enum! {
    /// `proxy_buffer_type_t`
    BufferType {
        /// The body of the request.
        RequestBody = 0,
        /// The body of the response.
        ResponseBody = 1,
        /// What a client sent on a TCP connection.
        DownstreamData = 2,
        /// What an upstream sent on a TCP connection.
        UpstreamData = 3,
        /// The body of the response to an HTTP call.
        CallResponseBody = 4,
        /// A message of a gRPC call or stream.
        GrpcMessage = 5,
        /// The configuration of the VM.
        VmConfiguration = 6,
        /// The configuration of the plugin context.
        PluginConfiguration = 7,
        /// The result of a foreign function that ran later.
        ForeignArguments = 8,
        /// The answers of a Redis call.
        RedisAnswer = 9,
    }
}

abi_enum! {
    /// `proxy_map_type_t`
    MapType {
        /// The headers of the request.
        RequestHeaders = 0,
        /// The trailers of the request.
        RequestTrailers = 1,
        /// The headers of the response.
        ResponseHeaders = 2,
        /// The trailers of the response.
        ResponseTrailers = 3,
        /// The initial metadata of a gRPC call or stream.
        GrpcInitialMetadata = 4,
        /// The trailing metadata of a gRPC call or stream.
        GrpcTrailingMetadata = 5,
        /// The headers of the response to an HTTP call.
        CallResponseHeaders = 6,
        /// The trailers of the response to an HTTP call.
        CallResponseTrailers = 7,
    }
}

abi_enum! {
    /// `proxy_stream_type_t`
    StreamType {
        /// The request.
        Request = 0,
        /// The response.
        Response = 1,
        /// What a client sends on a TCP connection.
        Downstream = 2,
        /// What an upstream sends on a TCP connection.
        Upstream = 3,
    }
}

abi_enum! {
    /// `proxy_metric_type_t`
    MetricType {
        /// It grows.
        Counter = 0,
        /// It goes up and down.
        Gauge = 1,
        /// It counts values by size.
        Histogram = 2,
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers() {
        assert_eq!(Marker::parse("proxy_abi_version_0_1_0"), Some(Marker::Known(Version::V0_1_0)));
        assert_eq!(Marker::parse("proxy_abi_version_0_2_1"), Some(Marker::Known(Version::V0_2_1)));
        assert_eq!(Marker::parse("proxy_abi_version_0_2_100"), Some(Marker::Vendor));
        assert_eq!(Marker::parse("proxy_abi_version_0_3_0"), Some(Marker::Unknown));
        assert_eq!(Marker::parse("proxy_on_tick"), None);
    }

    #[test]
    fn numbers_outside_an_enum_are_unknown() {
        assert_eq!(LogLevel::try_from(5), Ok(LogLevel::Critical));
        assert_eq!(LogLevel::try_from(6), Err(Unknown));
        assert_eq!(MapType::try_from(u32::MAX), Err(Unknown));
    }
}
