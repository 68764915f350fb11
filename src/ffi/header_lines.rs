//! nginx's own lists of header lines.
//!
//! ngx_lua's functions cannot say all that a filter can: they turn underscores of names into hyphens, take an empty value
//! for no header, and keep one line of the headers that nginx has a field for. So those lines are changed here, in the
//! lists that nginx sends. Everything else goes through ngx_lua.
//!
//! Where the lists are in `ngx_http_request_t` depends on nginx's version and build. They are found by what they look
//! like, once for each Lua VM, and looked at again each time; where they are not found, these functions answer that, and the
//! caller does what ngx_lua can. What most filters need takes the response's list from where enough requests had it.

use std::ffi::{c_char, c_void};
use std::num::NonZeroUsize;

use super::functions::Functions;
use super::header_lists::{LIST_WORDS, List, ListPlace, Part};
use super::lua_vm::functions;
use super::nginx::Str;
use super::response_fields::{Fields, Response};
use super::types::{self, RPW_HEADERS_OF_REQUEST, RPW_LINE_FIELD, RPW_LINE_UNKNOWN, rpw_pair_t};
use super::{header_fields, nginx, variables};
use crate::ports::RequestId;

/// `ngx_table_elt_t`; nginx 1.23 and later have one more pointer behind it.
#[repr(C)]
struct Line {
    hash: usize,
    name: Str,
    value: Str,
    lower_case: *const u8,
}

const WORD: usize = size_of::<usize>();
const LINE_SIZE: usize = size_of::<Line>();
const LINE_SIZE_WITH_NEXT: usize = LINE_SIZE + WORD;
/// How many lines nginx makes room for at once: headers of a request and of a response, trailers of a response.
const HEADERS_AT_ONCE: usize = 20;
const TRAILERS_AT_ONCE: usize = 4;
/// How far the lists are looked for. Each `ngx_http_request_t` is larger, and the lists are in its first half.
const SEARCHED: usize = 110;
/// How far `content_type` is looked for behind the lists of the response.
const SEARCHED_BEHIND: usize = 48;

/// Takes every line of a response header away.
///
/// # Returns
/// How many there were; `RPW_LINE_UNKNOWN`.
/// # Safety
/// `request` is the running `ngx_http_request_t`, `name` has its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_response_line_remove(
    request: *mut c_void,
    name: *const c_char,
    name_length: usize,
) -> i32 {
    // SAFETY: as promised by the caller.
    let (list, name) = unsafe { (response_list(request), types::bytes(name, name_length)) };
    change(list, |line| {
        if !is_named(line, name) {
            return false;
        }
        // As ngx_lua does it: fields of the request may still point to the line.
        (line.hash, line.value.length) = (0, 0);
        true
    })
}

/// Takes every line of the response away.
///
/// # Returns
/// How many there were; `RPW_LINE_UNKNOWN`.
/// # Safety
/// `request` is the running `ngx_http_request_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_response_line_clear(request: *mut c_void) -> i32 {
    // SAFETY: as promised by the caller.
    change(unsafe { response_list(request) }, |line| {
        (line.hash, line.value.length) = (0, 0);
        true
    })
}

/// Gives the lines of a response header an empty value.
///
/// # Returns
/// How many there are; `RPW_LINE_UNKNOWN`.
/// # Safety
/// As `rpw_response_line_remove`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_response_line_blank(
    request: *mut c_void,
    name: *const c_char,
    name_length: usize,
) -> i32 {
    // SAFETY: as promised by the caller.
    let (list, name) = unsafe { (response_list(request), types::bytes(name, name_length)) };
    change(list, |line| {
        let found = is_named(line, name);
        if found {
            line.value.length = 0;
        }
        found
    })
}

/// Adds a line to headers.
///
/// # Arguments
/// `of`: `RPW_HEADERS_OF_REQUEST` or `RPW_HEADERS_OF_RESPONSE`. `always`: 0 to add nothing where nginx has a field for that
/// header and no line is there yet.
/// # Returns
/// 0; `RPW_LINE_FIELD` when nothing was added; `RPW_LINE_UNKNOWN`.
/// # Safety
/// As `rpw_response_line_remove`; `line` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_header_line_add(
    request: *mut c_void,
    of: i32,
    line: *const rpw_pair_t,
    always: i32,
) -> i32 {
    let of_request = of == RPW_HEADERS_OF_REQUEST;
    let fields = if of_request { header_fields::OF_REQUEST } else { header_fields::OF_RESPONSE };
    let fields = if always == 0 { fields } else { &[] };
    // SAFETY: as promised by the caller.
    unsafe {
        if of_request {
            add(request_list(request), line, fields, is_called)
        } else {
            add(response_list(request), line, fields, is_named)
        }
    }
}

