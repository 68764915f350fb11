//! Header maps: changing them. Each change is made in the guest's view at once and queued as an effect for
//! the host.

use std::collections::{BTreeMap, BTreeSet};

use wasmtime::Caller;

use super::super::memory::{Answer, slice, split};
use super::super::shown;
use super::pseudo::{PATH, check_pseudo, replace_pseudo};
use super::{AUTHORITY, HOST, load, response_headers};
use crate::abi::{Callback, MapType, Status};
use crate::codec::header;
use crate::codec::header_map::{self, Pairs};
use crate::effect::{EffectKind, Size};
use crate::guest::{State, Stream};
use crate::limits;
use crate::ports::Phase;
use crate::snapshot::HeaderMap;

/// The warning when there is no room for an effect.
const TOO_MANY_EFFECTS: &str =
    "a filter asked for more header changes in one callback than the host holds";

const CONTENT_LENGTH: &[u8] = b"content-length";

pub(crate) fn proxy_set_header_map_pairs(
    caller: &mut Caller<'_, State>,
    map: u32,
    data: u32,
    size: u32,
) -> Answer {
    let map = MapType::try_from(map).map_err(|_| Status::BadArgument)?;
    let (memory, state) = split(caller)?;
    let bytes = slice(memory, data, size)?;
    check_writable(state, map)?;
    let given = load(state, map).map_or((0, 0), |headers| headers.given());
    let pairs = header_map::decode_beside(bytes, given).map_err(|_| Status::BadArgument)?;
    Ok(set_pairs(state, map, &pairs)?)
}

/// Done in one pass over sorted names: one by one, each change would search the whole map.
fn set_pairs(state: &mut State, map: MapType, pairs: &Pairs<'_>) -> Result<(), Status> {
    let old = load(state, map).ok_or(Status::BadArgument)?;
    let unchanged = unchanged(old, map, pairs);
    let names: BTreeSet<Vec<u8>> = pairs.iter().map(|(name, _)| key(map, name)).collect();
    let gone: BTreeSet<Vec<u8>> = old
        .iter()
        .map(|(name, _)| name.to_vec())
        .filter(|name| !header::is_pseudo(name) && !names.contains(name))
        .collect();
    let moved = moved(old, map, pairs);
    let mut length = old.get(CONTENT_LENGTH).map(<[u8]>::to_vec);
    let new = with_pairs(old, map, pairs);
    for (name, value) in pairs.iter().filter(|(name, _)| !unchanged.contains(&key(map, name))) {
        check_pair(state, map, name, value)?;
    }

    let stays = |name: &[u8], moved: &BTreeSet<Vec<u8>>| {
        let key = key(map, name);
        unchanged.contains(&key) && !moved.contains(&key)
    };
    let cost = |size: &mut Size, moved: &BTreeSet<Vec<u8>>| {
        for name in gone.iter().chain(moved) {
            size.add(EffectKind::RemoveRequestHeader, name, b"");
        }
        for (name, value) in pairs.iter().filter(|(name, _)| !stays(name, moved)) {
            size.add(EffectKind::SetRequestHeader, name, value);
            if *name == PATH {
                size.add(EffectKind::SetPath, value, b"");
            }
        }
    };
    // Where there is no room for it, the order is that of before.
    let mut size = state.stream().ok_or(Status::BadArgument)?.effects.size();
    cost(&mut size, &moved);
    let moved = if size.fits() { moved } else { BTreeSet::new() };
    check_effects(state, |size| cost(size, &moved))?;
    for name in gone.iter().chain(&moved) {
        queue_removal(state, map, name)?;
    }
    let mut seen = BTreeSet::new();
    for (name, value) in pairs.iter().filter(|(name, _)| !stays(name, &moved)) {
        if seen.insert(name.to_ascii_lowercase()) || is_single(map, name) {
            queue_replacement(state, map, name, value, length.as_deref())?;
        } else {
            queue_addition(state, map, name, value)?;
        }
        if name.eq_ignore_ascii_case(CONTENT_LENGTH) {
            length = Some(value.to_vec());
        }
    }
    *load(state, map).ok_or(Status::BadArgument)? = new;
    Ok(())
}

/// The name under which a map has a header, in lower case.
fn key(map: MapType, name: &[u8]) -> Vec<u8> {
    real_name(map, name).to_ascii_lowercase()
}

/// The headers that have the same values as before. Nothing is done about them, and they are not judged: they came from the
/// peer, and the host takes of peers what it would not take of a guest.
fn unchanged(old: &HeaderMap, map: MapType, pairs: &Pairs<'_>) -> BTreeSet<Vec<u8>> {
    let mut before: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for (name, value) in old.iter() {
        before.entry(name).or_default().push(value);
    }
    let mut after: BTreeMap<Vec<u8>, Vec<&[u8]>> = BTreeMap::new();
    for (name, value) in pairs {
        after.entry(key(map, name)).or_default().push(value);
    }
    after.retain(|name, values| before.get(name.as_slice()) == Some(values));
    after.into_keys().collect()
}

