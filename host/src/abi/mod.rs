//! The Proxy-Wasm ABI as data: numbers, names, versions, and the table of host functions.
//!
//! Source: the specification's `abi-versions/v0.2.1/README.md` and its forerunners; where those leave a
//! choice, `docs/RATIONALE.md` says what was chosen.

mod attribute;
mod callback;
mod hostcalls;
mod property;

use std::fmt;

pub use attribute::Attribute;
pub use callback::Callback;
pub(crate) use hostcalls::for_each_hostcall;
pub use hostcalls::{HOST_FUNCTIONS, HostFunction, Support, WASI_FUNCTIONS};
pub use property::{PROPERTIES, Property, Source, ValueType};

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
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
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
    LogLevel { Trace = 0, Debug = 1, Info = 2, Warn = 3, Error = 4, Critical = 5 }
}

abi_enum! {
    /// `proxy_buffer_type_t`
    BufferType {
        RequestBody = 0,
        ResponseBody = 1,
        DownstreamData = 2,
        UpstreamData = 3,
        CallResponseBody = 4,
        GrpcMessage = 5,
        VmConfiguration = 6,
        PluginConfiguration = 7,
        ForeignArguments = 8,
    }
}

abi_enum! {
    /// `proxy_map_type_t`
    MapType {
        RequestHeaders = 0,
        RequestTrailers = 1,
        ResponseHeaders = 2,
        ResponseTrailers = 3,
        GrpcInitialMetadata = 4,
        GrpcTrailingMetadata = 5,
        CallResponseHeaders = 6,
        CallResponseTrailers = 7,
    }
}

abi_enum! {
    /// `proxy_stream_type_t`
    StreamType { Request = 0, Response = 1, Downstream = 2, Upstream = 3 }
}

abi_enum! {
    /// `proxy_metric_type_t`
    MetricType { Counter = 0, Gauge = 1, Histogram = 2 }
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