/// Counts the lines of a request header.
///
/// # Returns
/// Their number; `RPW_LINE_UNKNOWN`.
/// # Safety
/// As `rpw_response_line_remove`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_request_line_count(
    request: *mut c_void,
    name: *const c_char,
    name_length: usize,
) -> i32 {
    // SAFETY: as promised by the caller.
    let (list, name) = unsafe { (request_list(request), types::bytes(name, name_length)) };
    change(list, |line| is_called(line, name))
}

/// Has nginx send the content type as it was set last, without the charset of the one before.
///
/// # Returns
/// 0; `RPW_LINE_UNKNOWN`.
/// # Safety
/// `request` is the running `ngx_http_request_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_response_charset_forget(request: *mut c_void) -> i32 {
    // SAFETY: as promised by the caller.
    let list = unsafe { response_list(request) };
    let value = NonZeroUsize::new(request as usize)
        .and_then(|request| response_header(RequestId(request), b"Content-Type"));
    let (Some(list), Some(value)) = (list, value) else { return RPW_LINE_UNKNOWN };
    let behind = 2 * LIST_WORDS;
    let words = list.cast::<usize>();
    for at in behind..behind + SEARCHED_BEHIND {
        // SAFETY: all of it is within the request, which has more behind its headers.
        unsafe {
            // content_type_len, then the type (length, data), then the charset (length, data).
            if *words.add(at + 1) == value.len()
                && *words.add(at + 2) == value.as_ptr() as usize
                && *words.add(at) <= value.len()
            {
                *words.add(at + 3) = 0;
                return 0;
            }
        }
    }
    RPW_LINE_UNKNOWN
}

/// The first value of a header of the response: that of nginx's field if it has one, else that of a line.
pub(super) fn response_header<'a>(request: RequestId, name: &[u8]) -> Option<&'a [u8]> {
    /// `ngx_http_lua_ffi_str_t`
    #[repr(C)]
    struct Lent {
        length: i32,
        data: *const u8,
    }
    let mut lent = Lent { length: 0, data: std::ptr::null() };
    let mut error = std::ptr::null();
    // SAFETY: a name without underscores needs no buffer; there is room for the one value that is asked for.
    let count = unsafe {
        (functions()?.response_header)(
            nginx::pointer(request),
            name.as_ptr(),
            name.len(),
            std::ptr::null_mut(),
            (&raw mut lent).cast(),
            1,
            &raw mut error,
        )
    };
    let length = usize::try_from(lent.length).ok().filter(|length| *length > 0 && count == 1)?;
    // SAFETY: nginx has it in the memory of the request.
    Some(unsafe { types::bytes(lent.data.cast(), length) })
}

/// Adds a line to a response whose headers nginx is about to send, of a header that it has no field for. False when its list is
/// not known. `is_lower`: the name is known to be in lower case.
pub(super) fn add_to_response(
    request: RequestId,
    name: &[u8],
    value: &[u8],
    is_lower: bool,
) -> bool {
    let Some(functions) = functions() else { return false };
    // SAFETY: it is a request of nginx's, and so is the list. Nothing finds lines of a response by their hash.
    unsafe {
        list_of_running(request)
            .and_then(|list| push(functions, list, (name, 1, is_lower), value))
            .is_some()
    }
}

/// The lines of a response.
pub(super) struct Lines(*mut List);

impl Lines {
    /// Those of a request; `None` when nginx's list is not known.
    pub(super) fn of_response(request: RequestId) -> Option<Self> {
        // SAFETY: it is a request of nginx's.
        unsafe { list_of_running(request) }.map(Self)
    }

