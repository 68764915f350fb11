-- The Redis connections of a worker: connections.lua moves the bytes, the library speaks Redis.
--
-- Each connection has one light thread, which makes it and receives; its timer sends. A server that takes nothing until
-- the first deadline of its calls holds back its own connection only.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local connections = require("resty.proxy-wasm.jobs.connections")

local ffi_str = ffi.string
local max = math.max
local now = ngx.now
local spawn = ngx.thread.spawn

local check = connections.check
local open = connections.open
local rest = connections.rest
local wake = connections.wake
local CONNECT_MS = connections.CONNECT_MS
local LONGEST_MS = connections.LONGEST_MS

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local REDIS = const.RPW_CONNECTION_REDIS
local STOP = const.RPW_WORK_STOP
local WAIT = const.RPW_WORK_WAIT

local CHUNK = 65536

local io = ffi.new("rpw_io_t")
local wait_ms = ffi.new("uint32_t[1]")

local all

local function receive(conn)
    local ok, word, err = open(conn, "wasm:redis:", 0)
    if not ok then
        return all:fail(conn, word, err)
    end
    check(lib.rpw_connection_connected(REDIS, conn.id, error_slot))
    wake(conn)
    local sock = conn.sock
    while true do
        local data
        data, err = sock:receiveany(CHUNK)
        if not data then
            return all:fail(conn, err == "timeout" and "timeout" or "closed", err)
        end
        local rc = lib.rpw_connection_receive(REDIS, conn.id, data, #data, 0, io, error_slot)
        local ms = io.rest_ms
        check(rc)
        conn.look()
        if rc == STOP then
            conn.broken = true
            return wake(conn)
        elseif ms > 0 then
            rest(ms)
        end
    end
end

-- Sends what is to be sent. Returns the seconds to wait, nil when the connection is to be closed.
local function step(conn)
    while true do
        local rc = lib.rpw_connection_next(REDIS, conn.id, 1, io, wait_ms, error_slot)
        local data = io.length > 0 and ffi_str(io.data, io.length)
        local wait = wait_ms[0]
        conn.look()
        if rc ~= STOP and rc ~= WAIT then
            check(rc)
            return 1
        elseif data then
            -- What nothing waits for is sent before the connection is closed.
            local began = now()
            conn.sock:settimeouts(CONNECT_MS, max(wait, 1), LONGEST_MS)
            local ok, err = conn.sock:send(data)
            if not ok then
                all:fail(conn, err == "timeout" and "timeout" or "closed", err)
                return nil
            end
            -- By the time of nginx's loop. What it was to send meanwhile has it woken.
            data = now() ~= began
        end
        if rc == STOP then
            return nil
        elseif not data then
            return wait / 1000
        end
    end
end

local function run(_, conn)
    conn.receiver = spawn(receive, conn)
    while not conn.broken do
        all:heed_exit(conn)
        local wait = step(conn)
        if not wait then
            break
        end
        if not conn.broken then
            all:wait(conn, wait)
        end
    end
    all:close(conn, conn.receiver)
end

all = connections.new(REDIS, run)

-- Guests may call Lua below these.
jit.off(receive)
jit.off(step)

local _M = {}

-- The connection that is described has something to do. `look` is called when there is work.
function _M.wake(work, look)
    local conn = all.by_id[work.id]
    if conn then
        wake(conn)
    else
        all:start({
            id = work.id,
            host = ffi_str(work.host, work.host_length),
            port = work.port ~= 0 and work.port or nil,
            judged = false,
            server_name = work.tls == 1 and ffi_str(work.server_name, work.server_name_length) or nil,
            look = look,
        })
    end
end

jit.off(_M.wake)

return _M