/// The headers of a map that stand elsewhere among the pairs. What is set again stays at its place, so these are removed
/// first, and come behind what was added before them.
fn moved(old: &HeaderMap, map: MapType, pairs: &Pairs<'_>) -> BTreeSet<Vec<u8>> {
    let new: Vec<Vec<u8>> =
        pairs.iter().filter(|(name, _)| !is_single(map, name)).map(|p| key(map, p.0)).collect();
    let names: BTreeSet<&[u8]> = new.iter().map(Vec::as_slice).collect();
    let mut seen: BTreeSet<&[u8]> = BTreeSet::new();
    let stay = old.iter().map(|(name, _)| name).filter(|name| names.contains(name));
    let in_order: Vec<&[u8]> = stay.filter(|name| seen.insert(name)).collect();
    let mut first = BTreeSet::new();
    // Of repeats the first counts: the others are behind it before and after.
    let firsts = new.iter().filter(|name| first.insert(name.as_slice()));
    let at_place = in_order.iter().zip(firsts).take_while(|(old, new)| old == new).count();
    in_order[at_place..].iter().map(|name| name.to_vec()).collect()
}

/// Pseudo headers are set and never removed; the others are the pairs in their order.
fn with_pairs(old: &HeaderMap, map: MapType, pairs: &Pairs<'_>) -> HeaderMap {
    let mut new = HeaderMap::new();
    new.set_given(old.given());
    for (name, value) in old.iter().filter(|(name, _)| header::is_pseudo(name)) {
        new.push(name, value);
    }
    for (name, value) in pairs.iter().filter(|(name, _)| is_pseudo(map, name)) {
        new.replace(real_name(map, name), value);
    }
    for (name, value) in pairs.iter().filter(|(name, _)| !is_pseudo(map, name)) {
        new.push(name, value);
    }
    new
}

pub(crate) fn proxy_add_header_map_value(
    caller: &mut Caller<'_, State>,
    map: u32,
    key: u32,
    key_size: u32,
    value: u32,
    value_size: u32,
) -> Answer {
    write(caller, map, (key, key_size), (value, value_size), How::Add)
}

pub(crate) fn proxy_replace_header_map_value(
    caller: &mut Caller<'_, State>,
    map: u32,
    key: u32,
    key_size: u32,
    value: u32,
    value_size: u32,
) -> Answer {
    write(caller, map, (key, key_size), (value, value_size), How::Replace)
}