    /// What nginx has beside them; `None` while it is not known where. It is to be used before anything happens to the request.
    #[inline]
    pub(super) fn fields(&self) -> Option<Fields<'_>> {
        // SAFETY: the list is one of nginx's.
        unsafe { functions()?.field_place.get(self.place()) }
    }

    /// The same as ngx_lua says it.
    pub(super) fn learn_fields(&self, said: Fields<'_>) {
        if let Some(functions) = functions() {
            // SAFETY: the list is one of nginx's.
            unsafe { functions.field_place.learn(self.place(), said) };
        }
    }

    fn place(&self) -> Response {
        // SAFETY: as for `iter`.
        let line_size = unsafe { (*self.0).line_size };
        Response { words: self.0.cast(), is_new: line_size == LINE_SIZE_WITH_NEXT }
    }

    /// Name and value of each. They are to be used before anything happens to the request.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        // SAFETY: the list is one of nginx's, as `looks_like` has found, and nothing changes it meanwhile.
        unsafe {
            let line_size = (*self.0).line_size;
            let next = |part: &*mut Part| Some((**part).next).filter(|next| !next.is_null());
            std::iter::successors(Some(&raw mut (*self.0).part), next)
                .flat_map(move |part| {
                    let (lines, count) = ((*part).lines, (*part).count);
                    (0..count).map(move |index| &*lines.add(index * line_size).cast::<Line>())
                })
                .filter(|line| line.hash != 0)
                .map(|line| (line.name.bytes(), line.value.bytes()))
        }
    }
}

/// Calls `f` with each line, and returns for how many it was true.
fn change(list: Option<*mut List>, mut f: impl FnMut(&mut Line) -> bool) -> i32 {
    let Some(list) = list else { return RPW_LINE_UNKNOWN };
    let mut count = 0;
    // SAFETY: `list` is one of nginx's lists of lines, as `looks_like` has found, and nothing else uses it meanwhile.
    unsafe {
        let line_size = (*list).line_size;
        let mut part = &raw mut (*list).part;
        while !part.is_null() {
            for index in 0..(*part).count {
                let line = (*part).lines.add(index * line_size).cast::<Line>();
                count += i32::from(f(&mut *line));
            }
            part = (*part).next;
        }
    }
    count
}

/// Whether a line of a response is there and has that name.
fn is_named(line: &Line, name: &[u8]) -> bool {
    line.hash != 0 && is_called(line, name)
}

/// The same of a request, whose lines are all there: those that are removed leave the list.
fn is_called(line: &Line, name: &[u8]) -> bool {
    // SAFETY: nginx gives each line a name.
    line.name.length == name.len() && unsafe { line.name.bytes() }.eq_ignore_ascii_case(name)
}

unsafe fn add(
    list: Option<*mut List>,
    line: *const rpw_pair_t,
    fields: &[&str],
    is_there: fn(&Line, &[u8]) -> bool,
) -> i32 {
    let Some(list) = list else { return RPW_LINE_UNKNOWN };
    let Some(functions) = functions() else { return RPW_LINE_UNKNOWN };
    // SAFETY: as promised by the caller.
    let Some((name, value)) = unsafe { types::pairs(line, 1) }.next() else {
        return RPW_LINE_UNKNOWN;
    };
    if header_fields::has(fields, name) && change(Some(list), |line| is_there(line, name)) == 0 {
        return RPW_LINE_FIELD;
    }
    // By that nginx finds the headers of a request that it does not pass on, or not as they are. 0 is a line that is not there.
    let hash = variables::hash(name).max(1);
    // SAFETY: the list is nginx's, and so is the memory.
    let added = unsafe { push(functions, list, (name, hash, false), value) };
    if added.is_some() { 0 } else { RPW_LINE_UNKNOWN }
}

