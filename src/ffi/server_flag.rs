//! A flag of nginx's configuration of a server, such as `merge_slashes`.
//!
//! Where nginx keeps the flag differs from version to version. The table of the module's directives says where: nginx
//! itself writes the value to that place when it reads its configuration. That table, and the head of a request, are what
//! each module of nginx is compiled against (`ngx_module_t`, `ngx_command_t`, the macros of `ngx_http_config.h`).

use std::ffi::c_void;

use super::types;

/// `ngx_str_t`
#[repr(C)]
struct Text {
    length: usize,
    data: *const u8,
}

/// `ngx_command_t`
#[repr(C)]
struct Command {
    name: Text,
    kind: usize,
    set: *const c_void,
    conf: usize,
    offset: usize,
    post: *const c_void,
}

/// The head of `ngx_module_t`.
#[repr(C)]
struct Module {
    number: usize,
    index: usize,
    name: *const u8,
    spare: [usize; 2],
    version: usize,
    signature: *const u8,
    context: *const c_void,
    commands: *const Command,
}

/// The head of `ngx_http_request_t`.
#[repr(C)]
struct Request {
    signature: u32,
    connection: *const c_void,
    contexts: *const *const c_void,
    main: *const *const c_void,
    servers: *const *const c_void,
}

/// `NGX_HTTP_MODULE`: "HTTP".
const SIGNATURE: u32 = 0x5054_5448;

/// Where a flag is; nowhere when nginx has no such directive.
#[derive(Clone, Copy)]
pub(super) struct ServerFlag(Option<(usize, usize)>);

impl ServerFlag {
    /// # Safety
    /// `module` is NULL or nginx's `ngx_http_core_module`.
    pub(super) unsafe fn find(module: *const c_void, name: &[u8]) -> Self {
        // SAFETY: as promised by the caller; a command without a name ends the table.
        unsafe {
            let Some(module) = module.cast::<Module>().as_ref() else { return Self(None) };
            let mut command = module.commands;
            while let Some(known) = command.as_ref() {
                if known.name.length == 0 {
                    break;
                }
                if types::bytes(known.name.data.cast(), known.name.length) == name {
                    return Self(Some((module.number, known.offset)));
                }
                command = command.add(1);
            }
        }
        Self(None)
    }

    /// The flag for the server of a request; true, which is nginx's default, when it is not known.
    ///
    /// # Safety
    /// `request` is NULL or a request of nginx.
    pub(super) unsafe fn of(self, request: *const c_void) -> bool {
        let Some((number, offset)) = self.0 else { return true };
        // SAFETY: as promised by the caller; nginx made a configuration for each of its modules, and keeps a flag
        // (`ngx_flag_t`) at the offset.
        unsafe {
            let Some(request) = request.cast::<Request>().as_ref() else { return true };
            if request.signature != SIGNATURE || request.servers.is_null() {
                return true;
            }
            let server = *request.servers.add(number);
            server.is_null() || server.byte_add(offset).cast::<isize>().read() != 0
        }
    }
}
