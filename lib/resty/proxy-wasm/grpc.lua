-- The connections for gRPC of a worker: nginx's cosockets move the bytes, the library speaks HTTP/2 and says which call
-- goes on which connection.
--
-- Each connection is a timer with three light threads: one makes it and receives, one sends, and the timer's own waits
-- for the deadlines of its calls and ends the other two. So a server that takes nothing holds back its connection and
-- no deadline.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local resolve = require("resty.proxy-wasm.resolve")
local semaphore = require("ngx.semaphore")
local trust = require("resty.proxy-wasm.trust")

local ffi_str = ffi.string
local ngx = ngx
local ngx_log = ngx.log
local exiting = ngx.worker.exiting
local kill = ngx.thread.kill
local min = math.min
local sleep = ngx.sleep
local spawn = ngx.thread.spawn
local tcp = ngx.socket.tcp
local timer_at = ngx.timer.at
local update_time = ngx.update_time

local target = resolve.target
local word_of = resolve.word

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local STOP = const.RPW_WORK_STOP
local WAIT = const.RPW_WORK_WAIT

local CHUNK = 65536
-- The same after a rest: bytes of small frames take long.
local CHUNK_AFTER_REST = 8192
local CONNECT_MS = 60000
-- Nothing comes for as long as a call takes; its deadline is kept elsewhere.
local LONGEST_MS = 2 ^ 31 - 1
local FOREVER = 3600
-- Seconds between two looks at what is left in a worker that is to end.
local ENDING = 0.25
-- Seconds that a connection which is to be closed may take to send its last bytes.
local LAST_WORDS = 1

local io = ffi.new("rpw_io_t")
local wait_ms = ffi.new("uint32_t[1]")
local rest_ms = ffi.new("uint32_t[1]")

-- By their numbers.
local connections = {}

local function check(rc)
    if rc < 0 then
        ngx_log(ngx.ERR, "wasm: ", last_error())
    end
end

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

local function wake(conn)
    if conn.semaphore:count() < 1 then
        conn.semaphore:post()
    end
end

-- Jobs had their share of the worker's time: nginx has a turn. Otherwise a server that sends, or takes, faster than the
-- worker works would never let it come to that.
local function rest(ms)
    update_time()
    sleep(ms / 1000)
end

-- Hands over what was received. Returns the milliseconds to rest.
local function received(conn, data, eof)
    rest_ms[0] = 0
    check(lib.rpw_grpc_receive(conn.id, data, #data, eof, rest_ms, error_slot))
    return rest_ms[0]
end

local function fail(conn, word, err)
    check(lib.rpw_grpc_failed(conn.id, word, #word, err, #err, error_slot))
    conn.broken = true
    wake(conn)
    conn.look()
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
                return fail(conn, "closed", err)
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

local function connect(conn)
    local sock, err = tcp()
    if not sock then
        return nil, "connect", err
    end
    conn.sock = sock
    sock:settimeouts(CONNECT_MS, LONGEST_MS, LONGEST_MS)
    local options = { pool = "wasm:grpc:" .. conn.id }
    local ok
    if conn.port then
        local host, failed, why = target(conn.id, 1, conn.host, conn.judged, CONNECT_MS)
        if not host then
            return nil, failed, why
        end
        ok, err = sock:connect(host, conn.port, options)
    else
        ok, err = sock:connect(conn.host, options)
    end
    if ok then
        return true
    end
    return nil, word_of(err, "connect"), err
end

local function receive(conn)
    local ok, word, err = connect(conn)
    if not ok then
        return fail(conn, word, err)
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
            return fail(conn, "closed", err)
        end
    end
end

local function finish(conn)
    local left = LAST_WORDS
    while conn.sending and not conn.broken and left > 0 do
        conn.semaphore:wait(0.05)
        left = left - 0.05
    end
    kill(conn.receiver)
    kill(conn.sender)
    if conn.sock then
        conn.sock:close()
    end
    connections[conn.id] = nil
end

local ended = false

local function end_soon(look)
    if not ended then
        ended = true
        check(lib.rpw_grpc_end_soon(error_slot))
        look()
    end
end

local function run(_, conn)
    conn.sender = spawn(send, conn)
    conn.receiver = spawn(receive, conn)
    while not conn.over and not conn.broken do
        if exiting() then
            end_soon(conn.look)
        end
        step(conn)
        conn.look()
        if not conn.over then
            conn.semaphore:wait(exiting() and min(conn.wait, ENDING) or conn.wait)
        end
    end
    finish(conn)
end

-- Guests may call Lua below these.
jit.off(step)
jit.off(received)
jit.off(fail)
jit.off(receive)

-- A worker that is to end runs its timers early, and waits for its light threads.
local WATCH = 86400
local watching = false

local function watch(premature, look)
    if premature then
        return end_soon(look)
    end
    watching = timer_at(WATCH, watch, look)
end

local _M = {}

-- Makes the connection of that number. `look` is called when there is work.
function _M.connect(id, host, port, judged, tls, look)
    if tls then
        trust.system()
    end
    local conn = {
        id = id,
        host = host,
        port = port,
        judged = judged,
        look = look,
        semaphore = semaphore.new(0),
        to_send = semaphore.new(0),
        wait = 0,
        rest_ms = 0,
    }
    connections[id] = conn
    if not watching and not exiting() then
        watching = timer_at(WATCH, watch, look)
    end
    local ok, err = timer_at(0, run, conn)
    if not ok then
        connections[id] = nil
        check(lib.rpw_grpc_failed(id, "connect", 7, err, #err, error_slot))
    end
end

jit.off(_M.connect)

-- The connection of that number has something to do.
function _M.wake(id)
    local conn = connections[id]
    if conn then
        wake(conn)
    end
end

return _M
