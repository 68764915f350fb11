//! The functions of nginx and ngx_lua that the library calls: those that need a request and no Lua state.
//!
//! The shell looks them up and hands their addresses over, so that this library links to nothing of nginx.

use std::ffi::{c_char, c_int, c_void};

use super::header_lists::ListPlaces;
use super::line_place::LinePlace;
use super::response_fields::FieldPlace;
use super::server_flag::ServerFlag;
use super::types::rpw_pair_t;

/// Functions of nginx and ngx_lua, each named as there. All are required.
///
/// Sources: nginx `src/http/ngx_http_{request,variables}.c`; ngx_lua `src/ngx_http_lua_{variable,log,headers,phase,
/// misc,semaphore,
/// worker}.c`.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rpw_nginx_t {
    /// `ngx_http_cleanup_add`
    pub cleanup_add: Option<unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>,
    /// `ngx_http_lua_ffi_raw_log`
    pub raw_log: Option<unsafe extern "C" fn(*mut c_void, c_int, *const u8, usize) -> c_int>,
    /// `ngx_http_lua_ffi_errlog_get_sys_filter_level`
    pub log_level: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ngx_http_lua_ffi_var_get`
    pub var_get: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const u8,
            usize,
            *mut u8,
            c_int,
            *mut *const u8,
            *mut usize,
            *mut *const c_char,
        ) -> c_int,
    >,
    /// `ngx_http_lua_ffi_var_set`
    pub var_set: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const u8,
            usize,
            *mut u8,
            *const u8,
            usize,
            *mut u8,
            *mut usize,
        ) -> c_int,
    >,
    /// `ngx_http_lua_ffi_req_get_headers_count`
    pub headers_count: Option<unsafe extern "C" fn(*mut c_void, c_int, *mut c_int) -> c_int>,
    /// `ngx_http_lua_ffi_req_get_headers`
    pub headers: Option<unsafe extern "C" fn(*mut c_void, *mut rpw_pair_t, c_int, c_int) -> c_int>,
    /// `ngx_http_lua_ffi_get_phase`
    pub phase: Option<unsafe extern "C" fn(*mut c_void, *mut *const c_char) -> c_int>,
    /// `ngx_http_lua_ffi_headers_sent`
    pub headers_sent: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ngx_http_lua_ffi_get_resp_status`
    pub response_status: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ngx_http_lua_ffi_sema_post`
    pub semaphore_post: Option<unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
    /// `ngx_http_lua_ffi_get_resp_header`
    pub response_header: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const u8,
            usize,
            *mut u8,
            *mut c_void,
            c_int,
            *mut *const c_char,
        ) -> c_int,
    >,
    /// `ngx_http_lua_ffi_set_resp_header`
    pub set_response_header: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const u8,
            usize,
            c_int,
            *const u8,
            usize,
            *mut c_void,
            usize,
            c_int,
            *mut *const c_char,
        ) -> c_int,
    >,
    /// `ngx_http_get_variable`
    pub get_variable:
        Option<unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void>,
    /// `ngx_list_push`
    pub list_push: Option<unsafe extern "C" fn(*mut c_void) -> *mut c_void>,
    /// `ngx_palloc`
    pub palloc: Option<unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>,
    /// `ngx_http_lua_ffi_worker_exiting`
    pub worker_exiting: Option<unsafe extern "C" fn() -> c_int>,
    /// `ngx_http_core_module`
    pub core_module: *const c_void,
}

macro_rules! functions {
    ($($name:ident: $ty:ty),* $(,)?) => {
        /// The same functions, all there.
        pub(super) struct Functions {
            $(pub $name: $ty,)*
            /// Whether `merge_slashes` is on.
            pub merge_slashes: ServerFlag,
            /// Where a request has its method and target.
            pub line_place: LinePlace,
            /// Where a request has the lists of its header lines.
            pub list_places: ListPlaces,
            /// Where a response has its fields behind them.
            pub field_place: FieldPlace,
        }

        impl Functions {
            /// `None` when one is missing.
            pub(super) fn new(f: &rpw_nginx_t) -> Option<Self> {
                // SAFETY: nginx's own module, as the caller promised.
                let merge_slashes = unsafe { ServerFlag::find(f.core_module, b"merge_slashes") };
                Some(Self {
                    $($name: f.$name?,)*
                    merge_slashes,
                    line_place: LinePlace::unknown(),
                    list_places: ListPlaces::unknown(),
                    field_place: FieldPlace::unknown(),
                })
            }
        }
    };
}

functions! {
    cleanup_add: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    raw_log: unsafe extern "C" fn(*mut c_void, c_int, *const u8, usize) -> c_int,
    log_level: unsafe extern "C" fn(*mut c_void) -> c_int,
    var_get: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, c_int, *mut *const u8, *mut usize, *mut *const c_char) -> c_int,
    var_set: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, *const u8, usize, *mut u8, *mut usize) -> c_int,
    headers_count: unsafe extern "C" fn(*mut c_void, c_int, *mut c_int) -> c_int,
    headers: unsafe extern "C" fn(*mut c_void, *mut rpw_pair_t, c_int, c_int) -> c_int,
    phase: unsafe extern "C" fn(*mut c_void, *mut *const c_char) -> c_int,
    headers_sent: unsafe extern "C" fn(*mut c_void) -> c_int,
    response_status: unsafe extern "C" fn(*mut c_void) -> c_int,
    semaphore_post: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    response_header: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, *mut c_void, c_int, *mut *const c_char) -> c_int,
    set_response_header: unsafe extern "C" fn(*mut c_void, *const u8, usize, c_int, *const u8, usize, *mut c_void, usize, c_int, *mut *const c_char) -> c_int,
    get_variable: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void,
    list_push: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    palloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    worker_exiting: unsafe extern "C" fn() -> c_int,
}