pub(crate) fn proxy_remove_header_map_value(
    caller: &mut Caller<'_, State>,
    map: u32,
    key: u32,
    key_size: u32,
) -> Answer {
    let map = MapType::try_from(map).map_err(|_| Status::BadArgument)?;
    let (memory, state) = split(caller)?;
    let key = slice(memory, key, key_size)?;
    check_writable(state, map)?;
    if is_pseudo(map, key) {
        state.warn("a pseudo header cannot be removed");
        return Err(Status::BadArgument.into());
    }
    if key.len() > limits::HEADER_MAP_BYTES || !header::is_token(key) {
        return Err(Status::BadArgument.into());
    }
    check_effects(state, |size| size.add(EffectKind::RemoveRequestHeader, key, b""))?;
    Ok(remove(state, map, key)?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Add,
    Replace,
}

fn write(
    caller: &mut Caller<'_, State>,
    map: u32,
    key: (u32, u32),
    value: (u32, u32),
    how: How,
) -> Answer {
    let map = MapType::try_from(map).map_err(|_| Status::BadArgument)?;
    let (memory, state) = split(caller)?;
    let key = slice(memory, key.0, key.1)?;
    let value = slice(memory, value.0, value.1)?;
    check_writable(state, map)?;
    if key.len() + value.len() > limits::HEADER_MAP_BYTES {
        return Err(too_much(state).into());
    }
    let is_plain = check_pair(state, map, key, value)?;
    let size = check_room(state, map, key, value, how)?;
    match how {
        How::Add => Ok(add(state, map, key, value, (is_plain, size))?),
        How::Replace => Ok(replace(state, map, key, value)?),
    }
}

/// A map may not grow past what a guest could set at once, beside what the host gave. Asked before anything is changed, so
/// that the guest's view and the request stay the same. Returns what the caps then count of the effects.
#[inline(always)]
fn check_room(
    state: &mut State,
    map: MapType,
    name: &[u8],
    value: &[u8],
    how: How,
) -> Result<Size, Status> {
    // They are always there.
    const PSEUDO: usize = 4;
    let stream = stream_to_change(state, map).ok_or(Status::BadArgument)?;
    let mut effects = stream.effects.size();
    let kind = match how {
        How::Add => EffectKind::AddRequestHeader,
        How::Replace => EffectKind::SetRequestHeader,
    };
    effects.add(kind, name, value);
    if name == PATH {
        effects.add(EffectKind::SetPath, value, b"");
    }
    if let Some(headers) = view(stream, map) {
        let grows = how == How::Add || headers.get(name).is_none();
        let (count, size) = (headers.len() + usize::from(grows), headers.byte_size());
        let given = headers.given();
        if count > limits::HEADER_MAP_PAIRS + PSEUDO + given.0
            || size + name.len() + value.len() > limits::HEADER_MAP_BYTES + given.1
        {
            return Err(too_much(state));
        }
    }
    if effects.fits() { Ok(effects) } else { Err(too_many_effects(state)) }
}

#[cold]
fn too_much(state: &mut State) -> Status {
    state.warn_once("a filter makes more of a header map than the host holds");
    Status::InternalFailure
}

/// See [`check_room`].
fn check_effects(state: &mut State, add: impl FnOnce(&mut Size)) -> Result<(), Status> {
    let mut size = state.stream().ok_or(Status::BadArgument)?.effects.size();
    add(&mut size);
    if size.fits() { Ok(()) } else { Err(too_many_effects(state)) }
}

#[cold]
fn too_many_effects(state: &mut State) -> Status {
    state.warn_once(TOO_MANY_EFFECTS);
    Status::InternalFailure
}

/// `Host` is `:authority` under its old name.
fn is_pseudo(map: MapType, name: &[u8]) -> bool {
    header::is_pseudo(name) || (map == MapType::RequestHeaders && name.eq_ignore_ascii_case(HOST))
}

/// Request headers change until the request continues, response headers until they are sent.
#[inline(always)]
fn check_writable(state: &State, map: MapType) -> Result<(), Status> {
    let callback = state.call.callback;
    let is_its_callback = match map {
        MapType::RequestHeaders => matches!(
            callback,
            Callback::ContextCreate | Callback::RequestHeaders | Callback::RequestBody
        ),
        MapType::ResponseHeaders => callback == Callback::ResponseHeaders,
        // Trailers too: they are passed on as they are.
        _ => return Err(Status::BadArgument),
    };
    let Some(stream) = state.stream() else {
        state.warn("there are no headers to change: the effective context is not a stream");
        return Err(Status::BadArgument);
    };
    let own_call = state.call.context == stream.id && is_its_callback;
    let held =
        stream.paused && map == MapType::RequestHeaders || is_response_held(state, stream, map);
    let is_its_phase = |phase| match phase {
        Phase::Request => true,
        Phase::ResponseHeaders => map == MapType::ResponseHeaders,
        _ => false,
    };
    if own_call || held {
        let (phase, sent) = state.host.progress(stream.request);
        if is_its_phase(phase) && !sent {
            return Ok(());
        }
    }
    state.warn(match map {
        MapType::RequestHeaders => {
            "a change of the request headers came too late: the request has gone on"
        }
        _ => "a change of the response headers came too early or too late",
    });
    Err(Status::BadArgument)
}

/// Whether the response waits with its headers for what the guest makes of its body.
fn is_response_held(state: &State, stream: &Stream, map: MapType) -> bool {
    let own_body = state.call.context == stream.id && state.call.callback == Callback::ResponseBody;
    map == MapType::ResponseHeaders && stream.response_waits && (own_body || stream.paused)
}

/// Whether it is plain, see [`header::is_plain`].
#[inline(always)]
fn check_pair(state: &State, map: MapType, name: &[u8], value: &[u8]) -> Result<bool, Status> {
    let checked = if is_pseudo(map, name) {
        check_pseudo(state, map, name, value).map(|()| false)
    } else {
        header::is_plain(name, value).ok_or("")
    };
    let why = match checked {
        Ok(is_plain) => return Ok(is_plain),
        Err(why) => why,
    };
    let name = shown(name);
    state.warn(&format!("header \"{name}\" is refused: its name or value is not allowed{why}"));
    Err(Status::BadArgument)
}

/// The host frames messages itself. A guest sees what it wrote, and the host never gets a length that does not
/// fit the body: that would let a filter smuggle a request or split a response.
fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(CONTENT_LENGTH)
        || name.eq_ignore_ascii_case(b"transfer-encoding")
        || name.eq_ignore_ascii_case(b"connection")
}

#[inline(always)]
fn add(
    state: &mut State,
    map: MapType,
    name: &[u8],
    value: &[u8],
    (is_plain, size): (bool, Size),
) -> Result<(), Status> {
    if is_single(map, name) {
        return replace(state, map, name, value);
    }
    let stream = stream_to_change(state, map).ok_or(Status::BadArgument)?;
    if let Some(headers) = view(stream, map) {
        headers.push(name, value);
    }
    if header::is_of_connection(name) {
        return queue_removal(state, map, name);
    }
    stream.effects.push_counted(size, addition_to(map), is_plain.into(), name, value);
    Ok(())
}

