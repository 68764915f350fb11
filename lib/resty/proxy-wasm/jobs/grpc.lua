-- The connections for gRPC of a worker: connections.lua moves the bytes, the library speaks HTTP/2.
--
-- Each connection has two light threads: one makes it and receives, one sends. So a server that takes nothing holds
-- back its connection and no deadline.
--
-- Waking light threads is a large part of what a call costs. So the one that sends is woken for a new call and asks by
-- itself what to send, and the timer is woken only when it would wait for too long.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local connections = require("resty.proxy-wasm.jobs.connections")
local semaphore = require("ngx.semaphore")
local trust = require("resty.proxy-wasm.trust")

local ffi_str = ffi.string
local now = ngx.now
local spawn = ngx.thread.spawn

local check = connections.check
local open = connections.open
local post = connections.post
local rest = connections.rest
local wake = connections.wake

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local GRPC = const.RPW_CONNECTION_GRPC
local STOP = const.RPW_WORK_STOP
local WAIT = const.RPW_WORK_WAIT

local CHUNK = 65536
-- The same after a rest: bytes of small frames take long.
local CHUNK_AFTER_REST = 8192
local FOREVER = 3600
-- With as many bytes to send the library may have held back more.
local MUCH = 65536
-- Seconds that a connection which is to be closed may take to send its last bytes.
local LAST_WORDS = 1

local io = ffi.new("rpw_io_t")
local received_io = ffi.new("rpw_io_t")
local wait_ms = ffi.new("uint32_t[1]")

local all

-- Lets the library continue with a connection. What is to be sent is in `conn.data` then.
local function step(conn)
    local sending = conn.sending
    -- What is to be sent meanwhile is asked for when that is sent.
    conn.missed = conn.missed or sending
    local rc = lib.rpw_connection_next(GRPC, conn.id, sending and 0 or 1, io, wait_ms, error_slot)
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
    end
    if rc == STOP then
        conn.over = true
    end
end

-- Does the same outside of the light thread that sends.
local function go_on(conn)
    step(conn)
    if conn.data then
        post(conn.to_send)
    end
    conn.look()
end

-- Wakes the timer when it has something to do, or has to wait for less.
local function tell(conn)
    if conn.over or conn.broken or now() + conn.wait < conn.waits_until then
        wake(conn)
    end
end

-- Hands over what was received. Returns the milliseconds to rest.
local function received(conn, data, eof)
    local rc = lib.rpw_connection_receive(GRPC, conn.id, data, #data, eof, received_io, error_slot)
    check(rc)
    return rc < 0 and 0 or received_io.rest_ms
end

local function send(conn)
    while true do
        if not conn.data then
            conn.to_send:wait(FOREVER)
        end
        local data = conn.data
        if data then
            conn.data = nil
            local ok, err = conn.sock:send(data)
            conn.sending = false
            if not ok then
                return all:fail(conn, "closed", err)
            end
        end
        if not data or conn.missed or #data >= MUCH or conn.over then
            conn.missed = false
            step(conn)
            conn.look()
            tell(conn)
        end
        if conn.rest_ms > 0 then
            rest(conn.rest_ms)
        end
    end
end

local function receive(conn)
    local ok, word, err = open(conn, "wasm:grpc:", 1)
    if not ok then
        return all:fail(conn, word, err)
    end
    check(lib.rpw_connection_connected(GRPC, conn.id, error_slot))
    local sock = conn.sock
    local chunk = CHUNK
    while true do
        go_on(conn)
        tell(conn)
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
        go_on(conn)
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

all = connections.new(GRPC, run)

-- Guests may call Lua below these.
jit.off(step)
jit.off(go_on)
jit.off(send)
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
        waits_until = 0,
        rest_ms = 0,
    })
end

jit.off(_M.connect)

-- The connection of that number has something to do.
function _M.wake(id)
    local conn = all.by_id[id]
    if conn then
        -- In a worker that is to end the timer looks up now and then.
        post((conn.sending or all.ended) and conn.semaphore or conn.to_send)
    end
end

return _M
