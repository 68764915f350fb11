-- The connections for gRPC of a worker: connections.lua moves the bytes, the library speaks HTTP/2.
--
-- Each connection has two light threads: one makes it and receives, one sends. So a server that takes nothing holds
-- back its connection and no deadline.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local connections = require("resty.proxy-wasm.connections")
local semaphore = require("ngx.semaphore")
local trust = require("resty.proxy-wasm.trust")

local ffi_str = ffi.string
local spawn = ngx.thread.spawn

local check = connections.check
local open = connections.open
local rest = connections.rest
local wake = connections.wake

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local STOP = const.RPW_WORK_STOP
local WAIT = const.RPW_WORK_WAIT

local CHUNK = 65536
-- The same after a rest: bytes of small frames take long.
local CHUNK_AFTER_REST = 8192
local FOREVER = 3600
-- Seconds that a connection which is to be closed may take to send its last bytes.
local LAST_WORDS = 1

local io = ffi.new("rpw_io_t")
local wait_ms = ffi.new("uint32_t[1]")
local rest_ms = ffi.new("uint32_t[1]")

local all

-- Lets the library go on with a connection, and hands the light thread that sends what is to be sent.
local function step(conn)
    local rc = lib.rpw_grpc_next(conn.id, conn.sending and 0 or 1, io, wait_ms, error_slot)
    if rc ~= WAIT and rc ~= STOP then
        check(rc)
        conn.wait = 1
        return
    end
    conn.wait = wait_ms[0] / 1000
    conn.rest_ms = io.rest_ms
    if io.length > 0 then
        conn.data = ffi_str(io.data, io.length)
        conn.sending = true
        conn.to_send:post()
    end
    if rc == STOP then
        conn.over = true
    end
end

-- Hands over what was received. Returns the milliseconds to rest.
local function received(conn, data, eof)
    rest_ms[0] = 0
    check(lib.rpw_grpc_receive(conn.id, data, #data, eof, rest_ms, error_slot))
    return rest_ms[0]
end

local function send(conn)
    while true do
        conn.to_send:wait(FOREVER)
        while conn.data do
            local data = conn.data
            conn.data = nil
            local ok, err = conn.sock:send(data)
            conn.sending = false
            if not ok then
                return all:fail(conn, "closed", err)
            end
            step(conn)
            conn.look()
            if conn.over then
                wake(conn)
            end
            if conn.rest_ms > 0 then
                rest(conn.rest_ms)
            end
        end
    end
end

local function receive(conn)
    local ok, word, err = open(conn, "wasm:grpc:", 1)
    if not ok then
        return all:fail(conn, word, err)
    end
    check(lib.rpw_grpc_connected(conn.id, error_slot))
    local sock = conn.sock
    local chunk = CHUNK
    while true do
        step(conn)
        conn.look()
        wake(conn)
        local data
        data, err = sock:receiveany(chunk)
        if data then
            local ms = received(conn, data, 0)
            chunk = CHUNK
            if ms > 0 then
                conn.look()
                rest(ms)
                chunk = CHUNK_AFTER_REST
            end
        elseif err == "closed" then
            received(conn, "", 1)
            conn.broken = true
            conn.look()
            return wake(conn)
        else
            return all:fail(conn, "closed", err)
        end
    end
end

local function run(_, conn)
    conn.sender = spawn(send, conn)
    conn.receiver = spawn(receive, conn)
    while not conn.over and not conn.broken do
        all:heed_exit(conn)
        step(conn)
        conn.look()
        if not conn.over then
            all:wait(conn, conn.wait)
        end
    end
    local left = LAST_WORDS
    while conn.sending and not conn.broken and left > 0 do
        conn.semaphore:wait(0.05)
        left = left - 0.05
    end
    all:close(conn, conn.receiver, conn.sender)
end

all = connections.new(run, lib.rpw_grpc_failed, lib.rpw_grpc_end_soon)

-- Guests may call Lua below these.
jit.off(step)
jit.off(received)
jit.off(receive)

local _M = {}

-- Makes the connection of that number. `look` is called when there is work.
function _M.connect(id, host, port, judged, tls, look)
    if tls then
        trust.system()
    end
    all:start({
        id = id,
        host = host,
        port = port,
        judged = judged,
        look = look,
        to_send = semaphore.new(0),
        wait = 0,
        rest_ms = 0,
    })
end

jit.off(_M.connect)

-- The connection of that number has something to do.
function _M.wake(id)
    local conn = all.by_id[id]
    if conn then
        wake(conn)
    end
end

return _M
