//! Foreign functions of the host itself: Envoy's, and those of a vendor's ABI 0.2.100. One of Lua by the same name comes
//! before.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::inject;
use crate::abi::Status;
use crate::guest::State;
use crate::limits;

/// Called for each line of a log, and so before anything that costs.
pub(super) const GET_LOG_LEVEL: &[u8] = b"get_log_level";

/// The result of a function, or the status that the guest gets.
pub(super) fn call(state: &mut State, name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, Status> {
    match name {
        GET_LOG_LEVEL => {
            let level = state.host.log_level(state.request());
            Ok((level as u32).to_le_bytes().to_vec())
        }
        b"inject_encoded_data_to_filter_chain_on_header" => inject::on_headers(state, arguments),
        b"compress" => compress(state, arguments),
        b"uncompress" => uncompress(state, arguments),
        // There is no route to be chosen again, and the server decides itself how many requests it takes at once.
        b"clear_route_cache" | b"set_global_max_requests_per_io_cycle" => Ok(Vec::new()),
        b"declare_property" | b"set_envoy_filter_state" => {
            state.warn_once("the host has neither declare_property nor set_envoy_filter_state");
            Err(Status::NotFound)
        }
        _ if name.starts_with(b"expr_") => {
            state.warn_once("the host evaluates no expressions of CEL (foreign functions expr_*)");
            Err(Status::NotFound)
        }
        _ => Err(Status::NotFound),
    }
}

/// zlib's compress.
fn compress(state: &mut State, arguments: &[u8]) -> Result<Vec<u8>, Status> {
    if arguments.len() > limits::COMPRESSED {
        state.warn_once(
            "what a filter has compressed, or uncompressed, is larger than the host does",
        );
        return Err(Status::SerializationFailure);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(arguments).and_then(|()| encoder.finish());
    written.map_err(|_| Status::SerializationFailure)
}

/// zlib's uncompress.
fn uncompress(state: &mut State, arguments: &[u8]) -> Result<Vec<u8>, Status> {
    let mut out = Vec::new();
    let most = limits::COMPRESSED as u64;
    let read = ZlibDecoder::new(arguments).take(most + 1).read_to_end(&mut out);
    if out.len() as u64 > most {
        state.warn_once(
            "what a filter has compressed, or uncompressed, is larger than the host does",
        );
        return Err(Status::SerializationFailure);
    }
    read.map_err(|_| Status::SerializationFailure).map(|_| out)
}
