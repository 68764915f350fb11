-- Finds the library, checks that it is the other half of these files, and hands it nginx's functions.

local ffi = require("ffi")
local base = require("resty.core.base")
local const = require("resty.proxy-wasm.cdef")

local C = ffi.C
local ffi_new = ffi.new
local ffi_str = ffi.string
local format = string.format

base.allows_subsystem("http")

-- Functions that are called from the library only, and two of the C library's. Each has a name of our own here,
-- because resty.core declares some of them too, and a second declaration would replace the first.
ffi.cdef [[
void rpw_sym_cleanup_add(void) __asm__("ngx_http_cleanup_add");
void rpw_sym_raw_log(void) __asm__("ngx_http_lua_ffi_raw_log");
void rpw_sym_log_level(void) __asm__("ngx_http_lua_ffi_errlog_get_sys_filter_level");
void rpw_sym_var_get(void) __asm__("ngx_http_lua_ffi_var_get");
void rpw_sym_var_set(void) __asm__("ngx_http_lua_ffi_var_set");
void rpw_sym_headers_count(void) __asm__("ngx_http_lua_ffi_req_get_headers_count");
void rpw_sym_headers(void) __asm__("ngx_http_lua_ffi_req_get_headers");
void rpw_sym_phase(void) __asm__("ngx_http_lua_ffi_get_phase");
void rpw_sym_headers_sent(void) __asm__("ngx_http_lua_ffi_headers_sent");
void rpw_sym_response_status(void) __asm__("ngx_http_lua_ffi_get_resp_status");
void rpw_sym_semaphore_post(void) __asm__("ngx_http_lua_ffi_sema_post");
void rpw_sym_response_header(void) __asm__("ngx_http_lua_ffi_get_resp_header");
void rpw_sym_set_response_header(void) __asm__("ngx_http_lua_ffi_set_resp_header");
void rpw_sym_get_variable(void) __asm__("ngx_http_get_variable");
void rpw_sym_list_push(void) __asm__("ngx_list_push");
void rpw_sym_palloc(void) __asm__("ngx_palloc");
void rpw_sym_worker_exiting(void) __asm__("ngx_http_lua_ffi_worker_exiting");
extern char rpw_sym_core_module[1] __asm__("ngx_http_core_module");
const char *rpw_sym_libc_version(void) __asm__("gnu_get_libc_version");
int rpw_sym_statx(int, const char *, int, unsigned int, uint64_t *) __asm__("statx");
]]

local FUNCTIONS = {
    "cleanup_add", "raw_log", "log_level", "var_get", "var_set", "headers_count", "headers", "phase",
    "headers_sent", "response_status", "semaphore_post",
    "response_header", "set_response_header", "get_variable", "list_push", "palloc", "worker_exiting", "core_module",
}

local AT_FDCWD = -100
local STATX_INO = 0x100
-- Where the inode number is, in units of 8 bytes.
local STX_INO = 4

local FILE = "libresty_proxy_wasm.so"
local ERROR_SIZE = 4096

-- The names that Rust and Debian have for this machine; both are nil on one that there are no packages for.
local function machine()
    local cpu = ({ x64 = "x86_64", arm64 = "aarch64" })[ffi.arch]
    if not cpu then
        return nil
    end
    local is_gnu = pcall(function()
        return C.rpw_sym_libc_version
    end)
    return format("%s-unknown-linux-%s", cpu, is_gnu and "gnu" or "musl"), cpu .. "-linux-gnu"
end