/// Adds a line of that name, with a hash of it, which is known to be in lower case or is not. `None` when there is no memory.
#[inline(always)]
unsafe fn push(
    functions: &Functions,
    list: *mut List,
    (name, hash, is_lower): (&[u8], usize, bool),
    value: &[u8],
) -> Option<()> {
    // SAFETY: as promised by the caller; each piece of memory is as large as what is written to it.
    unsafe {
        let pool = (*list).pool;
        let with_next = (*list).line_size == LINE_SIZE_WITH_NEXT;
        let bytes = allocate(functions, pool, 2 * name.len() + value.len() + 2)?;
        bytes.copy_from_nonoverlapping(name.as_ptr(), name.len());
        *bytes.add(name.len()) = 0;
        let mut value_at = bytes.add(name.len() + 1);
        let mut lower_case = bytes;
        if !is_lower {
            lower_case = value_at;
            for (index, byte) in name.iter().enumerate() {
                *lower_case.add(index) = byte.to_ascii_lowercase();
            }
            value_at = lower_case.add(name.len());
        }
        value_at.copy_from_nonoverlapping(value.as_ptr(), value.len());
        *value_at.add(value.len()) = 0;

        // A subrequest has a copy of its parent's list, whose last part is still the parent's.
        let own = &raw mut (*list).part;
        let is_copy = (*own).next.is_null() && (*list).last != own;
        if is_copy || (*list).capacity == 0 {
            let lines = allocate(functions, pool, HEADERS_AT_ONCE * (*list).line_size)?;
            let part = allocate(functions, pool, size_of::<Part>())?.cast::<Part>();
            part.write(Part { lines, count: 0, next: std::ptr::null_mut() });
            let last = if is_copy { own } else { (*list).last };
            (*last).next = part;
            (*list).last = part;
            (*list).capacity = HEADERS_AT_ONCE;
        }
        let line = (functions.list_push)(list.cast()).cast::<Line>();
        if line.is_null() {
            return None;
        }
        line.write(Line {
            hash,
            name: Str { length: name.len(), data: bytes },
            value: Str { length: value.len(), data: value_at },
            lower_case,
        });
        if with_next {
            line.add(1).cast::<usize>().write(0);
        }
    }
    Some(())
}

unsafe fn allocate(functions: &Functions, pool: *mut c_void, size: usize) -> Option<*mut u8> {
    // SAFETY: the pool is that of a list of a living request.
    let memory = unsafe { (functions.palloc)(pool, size) }.cast::<u8>();
    (!memory.is_null()).then_some(memory)
}

unsafe fn response_list(request: *mut c_void) -> Option<*mut List> {
    // SAFETY: as promised by the caller.
    unsafe {
        find(request, &functions()?.list_places.response, |list| {
            let trailers = list.add(1);
            looks_like(list, HEADERS_AT_ONCE)
                && looks_like(trailers, TRAILERS_AT_ONCE)
                && (*list).pool == (*trailers).pool
                && (*list).line_size == (*trailers).line_size
        })
    }
}

/// The same of a request of nginx's that runs, not of one that stands for a timer.
#[inline]
unsafe fn list_of_running(request: RequestId) -> Option<*mut List> {
    let pointer = nginx::pointer(request);
    match functions()?.list_places.response.get_agreed() {
        Some(at) => Some(pointer.cast::<usize>().wrapping_add(at).cast()),
        // SAFETY: as promised by the caller.
        None => unsafe { response_list(pointer) },
    }
}

unsafe fn request_list(request: *mut c_void) -> Option<*mut List> {
    // SAFETY: as promised by the caller.
    unsafe {
        let of_response = response_list(request)?;
        find(request, &functions()?.list_places.request, |list| {
            // A request of HTTP/0.9 has none, and the next one is the response's.
            list < of_response
                // ngx_lua makes room for fewer when it takes lines out.
                && (*list).capacity <= HEADERS_AT_ONCE
                && looks_like(list, (*list).capacity)
                && (*list).pool == (*of_response).pool
                && (*list).line_size == (*of_response).line_size
        })
    }
}

/// Finds a list of a request by what it looks like.
unsafe fn find(
    request: *mut c_void,
    place: &ListPlace,
    is_it: impl Fn(*mut List) -> bool,
) -> Option<*mut List> {
    if request.is_null() {
        return None;
    }
    let list_at = |at: usize| request.cast::<usize>().wrapping_add(at).cast::<List>();
    if let Some(known) = place.get().map(list_at)
        && is_it(known)
    {
        place.agree();
        return Some(known);
    }
    let found = (1..SEARCHED).find(|at| is_it(list_at(*at)))?;
    place.set(found);
    Some(list_at(found))
}

/// Whether this part of a request is a list of header lines for so many at once.
unsafe fn looks_like(list: *const List, capacity: usize) -> bool {
    // SAFETY: within the request, see `SEARCHED`.
    unsafe {
        matches!((*list).line_size, LINE_SIZE | LINE_SIZE_WITH_NEXT)
            && (*list).capacity == capacity
            && !(*list).pool.is_null()
            && !(*list).last.is_null()
            && !(*list).part.lines.is_null()
    }
}