fn addition_to(map: MapType) -> EffectKind {
    match map {
        MapType::RequestHeaders => EffectKind::AddRequestHeader,
        _ => EffectKind::AddResponseHeader,
    }
}

fn queue_addition(
    state: &mut State,
    map: MapType,
    name: &[u8],
    value: &[u8],
) -> Result<(), Status> {
    if header::is_of_connection(name) {
        return queue_removal(state, map, name);
    }
    queue(state, addition_to(map), 0, name, value)
}

/// Headers of which there is one at the most.
#[inline]
fn is_single(map: MapType, name: &[u8]) -> bool {
    is_pseudo(map, name) || is_framing(name)
}

/// The name under which a map has a header.
fn real_name(map: MapType, name: &[u8]) -> &[u8] {
    if map == MapType::RequestHeaders && name.eq_ignore_ascii_case(HOST) { AUTHORITY } else { name }
}

fn replace(state: &mut State, map: MapType, name: &[u8], value: &[u8]) -> Result<(), Status> {
    let name = real_name(map, name);
    let length = is_framing(name)
        .then(|| load(state, map).and_then(|h| h.get(CONTENT_LENGTH).map(<[u8]>::to_vec)))
        .flatten();
    if let Some(headers) = stream_to_change(state, map).and_then(|stream| view(stream, map)) {
        headers.replace(name, value);
    }
    queue_replacement(state, map, name, value, length.as_deref())
}

/// `length` is what the content length was so far.
fn queue_replacement(
    state: &mut State,
    map: MapType,
    name: &[u8],
    value: &[u8],
    length: Option<&[u8]>,
) -> Result<(), Status> {
    let name = real_name(map, name);
    if header::is_pseudo(name) {
        return replace_pseudo(state, name, value);
    }
    if is_framing(name) {
        return replace_framing(state, map, name, value, length);
    }
    if header::is_of_connection(name) {
        return queue_removal(state, map, name);
    }
    let kind = match map {
        MapType::RequestHeaders => EffectKind::SetRequestHeader,
        _ => EffectKind::SetResponseHeader,
    };
    queue(state, kind, 0, name, value)
}

/// A response length that the guest changes is taken away: the response is then sent without one.
fn replace_framing(
    state: &mut State,
    map: MapType,
    name: &[u8],
    value: &[u8],
    length: Option<&[u8]>,
) -> Result<(), Status> {
    let is_length = name.eq_ignore_ascii_case(CONTENT_LENGTH);
    if map == MapType::ResponseHeaders && is_length && length != Some(value) {
        return queue(state, EffectKind::RemoveResponseHeader, 0, b"Content-Length", b"");
    }
    Ok(())
}

fn remove(state: &mut State, map: MapType, name: &[u8]) -> Result<(), Status> {
    if let Some(headers) = stream_to_change(state, map).and_then(|stream| view(stream, map)) {
        headers.remove(name);
    }
    queue_removal(state, map, name)
}

fn queue_removal(state: &mut State, map: MapType, name: &[u8]) -> Result<(), Status> {
    let kind = match map {
        MapType::RequestHeaders => EffectKind::RemoveRequestHeader,
        _ => EffectKind::RemoveResponseHeader,
    };
    let length = name.eq_ignore_ascii_case(CONTENT_LENGTH);
    if is_framing(name) && !(map == MapType::ResponseHeaders && length) {
        return Ok(());
    }
    queue(state, kind, 0, name, b"")
}

/// The stream whose headers are about to change. A filter that only writes need not pay for reading.
#[inline]
fn stream_to_change(state: &mut State, map: MapType) -> Option<&mut Stream> {
    if map == MapType::RequestHeaders && state.plugin.reads_headers {
        load(state, map)?;
    }
    state.stream_mut()
}

/// The guest's view of headers that can be written, when it has one in this callback.
#[inline]
fn view(stream: &mut Stream, map: MapType) -> Option<&mut HeaderMap> {
    match map {
        MapType::RequestHeaders => {
            stream.request_headers_loaded.then_some(&mut stream.request_headers)
        }
        _ => response_headers(stream),
    }
}

pub(super) fn queue(
    state: &mut State,
    kind: EffectKind,
    number: i32,
    name: &[u8],
    value: &[u8],
) -> Result<(), Status> {
    let stream = state.stream_mut().ok_or(Status::BadArgument)?;
    match stream.effects.push(kind, number, name, value) {
        Ok(()) => Ok(()),
        Err(_) => Err(too_many_effects(state)),
    }
}