-- Every place to look: package.cpath, then beside these Lua files, then where packages put libraries that belong to
-- Lua files below share/lua/5.1.
local function candidates()
    local list, seen = {}, {}
    local function add(path)
        if not seen[path] then
            seen[path] = true
            list[#list + 1] = path
        end
    end
    for template in package.cpath:gmatch("[^;]+") do
        local folder = template:match("^(.-)[^/?]*%?")
        if folder then
            -- Without a slash it would be looked for among the system's libraries.
            add((folder == "" and "./" or folder) .. FILE)
        end
    end
    local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
    for _, up in ipairs({ "", "../", "../../" }) do
        add(here .. up .. FILE)
    end
    local prefix = here:match("^(.*/)share/lua/5%.1/resty/proxy%-wasm/$")
    if prefix then
        local _, multiarch = machine()
        add(prefix .. "lib/lua/5.1/" .. FILE)
        add(prefix .. "lib64/lua/5.1/" .. FILE)
        if multiarch then
            add(prefix .. "lib/" .. multiarch .. "/lua/5.1/" .. FILE)
        end
    end
    return list
end

local function exists(path)
    local file = io.open(path, "rb")
    if file then
        file:close()
    end
    return file ~= nil
end

-- Another spelling of the path that goes with the file: "./" and "/" for the bits of its inode number. The loader
-- takes a name that it has seen for the library that it has, and a reload would never see that there is another file.
-- The same path where the file cannot be told.
local function spelled(path)
    -- struct statx has one layout everywhere (Linux, include/uapi/linux/stat.h).
    local stat = ffi_new("uint64_t[32]")
    local ok, rc = pcall(function()
        return C.rpw_sym_statx(AT_FDCWD, path, 0, STATX_INO, stat)
    end)
    if not ok or rc ~= 0 then
        return path
    end
    local folder, file = path:match("^(.*/)(.*)$")
    local inode, bits = tonumber(stat[STX_INO]), {}
    while inode >= 1 do
        bits[#bits + 1] = inode % 2 == 1 and "./" or "/"
        inode = math.floor(inode / 2)
    end
    return folder .. table.concat(bits) .. file
end

-- The library, or nil and the cause.
local function open_library(path)
    local ok, lib = pcall(ffi.load, path)
    if not ok then
        return nil, lib
    end
    local spelling = spelled(path)
    ok, lib = pcall(ffi.load, spelling)
    if not ok then
        local from, to = lib:find(spelling, 1, true)
        return nil, from and lib:sub(1, from - 1) .. path .. lib:sub(to + 1) or lib
    end
    return lib
end

local function load_library()
    local tried = {}
    for _, path in ipairs(candidates()) do
        local cause = "no such file"
        if exists(path) then
            local lib
            lib, cause = open_library(path)
            if lib then
                return lib, path
            end
        end
        tried[#tried + 1] = format("%s: %s", path, cause)
    end
    error(format("resty.proxy-wasm: %s was not found. Install the package of version %s for %s, or put the library of "
        .. "its tarball into a folder of lua_package_cpath (docs/install.md)\nLooked at: %s",
        FILE, const.RPW_VERSION, machine() or ffi.arch, table.concat(tried, "; ")))
end

local function check_abi(lib, path)
    local ok, number = pcall(function()
        return lib.rpw_abi()
    end)
    if not ok then
        error(format("resty.proxy-wasm: %s is not this library: %s", path, number))
    end
    if number ~= const.RPW_ABI then
        error(format("resty.proxy-wasm: %s has ABI %d, and these Lua files (%s) need ABI %d: install both from "
            .. "one release", path, number, debug.getinfo(1, "S").short_src, const.RPW_ABI))
    end
end

local lib, path = load_library()
check_abi(lib, path)

local error_text = ffi_new("char[?]", ERROR_SIZE)
local error_slot = ffi_new("rpw_error_t")
error_slot.data = error_text
error_slot.capacity = ERROR_SIZE

local _M = {
    lib = lib,
    path = path,
    const = const,
    -- Where every call writes its error.
    error_slot = error_slot,
}

-- The text of the last call that failed.
function _M.last_error()
    return ffi_str(error_text, error_slot.length)
end

local function set_up()
    local functions = ffi_new("rpw_nginx_t")
    for _, name in ipairs(FUNCTIONS) do
        local ok, found = pcall(function()
            return C["rpw_sym_" .. name]
        end)
        if not ok then
            error("resty.proxy-wasm: this nginx is too old for it: " .. found)
        end
        functions[name] = ffi.cast(ffi.typeof(functions[name]), found)
    end
    if lib.rpw_setup(functions, error_slot) < 0 then
        error("resty.proxy-wasm: " .. _M.last_error())
    end
end

set_up()

return _M
